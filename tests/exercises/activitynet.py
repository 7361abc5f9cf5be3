"""Answers to the exercises of 05_end_to_end_activitynet.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers of other forms.
"""

import numpy as np
import torch


def ranking(scores, overlaps, threshold, **change):
    """Average precision; each change is a plausible mistake."""
    overlaps = torch.as_tensor(overlaps)
    order = torch.as_tensor(scores).argsort(descending=change.get("descending", True)).tolist()
    if change.get("unsorted"):
        order = list(range(len(order)))
    reaches = (lambda fit: fit > threshold) if change.get("above") else lambda fit: fit >= threshold
    taken, right = set(), []
    for row in order:
        fits = overlaps[row].tolist()
        free = [a for a in range(len(fits)) if a not in taken]
        if change.get("never_taken"):
            free = list(range(len(fits)))
        if change.get("best_of_all"):  # gives up if the best action is taken
            best = max(range(len(fits)), key=fits.__getitem__)
            free = [best] if best in free else []
        good = [a for a in free if reaches(fits[a])]
        picked = good or (free if change.get("takes_any") else [])
        if picked:
            pick = picked[0] if change.get("first_free") else max(picked, key=fits.__getitem__)
            taken.add(pick)
        right.append(bool(good))
    hits = np.array(right, dtype=float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    if not change.get("raw"):
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    if change.get("from_the_start"):
        precision = np.maximum.accumulate(np.cumsum(hits) / np.arange(1, len(hits) + 1))
    total = float((precision * hits).sum())
    if change.get("of_found"):
        return total / max(hits.sum(), 1)
    if change.get("of_detections"):
        return total / max(len(hits), 1)
    return total / overlaps.shape[1]


def mistaken(**change):
    def answer(scores, overlaps, threshold):
        return ranking(scores, overlaps, threshold, **change)

    answer.__name__ = "_".join(change)
    return answer


def takes_out_in_place(scores, overlaps, threshold):
    right = []
    for row in scores.argsort(descending=True).tolist():
        right.append(bool(overlaps[row].max() >= threshold))
        if right[-1]:
            overlaps[:, overlaps[row].argmax()] = -1
    return sum(right) / overlaps.shape[1]


def share_found(scores, overlaps, threshold):
    return float((overlaps.amax(dim=0) >= threshold).float().mean()) if len(scores) else 0.0


def share_right(scores, overlaps, threshold):
    return float((overlaps.amax(dim=1) >= threshold).float().mean()) if len(scores) else 0.0


def at_one_half(scores, overlaps, threshold):
    return ranking(scores, overlaps, 0.5)


def in_percent(scores, overlaps, threshold):
    return 100 * ranking(scores, overlaps, threshold)


def not_without_detections(scores, overlaps, threshold):
    return ranking(scores, overlaps, threshold) if scores.max() >= 0 else 0.0


def in_lists(scores, overlaps, threshold):
    return ranking(scores.tolist(), overlaps.tolist() or overlaps, threshold)


def with_numpy(scores, overlaps, threshold):
    free, hits = overlaps.numpy().copy(), []
    for row in np.argsort(-scores.numpy(), kind="stable"):
        hits.append(free[row].max() >= threshold)
        if hits[-1]:
            free[:, free[row].argmax()] = 0
    hits = np.array(hits, dtype=bool)
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    peaks = [precision[n:].max() for n in np.flatnonzero(hits)]
    return np.float64(np.sum(peaks) / free.shape[1])


WRONG = {
    "hours_left": [
        (lambda videos, batch, epochs, s: videos * epochs * s / 3600, "takes a whole batch"),
        (lambda videos, batch, epochs, s: videos // batch * s / 3600, "sees all videos again"),
        (lambda videos, batch, epochs, s: videos // batch * epochs * s / 3600, "a smaller one"),
        (lambda videos, batch, epochs, s: -(-videos * epochs // batch) * s / 3600, "its own"),
        (lambda videos, batch, epochs, s: -(-videos // batch) * epochs * s, "is it in seconds"),
    ],
    "fuse": [
        (lambda scores, classes, k: scores * classes.max(), "have the shape"),
        (lambda scores, classes, k: scores[:, None] * classes[:k], "the highest scores"),
        (lambda scores, classes, k: scores[:, None] + classes.topk(k).values, "multiplies"),
        (
            lambda scores, classes, k: scores[:, None] * classes.topk(k).values.flip(0),
            "the best class should stand first",
        ),
        (
            lambda scores, classes, k: scores[:, None] * classes.softmax(0).topk(k).values,
            "should score 0.30 and 0.15",
        ),
    ],
    "average_precision": [
        (mistaken(unsorted=True), "has the higher score"),
        (mistaken(descending=False), "has the higher score"),
        (mistaken(above=True), "exactly the threshold is enough"),
        (mistaken(never_taken=True), "a duplicate"),
        (mistaken(best_of_all=True), "the other one is left action 1"),
        (mistaken(first_free=True), "on which it lies best; action 0 is too far"),
        (mistaken(takes_any=True), "takes no action"),
        (mistaken(raw=True), "but a later place reaches 2 / 3"),
        (mistaken(from_the_start=True), "precisions 1 and 2 / 3"),
        (mistaken(of_found=True), "for one action of two"),
        (mistaken(of_detections=True), "for one action of two|stands below"),
        (takes_out_in_place, "in place"),
        (share_found, "1 of 2 right"),
        (share_right, "for one action of two"),
        (at_one_half, "does not reach 0.7"),
        (in_percent, "yours gives 100.000"),
        (not_without_detections, "raised"),
        (lambda scores, overlaps, threshold: (overlaps >= threshold).float(), "shape|one number"),
    ],
}

RIGHT = {
    "average_precision": [
        ranking,
        in_lists,
        with_numpy,
        lambda *given: torch.tensor(ranking(*given)),
        lambda *given: [ranking(*given)][0],
    ]
}
