"""Temporal evaluation: scores of every cell (paper, section 3.2)."""

from torch import Tensor, nn


class CellHead(nn.Module):
    """Two convolutions along time, the first one grouped: [B, width, T] -> [B, outputs, T].

    The output has the dtype of the weights, so it is fp32 under autocast, too.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.score = nn.Conv1d(width, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.score(self.hidden(features).relu()).to(self.score.weight.dtype)
