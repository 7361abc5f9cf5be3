"""Plausible wrong answers to the exercises of 01_feature_based_tad, each with what is to be said.

Exercise -> (wrong answer, a part of the hint).
"""

import torch

from etadlite.base.segments import tiou


def found_pairs(segments, actions, k, threshold):
    return (tiou(segments[:k, None], actions) >= threshold).float().sum() / len(actions)


def precision_at(segments, actions, k, threshold):
    return (tiou(segments[:k, None], actions) >= threshold).any(dim=1).float().mean()


def more_than(segments, actions, k, threshold):
    return (tiou(segments[:k, None], actions) > threshold).any(dim=0).float().mean()


def all_segments(segments, actions, k, threshold):
    return (tiou(segments[:, None], actions) >= threshold).any(dim=0).float().mean()


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
    "count_proposals": [
        (lambda cells, longest: cells * longest, "the last would end after the video"),
        (lambda cells, longest: cells * (cells + 1) // 2, "can start in every cell"),
        (
            lambda cells, longest: cells * longest - longest * (longest + 1) // 2,
            "can start in every cell",
        ),
        (lambda cells, longest: longest * (cells - (longest - 1)), "the last would end after"),
    ],
    "recall_at": [
        (found_pairs, "counts once"),
        (precision_at, "the best segment finds one of two actions"),
        (all_segments, "only the first k count"),
        (more_than, "at least, not more than"),
    ],
    "hard_nms": [
        (in_file_order, "the best goes first"),
        (worst_first, "all stay, best first"),
        (removed_ones_remove, "overlaps only the removed one"),
        (only_above, "exactly the threshold removes"),
        (any_overlap, "no tIoU reaches 0.9"),
        (lambda segments, scores, threshold: torch.tensor([0]), "so all stay"),
    ],
}
