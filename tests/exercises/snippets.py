"""Plausible wrong answers to the exercises of 03_snippet_gradient_sampling.

Exercise -> (wrong answer, a part of the hint).
"""

import torch


def with_repetition(rows, n):
    return len(rows) ** 2 / n * rows.var(dim=0).sum()


def of_the_mean(rows, n):
    return (1 - n / len(rows)) / n * rows.var(dim=0).sum()


def divided_by_all(rows, n):
    size = len(rows)
    return size**2 * (1 - n / size) / n * rows.var(dim=0, correction=0).sum()


def one_mean_for_all(rows, n):
    size = len(rows)
    return size**2 * (1 - n / size) / n * rows.var()


def a_column_each(rows, n):
    size = len(rows)
    return size**2 * (1 - n / size) / n * rows.var(dim=0)


def chances(inside, n_inside, n_outside):
    return torch.where(inside, n_inside / inside.sum(), n_outside / (~inside).sum())


def as_if_equal(inside, n_inside, n_outside):
    return torch.full((len(inside),), len(inside) / (n_inside + n_outside))


def of_the_whole_video(inside, n_inside, n_outside):
    return torch.where(inside, len(inside) / n_inside, len(inside) / n_outside)


def borders_of(context, n):
    return torch.arange(n + 1) * context.snippets // n


def middles(context, n):
    borders = borders_of(context, n)
    return ((borders[:-1] + borders[1:]) // 2).expand(len(context.draws), n)


def one_shift(context, n):
    borders = borders_of(context, n)
    return borders[:-1] + (context.draws.rand(1) * borders.diff()).long()


def anywhere(context, n):
    return context.draws.rand(context.snippets).topk(n).indices.sort().values


def rounded(context, n):
    borders = borders_of(context, n)
    return borders[:-1] + (context.draws.rand(n) * borders.diff()).round().long()


def one_video(context, n):
    borders = borders_of(context, n)
    return borders[:-1] + (context.draws.rand(n)[0] * borders.diff()).long()


WRONG = {
    "sampling_error": [
        (with_repetition, "is the factor (1 - f) there?"),
        (of_the_mean, "N² (1 - f) / n times its variance"),
        (divided_by_all, "that divides by N - 1"),
        (one_mean_for_all, "do the variances of all columns add up"),
        (a_column_each, "one number"),
    ],
    "group_weights": [
        (chances, "has to count more, not less"),
        (as_if_equal, "right only where all have the same chance"),
        (of_the_whole_video, "the size of its group"),
        (lambda inside, a, b: inside.sum() / a, "have the shape"),
    ],
    "stratified": [
        (anywhere, "should lie in its stratum"),
        (rounded, "should lie in its stratum"),
        (middles, "the same chance"),
        (one_shift, "each stratum should draw for itself"),
        (one_video, "have the shape"),
    ],
}
