"""Activation memory, measured: the bytes that autograd keeps for the backward pass."""

from collections import Counter
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn


class SavedActivations:
    """Counts the bytes that autograd holds at once while the context is open.

    A storage that several operations keep counts once; what exists anyway does not count. The
    number is the same on every device. Nested backward passes are seen where they run in the thread
    that opened the context, as they do on the CPU.

    Args:
        existing: what is left out: parameters and buffers of modules, and tensors such as the
            step's frames.

    Attributes:
        live_bytes: held now.
        peak_bytes: the most that was held at once.
    """

    def __init__(self, *existing: nn.Module | Tensor) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self._holders: Counter[int] = Counter()
        self._exempt = {
            tensor.untyped_storage().data_ptr()
            for item in existing
            for tensor in (
                (item,) if isinstance(item, Tensor) else (*item.parameters(), *item.buffers())
            )
        }
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Saved(self, tensor), lambda saved: saved.tensor
        )

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _hold(self, tensor: Tensor) -> tuple[int, int] | None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self._exempt:
            return None
        if not self._holders[key]:
            self.live_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._holders[key] += 1
        return key, storage.nbytes()

    def _release(self, held: tuple[int, int]) -> None:
        key, size = held
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.live_bytes -= size


class _Saved:
    """A saved tensor that reports when autograd lets go of it."""

    def __init__(self, counter: SavedActivations, tensor: Tensor) -> None:
        # An output that kept itself through its own graph would never be freed.
        self.tensor = tensor.detach()
        self._counter = counter
        self._held = counter._hold(tensor)

    def __del__(self) -> None:
        if self._held is not None:
            self._counter._release(self._held)
