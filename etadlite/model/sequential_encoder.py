"""Sequential snippet encoding with sampled gradients: the heart of ETAD (paper, section 3.4).

A long video is encoded chunk after chunk without gradient, so memory does not grow with it. When
the loss's gradient reaches the features, a sampled part of the snippets is encoded once more, this
time with gradient, and the feature gradient is pushed through them into the encoder.

What is known before the first pass saves work in the third: snippets that are chosen by then form
chunks of their own, whose frozen prefix (see `etadlite.encoders.r2plus1d`) is kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.model.chunks import encode_in_chunks, moved
from etadlite.sampling.snippets import (
    RANDOM,
    SnippetContext,
    SnippetStrategy,
    snippet_count,
)

Keep = Literal["device", "host", "nothing"]


class SequentialEncoder(nn.Module):
    """Encodes videos of any length in the memory of one chunk: [B, N, 3, F, H, W] -> [B, C, N].

    It is used like any module: what follows is trained by `loss.backward()`, which also gives the
    encoder its gradient, from the sampled snippets. At ratio 1 that gradient equals plain
    back-propagation. Frames may lie on another device than the encoder; they are moved chunk by
    chunk, the next one while the last is encoded.

    Args:
        encoder: uint8 [n, 3, F, H, W] -> [n, C]; a snippet's feature must not depend on the others
            of its chunk (batch norm in eval mode). One with a frozen part has `encode_prefix`,
            `encode_suffix` and `prefix_length()`, as `StagedEncoder` has.
        chunk_size: snippets encoded at once.
        sampler: picks the snippets that get a gradient.
        ratio: their share of all snippets, above 0 and at most 1; 0 keeps the encoder frozen.
        rescale: weigh the gradient of each picked snippet by 1 / its chance to be picked, so that
            the sum is, on average, the full gradient. The published code does not. A strategy that
            is `weighted` is always rescaled.
        keep: where the frozen prefix of the picked snippets waits for the third pass: on the
            encoder's device, in (pinned) host memory, or nowhere: it is then computed again. Where
            snippets are picked by features or gradients, that of all snippets has to wait.
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
                "this snippet strategy has no chances to rescale by; choose one that has, or "
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
    ) -> Tensor:
        """Encode every snippet.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            draws: the random streams of the B videos; None: fresh ones.
            actions: for each video [A, 2] start and end in cells, for strategies that need labels.

        Returns:
            Features [B, C, N], at least float32.
        """
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        if self.ratio == 0 or not trained or not torch.is_grad_enabled():
            return self.encode(frames)
        if draws is None:
            draws = Draws.fresh(len(frames), trained[0].device)
        context = SnippetContext(draws, frames.shape[1], actions)
        if self.sampler.needs == "labels" and actions is None:
            raise InputError("this snippet strategy needs the actions of the videos: training only")
        return _SampledGradient.apply(self, frames, context, *trained)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode chunk after chunk without gradient: [B, N, 3, F, H, W] -> [B, C, N]."""
        return encode_in_chunks(self.encoder, frames, self.chunk_size)

    def pick(self, context: SnippetContext) -> tuple[Tensor, Tensor | None]:
        """Choose snippets: indices [B, count], and weights [B, count] where the sum is rescaled."""
        count = snippet_count(context.snippets, self.ratio)
        picked = self.sampler.pick(context, count)
        if not self.rescale:
            return picked, None
        return picked, 1 / self.sampler.inclusion(context, count).gather(1, picked)

    @torch.no_grad()
    def first_pass(self, frames: Tensor, picked: Tensor | None) -> "FirstPass":
        """Encode every snippet without gradient, and keep what the third pass needs.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            picked: [B, count] the snippets that will get a gradient; None: not known yet.
        """
        batch, snippets = frames.shape[:2]
        rows = torch.arange(batch * snippets)
        chunks, wanted = list(rows.split(self.chunk_size)), len(rows)
        if picked is not None:
            mine = _rows(picked, snippets)
            others = rows[~torch.isin(rows, mine)]
            parts = (mine.split(self.chunk_size), others.split(self.chunk_size))
            chunks = [chunk for part in parts for chunk in part if len(chunk)]
            wanted = len(mine)
        device = next(self.encoder.parameters()).device
        keep = self.keep != "nothing" and _has_prefix(self.encoder)
        prefix, features, states = None, [], []
        begin = RandomState.now(device)
        for part in moved(frames.flatten(0, 1), chunks, device):
            if not keep:
                states.append(RandomState.now(device))
                features.append(self.encoder(part))
                continue
            x = self.encoder.encode_prefix(part)
            states.append(RandomState.now(device))
            done = sum(map(len, features))
            features.append(self.encoder.encode_suffix(x))
            if done < wanted:
                if prefix is None:
                    prefix = _room_for(x, wanted, on_host=self.keep == "host")
                prefix[done : done + len(x)].copy_(x, non_blocking=True)
        flat = torch.cat(features)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        flat = flat[torch.cat(chunks).argsort().to(device)]
        features = flat.unflatten(0, (batch, snippets)).transpose(1, 2).contiguous()
        random = not begin.equals(RandomState.now(device))
        return FirstPass(features, chunks, states, random, prefix)

    def replay(
        self,
        frames: Tensor,
        first: "FirstPass",
        picked: Tensor,
        gradient: Tensor,
        trained: Sequence[Tensor],
    ) -> list[Tensor]:
        """Push the feature gradient of picked snippets through the encoder.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            first: what the first pass left.
            picked: [B, count] snippets.
            gradient: [B, C, N] the loss's gradient at the features.
            trained: the encoder's parameters that get a gradient.

        Returns:
            One gradient a parameter, summed over the picked snippets.
        """
        rows, device = _rows(picked, frames.shape[1]), gradient.device
        wanted = gradient.transpose(1, 2).flatten(0, 1)  # [B * N, C]
        if first.random:
            # The same chunks with the same random states; what was not picked pushes zeros.
            numbers = [n for n, chunk in enumerate(first.chunks) if torch.isin(chunk, rows).any()]
            chunks = [first.chunks[number] for number in numbers]
            states = [first.states[number] for number in numbers]
            is_picked = torch.zeros(len(wanted), 1, dtype=torch.bool)
            is_picked[rows] = True
            wanted = wanted * is_picked.to(device)
        else:
            chunks = rows.split(self.chunk_size)
            states = [None] * len(chunks)
        if first.prefix is None:
            parts, encode = moved(frames.flatten(0, 1), chunks, device), self.encoder
        else:
            place = torch.cat(first.chunks).argsort()
            places = [place[chunk] for chunk in chunks]
            parts, encode = moved(first.prefix, places, device), self.encoder.encode_suffix
        with _gathered_gradients(trained) as sums, _restored_afterwards(device):
            for chunk, part, state in zip(chunks, parts, states, strict=True):
                if state is not None:
                    state.restore()
                with torch.enable_grad():
                    encoded = encode(part)
                push = wanted[chunk.to(device)].to(encoded.dtype)
                torch.autograd.backward(encoded, push, inputs=list(trained))
        return sums


class RandomState(NamedTuple):
    """Torch's global random state on the CPU and, where the encoder is on one, on a GPU."""

    device: torch.device
    states: tuple[Tensor, ...]

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """The present state."""
        gpu = (torch.cuda.get_rng_state(device),) if device.type == "cuda" else ()
        return cls(device, (torch.get_rng_state(), *gpu))

    def restore(self) -> None:
        """Go back to this state."""
        torch.set_rng_state(self.states[0])
        if len(self.states) > 1:
            torch.cuda.set_rng_state(self.states[1], self.device)

    def equals(self, other: Self) -> bool:
        """Whether nothing was drawn between the two."""
        return all(map(torch.equal, self.states, other.states))


class FirstPass(NamedTuple):
    """What the first pass leaves for the third.

    Attributes:
        features: [B, C, N].
        chunks: of rows of the B * N snippets, in the order in which they were encoded.
        states: the random state before each chunk; if its prefix is kept, before its suffix.
        random: whether the encoder drew random numbers, as dropout does.
        prefix: [K, c, f, h, w] what the frozen prefix gave for the first K snippets of the chunks;
            None where it is not kept.
    """

    features: Tensor
    chunks: list[Tensor]
    states: list[RandomState]
    random: bool
    prefix: Tensor | None


class _SampledGradient(torch.autograd.Function):
    """The three passes behind the ordinary interface of autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        module: SequentialEncoder,
        frames: Tensor,
        context: SnippetContext,
        *trained: Tensor,
    ) -> Tensor:
        early = module.sampler.needs in ("nothing", "labels")
        ctx.choice = module.pick(context) if early else None
        first = module.first_pass(frames, ctx.choice[0] if early else None)
        # Not saved as tensors: hooks on those may hand back copies, which have no gradient.
        ctx.module, ctx.context, ctx.trained = module, context, trained
        ctx.first = first._replace(features=None, prefix=None)
        ctx.save_for_backward(frames, first.features, first.prefix)
        kind = first.features.device.type
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        return first.features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, features, prefix = ctx.saved_tensors
        first = ctx.first._replace(features=features, prefix=prefix)
        picked, weights = ctx.choice or ctx.module.pick(
            ctx.context._replace(features=features, gradient=gradient)
        )
        if weights is not None:
            index = picked[:, None].expand(-1, gradient.shape[1], -1)
            gradient = gradient.scatter(2, index, gradient.gather(2, index) * weights[:, None])
        # The replay repeats the first pass, so it runs under the same autocast.
        with torch.autocast(**ctx.autocast):
            sums = ctx.module.replay(frames, first, picked, gradient, ctx.trained)
        return None, None, None, *sums


def _rows(picked: Tensor, snippets: int) -> Tensor:
    """Rows of the B * N snippets, on the CPU, of picks [B, count]."""
    picked = picked.cpu()
    return (torch.arange(len(picked))[:, None] * snippets + picked).flatten()


def _has_prefix(encoder: nn.Module) -> bool:
    """Whether a part of the encoder is frozen and can be run alone."""
    return hasattr(encoder, "prefix_length") and encoder.prefix_length() > 0


def _room_for(x: Tensor, rows: int, *, on_host: bool) -> Tensor:
    """An empty tensor [rows, ...] for outputs such as x, in its layout."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.empty(
        (rows, *x.shape[1:]),
        dtype=x.dtype,
        device="cpu" if on_host else x.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
        pin_memory=on_host and x.is_cuda,
    )


@contextmanager
def _gathered_gradients(trained: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Sums that backward passes add to instead of the parameters' own gradients.

    Autograd adds to a gradient in place, parameter after parameter, so that there is never a second
    set of them.
    """
    own = [parameter.grad for parameter in trained]
    sums = [torch.zeros_like(parameter) for parameter in trained]
    for parameter, total in zip(trained, sums, strict=True):
        parameter.grad = total
    try:
        yield sums
    finally:
        for parameter, gradient in zip(trained, own, strict=True):
            parameter.grad = gradient


@contextmanager
def _restored_afterwards(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was found."""
    state = RandomState.now(device)
    try:
        yield
    finally:
        state.restore()
