"""More answers: mistakes at the edges, with equals and with what is drawn together.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from etadlite.base.segments import tiou

# 01


def matched(actions, proposals, use):
    """`use` makes the answer of tIoUs [P, A] with the actions."""
    if not len(actions):
        return torch.zeros_like(proposals)
    return use(tiou(proposals[:, None], actions))


def mean_of_equals(actions, proposals):
    def use(fits):
        best = (fits == fits.amax(dim=1, keepdim=True)).to(actions)
        return best @ actions / best.sum(dim=1, keepdim=True)

    return matched(actions, proposals, use)


def sum_of_equals(actions, proposals):
    return matched(
        actions, proposals, lambda fits: (fits == fits.amax(1, keepdim=True)).to(actions) @ actions
    )


def where_none_fits(value):
    def answer(actions, proposals):
        def use(fits):
            best, at = fits.max(dim=1)
            other = proposals if value is None else torch.full_like(proposals, value)
            return torch.where(best[:, None] > 0, actions[at], other)

        return matched(actions, proposals, use)

    return answer


def centre_and_length(actions, proposals):
    def use(fits):
        own = actions[fits.argmax(dim=1)]
        return torch.stack((own.mean(dim=1), own[:, 1] - own[:, 0]), dim=1)

    return matched(actions, proposals, use)


def cut_to_the_proposal(actions, proposals):
    def use(fits):
        own = actions[fits.argmax(dim=1)]
        return own.maximum(proposals[:, :1]).minimum(proposals[:, 1:])

    return matched(actions, proposals, use)


def offsets(actions, proposals):
    return matched(actions, proposals, lambda fits: actions[fits.argmax(dim=1)] - proposals)


def zeros_of_one(actions, proposals):
    if not len(actions):
        return torch.zeros(1, 2)
    return actions[tiou(proposals[:, None], actions).argmax(dim=1)]


def weights_by_numpy(segments, bins, cells, counts):
    found = []
    for start, end in segments.double().tolist():
        width = max(end - start, 1) / bins
        parts = (np.arange(math.ceil(width)) + 0.5) / math.ceil(width)
        place = start + (np.arange(bins)[:, None] + parts) * width
        hat = 1 - np.abs(place.clip(0, cells - 1)[..., None] - np.arange(cells))
        found.append((hat.clip(min=0) * counts(place, cells)[..., None]).mean(axis=1))
    return found


def weights_where(counts):
    return lambda *given: weights_by_numpy(*given, counts)


def balanced(cost, target, mean=torch.mean):
    positive = target > 0.5
    groups = [cost[group] for group in (positive, ~positive) if group.any()]
    return sum(map(mean, groups)) / len(groups)


def right_of(probability, target):
    return torch.where(target > 0.5, probability, 1 - probability)


def no_cost_at_zero(probability, target):
    right = right_of(probability, target)
    return balanced(-torch.where(right > 0, right, torch.ones_like(right)).log(), target)


def infinite_becomes_zero(probability, target):
    return balanced((-right_of(probability, target).log()).nan_to_num(posinf=0.0), target)


def median_of_a_group(probability, target):
    return balanced(-(right_of(probability, target) + 1e-6).log(), target, torch.median)


def in_bits(probability, target):
    return balanced(-(right_of(probability, target) + 1e-6).log2(), target)


def half_of_one_group(probability, target):
    cost, positive = -(right_of(probability, target) + 1e-6).log(), target > 0.5
    return sum(cost[group].mean() for group in (positive, ~positive) if group.any()) / 2


def soft_targets(probability, target):
    cost = target * (probability + 1e-6).log() + (1 - target) * (1 - probability + 1e-6).log()
    return balanced(-cost, target)


def by_torch(probability, target):
    positive = (target > 0.5).to(probability)
    return balanced(F.binary_cross_entropy(probability, positive, reduction="none"), target)


def clamped_below(probability, target):
    return balanced(-right_of(probability, target).clamp(min=1e-6).log(), target)


def last_place_of_a_segment(segments, scores, threshold):
    places = {tuple(span): place for place, span in enumerate(segments.tolist())}
    kept = []
    for index in scores.argsort(descending=True).tolist():
        if all(tiou(segments[index], segments[other]) < threshold for other in kept):
            kept.append(index)
    return [places[tuple(segments[index].tolist())] for index in kept]


# 03


def right_on_average(inside, n_inside, n_outside):
    weights = torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside)
    for group in (inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]):
        weights[group[0]] += 0.5
        weights[group[-1]] -= 0.5
    return weights


def mixed_numbers(inside, n_inside, n_outside):
    own, other = np.float64(inside.sum()) / n_inside, int((~inside).sum()) / n_outside
    return [own if mark else other for mark in inside.tolist()]


def big_endian(inside, n_inside, n_outside):
    own = inside.numpy()
    return np.where(own, own.sum() / n_inside, (~own).sum() / n_outside).astype(">f4")


def strata_of(place):
    def answer(context, n):
        borders = torch.arange(n + 1) * context.snippets // n
        return borders[:-1] + place(context.draws.rand(n), borders.diff())

    return answer


# 04


def rest_by(choose, numbers=1):
    """The best proposals first; `choose` picks m of the rest by a video's random numbers."""

    def answer(context, count):
        found = []
        luck = context.draws.rand(numbers or len(context.proposals))
        for own, actions in zip(luck, context.actions, strict=True):
            must = list({int(tiou(action, context.proposals).argmax()) for action in actions})
            rest = [place for place in range(len(context.proposals)) if place not in must]
            found.append(context.proposals[must + choose(own, rest, count - len(must))])
        return torch.stack(found)

    return answer


def a_block(own, rest, count):
    first = int(own[0] * len(rest))
    return (rest + rest)[first : first + count]


def a_grid(own, rest, count):
    return [rest[int((place + float(own[0])) * len(rest) / count)] for place in range(count)]


def the_luckiest(own, rest, count):
    return sorted(rest, key=own.tolist().__getitem__)[:count]


# 06


def merged_until(segments, scores, sigma, voting, least, *, first):
    left, rows, done = scores.clone(), [], []
    while (first and not rows) or left.max() >= least:
        done.append(int(left.argmax()))
        fits = tiou(segments[done[-1]], segments)
        place = (scores * (fits >= voting)) @ segments / (scores * (fits >= voting)).sum()
        rows.append([done[-1], *place.tolist(), float(left[done[-1]])])
        left = left * torch.exp(-(fits**2) / sigma)
        left[done] = -1
    return torch.tensor(rows)


WRONG = {
    "tiou": [(lambda a, b: [10**400], "too large a number")],
    "evenly": [(lambda c, n: [[10**30] * n] * len(c.draws), "too large a number")],
    "conv_bytes": [(lambda *_, number=4: 10**400, "too large a number")],
    "matched_actions": [
        (mean_of_equals, "the actions themselves"),
        (sum_of_equals, "the actions themselves"),
        (where_none_fits(None), "touches none, so any of the actions themselves"),
        (where_none_fits(math.nan), "touches none, so any of the actions themselves"),
        (where_none_fits(-1), "touches none, so any of the actions themselves"),
        (centre_and_length, "the actions themselves"),
        (cut_to_the_proposal, "the actions themselves"),
        (offsets, "the actions themselves"),
        (zeros_of_one, "for a video without actions it should have the shape"),
    ],
    "roi_weights": [
        (weights_where(lambda x, cells: (x > -1) & (x <= cells)), "exactly -1 still counts"),
        (weights_where(lambda x, cells: (x >= -1) & (x < cells)), "exactly `cells` still counts"),
        (weights_where(lambda x, cells: (x >= 0) & (x <= cells)), "places beyond -1"),
    ],
    "balanced_bce": [
        (no_cost_at_zero, "stays finite, and high"),
        (infinite_becomes_zero, "stays finite, and high"),
        (median_of_a_group, "the mean of both groups' means"),
        (in_bits, "one positive weighs as much"),
        (half_of_one_group, "over the negatives alone"),
        (soft_targets, "whatever its value"),
    ],
    "hard_nms": [(last_place_of_a_segment, "of two equal ones the better stays")],
    "group_weights": [(right_on_average, "should weigh 2.00, yours 2.50")],
    "stratified": [
        (strata_of(lambda draw, width: (10 * draw).long() % width), "the same chance"),
        (strata_of(lambda draw, width: (8 * draw).long() % width), "the same chance"),
        (strata_of(lambda draw, width: (0.9 * draw * width).long()), "the same chance"),
        (
            strata_of(lambda draw, width: (draw * width).round().long().minimum(width - 1)),
            "the same chance",
        ),
    ],
    "with_positives": [
        (rest_by(a_block), "should be drawn one by one"),
        (rest_by(a_grid), "should be drawn one by one|should come as often"),
    ],
    "merge_windows": [
        (lambda *given: merged_until(*given, first=True), "no score reaches `least`"),
    ],
}

RIGHT = {
    "roi_weights": [weights_where(lambda x, cells: (x >= -1) & (x <= cells))],
    "balanced_bce": [by_torch, clamped_below],
    "group_weights": [mixed_numbers, big_endian],
    "stratified": [strata_of(lambda draw, width: (2 * draw % 1 * width).long())],
    "with_positives": [rest_by(the_luckiest, numbers=0)],
    "fuse": [lambda s, c, k: np.outer(s.numpy(), np.sort(c.numpy()))[:, ::-1][:, :k]],
    "merge_windows": [lambda *given: merged_until(*given, first=False)],
}
