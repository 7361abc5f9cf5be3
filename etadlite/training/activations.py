"""Measured activation memory: the bytes that autograd keeps for the backward pass."""

from collections import Counter
from typing import Self

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedActivations(saved_tensors_hooks):
    """Counts the bytes that autograd holds at once while the context is open.

    A storage that several operations keep counts once. Parameters and buffers of `existing` modules
    do not count, nor do `existing` tensors, such as the frames of a step. The number is the same on
    every device. A nested backward pass is counted if it runs in the thread that opened the
    context, as it does on the CPU.
    """

    def __init__(self, *existing: nn.Module | Tensor) -> None:
        super().__init__(lambda tensor: _Saved(self, tensor), lambda saved: saved.tensor)
        self.live_bytes = 0  # held now
        self.peak_bytes = 0  # the most that was held at once
        self._holders: Counter[int] = Counter()
        self._exempt: set[int] = set()
        for item in existing:
            tensors = [item] if isinstance(item, Tensor) else [*item.parameters(), *item.buffers()]
            self._exempt.update(tensor.untyped_storage().data_ptr() for tensor in tensors)

    def __enter__(self) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().__enter__()
        return self

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

    def _release(self, key: int, size: int) -> None:
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
            self._counter._release(*self._held)
