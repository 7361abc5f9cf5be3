"""The paper's study on a laptop: every sampling strategy and ratio on the generated videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from etadlite.base.errors import InputError
from etadlite.base.files import write_json, written_whole
from etadlite.config import Settings
from etadlite.prepare.doctor import examine
from etadlite.runs.demo import demo_settings
from etadlite.runs.run import finished, run_training
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES
from etadlite.sampling.snippets import SNIPPET_STRATEGIES
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.report import RunReport, read_report, report_record, table
from etadlite.viz.ablation import draw_ablation
from etadlite.viz.style import save

Reports = dict[str, dict[float, list[RunReport]]]
"""Strategy -> ratio -> one report a seed. At ratio 1 there is nothing to choose: `ALL`."""

ALL = "all"
SYSTEM = "end to end, 30 % of the snippets"  # of the demo; what is varied goes on top
STRATEGIES = {"snippets": tuple(SNIPPET_STRATEGIES), "proposals": tuple(PROPOSAL_STRATEGIES)}
RATIOS = {"snippets": (0.1, 0.3, 0.6, 1.0), "proposals": (0.05, 0.25, 0.5, 1.0)}


def run_ablation(
    what: Literal["snippets", "proposals"],
    out: Path,
    *,
    size: str = "laptop",
    seeds: Sequence[int] = (0,),
    ratios: Sequence[float] = (),
    strategies: Sequence[str] = (),
    assignments: Sequence[str] = (),
    progress: bool = True,
) -> Reports:
    """Train and test `e2e_stickfigures` with every strategy, ratio and seed, and compare.

    What an earlier call finished with the same settings is kept, so an interrupted study goes on.
    Table, numbers and picture are written anew after every seed: OUT/WHAT.txt, .json and .png.

    Args:
        what: is sampled: snippets or proposals.
        out: folder for everything: OUT/data, OUT/WHAT/STRATEGY_RATIO/SEED and the comparison.
        size: of the generated data set.
        seeds: one run a seed; the videos stay the same.
        ratios: above 0 and at most 1; none: `RATIOS`. At 1 all strategies are the same run.
        strategies: none: all.
        assignments: changes to the settings of all runs.
        progress: show bars.

    Raises:
        InputError: a strategy or a ratio that there is not, or a setting that is varied anyway.
    """
    strategies = tuple(dict.fromkeys(strategies or STRATEGIES[what]))
    ratios = sorted(set(ratios or RATIOS[what]))
    _check(what, strategies, ratios, assignments)
    make_dataset(out / "data", size, progress=progress)
    machine = {finding.what: finding.found for finding in examine(out)}
    reports: Reports = {}
    for seed in seeds:
        for ratio in ratios:
            for strategy in strategies if ratio < 1 else (ALL,):
                chosen = [f"{k}={v}" for k, v in _varied(what, strategy, ratio).items()]
                settings = demo_settings(SYSTEM, out / "data", seed, [*assignments, *chosen])
                folder = out / what / f"{strategy}_{ratio:g}" / f"seed{seed}"
                report = _report(settings, folder, progress=progress)
                reports.setdefault(strategy, {}).setdefault(ratio, []).append(report)
                print(
                    f"{_name(strategy, ratio)}, seed {seed}: average mAP "
                    f"{100 * report.average:.1f} %",
                    flush=True,
                )
        _write(what, reports, out, machine)
    return reports


def ablation_table(reports: Reports) -> str:
    """All strategies and ratios as text: mAP as mean ± deviation, memory, seconds a step."""
    return table(
        {
            _name(strategy, ratio): runs
            for strategy, of_ratio in reports.items()
            for ratio, runs in of_ratio.items()
        }
    )


def _check(
    what: str, strategies: Sequence[str], ratios: Sequence[float], assignments: Sequence[str]
) -> None:
    for strategy in strategies:
        if strategy not in STRATEGIES[what]:
            raise InputError(
                f'there is no strategy "{strategy}" for {what}; there are '
                f"{', '.join(STRATEGIES[what])}"
            )
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise InputError(f"a ratio must lie above 0 and at most at 1, not {ratio:g}")
    for assignment in assignments:
        name = assignment.partition("=")[0]
        if name in (*_varied(what, ALL, 1), "seed"):
            raise InputError(f"{name} is varied here: use --strategies, --ratios and --seeds")


def _varied(what: str, strategy: str, ratio: float) -> dict[str, str | float]:
    """The settings that a run has to itself."""
    unit = what.removesuffix("s")
    return {
        f"sampling.{unit}_strategy": "random" if strategy == ALL else strategy,
        f"sampling.{unit}_ratio": ratio,
    }


def _report(settings: Settings, folder: Path, *, progress: bool) -> RunReport:
    """One run, or what it left when it was finished before."""
    if not finished(settings, folder):
        run_training(settings, folder, progress=progress)
    return read_report(folder)


def _write(what: str, reports: Reports, out: Path, machine: dict[str, str]) -> None:
    with written_whole(out / f"{what}.txt") as draft:
        draft.write_text(ablation_table(reports) + "\n", encoding="utf-8")
    runs: list[dict[str, Any]] = [
        {"strategy": strategy, "ratio": ratio, "seed": int(run.folder.name.removeprefix("seed"))}
        | report_record(run)
        for strategy, of_ratio in reports.items()
        for ratio, found in of_ratio.items()
        for run in found
    ]
    write_json(out / f"{what}.json", {"machine": machine, "runs": runs})
    save(draw_ablation(reports, title=f"Sampled {what}"), out / f"{what}.png")


def _name(strategy: str, ratio: float) -> str:
    return strategy if strategy == ALL else f"{strategy} {ratio:g}"
