"""A fourth set of answers, by exercise.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers. What is new: answers that keep something between calls (a default
value, a global, a buffer, a cache), padded places in a vectorised formula, even spreading that is
uneven, poor fits that are left out, a network's mode that stays changed; Fractions, Decimals and
sparse tensors as answers, and right formulas that nobody expects.
"""

import heapq
import math
import re
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import combinations, groupby

import numpy as np
import torch
import torch.nn.functional as F

from etadlite.base.segments import overlap, tiou
from etadlite.detector.roi import roi_weights as package_weights
from etadlite.sampling.proposals import random_proposals

KEEPS = "keep nothing between calls"

# 00


def shared_time(a, b):
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))


def right_tiou(a, b):
    return shared_time(a, b) / (a[1] - a[0] + b[1] - b[0] - shared_time(a, b))


def hundredths(a, b):  # sets of steps of a hundredth of a second
    own, other = (set(range(round(100 * x[0]), round(100 * x[1]))) for x in (a, b))
    return len(own & other) / max(len(own | other), 1)


def on_a_line(a, b):  # a grid that ends after ten minutes
    at = np.linspace(0, 600, 600_001)
    own, other = ((at >= x[0]) & (at < x[1]) for x in (a, b))
    return (own & other).sum() / max((own | other).sum(), 1)


def safe_by_a_hundredth(a, b):
    return shared_time(a, b) / (a[1] - a[0] + b[1] - b[0] - shared_time(a, b) + 0.01)


def remembered_tiou(a, b, seen={}):  # noqa: B006
    key = (round(a[0]), round(a[1]))
    return seen.setdefault(key, right_tiou(a, b))


def in_decimals(a, b):
    a, b = ([Decimal(str(x)) for x in pair] for pair in (a, b))
    return right_tiou(a, b)


def by_lengths(a, b):
    x = np.sort(np.array([[*a], [*b]], dtype=np.float64).T, axis=1)
    return max(0.0, (x[1, 0] - x[0, 1]) / (x[1, 1] - x[0, 0])).__float__()


def first_then_far(context, count):
    """No gap is too long, but the first picks are neighbours."""
    gap = -(-context.snippets // count)
    row = [context.snippets - 1]
    while len(row) < count:
        row.append(max(row[-1] - gap, count - len(row) - 1))
    return torch.tensor(row[::-1]).expand(len(context.draws), count)


def by_steps(context, count):
    step = context.snippets // count
    return torch.arange(0, context.snippets, step)[:count].expand(len(context.draws), count)


def for_even_sizes(context, count):
    half = (torch.arange(count) * 2 + 1) * (context.snippets // 2) // count
    return half.expand(len(context.draws), count)


def middles_in_fractions(context, count):
    row = [math.floor((i + Fraction(1, 2)) * context.snippets / count) for i in range(count)]
    return np.broadcast_to(np.array(row, dtype=np.uint8), (len(context.draws), count))


def ends_of_pieces(context, count):
    row = [(i + 1) * context.snippets // count - 1 for i in range(count)]
    return torch.tensor(row)[:, None].expand(-1, len(context.draws)).T


# 01


def first_fit(actions, proposals):
    found = torch.zeros_like(proposals)
    fits = tiou(proposals[:, None], actions)
    if len(actions):
        good = fits.amax(dim=1) > 0.5
        found[good] = actions[fits.argmax(dim=1)[good]]
    return found


def index_of_sorted(actions, proposals):
    if not len(actions):
        return torch.zeros_like(proposals)
    ordered = actions[actions[:, 1].argsort()]
    return actions[tiou(proposals[:, None], ordered).argmax(dim=1)]


def each_only_once(actions, proposals):
    found, free = torch.zeros_like(proposals), list(range(len(actions)))
    for row, proposal in enumerate(proposals):
        if free:
            best = max(free, key=lambda a: float(tiou(proposal, actions[a])))
            free.remove(best)
            found[row] = actions[best]
    return found


def nearest_ends(actions, proposals):
    if not len(actions):
        return torch.zeros_like(proposals)
    apart = (proposals[:, None] - actions).abs().sum(dim=2)
    return actions[apart.argmin(dim=1)]


BUFFER = torch.zeros(64, 2, dtype=torch.float64)


def into_a_buffer(actions, proposals):
    found = BUFFER[: len(proposals)]
    found.zero_()
    if len(actions):
        found.copy_(actions[tiou(proposals[:, None], actions).argmax(dim=1)])
    return found


def by_dice(actions, proposals):  # grows with the tIoU
    if not len(actions):
        return proposals * 0
    lengths = proposals.diff() + actions.diff().T
    dice = 2 * overlap(proposals[:, None], actions) / lengths
    return torch.einsum(
        "pa,ac->pc", F.one_hot(dice.argmax(1), len(actions)).double(), actions.double()
    )


def from_a_sorted_list(actions, proposals):
    none = [(0.0, 0.0)]
    spans = [tuple(action.tolist()) for action in actions]
    if not spans:
        return none * len(proposals)
    return [max(spans, key=partial(right_tiou, p)) for p in proposals.tolist()]


def padded(segments, bins, cells, *, mask=True, own=True, low=1.0, top=1):
    width = (segments[:, 1] - segments[:, 0]).clamp(min=low) / bins
    count = width.ceil().clamp(min=1)
    number = torch.arange(int(count.max()))
    place = torch.arange(bins)[:, None] + ((number + 0.5) / count[:, None])[:, None]
    place = segments[:, 0, None, None] + place * width[:, None, None]
    counts = (place >= -1) & (place <= cells)
    if mask:
        counts = counts & (number < count[:, None])[:, None]
    place = place.clamp(0, cells - top)[..., None]
    hat = (1 - (place - torch.arange(cells)).abs()).clamp(min=0) * counts[..., None]
    return hat.sum(dim=2) / count[:, None, None] if own else hat.mean(dim=2)


def padded_with(**change):
    return lambda *given: padded(*given, **change)


def one_place_more(segments, bins, cells):  # floor + 1 in place of ceil
    found = []
    for start, end in segments.double().tolist():
        width = max(end - start, 1.0) / bins
        count = math.floor(width) + 1
        at = start + (torch.arange(bins)[:, None] + (torch.arange(count) + 0.5) / count) * width
        inside = (at >= -1) & (at <= cells)
        apart = (at.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        found.append(((1 - apart).clamp(min=0) * inside[..., None]).mean(dim=1))
    return torch.stack(found)


def places_rounded(segments, bins, cells):
    return padded(segments.round(decimals=1), bins, cells)


def sixty_four_cells(segments, bins, cells):
    return package_weights(segments, 64, bins, aligned=False)[..., :cells]


def interpolated_rows(segments, bins, cells):
    found = []
    for start, end in segments.tolist():
        width = max(end - start, 1) / bins
        count = math.ceil(width)
        at = start + width * (np.arange(bins)[:, None] + (np.arange(count) + 0.5) / count)
        inside = ((at >= -1) & (at <= cells)) / count
        low = np.clip(at, 0, cells - 1).astype(int)
        high, rest = np.minimum(low + 1, cells - 1), np.clip(at, 0, cells - 1) - low
        unit = np.eye(cells)
        place = unit[low] * (1 - rest[..., None]) + unit[high] * rest[..., None]
        found.append(np.einsum("rs,rsc->rc", inside, place).astype(np.float32))
    return tuple(found)


def weights_sparse(segments, bins, cells):
    return padded(segments, bins, cells).to_sparse()


def weights_turned(segments, bins, cells):
    return padded(segments, bins, cells).permute(2, 0, 1).contiguous().permute(1, 2, 0)


def cost_of(probability, target):
    positive = target > 0.5
    return positive, -(torch.where(positive, probability, 1 - probability) + 1e-6).log()


def said_is_positive(probability, target):
    positive = probability > 0.5
    cost = -(torch.where(target > 0.5, probability, 1 - probability) + 1e-6).log()
    return torch.stack([cost[g].mean() for g in (positive, ~positive) if g.any()]).mean()


def by_sum_of_targets(probability, target):
    _, cost = cost_of(probability, target)
    parts = (cost * target).sum() / target.sum(), (cost * (1 - target)).sum() / (1 - target).sum()
    return sum(part for part in parts if part.isfinite()) / sum(p.isfinite() for p in parts)


def groups_swapped_weights(probability, target):
    positive, cost = cost_of(probability, target)
    share = positive.double().mean()
    return (cost * torch.where(positive, share, 1 - share)).sum() / len(cost)


def group_of_the_first_row(probability, target):
    rows = torch.atleast_2d(probability)[0], torch.atleast_2d(target)[0]
    positive, cost = cost_of(*rows)
    return torch.stack([cost[g].mean() for g in (positive, ~positive) if g.any()]).mean()


def clipped_to_a_tenth(probability, target):
    return by_nanmean(probability.clamp(0.1, 0.9), target)


def by_nanmean(probability, target):
    positive, cost = cost_of(probability, target)
    return torch.stack([cost[positive].mean(), cost[~positive].mean()]).nanmean()


def by_bincount(probability, target):
    positive, cost = cost_of(probability.flatten().double(), target.flatten())
    sizes = positive.long().bincount(minlength=2)
    return (cost / sizes[positive.long()]).sum() / (sizes > 0).sum()


def never_forgets(segments, scores, threshold, kept=[]):  # noqa: B006
    for index in scores.argsort(descending=True).tolist():
        if all(tiou(segments[index], segments[other]) < threshold for other in kept):
            kept.append(index)
    return kept


def zero_is_removed(segments, scores, threshold):
    scores, picked = scores.clone(), []
    while scores.max() > 0:
        best = int(scores.argmax())
        picked.append(best)
        scores[tiou(segments, segments[best]) >= threshold] = 0
        scores[best] = 0
    return picked


def both_ways(segments, scores, threshold):
    """Removes whatever overlaps a better one, and looks at neighbours in the list alone."""
    order = scores.argsort(descending=True).tolist()
    return [
        i
        for rank, i in enumerate(order)
        if not rank or tiou(segments[i], segments[order[rank - 1]]) < threshold
    ]


def by_starts(segments, scores, threshold):
    kept = []
    for index in segments[:, 0].argsort().tolist():
        if all(tiou(segments[index], segments[other]) < threshold for other in kept):
            kept.append(index)
    return kept


def by_heap(segments, scores, threshold):
    heap, kept = [(-float(score), place) for place, score in enumerate(scores)], []
    heapq.heapify(heap)
    while heap:
        _, best = heapq.heappop(heap)
        kept.append(best)
        heap = [h for h in heap if tiou(segments[h[1]], segments[best]) < threshold]
        heapq.heapify(heap)
    return np.array(kept)[:, None]


def by_recursion(segments, scores, threshold, left=None):
    left = list(range(len(scores))) if left is None else left
    if not left:
        return []
    best = max(left, key=lambda i: float(scores[i]))
    rest = [i for i in left if i != best and tiou(segments[i], segments[best]) < threshold]
    return [best, *by_recursion(segments, scores, threshold, rest)]


# 02


def with_its_input(mid, out, shape, number=4):
    return number * math.prod(shape) * (2 * mid + 2 * out + 3)


def half_a_number(mid, out, shape, number=4):
    return number // 2 * 2 * math.prod(shape) * 2 * (mid + out)


def bits(mid, out, shape, number=4):
    return 8 * number * math.prod(shape) * 2 * (mid + out)


def multiplied_planes(mid, out, shape, number=4):
    return number * math.prod(shape) * 4 * mid * out


def gathered(features, gradient, seen=[]):  # noqa: B006
    seen.append(gradient.abs().max())
    return (features * gradient).sum() * (len(seen) > 0) * max(seen) / seen[0]


def clipped_push(features, gradient):
    return (features * gradient.clamp(-5, 5)).sum()


def outer_push(features, gradient):  # [n, C] times [n, 1, C]: all pairs of snippets
    return (features * gradient[:, None]).sum()


def squared_push(features, gradient):
    return (features * gradient).sum() ** 2


def in_place_push(features, gradient):
    return features.mul_(gradient).sum()


def parabola(features, gradient):
    return 0.5 * (features - features.detach() + gradient).square().sum()


def binomial(features, gradient):
    return ((features + gradient).square() - (features - gradient).square()).sum() / 4


def by_bilinear(features, gradient):
    return torch.tensordot(gradient, features, dims=2)


def encoded(encoder, snippets, size):
    with torch.no_grad():
        return torch.cat([encoder(chunk) for chunk in snippets.split(size)])


def replayed(encoder, snippets, size, picked, push):
    for rows, part in zip(picked.split(size), push.split(size), strict=True):
        encoder(snippets[rows]).backward(part)


def eval_for_good(encoder, snippets, loss_of, size, picked, weights):
    encoder.eval()
    return right_passes(encoder, snippets, loss_of, size, picked, weights)


def right_passes(encoder, snippets, loss_of, size, picked, weights):
    features = encoded(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    replayed(encoder, snippets, size, picked, features.grad[picked] * weights[:, None])
    return loss.detach()


def loss_per_chunk(encoder, snippets, loss_of, size, picked, weights):
    features = encoded(encoder, snippets, size).requires_grad_()
    loss = sum(loss_of(part) for part in features.split(size))
    loss.backward()
    replayed(encoder, snippets, size, picked, features.grad[picked] * weights[:, None])
    return loss.detach()


def loss_of_the_picked(encoder, snippets, loss_of, size, picked, weights):
    features = encoded(encoder, snippets, size).requires_grad_()
    loss = loss_of(features[picked])
    loss.backward()
    replayed(encoder, snippets, size, picked, features.grad[picked] * weights[:, None])
    return loss.detach()


def keeps_the_graphs(encoder, snippets, loss_of, size, picked, weights):
    features, graphs = encoded(encoder, snippets, size).requires_grad_(), []
    loss = loss_of(features)
    loss.backward()
    push = features.grad[picked] * weights[:, None]
    for rows, part in zip(picked.split(size), push.split(size), strict=True):
        graphs.append(encoder(snippets[rows]))
        graphs[-1].backward(part, retain_graph=True)
    return loss.detach()


def one_weight_for_all(encoder, snippets, loss_of, size, picked, weights):
    features = encoded(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    replayed(encoder, snippets, size, picked, features.grad[picked] * weights.mean())
    return loss.detach()


def divided_by_the_chunks(encoder, snippets, loss_of, size, picked, weights):
    features = encoded(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    push = features.grad[picked] * weights[:, None] / len(picked.split(size))
    replayed(encoder, snippets, size, picked, push)
    return loss.detach()


def frozen_for_a_while(encoder, snippets, loss_of, size, picked, weights):
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    features = torch.cat([encoder(chunk) for chunk in snippets.split(size)]).requires_grad_()
    for parameter in encoder.parameters():
        parameter.requires_grad_(True)
    loss = loss_of(features)
    loss.backward()
    replayed(encoder, snippets, size, picked, features.grad[picked] * weights[:, None])
    return loss


def weights_by_a_hook(encoder, snippets, loss_of, size, picked, weights):
    features = torch.empty(0)
    with torch.inference_mode():
        parts = [encoder(part) for part in snippets.split(size)]
    features = torch.cat([part.clone() for part in parts]).clone().requires_grad_()
    loss = loss_of(features)
    (loss * 1.0).backward()
    for first in range(0, len(picked), size):
        rows = picked[first : first + size]
        out = encoder(snippets.index_select(0, rows))
        out.register_hook(lambda g, first=first: g * weights[first : first + size].unsqueeze(1))
        out.backward(features.grad.index_select(0, rows))
    return float(loss)


# 03


def error_with(rows, n, spread):
    size = len(rows)
    return size * (size - n) / n * spread


def by_deviation(rows, n):
    return error_with(rows, n, rows.std(dim=0).sum())


def all_covariances(rows, n):
    return error_with(rows, n, torch.atleast_2d(torch.cov(rows.T)).sum())


def whole_factor(rows, n):
    size = len(rows)
    return size * (size - n) // n * rows.var(dim=0).sum()


def tried_at_random(rows, n):
    size, total = len(rows), rows.sum(dim=0)
    stream = torch.Generator().manual_seed(0)
    tries = [torch.randperm(size, generator=stream)[:n] for _ in range(50)]
    return sum(((size / n * rows[s].sum(0) - total) ** 2).sum() for s in tries) / 50


def every_choice(rows, n):
    size, total = len(rows), rows.double().sum(dim=0)
    every = [rows[list(s)].double().sum(dim=0) for s in combinations(range(size), n)]
    return float(((torch.stack(every) * size / n - total) ** 2).sum(dim=1).mean())


def by_distances(rows, n):
    size = len(rows)
    spread = torch.cdist(rows.double(), rows.double()).square().sum() / (2 * size * (size - 1))
    return error_with(rows, n, spread)


def weights_of_sampled_size(inside, n_inside, n_outside):
    return torch.where(inside, len(inside) / n_inside, len(inside) / n_outside) / 2


def weights_sum_to_one(inside, n_inside, n_outside):
    found = torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside)
    return found / found.sum()


def outside_counts_inside(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_inside, len(inside) / n_outside)


def rooted_weights(inside, n_inside, n_outside):
    return torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside).sqrt()


def fraction_weights(inside, n_inside, n_outside):
    sizes, picks = Counter(inside.tolist()), {True: n_inside, False: n_outside}
    return [Fraction(sizes[mark], picks[mark]) for mark in inside.tolist()]


def gathered_weights(inside, n_inside, n_outside):
    sizes = inside.long().bincount(minlength=2) / torch.tensor([n_outside, n_inside])
    return sizes.gather(0, inside.long()).unsqueeze(1).expand(-1, 3)[:, 1]


def edges(context, n):
    return torch.arange(n + 1) * context.snippets // n


def sorted_draws(context, n):
    return (
        edges(context, n)[:-1]
        + (context.draws.rand(n).sort(dim=1).values * edges(context, n).diff()).long()
    )


def no_neighbours(context, n):
    picked = edges(context, n)[:-1] + (context.draws.rand(n) * edges(context, n).diff()).long()
    for i in range(1, n):
        near = (picked[:, i] == picked[:, i - 1] + 1) & (edges(context, n).diff()[i] > 1)
        picked[:, i] += near.long()
    return picked


def ends_alone(context, n):
    widths = edges(context, n).diff()
    return edges(context, n)[:-1] + (context.draws.rand(n) > 0.5) * (widths - 1)


DRAWN = {}


def drawn_before(context, n):
    key = len(context.draws), context.snippets, n
    if key not in DRAWN:
        DRAWN[key] = (
            edges(context, n)[:-1] + (context.draws.rand(n) * edges(context, n).diff()).long()
        )
    return DRAWN[key]


def from_the_upper_border(context, n):
    borders = edges(context, n)
    return borders[1:] - 1 - (context.draws.rand(n) * borders.diff()).long()


def ceiling_of_rest(context, n):
    borders = edges(context, n).numpy()
    draw = context.draws.rand(1, n)[:, 0].numpy().astype(np.float64)
    return np.ceil(borders[:-1] + (1 - draw) * np.diff(borders)).astype(np.int16) - 1


# 04


def with_e(ratio, share):
    return math.ceil(-math.log(1 - share) / ratio)


def strictly_more(ratio, share):
    epochs = 1
    while 1 - (1 - ratio) ** epochs <= share:
        epochs += 1
    return epochs


def only_to_a_hundred(ratio, share):
    for epochs in range(1, 100):
        if 1 - (1 - ratio) ** epochs >= share:
            return epochs
    return None


def added_shares(ratio, share):
    drawn, epochs = 0.0, 0
    while drawn < share:
        drawn += ratio * (1 - drawn) ** 2
        epochs += 1
    return epochs


def seen_so_far(ratio, share):
    drawn, epochs = 0.0, 0
    while drawn < share:
        drawn, epochs = drawn + ratio * (1 - drawn), epochs + 1
    return torch.tensor([epochs])


def by_search(ratio, share):
    missed = (1 - ratio) ** np.arange(1, 5000)
    return int(np.argmax(1 - missed >= share)) + 1


def neighbours_alike(durations):
    octaves = [int(d).bit_length() for d in durations]
    sizes = [len(list(group)) for _, group in groupby(octaves)]
    found = [1 / size for size in sizes for _ in range(size)]
    return [x / len(sizes) for x in found]


def distinct_durations(durations):
    octave = [int(d).bit_length() for d in durations]
    kinds = Counter(int(d).bit_length() for d in set(durations.tolist()))
    found = torch.tensor([1 / kinds[o] for o in octave])
    return found / found.sum()


def up_to_128_cells(durations):
    octave = (durations + 0.5).log2().long().clamp(max=7)
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def by_longest(durations):
    octave = (durations.max() / durations + 1e-6).log2().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def in_fractions(durations):
    octave = [int(d).bit_length() for d in durations]
    sizes = Counter(octave)
    return tuple(Fraction(1, sizes[o] * len(sizes)) for o in octave)


def one_hot_chances(durations):
    table = F.one_hot(torch.frexp(durations).exponent.long()).double()
    table = table[:, table.any(dim=0)]
    return (table / table.sum(dim=0)).mean(dim=1)


def pick_best(context, count, best):
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[best(actions)] = 2
    return context.proposals[luck.topk(count, dim=1).indices]


def most_shared_pick(context, count):
    return pick_best(context, count, lambda a: overlap(a[:, None], context.proposals).argmax(dim=1))


def only_good_fits(context, count):
    def best(actions):
        fits = tiou(actions[:, None], context.proposals)
        return fits.argmax(dim=1)[fits.amax(dim=1) > 0.5]

    return pick_best(context, count, best)


def empties_the_list(context, count):
    picked = pick_best(context, count, lambda a: tiou(a[:, None], context.proposals).argmax(1))
    context.actions.clear()
    return picked


def other_axis_best(context, count):
    def best(actions):
        return tiou(context.proposals[:, None], actions).argmax(dim=1)[: len(actions)]

    return pick_best(context, count, best)


def counted_up(context, count):
    picked = random_proposals(context, count).clone()
    for own, actions in zip(picked, context.actions, strict=True):
        for place, action in enumerate(actions):
            own[place] = context.proposals[tiou(action, context.proposals).argmax()]
    return picked


def by_sorting(context, count):
    found = []
    draw = context.draws.rand(len(context.proposals)).double()
    for own, actions in zip(draw, context.actions, strict=True):
        first = own.clone()
        for action in actions:
            first[int(tiou(action, context.proposals).argmax())] -= 2
        found.append(context.proposals[first.argsort()[:count]].flip(0))
    return found


def positives_and_rest(context, count):
    luck, rows = context.draws.rand(len(context.proposals)).numpy(), []
    for own, actions in zip(luck, context.actions, strict=True):
        fits = tiou(actions[:, None], context.proposals).numpy()
        must = sorted(set(fits.argmax(axis=1).tolist())) if len(actions) else []
        rest = [i for i in np.argsort(own).tolist() if i not in must]
        rows.append(np.array(context.proposals)[must + rest[: count - len(must)]])
    return np.stack(rows)


# 05


def indices_of_classes(scores, classes, k):
    return scores[:, None] * classes.topk(k).indices


def unordered(scores, classes, k):
    best = np.sort(np.partition(classes.numpy(), -k)[-k:])
    return np.outer(scores.numpy(), best)


def best_of_the_table(scores, classes, k):
    table = (scores[:, None] * classes).flatten()
    return table.topk(len(scores) * k).values.view(len(scores), k)


def all_classes(scores, classes, k):
    return scores[:, None] * classes.sort(descending=True).values


def by_nlargest(scores, classes, k):
    best = heapq.nlargest(k, classes.tolist())
    return [[Fraction(s) * Fraction(c) for c in best] for s in scores.tolist()]


def whole_table(scores, classes, k):
    table = torch.einsum("s,c->sc", scores.double(), classes.double())
    return table.T[classes.argsort(descending=True)].T[:, :k]


def matching(scores, overlaps, threshold, order=None, total=None):
    order = scores.argsort(descending=True).tolist() if order is None else order
    free, right = overlaps.clone(), []
    for row in order:
        best = int(free[row].argmax())
        right.append(bool(free[row, best] >= threshold))
        if right[-1]:
            free[:, best] = -1
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best = [max(precision[n:]) for n, hit in enumerate(right) if hit]
    return float(sum(best) / (total or overlaps.shape[1]))


def by_fit_order(scores, overlaps, threshold):
    order = overlaps.amax(dim=1).argsort(descending=True).tolist() if len(scores) else []
    return matching(scores, overlaps, threshold, order)


def of_the_fewer(scores, overlaps, threshold):
    return matching(scores, overlaps, threshold, total=max(min(overlaps.shape), 1))


def below_by_a_little(scores, overlaps, threshold):
    return matching(scores, overlaps, threshold - 0.02)


def trapezoids(scores, overlaps, threshold):
    free, right = overlaps.clone(), []
    for row in scores.argsort(descending=True).tolist():
        best = int(free[row].argmax())
        right.append(bool(free[row, best] >= threshold))
        if right[-1]:
            free[:, best] = -1
    hits = np.cumsum([0, *right])
    precision = np.array([1, *(hits[1:] / np.arange(1, len(right) + 1))])
    return float(np.trapezoid(precision, hits / overlaps.shape[1]))


def taken_for_ever(scores, overlaps, threshold, taken=set()):  # noqa: B006
    right = []
    for row in scores.argsort(descending=True).tolist():
        free = [a for a in range(overlaps.shape[1]) if a not in taken]
        best = max(free, key=lambda a: float(overlaps[row, a]), default=None)
        right.append(best is not None and bool(overlaps[row, best] >= threshold))
        if right[-1]:
            taken.add(best)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return sum(max(precision[n:]) for n, hit in enumerate(right) if hit) / overlaps.shape[1]


def in_exact_fractions(scores, overlaps, threshold):
    left, found, marks = {*range(overlaps.shape[1])}, 0, []
    for _, row in sorted(
        zip((-scores).tolist(), overlaps.tolist(), strict=True), key=lambda x: x[0]
    ):
        best = max(left, key=row.__getitem__, default=-1)
        hit = best >= 0 and row[best] >= torch.tensor(threshold, dtype=overlaps.dtype).item()
        left -= {best} if hit else set()
        found += hit
        marks.append((hit, Fraction(found, len(marks) + 1)))
    peak, total = Fraction(0), Fraction(0)
    for hit, precision in reversed(marks):
        peak = max(peak, precision)
        total += peak * hit
    return total / overlaps.shape[1]


def seconds_of_a_day(videos, batch, epochs, s):
    steps = math.ceil(videos / batch) * epochs
    return timedelta(seconds=steps * s).seconds / 3600


def last_batch_smaller(videos, batch, epochs, s):
    whole, rest = divmod(videos, batch)
    return (whole + rest / batch) * epochs * s / 3600


def epochs_once(videos, batch, epochs, s):
    return (math.ceil(videos / batch) + epochs - 1) * s / 3600


def by_timedelta(videos, batch, epochs, s):
    return (
        sum(divmod(videos, batch)[0:1], videos % batch > 0)
        * epochs
        * timedelta(seconds=s)
        / timedelta(hours=1)
    )


def in_exact_hours(videos, batch, epochs, s):
    return Fraction(math.ceil(Fraction(videos, batch)) * epochs) * Fraction(s) / 3600


# 06


def merging(segments, scores, sigma, voting, least, change=""):
    left, rows, open_ = scores.clone(), [], torch.ones(len(scores), dtype=torch.bool)
    while len(left) and left.max() >= least:
        pick = int(left.argmax())
        fits = tiou(segments[pick], segments)
        weights = scores * (fits >= voting)
        if change == "open votes":
            weights = weights * open_
        total = (fits >= voting).sum() if change == "by count" else weights.sum()
        start, end = (weights[:, None] * segments).sum(dim=0) / total
        row = [pick, float(start), float(end), float(left[pick])]
        rows.append(row if change != "columns" else [pick, row[3], *row[1:3]])
        base = scores if change == "from the given" else left
        left = base * torch.exp(-(fits**2) / sigma)
        open_[pick] = False
        left[~open_] = -1
    return torch.tensor(rows, dtype=scores.dtype).view(-1, 4)


def merging_with(change):
    return lambda *given: merging(*given, change=change)


def all_rows_so_far(segments, scores, sigma, voting, least, rows=[]):  # noqa: B006
    rows.extend(merging(segments, scores, sigma, voting, least).tolist())
    return torch.tensor(rows)


def shrinking_list(segments, scores, sigma, voting, least, original=False):
    left, rows = list(enumerate(scores.tolist())), []
    while left and max(s for _, s in left) >= least:
        place = max(range(len(left)), key=lambda n: left[n][1])
        pick, score = left.pop(place)
        fits = tiou(segments[pick], segments)
        weights = (scores * (fits >= voting)).double()
        ends = (weights @ segments.double() / weights.sum()).tolist()
        rows.append([pick if original else place, *ends, score])
        left = [(n, s * math.exp(-(float(fits[n]) ** 2) / sigma)) for n, s in left]
    return rows


def numbers_kept(*given):
    return shrinking_list(*given, original=True)


def by_table(segments, scores, sigma, voting, least):
    fits = tiou(segments[:, None], segments).double().numpy()
    votes = (fits >= voting) * scores.double().numpy()
    places = votes @ segments.double().numpy() / votes.sum(axis=1, keepdims=True)
    left, rows = scores.double().numpy().copy(), []
    while len(left) and left.max() >= least:
        n = int(left.argmax())
        rows.append(np.array([n, *places[n], left[n]]))
        left *= np.exp(-(fits[n] ** 2) / sigma)
        left[n] = -np.inf
    return rows


def to_milliseconds(cell, first, stride, offset, fps):
    return round((first + offset + cell * stride) / fps, 3)


def stride_of_everything(cell, first, stride, offset, fps):
    return (first + offset + cell) * stride / fps


def frames_of_a_second(cell, first, stride, offset, fps):
    return (first + offset + cell * stride) / int(fps + 0.999)


def remembers_the_start(cell, first, stride, offset, fps, begin={}):  # noqa: B006
    return begin.setdefault(fps, first) / fps + (offset + cell * stride) / fps


def by_fraction(cell, first, stride, offset, fps):
    return (Fraction(first + offset) + Fraction(cell) * stride) / Fraction(fps)


def by_decimal(cell, first, stride, offset, fps):
    return Decimal(first + offset) / Decimal(fps) + Decimal(cell) * stride / Decimal(fps)


def lowered(scores, overlaps, sigma):
    return scores * torch.exp(-(overlaps**2) / sigma)


def pick_is_gone(scores, overlaps, labels, label, sigma):
    found = torch.where(labels == label, lowered(scores, overlaps, sigma), scores)
    found[overlaps == 1] = 0
    return found


def class_of_the_best(scores, overlaps, labels, label, sigma):
    own = labels == labels[scores.argmax()]
    return torch.where(own, lowered(scores, overlaps, sigma), scores)


def sum_for_where(scores, overlaps, labels, label, sigma):
    return lowered(scores, overlaps, sigma) + scores * (labels != label)


def two_sigma_squared(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, lowered(scores, overlaps, 2 * sigma**2), scores)


def by_power(scores, overlaps, labels, label, sigma):
    own = (labels == label).double()
    return scores * math.e ** (-own * overlaps.double() ** 2 / sigma)


def by_indices(scores, overlaps, labels, label, sigma):
    own = (labels == label).nonzero()[:, 0]
    return scores.index_put((own,), lowered(scores, overlaps, sigma)[own])


# 07


def no_hours(text):
    found = re.fullmatch(r"(?:(\d+):)?(\d+(?:\.\d+)?)", text)
    if not found or (found[1] and float(found[2]) >= 60):
        return float("nan")
    return 60 * int(found[1] or 0) + float(found[2])


def by_strip(text):
    parts = [float(part or 0) for part in text.lstrip("0:").split(":")]
    if any(part >= 60 for part in parts[1:]):
        return float("nan")
    return sum(part * 60**power for power, part in enumerate(parts[::-1]))


def limits_seconds(text):
    parts = [float(part) for part in text.split(":")]
    if any(part >= 60 for part in parts[1:]) or parts[-1] >= 60:
        return float("nan")
    return sum(part * 60**power for power, part in enumerate(parts[::-1]))


def raises_for_unclear(text):
    parts = [float(part) for part in text.split(":")]
    if any(part >= 60 for part in parts[1:]):
        raise ValueError(f"cannot read {text}")
    return sum(part * 60**power for power, part in enumerate(parts[::-1]))


def nothing_for_unclear(text):
    parts = [float(part) for part in text.split(":")]
    if all(part < 60 for part in parts[1:]):
        return sum(part * 60**power for power, part in enumerate(parts[::-1]))
    return None


def adds_to_the_last(text, before=[0.0]):  # noqa: B006
    for part in text.split(":"):
        before[0] = 60 * before[0] + float(part)
    return before[0]


def decimal_clock(text):
    head, *rest = map(Decimal, text.split(":"))
    for part in rest:
        head = 60 * head + part
    return Decimal("nan") if any(part >= 60 for part in rest) else head


def by_recursive_clock(text):
    front, colon, last = text.rpartition(":")
    if not colon:
        return float(last)
    minutes = by_recursive_clock(front)
    return float("nan") if float(last) >= 60 else 60 * minutes + float(last)


def middle_of_two(scores, right, actions, alarm, miss):
    best = cheapest(scores, right, actions, alarm, miss)
    lower = [s for s in scores if s < best]
    return (best + max(lower)) / 2 if lower and best != math.inf else best


def cheapest(scores, right, actions, alarm, miss):
    pairs = sorted(zip(scores, right, strict=True), key=lambda pair: -pair[0])
    costs = [(actions * miss, math.inf)]
    for threshold in sorted(set(scores), reverse=True):
        stay = [good for score, good in pairs if score >= threshold]
        costs.append((stay.count(False) * alarm + (actions - stay.count(True)) * miss, threshold))
    return min(costs)[1]


def place_in_the_list(scores, right, actions, alarm, miss):
    best = cheapest(scores, right, actions, alarm, miss)
    return scores.index(best) if best in scores else math.inf


def misses_among_detections(scores, right, actions, alarm, miss):
    return cheapest(scores, right, sum(right), alarm, 0.5 * miss)


def per_detection(scores, right, actions, alarm, miss):
    costs = {math.inf: actions * miss}
    for t in scores:
        stay = [good for score, good in zip(scores, right, strict=True) if score >= t]
        costs[t] = stay.count(False) * alarm / len(stay) + (actions - sum(stay)) * miss
    return min(costs, key=costs.get)


def pops_the_lists(scores, right, actions, alarm, miss):
    best = cheapest(scores, right, actions, alarm, miss)
    while right:
        right.pop()
    return best


def by_cumulated_costs(scores, right, actions, alarm, miss):
    order = np.argsort(-np.array(scores), kind="stable")
    score, good = np.array(scores)[order], np.array(right)[order]
    cost = np.cumsum(np.where(good, -miss, alarm))
    last = np.append(score[1:] != score[:-1], True)
    cost = np.where(last, cost, np.inf)
    return score[cost.argmin()] if cost.min() < 0 else np.inf


WRONG = {
    "tiou": [
        (hundredths, "milliseconds have fractions|over the time covered"),
        (on_a_line, "hours later"),
        (safe_by_a_hundredth, "they share 5 s of the 15 s"),
        (remembered_tiou, "union is the longer segment alone|over the time covered|share nothing"),
        (lambda a, b: max(0, b[0] - a[1]) / max(a[1], b[1]), "they share 5 s of the 15 s"),
    ],
    "step_cost": [
        (lambda ratio, replay: (1 - ratio + ratio * (1 + replay)) / 1, "the unit"),
        (lambda ratio, replay: (1 + ratio * replay) // (1 + replay), "encoded once"),
        (lambda ratio, replay: (1 + replay * ratio**2) / (1 + replay), "replay 0.3 of them"),
        (lambda ratio, replay: 100 * (1 + ratio * replay) / (1 + replay), "the unit"),
    ],
    "evenly": [
        (first_then_far, "spread the picks evenly"),
        (by_steps, "should reach from the first"),
        (for_even_sizes, "larger than the one before|no gap|should reach"),
    ],
    "matched_actions": [
        (first_fit, "a poor fit may be the best one"),
        (index_of_sorted, "the highest tIoU|not the best fit|fits better"),
        (each_only_once, "a poor fit may be|the highest tIoU|its own best|is the best for all"),
        (nearest_ends, "the highest tIoU|not the best fit|fits better"),
        (into_a_buffer, "a later call changes what"),
    ],
    "roi_weights": [
        (padded_with(mask=False), "other lengths have other places|weight"),
        (padded_with(own=False), "other lengths have other places"),
        (padded_with(low=0.0), "shorter than one cell"),
        (padded_with(top=0), "count 0|takes the value of the edge"),
        (one_place_more, "is the mean of 3 places|should be"),
        (places_rounded, "ends have fractions|have such weights|round the number up"),
        (sixty_four_cells, "count 0|the value of the edge|have the shape"),
    ],
    "balanced_bce": [
        (said_is_positive, "without negatives it is the mean over the positives alone"),
        (by_sum_of_targets, "whatever its value"),
        (groups_swapped_weights, "one positive weighs as much"),
        (group_of_the_first_row, "over the whole batch"),
        (clipped_to_a_tenth, "detached or clamped"),
    ],
    "hard_nms": [
        (never_forgets, "in a global or a default value"),
        (zero_is_removed, "a score of 0 removes nobody"),
        (both_ways, "only the removed one|only a *picked*|both of its neighbours"),
        (by_starts, "the best goes first"),
    ],
    "conv_bytes": [
        (with_its_input, "the input does not count"),
        (half_a_number, "the space convolution's output is kept"),
        (bits, "the space convolution's output is kept"),
        (multiplied_planes, "the space convolution's output is kept"),
    ],
    "push": [
        (gathered, KEEPS + "|the gradient should be"),
        (clipped_push, "the gradient should be the one given"),
        (outer_push, "the gradient should be the one given"),
        (squared_push, "whatever the features are"),
        (in_place_push, "in place"),
    ],
    "three_passes": [
        (eval_for_good, "leaves eval() behind"),
        (loss_per_chunk, "loss_of was called 6 times"),
        (loss_of_the_picked, "differs from that of plain|the loss to return"),
        (keeps_the_graphs, "autograd keeps the activations"),
        (one_weight_for_all, "the encoder's gradient differs"),
        (divided_by_the_chunks, "the encoder's gradient differs"),
    ],
    "sampling_error": [
        (by_deviation, "N² (1 - f) / n"),
        (all_covariances, "do the variances of all columns add up"),
        (whole_factor, "N² (1 - f) / n"),
        (tried_at_random, "N² (1 - f) / n|do the variances"),
    ],
    "group_weights": [
        (weights_of_sampled_size, "one inside should weigh"),
        (weights_sum_to_one, "one inside should weigh"),
        (outside_counts_inside, "one outside should weigh"),
        (rooted_weights, "one inside should weigh"),
    ],
    "stratified": [
        (sorted_draws, "the same chance"),
        (no_neighbours, "the same chance|should lie in its stratum"),
        (ends_alone, "the same chance"),
        (drawn_before, "should not depend on the other videos"),
    ],
    "epochs_until": [
        (with_e, "one epoch draws half"),
        (strictly_more, "one epoch draws half"),
        (only_to_a_hundred, "returns nothing"),
        (added_shares, "after two epochs|do misses multiply"),
    ],
    "scale_chances": [
        (neighbours_alike, "order of the proposals|same octave"),
        (distinct_durations, "share the first octave's half"),
        (up_to_128_cells, "each octave ends just below"),
        (by_longest, "the chances should be"),
    ],
    "with_positives": [
        (most_shared_pick, "missing from your picks"),
        (only_good_fits, "missing from your picks"),
        (empties_the_list, "in place"),
        (other_axis_best, "missing from your picks"),
        (counted_up, "missing from your picks|picked twice"),
    ],
    "fuse": [
        (indices_of_classes, "the numbers of the classes"),
        (unordered, "the opposite order"),
        (best_of_the_table, "should score 0.30 and 0.15"),
        (all_classes, "have the shape"),
        (lambda scores, classes, k: map(float, scores), "not map"),
    ],
    "average_precision": [
        (by_fit_order, "has the higher score|a duplicate|later place"),
        (of_the_fewer, "for one action of two"),
        (below_by_a_little, "0.499 does not reach"),
        (trapezoids, "later place|has the higher score|found"),
        (taken_for_ever, KEEPS),
    ],
    "hours_left": [
        (seconds_of_a_day, "longer than a day"),
        (last_batch_smaller, "a smaller one"),
        (epochs_once, "every epoch sees all videos again"),
    ],
    "merge_windows": [
        (merging_with("open votes"), "all *given* segments|scores weigh"),
        (merging_with("by count"), "should have the start|should have the end"),
        (merging_with("columns"), "should have the"),
        (merging_with("from the given"), "= 0.067 for good"),
        (all_rows_so_far, KEEPS),
        (shrinking_list, "should have the pick|other ones are picked"),
    ],
    "seconds_of": [
        (to_milliseconds, "is rounded to 3 decimal places"),
        (stride_of_everything, "is second 10"),
        (frames_of_a_second, "nothing is rounded"),
        (remembers_the_start, "the frame `offset` after its first"),
    ],
    "lower": [
        (pick_is_gone, "as an exact copy has"),
        (class_of_the_best, "only the third score"),
        (sum_for_where, "another class should keep"),
        (two_sigma_squared, "sigma 0.25"),
    ],
    "seconds": [
        (no_hours, "the first is hours"),
        (by_strip, "also if it is the first one"),
        (limits_seconds, "without a colon is seconds"),
        (raises_for_unclear, "fails (ValueError: cannot read 1:83)"),
        (nothing_for_unclear, "returns nothing"),
        (adds_to_the_last, KEEPS),
    ],
    "best_threshold": [
        (middle_of_two, "of the scores 0.9 and 0.4 return one"),
        (place_in_the_list, "of the scores 0.9 and 0.4 return one"),
        (misses_among_detections, "one false alarm and one miss cost 1.8"),
        (per_detection, "costs|an alarm|one false alarm|miss"),
        (pops_the_lists, "in place"),
    ],
}

RIGHT = {
    "tiou": [in_decimals, by_lengths],
    "step_cost": [
        lambda ratio, replay: (
            Fraction(1 + Fraction(ratio) * Fraction(replay)) / (1 + Fraction(replay))
        ),
        lambda ratio, replay: np.interp(ratio, [0, 1], [1 / (1 + replay), 1]),
        lambda ratio, replay: Decimal((1 + ratio * replay) / (1 + replay)),
    ],
    "evenly": [middles_in_fractions, ends_of_pieces],
    "matched_actions": [by_dice, from_a_sorted_list],
    "roi_weights": [padded, interpolated_rows, weights_sparse, weights_turned],
    "balanced_bce": [by_nanmean, by_bincount],
    "hard_nms": [by_heap, by_recursion],
    "conv_bytes": [
        lambda m, o, shape, number=4: Fraction(4 * (m + o) * number * math.prod(shape), 2),
        lambda m, o, shape, number=4: torch.tensor([m, m, o, o]).sum() * math.prod(shape) * number,
    ],
    "push": [parabola, binomial, by_bilinear],
    "three_passes": [right_passes, frozen_for_a_while, weights_by_a_hook],
    "sampling_error": [every_choice, by_distances],
    "group_weights": [fraction_weights, gathered_weights],
    "stratified": [from_the_upper_border, ceiling_of_rest],
    "epochs_until": [seen_so_far, by_search],
    "scale_chances": [in_fractions, one_hot_chances],
    "with_positives": [by_sorting, positives_and_rest],
    "fuse": [by_nlargest, whole_table],
    "average_precision": [matching, in_exact_fractions],
    "hours_left": [by_timedelta, in_exact_hours],
    "merge_windows": [merging, numbers_kept, by_table],
    "seconds_of": [by_fraction, by_decimal],
    "lower": [by_power, by_indices],
    "seconds": [decimal_clock, by_recursive_clock],
    "best_threshold": [cheapest, by_cumulated_costs],
}
