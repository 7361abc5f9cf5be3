"""The paper's study on a laptop: every sampling strategy and ratio on the generated videos."""

from collections.abc import Sequence
from pathlib import Path

from etadlite.base.errors import InputError, never_fatal
from etadlite.base.files import write_json, written_whole
from etadlite.config import Settings
from etadlite.prepare.doctor import examine
from etadlite.runs.demo import demo_settings
from etadlite.runs.side_by_side import report_of
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES
from etadlite.sampling.snippets import SNIPPET_STRATEGIES
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.report import RunReport, report_record, results_table
from etadlite.viz.ablation import Reports, draw_ablation
from etadlite.viz.style import save

ALL = "all"  # the strategy at ratio 1, where there is nothing to choose
SYSTEM = "end to end, 30 % of the snippets"  # the system of the demo that is varied
STRATEGIES = {"snippets": tuple(SNIPPET_STRATEGIES), "proposals": tuple(PROPOSAL_STRATEGIES)}
RATIOS = {"snippets": (0.1, 0.3, 0.6, 1.0), "proposals": (0.05, 0.25, 0.5, 1.0)}


def run_ablation(
    what: str,
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

    `what` is sampled: snippets or proposals, by default with all strategies at `RATIOS`; at ratio 1
    they are one run, `ALL`. Everything is written into `out` and kept as by `run_demo`: OUT/data,
    OUT/WHAT/STRATEGY_RATIO/SEED and, anew after every seed, the comparison OUT/WHAT.txt, .json and
    .png. `assignments` change all runs.

    Raises:
        InputError: an unknown strategy, a ratio out of range, or a change of a varied setting.
    """
    if what not in STRATEGIES:
        raise InputError(f'there is no ablation of "{what}"; there are {", ".join(STRATEGIES)}')
    if wrong := [ratio for ratio in ratios if not 0 < ratio <= 1]:
        raise InputError(f"a ratio must be above 0 and at most 1, not {wrong[0]:g}")
    ratios = sorted(set(ratios or RATIOS[what]))
    names = [f"sampling.{what.removesuffix('s')}_{part}" for part in ("strategy", "ratio")]
    for name in (assignment.partition("=")[0] for assignment in assignments):
        if name in (*names, "seed"):
            raise InputError(f"{name} is varied here: use --strategies, --ratios and --seeds")

    def settings_of(strategy: str, ratio: float, seed: int) -> Settings:
        values = ("random" if strategy == ALL else strategy, ratio)
        varied = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        return demo_settings(SYSTEM, out / "data", seed, [*assignments, *varied])

    strategies = tuple(dict.fromkeys(strategies or STRATEGIES[what]))
    for strategy in strategies:
        settings_of(strategy, ratios[0], 0)  # so that a wrong one is refused at the start
    kinds = [(strategy, ratio) for strategy in strategies for ratio in ratios if ratio < 1]
    kinds += [(ALL, ratio) for ratio in ratios if ratio == 1]
    make_dataset(out / "data", size, progress=progress)
    machine = {finding.what: finding.found for finding in examine(out)}
    reports: dict[tuple[str, float], list[RunReport]] = {kind: [] for kind in kinds}
    for seed in seeds:
        for strategy, ratio in kinds:
            settings = settings_of(strategy, ratio, seed)
            folder = out / what / f"{strategy}_{ratio:g}" / f"seed{seed}"
            report = report_of(settings, folder, _name(strategy, ratio), progress=progress)
            reports[strategy, ratio].append(report)
        _write(what, reports, out, machine)
    return reports


def ablation_table(reports: Reports) -> str:
    """Return all strategies and ratios as a table, see `results_table`."""
    return results_table({_name(*kind): runs for kind, runs in reports.items()})


def _write(what: str, reports: Reports, out: Path, machine: dict[str, str]) -> None:
    with written_whole(out / f"{what}.txt") as draft:
        draft.write_text(ablation_table(reports) + "\n", encoding="utf-8")
    runs = [
        {"strategy": strategy, "ratio": ratio, "seed": int(run.folder.name.removeprefix("seed"))}
        | report_record(run)
        for (strategy, ratio), found in reports.items()
        for run in found
    ]
    write_json(out / f"{what}.json", {"machine": machine, "runs": runs})
    with never_fatal("the picture"):
        save(draw_ablation(reports, title=f"Sampled {what}"), out / f"{what}.png")


def _name(strategy: str, ratio: float) -> str:
    return strategy if strategy == ALL else f"{strategy} {ratio:g}"
