"""Backward passes that visit only the proposals with a gradient.

The losses weigh a few proposals: the positives, and as many negatives (paper, section 3.3). All
others have a gradient of zeros, and to multiply by these is most of a detector's backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def rows_with_gradient(gradient: Tensor, most: int) -> Tensor | None:
    """Return which rows of a gradient [B, P, H] are not zero: bool [B, P].

    None stands for all rows: where a video has more than `most` of them, where it has no others,
    and on a GPU, which would have to wait for their number.
    """
    if gradient.device.type != "cpu":
        return None
    drawn = gradient.abs().amax(dim=2) != 0
    zeros = int((~drawn).sum(1).min())
    return drawn if zeros and drawn.shape[1] - zeros <= most else None


class Head(nn.Sequential):
    """Layers for each proposal by itself: [B, P, I] -> [B, P, O].

    For its backward pass it keeps nothing but its input: it computes the proposals with a gradient
    once more.
    """

    def forward(self, x: Tensor) -> Tensor:
        layers = super().forward
        return RunOnDrawn.apply(x, layers, *self.parameters()) if x.requires_grad else layers(x)


class RunOnDrawn(torch.autograd.Function):
    """The layers of a `Head`, with its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Callable, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.layers, kind = layers, x.device.type
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        return layers(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, *weights), push = ctx.saved_tensors, gradient.flatten(0, 1)
        drawn = rows_with_gradient(push[None], most=len(push) // 2)
        rows = slice(None) if drawn is None else drawn[0]
        few = x.flatten(0, 1)[rows].detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            out = ctx.layers(few)
        of_few, *of_weights = torch.autograd.grad(out, (few, *weights), push[rows])
        of_x = few.new_zeros(x.shape)
        of_x.flatten(0, 1)[rows] = of_few
        return of_x, None, *of_weights
