"""Plausible wrong answers to the exercises of 00_quickstart, each with what the checker shall say.

Exercise -> (wrong answer, a part of the hint).
"""

import torch


def negative_apart(a, b):
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def over_the_first(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0])


def over_both_lengths(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0])


def first_ones(context, count):
    return torch.arange(count).expand(len(context.draws), count)


def first_and_last(context, count):
    picked = torch.arange(count)
    picked[-1] = context.snippets - 1
    return picked.expand(len(context.draws), count)


def drawn_with_repetition(context, count):
    picked = torch.arange(count) // 2
    return picked.expand(len(context.draws), count)


WRONG = {
    "tiou": [
        (over_the_first, "a share of one segment"),
        (over_both_lengths, "counts the shared time twice"),
        (negative_apart, "is yours negative?"),
        (lambda a, b: max(0, min(a[1], b[1]) - max(a[0], b[0])), "they share 5 s of the 15 s"),
        (lambda a, b: 1 / 0, "raised ZeroDivisionError"),
    ],
    "step_cost": [
        (lambda ratio, replay: ratio, "encoded once without gradient"),
        (lambda ratio, replay: 1 + ratio * replay, "the cost at ratio 1 is the unit"),
        (lambda ratio, replay: (1 + 3 * ratio) / 4, "does the second argument reach the divisor"),
    ],
    "evenly": [
        (lambda context, count: list(range(count)), "have the shape"),
        (lambda context, count: torch.arange(count), "have the shape"),
        (first_ones, "should reach from the first"),
        (first_and_last, "no gap should exceed"),
        (drawn_with_repetition, "no snippet twice"),
        (lambda context, count: first_ones(context, count) + 0.5, "whole numbers"),
    ],
}
