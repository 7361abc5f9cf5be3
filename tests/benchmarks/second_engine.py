"""The feature bank and low-rank adapters against encoding and training all, on generated videos.

    python tests/benchmarks/second_engine.py [--seeds 5] [--epochs 12] [--systems encode bank ...]
                                             [--size laptop] [--out FOLDER] [--json FILE]

    encode      e2e_stickfigures: 30 % of the snippets carry a gradient, all are encoded
    bank        the same with sampling.others=bank: the other snippets' features come from the bank
    once        bank with encoder.keep_prefix=graph: the snippets are encoded once, not twice
    fewer       once with sampling.snippet_ratio=0.2
    adapters    encode with encoder.train=adapters, at four times the learning rate
    head        encode with encoder.train=head
    both        bank and adapters
    frozen      stickfigures: on the features of the frozen encoder

Each run is a process of its own, which trains and tests in one go. Its seconds are processor time,
with the filling of the bank, the extraction of features and the test, so they hold beside other
work, too; with one thread on an idle machine they are its wall time. What an earlier call has
finished with the same settings is kept, and what it has not is begun anew. Printed are mAP, seconds
and memory, means and standard deviations over the seeds, the share of the seconds of `encode`, and
the share that each has of the gain of `encode` over `frozen`.

`--steps 20` only times so many steps of each system, which take turns, with the loading of their
videos: processor time, in some minutes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from report import machine, write_report

from etadlite.config import Settings
from etadlite.data.datasets import SampleKey, collate
from etadlite.memory.measurement import measure_step, peak_memory_bytes
from etadlite.memory.plan import plan
from etadlite.model.picks import Picks
from etadlite.model.system import System
from etadlite.prepare.extract import extract
from etadlite.presets import placed, preset
from etadlite.runs.run import finished, run_training
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.bank import bank_of
from etadlite.training.loop import make_optimizer, open_split
from etadlite.training.recorder import read_metrics
from etadlite.training.report import read_report
from etadlite.training.state import Progress
from etadlite.training.step import train_step

# Few parameters bear a higher rate than all of them.
ADAPTERS = ("encoder.train=adapters", "training.encoder_lr=0.002")
ONCE = ("sampling.others=bank", "encoder.keep_prefix=graph")
SYSTEMS = {  # a preset, assignments, and the number of seeds that are enough
    "encode": ("e2e_stickfigures", (), 5),
    "bank": ("e2e_stickfigures", ("sampling.others=bank",), 5),
    "once": ("e2e_stickfigures", ONCE, 5),
    "fewer": ("e2e_stickfigures", (*ONCE, "sampling.snippet_ratio=0.2"), 5),
    "frozen": ("stickfigures", (), 3),
    "adapters": ("e2e_stickfigures", ADAPTERS, 3),
    "head": ("e2e_stickfigures", ("encoder.train=head",), 3),
    "both": ("e2e_stickfigures", ("sampling.others=bank", *ADAPTERS), 3),
}
DEFAULT = ["encode", "bank", "frozen", "adapters"]


def settings_of(out: Path, system: str, seed: int, epochs: int) -> Settings:
    """Return the settings of a run."""
    name, own, _ = SYSTEMS[system]
    settings = placed(preset(name), out / "data")
    last = (f"training.epochs={epochs}", "training.test_every=0", "sampling.snippet_ratio=0.3")
    return settings.changed([f"seed={seed}", *last, *own])


def train(settings: Settings, folder: Path, clock: Path) -> None:
    """Train and test in this process, and write down what it took."""
    wall = time.perf_counter()
    if settings.data.features is not None:
        extract(settings, progress=False)
    run_training(settings, folder, progress=False)
    taken = {"seconds": time.process_time(), "wall": time.perf_counter() - wall}
    clock.write_text(json.dumps(taken | {"resident": peak_memory_bytes()}) + "\n")


def run_of(out: Path, system: str, seed: int, epochs: int) -> dict[str, float]:
    """Train and test one system with one seed, unless it is finished."""
    settings = settings_of(out, system, seed, epochs)
    folder, clock = out / system / f"seed{seed}", out / system / f"seed{seed}.json"
    if not (clock.exists() and finished(settings, folder)):
        shutil.rmtree(folder, ignore_errors=True)  # a part of a run has a part of the seconds
        if settings.data.features is not None:
            shutil.rmtree(settings.data.features, ignore_errors=True)
        command = [sys.executable, __file__, "--systems", system, "--epochs", str(epochs)]
        subprocess.run([*command, "--out", str(out), "--one", str(seed)], check=True)
    found = json.loads(clock.read_text(encoding="utf-8"))
    steps = [record for record in read_metrics(folder) if "bank_age" in record]
    for name in ("bank_age", "bank_drift") if steps else ():
        found[name] = mean(record[name] for record in steps[-len(steps) // epochs :])
    report = read_report(folder)
    found |= {"mAP": 100 * report.average, "seconds_per_step": report.seconds_per_step}
    print(f"{system}, seed {seed}: {found['mAP']:.1f} mAP, {found['seconds']:.0f} s", flush=True)
    return found


def time_steps(out: Path, systems: list[str], turns: int) -> dict[str, dict[str, float]]:
    """Median processor seconds of loading and of a step; the first three turns do not count."""
    work, taken = {}, {system: [] for system in systems}
    for system in systems:
        settings = settings_of(out, system, 0, 1).changed(["training.precision=fp32"])
        torch.manual_seed(0)
        trained = System(settings).train()
        data, bank = open_split(settings, training=True), None
        if settings.sampling.others == "bank":
            bank, data.picks = bank_of(settings, len(data), Progress()), Picks(settings)
            bank.make(None)
            features = torch.randn(1, settings.detector.in_channels, settings.data.snippets)
            bank.put(range(len(data)), features.expand(len(data), -1, -1))
        work[system] = settings, data, trained, make_optimizer(trained, settings.training), bank
    for turn in range(turns + 3):
        for system, (settings, data, trained, optimizer, bank) in work.items():
            begun = time.process_time()
            keys = [SampleKey(2 * (turn % 3) + n, turn) for n in range(2)]  # from the cache at last
            batch = collate([data[key] for key in keys])
            loaded = time.process_time()
            train_step(trained, batch, optimizer, settings, bank)
            taken[system].append((loaded - begun, time.process_time() - loaded))
    medians = {system: [median(c) for c in zip(*t[3:], strict=True)] for system, t in taken.items()}
    print(f"{'':<10}{'loading':>12}{'step':>12}{'share':>8}")
    for system, (loading, step) in medians.items():
        share = (loading + step) / sum(medians[systems[0]])
        print(f"{system:<10}{1000 * loading:9.1f} ms{1000 * step:9.1f} ms{share:8.0%}")
    return {system: dict(zip(("loading", "step"), t, strict=True)) for system, t in medians.items()}


def memory_of(out: Path, system: str) -> dict[str, int]:
    """Return the bytes of a step, predicted and measured."""
    settings = settings_of(out, system, 0, 1).changed(["device=cpu", "training.precision=fp32"])
    return {"predicted": plan(settings).rows.total, "measured": measure_step(settings).rows.total}


def row(system: str, runs: list[dict[str, float]], memory: dict[str, int], means: dict) -> str:
    """One line of the table."""

    def spread(name: str, digits: int) -> str:
        values = [run[name] for run in runs]
        beside = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{beside}"

    share = gain = ""
    if "encode" in means:
        share = f"{means[system]['seconds'] / means['encode']['seconds']:.0%}"
        if "frozen" in means:
            lowest = means["frozen"]["mAP"]
            gain = f"{(means[system]['mAP'] - lowest) / (means['encode']['mAP'] - lowest):.0%}"
    stale = ""
    if "bank_age" in runs[0]:
        stale = f"  age {spread('bank_age', 2)} epochs, drift {spread('bank_drift', 3)}"
    held = "/".join(f"{memory[name] / 2**20:.1f}" for name in ("predicted", "measured"))
    return (
        f"{system:<10}{len(runs):5}{spread('mAP', 1):>14}{gain:>7}{spread('seconds', 0):>14}"
        f"{share:>7}{held:>14} MiB{stale}"
    )


def main() -> None:
    """Train, test and report."""
    parser = argparse.ArgumentParser(description="Feature bank and adapters on generated videos.")
    parser.add_argument("--seeds", type=int, default=5, help="At most so many of each system.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT)
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--out", type=Path, default=Path("runs/second_engine"))
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--steps", type=int, help="only time so many steps of each system")
    parser.add_argument("--one", type=int, help="only train, with this seed, in this process")
    given = parser.parse_args()
    if given.one is not None:
        folder = given.out / given.systems[0]
        settings = settings_of(given.out, given.systems[0], given.one, given.epochs)
        train(settings, folder / f"seed{given.one}", folder / f"seed{given.one}.json")
        return
    about = machine()
    print(f"{about['device']}, {about['threads']} threads, torch {about['versions']['torch']}")
    make_dataset(given.out / "data", given.size)
    if given.steps is not None:
        on_videos = [s for s in given.systems if s != "frozen"]
        write_report(given.json, {"steps": time_steps(given.out, on_videos, given.steps)})
        return
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in given.systems}
    for seed in range(given.seeds):  # the systems take turns, so that all meet the same load
        for system in given.systems:
            if seed < SYSTEMS[system][2]:
                found[system].append(run_of(given.out, system, seed, given.epochs))
    memory = {system: memory_of(given.out, system) for system in given.systems}
    print(f"{'':<10}seeds{'average mAP':>14}{'gain':>7}{'seconds':>14}{'share':>7}{'a step':>18}")
    means = {
        system: {name: mean(run[name] for run in runs) for name in ("mAP", "seconds")}
        for system, runs in found.items()
    }
    for system, runs in found.items():
        print(row(system, runs, memory[system], means))
    write_report(given.json, {"epochs": given.epochs, "runs": found, "memory": memory})


if __name__ == "__main__":
    main()
