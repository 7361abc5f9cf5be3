"""A third set of answers, on what the first two left open, by exercise.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers. What is new: equal scores and exact copies, numbers beyond 32
bits, bounds that no small case reaches, weights in another order, settings of torch that stay
changed, and functions that give a generator or call themselves for ever.
"""

import math

import numpy as np
import torch

from etadlite.base.segments import tiou
from etadlite.detector.roi import extend
from etadlite.detector.roi import roi_weights as package_weights

# Of every exercise


def yields(*arguments):
    yield 1.0


def calls_itself(*arguments):
    return calls_itself(*arguments)


def switches_gradients_off(answer):
    def switched(*arguments):
        given = answer(*arguments)
        torch.set_grad_enabled(False)
        return given

    return switched


def doubles_by_default(answer):
    def changed(*arguments):
        torch.set_default_dtype(torch.float64)
        return answer(*arguments)

    return changed


# 00


def shared_over_covered(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (max(a[1], b[1]) - min(a[0], b[0]))


def exact_tiou(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def whole_hundredths(a, b):
    a, b = [int(100 * x) for x in a], [int(100 * x) for x in b]
    return exact_tiou(a, b)


def one_inside_the_other(a, b):
    if a[0] <= b[0] and b[1] <= a[1]:
        return 1.0
    return exact_tiou(a, b)


def step(ratio, replay):
    return (1 + ratio * replay) / (1 + replay)


def sliding(context, count):
    """Even, but shifted by what another call would not repeat."""
    sliding.calls += 1
    row = (torch.arange(count) + (sliding.calls % 7) / 7) * context.snippets / count
    return row.long().expand(len(context.draws), count)


sliding.calls = 0

# 01


def by_score(segments, scores, threshold):
    where = {float(score): place for place, score in enumerate(scores)}  # equal scores are lost
    kept = []
    for score in sorted(where, reverse=True):
        place = where[score]
        if all(tiou(segments[place], segments[other]) < threshold for other in kept):
            kept.append(place)
    return kept


def last_two(segments, scores, threshold):
    kept = []
    for place in scores.argsort(descending=True).tolist():
        if all(tiou(segments[place], segments[other]) < threshold for other in kept[-2:]):
            kept.append(place)
    return kept


def good_enough(actions, proposals):
    fits = tiou(proposals[:, None], actions)
    if not len(actions):
        return torch.zeros_like(proposals)
    first = (fits > 0.3).int().argmax(dim=1)
    return actions[torch.where(fits.amax(dim=1) > 0.3, first, fits.argmax(dim=1))]


def to_hundredths(actions, proposals):
    if not len(actions):
        return torch.zeros_like(proposals)
    best = actions[tiou(proposals[:, None], actions).argmax(dim=1)]
    return (100 * best).round() / 100


def lengthened_again(segments, bins, cells):
    return package_weights(extend(segments), cells, bins, aligned=False)


def places_of_the_segment(segments, bins, cells):
    found = []
    for start, end in segments.double().tolist():
        width = max(end - start, 1.0)
        count = math.ceil(width)  # of the whole segment, not of a bin
        offset = (torch.arange(count) + 0.5) / count
        place = start + (torch.arange(bins)[:, None] + offset) * width / bins
        inside = (place >= -1) & (place <= cells)
        apart = (place.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        found.append(((1 - apart).clamp(min=0) * inside[..., None]).mean(dim=1))
    return torch.stack(found)


def clamped_in_place(probability, target):
    loss = by_counts(probability.clone(), target)
    probability.clamp_(0.3, 0.7)
    return loss


def by_counts(probability, target):
    positive = target > 0.5
    share = positive.double().mean()
    if share in (0, 1):
        return -(probability if share else 1 - probability).add(1e-6).log().mean()
    weight = torch.where(positive, 0.5 / share, 0.5 / (1 - share))
    right = torch.where(positive, probability, 1 - probability)
    return (weight * -(right + 1e-6).log()).mean()


def rounded_targets(probability, target):
    positive = target.round().bool()  # 0.5 becomes 0
    costs = [-(probability[positive] + 1e-6).log(), -(1 - probability[~positive] + 1e-6).log()]
    means = [cost.mean() for cost in costs if len(cost)]
    return sum(means) / len(means)


# 02


def in_32_bits(mid, out, shape, number=4):
    total = torch.tensor(shape, dtype=torch.int32).prod(dtype=torch.int32) * 2 * (mid + out)
    return int(total * number)


def push_and_a_rest(features, gradient):
    return (features * gradient).sum() + features.square().sum() * 1e-3


def replay(encoder, snippets, loss_of, size, picked, weights, change=None):
    with torch.no_grad():
        features = torch.cat([encoder(chunk) for chunk in snippets.split(size)])
    loss = loss_of(features.requires_grad_())
    loss.backward()
    if change is not None:
        picked, weights = change(picked, weights)
    push = features.grad[picked] * weights[:, None]
    for rows, part in zip(picked.split(size), push.split(size), strict=True):
        encoder(snippets[rows]).backward(part)
    return loss.detach()


def replay_with(change):
    return lambda *given: replay(*given, change=change)


def whole_chunks_only(picked, weights, size=4):
    whole = len(picked) // size * size
    return picked[:whole], weights[:whole]


def manual_grad_mode(encoder, snippets, loss_of, size, picked, weights):
    torch.set_grad_enabled(False)
    features = torch.cat([encoder(chunk) for chunk in snippets.split(size)])
    torch.set_grad_enabled(True)
    loss = loss_of(features.requires_grad_())
    loss.backward()
    for rows, w in zip(picked.split(size), weights.split(size), strict=True):
        encoder(snippets[rows]).backward(features.grad[rows] * w[:, None])
    return [loss.item()]


# 03


def strata(context, n, change=None):
    borders = torch.arange(n + 1) * context.snippets // n
    draw = context.draws.rand(n)
    draw = draw if change is None else change(draw)
    return borders[:-1] + (draw * borders.diff()).long()


def strata_with(change):
    return lambda context, n: strata(context, n, change)


def golden(draw):
    """One number, and steps of the golden ratio from it."""
    return (draw[:, :1] + 0.618034 * torch.arange(draw.shape[1])) % 1


# 04


def of_shortest(durations):
    octave = (durations / durations.min() + 1e-6).log2().floor()
    size = (octave[:, None] == octave).sum(dim=1)
    return (1 / size) / (1 / size).sum()


def every_positive(context, count):
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            fits = tiou(actions[:, None], context.proposals)
            own[fits.argmax(dim=1)] = 3
            own[(fits.amax(dim=0) > 0.5) & (own < 2)] += 1
    return context.proposals[luck.topk(count, dim=1).indices]


def clears_the_actions(context, count):
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[tiou(actions[:, None], context.proposals).argmax(dim=1)] = 2
            actions.zero_()
    return context.proposals[luck.topk(count, dim=1).indices]


# 05


def distinct_classes(scores, classes, k):
    return scores[:, None] * classes.unique().flip(0)[:k]


def by_dict(scores, overlaps, threshold):
    rows = {float(score): overlaps[place].tolist() for place, score in enumerate(scores)}
    taken, right = set(), []
    for score in sorted(rows, reverse=True):
        free = {a: fit for a, fit in enumerate(rows[score]) if a not in taken}
        best = max(free, key=free.__getitem__, default=None)
        right.append(best is not None and free[best] >= threshold)
        if right[-1]:
            taken.add(best)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    total = sum(max(precision[n:]) for n, hit in enumerate(right) if hit)
    return float(total / overlaps.shape[1])


def eleven_points(scores, overlaps, threshold):
    free, right = overlaps.clone(), []
    for row in scores.argsort(descending=True).tolist():
        best = int(free[row].argmax())
        right.append(bool(free[row, best] >= threshold))
        if right[-1]:
            free[:, best] = -1
    hits = np.cumsum(right)
    recall, precision = hits / overlaps.shape[1], hits / np.arange(1, len(right) + 1)
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 11)]))


def hours_to_hundredths(videos, batch, epochs, s):
    return round(math.ceil(videos / batch) * epochs * s / 3600, 2)


# 06


def merged(segments, scores, sigma, voting, least, change=""):
    left, rows = scores.clone(), []
    while len(left) and left.max() >= least:
        pick = int(left.argmax())
        fits = tiou(segments[pick], segments)
        weights = scores * (fits >= voting)
        start, end = (weights[:, None] * segments).sum(dim=0) / weights.sum()
        rows.append([pick, float(start), float(end), float(left[pick])])
        if change == "from the vote":
            fits = tiou(torch.stack([start, end]), segments)
        lowered = left * torch.exp(-(fits**2) / sigma)
        left = torch.where(fits < 1, lowered, left) if change == "spares copies" else lowered
        for done in rows if change != "picks again" else []:
            left[done[0]] = -1
        if change == "picks again":
            left[pick] = left[pick] * 0.5
            if len(rows) == len(scores):
                break
    return torch.tensor(rows, dtype=scores.dtype).view(-1, 4)


def merged_with(change):
    return lambda *given: merged(*given, change=change)


def tenths_of_a_cell(cell, first, stride, offset, fps):
    return (first + offset + round(cell, 1) * stride) / fps


def lowers_only_lower_ones(scores, overlaps, labels, label, sigma):
    own = (labels == label) & (scores < scores.max())
    return torch.where(own, scores * torch.exp(-(overlaps**2) / sigma), scores)


# 07


def evaluated(text):
    parts = [eval(part) for part in text.split(":")]  # 08 is no number to Python
    total = 0.0
    for part in parts:
        total = 60 * total + part
    return total if all(part < 60 for part in parts[1:]) else float("nan")


def to_tenths(text):
    total = 0.0
    parts = [float(part) for part in text.split(":")]
    for part in parts:
        total = 60 * total + part
    return round(total, 1) if all(part < 60 for part in parts[1:]) else float("nan")


def in_a_list(text):
    total = 0.0
    parts = [float(part) for part in text.split(":")]
    for part in parts:
        total = 60 * total + part
    return [total if all(part < 60 for part in parts[1:]) else math.nan]


def cheapest_alarm(scores, right, actions, alarm, miss):
    """Counts the false alarms alone."""
    costs = {
        score: sum(not good for s, good in zip(scores, right, strict=True) if s >= score) * alarm
        for score in scores
    }
    return min(costs, key=costs.__getitem__)


WRONG = {
    "tiou": [
        (whole_hundredths, "seconds have fractions|over the time covered together"),
        (one_inside_the_other, "the union is the longer segment alone"),
        (lambda a, b: round(exact_tiou(a, b), 3), "is rounded to 3 decimal places"),
        (yields, "return one number"),
        (calls_itself, "raised RecursionError"),
        (switches_gradients_off(exact_tiou), "leaves gradients switched off"),
        (doubles_by_default(exact_tiou), "changes torch's default dtype"),
    ],
    "step_cost": [
        (lambda ratio, replay: max(step(ratio, replay), 0.25), "a replay may cost much"),
        (lambda ratio, replay: step(ratio, max(replay, 0.25)), "if the replay costs nothing"),
        (
            lambda ratio, replay: round(step(ratio, replay), 3),
            "is rounded to 3 decimal places",
        ),
        (lambda ratio, replay: step(round(ratio, 1), replay), "neither number is whole"),
    ],
    "evenly": [(sliding, "another call picks other snippets")],
    "hard_nms": [
        (by_score, "an equal score is no reason to drop one"),
        (last_two, "only a *picked* segment removes"),
        (yields, "not generator"),
    ],
    "matched_actions": [
        (good_enough, "choose by the highest tIoU|fits better|best fit|its own best"),
        (to_hundredths, "the actions themselves"),
    ],
    "roi_weights": [
        (lengthened_again, "already lengthened"),
        (places_of_the_segment, "has 2 places"),
    ],
    "balanced_bce": [(clamped_in_place, "in place")],
    "conv_bytes": [(in_32_bits, "more than a 32-bit whole number holds")],
    "push": [(push_and_a_rest, "whatever the features are")],
    "three_passes": [
        (
            replay_with(lambda picked, weights: (picked.sort().values, weights)),
            "at its own place in `picked`",
        ),
        (
            replay_with(lambda picked, weights: (picked, weights / weights.mean())),
            "not divided by their mean",
        ),
        (
            replay_with(lambda picked, weights: (picked, weights / weights.sum())),
            "not divided by their sum",
        ),
        (replay_with(whole_chunks_only), "the picked ones again in pass 3"),
        (switches_gradients_off(replay), "leaves gradients switched off"),
    ],
    "sampling_error": [
        (
            lambda rows, n: len(rows) ** 2 * (1 - n / (len(rows) - 1)) / n * rows.var(0).sum(),
            "is the factor (1 - f) there",
        ),
    ],
    "group_weights": [
        (
            lambda inside, a, b: torch.where(inside, inside.sum() / a, inside.sum() / b),
            "one outside should weigh",
        ),
    ],
    "stratified": [
        (strata_with(golden), "each stratum should draw for itself"),
        (strata_with(lambda draw: draw.square()), "the same chance"),
        (strata_with(lambda draw: draw.roll(1, 0)), "should not depend on the other videos"),
        (strata_with(lambda draw: (10 * draw).round() / 10), "should lie in its stratum"),
    ],
    "epochs_until": [
        (lambda ratio, share: round(math.log(1 - share) / math.log(1 - ratio) + 0.5), "half"),
    ],
    "scale_chances": [(of_shortest, "7 cells end one octave")],
    "with_positives": [
        (every_positive, "should come as often"),
        (clears_the_actions, "in place"),
    ],
    "fuse": [(distinct_classes, "two classes of the same score|have the shape")],
    "average_precision": [
        (by_dict, "two detections of one score are two"),
        (eleven_points, "the first of two actions|a duplicate"),
    ],
    "hours_left": [(hours_to_hundredths, "is rounded to 2 decimal places")],
    "merge_windows": [
        (merged_with("spares copies"), "an exact copy of a pick"),
        (merged_with("from the vote"), "a score is wrong|other ones are picked|scores weigh"),
        (merged_with("picks again"), "have the shape|the best first"),
    ],
    "seconds_of": [(tenths_of_a_cell, "`stride` frames per cell")],
    "lower": [(lowers_only_lower_ones, "as an exact copy has")],
    "seconds": [
        (evaluated, "fails (SyntaxError"),
        (to_tenths, "zeros may stand in front"),
    ],
    "best_threshold": [(cheapest_alarm, "miss|costs")],
}

RIGHT = {
    "conv_bytes": [
        lambda m, o, shape, number=4: np.float32(number * math.prod(shape) * 2 * (m + o))
    ],
    "tiou": [
        lambda a, b: [exact_tiou(a, b)],
        lambda a, b: (torch.tensor(exact_tiou(a, b), requires_grad=True),),
    ],
    "step_cost": [lambda ratio, replay: 1 + replay * (ratio - 1) / (1 + replay)],
    "balanced_bce": [by_counts, rounded_targets],
    "three_passes": [replay, manual_grad_mode],
    "stratified": [lambda context, n: strata(context, n).to(torch.uint8)],
    "merge_windows": [merged],
    "seconds": [in_a_list],
}
