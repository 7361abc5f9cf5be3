"""The memory of a training step by rows: what they are, and how a real step is measured."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from etadlite.memory.live import LiveTensors

PASSES = {
    "pass_1": "pass 1, no gradient",
    "pass_2": "pass 2, detector",
    "pass_3": "pass 3, with gradient",
    "update": "update",
}
LASTING = {
    "weights": "weights",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "inputs": "frames or features",
    "prefix": "kept prefix",
}


@dataclass(frozen=True)
class Rows:
    """Bytes on the device of the second or a later training step.

    `total` is the most that is held at once: what lasts through the step and, on top of it, the
    pass that needs most.

    Attributes:
        weights: parameters and buffers of encoder and detector.
        gradients: of all trained weights.
        optimiser: its state.
        inputs: the batch's frames or features; 0 where they wait in host memory.
        prefix: what the frozen prefix gave for the picked snippets; 0 where it waits there.
        pass_1: the most that the encoding without gradient holds beyond all rows above.
        pass_2: so for the detector, forward and backward.
        pass_3: so for the encoding with gradient of one chunk.
        update: so for the optimiser's step.
        total: the peak.
        host: frames and prefix that wait in host memory; no part of `total`.
    """

    weights: int = 0
    gradients: int = 0
    optimiser: int = 0
    inputs: int = 0
    prefix: int = 0
    pass_1: int = 0
    pass_2: int = 0
    pass_3: int = 0
    update: int = 0
    total: int = 0
    host: int = 0

    @property
    def lasting(self) -> int:
        """What is held all through the step."""
        return sum(getattr(self, name) for name in LASTING)

    def stack(self) -> dict[str, int]:
        """Titles and bytes that add up to the total: what lasts, and the widest pass's rest."""
        widest = max(PASSES, key=lambda name: getattr(self, name))
        lasting = {title: getattr(self, name) for name, title in LASTING.items()}
        return lasting | {f"activations of {PASSES[widest]}": self.total - self.lasting}

    @classmethod
    def of_peaks(cls, peaks: dict[str, int], **lasting: int) -> "Rows":
        """Rows from what lasts and the absolute peak of each pass."""
        host = lasting.pop("host", 0)
        held = sum(lasting.values())
        beyond = {name: max(0, peaks.get(name, 0) - held) for name in PASSES}
        return cls(**lasting, **beyond, total=max(peaks.values(), default=held), host=host)


@dataclass
class Measurement:
    """What `measure` found; complete when its context has closed.

    Attributes:
        rows: the step's memory on the device.
        resident: the most memory that the process ever held, in bytes; 0 where the system does
            not say.
    """

    rows: Rows = Rows()
    resident: int = 0


@contextmanager
def measure(
    system: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    inputs: Tensor | None = None,
) -> Iterator[Measurement]:
    """Measure the memory of one training step.

    On a GPU it is what torch allocated at most; elsewhere the storages alive at once, counted
    operator by operator (see `LiveTensors`). Measure the second step or a later one: before the
    first there are neither gradients nor an optimiser's state.

    Args:
        system: what is trained; the passes are told apart by its `SequentialEncoder`, if any.
        optimizer: whose step is the update; None: there is none.
        inputs: the batch's frames or features.

    Yields:
        A `Measurement`.
    """
    device = next(system.parameters()).device
    weights = [*system.parameters(), *system.buffers()]
    given = [] if inputs is None else [inputs]
    found, prefixes = Measurement(), {"prefix": 0, "host": 0}

    def keep_size(first: Any) -> None:
        prefix = getattr(first, "prefix", None)
        if prefix is not None:
            prefixes["prefix" if prefix.device == device else "host"] = prefix.nbytes

    with ExitStack() as stack:
        if device.type == "cuda":
            gauge = _Cuda(device)
        else:
            # No name for this list: it would keep the old gradients alive.
            gauge = LiveTensors([*weights, *gradients_of(system), *state_of(optimizer), *given])
            stack.enter_context(gauge)
        passes = _Passes(gauge)
        for module in system.modules():
            if hasattr(module, "first_pass") and hasattr(module, "replay"):
                stack.enter_context(passes.during(module, "encode", "pass_1"))
                stack.enter_context(passes.during(module, "first_pass", "pass_1", keep_size))
                stack.enter_context(passes.during(module, "replay", "pass_3"))
        if optimizer is not None:
            before = optimizer.register_step_pre_hook(lambda *_: passes.begin("update"))
            after = optimizer.register_step_post_hook(lambda *_: passes.end())
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield found
        passes.end()
    on_device = [tensor for tensor in given if tensor.device == device]
    prefixes["host"] += bytes_of(given) - bytes_of(on_device)
    found.rows = Rows.of_peaks(
        passes.peaks,
        weights=bytes_of(weights),
        gradients=bytes_of(gradients_of(system)),
        optimiser=bytes_of(state_of(optimizer)),
        inputs=bytes_of(on_device),
        **prefixes,
    )
    found.resident = _resident()


class _Cuda:
    """What torch allocates on a GPU, with the interface of `LiveTensors`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def restart(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)


class _Passes:
    """The peak of every pass; what belongs to no other is the detector's."""

    def __init__(self, gauge: LiveTensors | _Cuda) -> None:
        self.peaks: dict[str, int] = {}
        self._gauge = gauge
        self._open = ["pass_2"]
        gauge.restart()

    def begin(self, name: str) -> None:
        self._note()
        self._open.append(name)

    def end(self) -> None:
        self._note()
        self._open.pop()

    def _note(self) -> None:
        name = self._open[-1]
        self.peaks[name] = max(self.peaks.get(name, 0), self._gauge.peak_bytes)
        self._gauge.restart()

    @contextmanager
    def during(
        self, module: nn.Module, method: str, name: str, see: Callable[[Any], None] = id
    ) -> Iterator[None]:
        """Count all calls of a module's method to one pass; `see` is shown what they return."""
        plain = getattr(module, method)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            try:
                result = plain(*args, **kwargs)
            finally:
                self.end()
            see(result)
            return result

        setattr(module, method, counted)  # hides the class's own until it is deleted
        try:
            yield
        finally:
            delattr(module, method)


def gradients_of(system: nn.Module) -> list[Tensor]:
    """The gradients that are there."""
    return [p.grad for p in system.parameters() if p.grad is not None]


def state_of(optimizer: torch.optim.Optimizer | None) -> list[Tensor]:
    """The tensors of an optimiser's state."""
    states = [] if optimizer is None else optimizer.state.values()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all storages, each once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _resident() -> int:
    """The process's largest resident size in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size
