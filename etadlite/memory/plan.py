"""The memory of a training step, predicted before it runs.

What its passes take is counted on fake tensors (`passes.py`). What grows in proportion (frames,
kept prefix, features) follows by formula; what differs on a GPU is said where it is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etadlite.base.devices import use_bf16
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.memory.fake_passes import (
    DetectorPass,
    EncoderPasses,
    detector_pass,
    encoder_passes,
    fake_system,
    update_of,
)
from etadlite.memory.step import LASTING, PASSES, Rows, bytes_of
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, snippet_count

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
    common, device = bare(settings), _device(settings)
    system, encoder = fake_system(common), None
    bf16 = system.encoder is not None and _bf16(settings, device)
    if system.encoder is not None:
        encoder = encoder_passes(common, bf16, *chunks_of(settings))
    detector = detector_pass(common, settings.training.batch_size)
    return Plan(settings, device, bf16, rows_of(settings, device, detector, encoder))


def rows_of(
    settings: Settings,
    device: str,
    detector: DetectorPass,
    encoder: EncoderPasses | None,
) -> Rows:
    """All rows from those of the passes."""
    common, on_gpu = bare(settings), device == "cuda"
    system = fake_system(common)
    update = update_of(common, foreach=on_gpu)
    features = 4 * settings.training.batch_size * _numbers(settings)
    moved = features if on_gpu and encoder is None else 0
    inputs, prefix, prefix_on_host = features, 0, False
    if encoder is not None:
        inputs, prefix = encoder.frames * all_snippets(settings), encoder.prefix * _kept(settings)
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
            chunk: plan(with_values(settings, **{"encoder.chunk_size": chunk})).rows
            for chunk in chunks
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


def with_values(settings: Settings, **changes: Any) -> Settings:
    """Settings with values under names such as `training.batch_size`."""
    for name, value in changes.items():
        section, _, leaf = name.partition(".")
        part = getattr(settings, section).model_copy(update={leaf: value})
        settings = settings.model_copy(update={section: part})
    return settings


def bare(settings: Settings) -> Settings:
    """The settings without what a system is built and a detector is run without."""
    ratio = 1.0 if settings.sampling.snippet_ratio else 0.0
    return with_values(
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
    return use_bf16(settings.training.precision, torch.device(device))


def _numbers(settings: Settings) -> int:
    """C x N numbers of a video's features."""
    return settings.detector.in_channels * settings.data.snippets


def all_snippets(settings: Settings) -> int:
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
    return _picked(settings) if early or not _picked(settings) else all_snippets(settings)


def chunks_of(settings: Settings) -> tuple[int, int, int]:
    """The largest chunk, and how many snippets stand for all in the passes 1 and 3."""
    size = settings.encoder.chunk_size
    if size is None:
        raise InputError("a plan needs encoder.chunk_size, for example encoder.chunk_size=4")
    everything, picked = all_snippets(settings), _picked(settings)
    largest_chunk = min(size, max(picked, everything - picked))
    return largest_chunk, min(2 * largest_chunk, everything), min(2 * largest_chunk, picked)
