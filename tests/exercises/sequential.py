"""Plausible wrong answers to the exercises of 02_sequential_snippet_encoding.

Exercise -> (wrong answer, a part of the hint).
"""

from math import prod

import torch


def without_relus(mid, out, shape, number=4):
    return number * prod(shape) * (mid + out)


def out_once(mid, out, shape, number=4):
    return number * prod(shape) * (2 * mid + out)


def one_frame(mid, out, shape, number=4):
    return number * shape[1] * shape[2] * (2 * mid + 2 * out)


def always_four(mid, out, shape, number=4):
    return 4 * prod(shape) * (2 * mid + 2 * out) / (4 if number == 1 else 1)


def in_chunks(encoder, frames, chunk_size):
    return torch.cat([encoder(chunk) for chunk in frames.flatten(0, 1).split(chunk_size)])


@torch.no_grad()
def reshaped(encoder, frames, chunk_size):
    return in_chunks(encoder, frames, chunk_size).reshape(len(frames), -1, frames.shape[1])


@torch.no_grad()
def not_swapped(encoder, frames, chunk_size):
    return in_chunks(encoder, frames, chunk_size).unflatten(0, frames.shape[:2])


@torch.no_grad()
def whole_chunks_only(encoder, frames, chunk_size):
    count = frames.shape[0] * frames.shape[1] // chunk_size * chunk_size
    chunks = frames.flatten(0, 1)[:count].split(chunk_size)
    return torch.cat([encoder(chunk) for chunk in chunks])


@torch.no_grad()
def a_video_at_once(encoder, frames, chunk_size):
    return torch.stack([encoder(video).T for video in frames])


def with_gradient(encoder, frames, chunk_size):
    features = in_chunks(encoder, frames, chunk_size)
    return features.unflatten(0, frames.shape[:2]).transpose(1, 2)


WRONG = {
    "conv_bytes": [
        (without_relus, "the space convolution's output is kept, and again after the ReLU"),
        (out_once, "the time convolution's output is kept"),
        (one_frame, "F · H · W positions"),
        (always_four, "each number takes `number` bytes"),
    ],
    "push": [
        (lambda features, gradient: features * gradient, "a single number"),
        (lambda features, gradient: features.sum(), "where does `gradient` come in?"),
        (lambda features, gradient: (features * gradient).mean(), "a mean divides"),
        (lambda features, gradient: (features - gradient).square().sum(), "whatever the features"),
        (lambda features, gradient: (features.detach() * gradient).sum(), "lost its way back"),
    ],
    "encode_batch": [
        (reshaped, "the numbers stand in wrong places"),
        (not_swapped, "have the shape"),
        (whole_chunks_only, "is the last, smaller chunk there"),
        (a_video_at_once, "snippets at once"),
        (with_gradient, "torch.no_grad()"),
    ],
}
