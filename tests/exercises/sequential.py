"""Plausible wrong answers to the exercises of 02_sequential_snippet_encoding.

Exercise -> (wrong answer, a part of the hint).
"""

from math import prod


def without_relus(mid, out, shape, number=4):
    return number * prod(shape) * (mid + out)


def out_once(mid, out, shape, number=4):
    return number * prod(shape) * (2 * mid + out)


def one_frame(mid, out, shape, number=4):
    return number * shape[1] * shape[2] * (2 * mid + 2 * out)


def always_four(mid, out, shape, number=4):
    return 4 * prod(shape) * (2 * mid + 2 * out) / (4 if number == 1 else 1)


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
}
