"""Plausible wrong answers to the exercises of 01_feature_based_tad, each with what is to be said.

Exercise -> (wrong answer, a part of the hint).
"""

import torch

from etadlite.base.segments import tiou


def walk(segments, order, removes):
    kept = []
    for index in order:
        if not any(removes(float(tiou(segments[index], segments[other]))) for other in kept):
            kept.append(index)
    return kept


def best_first(scores):
    return scores.argsort(descending=True).tolist()


def in_file_order(segments, scores, threshold):
    return walk(segments, range(len(scores)), lambda fit: fit >= threshold)


def worst_first(segments, scores, threshold):
    return walk(segments, scores.argsort().tolist(), lambda fit: fit >= threshold)


def removed_ones_remove(segments, scores, threshold):
    order = best_first(scores)
    return [
        index
        for rank, index in enumerate(order)
        if not any(tiou(segments[index], segments[other]) >= threshold for other in order[:rank])
    ]


def only_above(segments, scores, threshold):
    return walk(segments, best_first(scores), lambda fit: fit > threshold)


def any_overlap(segments, scores, threshold):
    return walk(segments, best_first(scores), lambda fit: fit > 0)


WRONG = {
    "hard_nms": [
        (in_file_order, "the best goes first"),
        (worst_first, "all stay, best first"),
        (removed_ones_remove, "overlaps only the removed one"),
        (only_above, "exactly the threshold removes"),
        (any_overlap, "no tIoU reaches 0.9"),
        (lambda segments, scores, threshold: torch.tensor([0]), "so all stay"),
    ],
}
