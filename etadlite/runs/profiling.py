"""The seconds of a training step, part by part, for `etadlite plan --profile`."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from etadlite.base.devices import resolve_device, synchronize
from etadlite.base.errors import InputError
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.memory.measurement import random_bank, random_batch
from etadlite.model.system import System
from etadlite.training import loop, step

STEPS = 3
"""How many steps are timed; of each part, the shortest time counts."""

LOADING = "loading"
PARTS = {  # in the order of a step
    "bank": "feature bank",
    "frozen": "pass 1, frozen stages",
    "pass_1": "pass 1, trained stages",
    "forward": "pass 2, detector and loss",
    "backward": "pass 2, backward",
    "pass_3": "pass 3, with gradient",
    "update": "clipping and update",
    "other": "other",
}


class PartClock:
    """Gives every second to the innermost part that is open; nothing is counted twice."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._device, self._open, self._since = device, ["other"], 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the seconds so far."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = self._now()

    def note(self) -> dict[str, float]:
        """Return the seconds of every part since the last restart."""
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now
        return dict(self.seconds)

    def during(self, owner: Any, method: str, part: str) -> Any:
        """Return a context in which all calls of a function or method belong to a part."""
        plain = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.note()
            self._open.append(part)
            try:
                return plain(*args, **kwargs)
            finally:
                self.note()
                self._open.pop()

        return patch.object(owner, method, timed)

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def profile_step(settings: Settings, steps: int = STEPS) -> dict[str, float]:
    """Return the seconds of each of `PARTS` in a training step on random frames.

    Weights are random, too; the time does not depend on them.

    Raises:
        InputError: the device is missing, or the settings fit no system.
    """
    device = resolve_device(settings.device)
    settings = loop.settle_speed(settings, device)
    torch.manual_seed(settings.seed)
    system = System(settings, pretrained=False).to(device).train()
    optimizer, batch = loop.make_optimizer(system, settings.training), random_batch(settings)
    bank = random_bank(settings) if settings.sampling.others == "bank" else None
    clock, found = PartClock(device), []
    with ExitStack() as stack:
        for owner, method, part in _calls(system, optimizer, bank):
            stack.enter_context(clock.during(owner, method, part))
        for _ in range(steps + 1):
            clock.restart()
            step.train_step(system, batch, optimizer, settings, bank)
            found.append(clock.note())
    del found[0]  # the first step makes what later ones use again
    return {part: min(taken[part] for taken in found) for part in PARTS}


def _calls(
    system: System, optimizer: torch.optim.Optimizer, bank: Any
) -> list[tuple[Any, str, str]]:
    """Return which functions, of what, belong to which part."""
    calls: list[tuple[Any, str, str]] = [
        (system.detector, "forward", "forward"),
        (step, "detection_loss", "forward"),
        (torch.Tensor, "backward", "backward"),
        (nn.utils, "clip_grad_norm_", "update"),
        (optimizer, "step", "update"),
    ]
    if system.encoder is not None:
        calls += [(system.encoder, name, "pass_1") for name in ("encode", "first_pass")]
        calls.append((system.encoder, "third_pass", "pass_3"))
        if getattr(system.encoder.encoder, "frozen_stages", None) is not None:
            calls.append((system.encoder.encoder, "encode_prefix", "frozen"))
    if bank is not None:
        calls += [(bank, name, "bank") for name in ("recall", "collect", "refresh")]
    return calls


def seconds_of_loading(settings: Settings, steps: int = STEPS) -> float:
    """Return the seconds that one process takes to read a step's training videos or features.

    They are read several times, so that they are in `data.cache` at the end, as in later epochs.

    Raises:
        InputError: they cannot be read.
    """
    data, found = loop.open_split(settings, training=True), []
    for _ in range(steps):
        started = time.perf_counter()
        for place in range(settings.training.batch_size):
            data[place % len(data)]
        found.append(time.perf_counter() - started)
    return min(found)


def explain_time(settings: Settings, picture: Path | None = None) -> str:
    """Return a table of the seconds of a step by part; `picture` is a file for bars.

    Loading is timed where the videos or features are at hand.

    Raises:
        InputError: the device is missing, or the settings fit no system.
    """
    device, workers = resolve_device(settings.device), settings.data.workers
    parts = {PARTS[name]: taken for name, taken in profile_step(settings).items() if taken}
    try:
        loading = seconds_of_loading(settings)
    except InputError as error:
        beside = f"loading was not timed: {error}"
    else:
        beside = f"loading a step takes one process {loading:.3g} s"
        if workers:
            share = loading / workers / sum(parts.values())
            beside += f"; {workers} processes load beside the step, in {share:.0%} of its time"
        else:
            parts = {LOADING: loading, **parts}
            beside += ", and the step waits for it (data.workers=0)"
    total = sum(parts.values())
    rows = [[name, f"{taken:.4f}", f"{taken / total:.1%}"] for name, taken in parts.items()]
    table = [["", "seconds", "share"], *rows, ["total", f"{total:.4f}", "100.0%"]]
    what = "videos" if settings.data.features is None else "videos' features"
    lines = [
        f"measured for a training step of {settings.training.batch_size} {what} on {device}, "
        f"the shortest of {STEPS} for each part",
        aligned(table),
        beside,
    ]
    if picture is not None:
        from etadlite.viz.memory import draw_seconds
        from etadlite.viz.style import save

        lines.append(f"picture: {save(draw_seconds(parts, title=settings.name), picture)}")
    return "\n".join(lines)
