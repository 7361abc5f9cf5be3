"""The passes of a training step on fake tensors, which have shapes and dtypes but no numbers.

The system is built as in training, and counted like a measured step: two chunks of snippets in
passes 1 and 3, the detector with its loss at full size, one update. Fake tensors of a missing GPU
cannot run a backward pass, so they are always on the CPU.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from etadlite.base.draws import Draws
from etadlite.config import Settings
from etadlite.detector import valid_proposals
from etadlite.detector.roi import extend, interpolate
from etadlite.memory.measurement import LiveTensors, bytes_of, gradients_of, state_of
from etadlite.model.system import System
from etadlite.sampling.proposals import proposal_count
from etadlite.training.loop import make_optimizer
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets


@lru_cache(maxsize=8)
def fake_system(settings: Settings) -> System:
    """Build the system of a training from fake tensors."""
    system = System(settings, pretrained=False).train()
    with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
        return copy.deepcopy(system)


class EncoderPasses(NamedTuple):
    """Bytes of passes 1 and 3."""

    chunk: int  # the number of snippets encoded at once
    frames: int  # of one snippet
    prefix: int  # kept for one snippet
    graph: int  # all activations of one snippet, if these are kept
    copies: int  # the weights in bf16, which autocast makes once and keeps for a pass
    pass_1: int  # peak with two chunks, without frames and prefix
    pass_3: int  # likewise


@lru_cache(maxsize=256)
def encoder_passes(
    settings: Settings, bf16: bool, chunk: int, rows: int, picked: int, alone: bool
) -> EncoderPasses:
    """Count passes in chunks: in pass 1 `rows` snippets stand for all, in pass 3 `picked` ones.

    These are `alone` if no others are encoded.
    """
    system, data = fake_system(settings), settings.data
    encoder = system.encoder
    trained = [p for p in encoder.parameters() if p.requires_grad]
    sums = bytes_of(trained)
    encoder.chunk_size = chunk
    encoder.keep = settings.encoder.keep_prefix.replace("graph", "nothing")
    with _counted(system) as live:
        frames = torch.zeros(1, rows, 3, data.frames, data.crop, data.crop, dtype=torch.uint8)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            begin = live.restart()
            first = encoder.first_pass(frames, None)
            kept = 0 if first.prefix is None else first.prefix.nbytes
            pass_1 = live.peak_bytes - begin - kept
            copies = live.live_bytes - begin - kept - first.features.nbytes
        graph = pass_3 = 0
        if picked and settings.encoder.keep_prefix == "graph":
            encoder.keep = "graph"
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                begin = live.restart()
                whole = encoder.first_pass(frames, None)
                peak, held = live.peak_bytes - begin, live.live_bytes
                whole.graphs.clear()
                graph = held - live.live_bytes
                pass_1 = max(0 if alone else pass_1, peak - graph) - copies
                first = encoder.first_pass(frames, None)
        if picked:
            gradient = torch.zeros_like(first.features)
            begin = live.restart()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                encoder.third_pass(frames, first, torch.arange(picked)[None], gradient, trained)
            pass_3 = live.peak_bytes - begin - sums
    sizes = frames.nbytes // rows, kept // rows, graph // rows
    return EncoderPasses(chunk, *sizes, copies, pass_1, pass_3)


class DetectorPass(NamedTuple):
    """Bytes of pass 2 beyond weights and features."""

    forward: int  # peak
    backward: int  # peak, with the detector's gradients
    left: int  # held after the backward pass, without gradients


@lru_cache(maxsize=256)
def detector_pass(settings: Settings, batch: int) -> DetectorPass:
    """Count pass 2 with a batch of videos: the detector and its loss, forward and backward."""
    system = fake_system(settings)
    cells, detector = settings.data.snippets, system.detector
    count = proposal_count(len(system.proposals), settings.sampling.proposal_ratio)
    with _counted(system, _roi_samples(settings)) as live:
        features = torch.zeros(batch, settings.detector.in_channels, cells)
        features.requires_grad = system.encoder is not None and settings.sampling.snippet_ratio > 0
        begin = live.restart()
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
        detector.zero_grad()
    return DetectorPass(forward, backward, left)


def _roi_samples(settings: Settings) -> float:
    """Return how many samples RoIAlign takes per bin, as a mean over about 1,000 proposals."""
    cells, detector = settings.data.snippets, settings.detector
    proposals = valid_proposals(cells, detector.max_duration)
    proposals = extend(proposals[:: 1 + len(proposals) // 1000])
    aligned = detector.layout == "opentad"
    entries = interpolate(proposals, cells, detector.roi_size, aligned=aligned)
    return len(entries.owner) / len(proposals)


@lru_cache(maxsize=8)
def update_of(settings: Settings, *, foreach: bool) -> tuple[int, int, int]:
    """Count the bytes of all gradients and of the optimiser's state, and its step's peak beyond.

    `foreach` updates all weights at once, as on a GPU.
    """
    system = fake_system(settings)
    with _counted(system) as live:
        optimizer = make_optimizer(system, settings.training)
        for group in optimizer.param_groups:
            group["foreach"] = foreach
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes the state
        begin = live.restart()
        optimizer.step()
        peak = live.peak_bytes - begin
        gradients, state = bytes_of(gradients_of(system)), bytes_of(state_of(optimizer))
        system.zero_grad()
    return gradients, state, peak


@contextmanager
def _counted(system: System, repeats: float = 1.0) -> Iterator["_LiveFakes"]:
    """Count the fake tensors that are made for a system, besides its weights."""
    live = _LiveFakes([*system.parameters(), *system.buffers()])
    live.repeats = repeats
    with next(system.parameters()).fake_mode, live:
        yield live


class _LiveFakes(LiveTensors):
    """Counts fake tensors; where code asks for their numbers, the answer is True, 2.0 or 0.

    `repeat_interleave` repeats `repeats` times on average, as often as RoIAlign takes samples.
    """

    repeats = 1.0

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
            func, kwargs = torch.ops.aten.new_empty.default, None
            args = (args[0], [round(len(args[0]) * self.repeats)])
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.mkldnn_rnn_layer.default:
            *outputs, workspace = made
            made = (*outputs, workspace.new_empty(_lstm_workspace(args)))
            self.count(made[-1])
        return made


def _lstm_workspace(args: Sequence[Any]) -> int:
    """Return the bytes that an LSTM on the CPU keeps for its backward pass.

    Only oneDNN knows them, so it is run with real zeros of a few videos.
    """
    batch = args[0].shape[1]  # the axis before the last one is that of the videos
    few = min(batch, 8)

    def real(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        zeros = torch.zeros(value.shape, dtype=value.dtype)
        return zeros[..., :few, :] if value.ndim == 3 else zeros

    with _disable_current_modes():
        *_, workspace = torch.ops.aten.mkldnn_rnn_layer.default(*map(real, args))
    return workspace.nbytes * batch // few
