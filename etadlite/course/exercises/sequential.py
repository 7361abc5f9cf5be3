"""Checkers of 02_sequential_snippet_encoding."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from etadlite.course.exercises.form import answer, wrong_numbers


def conv_bytes(attempt: Callable) -> Iterator[str]:
    """Check the bytes that a 2+1 convolution keeps: (mid planes, out planes, (F, H, W), number)."""
    one = (1, 1, 1)
    cases = [
        ((1, 0, one, 1), 2, "the space convolution's output is kept, and again after the ReLU"),
        ((0, 1, one, 1), 2, "the time convolution's output is kept, and again after the ReLU"),
        ((1, 1, (2, 3, 5), 1), 120, "every plane has F · H · W positions"),
        ((3, 2, one, 2), 20, "each number takes `number` bytes, also in half precision"),
    ]
    yield from wrong_numbers("conv_bytes", attempt, cases)


def push(attempt: Callable) -> Iterator[str]:
    """Check a number whose backward() gives the features [n, C] exactly the given gradient."""
    features = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], requires_grad=True)
    gradient = torch.tensor([[2.0, 0.0, -1.0], [5.0, 3.0, -4.0]])
    loss = answer(attempt(features, gradient), (), "backward() alone needs a single number, so")
    if not loss.requires_grad:
        yield "your number has lost its way back to the features; leave detach() and item() out."
    loss.backward()
    given = torch.zeros_like(gradient) if features.grad is None else features.grad
    if torch.equal(given, torch.ones_like(given)):
        yield "every feature is pushed by 1: where does `gradient` come in?"
    if torch.allclose(given * features.numel(), gradient):
        factor = features.numel()
        yield f"every push is {factor} times too small: a mean divides; take the gradient as it is."
    if not torch.allclose(given, gradient):
        first = f"its first number should be {gradient[0, 0]:g}, yours is {given[0, 0]:g}"
        yield f"the gradient should be the one given, whatever the features are; {first}."


class _Watched(nn.Module):
    """An encoder that gives [v, 10 v, 100 v] for a snippet of value v, and notes batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 10.0, 100.0]))
        self.sizes: list[int] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.sizes.append(len(frames))
        return frames.float().mean((1, 2, 3, 4))[:, None] * self.scale


def encode_batch(attempt: Callable) -> Iterator[str]:
    """Check features [B, C, N] of (encoder, frames [B, N, 3, F, H, W], chunk_size)."""
    for batch, snippets, chunk_size in ((2, 5, 4), (1, 4, 2), (3, 3, 9)):
        encoder = _Watched()
        values = torch.arange(batch * snippets, dtype=torch.uint8).view(batch, snippets)
        frames = values[:, :, None, None, None, None].expand(-1, -1, 3, 2, 2, 2)
        case = f"for {batch} videos of {snippets} snippets and chunks of {chunk_size}"
        features = answer(attempt(encoder, frames, chunk_size))
        if encoder.sizes and max(encoder.sizes) > chunk_size:
            yield f"{case} the encoder was given {max(encoder.sizes)} snippets at once."
        if sum(encoder.sizes) != batch * snippets:
            seen = f"saw {sum(encoder.sizes)} snippets instead of {batch * snippets}"
            yield f"{case} the encoder {seen}: is the last, smaller chunk there, each encoded once?"
        answer(features, (batch, 3, snippets), case)
        expected = values[:, None].float() * encoder.scale.detach()[:, None]
        if not torch.allclose(features.detach(), expected):
            row = "a row of a video's features should hold one channel of its snippets, in order"
            yield f"{case} the shape is right and the numbers stand in wrong places: {row}."
        if features.requires_grad:
            yield f"{case} autograd still keeps activations; encode under torch.no_grad()."
