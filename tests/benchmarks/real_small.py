"""Real footage on a laptop: frozen features against end-to-end training, over folds.

    python tests/benchmarks/real_small.py CLIPS [--folds 0 1 2 3 4] [--systems NAME ...]
        [--out runs/real_small] [--json FILE] [--set KEY=VALUE ...]

CLIPS are UT-Interaction's; data_scripts/make_real_small.py joins them to videos, for each fold with
other recordings in the test. Finished runs are kept: the same command goes on where it stopped.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from report import machine, write_report

from etadlite.base.files import read_json
from etadlite.base.tables import aligned
from etadlite.presets import placed, preset
from etadlite.runs.demo import report_of

SCRIPT = Path(__file__).resolve().parents[2] / "data_scripts" / "make_real_small.py"
SYSTEMS = {
    "frozen": ("sampling.snippet_ratio=0", "encoder.temporal_shift=false"),
    "frozen, temporal shift": ("sampling.snippet_ratio=0",),
    "end to end, 30 % of the snippets": (),
    "end to end, no temporal shift": ("encoder.temporal_shift=false",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=range(5))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS)[::2])
    parser.add_argument("--out", type=Path, default=Path("runs/real_small"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--set", nargs="+", default=[], help="changes to all systems")
    options = parser.parse_args()
    found: dict[str, dict[int, float]] = {}
    seconds: dict[str, list[float]] = {}
    for fold in options.folds:
        data = options.out / f"fold{fold}" / "data"
        command = [sys.executable, SCRIPT, options.clips, data, "--fold", str(fold)]
        subprocess.run(command, check=True)
        for what, average in read_json(data / "without_eyes.json", "results").items():
            found.setdefault(what, {})[fold] = average
        for system in options.systems:
            changes = (*SYSTEMS[system], *options.set)
            settings = placed(preset("real_small"), data).changed(changes)
            folder = options.out / f"fold{fold}" / system.replace(" ", "_").replace("%", "percent")
            report = report_of(settings, folder, f"fold {fold}: {system}", progress=True)
            found.setdefault(system, {})[fold] = report.average
            seconds.setdefault(system, []).append(report.seconds_per_step)
    rows = [["system", *(f"fold {fold}" for fold in options.folds), "mean", "s/step"]]
    for system, scores in found.items():
        values = [100 * score for score in scores.values()]
        mean = f"{statistics.mean(values):.1f}"
        if len(values) > 1:
            mean += f" ± {statistics.stdev(values):.1f}"
        step = f"{statistics.median(seconds[system]):.2f}" if system in seconds else ""
        rows.append([system, *(f"{value:.1f}" for value in values), mean, step])
    about = machine()
    print(f"\naverage mAP 0.3-0.7 in %; {about['device']}, torch {about['versions']['torch']}")
    print(aligned(rows))
    write_report(options.json, {"average_mAP": found, "seconds_per_step": seconds})


if __name__ == "__main__":
    main()
