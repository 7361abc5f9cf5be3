"""Encode many snippets in the memory of one chunk."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from etadlite.base.devices import at_least_float32, is_gpu


def iterate_chunks(
    snippets: Tensor, chunks: Sequence[Tensor], device: torch.device
) -> Iterator[Tensor]:
    """Return chunks of a tensor [M, ...] on a device; `chunks` are their row indices, on the CPU.

    From the host to a GPU, the next chunk is copied on its own stream while the last one is used.
    """
    parts = (snippets[rows.to(snippets.device)] for rows in chunks)
    if is_gpu(device) and not is_gpu(snippets.device):
        from etadlite.base.gpu import copied_ahead

        return copied_ahead(parts, device)
    return (part.to(device) for part in parts)


@torch.no_grad()
def encode_in_chunks(encoder: nn.Module, frames: Tensor, chunk_size: int) -> Tensor:
    """Encode snippets without gradient, one chunk after another.

    Frames are uint8 [B, N, 3, F, H, W] on any device; chunks of them move to the encoder's device.
    The encoder maps uint8 [n, 3, F, H, W] to [n, C]. The result is [B, C, N], at least float32.
    """
    device = next(encoder.parameters()).device
    snippets = frames.flatten(0, 1)
    chunks = torch.arange(len(snippets)).split(chunk_size)
    features = torch.cat([encoder(chunk) for chunk in iterate_chunks(snippets, chunks, device)])
    return as_feature_map(features, frames.shape[0])


def as_feature_map(features: Tensor, batch: int) -> Tensor:
    """Reshape features [B * N, C] of B videos to [B, C, N], at least float32."""
    features = at_least_float32(features)
    return features.unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
