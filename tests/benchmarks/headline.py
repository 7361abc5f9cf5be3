"""Frozen, trained on labelled snippets, end to end; 64 and 128 cells; generated videos; seeds.

    python tests/benchmarks/headline.py [--seeds 0 1 2] [--cells 64 128] [--systems frozen ...]
        [--size laptop] [--out FOLDER] [--json FILE] [--set KEY=VALUE ...]

    frozen      stickfigures: the features of the shipped encoder, which has seen studio clips only
    labelled    the cheap alternative: the encoder first learns to classify labelled snippets of the
                training videos, and is then frozen; the detector trains on its features
    end to end  e2e_stickfigures: detector and encoder learn together, from 30 % of the snippets
    both        end to end, from the encoder of `labelled`

All systems have the same videos, augmentation, detector and number of epochs. Finished runs are
kept, and a training that was stopped goes on: the same command goes on where it stopped. FILE keeps
what other calls measured, so that the table can be made in pieces, a system and a seed in each:

    python tests/benchmarks/headline.py --systems labelled --cells 128 --seeds 0
        --json tests/benchmarks/results/headline.json

Printed are average mAP, and the minutes of processor time that training, features and test take
together; those of a run that was stopped are only what its last call took.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from report import machine, write_report
from torch import Tensor, nn

from etadlite.base.files import read_json
from etadlite.base.tables import aligned
from etadlite.base.weights import save_weights
from etadlite.config import Settings
from etadlite.encoders import TinyR2Plus1D
from etadlite.encoders.build import build_encoder
from etadlite.presets import placed, preset
from etadlite.runs.run import finished
from etadlite.runs.side_by_side import report_of
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.loop import loader, open_split

SYSTEMS = ("frozen", "labelled", "end to end", "both")
CELLS = {64: 32, 128: 40}  # T -> D, the longest proposal in cells; no action is as long
Found = dict[str, dict[str, list[dict[str, float]]]]  # cells -> system -> a run per seed
BATCH, RATE = 32, 2e-3  # of the classifier, as in data_scripts/pretrain_tiny_encoder.py


def settings_of(system: str, cells: int, data: Path, seed: int) -> Settings:
    """Return the settings of a system on the videos in `data`."""
    trained = system in ("end to end", "both")
    settings = placed(preset("e2e_stickfigures" if trained else "stickfigures"), data).changed(
        {
            "seed": seed,
            "data.snippets": cells,
            "detector.max_duration": CELLS[cells],
            "training.test_every": 0,
        }
    )
    own, features = {}, f"features_{cells}"
    if system in ("labelled", "both"):
        own["encoder.weights"] = data / f"labelled_seed{seed}.safetensors"
        features += f"_labelled_seed{seed}"
    if not trained:
        own["data.features"] = data / features
    return settings.changed(own)


def classes_of(actions: Tensor, labels: Tensor, cells: int, background: int) -> Tensor:
    """Return the class of every cell's middle, [T]: that of its action, else `background`."""
    classes = torch.full((cells,), background)
    middles = torch.arange(cells) + 0.5
    for (start, end), label in zip(actions, labels, strict=True):
        classes[(start <= middles) & (middles < end)] = label
    return classes


def train_on_labels(settings: Settings, target: Path) -> None:
    """Train the encoder to classify snippets of the training videos; write its weights.

    A step takes all snippets with an action of a batch of videos, and as many of the background.
    """
    torch.manual_seed(settings.seed)
    settings = settings.changed({"encoder.weights": None, "data.features": None})
    encoder, kinds = build_encoder(settings.encoder), len(settings.detector.classes) + 1
    assert isinstance(encoder, TinyR2Plus1D)
    model = nn.Sequential(encoder, nn.Linear(encoder.channels, kinds)).train()
    epochs = settings.training.epochs
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    batches = loader(open_split(settings, training=True), settings, training=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * len(batches))
    for epoch in range(epochs):
        correct = total = 0
        for batch in batches:
            cells = batch.inputs.shape[1]
            labelled = zip(batch.actions, batch.labels, strict=True)
            classes = torch.cat([classes_of(*pair, cells, kinds - 1) for pair in labelled])
            inside, outside = (classes < kinds - 1).nonzero(), (classes == kinds - 1).nonzero()
            outside = outside[torch.randperm(len(outside))[: len(inside)]]
            chosen = torch.cat([inside, outside])[:, 0]
            chosen = chosen[torch.randperm(len(chosen))]
            for part in chosen.split(BATCH):
                scores = model(batch.inputs.flatten(0, 1)[part])
                loss = F.cross_entropy(scores, classes[part])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                correct += int((scores.argmax(dim=1) == classes[part]).sum())
                total += len(part)
            rates.step()
        print(
            f"labelled snippets, epoch {epoch + 1}: {100 * correct / total:.0f} % right", flush=True
        )
    standardise(encoder.eval(), settings)
    save_weights(target, encoder, {"seed": str(settings.seed), "epochs": str(epochs)})


@torch.inference_mode()
def standardise(encoder: TinyR2Plus1D, settings: Settings) -> None:
    """Measure the statistics that standardise the encoder's features on 20 training videos."""
    plain = open_split(settings, training=True)
    plain.training = False  # not augmented
    encoder.feature_mean.zero_()
    encoder.feature_std.fill_(1.0)
    features = torch.cat([encoder(plain[index].inputs) for index in range(min(20, len(plain)))])
    encoder.feature_mean.copy_(features.mean(dim=0))
    deviation = features.std(dim=0)
    encoder.feature_std.copy_(deviation.where(deviation > 1e-3, 1.0))


def run_of(system: str, cells: int, seed: int, out: Path, changes: list[str]) -> dict[str, float]:
    """Train and test one system with one seed, unless it is finished."""
    settings = settings_of(system, cells, out / "data", seed).changed(changes)
    folder = out / f"{system.replace(' ', '_')}_{cells}" / f"seed{seed}"
    clock, begun = folder.with_suffix(".json"), time.process_time()
    weights = settings.encoder.weights
    if isinstance(weights, Path) and not weights.exists():
        train_on_labels(settings, weights)
        took = {"minutes": (time.process_time() - begun) / 60}
        weights.with_suffix(".json").write_text(json.dumps(took) + "\n", encoding="utf-8")
    kept, begun = clock.exists() and finished(settings, folder), time.process_time()
    report = report_of(settings, folder, f"{system}, {cells} cells", progress=False)
    if not kept:
        took = {"minutes": (time.process_time() - begun) / 60}
        clock.write_text(json.dumps(took) + "\n", encoding="utf-8")
    found = json.loads(clock.read_text(encoding="utf-8"))
    if isinstance(weights, Path):
        labels = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        found["minutes_on_labels"] = labels["minutes"]
    memory = report.peak_activation_bytes / 2**20
    return {"seed": seed, "mAP": 100 * report.average, "activations_mib": memory, **found}


def main() -> None:
    """Train, test and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, nargs="+", choices=CELLS, default=[*CELLS])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--set", nargs="+", default=[], help="changes to all systems")
    given = parser.parse_args()
    make_dataset(given.out / "data", given.size)
    found: Found = {}
    if given.json is not None and given.json.exists():
        found = read_json(given.json, "results")["runs"]
    for seed, cells, system in product(given.seeds, given.cells, given.systems):
        runs = found.setdefault(str(cells), {}).setdefault(system, [])
        others = [run for run in runs if run["seed"] != seed]
        others.append(run_of(system, cells, seed, given.out, given.set))
        runs[:] = sorted(others, key=lambda run: run["seed"])
        write_report(given.json, {"runs": found})  # what is done so far
    about = machine()
    print(f"\naverage mAP 0.3-0.7 in %; {about['device']}, torch {about['versions']['torch']}")
    print(aligned(table_of(found)))


def table_of(found: Found) -> list[list[str]]:
    """Return the table's rows: mAP, mean and deviation over the seeds, and the mean minutes."""
    rows = [["system", "cells", "mAP", "minutes", "of them on labels"]]
    for cells, systems in found.items():
        for system, runs in ((name, runs) for name, runs in systems.items() if runs):
            values = [run["mAP"] for run in runs]
            beside = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            labels = mean(run.get("minutes_on_labels", 0.0) for run in runs)
            minutes = mean(run["minutes"] for run in runs) + labels
            scores = f"{mean(values):.1f}{beside}"
            rows.append([system, cells, scores, f"{minutes:.1f}", f"{labels:.1f}"])
    return rows


if __name__ == "__main__":
    main()
