"""Real footage on a laptop: frozen features against end-to-end training, over folds.

    python tests/benchmarks/real_small.py CLIPS [--folds 0 1 2 3 4] [--systems NAME ...]
        [--seeds 0] [--out runs/real_small] [--json FILE] [--picture FILE] [--set KEY=VALUE ...]

CLIPS are UT-Interaction's; data_scripts/make_real_small.py joins them to videos, for each fold with
other recordings in the test. Frozen systems train on features that are extracted once, four times
per training video with other crops, flips and colours. Finished runs are kept: the same command
goes on where it stopped. FILE keeps what other calls measured, so that systems, folds and seeds can
be done in pieces; minutes are those of processor time, features and tests included. The picture
shows the first test video of the first fold without its frames, which may not be passed on.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from etadlite.base.files import read_json
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.presets import e2e_stickfigures, placed, real_small
from etadlite.runs.pictures import draw_test_videos
from etadlite.runs.run import finished
from etadlite.runs.side_by_side import report_of

SCRIPT = Path(__file__).resolve().parents[2] / "data_scripts" / "make_real_small.py"
FROZEN = ("data.features=features", "data.feature_views=4")
LONG = (*FROZEN, "training.test_every=0")
SHIFT = "encoder.temporal_shift=true"
LITE0 = {
    "frozen": FROZEN,
    "frozen, 125 epochs": (*LONG, "training.epochs=125"),
    "frozen, 375 epochs": (*LONG, "training.epochs=375"),
    "frozen, temporal shift": (*FROZEN, SHIFT),
    "end to end, 30 % of the snippets": (),
    "end to end, temporal shift": (SHIFT,),
    "end to end, feature bank": ("sampling.others=bank", "encoder.keep_prefix=graph"),
}
TINY = {
    "tiny, frozen": FROZEN,
    "tiny, frozen, 125 epochs": (*LONG, "training.epochs=125"),
    "tiny, end to end, 30 % of the snippets": (),
    "tiny, end to end, all snippets": ("sampling.snippet_ratio=1",),
}
SYSTEMS = LITE0 | TINY
WITHOUT_EYES = ("a constant detector", "one that knows the cuts")
KEYS = ("system", "fold", "seed")
Run = tuple[str, int, int]
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
    runs = read_runs(options.json)
    for fold in options.folds:
        data = options.out / f"fold{fold}" / "data"
        command = [sys.executable, SCRIPT, options.clips, data, "--fold", str(fold)]
        subprocess.run(command, check=True)
        for what, average in read_json(data / "without_eyes.json", "results").items():
            runs[what, fold, 0] = {"average_mAP": average}
        shown = {}
        for system, seed in itertools.product(options.systems, options.seeds):
            settings = settings_of(system, data, seed).changed(options.set)
            name = system.replace(",", "").replace(" ", "_").replace("%", "percent")
            folder = options.out / f"fold{fold}" / name / f"seed{seed}"
            kept, begun = finished(settings, folder), sum(os.times()[:4])
            report = report_of(settings, folder, f"fold {fold}: {system}", progress=True)
            run = {"average_mAP": report.average, "seconds_per_step": report.seconds_per_step}
            minutes = (sum(os.times()[:4]) - begun) / 60
            known = runs.get((system, fold, seed), {}).get("processor_minutes")
            if not kept or known is not None:
                run["processor_minutes"] = known if kept else minutes
            runs[system, fold, seed] = run
            shown[system] = read_json(folder / "predictions.json", "predictions of a run")
            rows = [dict(zip(KEYS, key, strict=True)) | run for key, run in sorted(runs.items())]
            write_report(options.json, {"runs": rows})  # what is done so far
        settings = settings_of("frozen", data, 0)
        draw_test_videos(settings, shown, options.out / f"fold{fold}")
        if options.picture and fold == options.folds[0]:
            without_frames = settings.changed({"data.videos": None})
            (drawn,) = draw_test_videos(without_frames, shown, options.out, count=1)
            drawn.replace(options.picture)
    about = machine()
    print(f"\naverage mAP 0.3-0.7 in %; {about['device']}, torch {about['versions']['torch']}")
    print(aligned(table_of(runs)))


def read_runs(path: Path | None) -> dict[Run, dict[str, float]]:
    """Return what an earlier call has measured; nothing without a file."""
    if path is None or not path.exists():
        return {}
    rows = read_json(path, "results")["runs"]
    return {tuple(row.pop(key) for key in KEYS): row for row in rows}


def table_of(runs: Mapping[Run, dict[str, float]]) -> list[list[str]]:
    """Return the table's rows: average mAP in % of each fold, mean and deviation, and costs.

    A fold's value is the mean of its seeds; the deviation is that between folds.
    """
    folds = sorted({fold for _, fold, _ in runs})
    rows = [["system", *(f"fold {fold}" for fold in folds), "mean", "seeds", "s/step", "minutes"]]
    for system in dict.fromkeys([*WITHOUT_EYES, *SYSTEMS]):
        own = {key[1:]: run for key, run in runs.items() if key[0] == system}
        if not own:
            continue
        scores = {fold: [] for fold in folds}
        for (fold, _), run in own.items():
            scores[fold].append(100 * run["average_mAP"])
        values = {fold: statistics.mean(found) for fold, found in scores.items() if found}
        mean = f"{statistics.mean(values.values()):.1f}"
        if len(values) > 1:
            mean += f" ± {statistics.stdev(values.values()):.1f}"
        costs = []
        for cost in ("seconds_per_step", "processor_minutes"):
            known = [run[cost] for run in own.values() if cost in run]
            costs.append(f"{statistics.median(known):.2f}" if known else "")
        each = [f"{values[fold]:.1f}" if fold in values else "" for fold in folds]
        rows.append([system, *each, mean, str(max(map(len, scores.values()))), *costs])
    return rows


if __name__ == "__main__":
    main()
