"""The detector against the same detector with torchvision's RoIAlign, in one run.

    python tests/benchmarks/detector.py [--json FILE] [--device cpu] [--batch 4] [--repeats 5]

A training step (forward, losses, backward) on 495 proposals a video and the inference over all
8,256, at ActivityNet's sizes. The other detector forms all RoIs and goes back through all
proposals, as the published code does. The two take turns, so that their ratio holds on a busy
machine. On a CPU these are seconds of the processor, of all threads together.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from report import machine, write_report
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align as roi_align_of_boxes

from etadlite.base.devices import keep_freed_memory
from etadlite.config import LossSettings
from etadlite.detector import ETADDetector, valid_proposals
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets

CELLS, CHANNELS, SAMPLED = 128, 512, 495


class Whole(nn.Module):
    """All snippets through the encoder, with gradient; chunk by chunk if these are checkpointed."""

    ratio = 1.0

    def __init__(self, encoder: nn.Module, chunk_size: int | None) -> None:
        super().__init__()
        self.encoder, self.chunk_size = encoder, chunk_size

    def forward(self, frames: Tensor, *context: object) -> Tensor:
        """Uint8 [B, N, 3, F, H, W] -> [B, C, N]."""
        snippets = frames.flatten(0, 1).to(next(self.encoder.parameters()).device)
        if self.chunk_size is None:
            features = self.encoder(snippets)
        else:
            chunks = snippets.split(self.chunk_size)
            run = [checkpoint(self.encoder, chunk, use_reentrant=False) for chunk in chunks]
            features = torch.cat(run)
        return features.float().unflatten(0, frames.shape[:2]).transpose(1, 2)


def with_torchvision(
    features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool
) -> Tensor:
    """What `etadlite.detector.roi.roi_align` computes, as the published code does it."""
    batch, _, _ = features.shape
    count = proposals.shape[1]
    numbers = torch.arange(batch, device=features.device).repeat_interleave(count)
    boxes = features.new_zeros(batch * count, 5)
    boxes[:, 0] = numbers
    boxes[:, 2], boxes[:, 4] = proposals.flatten(0, 1).unbind(-1)
    boxes[:, 3] = 1.0  # the axis that is not there has one cell
    pooled = roi_align_of_boxes(features[..., None], boxes, (roi_size, 1), aligned=aligned)
    return pooled[..., 0].unflatten(0, (batch, count))


class TorchvisionRoIs:
    """Stands in for `etadlite.detector.roi.RoIs`: forms the RoIs, then applies the layers."""

    def __init__(
        self, features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool
    ) -> None:
        self.rois = with_torchvision(features, proposals, roi_size, aligned=aligned)

    def linear(self, layer: nn.Linear, first: int = 0, bins: int | None = None) -> Tensor:
        """The layer on some of every proposal's bins."""
        bins = self.rois.shape[3] if bins is None else bins
        return layer(self.rois[..., first : first + bins].flatten(2))


@contextmanager
def as_published() -> Iterator[None]:
    """Inside, detectors form their RoIs by torchvision, and go back through all proposals."""
    with (
        patch("etadlite.detector.stages.RoIs", TorchvisionRoIs),
        patch("etadlite.detector.stages.ReleasedStage.cut_out", TorchvisionRoIs),
        patch("etadlite.detector.drawn.Head.forward", nn.Sequential.forward),
    ):
        yield


def seconds_of(
    work: dict[str, Callable[[], object]],
    device: str,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict:
    """Median seconds of each, taking turns, after one to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, run in work.items():
            started = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                taken[name].append(clock() - started)
    return {name: median(values) for name, values in taken.items()}


def measure(layout: str, device: str, batch: int, repeats: int) -> dict[str, dict]:
    """Seconds of a training step and of inference, both ways, and the largest difference."""
    torch.manual_seed(0)
    roi_size = {"released": 24, "opentad": 16}[layout]
    detector = ETADDetector(CHANNELS, layout=layout, roi_size=roi_size).to(device)
    features = torch.randn(batch, CHANNELS, CELLS, device=device)
    everything = valid_proposals(CELLS, CELLS).to(device)
    picks = torch.rand(batch, len(everything), device=device).topk(SAMPLED).indices
    sampled = everything[picks]
    actions = [torch.tensor([[20.0, 60.0], [80.0, 90.0]], device=device)] * batch
    labels = [torch.zeros(2, dtype=torch.long, device=device)] * batch
    targets = make_targets(actions, labels, sampled, CELLS, 0)

    def train() -> None:
        detector.zero_grad()
        parts = detection_loss(detector(features, sampled), targets, LossSettings())
        sum(parts.values()).backward()

    @torch.no_grad()
    def infer() -> Tensor:
        return detector(features[:1], everything[None]).stages[-1].iou

    def other(run: Callable[[], object]) -> Callable[[], object]:
        def patched() -> object:
            with as_published():
                return run()

        return patched

    difference = float((infer() - other(infer)()).abs().max())
    found = {}
    for name, run in {"training step": train, "inference": infer}.items():
        # Of processor time, other work on the machine takes no part.
        clock = time.process_time if device == "cpu" else time.perf_counter
        seconds = seconds_of({"ours": run, "torchvision": other(run)}, device, repeats, clock)
        found[name] = seconds | {"ratio": seconds["torchvision"] / seconds["ours"]}
    return found | {"with_gradient": shares_with_gradient(train), "largest_difference": difference}


def shares_with_gradient(train: Callable[[], object]) -> list[float]:
    """The least and the largest share of proposals with a gradient in a layer that reads RoIs."""
    shares = []

    def all_rows(gradient: Tensor, most: int) -> None:
        shares.append(float(gradient.ne(0).any(dim=2).float().mean()))

    with patch("etadlite.detector.roi.rows_with_gradient", all_rows):
        train()
    return [min(shares), max(shares)]


def main() -> None:
    """Measure both layouts and report."""
    parser = argparse.ArgumentParser(description="Time the detector with two RoIAligns.")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()  # as a training does
    about = machine()
    print(f"{about['device']}, {about['threads']} threads, torch {about['versions']['torch']}")
    found = {}
    for layout in ("released", "opentad"):
        found[layout] = measure(layout, arguments.device, arguments.batch, arguments.repeats)
        for name in ("training step", "inference"):
            row = found[layout][name]
            print(
                f"{layout:<9} {name:<14} {row['ours']:7.3f} s, with torchvision's "
                f"{row['torchvision']:7.3f} s: {row['ratio']:.1f} times"
            )
        least, most = found[layout]["with_gradient"]
        print(f"{layout:<9} {least:.1%} to {most:.1%} of the proposals have a gradient in a layer")
        print(f"{layout:<9} scores differ by at most {found[layout]['largest_difference']:.1e}")
    write_report(arguments.json, {"batch": arguments.batch, "detector": found})


if __name__ == "__main__":
    main()
