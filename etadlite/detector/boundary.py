"""Temporal evaluation: scores of every cell (paper, section 3.2)."""

from torch import Tensor, nn


class TemporalEvaluation(nn.Module):
    """Predicts startness and endness of every cell: [B, width, T] -> probabilities [B, 2, T]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.score = nn.Conv1d(width, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        score = self.score(self.hidden(features).relu())
        return score.to(self.score.weight.dtype).sigmoid()  # fp32 under autocast, too


class CellClassifier(nn.Module):
    """Predicts the class of every cell, background last: [B, width, T] -> logits [B, K + 1, T].

    This project's definition. The published detectors use a video-level classifier, which does not
    help in videos with actions of several classes.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.score = nn.Conv1d(width, num_classes + 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.score(self.hidden(features).relu()).to(self.score.weight.dtype)
