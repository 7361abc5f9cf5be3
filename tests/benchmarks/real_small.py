"""Real footage on a laptop: frozen features against end-to-end training, over folds.

    python tests/benchmarks/real_small.py CLIPS [--folds 0 1 2 3 4] [--systems NAME ...]
        [--seeds 0] [--out runs/real_small] [--json FILE] [--picture FILE] [--set KEY=VALUE ...]

CLIPS are UT-Interaction's; data_scripts/make_real_small.py joins them to videos, for each fold with
other recordings in the test. Frozen systems train on features that are extracted once, four times
per training video with other crops, flips and colours. Finished runs are kept: the same command
goes on where it stopped. The picture shows the first test video of the first fold without its
frames, which may not be passed on.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from etadlite.base.files import read_json
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.presets import e2e_stickfigures, placed, real_small
from etadlite.runs.demo import report_of
from etadlite.runs.pictures import draw_test_videos

SCRIPT = Path(__file__).resolve().parents[2] / "data_scripts" / "make_real_small.py"
FROZEN = ("data.features=features", "data.feature_views=4")
SHIFT = "encoder.temporal_shift=true"
LITE0 = {
    "frozen": FROZEN,
    "frozen, as many minutes": (*FROZEN, "training.epochs=100", "training.test_every=0"),
    "frozen, temporal shift": (*FROZEN, SHIFT),
    "end to end, 30 % of the snippets": (),
    "end to end, temporal shift": (SHIFT,),
}
TINY = {
    "tiny, frozen": FROZEN,
    "tiny, end to end, 30 % of the snippets": (),
    "tiny, end to end, all snippets": ("sampling.snippet_ratio=1",),
}
SYSTEMS = LITE0 | TINY
COMPARED = ["frozen", "end to end, 30 % of the snippets"]


def settings_of(system: str, data: Path, seed: int) -> Settings:
    """Return the settings of a system on the videos in `data`."""
    settings = placed(real_small(), data)
    if system in TINY:
        tiny = e2e_stickfigures()
        own = {key: getattr(tiny.data, key) for key in ("frames", "decode_size", "crop")}
        own |= {"snippets": 64, "frame_step": 1, "cache": data / "frames_tiny"}
        shared = settings.data.model_dump() | own
        settings = tiny.changed({f"data.{key}": value for key, value in shared.items()})
        classes = real_small().detector.classes
        settings = settings.changed({"detector.classes": classes, "training.epochs": 25})
    settings = settings.changed([f"seed={seed}", *SYSTEMS[system]])
    if settings.data.features is not None:
        kind = "tiny" if system in TINY else f"shift_{settings.encoder.temporal_shift}".lower()
        settings = settings.changed({"data.features": data / f"features_{kind}"})
    return settings


def main() -> None:
    """Train, test and compare the systems."""
    from report import machine, write_report  # beside this file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=range(5))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=COMPARED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/real_small"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--set", nargs="+", default=[], help="changes to all systems")
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}  # of each fold: one average mAP per seed
    seconds: dict[str, list[float]] = {}
    minutes: dict[str, list[float]] = {}
    for fold in options.folds:
        data = options.out / f"fold{fold}" / "data"
        command = [sys.executable, SCRIPT, options.clips, data, "--fold", str(fold)]
        subprocess.run(command, check=True)
        for what, average in read_json(data / "without_eyes.json", "results").items():
            found.setdefault(what, []).append([average])
        shown = {}
        for system in options.systems:
            found.setdefault(system, []).append([])
            for seed in options.seeds:
                settings = settings_of(system, data, seed).changed(options.set)
                name = system.replace(",", "").replace(" ", "_").replace("%", "percent")
                folder = options.out / f"fold{fold}" / name / f"seed{seed}"
                report = report_of(settings, folder, f"fold {fold}: {system}", progress=True)
                found[system][-1].append(report.average)
                seconds.setdefault(system, []).append(report.seconds_per_step)
                steps = settings.training.epochs * steps_per_epoch(settings)
                minutes.setdefault(system, []).append(report.seconds_per_step * steps / 60)
            shown[system] = read_json(folder / "predictions.json", "predictions of a run")
        settings = settings_of("frozen", data, 0)
        draw_test_videos(settings, shown, options.out / f"fold{fold}")
        if options.picture and fold == options.folds[0]:
            without_frames = settings.changed({"data.videos": None})
            (drawn,) = draw_test_videos(without_frames, shown, options.out, count=1)
            drawn.replace(options.picture)
    about = machine()
    print(f"\naverage mAP 0.3-0.7 in %; {about['device']}, torch {about['versions']['torch']}")
    print(aligned(table_of(found, seconds, minutes, options.folds)))
    costs = {"seconds_per_step": seconds, "minutes_of_training": minutes}
    write_report(options.json, {"average_mAP": found} | costs)


def table_of(
    found: dict[str, list[list[float]]],
    seconds: dict[str, list[float]],
    minutes: dict[str, list[float]],
    folds: Sequence[int],
) -> list[list[str]]:
    """Return the table's rows: average mAP in % of each fold, mean and deviation, and costs."""
    rows = [["system", *(f"fold {fold}" for fold in folds), "mean", "s/step", "minutes"]]
    for system, of_folds in found.items():
        values = [100 * statistics.mean(scores) for scores in of_folds]
        mean = f"{statistics.mean(values):.1f}"
        if len(values) > 1:
            mean += f" ± {statistics.stdev(values):.1f}"
        cost = ["", ""]
        if system in seconds:
            medians = (statistics.median(of[system]) for of in (seconds, minutes))
            cost = [f"{median:.2f}" for median in medians]
        rows.append([system, *(f"{value:.1f}" for value in values), mean, *cost])
    return rows


def steps_per_epoch(settings: Settings) -> int:
    """Return the steps of an epoch."""
    database = read_json(settings.data.annotations, "annotations")["database"]
    videos = sum(video["subset"] == "training" for video in database.values())
    return -(-videos // settings.training.batch_size)


if __name__ == "__main__":
    main()
