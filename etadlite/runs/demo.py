"""The whole idea in one comparison: frozen features against end-to-end training."""

import json
from collections.abc import Sequence
from pathlib import Path

from etadlite.base.devices import resolve_device
from etadlite.config import Settings
from etadlite.model.system import build_encoder
from etadlite.prepare.extract import extract_features
from etadlite.presets import preset
from etadlite.runs.run import compare, draw_test_videos, finished, run_training
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.report import RunReport, read_report, table

SYSTEMS = {
    "feature-based": ("stickfigures", ()),
    "end to end, 30 % of the snippets": ("e2e_stickfigures", ("sampling.snippet_ratio=0.3",)),
    "end to end, all snippets": ("e2e_stickfigures", ("sampling.snippet_ratio=1.0",)),
}
"""What is compared: name -> preset and assignments."""


def demo_settings(system: str, data: Path, seed: int, assignments: Sequence[str] = ()) -> Settings:
    """Settings of one of the compared systems on the generated videos in `data`."""
    name, own = SYSTEMS[system]
    folders = [
        f"data.annotations={data / 'annotations.json'}",
        f"data.videos={data / 'videos'}",
        f"data.cache={data / 'frames'}",
        f"seed={seed}",
    ]
    if name == "stickfigures":
        folders.append(f"data.features={data / 'features'}")
    return preset(name, [*folders, *own, *assignments])


def run_demo(
    out: Path,
    *,
    size: str = "laptop",
    seeds: Sequence[int] = (0,),
    assignments: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, list[RunReport]]:
    """Make the videos, train and test every system with every seed, and draw the comparison.

    What an earlier call finished with the same settings is kept: data, features and runs.

    Args:
        out: folder for everything: OUT/data, OUT/SYSTEM/SEED, OUT/pictures, OUT/table.txt.
        size: of the generated data set.
        seeds: one run of every system a seed; the videos stay the same.
        assignments: changes to the settings of all systems.
        progress: show bars.

    Returns:
        System -> one report a seed.
    """
    data = out / "data"
    make_dataset(data, size, progress=progress)
    reports: dict[str, list[RunReport]] = {system: [] for system in SYSTEMS}
    for seed in seeds:
        for system in SYSTEMS:
            settings = demo_settings(system, data, seed, assignments)
            folder = out / _folder_name(system) / f"seed{seed}"
            if not finished(settings, folder):
                _run(settings, folder, progress=progress)
            reports[system].append(read_report(folder))
            score = 100 * reports[system][-1].average
            print(f"{system}, seed {seed}: average mAP {score:.1f} %", flush=True)
    folders = {system: seeds_of[0].folder for system, seeds_of in reports.items()}
    compare(folders, out / "pictures" / "curves.png")
    predictions = {
        system: json.loads((folder / "predictions.json").read_text())
        for system, folder in folders.items()
    }
    draw_test_videos(settings, predictions, out / "pictures")
    (out / "table.txt").write_text(table(reports) + "\n")
    return reports


def _run(settings: Settings, folder: Path, *, progress: bool) -> None:
    """Train and test one system; features are extracted first where it takes features."""
    if settings.data.features is not None:
        encoder = build_encoder(settings.encoder).to(resolve_device(settings.device))
        extract_features(settings, encoder, settings.data.features, progress=progress)
    run_training(settings, folder, progress=progress)


def _folder_name(system: str) -> str:
    return system.replace(" %", "_percent").replace(",", "").replace(" ", "_")
