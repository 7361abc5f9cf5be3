"""More wrong answers that look right, and right answers of many forms, by exercise.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers. The kinds of mistakes: whole numbers only, other rounding, the
other axis of the batch, only the best or the last of several, global random numbers, a detached
gradient, `chunk` for `split`, normalised inputs, exact copies, changed arguments, other dtypes.
"""

import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch

from etadlite.base.segments import tiou
from etadlite.sampling.proposals import random_proposals

# 00


def steps_of_time(a, b):
    own, other = set(range(int(a[0]), int(a[1]))), set(range(int(b[0]), int(b[1])))
    return len(own & other) / len(own | other)


def whole_ends(a, b):
    a, b = [round(x) for x in a], [round(x) for x in b]
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def spanned(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (max(a[1], b[1]) - min(a[0], b[0]))


def to_two_places(a, b):
    return round(spanned(a, b), 2)


def of_the_longer(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / max(a[1] - a[0], b[1] - b[0])


def of_the_shorter(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / min(a[1] - a[0], b[1] - b[0])


def dice(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return 2 * shared / (a[1] - a[0] + b[1] - b[0])


def closed_ends(a, b):
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]) + 1)
    return shared / (a[1] - a[0] + b[1] - b[0] + 2 - shared)


def by_cases(a, b):
    if a[1] <= b[0] or b[1] <= a[0]:
        return 0
    return (min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0]))


def with_tensors(a, b):
    return tiou(torch.tensor(a).float(), torch.tensor(b).float())


def exactly(a, b):
    a, b = [Fraction(str(x)) for x in a], [Fraction(str(x)) for x in b]
    shared = max(Fraction(0), min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def sorted_ends(a, b):
    first, second, third, last = sorted((*a, *b))
    touch = max(a[0], b[0]) < min(a[1], b[1])
    return (third - second) / (last - first) if touch else 0.0


def rows(picked, context):
    return picked.expand(len(context.draws), len(picked))


def shifted_by_chance(context, count):
    shift = context.draws.rand(1)
    return ((torch.arange(count) + shift) * context.snippets / count).long()


def one_global_shift(context, count):
    picked = ((torch.arange(count) + random.random()) * context.snippets / count).long()
    return rows(picked, context)


def one_shift_for_all(context, count):
    picked = (torch.arange(count) + context.draws.rand(1)[0]) * context.snippets / count
    return rows(picked.long(), context)


def whole_steps(context, count):
    return rows(torch.arange(count) * (context.snippets // count), context)


def whole_steps_up(context, count):
    step = math.ceil(context.snippets / count)
    return rows((torch.arange(count) * step).clamp(max=context.snippets - 1), context)


def other_order(context, count):
    middles = (torch.arange(count) + 0.5) * context.snippets / count
    return rows(middles.long().flip(0), context)


def other_axis(context, count):
    middles = ((torch.arange(count) + 0.5) * context.snippets / count).long()
    return middles[:, None].expand(count, len(context.draws))


def one_too_far(context, count):
    return rows(((torch.arange(count) + 1) * context.snippets / count).long(), context)


def fractions_of_a_cell(context, count):
    return rows((torch.arange(count) + 0.5) * context.snippets / count, context)


def from_both_ends(context, count):
    return rows(torch.linspace(0, context.snippets - 1, count).round().long(), context)


def looped_evenly(context, count):
    row = [int((i + 0.5) * context.snippets / count) for i in range(count)]
    return [row for _ in range(len(context.draws))]


def counted_evenly(context, count):
    row = tuple((2 * i + 1) * context.snippets // (2 * count) for i in range(count))
    return tuple(row for _ in context.draws._generators)


def floors(context, count):
    picked = np.arange(count) * context.snippets // count
    return np.tile(picked, (len(context.draws), 1))


def small_integers(context, count):
    return torch.as_tensor(floors(context, count)).to(torch.int32)


# 01


def queue(segments, scores, threshold, take=max):
    left, picked = list(range(len(scores))), []
    while left:
        best = take(left, key=lambda index: float(scores[index]))
        picked.append(best)
        left = [i for i in left if i != best and tiou(segments[i], segments[best]) < threshold]
    return picked


def masked(segments, scores, threshold):
    scores, picked = scores.clone(), []
    while scores.isfinite().any():
        best = int(scores.argmax())
        picked.append(best)
        scores[tiou(segments, segments[best]) >= threshold] = -torch.inf
        scores[best] = -torch.inf
    return torch.tensor(picked)


def masked_in_place(segments, scores, threshold):
    picked = []
    while scores.isfinite().any():
        best = int(scores.argmax())
        picked.append(best)
        scores[tiou(segments, segments[best]) >= threshold] = -torch.inf
    return picked


def keeps_copies(segments, scores, threshold):
    order, kept = scores.argsort(descending=True).tolist(), []
    for index in order:
        fits = [float(tiou(segments[index], segments[other])) for other in kept]
        if all(fit < threshold or fit == 1 for fit in fits):
            kept.append(index)
    return kept


def ranks(segments, scores, threshold):
    order = scores.argsort(descending=True).tolist()
    return [order.index(index) for index in queue(segments, scores, threshold)]


def ascending(segments, scores, threshold):
    return sorted(queue(segments, scores, threshold))


def as_mask(segments, scores, threshold):
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[queue(segments, scores, threshold)] = True
    return mask


def picked_segments(segments, scores, threshold):
    return segments[queue(segments, scores, threshold)]


def one_round(segments, scores, threshold):
    best = int(scores.argmax())
    rest = [i for i in scores.argsort(descending=True).tolist() if i != best]
    return [best, *(i for i in rest if tiou(segments[i], segments[best]) < threshold)]


def against_the_last(segments, scores, threshold):
    kept = []
    for index in scores.argsort(descending=True).tolist():
        if not kept or tiou(segments[index], segments[kept[-1]]) < threshold:
            kept.append(index)
    return kept


# 02


def conv_other(mid=2, out=2, axes=slice(None)):
    return lambda m, o, shape, number=4: number * math.prod(shape[axes]) * (mid * m + out * o)


def per_frame_summed(mid, out, shape, number=4):
    return number * sum(shape) * 2 * (mid + out)


def squared_frame(mid, out, shape, number=4):
    return number * shape[0] * shape[1] ** 2 * 2 * (mid + out)


def cubed(mid, out, shape, number=4):
    return number * max(shape) ** 3 * 2 * (mid + out)


def as_numpy(mid, out, shape, number=4):
    return np.prod(shape) * number * 2 * (mid + out)


def added_up(mid, out, shape, number=4):
    kept = 0
    for planes in (mid, mid, out, out):
        one = number * planes
        for size in shape:
            one *= size
        kept += one
    return float(kept)


def over_snippets(features, gradient):
    return (features * gradient).sum(dim=1).mean()


def over_channels(features, gradient):
    return (features * gradient).sum(dim=0).mean()


def first_snippet(features, gradient):
    return (features[0] * gradient[0]).sum()


def last_snippet(features, gradient):
    return (features[-1] * gradient[-1]).sum()


def runs_itself(features, gradient):
    features.backward(gradient)
    return (features * 0).sum().detach().requires_grad_()


def by_item(features, gradient):
    return (features * gradient).sum().item()


def normalised(features, gradient):
    return (features * gradient / gradient.norm()).sum()


def squares(features, gradient):
    return (features**2 * gradient / (2 * features)).sum()


def absolute(features, gradient):
    return (features * gradient.abs()).sum()


def each_its_square(features, gradient):
    return (features * gradient * features.detach().sign()).sum()


def transposed_products(features, gradient):
    return (features @ gradient.T).sum()


def rounded_gradient(features, gradient):
    return (features * gradient.round()).sum()


def in_single(features, gradient):
    return (features.float() * gradient.float()).sum()


def to_zero(features, gradient):
    total = (features * gradient).sum()
    gradient.zero_()
    return total


def as_numpy_array(features, gradient):
    return (features.detach().numpy() * gradient.numpy()).sum()


def a_row_each(features, gradient):
    return sum((row * push).sum() for row, push in zip(features, gradient, strict=True))


def one_long_dot(features, gradient):
    return features.flatten() @ gradient.flatten()


def einsum(features, gradient):
    return torch.einsum("nc,nc->", features, gradient)


def trace(features, gradient):
    return (features @ gradient.T).trace()


def of_one_element(features, gradient):
    return (features * gradient).sum().reshape(1)


def a_plus_constant(features, gradient):
    return (features * gradient).sum() + 17 * gradient.sum()


# 03


def error(rows, n, *, variance=None):
    size = len(rows)
    spread = rows.var(dim=0).sum() if variance is None else variance(rows)
    return size**2 * (1 - n / size) / n * spread


def zero_mean(rows, n):
    return error(rows, n, variance=lambda rows: rows.square().sum() / (len(rows) - 1))


def other_axis_error(rows, n):
    return error(rows, n, variance=lambda rows: rows.var(dim=1).sum())


def first_column(rows, n):
    return error(rows, n, variance=lambda rows: rows[:, 0].var())


def mean_of_columns(rows, n):
    return error(rows, n, variance=lambda rows: rows.var(dim=0).mean())


def root(rows, n):
    return error(rows, n).sqrt()


def relative(rows, n):
    return error(rows, n) / rows.sum(dim=0).square().sum()


def whole_share(rows, n):
    return len(rows) ** 2 * (1 - n // len(rows)) / n * rows.var(dim=0).sum()


def n_minus_one(rows, n):
    return error(rows, max(n - 1, 1))


def standardised(rows, n):
    return error((rows - rows.mean(0)) / rows.std(0), n)


def centres_in_place(rows, n):
    rows -= rows.mean(dim=0)
    return error(rows, n)


def column_by_column(rows, n):
    return sum(float(error(rows[:, [column]], n)) for column in range(rows.shape[1]))


def by_numpy(rows, n):
    rows = rows.double().numpy()
    return error_of_array(rows, n)


def error_of_array(rows, n):
    size = len(rows)
    return np.float32(size * (size - n) / n * rows.var(axis=0, ddof=1).sum())


def by_covariance(rows, n):
    covariance = torch.cov(rows.T.reshape(rows.shape[1], -1).double())
    return error(rows, n, variance=lambda rows: torch.atleast_2d(covariance).trace())


def weights_whole(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() // n_inside, (~inside).sum() // n_outside)


def weights_up(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside).ceil()


def weights_rounded(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside).round()


def weights_of_one_group(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_inside, 1.0)


def weights_swapped(inside, n_inside, n_outside):
    return torch.where(inside, (~inside).sum() / n_outside, inside.sum() / n_inside)


def weights_normalised(inside, n_inside, n_outside):
    weights = torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside)
    return weights / weights.mean()


def weights_at_the_end(inside, n_inside, n_outside):
    size = int(inside.sum())
    own, other = [size / n_inside] * size, [(len(inside) - size) / n_outside]
    return own + other * (len(inside) - size)


def weights_swap_picks(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_outside, (~inside).sum() / n_inside)


def weights_in_place(inside, n_inside, n_outside):
    found = looped_weights(inside, n_inside, n_outside)
    inside.logical_not_()
    return found


def looped_weights(inside, n_inside, n_outside):
    marks = inside.tolist()
    size = sum(marks)
    chances = [n_inside / size if m else n_outside / (len(marks) - size) for m in marks]
    return [1 / chance for chance in chances]


def multiplied_weights(inside, n_inside, n_outside):
    mask = inside.double()
    return mask * mask.sum() / n_inside + (1 - mask) * (1 - mask).sum() / n_outside


def numpy_weights(inside, n_inside, n_outside):
    mask = inside.numpy()
    return np.where(mask, mask.sum() / n_inside, (~mask).sum() / n_outside).astype(np.float32)


def borders_of(context, n):
    return torch.arange(n + 1) * context.snippets // n


def global_strata(context, n):
    borders = borders_of(context, n)
    return borders[:-1] + (torch.rand(len(context.draws), n) * borders.diff()).long()


def global_numpy_strata(context, n):
    borders = borders_of(context, n)
    draw = torch.from_numpy(np.random.rand(len(context.draws), n))  # noqa: NPY002
    return borders[:-1] + (draw * borders.diff()).long()


def own_generator(context, n):
    borders = borders_of(context, n)
    draw = torch.from_numpy(np.random.default_rng().random((len(context.draws), n)))
    return borders[:-1] + (draw * borders.diff()).long()


def fixed_generator(context, n):
    borders = borders_of(context, n)
    draw = torch.from_numpy(np.random.default_rng(0).random((len(context.draws), n)))
    return borders[:-1] + (draw * borders.diff()).long()


def first_video_for_all(context, n):
    borders = borders_of(context, n)
    draw = context.draws.rand(n)[:1].expand(len(context.draws), n)
    return borders[:-1] + (draw * borders.diff()).long()


def turned_batch(context, n):
    borders = borders_of(context, n)
    draw = context.draws.rand(n).flip(0)
    return borders[:-1] + (draw * borders.diff()).long()


def mirrored(context, n):
    borders, draw = borders_of(context, n), context.draws.rand(n)
    draw[:, 1::2] = 1 - draw[:, : n // 2 * 2 : 2] - 1e-7
    return borders[:-1] + (draw.clamp(min=0) * borders.diff()).long()


def pairs_alike(context, n):
    borders, draw = borders_of(context, n), context.draws.rand(n)
    draw[:, 1::2] = draw[:, : n // 2 * 2 : 2]
    return borders[:-1] + (draw * borders.diff()).long()


def never_the_last(context, n):
    borders = borders_of(context, n)
    widths = (borders.diff() - 1).clamp(min=1)
    return borders[:-1] + (context.draws.rand(n) * widths).long()


def prefers_the_middle(context, n):
    borders = borders_of(context, n)
    draw = (context.draws.rand(n) + context.draws.rand(n)) / 2
    return borders[:-1] + (draw * borders.diff()).long()


def rounded_borders(context, n):
    borders = (torch.arange(n + 1) * context.snippets / n).round().long()
    return borders[:-1] + (context.draws.rand(n) * borders.diff()).long()


def equal_widths(context, n):
    width = context.snippets // n
    return torch.arange(n) * width + (context.draws.rand(n) * width).long()


def looped_strata(context, n):
    draw, borders = context.draws.rand(n).tolist(), borders_of(context, n).tolist()
    return [
        [a + int(u * (b - a)) for a, b, u in zip(borders, borders[1:], row, strict=False)]
        for row in draw
    ]


def best_of_each(context, n):
    luck, borders = context.draws.rand(context.snippets), borders_of(context, n).tolist()
    picks = [a + luck[:, a:b].argmax(dim=1) for a, b in pairwise(borders)]
    return torch.stack(picks, dim=1)


def drawn_one_by_one(context, n):
    borders = borders_of(context, n)
    picks = [
        borders[i] + (context.draws.rand(1)[:, 0] * (borders[i + 1] - borders[i])).long()
        for i in range(n)
    ]
    return torch.stack(picks, dim=1).to(torch.int32).numpy()


# 04


def by_loop(ratio, share):
    left, epochs = 1.0, 0
    while 1 - left < share:
        left, epochs = left * (1 - ratio), epochs + 1
    return epochs


def by_logarithm(ratio, share):
    return math.ceil(math.log(1 - share) / math.log(1 - ratio))


def by_numpy_logarithm(ratio, share):
    return np.ceil(np.log1p(-share) / np.log1p(-ratio))


def tried_out(ratio, share):
    return next(e for e in range(1, 10**6) if 1 - (1 - ratio) ** e >= share)


def octaves_of(durations):
    return [math.frexp(float(d))[1] for d in durations]


def chances_by_loop(durations):
    own = octaves_of(durations)
    return [1 / own.count(octave) / len(set(own)) for octave in own]


def chances_by_numpy(durations):
    octave = np.floor(np.log2(durations.numpy())).astype(int)
    _, where, size = np.unique(octave, return_inverse=True, return_counts=True)
    return (1 / size[where] / len(size)).astype(np.float32)


def chances_by_matrix(durations):
    octave = durations.double().log2().floor()
    size = (octave[:, None] == octave).sum(dim=1)
    return (1 / size) / (1 / size).sum()


def octaves_by_ln(durations):
    octave = (durations.log() / math.log(2)).floor().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def octaves_up(durations):
    octave = durations.log2().ceil().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def decades(durations):
    octave = durations.log10().floor().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def softmax_chances(durations):
    return (-octave_numbers(durations)).softmax(dim=0)


def octave_numbers(durations):
    return (durations + 0.5).log2().floor()


def equal_to_sorted(durations):
    return chances_by_matrix(durations.sort().values)


def doubles_in_place(durations):
    found = chances_by_matrix(durations)
    durations.mul_(2)
    return found


def logs_in_place(durations):
    octave = durations.log2_().floor()
    size = (octave[:, None] == octave).sum(dim=1)
    return (1 / size) / (1 / size).sum()


def lucky(context, count, luck, best=None):
    best = best or (lambda actions: tiou(actions[:, None], context.proposals).argmax(dim=1))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[best(actions)] = 2
    return context.proposals[luck.topk(count, dim=1).indices]


def global_luck(context, count):
    return lucky(context, count, torch.rand(len(context.draws), len(context.proposals)))


def global_permutation(context, count):
    luck = torch.stack([torch.randperm(len(context.proposals)).double() for _ in context.actions])
    return lucky(context, count, luck / len(context.proposals))


def one_luck_for_all(context, count):
    luck = context.draws.rand(len(context.proposals))[:1].repeat(len(context.draws), 1)
    return lucky(context, count, luck)


def last_video_luck(context, count):
    luck = context.draws.rand(len(context.proposals))[-1:].repeat(len(context.draws), 1)
    return lucky(context, count, luck)


def best_action_only(context, count):
    def best(actions):
        return int(tiou(actions[:, None], context.proposals).amax(dim=0).argmax())

    return lucky(context, count, context.draws.rand(len(context.proposals)), best)


def last_action_only(context, count):
    def best(actions):
        return int(tiou(actions[-1], context.proposals).argmax())

    return lucky(context, count, context.draws.rand(len(context.proposals)), best)


def of_the_first_video(context, count):
    first = context.actions[0]
    best = tiou(first[:, None], context.proposals).argmax(dim=1) if len(first) else []
    luck = context.draws.rand(len(context.proposals))
    luck[:, best] = 2
    return context.proposals[luck.topk(count, dim=1).indices]


def put_behind(context, count):
    picked = random_proposals(context, count).clone()
    for own, actions in zip(picked, context.actions, strict=True):
        if len(actions):
            best = tiou(actions[:, None], context.proposals).argmax(dim=1).unique()
            own[-len(best) :] = context.proposals[best]
    return picked


def nearest_centre(context, count):
    def best(actions):
        centres = (actions.mean(dim=1)[:, None] - context.proposals.mean(dim=1)).abs()
        return centres.argmin(dim=1)

    return lucky(context, count, context.draws.rand(len(context.proposals)), best)


def only_short_ones(context, count):
    luck = context.draws.rand(len(context.proposals))
    luck[:, 60:] *= 0.5
    return lucky(context, count, luck)


def sorts_the_actions(context, count):
    for actions in context.actions:
        actions.add_(0.001)
    return lucky(context, count, context.draws.rand(len(context.proposals)))


def indices_only(context, count):
    return context.draws.rand(len(context.proposals)).topk(count).indices


def one_by_one(context, count):
    found = []
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        must = {int(tiou(action, context.proposals).argmax()) for action in actions}
        rest = [i for i in own.argsort().tolist() if i not in must]
        chosen = [*must, *rest][:count]
        found.append([context.proposals[i].tolist() for i in chosen])
    return found


def all_equally_good(context, count):
    def best(actions):
        return tiou(actions[:, None], context.proposals).argmax(dim=1)

    luck = context.draws.rand(len(context.proposals)).double()
    return tuple(lucky(context, count, luck, best).numpy())


# 05


def rounded_hours(videos, batch, epochs, s):
    return round(-(-videos // batch) * epochs * s / 3600, 1)


def nearest_steps(videos, batch, epochs, s):
    return max(round(videos / batch), 1) * epochs * s / 3600


def one_step_more(videos, batch, epochs, s):
    return (videos // batch + 1) * epochs * s / 3600


def whole_seconds(videos, batch, epochs, s):
    return -(-videos // batch) * epochs * int(s) / 3600


def whole_hours(videos, batch, epochs, s):
    return -(-videos // batch) * epochs * s // 3600


def at_least_one(videos, batch, epochs, s):
    return max(videos // batch, 1) * epochs * s / 3600


def in_minutes(videos, batch, epochs, s):
    return -(-videos // batch) * epochs * s / 60


def step_by_step(videos, batch, epochs, s):
    steps = len(range(0, videos, batch))
    return np.float32(sum([steps] * epochs) * s / 3600)


def ceiling_hours(videos, batch, epochs, s):
    return torch.tensor(math.ceil(videos / batch) * epochs * s / 3600)


def sorted_fuse(scores, classes, k):
    return np.outer(scores.numpy(), np.sort(classes.numpy())[::-1][:k])


def looped_fuse(scores, classes, k):
    best = sorted(classes.tolist(), reverse=True)[:k]
    return [[score * one for one in best] for score in scores.tolist()]


def fuse_with(weigh):
    return lambda scores, classes, k: scores[:, None] * weigh(classes.topk(k).values)


def fuse_best_only(scores, classes, k):
    return (scores * classes.max())[:, None].expand(-1, k)


def fuse_swapped(scores, classes, k):
    return (classes.topk(k).values[:, None] * scores).reshape(len(scores), k)


def fuse_sorted_segments(scores, classes, k):
    return scores.sort(descending=True).values[:, None] * classes.topk(k).values


def fuse_normalised(scores, classes, k):
    return scores[:, None] * (classes / classes.sum()).topk(k).values


def fuse_one_class(scores, classes, k):
    return scores[:, None] * classes[classes.argsort()[-k:]]


def fuse_in_place(scores, classes, k):
    best = classes.topk(k).values
    classes.zero_()
    return scores[:, None] * best


def fuse_geometric(scores, classes, k):
    return (scores[:, None] * classes.topk(k).values).sqrt()


# 06


def looped_lower(scores, overlaps, labels, label, sigma):
    rows = zip(scores.tolist(), overlaps.tolist(), labels.tolist(), strict=True)
    return [s * math.exp(-o * o / sigma) if own == label else s for s, o, own in rows]


def masked_lower(scores, overlaps, labels, label, sigma):
    lowered = scores.clone()
    own = labels == label
    lowered[own] *= torch.exp(-overlaps[own].pow(2) / sigma)
    return lowered


def numpy_lower(scores, overlaps, labels, label, sigma):
    weight = np.exp(-(overlaps.numpy() ** 2) / sigma)
    return np.where(labels.numpy() == label, scores.numpy() * weight, scores.numpy())


def spares_copies(scores, overlaps, labels, label, sigma):
    own = (labels == label) & (overlaps < 1)
    return torch.where(own, scores * torch.exp(-(overlaps**2) / sigma), scores)


def half_sigma(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, scores * torch.exp(-(overlaps**2) / 0.5), scores)


def sigma_squared(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, scores * torch.exp(-(overlaps**2) / sigma**2), scores)


def other_classes(scores, overlaps, labels, label, sigma):
    return torch.where(labels != label, scores * torch.exp(-(overlaps**2) / sigma), scores)


def one_minus(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, scores * (1 - overlaps), scores)


def only_the_next(scores, overlaps, labels, label, sigma):
    lowered = scores.clone()
    own = ((labels == label) & (overlaps > 0)).nonzero().flatten()
    lowered[own[-1:]] *= torch.exp(-(overlaps[own[-1:]] ** 2) / sigma)
    return lowered


def without_scores(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, torch.exp(-(overlaps**2) / sigma), 1.0)


def below_a_tenth(scores, overlaps, labels, label, sigma):
    own = (labels == label) & (overlaps > 0.3)
    return torch.where(own, scores * torch.exp(-(overlaps**2) / sigma), scores)


# 07


def two_parts(text):
    minutes, _, rest = text.rpartition(":")
    if float(rest) >= 60 and minutes:
        return float("nan")
    return 60 * (float(minutes) if minutes else 0) + float(rest)


def whole_parts(text):
    parts = [int(float(part)) for part in text.split(":")]
    if any(part >= 60 for part in parts[1:]):
        return float("nan")
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def by_the_last_two(text):
    parts = [float(part) for part in text.split(":")]
    if any(part >= 60 for part in parts[1:]):
        return float("nan")
    return sum(part * 60**power for power, part in enumerate(reversed(parts[-2:])))


def rounded_up_to_sixty(text):
    parts = [float(part) for part in text.split(":")]
    if any(round(part) >= 60 for part in parts[1:]):
        return float("nan")
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def zero_for_unclear(text):
    found = my_clock(text)
    return 0.0 if math.isnan(found) else found


def my_clock(text):
    *front, last = text.split(":")
    parts = [*map(float, front), float(last)]
    if any(part >= 60 for part in parts[1:]):
        return math.nan
    return sum(part * scale for part, scale in zip(parts[::-1], (1, 60, 3600), strict=False))


def clock_of_numpy(text):
    return np.float64(my_clock(text))


def regular(text):
    import re

    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    if ":" in text and (seconds >= 60 or (found[1] and minutes >= 60)):
        return np.nan
    return 3600 * hours + 60 * minutes + seconds


def walk_down(scores, right, actions, alarm, miss):
    found = sorted(zip(scores, right, strict=True), reverse=True)
    best, threshold, cost = actions * miss, math.inf, actions * miss
    for place, (score, good) in enumerate(found):
        cost += -miss if good else alarm
        last = place + 1 == len(found) or found[place + 1][0] != score
        if last and cost < best - 1e-12:
            best, threshold = cost, score
    return threshold


def table_of_costs(scores, right, actions, alarm, miss):
    kept = np.array(scores) >= np.array([*scores, np.inf])[:, None]
    good = kept & np.array(right)
    cost = alarm * (kept & ~np.array(right)).sum(1) + miss * (actions - good.sum(1))
    return torch.tensor([*scores, math.inf])[int(cost.argmin())]


def equal_scores_apart(scores, right, actions, alarm, miss):
    found = sorted(zip(scores, right, strict=True), key=lambda pair: -pair[0])
    best, threshold, cost = actions * miss, math.inf, actions * miss
    for score, good in found:
        cost += -miss if good else alarm
        if cost < best:
            best, threshold = cost, score
    return threshold


def stops_at_the_first_rise(scores, right, actions, alarm, miss):
    found = sorted(zip(scores, right, strict=True), reverse=True)
    threshold = math.inf
    for score, good in found:
        if not good:
            break
        threshold = score
    return threshold


def the_cost_itself(scores, right, actions, alarm, miss):
    best = walk_down(scores, right, actions, alarm, miss)
    stay = [good for score, good in zip(scores, right, strict=True) if score >= best]
    return alarm * (len(stay) - sum(stay)) + miss * (actions - sum(stay))


def just_below(scores, right, actions, alarm, miss):
    return walk_down(scores, right, actions, alarm, miss) - 0.01


def forgets_actions(scores, right, actions, alarm, miss):
    return walk_down(scores, right, sum(right), alarm, miss) if alarm < miss else max(scores)


def sorts_the_lists(scores, right, actions, alarm, miss):
    found = walk_down(scores, right, actions, alarm, miss)
    scores.sort()
    return found


def best_f1(scores, right, actions, alarm, miss):
    def f1(threshold):
        stay = [good for score, good in zip(scores, right, strict=True) if score >= threshold]
        return 2 * sum(stay) / (len(stay) + actions)

    return max(scores, key=f1)


GLOBAL, PLACE = "draws from a global generator", "in place"

WRONG = {
    "tiou": [
        (steps_of_time, "seconds have fractions"),
        (whole_ends, "seconds have fractions"),
        (to_two_places, "is rounded to 2 decimal places"),
        (of_the_longer, "a share of one segment"),
        (of_the_shorter, "a share of one segment"),
        (dice, "a share of one segment"),
        (closed_ends, "they share 5 s of the 15 s"),
        (lambda a, b: [spanned(a, b)] * 2, "return one number"),
        (lambda a, b: str(spanned(a, b)), "return one number"),
        (
            lambda a, b: (
                abs(min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0]))
            ),
            "is yours negative",
        ),
        (lambda a, b: spanned(sorted((a, b))[0], sorted((a, b))[0]), "they share 5 s"),
        (lambda a, b: round(by_cases(a, b) * 3) / 3, "2 s are shared"),
    ],
    "step_cost": [
        (lambda ratio, replay: (1 + round(ratio) * replay) / (1 + replay), "replay 0.3 of them"),
        (
            lambda ratio, replay: (1 + ratio * int(replay)) / (1 + int(replay)),
            "neither number is whole",
        ),
        (lambda ratio, replay: round((1 + ratio * replay) / (1 + replay), 2), "is rounded to 2"),
        (lambda ratio, replay: (1 + ratio * replay) / 4, "does the second argument reach"),
        (lambda ratio, replay: ratio * (1 + replay) / (1 + replay), "encoded once"),
        (lambda ratio, replay: (1 - ratio + ratio * replay) / replay, "encoded once"),
        (lambda ratio, replay: (1 + replay) / (1 + ratio * replay), "encoded once"),
        (lambda ratio, replay: (1 + ratio * (replay + 1)) / (2 + replay), "encoded once"),
    ],
    "evenly": [
        (shifted_by_chance, "the same picks|another call picks"),
        (one_global_shift, GLOBAL),
        (one_shift_for_all, "another call picks other snippets"),
        (whole_steps, "should reach from the first"),
        (whole_steps_up, "should be larger than the one before"),
        (other_order, "should be larger than the one before"),
        (other_axis, "have the shape"),
        (one_too_far, "should lie in 0.."),
        (fractions_of_a_cell, "whole numbers"),
        (from_both_ends, "no gap should exceed"),
        (lambda context, count: looped_evenly(context, count)[0], "have the shape"),
        (
            lambda context, count: (
                context.draws.rand(context.snippets).topk(count).indices.sort().values
            ),
            "the same picks",
        ),
    ],
    "hard_nms": [
        (masked_in_place, PLACE),
        (keeps_copies, "of two equal segments one stays"),
        (ranks, "the best goes first"),
        (ascending, "the best goes first"),
        (as_mask, "whole numbers"),
        (picked_segments, "whole numbers"),
        (one_round, "only a *picked* segment removes"),
        (against_the_last, "only a *picked* segment removes"),
        (lambda a, b, c: queue(a, b, c, min), "all stay, best first"),
        (lambda a, b, c: queue(a, b, c)[:1], "so all stay"),
        (lambda a, b, c: queue(a, b, 0.5), "no tIoU reaches 0.9|so it stays"),
        (lambda a, b, c: [float(i) for i in queue(a, b, c)], "whole numbers"),
        (lambda a, b, c: set(queue(a, b, c)), "not set"),
    ],
    "conv_bytes": [
        (per_frame_summed, "is kept, and again after the ReLU"),
        (squared_frame, "F · H · W positions"),
        (cubed, "F · H · W positions"),
        (conv_other(mid=1), "the space convolution's output is kept"),
        (conv_other(mid=2, out=3), "the time convolution's output is kept"),
        (conv_other(axes=slice(0, 2)), "F · H · W positions"),
        (lambda m, o, shape, number=4: 4 * math.prod(shape) * 2 * (m + o), "the space convolution"),
        (
            lambda m, o, shape, number=4: (
                math.prod(shape) * 2 * (m + o) * max(number, 1) // (2 if number > 2 else 1)
            ),
            "in double precision",
        ),
        (
            lambda m, o, shape, number=4: (m + o) * 2 * number * shape[0] * shape[1] * shape[1],
            "F · H · W",
        ),
        (
            lambda m, o, shape, number=4: number * math.prod(shape) * (2 * m + 2 * o) / 2**20,
            "the space",
        ),
    ],
    "push": [
        (over_snippets, "divided by the number of snippets"),
        (over_channels, "divided by the number of channels"),
        (first_snippet, "whatever the features are|the gradient should be the one given"),
        (last_snippet, "the gradient should be the one given"),
        (runs_itself, "runs backward() already"),
        (by_item, "without item()"),
        (normalised, "the gradient should be the one given"),
        (squares, "multiply each feature by its own number|the gradient should be"),
        (absolute, "the gradient should be the one given"),
        (each_its_square, "the gradient should be the one given"),
        (transposed_products, "the gradient should be the one given"),
        (rounded_gradient, "the gradient should be the one given"),
        (in_single, "multiply each feature by its own number"),
        (to_zero, PLACE),
        (as_numpy_array, "way back to the features"),
        (lambda features, gradient: (features + gradient).sum(), "where does `gradient` come in"),
        (lambda features, gradient: (features * gradient).detach().sum(), "lost its way back"),
        (lambda features, gradient: gradient.sum() * features.sum(), "the gradient should be"),
    ],
    "sampling_error": [
        (zero_mean, "factor (1 - f)|N² (1 - f) / n|do the variances"),
        (other_axis_error, "N² (1 - f) / n|do the variances"),
        (first_column, "do the variances of all columns add up"),
        (mean_of_columns, "do the variances of all columns add up"),
        (root, "N² (1 - f) / n"),
        (relative, "N² (1 - f) / n"),
        (whole_share, "N² (1 - f) / n"),
        (n_minus_one, "is the factor (1 - f) there"),
        (standardised, "N² (1 - f) / n"),
        (centres_in_place, PLACE),
        (lambda rows, n: error(rows, n).round(), "N² (1 - f) / n|do the variances"),
        (
            lambda rows, n: error(rows[:5], n),
            "all columns add up, for any rows|does the number of rows",
        ),
    ],
    "group_weights": [
        (weights_whole, "need not be whole numbers"),
        (weights_up, "need not be whole numbers"),
        (weights_rounded, "need not be whole numbers"),
        (weights_of_one_group, "one outside should weigh"),
        (weights_swapped, "one inside should weigh"),
        (weights_normalised, "one inside should weigh"),
        (weights_at_the_end, "one inside should weigh"),
        (weights_swap_picks, "one inside should weigh"),
        (weights_in_place, PLACE),
        (lambda a, b, c: looped_weights(a, b, c)[:-1], "have the shape"),
        (lambda a, b, c: [looped_weights(a, b, c)], "have the shape"),
    ],
    "stratified": [
        (global_strata, GLOBAL),
        (global_numpy_strata, GLOBAL),
        (own_generator, "the same draws should give the same picks"),
        (fixed_generator, "should not depend on the other videos"),
        (first_video_for_all, "each video should draw for itself"),
        (turned_batch, "should not depend on the other videos"),
        (mirrored, "each stratum should draw for itself"),
        (pairs_alike, "each stratum should draw for itself"),
        (never_the_last, "the same chance"),
        (prefers_the_middle, "the same chance"),
        (rounded_borders, "should lie in its stratum"),
        (equal_widths, "should lie in its stratum"),
        (lambda c, n: best_of_each(c, n).flip(1), "should lie in its stratum"),
        (lambda c, n: best_of_each(c, n).double(), "whole numbers"),
        (lambda c, n: best_of_each(c, n).T, "have the shape"),
    ],
    "epochs_until": [
        (
            lambda ratio, share: round(math.log(1 - share) / math.log(1 - ratio)),
            "half is too little|one epoch draws|after two",
        ),
        (lambda ratio, share: by_loop(ratio, share) + 1, "one epoch draws half"),
        (lambda ratio, share: by_loop(ratio, share) - 1, "one epoch draws half"),
        (lambda ratio, share: max(1, by_loop(ratio, share) - 1), "after two epochs"),
        (
            lambda ratio, share: math.ceil(math.log(share) / math.log(1 - ratio)),
            "after two epochs|one epoch draws|miss",
        ),
        (
            lambda ratio, share: math.ceil(math.log(1 - share) / math.log(ratio)),
            "0.94 to the power|after two|misses",
        ),
        (lambda ratio, share: math.ceil(share / ratio + 0.5), "one epoch draws half"),
        (lambda ratio, share: min(by_loop(ratio, share), 100), "a small ratio takes long"),
    ],
    "scale_chances": [
        (octaves_up, "2 and 3 cells are the same octave"),
        (decades, "share the first octave's half|the chances should be"),
        (softmax_chances, "share the first octave's half|the chances should be"),
        (equal_to_sorted, "the same octave|order of the proposals"),
        (doubles_in_place, PLACE),
        (logs_in_place, PLACE),
        (lambda d: chances_by_matrix(d).round(decimals=1), "add up|share the first"),
        (lambda d: torch.ones(len(d)) / len(d), "share the first octave's half"),
        (lambda d: chances_by_matrix(d)[None], "have the shape"),
    ],
    "with_positives": [
        (global_luck, "draws from a global generator|equally|the same draws"),
        (global_permutation, "draws from a global generator|equally|the same draws"),
        (one_luck_for_all, "should not depend on the other videos"),
        (last_video_luck, "should not depend on the other videos"),
        (best_action_only, "missing from your picks"),
        (last_action_only, "missing from your picks"),
        (of_the_first_video, "missing from your picks"),
        (put_behind, "picked twice"),
        (nearest_centre, "missing from your picks"),
        (only_short_ones, "should come as often"),
        (sorts_the_actions, PLACE),
        (indices_only, "have the shape"),
    ],
    "hours_left": [
        (rounded_hours, "the hours are not rounded"),
        (nearest_steps, "a smaller one"),
        (one_step_more, "a step takes a whole batch"),
        (whole_seconds, "the hours are not rounded"),
        (whole_hours, "fewer videos than a batch"),
        (at_least_one, "a smaller one"),
        (in_minutes, "takes a whole batch"),
        (lambda v, b, e, s: v / b * e * s / 3600, "a smaller one"),
        (lambda v, b, e, s: (v * e // b + 1) * s / 3600, "takes a whole batch"),
    ],
    "fuse": [
        (fuse_best_only, "should score 0.30 and 0.15"),
        (fuse_swapped, "should score|swapped"),
        (fuse_sorted_segments, "should score 0.30 and 0.15"),
        (fuse_normalised, "its score times that of the class"),
        (fuse_one_class, "the opposite order"),
        (fuse_in_place, PLACE),
        (fuse_geometric, "should score 0.30 and 0.15"),
        (fuse_with(lambda best: best / best.sum()), "divides by the sum of the best"),
        (fuse_with(lambda best: best.softmax(0)), "should score 0.30 and 0.15"),
        (fuse_with(lambda best: best.clamp(max=1)), "its score times that of the class"),
        (lambda s, c, k: sorted_fuse(s, c, 2), "have the shape"),
        (lambda s, c, k: sorted_fuse(s, c, k).T, "have the shape"),
        (
            lambda s, c, k: [row[: i + 1] for i, row in enumerate(looped_fuse(s, c, k))],
            "different lengths",
        ),
    ],
    "seconds_of": [
        (
            lambda c, first, stride, o, fps: round((first + o + c * stride) / fps),
            "frame `offset` after|stands for",
        ),
        (lambda c, first, stride, o, fps: (first + o + c * stride) // fps, "stands for"),
        (lambda c, first, stride, o, fps: int(first + o + c * stride) / fps, "nothing is rounded"),
        (
            lambda c, first, stride, o, fps: (first + o + c * stride) / round(fps),
            "nothing is rounded",
        ),
        (lambda c, first, stride, o, fps: (first + o + (c + 0.5) * stride) / fps, "is second 10"),
        (lambda c, first, stride, o, fps: (first + (o + c) * stride) / fps, "stands for"),
        (lambda c, first, stride, o, fps: (first - o + c * stride) / fps, "stands for"),
        (lambda c, first, stride, o, fps: (first + o + c * stride) / 30, "between two cells"),
    ],
    "lower": [
        (spares_copies, "as an exact copy has"),
        (half_sigma, "and sigma 0.25"),
        (sigma_squared, "should become 0.80 exp"),
        (other_classes, "another class should keep"),
        (one_minus, "should become 0.80 exp"),
        (only_the_next, "as an exact copy has|should become"),
        (without_scores, "another class should keep"),
        (below_a_tenth, "should go from"),
        (lambda s, o, la, one, g: looped_lower(s, o, la, one, g)[:2], "have the shape"),
    ],
    "seconds": [
        (two_parts, "raised ValueError|could not convert"),
        (whole_parts, "without a colon is seconds"),
        (by_the_last_two, "the first is hours"),
        (rounded_up_to_sixty, "seconds have fractions"),
        (zero_for_unclear, "no minute has 83 seconds"),
        (lambda text: my_clock(text) if ":" in text else float("nan"), "without a colon"),
        (
            lambda text: my_clock(text) if len(text) < 9 else float("nan"),
            "the first part has no limit|hours",
        ),
        (
            lambda text: round(my_clock(text)) if my_clock(text) > 0 else my_clock(text),
            "without a colon",
        ),
    ],
    "best_threshold": [
        (equal_scores_apart, "equal scores are kept together"),
        (stops_at_the_first_rise, "0.9 would miss an action|one false alarm"),
        (the_cost_itself, "reaches a threshold of 0.9"),
        (just_below, "reaches a threshold of 0.9"),
        (forgets_actions, "the total should be|cost|miss"),
        (sorts_the_lists, PLACE),
        (best_f1, "alarm|miss|costs|keep"),
        (lambda scores, *rest: min(scores), "reaches a threshold|costs"),
        (lambda scores, *rest: math.inf, "reaches a threshold of 0.9"),
    ],
}

RIGHT = {
    "tiou": [by_cases, with_tensors, exactly, sorted_ends],
    "step_cost": [
        lambda ratio, replay: (1 + ratio * replay) / (1 + replay),
        lambda ratio, replay: 1 - (1 - ratio) * replay / (1 + replay),
        lambda ratio, replay: torch.tensor(1 + ratio * replay) / (1 + replay),
        lambda ratio, replay: np.float32((1 + ratio * replay) / (1 + replay)),
        lambda ratio, replay: np.array([(1 + ratio * replay) / (1 + replay)]),
    ],
    "evenly": [looped_evenly, counted_evenly, floors, small_integers],
    "hard_nms": [
        queue,
        masked,
        lambda a, b, c: tuple(queue(a, b, c)),
        lambda a, b, c: np.array(queue(a, b, c)),
        lambda a, b, c: [torch.tensor(i) for i in queue(a, b, c)],
        lambda a, b, c: torch.tensor(queue(a, b, c), dtype=torch.int32),
    ],
    "conv_bytes": [as_numpy, added_up, conv_other()],
    "push": [a_row_each, one_long_dot, einsum, trace, of_one_element, a_plus_constant],
    "sampling_error": [column_by_column, by_numpy, by_covariance],
    "group_weights": [looped_weights, multiplied_weights, numpy_weights],
    "stratified": [looped_strata, best_of_each, drawn_one_by_one],
    "epochs_until": [by_loop, by_logarithm, by_numpy_logarithm, tried_out],
    "scale_chances": [octaves_by_ln, chances_by_loop, chances_by_numpy, chances_by_matrix],
    "with_positives": [one_by_one, all_equally_good],
    "hours_left": [step_by_step, ceiling_hours],
    "fuse": [
        sorted_fuse,
        looped_fuse,
        lambda s, c, k: torch.outer(s, c.sort(descending=True)[0][:k]),
    ],
    "seconds_of": [
        lambda c, first, stride, o, fps: (first + o) / fps + c * stride / fps,
        lambda c, first, stride, o, fps: np.float32((first + o + c * stride) / fps),
        lambda c, first, stride, o, fps: torch.tensor([first + o + c * stride]).double() / fps,
    ],
    "lower": [looped_lower, masked_lower, numpy_lower],
    "seconds": [my_clock, clock_of_numpy, regular],
    "best_threshold": [walk_down, table_of_costs],
}
