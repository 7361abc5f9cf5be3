"""Many snippets through an encoder, in the memory of a few: chunk after chunk."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def moved(snippets: Tensor, chunks: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The chunks of a tensor, one after another, on a device.

    From the host to a GPU the next chunk travels, on a stream of its own, while the last is used.

    Args:
        snippets: [M, ...] on any device.
        chunks: indices of the rows of each chunk, on the CPU.
        device: where they are wanted.
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
    """Encode snippets without gradient, in the memory of one chunk.

    Args:
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        frames: uint8 [B, N, 3, F, H, W], on any device; chunks are moved to the encoder's.
        chunk_size: snippets encoded at once.

    Returns:
        [B, C, N], at least float32.
    """
    device = next(encoder.parameters()).device
    snippets = frames.flatten(0, 1)
    chunks = torch.arange(len(snippets)).split(chunk_size)
    features = torch.cat([encoder(chunk) for chunk in moved(snippets, chunks, device)])
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return features.unflatten(0, frames.shape[:2]).transpose(1, 2).contiguous()
