"""Every encoder by name: does it obey the engine's rules, and does the plan know its memory?

    python tests/benchmarks/encoders.py [--names r3d_18 ...] [--json FILE]

About five minutes of processor time without the two MViT, which take 224x224 pixels alone; of
these the last three stages are trained.

For each encoder with random weights, at the smallest snippets that it takes:

    gradient   the gradient at ratio 1 against plain back-propagation, float64: the largest
               difference in a parameter, over the largest number in it
    chunks     features in chunks against features of all snippets at once, likewise
    prefix     the gradient with the kept prefix against the one with it computed again
    plan       predicted memory of a training step over the measured one; in brackets the worst row
    round      convert - train - stop - resume - predict - extract: the resumed training has the
               weights of one that was not stopped, frozen stages have those of the converted file

Transformers' networks have small configurations: depth and width change none of this.
"""

import argparse
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torchvision import models

from etadlite.base.errors import StoppedError
from etadlite.base.weights import load_weights
from etadlite.config import ENCODERS, EncoderSettings, Expected
from etadlite.encoders.build import bare_encoder, build_encoder
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.encoders.transformers_video import NETWORKS
from etadlite.memory.measurement import measure_step
from etadlite.memory.plan import plan
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.prepare.convert import convert
from etadlite.prepare.extract import extract_features
from etadlite.presets import preset
from etadlite.runs.predictions import predict_videos
from etadlite.runs.run import run_training
from etadlite.stickfigures.dataset import Size, make_dataset
from etadlite.training.recorder import Recorder


class Case(NamedTuple):
    """An encoder and the smallest snippets that it takes."""

    name: str
    frames: int = 4
    side: int = 32
    shift: bool = False
    snippets: int = 16  # per video of the training
    frozen: int = 1  # stages after the first one


_VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
_VIT |= {"intermediate_size": 32, "image_size": 32, "num_frames": 4}
_JEPA = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "crop_size": 32}
_JEPA |= {"frames_per_clip": 4, "num_pooler_layers": 1, "pred_hidden_size": 24}
_JEPA |= {"pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}

SMALL_SIZES = {
    "videomae_b": _VIT,
    "videomaev2_b": _VIT,
    "timesformer_b": _VIT,
    "vivit_b": _VIT,
    "vjepa2_l": _JEPA,
}
"""Configurations of transformers' networks for snippets of 4 frames of 32x32 pixels."""

TORCHVISION = (
    *map(Case, ("r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t", "swin3d_s", "swin3d_b")),
    Case("s3d", frames=8),
    *(Case(name, 16, 224, snippets=4, frozen=14) for name in ("mvit_v1_b", "mvit_v2_s")),
)
TRANSFORMERS = tuple(map(Case, SMALL_SIZES))
IMAGE = (
    *(Case(name, shift=True) for name in ("image:resnet18", "image:mobilenet_v3_small")),
    *(Case(name, shift=True) for name in ("image:efficientnet_b0", "timm:tf_efficientnet_lite0")),
    Case("image:convnext_tiny"),
)
CASES = {case.name: case for case in (*TRANSFORMERS, *IMAGE, *TORCHVISION)}


@contextmanager
def small_networks() -> Iterator[None]:
    """Give transformers' networks small configurations under their own names."""
    small = {n: NETWORKS[n]._replace(sizes=sizes) for n, sizes in SMALL_SIZES.items()}
    expected = dict.fromkeys(SMALL_SIZES, Expected(24, 4, 32, (32, 32)))
    with patch.dict(NETWORKS, small), patch.dict(ENCODERS, expected):
        yield


def built(case: Case) -> StagedEncoder:
    """The encoder with random weights that differ from zero."""
    torch.manual_seed(0)
    encoder = bare_encoder(EncoderSettings(name=case.name, temporal_shift=case.shift))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.std(correction=0) == 0:  # ones and zeros of norms and tokens
                parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


def engine_proof(case: Case, snippets: int = 3) -> dict[str, float]:
    """Deviations of the engine's features and gradients in float64; see the top of the file."""
    encoder = freeze(built(case).double(), case.frozen)
    size = (1, snippets, 3, case.frames, case.side, case.side)
    frames = torch.randint(0, 256, size, dtype=torch.uint8)
    side = torch.randn(1, encoder.channels, snippets, dtype=torch.float64)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    whole = encoder(frames[0])
    plain = torch.autograd.grad((whole.T[None] * side).sum(), trained)
    found = {}
    for keep in ("device", "nothing"):
        engine = SequentialEncoder(encoder, snippets - 1, ratio=1.0, keep=keep)
        features = engine(frames)
        found[keep] = torch.autograd.grad((features * side).sum(), trained)
    return {
        "gradient": max(_deviation(found[keep], plain) for keep in found),
        "chunks": _deviation([features[0].T.detach()], [whole.detach()]),
        "prefix": _deviation(found["device"], found["nothing"]),
    }


def _deviation(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference in a tensor over the largest number in it; zeros are left out."""
    pairs = zip(ours, theirs, strict=True)
    scales = [((o - t).abs().max().item(), t.abs().max().item()) for o, t in pairs]
    floor = 1e-6 * max(largest for _, largest in scales)  # a key's bias has rounded zeros
    return max(difference / max(largest, floor) for difference, largest in scales)


def changes(case: Case) -> list[str]:
    """Assignments that put an encoder into `e2e_stickfigures`, with a small detector."""
    with torch.device("meta"):
        channels = bare_encoder(EncoderSettings(name=case.name)).channels
    cells = case.snippets
    return [
        *(f"encoder.name={case.name}", f"encoder.frozen_stages={case.frozen}"),
        "encoder.chunk_size=4",
        *(f"encoder.temporal_shift={str(case.shift).lower()}", "encoder.channels_last=false"),
        *(f"data.frames={case.frames}", f"data.crop={case.side}", "data.workers=0"),
        *(f"data.decode_size={[case.side] * 2}", f"data.snippets={cells}"),
        *(f"detector.in_channels={channels}", f"detector.max_duration={cells}"),
        *("detector.width=32", "detector.roi_size=8", "detector.hidden=16", "detector.head=16"),
        *("training.precision=fp32", "training.batch_size=1", "device=cpu"),
    ]


def plan_proof(case: Case) -> dict[str, float]:
    """Predicted memory over measured: of the whole step, and of the row that is worst.

    A row counts with what it adds to the total, as in tests/test_plan.py: below 0.2 % of it
    nothing is compared.
    """
    settings = preset("e2e_stickfigures", changes(case))
    predicted, measured = plan(settings).rows, measure_step(settings).rows
    rows = {}
    for row in (*predicted.stack(), "pass_1", "pass_2", "pass_3", "update"):
        ours, real = _row(predicted, row), _row(measured, row)
        if abs(ours - real) > 0.002 * measured.total:
            rows[row] = ours / real if real else math.inf
    worst = max(rows.values(), key=lambda ratio: abs(math.log(ratio)), default=1.0)
    return {"plan": predicted.total / measured.total, "worst row": worst}


def _row(rows: Any, name: str) -> int:
    return getattr(rows, name) if hasattr(rows, name) else rows.stack()[name]


def published_weights(case: Case) -> dict[str, Tensor]:
    """Random weights as the network's own library saves them."""
    torch.manual_seed(1)
    kind, _, rest = case.name.partition(":")
    if kind == "image" or hasattr(models.video, case.name):
        return models.get_model(rest or case.name, weights=None).state_dict()
    if kind == "timm":
        import timm

        return timm.create_model(rest).state_dict()
    encoder, network = built(case), NETWORKS[case.name]
    state = encoder.state_dict()
    return {theirs: state[ours] for theirs, ours in encoder.published.items() if network}


def round_proof(case: Case, folder: Path, data: Path) -> dict[str, str]:
    """Convert, train a step, stop, resume, predict and extract; what went on is compared."""
    torch.save(published_weights(case), folder / "published.pth")
    file = folder / "converted.safetensors"
    convert(folder / "published.pth", file, case.name if ":" in case.name else None)
    settings = preset(
        "e2e_stickfigures",
        [
            *(f"data.annotations={data / 'annotations.json'}", f"data.videos={data / 'videos'}"),
            *("data.cache=null", f"encoder.weights={file}", "training.epochs=1"),
            *("training.test_every=0", "training.encoder_lr=0.01", "training.warmup_epochs=0"),
            *("training.checkpoint_minutes=0", *changes(case)),
        ],
    )
    for name in ("whole", "stopped"):
        (folder / name).mkdir()
    run_training(settings, folder / "whole", progress=False)
    with _stopped_after_a_step(), suppress(StoppedError):
        run_training(settings, folder / "stopped", progress=False)
    assert not (folder / "stopped" / "report.json").exists()
    run_training(settings, folder / "stopped", resume=True, progress=False)
    checkpoint = folder / "stopped" / "checkpoint.safetensors"
    whole, _ = load_weights(folder / "whole" / "checkpoint.safetensors")
    resumed, _ = load_weights(checkpoint)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    before, _ = load_weights(file)
    changed = {k for k, v in before.items() if not torch.equal(v, whole[f"encoder.encoder.{k}"])}
    stages = {key.partition(".")[0] for key in changed}
    frozen = set(bare_encoder(EncoderSettings(name=case.name)).stage_names[: 1 + case.frozen])
    assert stages
    assert not stages & frozen
    (video,) = (data / "videos").glob("validation*.mp4")
    assert predict_videos([video], checkpoint, folder / "found", progress=False, device="cpu")
    encoder = build_encoder(settings.encoder)
    assert extract_features(settings, encoder, folder / "features", progress=False) == 3
    stored = np.load(folder / "features" / f"{video.stem}.npy")
    assert stored.shape == (case.snippets, encoder.channels)
    return {"round": "passed"}


@contextmanager
def _stopped_after_a_step() -> Iterator[None]:
    """Ask this process to end once a step was written, as Ctrl-C does."""
    log = Recorder.log

    def stopping(self: Recorder, record: dict[str, Any]) -> None:
        log(self, record)
        if "loss" in record:
            os.kill(os.getpid(), signal.SIGTERM)

    with patch.object(Recorder, "log", stopping):
        yield


def videos(folder: Path) -> Path:
    """Make three small videos, two to train and one to test."""
    make_dataset(folder, Size(2, 1, longest=31, pixels=32), workers=1, progress=False)
    return folder


def proof(case: Case, data: Path) -> dict[str, Any]:
    """All of it for one encoder, with the processor time that it took."""
    began = time.process_time()
    found: dict[str, Any] = engine_proof(case, 3 if case.side < 100 else 2) | plan_proof(case)
    with tempfile.TemporaryDirectory() as folder:
        found |= round_proof(case, Path(folder), data)
    return found | {"seconds": round(time.process_time() - began, 1)}


def main() -> None:
    """Prove and report."""
    from report import write_report  # beside this file

    parser = argparse.ArgumentParser(description="The engine's rules, for every encoder.")
    parser.add_argument("--names", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--json", type=Path, help="add what was found to this file")
    arguments = parser.parse_args()
    found = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())["encoders"]
    print(f"{'':28}{'gradient':>10}{'chunks':>10}{'prefix':>10}{'plan':>14}  round")
    with small_networks(), tempfile.TemporaryDirectory() as folder:
        data = videos(Path(folder))
        for name in arguments.names:
            row = found[name] = proof(CASES[name], data)
            deviations = "".join(f"{row[key]:10.1e}" for key in ("gradient", "chunks", "prefix"))
            memory = f"{row['plan']:.3f} ({row['worst row']:.3f})"
            told = f"{name:28}{deviations}{memory:>14}  {row['round']}, {row['seconds']} s"
            print(told, flush=True)
            write_report(arguments.json, {"encoders": found})


if __name__ == "__main__":
    main()
