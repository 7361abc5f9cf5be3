"""The memory of a training step, predicted before it runs.

The system is built as in training and then run on fake tensors, which have shapes and types but no
numbers, under the same count as a measured step: two chunks of snippets through passes 1 and 3, the
detector with its loss at full size, one update. What grows in proportion (frames, kept prefix,
features) follows by formula. Fake tensors of a GPU cannot run backwards where there is none, so
they always stand on the CPU; what differs on a GPU is said where it is added.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from etadlite.config import Settings
from etadlite.detector import valid_proposals
from etadlite.detector.roi import extend, interpolate
from etadlite.draws import Draws
from etadlite.errors import InputError
from etadlite.memory.live import LiveTensors
from etadlite.memory.step import LASTING, PASSES, Rows, bytes_of, gradients_of, state_of
from etadlite.sampling import SNIPPET_STRATEGIES, proposal_count, snippet_count
from etadlite.training.loop import make_optimizer
from etadlite.training.losses import detection_loss
from etadlite.training.system import System, half
from etadlite.training.targets import make_targets

LARGEST_CHUNK = 16
"""Snippets beyond which a larger chunk is not faster (this project's choice)."""

LARGEST_BATCH = 1024
CHUNK, RATIO = "encoder.chunk_size", "sampling.snippet_ratio"
MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """What a training step will need.

    Attributes:
        settings: of the step.
        device: `cpu` or `cuda`.
        bf16: whether the encoder computes in bf16.
        rows: the prediction.
    """

    settings: Settings
    device: str
    bf16: bool
    rows: Rows


def plan(settings: Settings) -> Plan:
    """Predict the memory of a training step; neither data nor a GPU is needed.

    Args:
        settings: complete, `encoder.chunk_size` included.

    Raises:
        InputError: the settings fit no system, or the chunk size is missing.
    """
    common, device = _common(settings), _device(settings)
    system, encoder = _fake_system(common), None
    bf16 = system.encoder is not None and _bf16(settings, device)
    if system.encoder is not None:
        encoder = _encoder_passes(common, bf16, *_chunks(settings))
    detector = _detector_pass(common, settings.training.batch_size)
    return Plan(settings, device, bf16, _rows(settings, device, detector, encoder))


def _rows(
    settings: Settings,
    device: str,
    detector: "_DetectorPass",
    encoder: "_EncoderPasses | None",
) -> Rows:
    """All rows from those of the passes."""
    common, on_gpu = _common(settings), device == "cuda"
    system = _fake_system(common)
    update = _update(common, foreach=on_gpu)
    features = 4 * settings.training.batch_size * _numbers(settings)
    moved = features if on_gpu and encoder is None else 0
    inputs, prefix, prefix_on_host = features, 0, False
    if encoder is not None:
        inputs, prefix = encoder.frames * _snippets(settings), encoder.prefix * _kept(settings)
        prefix_on_host = on_gpu and system.encoder.keep == "host"
    lasting = {
        "weights": bytes_of([*system.parameters(), *system.buffers()]),
        "gradients": update.gradients,
        "optimiser": update.state,
        "inputs": 0 if on_gpu else inputs,  # to a GPU they go chunk by chunk
        "prefix": 0 if prefix_on_host else prefix,
    }
    base = sum(lasting.values())
    peaks = {
        # The gradients of the step before live until this step's backward pass begins.
        "pass_2": base + moved + max(detector.forward, detector.backward - update.gradients),
        "update": base + moved - lasting["prefix"] + detector.left + update.peak,
    }
    if encoder is not None:
        # On a GPU the next chunk travels while this one is used.
        ahead_1 = on_gpu * encoder.chunk * encoder.frames
        ahead_3 = on_gpu * encoder.chunk * (encoder.prefix if prefix_on_host else encoder.frames)
        ahead_3 = 0 if lasting["prefix"] else ahead_3
        # The chunks' features stand in a list, then beside their concatenation and its sorting.
        peaks["pass_1"] = base + max(encoder.pass_1 + ahead_1 + features, 3 * features)
        peaks["pass_2"] = max(peaks["pass_2"], base + encoder.copies) + features
        if encoder.pass_3:
            # The features, their gradient and its copy in the order of the snippets.
            left = detector.left + 3 * features
            peaks["pass_2"] = max(peaks["pass_2"], base + encoder.copies + left)
            peaks["pass_3"] = base + encoder.pass_3 + ahead_3 + left
    host = (inputs if on_gpu else 0) + (prefix if prefix_on_host else 0)
    return Rows.of_peaks(peaks, **lasting, host=host)


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
    common, batch = _common(settings), settings.training.batch_size
    detector = _detector_pass(common, batch)
    encoder = None
    if settings.data.features is None:
        encoder = _encoder_passes(common, now.bf16, *_chunks(settings))

    def beyond(detector: _DetectorPass, encoder: _EncoderPasses | None, **changes: Any) -> int:
        return _rows(_with(settings, **changes), now.device, detector, encoder).total - budget

    of_batch = _line({n: _detector_pass(common, n) for n in (batch, 2 * batch)})
    most = _largest(
        lambda n: beyond(of_batch(n), encoder, **{"training.batch_size": n}), LARGEST_BATCH
    )
    if encoder is None:
        return Largest(most, None, None)
    size, everything = encoder.chunk, _snippets(settings)
    other = 2 * size if 2 * size <= everything else max(1, size // 2)
    of_chunk = _line(
        {
            n: _encoder_passes(common, now.bf16, *_chunks(_with(settings, **{CHUNK: n})))
            for n in (size, other)
        }
    )
    chunk = _largest(lambda n: beyond(detector, of_chunk(n), **{CHUNK: n}), everything)
    count, snippets = None, settings.data.snippets
    if settings.sampling.snippet_ratio:
        count = _largest(lambda n: beyond(detector, encoder, **{RATIO: n / snippets}), snippets)
    return Largest(most, chunk, None if count is None else count / snippets)


def _check_floor(settings: Settings, budget: int) -> None:
    """Refuse a budget in which not even the smallest step fits."""
    smallest = {"training.batch_size": 1, CHUNK: 1}
    if settings.sampling.snippet_ratio:
        smallest[RATIO] = 1 / settings.data.snippets
    floor = plan(_with(settings, **smallest)).rows
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


def choose_chunk_size(settings: Settings, budget: int) -> int:
    """The largest chunk, up to `LARGEST_CHUNK`, with which a step fits a budget in bytes.

    Raises:
        InputError: not even one snippet at a time fits.
    """

    def beyond(chunk: int) -> int:
        return plan(_with(settings, **{"encoder.chunk_size": chunk})).rows.total - budget

    chunk = _largest(beyond, min(LARGEST_CHUNK, _snippets(settings)))
    if chunk is None:
        raise InputError(
            f"training.memory of {budget / MIB:.0f} MiB is too little: with one snippet at a time "
            f"this step needs {(budget + beyond(1)) / MIB:.0f} MiB; raise it, or lower "
            "training.batch_size"
        )
    return chunk


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
    return _with(settings, **{"encoder.chunk_size": chunk})


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


def table(plan: Plan, measured: Rows | None = None) -> str:
    """The rows as text: MiB and share of the total; measured values and ratios beside them."""
    rows, batch = plan.rows, plan.settings.training.batch_size
    stack = rows.stack()
    head = (
        f"predicted for a training step of {batch} videos on {plan.device}, encoder in "
        f"{'bf16' if plan.bf16 else 'fp32'}"
    )
    if plan.settings.data.features is not None:
        head = f"predicted for a training step of {batch} videos' features on {plan.device}"
    lines = [("", "predicted MiB", "share", *(("measured MiB", "ratio") if measured else ()))]

    def line(title: str, size: int, share: bool = True, real: int | None = None) -> None:
        cells = [title, f"{size / MIB:.1f}", f"{size / rows.total:.1%}" if share else ""]
        if measured:
            cells += ["" if real is None else f"{real / MIB:.1f}"]
            cells += [f"{size / real:.2f}" if real else ""]
        lines.append(tuple(cells))

    for name, title in LASTING.items():
        line(title, getattr(rows, name), real=measured and getattr(measured, name))
    widest = list(stack)[-1]
    line(widest, stack[widest], real=measured and measured.total - measured.lasting)
    line("total", rows.total, real=measured and measured.total)
    line("total per video", rows.total // batch, False, measured and measured.total // batch)
    for name, title in PASSES.items():
        if getattr(rows, name) or (measured and getattr(measured, name)):
            line(f"  {title}", getattr(rows, name), False, measured and getattr(measured, name))
    if rows.host:
        line("in host memory", rows.host, False, measured and measured.host)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return f"{head}\n" + "\n".join(
        "  ".join(
            [cells[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        ).rstrip()
        for cells in lines
    )


def planned(settings: Settings, chunks: Sequence[int]) -> str:
    """What a step needs, as a part of a sentence on memory that ran out.

    Args:
        settings: of the step.
        chunks: snippets encoded at once, for each of which it is said.
    """
    try:
        rows = {
            chunk: plan(_with(settings, **{"encoder.chunk_size": chunk})).rows for chunk in chunks
        }
    except (RuntimeError, MemoryError):  # too little for the plan, too
        return ""
    first = next(iter(rows.values()))
    fixed = first.weights + first.gradients + first.optimiser
    needs = ", ".join(f"{each.total / MIB:,.0f} MiB with {n}" for n, each in rows.items())
    if settings.data.features is not None:
        needs = f"{first.total / MIB:,.0f} MiB"
    return (
        f"; the plan says {needs}, of which {fixed / MIB:,.0f} are weights, gradients and optimiser"
    )


def advice(settings: Settings, budget: int) -> str:
    """What fits a budget in bytes, as text; raises as `largest` does."""
    found = largest(settings, budget)
    lines = [f"predicted to fit {budget / MIB:.0f} MiB, each changed alone:"]
    for title, value in zip(("batch", "chunk", "snippet ratio"), found, strict=True):
        if settings.data.features is None or title == "batch":
            text = "none: change another too" if value is None else f"up to {value:.4g}"
            lines.append(f"  {title:<14}{text}")
    return "\n".join(lines)


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


def _with(settings: Settings, **changes: Any) -> Settings:
    """Settings with values under names such as `training.batch_size`."""
    for name, value in changes.items():
        section, _, leaf = name.partition(".")
        part = getattr(settings, section).model_copy(update={leaf: value})
        settings = settings.model_copy(update={section: part})
    return settings


def _common(settings: Settings) -> Settings:
    """The settings without what a system is built and a detector is run without."""
    ratio = 1.0 if settings.sampling.snippet_ratio else 0.0
    return _with(
        settings,
        **{
            "training.batch_size": 1,
            "encoder.chunk_size": 1,
            "encoder.compile": False,
            "training.precision": "fp32",
            "sampling.snippet_strategy": "random",
            "sampling.rescale": False,
            "sampling.snippet_ratio": ratio,
        },
    )


def _device(settings: Settings) -> str:
    """Where the step runs: `auto` is the GPU where there is one."""
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.device


def _bf16(settings: Settings, device: str) -> bool:
    """Whether the encoder computes in bf16; a GPU that is not there is taken to be able to."""
    if device == "cuda" and not torch.cuda.is_available():
        return settings.training.precision != "fp32"
    return half(settings.training.precision, torch.device(device))


def _numbers(settings: Settings) -> int:
    """C x N numbers of a video's features."""
    return settings.detector.in_channels * settings.data.snippets


def _snippets(settings: Settings) -> int:
    """B x N snippets of a batch."""
    return settings.training.batch_size * settings.data.snippets


def _picked(settings: Settings) -> int:
    """How many snippets of a batch get a gradient."""
    count = snippet_count(settings.data.snippets, settings.sampling.snippet_ratio)
    return settings.training.batch_size * count


def _kept(settings: Settings) -> int:
    """How many snippets' prefix waits for the third pass: all where they are picked late."""
    strategy = SNIPPET_STRATEGIES[settings.sampling.snippet_strategy]
    early = strategy.needs in ("nothing", "labels")
    return _picked(settings) if early or not _picked(settings) else _snippets(settings)


def _chunks(settings: Settings) -> tuple[int, int, int]:
    """The largest chunk, and how many snippets stand for all in the passes 1 and 3."""
    size = settings.encoder.chunk_size
    if size is None:
        raise InputError("a plan needs encoder.chunk_size, for example encoder.chunk_size=4")
    everything, picked = _snippets(settings), _picked(settings)
    largest_chunk = min(size, max(picked, everything - picked))
    return largest_chunk, min(2 * largest_chunk, everything), min(2 * largest_chunk, picked)


class _Guesses(LiveTensors):
    """Counts fake tensors, and answers what a program asks of their numbers: yes, two, first.

    Args:
        existing: see `LiveTensors`.
        repeats: how often `repeat_interleave` repeats on average: the samples of RoIAlign.
    """

    def __init__(self, existing: Iterable[Tensor], repeats: float = 1.0) -> None:
        super().__init__(existing)
        self.repeats = repeats

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.equal.default:
            return True
        if func is torch.ops.aten._local_scalar_dense.default:
            if args[0].dtype == torch.bool:
                return True
            return 2.0 if args[0].is_floating_point() else 0
        if func is torch.ops.aten.repeat_interleave.Tensor:
            func, args = (
                torch.ops.aten.new_empty.default,
                (args[0], [round(len(args[0]) * self.repeats)]),
            )
            kwargs = None
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.mkldnn_rnn_layer.default:
            *outputs, workspace = made
            made = (*outputs, workspace.new_empty(_lstm_workspace(args)))
            self.count(made[-1])
        return made


def _lstm_workspace(args: Sequence[Any]) -> int:
    """Bytes that an LSTM on the CPU keeps for its backward pass.

    Only the library knows, so it is asked with real zeros of a few videos.
    """
    batch = args[0].shape[1]  # the numbers of videos stand before the last axis
    few = min(batch, 8)

    def real(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        zeros = torch.zeros(value.shape, dtype=value.dtype)
        return zeros[..., :few, :] if value.ndim == 3 else zeros

    with _disable_current_modes():
        *_, workspace = torch.ops.aten.mkldnn_rnn_layer.default(*map(real, args))
    return workspace.nbytes * batch // few


@contextmanager
def _counted(system: System, repeats: float = 1.0) -> Iterator[_Guesses]:
    """Count what is made on the system's fake mode, besides its own weights."""
    mode = next(system.parameters()).fake_mode
    with mode, _Guesses([*system.parameters(), *system.buffers()], repeats) as live:
        yield live


@lru_cache(maxsize=4)
def _fake_system(settings: Settings) -> System:
    """The system of training, of fake tensors."""
    system = System(settings, pretrained=False).train()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        return copy.deepcopy(system)


class _EncoderPasses(NamedTuple):
    """Bytes: of a snippet's frames and prefix, and the peaks of two chunks without them.

    `copies` are the weights in bf16, which autocast makes once and keeps until a pass is over.
    """

    chunk: int
    frames: int
    prefix: int
    copies: int
    pass_1: int
    pass_3: int


@lru_cache(maxsize=256)
def _encoder_passes(
    settings: Settings, bf16: bool, chunk: int, rows: int, picked: int
) -> _EncoderPasses:
    system, data = _fake_system(settings), settings.data
    encoder = system.encoder
    trained = [p for p in encoder.parameters() if p.requires_grad]
    sums = bytes_of(trained)
    encoder.chunk_size = chunk
    with _counted(system) as live:
        frames = torch.zeros(1, rows, 3, data.frames, data.crop, data.crop, dtype=torch.uint8)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            begin = live.live_bytes
            live.restart()
            first = encoder.first_pass(frames, None)
            kept = 0 if first.prefix is None else first.prefix.nbytes
            pass_1 = live.peak_bytes - begin - kept
            copies = live.live_bytes - begin - kept - first.features.nbytes
        pass_3 = 0
        if picked:
            gradient = torch.zeros_like(first.features)
            begin = live.live_bytes
            live.restart()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                encoder.replay(frames, first, torch.arange(picked)[None], gradient, trained)
            pass_3 = live.peak_bytes - begin - sums
    return _EncoderPasses(chunk, frames.nbytes // rows, kept // rows, copies, pass_1, pass_3)


class _DetectorPass(NamedTuple):
    """Bytes beyond weights and features: peaks, and what is left after the backward pass.

    The peak of `backward` holds the detector's gradients; what is left does not.
    """

    forward: int
    backward: int
    left: int


@lru_cache(maxsize=256)
def _detector_pass(settings: Settings, batch: int) -> _DetectorPass:
    system = _fake_system(settings)
    cells, detector = settings.data.snippets, system.detector
    count = proposal_count(len(system.proposals), settings.sampling.proposal_ratio)
    with _counted(system, _roi_samples(settings)) as live:
        features = torch.zeros(
            batch,
            settings.detector.in_channels,
            cells,
            requires_grad=system.encoder is not None and settings.sampling.snippet_ratio > 0,
        )
        begin = live.live_bytes
        proposals = system.proposals[:count].repeat(batch, 1, 1)
        actions = [torch.zeros(2, 2) for _ in range(batch)]
        labels = [torch.zeros(2, dtype=torch.long) for _ in range(batch)]
        output = detector(features, proposals)
        targets = make_targets(actions, labels, proposals, cells, len(settings.detector.classes))
        parts = detection_loss(output, targets, settings.losses, Draws(range(batch)))
        loss = torch.stack(list(parts.values())).sum()
        forward = live.peak_bytes - begin
        live.restart()
        loss.backward()
        backward, features.grad = live.peak_bytes - begin, None
        left = live.live_bytes - begin - bytes_of(gradients_of(detector))
        for parameter in detector.parameters():
            parameter.grad = None
    return _DetectorPass(forward, backward, left)


def _roi_samples(settings: Settings) -> float:
    """Samples that a bin of RoIAlign has, on average over about a thousand valid proposals."""
    cells, detector = settings.data.snippets, settings.detector
    proposals = valid_proposals(cells, detector.max_duration)
    proposals = extend(proposals[:: 1 + len(proposals) // 1000])
    aligned = detector.layout == "opentad"
    entries = interpolate(proposals, cells, detector.roi_size, aligned=aligned)
    return len(entries.owner) / len(proposals)


class _Update(NamedTuple):
    """Bytes of all gradients and of the optimiser's state, and the peak beyond them."""

    gradients: int
    state: int
    peak: int


@lru_cache(maxsize=8)
def _update(settings: Settings, *, foreach: bool) -> _Update:
    system = _fake_system(settings)
    with _counted(system) as live:
        optimizer = make_optimizer(system, settings.training)
        for group in optimizer.param_groups:
            group["foreach"] = foreach
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes the state
        begin = live.live_bytes
        live.restart()
        optimizer.step()
        result = _Update(
            bytes_of(gradients_of(system)),
            bytes_of(state_of(optimizer)),
            live.peak_bytes - begin,
        )
        for parameter in system.parameters():
            parameter.grad = None
    return result
