"""Sequential snippet encoding with sampled gradients: the heart of ETAD (paper, section 3.4).

1. The first pass encodes a long video chunk by chunk without gradient, so memory does not grow
   with its length.
2. The second pass is whatever follows: the detector, its loss, and the gradient at the features.
3. The third pass encodes a sampled part of the snippets again, now with gradient, and pushes the
   feature gradient through them into the encoder.

Snippets that are chosen before the first pass form their own chunks there. The output of the
encoder's frozen prefix is kept for them, so that the third pass only runs the trained suffix.

With a feature bank, the first pass encodes the chosen snippets only, see `Recalled`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from etadlite.base.devices import RandomState, at_least_float32, is_gpu, synchronize
from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.model.chunks import as_feature_map, encode_in_chunks, iterate_chunks
from etadlite.sampling.snippets import RANDOM, SnippetContext, SnippetStrategy, snippet_count

Keep = Literal["device", "host", "nothing", "graph"]


@dataclass
class Recalled:
    """What a feature bank knows of B videos, and afterwards what a step has encoded of them.

    The bank is an idea of TALLFormer (Cheng and Bertasius, ECCV 2022): features that earlier steps
    have computed stand for snippets that a step does not encode. Here the encoded snippets are
    those that carry a gradient, and those that the bank does not know.
    """

    features: Tensor  # [B, N, C], at least float32; zeros where the bank knows nothing
    stamps: Tensor  # integers [B, N] on the CPU, when the features were computed; 0: not known
    rows: Tensor | None = None  # [K] of the B * N snippets, those that were encoded, on the CPU
    encoded: Tensor | None = None  # [K, C] their features


class SequentialEncoder(nn.Module):
    """Encodes videos of any length in the memory of one chunk: [B, N, 3, F, H, W] -> [B, C, N].

    Use it like any module: `loss.backward()` also gives the encoder its gradient, from the sampled
    snippets. At ratio 1 this gradient equals plain back-propagation. Frames may lie on another
    device than the encoder: chunks are moved, the next one while the last one is encoded.

    Args:
        encoder: uint8 [n, 3, F, H, W] -> [n, C]. A snippet's feature must not depend on the other
            snippets of its chunk (batch norm in eval mode). An encoder with a frozen part has
            `encode_prefix`, `encode_suffix` and `prefix_length()`, like `StagedEncoder`.
        chunk_size: snippets encoded at once.
        sampler: picks the snippets that carry a gradient.
        ratio: their share of all snippets, at most 1; 0 keeps the encoder frozen.
        rescale: weight the gradient of each picked snippet by 1 / its probability, so that the sum
            equals the full gradient on average. The published code does not. A `weighted` strategy
            always does.
        keep: where the frozen prefix of the picked snippets waits for the third pass: on the
            encoder's device, in pinned host memory, or nowhere (it is computed again). With `graph`
            all activations of these snippets wait, so that each is encoded only once; memory then
            grows with their number. If snippets are picked by features or gradients, what is kept
            of all snippets has to wait.
    """

    def __init__(
        self,
        encoder: nn.Module,
        chunk_size: int,
        sampler: SnippetStrategy = RANDOM,
        ratio: float = 1.0,
        *,
        rescale: bool = False,
        keep: Keep = "device",
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1 snippet, not {chunk_size}")
        if not 0 <= ratio <= 1:
            raise InputError(f"the snippet ratio must lie between 0 and 1, not {ratio}")
        if rescale and not sampler.unbiased:
            raise InputError(
                "this snippet strategy has no probabilities to rescale by; choose one that has, or "
                "rescale=False"
            )
        self.encoder = encoder
        self.chunk_size = chunk_size
        self.sampler = sampler
        self.ratio = ratio
        self.rescale = rescale or sampler.weighted
        self.keep = keep

    def forward(
        self,
        frames: Tensor,
        draws: Draws | None = None,
        actions: Sequence[Tensor] | None = None,
        recalled: Recalled | None = None,
    ) -> Tensor:
        """Encode every snippet, or those that carry a gradient if the others are recalled.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            draws: the random streams of the B videos; None: fresh ones.
            actions: per video [A, 2] start and end in cells, for strategies that need labels.
            recalled: what a bank knows of the videos; it gets what is encoded. Strategies that need
                features choose by those of the bank. Without gradient every snippet is encoded.

        Returns:
            Features [B, C, N], at least float32.
        """
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        if self.ratio == 0 or not trained or not torch.is_grad_enabled():
            return self.encode(frames)
        if self.sampler.needs == "labels" and actions is None:
            raise InputError("this snippet strategy needs the actions of the videos: training only")
        if draws is None:
            draws = Draws.fresh(len(frames), trained[0].device)
        context = SnippetContext(draws, frames.shape[1], actions)
        if recalled is not None:
            if self.sampler.needs == "gradient":
                raise InputError(
                    "this snippet strategy needs gradients at the features of this step, so it "
                    "cannot choose which of them a bank replaces; choose another, or no bank"
                )
            context = context._replace(features=recalled.features.to(trained[0].device).mT)
        return _ThreePasses.apply(self, frames, context, recalled, *trained)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode every snippet without gradient: [B, N, 3, F, H, W] -> [B, C, N]."""
        return encode_in_chunks(self.encoder, frames, self.chunk_size)

    def pick(self, context: SnippetContext) -> tuple[Tensor, Tensor | None]:
        """Pick snippets: indices [B, count], and weights [B, count] if the sum is rescaled."""
        count = snippet_count(context.snippets, self.ratio)
        picked = torch.as_tensor(self.sampler.pick(context, count), dtype=torch.long)
        if not self.rescale or self.sampler.inclusion is None:
            return picked, None
        return picked, 1 / self.sampler.inclusion(context, count).gather(1, picked)

    @torch.no_grad()
    def first_pass(
        self, frames: Tensor, picked: Tensor | None, recalled: Recalled | None = None
    ) -> "FirstPass":
        """Encode every snippet of uint8 [B, N, 3, F, H, W]; keep what the third pass needs.

        `picked` [B, count] are the snippets that will carry a gradient; None: not known yet. The
        others are encoded unless they are `recalled`.
        """
        batch, snippets = frames.shape[:2]
        rows = torch.arange(batch * snippets)
        chunks, wanted = list(rows.split(self.chunk_size)), len(rows)
        if picked is not None:
            mine = _rows(picked, snippets)
            others = rows[~torch.isin(rows, mine)]
            if recalled is not None:
                others = others[recalled.stamps.flatten()[others] == 0]
            parts = (mine.split(self.chunk_size), others.split(self.chunk_size))
            chunks = [chunk for part in parts for chunk in part if len(chunk)]
            wanted = len(mine)
        encoder: Any = self.encoder
        device = next(encoder.parameters()).device
        # An encoder of one part has no `prefix_length`.
        keep = self.keep in ("device", "host") and getattr(encoder, "prefix_length", int)() > 0
        encode = encoder.encode_suffix if keep else encoder
        prefix, features, states = None, [], []
        begin = RandomState.now(device)
        for part in iterate_chunks(frames.flatten(0, 1), chunks, device):
            x = encoder.encode_prefix(part) if keep else part
            states.append(RandomState.now(device))
            done = sum(map(len, features))
            with torch.set_grad_enabled(self.keep == "graph" and done < wanted):
                features.append(encode(x))
            if keep and done < wanted:
                if prefix is None:
                    prefix = _empty_rows(x, wanted, on_host=self.keep == "host")
                prefix[done : done + len(x)].copy_(x, non_blocking=True)
        graphs = [feature for feature in features if feature.grad_fn is not None]
        done, encoded = torch.cat(chunks), torch.cat(features)
        if recalled is None:
            encoded = encoded[done.argsort().to(device)]
        else:
            recalled.rows, recalled.encoded = done, at_least_float32(encoded)
            known = recalled.features.to(device).flatten(0, 1)
            encoded = known.index_copy(0, done.to(device), recalled.encoded)
        features = as_feature_map(encoded, batch)
        random = not begin.equals(RandomState.now(device))
        return FirstPass(features, chunks, states, random, prefix, graphs)

    def third_pass(
        self,
        frames: Tensor,
        first: "FirstPass",
        picked: Tensor,
        gradient: Tensor,
        trained: Sequence[Tensor],
    ) -> list[Tensor]:
        """Push the feature gradient of the picked snippets through the encoder.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            first: what the first pass left.
            picked: [B, count] snippets.
            gradient: [B, C, N] of the loss at the features.
            trained: the encoder's parameters that get a gradient.

        Returns:
            One gradient per parameter, summed over the picked snippets.
        """
        rows, device = _rows(picked, frames.shape[1]), gradient.device
        wanted = gradient.transpose(1, 2).flatten(0, 1)  # [B * N, C]
        if first.random or first.graphs:
            # The same chunks from the same random states; snippets that were not picked push zeros.
            numbers = [n for n, chunk in enumerate(first.chunks) if torch.isin(chunk, rows).any()]
            chunks = [first.chunks[number] for number in numbers]
            states = [first.states[number] for number in numbers]
            is_picked = torch.zeros(len(wanted), 1, dtype=torch.bool)
            is_picked[rows] = True
            wanted = wanted * is_picked.to(device)
        else:
            chunks = rows.split(self.chunk_size)
            states = [None] * len(chunks)
        encode: Any = self.encoder
        if first.graphs:
            parts, encode = (first.graphs[number] for number in numbers), nn.Identity()
        elif first.prefix is None:
            parts = iterate_chunks(frames.flatten(0, 1), chunks, device)
        else:
            order = torch.cat(first.chunks)
            place = torch.zeros(len(wanted), dtype=torch.long)
            place[order] = torch.arange(len(order))
            places = [place[chunk] for chunk in chunks]
            if not is_gpu(first.prefix.device):
                synchronize(device)  # so that the last copies of it to the host have ended
            parts = iterate_chunks(first.prefix, places, device)
            encode = encode.encode_suffix
        with _separate_gradients(trained) as sums, _random_state_kept(device):
            for chunk, part, state in zip(chunks, parts, states, strict=True):
                if state is not None:
                    state.restore()
                with torch.enable_grad():
                    encoded = encode(part)
                push = wanted[chunk.to(device)].to(encoded.dtype)
                torch.autograd.backward(encoded, push, inputs=list(trained))
        return sums


class FirstPass(NamedTuple):
    """What the first pass leaves for the third.

    If the encoder's frozen prefix is kept, `prefix` [K, c, f, h, w] is its output for the first K
    rows of the chunks, and a random state is the one before the chunk's suffix. If all activations
    are kept, `graphs` are the features of the first chunks with these behind them.
    """

    features: Tensor  # [B, C, N]
    chunks: list[Tensor]  # rows of the B * N snippets, in the order of encoding
    states: list[RandomState]  # before each chunk
    random: bool  # True if the encoder drew random numbers, as dropout does
    prefix: Tensor | None
    graphs: list[Tensor]


class _ThreePasses(torch.autograd.Function):
    """The first and the third pass as the forward and the backward of autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        module: SequentialEncoder,
        frames: Tensor,
        context: SnippetContext,
        recalled: Recalled | None,
        *trained: Tensor,
    ) -> Tensor:
        early = module.sampler.early or recalled is not None
        ctx.choice = module.pick(context) if early else None
        first = module.first_pass(frames, ctx.choice[0] if ctx.choice else None, recalled)
        # The parameters are not saved as tensors: saved-tensor hooks may return copies of these,
        # which have no gradient.
        ctx.module, ctx.context, ctx.trained = module, context, trained
        ctx.first = first._replace(features=None, prefix=None)
        ctx.save_for_backward(frames, first.features, first.prefix)
        kind = first.features.device.type
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        return first.features

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        frames, features, prefix = ctx.saved_tensors
        first = ctx.first._replace(features=features, prefix=prefix)
        picked, weights = ctx.choice or ctx.module.pick(
            ctx.context._replace(features=features, gradient=gradient)
        )
        if weights is not None:
            index = picked[:, None].expand(-1, gradient.shape[1], -1)
            gradient = gradient.scatter(2, index, gradient.gather(2, index) * weights[:, None])
        # The third pass repeats the first one, so it runs under the same autocast.
        with torch.autocast(*ctx.autocast):
            sums = ctx.module.third_pass(frames, first, picked, gradient, ctx.trained)
        return None, None, None, None, *sums


def _rows(picked: Tensor, snippets: int) -> Tensor:
    """Return the rows of picks [B, count] among the B * N snippets, on the CPU."""
    picked = picked.cpu()
    return (torch.arange(len(picked))[:, None] * snippets + picked).flatten()


def _empty_rows(x: Tensor, rows: int, *, on_host: bool) -> Tensor:
    """Return an empty tensor [rows, ...] with the layout of x."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.empty(
        (rows, *x.shape[1:]),
        dtype=x.dtype,
        device="cpu" if on_host else x.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
        pin_memory=on_host and is_gpu(x.device),
    )


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Go back to the present random state at the end."""
    before = RandomState.now(device)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def _separate_gradients(trained: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Let backward passes make new gradients, beside the parameters' own; the list gets them.

    Autograd takes a first gradient as it is and adds the next ones to it in place, so there is
    never a second full set.
    """
    own, sums = [parameter.grad for parameter in trained], []
    for parameter in trained:
        parameter.grad = None
    try:
        yield sums
        sums += [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    finally:
        for parameter, gradient in zip(trained, own, strict=True):
            parameter.grad = gradient
