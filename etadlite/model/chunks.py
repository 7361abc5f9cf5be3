"""Encode many snippets in the memory of one chunk."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from etadlite.base.devices import at_least_float32


def iterate_chunks(
    snippets: Tensor, chunks: Sequence[Tensor], device: torch.device
) -> Iterator[Tensor]:
    """Yield chunks of a tensor [M, ...] on a device; `chunks` are their row indices, on the CPU.

    From the host to a GPU, the next chunk is copied on its own stream while the last one is used.
    """
    if device.type != "cuda" or snippets.is_cuda:
        for rows in chunks:
            yield snippets[rows.to(snippets.device)].to(device)
        return
    stream, used_on = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def fetch(rows: Tensor) -> Tensor:
        with torch.cuda.stream(stream):
            return snippets[rows].pin_memory().to(device, non_blocking=True)

    ahead = fetch(chunks[0])
    for following in (*chunks[1:], None):
        used_on.wait_stream(stream)
        chunk = ahead
        chunk.record_stream(used_on)
        if following is not None:
            ahead = fetch(following)
        yield chunk


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
