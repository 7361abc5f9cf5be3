"""The whole idea in one comparison: frozen features against end-to-end training."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from etadlite.config import Settings
from etadlite.data.stickfigures import make_dataset
from etadlite.encoders.extract import extract_features
from etadlite.presets import preset
from etadlite.report import RunReport
from etadlite.runs import compare, draw_test_videos, run_training
from etadlite.training.system import build_encoder, resolve_device

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

    Args:
        out: folder for everything: OUT/data, OUT/SYSTEM/SEED, OUT/pictures.
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
            started = time.perf_counter()
            settings = demo_settings(system, data, seed, assignments)
            if settings.data.features is not None:
                encoder = build_encoder(settings.encoder).to(resolve_device(settings.device))
                extract_features(settings, encoder, settings.data.features, progress=progress)
            folder = out / system.replace(" ", "_").replace("%", "percent").replace(",", "")
            folder = folder / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            reports[system].append(run_training(settings, folder, progress=progress))
            print(
                f"{system}, seed {seed}: average mAP {100 * reports[system][-1].average:.1f} "
                f"in {time.perf_counter() - started:.0f} s"
            )
    folders = {system: seeds_of[0].folder for system, seeds_of in reports.items()}
    compare(folders, out / "pictures" / "curves.png")
    predictions = {
        system: json.loads((folder / "predictions.json").read_text())
        for system, folder in folders.items()
    }
    draw_test_videos(settings, predictions, out / "pictures")
    return reports
