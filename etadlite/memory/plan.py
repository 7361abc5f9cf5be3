"""The memory of a training step, predicted before it runs, and what fits a budget.

What the passes need is counted on fake tensors (`fake_passes.py`). What grows in proportion
(frames, kept prefix, features) follows by formula; comments say what differs on a GPU.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from etadlite.base.devices import use_bf16
from etadlite.base.errors import InputError
from etadlite.base.gpu import gpus
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.memory import fake_passes
from etadlite.memory.fake_passes import DetectorPass, EncoderPasses
from etadlite.memory.measurement import PASSES, StepMemory, bytes_of, snippets_read
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, snippet_count

MIB = 2**20
LARGEST_CHUNK = 16  # snippets; a larger chunk is not faster (this project's choice)
LARGEST_BATCH = 1024
BATCH, CHUNK, RATIO = "training.batch_size", "encoder.chunk_size", "sampling.snippet_ratio"
CHECKPOINTING = "encoder.checkpointing"


@dataclass(frozen=True)
class Plan:
    """The predicted memory of a training step with these settings, in its parts: `rows`."""

    settings: Settings
    device: str
    bf16: bool
    detector: DetectorPass
    encoder: EncoderPasses | None
    rows: StepMemory


def plan(settings: Settings) -> Plan:
    """Predict the memory of a training step; neither data nor a GPU is needed.

    Raises:
        InputError: the settings fit no system, or the chunk size is missing.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if gpus() else "cpu"
    precision = settings.encoder_precision
    bf16 = precision != "fp32"  # so of a GPU that is missing here
    if device != "cuda" or gpus():
        bf16 = use_bf16(precision, torch.device(device))
    bf16 = bf16 and settings.data.features is None
    common, encoder = _system_settings(settings), None
    if settings.data.features is None:
        encoder = fake_passes.encoder_passes(common, bf16, *_chunks(settings))
    detector = fake_passes.detector_pass(common, settings.training.batch_size)
    rows = _step_memory(settings, device, detector, encoder)
    return Plan(settings, device, bf16, detector, encoder, rows)


def _step_memory(
    settings: Settings, device: str, detector: DetectorPass, encoder: EncoderPasses | None
) -> StepMemory:
    """Put the parts of a step's memory together from what its passes need."""
    common, on_gpu = _system_settings(settings), device == "cuda"
    system = fake_passes.fake_system(common)
    gradients, state, update = fake_passes.update_of(common, foreach=on_gpu)
    features = 4 * settings.detector.in_channels * _all_snippets(settings)
    moved = features if on_gpu and encoder is None else 0
    inputs, prefix, prefix_on_host = features, 0, False
    if encoder is not None:
        inputs, prefix = encoder.frames * snippets_read(settings), encoder.prefix * _kept(settings)
        prefix_on_host = on_gpu and settings.encoder.keep_prefix == "host"
    lasting = {
        "weights": bytes_of([*system.parameters(), *system.buffers()]),
        "gradients": gradients,
        "optimiser": state,
        "inputs": 0 if on_gpu else inputs,  # they move to a GPU chunk by chunk
        "prefix": 0 if prefix_on_host else prefix,
    }
    base, graph = sum(lasting.values()), 0
    if encoder is not None and encoder.graph:
        # Autocast's copies of the weights belong to what the activations keep.
        graph = encoder.graph * _kept(settings) + encoder.copies
    base += graph
    peaks = {
        # The gradients of the step before live until this step's backward pass begins.
        "pass_2": base + moved + max(detector.forward, detector.backward - gradients),
        "update": base - graph + moved - lasting["prefix"] + detector.left + update,
    }
    if encoder is not None:
        # On a GPU the next chunk is moved while this one is used.
        ahead_1 = on_gpu * encoder.chunk * encoder.frames
        ahead_3 = on_gpu * encoder.chunk * (encoder.prefix if prefix_on_host else encoder.frames)
        ahead_3 = 0 if lasting["prefix"] else ahead_3
        # The chunks' features are in a list, then beside their concatenation and its sorting.
        encoded, sorting = features, 3 * features
        if settings.sampling.others == "bank":
            # The bank's features wait for pass 1, and what was encoded waits for the update.
            encoded = features * _picked(settings) // _all_snippets(settings)
            base += features + encoded
            peaks = {name: peak + features + encoded for name, peak in peaks.items()}
            sorting = encoded + (2 + on_gpu) * features
        peaks["pass_1"] = base + max(encoder.pass_1 + ahead_1 + encoded, sorting)
        peaks["pass_2"] = max(peaks["pass_2"], base + encoder.copies) + features
        if encoder.pass_3:
            # The features, their gradient and its copy in the order of the snippets.
            left = detector.left + 3 * features
            peaks["pass_2"] = max(peaks["pass_2"], base + encoder.copies + left)
            peaks["pass_3"] = base + encoder.pass_3 + ahead_3 + left
    host = (inputs if on_gpu else 0) + (prefix if prefix_on_host else 0)
    return StepMemory.of_peaks(peaks, host, **lasting)


def memory_table(plan: Plan, measured: StepMemory | None = None) -> str:
    """Return a plan as text: MiB and shares of the total, and measured MiB and ratios beside."""
    settings, batch = plan.settings, plan.settings.training.batch_size

    def sizes(rows: StepMemory) -> list[int]:
        passes = [getattr(rows, name) for name in PASSES]
        return [*rows.stack().values(), rows.total, rows.total // batch, *passes, rows.host]

    titles = [*plan.rows.stack(), "total", "total per video"]
    titles += [*(f"  {title}" for title in PASSES.values()), "in host memory"]
    ours, real = sizes(plan.rows), sizes(measured) if measured else [0] * len(titles)
    lines = [["", "predicted MiB", "share", "measured MiB", "ratio"]]
    for number, (title, size, found) in enumerate(zip(titles, ours, real, strict=True)):
        share = f"{size / plan.rows.total:.1%}" if number <= titles.index("total") else ""
        ratio = f"{size / found:.2f}" if found else ""
        if share or size or found:
            lines.append([title, f"{size / MIB:.1f}", share, f"{found / MIB:.1f}", ratio])
    what = f"{batch} videos on {plan.device}, encoder in {'bf16' if plan.bf16 else 'fp32'}"
    if settings.data.features is not None:
        what = f"{batch} videos' features on {plan.device}"
    table = aligned(lines if measured else [line[:3] for line in lines])
    return f"predicted for a training step of {what}\n{table}"


def plan_in_words(settings: Settings, chunks: Sequence[int]) -> str:
    """Return what a step needs with each of some chunk sizes, as the end of a sentence."""
    try:
        plans = [plan(settings.changed({CHUNK: chunk})).rows for chunk in chunks]
    except (RuntimeError, MemoryError):  # memory does not suffice for the plan either
        return ""
    needs = [f"{rows.total / MIB:,.0f} MiB" for rows in plans]
    if settings.data.features is None:
        needs = [f"{need} with {chunk}" for need, chunk in zip(needs, chunks, strict=True)]
    return (
        f"; the plan says {', '.join(dict.fromkeys(needs))}, of which {plans[0].fixed / MIB:,.0f} "
        "are weights, gradients and optimiser"
    )


def with_chunk_size(settings: Settings) -> Settings:
    """Return the settings with chunk size and checkpointing: as given, or from `training.memory`.

    The chosen chunk is the largest, up to `LARGEST_CHUNK`, with which a step fits. Blocks are
    checkpointed only where nothing fits without.

    Raises:
        InputError: no budget is given to choose from, or not even one snippet at a time fits.
    """
    encoder, budget = settings.encoder, settings.training.memory
    if settings.data.features is not None:
        return settings
    asked = {CHUNK: encoder.chunk_size, CHECKPOINTING: encoder.checkpointing}
    missing = [name for name, value in asked.items() if value is None]
    if not missing:
        return settings
    if budget is None:
        raise InputError(
            f"{missing[0]} is null: give it, or a budget to choose it from, as training.memory=6GB"
        )
    need, most = 0, min(LARGEST_CHUNK, _all_snippets(settings))
    sizes = range(1, most + 1) if encoder.chunk_size is None else [encoder.chunk_size]
    for checkpointing in (False, True) if CHECKPOINTING in missing else (encoder.checkpointing,):
        chosen = settings.changed({CHECKPOINTING: checkpointing})

        def total(chunk: int, chosen: Settings = chosen) -> int:
            return plan(chosen.changed({CHUNK: chunk})).rows.total

        if fitting := bisect_right(sizes, budget, key=total):
            return chosen.changed({CHUNK: sizes[fitting - 1]})
        need = total(sizes[0])
    few = "one snippet" if sizes[0] == 1 else f"{sizes[0]} snippets"
    raise InputError(
        f"training.memory of {budget / MIB:.0f} MiB is too little: with {few} at a time this step "
        f"needs {need / MIB:.0f} MiB; raise it, or lower training.batch_size"
    )


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
    snippets, everything = settings.data.snippets, _all_snippets(settings)
    batch = settings.training.batch_size
    detector, encoder = now.detector, now.encoder

    def need(name: str, value: float, detector: DetectorPass, encoder: EncoderPasses | None) -> int:
        changed = settings.changed({name: value})
        return _step_memory(changed, now.device, detector, encoder).total

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


class Proposal(NamedTuple):
    """What of the encoder is trained, from how many snippets, within a budget."""

    train: str  # as `encoder.train`
    chunk: int
    checkpointing: bool
    snippets: int  # of a video, that carry a gradient
    parameters: int  # that are trained in the encoder
    total: int  # bytes


def propose(settings: Settings, budget: int) -> Proposal | None:
    """Return the most that can be trained within a budget in bytes; None if nothing fits.

    First come as many snippets as the settings ask for, then the most parameters, then the most
    snippets. The batch stays; the chunk becomes 1 only where the settings' own does not fit, and
    blocks are checkpointed only where this does not fit either. The passes are counted for all
    snippets, so the total may be a little too high, never too low.
    """
    snippets, found = settings.data.snippets, []
    asked = snippet_count(snippets, settings.sampling.snippet_ratio)
    frozen = settings.encoder.frozen_dtype
    for train in ("all", "adapters", "head", "norms") if settings.data.features is None else ():
        for chunk, again in _ways(settings):
            chosen = settings.changed(
                {
                    "encoder.train": train,
                    "encoder.frozen_dtype": "fp32" if train == "all" else frozen,
                    CHUNK: chunk,
                    CHECKPOINTING: again,
                }
            )
            try:
                now = plan(chosen.changed({RATIO: 1.0}))
            except InputError:  # the encoder has nothing of this kind after its frozen stages
                continue

            def need(count: int, now: Plan = now, chosen: Settings = chosen) -> int:
                changed = chosen.changed({RATIO: count / snippets})
                return _step_memory(changed, now.device, now.detector, now.encoder).total

            if asked and (count := _largest(snippets, budget, need)):
                encoder = fake_passes.fake_system(_system_settings(chosen)).encoder
                size = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
                found.append(Proposal(train, now.encoder.chunk, again, count, size, need(count)))
                break
    return max(
        found, key=lambda p: (min(p.snippets, asked), p.parameters, p.snippets), default=None
    )


def _ways(settings: Settings) -> list[tuple[int | None, bool]]:
    """Return chunk sizes, and whether blocks are checkpointed, from the fastest to the smallest."""
    own, again = settings.encoder.chunk_size, bool(settings.encoder.checkpointing)
    return [*dict.fromkeys(((own, again), (1, again), (1, True)))]


def advice(settings: Settings, budget: int) -> str:
    """Return what fits a budget in bytes, as text; the errors are those of `largest`."""
    lines, best = [], propose(settings, budget)
    if best is not None:
        share = best.snippets / settings.data.snippets
        again = f"{CHECKPOINTING}=true " if best.checkpointing else ""
        lines = [
            f"the most that is predicted to fit {budget / MIB:.0f} MiB with "
            f"{settings.training.batch_size} videos: encoder.train={best.train} "
            f"encoder.chunk_size={best.chunk} {again}sampling.snippet_ratio={share:.4g}; this "
            f"trains {best.parameters:,} parameters of the encoder from {best.snippets} of "
            f"{settings.data.snippets} snippets, in {best.total / MIB:.0f} MiB",
        ]
    try:
        ranges = largest(settings, budget)
    except InputError:
        if best is None:
            raise
        return lines[0]
    lines.append(f"predicted to fit {budget / MIB:.0f} MiB, each changed alone:")
    for title, value in ranges.items():
        text = "none: change another too" if value is None else f"up to {value:.4g}"
        lines.append(f"  {title:<14}{text}")
    return "\n".join(lines)


def _refuse_below_floor(settings: Settings, budget: int) -> None:
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
    """Return the largest number in 1..most whose growing need fits a budget, or None."""
    return bisect_right(range(1, most + 1), budget, key=need) or None


def _system_settings(settings: Settings) -> Settings:
    """Return the settings that building a system and running its detector need.

    All others get fixed values, so that plans of different batches and chunks share their passes.
    """
    return settings.changed(
        {
            "training.batch_size": 1,
            "encoder.chunk_size": 1,
            "encoder.compile": False,
            "training.precision": "fp32",
            "sampling.snippet_strategy": "random",
            "sampling.others": "encode",
            "sampling.rescale": False,
            "sampling.snippet_ratio": 1.0 if settings.sampling.snippet_ratio else 0.0,
        }
    )


def _all_snippets(settings: Settings) -> int:
    """Return B x N, the snippets of a batch."""
    return settings.training.batch_size * settings.data.snippets


def _picked(settings: Settings) -> int:
    """Return the number of snippets of a batch that get a gradient."""
    count = snippet_count(settings.data.snippets, settings.sampling.snippet_ratio)
    return settings.training.batch_size * count


def _kept(settings: Settings) -> int:
    """Return for how many snippets the prefix is kept: for all if they are picked late."""
    strategy = SNIPPET_STRATEGIES[settings.sampling.snippet_strategy]
    picked, bank = _picked(settings), settings.sampling.others == "bank"
    return picked if strategy.early or bank or not picked else _all_snippets(settings)


def _chunks(settings: Settings) -> tuple[int, int, int, bool]:
    """Return the largest chunk, how many snippets stand for all in passes 1 and 3, and if no more.

    The last is True if only snippets are encoded that get a gradient.
    """
    size = settings.encoder.chunk_size
    if size is None:
        raise InputError("a plan needs encoder.chunk_size, for example encoder.chunk_size=4")
    everything, picked = _all_snippets(settings), _picked(settings)
    if settings.sampling.others == "bank":
        everything = picked
    largest = min(size, max(picked, everything - picked))
    return largest, min(2 * largest, everything), min(2 * largest, picked), everything == picked
