"""Temporal enhancement and evaluation: context and scores for every cell (paper, section 3.2)."""

import torch
from torch import Tensor, nn


def conv_norm_relu(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Grouped temporal convolution, group norm, ReLU: [B, Cin, T] -> [B, Cout, T]."""
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2, groups=4, bias=False),
        nn.GroupNorm(16, channels_out),
        nn.ReLU(inplace=True),
    )


class TemporalEnhancement(nn.Module):
    """A forward and a backward LSTM beside a convolution: [B, C, T] -> [B, width, T]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.project = conv_norm_relu(in_channels, width, 3)
        self.lstm_forward = nn.LSTM(width, width, batch_first=True)
        self.lstm_backward = nn.LSTM(width, width, batch_first=True)
        self.conv_forward = conv_norm_relu(width, width // 2, 3)
        self.conv_backward = conv_norm_relu(width, width // 2, 3)
        self.conv_direct = conv_norm_relu(width, width, 3)
        self.merge = conv_norm_relu(2 * width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.project(features)
        sequence = x.transpose(1, 2)  # [B, T, width]
        past = self.lstm_forward(sequence)[0].transpose(1, 2)
        future = self.lstm_backward(sequence.flip(1))[0].flip(1).transpose(1, 2)
        branches = (self.conv_forward(past), self.conv_direct(x), self.conv_backward(future))
        return self.merge(torch.cat(branches, dim=1))


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
