"""The idea of the method in one comparison: frozen features against end-to-end training."""

from collections.abc import Sequence
from pathlib import Path

from etadlite.base.errors import never_fatal
from etadlite.base.files import read_json
from etadlite.config import Settings
from etadlite.presets import placed, preset
from etadlite.runs.pictures import draw_run_curves, draw_test_videos
from etadlite.runs.side_by_side import Job, reports_of
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.report import RunReport, results_table

SYSTEMS = {  # that are compared: name -> preset and assignments
    "feature-based": ("stickfigures", ()),
    "end to end, 30 % of the snippets": ("e2e_stickfigures", ("sampling.snippet_ratio=0.3",)),
    "end to end, all snippets": ("e2e_stickfigures", ("sampling.snippet_ratio=1.0",)),
}


def demo_settings(system: str, data: Path, seed: int, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings of one of the compared systems on the generated videos in `data`."""
    name, own = SYSTEMS[system]
    return placed(preset(name), data).changed([f"seed={seed}", *own, *assignments])


def run_demo(
    out: Path,
    *,
    size: str = "laptop",
    seeds: Sequence[int] = (0,),
    assignments: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, list[RunReport]]:
    """Make the videos, train and test every system with every seed, and draw the comparison.

    Runs stand side by side, see `reports_of`. Everything is written into `out`: OUT/data,
    OUT/SYSTEM/SEED, OUT/pictures and OUT/table.txt. What an earlier call finished with the same
    settings is kept. All seeds see the same videos, a data set of the `size`; `assignments` change
    all systems. Returns system -> a report per seed.
    """
    data = out / "data"
    make_dataset(data, size, progress=progress)
    jobs: list[Job] = []
    for system in SYSTEMS:
        name = system.replace(" %", "_percent").replace(",", "").replace(" ", "_")
        for seed in seeds:
            settings = demo_settings(system, data, seed, assignments)
            jobs.append((settings, out / name / f"seed{seed}", system))
    reports: dict[str, list[RunReport]] = {system: [] for system in SYSTEMS}
    for report, (_, _, system) in zip(reports_of(jobs, progress=progress), jobs, strict=True):
        reports[system].append(report)
    folders = {system: of_seeds[0].folder for system, of_seeds in reports.items()}
    files = {system: folder / "predictions.json" for system, folder in folders.items()}
    predictions = {name: read_json(file, "predictions of a run") for name, file in files.items()}
    with never_fatal("the pictures"):
        draw_run_curves(folders, out / "pictures" / "curves.png")
        draw_test_videos(settings, predictions, out / "pictures")
    (out / "table.txt").write_text(results_table(reports) + "\n")
    return reports
