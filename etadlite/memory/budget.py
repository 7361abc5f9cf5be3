"""What fits a given memory: the chunk that a training takes, and how far each dial can go."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ByteSize, TypeAdapter, ValidationError

from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.memory.fake_passes import DetectorPass, EncoderPasses, detector_pass, encoder_passes
from etadlite.memory.plan import MIB, all_snippets, bare, chunks_of, plan, rows_of, with_values

LARGEST_CHUNK = 16
"""Snippets beyond which a larger chunk is not faster (this project's choice)."""

LARGEST_BATCH = 1024
CHUNK, RATIO = "encoder.chunk_size", "sampling.snippet_ratio"


def read_bytes(text: str) -> int:
    """Bytes of a text such as 6GB (10^9) or 6GiB (2^30).

    Raises:
        InputError: the text is no amount of memory.
    """
    try:
        amount = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        amount = 0
    if amount <= 0:
        raise InputError(f'"{text}" is no amount of memory; write it as 6GB or 800MiB')
    return amount


def with_chunk_size(settings: Settings) -> Settings:
    """The settings with a chunk size: as given, else chosen from `training.memory`.

    Raises:
        InputError: neither is given, or the budget is too small.
    """
    if settings.encoder.chunk_size is not None or settings.data.features is not None:
        return settings
    if settings.training.memory is None:
        raise InputError(
            "encoder.chunk_size is null: give it, or a budget to choose it from, as "
            "training.memory=6GB"
        )
    chunk = choose_chunk_size(settings, settings.training.memory)
    return with_values(settings, **{CHUNK: chunk})


def choose_chunk_size(settings: Settings, budget: int) -> int:
    """The largest chunk, up to `LARGEST_CHUNK`, with which a step fits a budget in bytes.

    Raises:
        InputError: not even one snippet at a time fits.
    """

    def beyond(chunk: int) -> int:
        return plan(with_values(settings, **{CHUNK: chunk})).rows.total - budget

    chunk = _largest(beyond, min(LARGEST_CHUNK, all_snippets(settings)))
    if chunk is None:
        raise InputError(
            f"training.memory of {budget / MIB:.0f} MiB is too little: with one snippet at a time "
            f"this step needs {(budget + beyond(1)) / MIB:.0f} MiB; raise it, or lower "
            "training.batch_size"
        )
    return chunk


class Largest(NamedTuple):
    """The largest values that fit a budget, each changed alone; None where none fits alone."""

    batch: int | None
    chunk: int | None
    ratio: float | None


def largest(settings: Settings, budget: int) -> Largest:
    """How far batch, chunk and ratio can go within a budget in bytes.

    Raises:
        InputError: not even the floor fits: batch 1, chunk 1 and a single snippet a video.
    """
    now = plan(settings)
    if now.rows.total > budget:
        _check_floor(settings, budget)
    common, batch = bare(settings), settings.training.batch_size
    detector = detector_pass(common, batch)
    encoder = None
    if settings.data.features is None:
        encoder = encoder_passes(common, now.bf16, *chunks_of(settings))

    def beyond(detector: DetectorPass, encoder: EncoderPasses | None, **changes: Any) -> int:
        return (
            rows_of(with_values(settings, **changes), now.device, detector, encoder).total - budget
        )

    of_batch = _line({n: detector_pass(common, n) for n in (batch, 2 * batch)})
    most = _largest(
        lambda n: beyond(of_batch(n), encoder, **{"training.batch_size": n}), LARGEST_BATCH
    )
    if encoder is None:
        return Largest(most, None, None)
    size, everything = encoder.chunk, all_snippets(settings)
    other = 2 * size if 2 * size <= everything else max(1, size // 2)
    of_chunk = _line(
        {
            n: encoder_passes(common, now.bf16, *chunks_of(with_values(settings, **{CHUNK: n})))
            for n in (size, other)
        }
    )
    chunk = _largest(lambda n: beyond(detector, of_chunk(n), **{CHUNK: n}), everything)
    count, snippets = None, settings.data.snippets
    if settings.sampling.snippet_ratio:
        count = _largest(lambda n: beyond(detector, encoder, **{RATIO: n / snippets}), snippets)
    return Largest(most, chunk, None if count is None else count / snippets)


def advice(settings: Settings, budget: int) -> str:
    """What fits a budget in bytes, as text; raises as `largest` does."""
    found = largest(settings, budget)
    lines = [f"predicted to fit {budget / MIB:.0f} MiB, each changed alone:"]
    for title, value in zip(("batch", "chunk", "snippet ratio"), found, strict=True):
        if settings.data.features is None or title == "batch":
            text = "none: change another too" if value is None else f"up to {value:.4g}"
            lines.append(f"  {title:<14}{text}")
    return "\n".join(lines)


def _check_floor(settings: Settings, budget: int) -> None:
    """Refuse a budget in which not even the smallest step fits."""
    smallest = {"training.batch_size": 1, CHUNK: 1}
    if settings.sampling.snippet_ratio:
        smallest[RATIO] = 1 / settings.data.snippets
    floor = plan(with_values(settings, **smallest)).rows
    if floor.total > budget:
        fixed = floor.weights + floor.gradients + floor.optimiser
        raise InputError(
            f"a memory budget of {budget / MIB:.0f} MiB lies below the floor of "
            f"{floor.total / MIB:.0f} MiB that this system needs with batch 1, chunk 1 and one "
            f"sampled snippet ({fixed / MIB:.0f} MiB are weights, gradients and optimiser): raise "
            "the budget or choose a smaller encoder or detector"
        )


def _line(known: dict[int, Any]) -> Callable[[int], Any]:
    """The straight line through the known values of one or two numbers, field by field."""
    (first, at_first), (second, at_second) = next(iter(known.items())), list(known.items())[-1]

    def at(n: int) -> Any:
        if n in known:
            return known[n]
        share = (n - first) / (second - first) if second != first else 0
        return type(at_first)(
            *(round(a + share * (b - a)) for a, b in zip(at_first, at_second, strict=True))
        )

    return at


def _largest(beyond: Callable[[int], int], most: int) -> int | None:
    """The largest number in 1..most with beyond(number) <= 0, which grows with it; None: none.

    The bracket is cut where a straight line between its ends crosses zero.
    """
    low, high = 1, most
    at_low, at_high = beyond(low), beyond(high)
    if at_low > 0:
        return None
    if at_high <= 0:
        return high
    while high - low > 1:
        guess = low + int((high - low) * -at_low / (at_high - at_low))
        guess = min(max(guess, low + 1), high - 1)
        value = beyond(guess)
        if value > 0:
            high, at_high = guess, value
        else:
            low, at_low = guess, value
    return low
