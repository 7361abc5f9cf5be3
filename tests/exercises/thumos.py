"""Answers to the exercises of 06_end_to_end_thumos.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers of other forms.
"""

import math

import numpy as np
import torch

from etadlite.base.segments import tiou


def in_place(scores, overlaps, labels, label, sigma):
    scores *= torch.where(labels == label, torch.exp(-(overlaps**2) / sigma), 1.0)
    return scores


def of_all_classes(scores, overlaps, labels, label, sigma):
    return scores * torch.exp(-(overlaps**2) / sigma)


def not_squared(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, scores * torch.exp(-overlaps / sigma), scores)


def hard(scores, overlaps, labels, label, sigma):
    return torch.where((labels == label) & (overlaps >= 0.5), 0.0, scores)


def class_one(scores, overlaps, labels, label, sigma):
    return torch.where(labels == 1, scores * torch.exp(-(overlaps**2) / sigma), scores)


def same_class_alone(scores, overlaps, labels, label, sigma):
    return (scores * torch.exp(-(overlaps**2) / sigma))[labels == label]


def merging(segments, scores, sigma, voting, least, **change):
    """Merge windows; each change is a plausible mistake."""
    left, rows = scores.clone(), []
    while len(left) and (left.max() > least if change.get("above") else left.max() >= least):
        pick = int(left.argmax())
        fits = tiou(segments[pick], segments)
        fits = fits.clone() if not change.get("of_middles") else (fits > 0).to(fits)
        voters = fits >= voting
        if change.get("voters_above"):
            voters = fits > voting
        if change.get("all_vote"):
            voters = fits > 0
        weights = (left.clamp(min=0) if change.get("lowered_votes") else scores) * voters
        if change.get("equal_votes"):
            weights = voters.to(scores)
        if change.get("strongest_votes"):
            weights = scores**2 * voters
        start, end = (weights[:, None] * segments).sum(dim=0) / weights.sum()
        if change.get("no_vote"):
            start, end = segments[pick]
        score = scores[pick] if change.get("given_score") else left[pick]
        number = len(rows) if change.get("counts") else pick
        rows.append([number, float(start), float(end), float(score)])
        if change.get("hard"):
            left = torch.where(fits >= 0.5, 0.0, left)
        elif change.get("linear"):
            left = left * (1 - fits)
        else:
            power = fits if change.get("unsquared") else fits**2
            left = left * torch.exp(-power / (0.5 if change.get("sigma_half") else sigma))
        left[pick] = -1
        if change.get("one"):
            break
    if change.get("as_given"):
        rows.sort()
    if change.get("worst_first"):
        rows.reverse()
    found = torch.tensor(rows, dtype=scores.dtype).view(-1, 4)
    return found[:, 1:] if change.get("three") else found


def changed(**change):
    def answer(*given):
        return merging(*given, **change)

    answer.__name__ = "_".join(change)
    return answer


def merged_in_place(segments, scores, sigma, voting, least):
    rows = merging(segments, scores, sigma, voting, least)
    scores.clamp_(max=0)
    return rows


def rounded_rows(*given):
    return (100 * merging(*given)).round() / 100


def top_of_all(segments, scores, sigma, voting, least):
    order = scores.argsort(descending=True)
    kept = order[scores[order] >= least]
    return torch.cat([kept[:, None], segments[kept], scores[kept, None]], dim=1)


def looped_merging(segments, scores, sigma, voting, least):
    spans, left, rows = segments.tolist(), scores.tolist(), []

    def fit(a, b):
        shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
        return shared / (a[1] - a[0] + b[1] - b[0] - shared)

    while max(left) >= least:
        pick = left.index(max(left))
        pairs = zip(scores.tolist(), spans, strict=True)
        votes = [(s, x) for s, x in pairs if fit(x, spans[pick]) >= voting]
        total = sum(s for s, _ in votes)
        ends = [sum(s * x[n] for s, x in votes) / total for n in (0, 1)]
        rows.append((pick, *ends, left[pick]))
        fits = [fit(x, spans[pick]) for x in spans]
        left = [s * math.exp(-(f**2) / sigma) for s, f in zip(left, fits, strict=True)]
        for done, *_ in rows:
            left[done] = -math.inf
    return rows


def numpy_merging(*given):
    return merging(*given).numpy().astype(np.float64)


WRONG = {
    "merge_windows": [
        (changed(above=True), "exactly `least` is reported"),
        (changed(hard=True), "0.067|multiplies"),
        (changed(linear=True), "0.067"),
        (changed(unsquared=True), "0.067"),
        (changed(sigma_half=True), "0.067"),
        (changed(given_score=True), "0.067"),
        (changed(no_vote=True), "vote"),
        (changed(all_vote=True), "nobody else votes"),
        (changed(equal_votes=True), "scores weigh"),
        (changed(strongest_votes=True), "scores weigh"),
        (changed(lowered_votes=True), "nobody else votes|scores that were given"),
        (changed(counts=True), "pick"),
        (changed(one=True), "have the shape"),
        (changed(as_given=True), "the best first"),
        (changed(worst_first=True), "the best first"),
        (changed(three=True), "have the shape"),
        (changed(of_middles=True), "0.067|nobody else votes"),
        (merged_in_place, "in place"),
        (rounded_rows, "should have|wrong"),
        (top_of_all, "0.067"),
    ],
    "seconds_of": [
        (lambda cell, first, stride, offset, fps: first + cell * stride, "is second 10"),
        (lambda cell, first, stride, offset, fps: (first + cell) / fps, "60 frames, 2 s more"),
        (lambda cell, first, stride, offset, fps: (first + cell * stride) / fps, "stands for"),
        (
            lambda cell, first, stride, offset, fps: (first + offset + int(cell) * stride) / fps,
            "between two cells",
        ),
    ],
    "lower": [
        (in_place, "in place"),
        (of_all_classes, "another class should keep"),
        (not_squared, "is the tIoU squared"),
        (hard, "should become 0.80 exp"),
        (class_one, "only the third score"),
        (same_class_alone, "have the shape"),
    ],
}

RIGHT = {"merge_windows": [merging, looped_merging, numpy_merging]}
