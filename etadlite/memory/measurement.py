"""The memory of a training step, part by part, and how a real step is measured."""

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from etadlite.base.devices import is_gpu, resolve_device, use_bf16
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.model.sequential_encoder import FirstPass, SequentialEncoder
from etadlite.model.system import System
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, snippet_count
from etadlite.training.loop import make_optimizer
from etadlite.training.step import train_step

if TYPE_CHECKING:
    from etadlite.training.bank import FeatureBank

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
class StepMemory:
    """Bytes on the device in the second or a later training step.

    What lasts comes first. A pass counts the most that it holds beyond all that.
    """

    weights: int = 0  # parameters and buffers of encoder and detector
    gradients: int = 0  # of all trained weights
    optimiser: int = 0  # the optimiser's state
    inputs: int = 0  # the batch's frames or features; 0 if they wait in host memory
    prefix: int = 0  # the frozen prefix's output for the picked snippets; 0 if it waits there
    pass_1: int = 0  # the encoding without gradient
    pass_2: int = 0  # the detector, forward and backward
    pass_3: int = 0  # the encoding of one chunk with gradient
    update: int = 0  # the optimiser's step
    host: int = 0  # frames and prefix that wait in host memory; not in `total`

    @property
    def fixed(self) -> int:
        """What neither the batch nor the chunk changes: weights, gradients and optimiser."""
        return self.weights + self.gradients + self.optimiser

    @property
    def lasting(self) -> int:
        """What is held all through the step."""
        return self.fixed + self.inputs + self.prefix

    @property
    def total(self) -> int:
        """The peak: what lasts, and the largest of the passes."""
        return sum(self.stack().values())

    def stack(self) -> dict[str, int]:
        """Return titles and bytes that add up to the total: what lasts, and the largest pass."""
        largest = max(PASSES, key=lambda name: getattr(self, name))
        lasting = {title: getattr(self, name) for name, title in LASTING.items()}
        return lasting | {f"activations of {PASSES[largest]}": getattr(self, largest)}

    @classmethod
    def of_peaks(cls, peaks: dict[str, int], host: int = 0, **lasting: int) -> "StepMemory":
        """Return the parts, from what lasts and from the absolute peak of each pass."""
        held = sum(lasting.values())
        return cls(**lasting, **{name: max(0, peaks[name] - held) for name in peaks}, host=host)


@dataclass
class Measurement:
    """The result of `measure`; complete when its context has closed."""

    rows: StepMemory = StepMemory()


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, whatever holds them, while it is open.

    It sees all results of torch's operators, in forward and backward passes on the CPU, real
    tensors and fake ones, besides those `existing` from the start. It does not see what an operator
    allocates and frees inside. A storage that views share counts once.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live_bytes = 0  # alive now
        self.peak_bytes = 0  # the most that was alive at once since `restart`
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in existing:
            self.count(tensor)

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage from now on, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_: weakref.ref) -> None:
            del self._storages[key]
            self.live_bytes -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def restart(self) -> int:
        """Forget the peak so far; return the bytes that are alive now."""
        self.peak_bytes = self.live_bytes
        return self.live_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count its results."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return made


@contextmanager
def measure(
    system: nn.Module,  # its passes are those of its `SequentialEncoder`, if it has one
    optimizer: torch.optim.Optimizer | None = None,  # its step is the update
    inputs: Tensor | None = None,  # the batch's frames or features
) -> Iterator[Measurement]:
    """Measure the memory of one training step.

    On a GPU this is the most that torch allocated; elsewhere it is the most that was alive at
    once, counted operator by operator (see `LiveTensors`). Measure the second step or a later one:
    before the first there are neither gradients nor an optimiser's state.
    """
    device = next(system.parameters()).device
    weights = [*system.parameters(), *system.buffers()]
    given = [] if inputs is None else [inputs]
    found, kept = Measurement(), {"prefix": 0, "host": 0}

    def note_prefix(first: FirstPass) -> None:
        if first.prefix is not None:
            kept["prefix" if first.prefix.device == device else "host"] = first.prefix.nbytes

    with ExitStack() as stack:
        if is_gpu(device):
            from etadlite.base.gpu import gpu_memory

            passes = _Passes(*gpu_memory(device))
        else:
            # No name for this list: it would keep the old gradients alive.
            live = LiveTensors([*weights, *gradients_of(system), *state_of(optimizer), *given])
            stack.enter_context(live)
            passes = _Passes(lambda: live.peak_bytes, live.restart)
        for module in system.modules():
            if isinstance(module, SequentialEncoder):
                stack.enter_context(passes.during(module, "encode", "pass_1"))
                stack.enter_context(passes.during(module, "first_pass", "pass_1", note_prefix))
                stack.enter_context(passes.during(module, "third_pass", "pass_3"))
        if optimizer is not None:
            stack.enter_context(passes.during(optimizer, "step", "update"))
        yield found
        passes.end()
    on_device = bytes_of(tensor for tensor in given if tensor.device == device)
    found.rows = StepMemory.of_peaks(
        passes.peaks,
        host=kept["host"] + bytes_of(given) - on_device,
        weights=bytes_of(weights),
        gradients=bytes_of(gradients_of(system)),
        optimiser=bytes_of(state_of(optimizer)),
        inputs=on_device,
        prefix=kept["prefix"],
    )


def measure_step(settings: Settings) -> Measurement:
    """Do two training steps on random frames or features, and measure the second.

    The encoder's weights are zero, so that no number overflows; memory does not depend on them.

    Raises:
        InputError: the device is missing, the settings fit no system, or the step is not finite.
    """
    device = resolve_device(settings.device)
    precision = "bf16" if use_bf16(settings.encoder_precision, device) else "fp32"
    settings = settings.changed({"training.precision": precision})
    torch.manual_seed(settings.seed)
    system = System(settings, pretrained=False).to(device).train()
    for parameter in () if system.encoder is None else system.encoder.parameters():
        nn.init.zeros_(parameter)
    optimizer, batch = make_optimizer(system, settings.training), random_batch(settings)
    bank = random_bank(settings) if settings.sampling.others == "bank" else None
    train_step(system, batch, optimizer, settings, bank)
    if not optimizer.state:
        # Some kernels for bf16 on CPUs do this at small sizes, even with zeros.
        raise InputError(
            f"the step was not finite, so there was no update to measure; in {precision} this "
            "torch may err at these sizes: measure with training.precision=fp32 or larger data.crop"
        )
    if settings.data.features is None:
        # A loader's batch takes no room for what is not read; this one has room for what is.
        read = batch.inputs.flatten(0, 1)[: snippets_read(settings)].clone()
        batch = batch._replace(inputs=read[0].expand(batch.inputs.shape))
    with measure(system, optimizer, batch.inputs) as measured:
        train_step(system, batch, optimizer, settings, bank)
    return measured


def snippets_read(settings: Settings) -> int:
    """Return how many snippets of a batch are read from its videos.

    With a feature bank these are only the ones that get a gradient, if labels or chance choose
    them. Processes that load hand on the room for all.
    """
    sampling, snippets = settings.sampling, settings.data.snippets
    strategy = SNIPPET_STRATEGIES[sampling.snippet_strategy]
    if sampling.others == "bank" and strategy.early and not settings.data.workers:
        snippets = snippet_count(snippets, sampling.snippet_ratio)
    return settings.training.batch_size * snippets


def random_batch(settings: Settings) -> Batch:
    """Return a batch like one of a data set: random frames or features, two actions per video."""
    data, batch = settings.data, settings.training.batch_size
    if data.features is None:
        size = (batch, data.snippets, 3, data.frames, data.crop, data.crop)
        inputs = torch.randint(0, 256, size, dtype=torch.uint8)
    else:
        inputs = torch.randn(batch, settings.detector.in_channels, data.snippets)
    actions = data.snippets * torch.tensor([[0.1, 0.4], [0.5, 0.9]])
    return Batch(
        names=[f"random{n}" for n in range(batch)],
        inputs=inputs,
        actions=[actions] * batch,
        labels=[torch.zeros(2, dtype=torch.long)] * batch,
        grids=[],
        durations=[1.0] * batch,
        seeds=list(range(batch)),
        indices=list(range(batch)),
    )


def random_bank(settings: Settings) -> "FeatureBank":
    """Return a bank in memory with random features of the videos of `random_batch`."""
    from etadlite.training.bank import bank_of
    from etadlite.training.state import Progress

    batch, data = settings.training.batch_size, settings.data
    bank = bank_of(settings, batch, Progress())
    bank.make(None)
    bank.put(range(batch), torch.randn(batch, settings.detector.in_channels, data.snippets))
    return bank


class _Passes:
    """The peak of every pass; what belongs to no other pass belongs to the detector's.

    `peak` returns the most bytes that were held since the last `restart`.
    """

    def __init__(self, peak: Callable[[], int], restart: Callable[[], Any]) -> None:
        self.peaks: dict[str, int] = {}
        self._peak, self._restart = peak, restart
        self._open = ["pass_2"]
        restart()

    def begin(self, name: str) -> None:
        self._note()
        self._open.append(name)

    def end(self) -> None:
        self._note()
        self._open.pop()

    def _note(self) -> None:
        name = self._open[-1]
        self.peaks[name] = max(self.peaks.get(name, 0), self._peak())
        self._restart()

    def during(
        self, owner: Any, method: str, name: str, see: Callable[[Any], Any] = id
    ) -> AbstractContextManager:
        """Count all calls of a method as one pass; `see` is called with their results."""
        plain = getattr(owner, method)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            try:
                result = plain(*args, **kwargs)
            finally:
                self.end()
            see(result)
            return result

        return patch.object(owner, method, counted)


def gradients_of(system: nn.Module) -> list[Tensor]:
    """Return the gradients of a module that exist."""
    return [p.grad for p in system.parameters() if p.grad is not None]


def state_of(optimizer: torch.optim.Optimizer | None) -> list[Tensor]:
    """Return the tensors of an optimiser's state."""
    states = [] if optimizer is None else optimizer.state.values()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of all storages, each counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def peak_memory_bytes(*, of_children: bool = False) -> int:
    """Return the largest resident size of this process; 0 where the system does not report it.

    `of_children` asks for that of the largest of its processes that have ended.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0
    whose = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    size = resource.getrusage(whose).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size
