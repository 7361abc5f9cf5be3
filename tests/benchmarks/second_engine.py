"""The feature bank and low-rank adapters against encoding and training all, on generated videos.

    python tests/benchmarks/second_engine.py [--seeds 5] [--epochs 12] [--systems encode bank ...]
                                             [--size laptop] [--out FOLDER] [--json FILE]

    encode      e2e_stickfigures: 30 % of the snippets carry a gradient, all are encoded
    bank        the same with sampling.others=bank: the other snippets' features come from the bank
    adapters    encode with encoder.train=adapters
    both        bank and adapters

Each run is trained and tested in one go, and its seconds include the filling of the bank and the
test. What an earlier call has finished with the same settings is kept. Printed are mAP and seconds,
means and standard deviations over the seeds, and the share of the seconds of `encode`.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from report import machine, write_report

from etadlite.presets import placed, preset
from etadlite.runs.run import finished, run_training
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.recorder import read_metrics
from etadlite.training.report import read_report

SYSTEMS = {
    "encode": (),
    "bank": ("sampling.others=bank",),
    "adapters": ("encoder.train=adapters",),
    "both": ("sampling.others=bank", "encoder.train=adapters"),
}


def run_of(out: Path, system: str, seed: int, epochs: int) -> dict[str, float]:
    """Train and test one system with one seed, unless it is finished."""
    settings = placed(preset("e2e_stickfigures"), out / "data")
    last = (f"training.epochs={epochs}", "training.test_every=0", "sampling.snippet_ratio=0.3")
    settings = settings.changed([f"seed={seed}", *last, *SYSTEMS[system]])
    folder, clock = out / system / f"seed{seed}", out / system / f"seed{seed}.json"
    if not (clock.exists() and finished(settings, folder)):
        started = time.perf_counter()
        run_training(settings, folder)
        seconds = {"seconds": time.perf_counter() - started}
        clock.write_text(json.dumps(seconds) + "\n", encoding="utf-8")
    found = json.loads(clock.read_text(encoding="utf-8"))
    steps = [record for record in read_metrics(folder) if "bank_age" in record]
    for name in ("bank_age", "bank_drift") if steps else ():
        found[name] = mean(record[name] for record in steps[-len(steps) // epochs :])
    report = read_report(folder)
    return found | {"mAP": 100 * report.average, "seconds_per_step": report.seconds_per_step}


def row(system: str, runs: list[dict[str, float]], base: float | None) -> str:
    """One line of the table."""

    def spread(name: str, digits: int) -> str:
        values = [run[name] for run in runs]
        beside = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{beside}"

    share = f"{mean(run['seconds'] for run in runs) / base:8.0%}" if base else f"{'':8}"
    stale = ""
    if "bank_age" in runs[0]:
        stale = f"  age {spread('bank_age', 2)} epochs, drift {spread('bank_drift', 3)}"
    return f"{system:<10}{spread('mAP', 1):>14}{spread('seconds', 0):>14} s{share}{stale}"


def main() -> None:
    """Train, test and report."""
    parser = argparse.ArgumentParser(description="Feature bank and adapters on generated videos.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--out", type=Path, default=Path("runs/second_engine"))
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    given = parser.parse_args()
    about = machine()
    print(f"{about['device']}, {about['threads']} threads, torch {about['versions']['torch']}")
    make_dataset(given.out / "data", given.size)
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in given.systems}
    for seed in range(given.seeds):  # the systems take turns, so that all meet the same load
        for system in given.systems:
            found[system].append(run_of(given.out, system, seed, given.epochs))
    print(f"{'':<10}{'average mAP':>14}{'wall time':>16}   share")
    base = mean(run["seconds"] for run in found["encode"]) if "encode" in found else None
    for system, runs in found.items():
        print(row(system, runs, base))
    write_report(given.json, {"epochs": given.epochs, "runs": found})


if __name__ == "__main__":
    main()
