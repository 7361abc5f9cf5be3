"""What fits a given memory: the chunk of a training, and the largest batch, chunk and ratio."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.memory.fake_passes import DetectorPass, EncoderPasses
from etadlite.memory.plan import MIB, all_snippets, plan, step_memory

LARGEST_CHUNK = 16
"""Snippets; a larger chunk is not faster (this project's choice)."""

LARGEST_BATCH = 1024
BATCH, CHUNK, RATIO = "training.batch_size", "encoder.chunk_size", "sampling.snippet_ratio"


def with_chunk_size(settings: Settings) -> Settings:
    """Return the settings with a chunk size: as given, or chosen from `training.memory`.

    The chosen one is the largest, up to `LARGEST_CHUNK`, with which a step fits.

    Raises:
        InputError: neither is given, or not even one snippet at a time fits.
    """
    if settings.encoder.chunk_size is not None or settings.data.features is not None:
        return settings
    budget = settings.training.memory
    if budget is None:
        raise InputError(
            "encoder.chunk_size is null: give it, or a budget to choose it from, as "
            "training.memory=6GB"
        )

    def need(chunk: int) -> int:
        return plan(settings.changed({CHUNK: chunk})).rows.total

    chunk = _largest(min(LARGEST_CHUNK, all_snippets(settings)), budget, need)
    if chunk is None:
        raise InputError(
            f"training.memory of {budget / MIB:.0f} MiB is too little: with one snippet at a time "
            f"this step needs {need(1) / MIB:.0f} MiB; raise it, or lower "
            "training.batch_size"
        )
    return settings.changed({CHUNK: chunk})


def largest(settings: Settings, budget: int) -> dict[str, float | None]:
    """Return how far batch, chunk and snippet ratio can go within a budget in bytes.

    Each is changed alone; None if none fits alone. The passes of other batches and chunks are not
    counted: they lie on a straight line.

    Raises:
        InputError: not even batch 1, chunk 1 and a single snippet per video fit.
    """
    now = plan(settings)
    if now.rows.total > budget:
        _refuse_below_floor(settings, budget)
    snippets, everything = settings.data.snippets, all_snippets(settings)
    batch = settings.training.batch_size
    detector, encoder = now.detector, now.encoder

    def need(name: str, value: float, detector: DetectorPass, encoder: EncoderPasses | None) -> int:
        changed = settings.changed({name: value})
        return step_memory(changed, now.device, detector, encoder).total

    of_batch = _line(lambda n: plan(settings.changed({BATCH: n})).detector, batch, 2 * batch)
    most = _largest(LARGEST_BATCH, budget, lambda n: need(BATCH, n, of_batch(n), encoder))
    if encoder is None:
        return {"batch": most}
    size = encoder.chunk
    of_chunk = _line(
        lambda n: plan(settings.changed({CHUNK: n})).encoder,
        size,
        2 * size if 2 * size <= everything else max(1, size // 2),
    )
    chunk = _largest(everything, budget, lambda n: need(CHUNK, n, detector, of_chunk(n)))
    count = None
    if settings.sampling.snippet_ratio:
        count = _largest(snippets, budget, lambda n: need(RATIO, n / snippets, detector, encoder))
    return {"batch": most, "chunk": chunk, "snippet ratio": count and count / snippets}


def advice(settings: Settings, budget: int) -> str:
    """Return what fits a budget in bytes, as text; the errors are those of `largest`."""
    lines = [f"predicted to fit {budget / MIB:.0f} MiB, each changed alone:"]
    for title, value in largest(settings, budget).items():
        text = "none: change another too" if value is None else f"up to {value:.4g}"
        lines.append(f"  {title:<14}{text}")
    return "\n".join(lines)


def _refuse_below_floor(settings: Settings, budget: int) -> None:
    """Refuse a budget in which not even the smallest step fits."""
    smallest: dict[str, float] = {BATCH: 1, CHUNK: 1}
    if settings.sampling.snippet_ratio:
        smallest[RATIO] = 1 / settings.data.snippets
    floor = plan(settings.changed(smallest)).rows
    if floor.total > budget:
        raise InputError(
            f"a memory budget of {budget / MIB:.0f} MiB lies below the floor of "
            f"{floor.total / MIB:.0f} MiB that this system needs with batch 1, chunk 1 and one "
            f"sampled snippet ({floor.fixed / MIB:.0f} MiB are weights, gradients and optimiser): "
            "raise the budget or choose a smaller encoder or detector"
        )


def _line(count: Callable[[int], Any], first: int, second: int) -> Callable[[int], Any]:
    """Return the straight line, field by field, through what `count` gives for two numbers."""
    at_first, at_second = count(first), count(second)

    def at(n: int) -> Any:
        share = (n - first) / (second - first) if second != first else 0
        fields = zip(at_first, at_second, strict=True)
        return type(at_first)(*(round(a + share * (b - a)) for a, b in fields))

    return at


def _largest(most: int, budget: int, need: Callable[[int], int]) -> int | None:
    """Return the largest number in 1..most whose growing need fits a budget; None: none does."""
    return bisect_right(range(1, most + 1), budget, key=need) or None
