"""Answers to the exercises that are parts of the method: matching, RoI weights, loss, passes.

WRONG: exercise -> (wrong answer, a part of the hint; a | separates parts of which one is enough).
RIGHT: exercise -> right answers of other forms.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from etadlite.base.segments import overlap, tiou

# 01: matching


def fits_of(actions, proposals):
    return tiou(proposals[:, None], actions)


def most_shared(actions, proposals):
    return actions[overlap(proposals[:, None], actions).argmax(dim=1)]


def nearest_middle(actions, proposals):
    apart = (proposals.mean(dim=1)[:, None] - actions.mean(dim=1)).abs()
    return actions[apart.argmin(dim=1)]


def nearest_start(actions, proposals):
    return actions[(proposals[:, :1] - actions[:, 0]).abs().argmin(dim=1)]


def first_touched(actions, proposals):
    return actions[(fits_of(actions, proposals) > 0).int().argmax(dim=1)]


def best_proposals(actions, proposals):  # the other axis
    return proposals[fits_of(actions, proposals).argmax(dim=0)]


def one_for_all(actions, proposals):
    best = fits_of(actions, proposals).amax(dim=0).argmax()
    return actions[best].expand(len(proposals), 2)


def whole_cells(actions, proposals):
    return actions.long()[fits_of(actions, proposals).argmax(dim=1)]


def worst(actions, proposals):
    return actions[fits_of(actions, proposals).argmin(dim=1)]


def indices(actions, proposals):
    return fits_of(actions, proposals).argmax(dim=1)


def itself_without_actions(actions, proposals):
    if not len(actions):
        return proposals
    return actions[fits_of(actions, proposals).argmax(dim=1)]


def never_without_actions(actions, proposals):
    return actions[fits_of(actions, proposals).argmax(dim=1)]


def share_of_the_proposal(actions, proposals):
    shared = overlap(proposals[:, None], actions)
    return actions[(shared / (proposals[:, 1] - proposals[:, 0])[:, None]).argmax(dim=1)]


def mixed(actions, proposals):
    share = fits_of(actions, proposals)
    return share / share.sum(dim=1, keepdim=True).clamp(min=1e-9) @ actions


def sorted_in_place(actions, proposals):
    actions.copy_(actions.flip(0))
    return actions[fits_of(actions, proposals).argmax(dim=1)]


def looped_match(actions, proposals):
    found = []
    for proposal in proposals:
        best, most = [0.0, 0.0], -1.0
        for action in actions:
            if (fit := float(tiou(proposal, action))) > most:
                best, most = action.tolist(), fit
        found.append(best)
    return found


def numpy_match(actions, proposals):
    a, p = np.asarray(actions), np.asarray(proposals)
    if not len(a):
        return np.zeros_like(p)
    shared = np.minimum(p[:, None, 1], a[:, 1]) - np.maximum(p[:, None, 0], a[:, 0])
    shared = shared.clip(min=0)
    lengths = np.diff(p)[:, :1] + np.diff(a)[:, 0]
    return a[(shared / (lengths - shared)).argmax(axis=1)]


def last_of_equals(actions, proposals):
    with_none = torch.cat((actions, proposals.new_zeros(1, 2)))
    return with_none.flip(0)[fits_of(with_none.flip(0), proposals).argmax(dim=1)]


# 01: RoI weights


def weights_like(  # noqa: PLR0913  (a rule each)
    segments,
    bins,
    cells,
    *,
    shift=0.0,
    shortest=1.0,
    places=torch.ceil,
    kernel=lambda apart: (1 - apart).clamp(min=0),
    offset=0.5,
    beyond=1.0,
    reduce=torch.mean,
):
    """RoIAlign's weights segment by segment, with one rule changed."""
    found = []
    for start, end in segments.double().tolist():
        width = max(end - start, shortest) / bins
        count = max(int(places(torch.tensor(width, dtype=torch.float64))), 1)
        offsets = (torch.arange(count) + offset) / count
        place = start + shift + (torch.arange(bins)[:, None] + offsets) * width
        inside = (place >= -beyond) & (place <= cells - 1 + beyond)
        apart = (place.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        found.append(reduce(kernel(apart) * inside[..., None], dim=1))
    return torch.stack(found)


def roi_like(**rule):
    def answer(segments, bins, cells):
        return weights_like(segments, bins, cells, **rule)

    answer.__name__ = f"roi_like {rule}"
    return answer


def rounded_ends(segments, bins, cells):
    return weights_like(segments.round(), bins, cells)


def adds_up_to_one(segments, bins, cells):
    found = weights_like(segments, bins, cells)
    return found / found.sum(dim=-1, keepdim=True).clamp(min=1e-9)


def clamped_segments(segments, bins, cells):
    return weights_like(segments.clamp(0, cells), bins, cells)


def cells_first(segments, bins, cells):
    return weights_like(segments, bins, cells).mT


def first_segment(segments, bins, cells):
    return weights_like(segments[:1], bins, cells).expand(len(segments), -1, -1)


def covered_share(segments, bins, cells):  # the share of a bin in each cell
    edges = segments[:, :1] + torch.arange(bins + 1) / bins * segments.diff()
    spans = torch.stack((edges[:, :-1], edges[:, 1:]), dim=-1)[:, :, None].double()
    left = torch.arange(cells)
    share = overlap(spans, torch.stack((left, left + 1), dim=-1).double())
    return share / share.sum(dim=-1, keepdim=True).clamp(min=1e-9)


def cell_by_cell(segments, bins, cells):
    found = [[[0.0] * cells for _ in range(bins)] for _ in segments]
    exact = weights_like(segments, bins, cells).tolist()
    for p in range(len(found)):
        for r in range(bins):
            for t in range(cells):
                value = exact[p][r][t]
                found[p][r][t] = value
    return found


def by_torchvision(segments, bins, cells):
    eye = torch.eye(cells, dtype=segments.dtype)[None, :, :, None]  # a feature per cell
    zero, one = torch.zeros(len(segments)), torch.ones(len(segments))
    boxes = torch.stack((zero, zero, segments[:, 0], one, segments[:, 1]), dim=1)
    found = roi_align(eye, boxes.to(eye), (bins, 1), aligned=False)  # [P, T, R, 1]
    return found[..., 0].mT


def numpy_weights(segments, bins, cells):
    found = []
    for start, end in np.asarray(segments, dtype=np.float64):
        width = max(end - start, 1.0) / bins
        count = int(np.ceil(width))
        place = start + width * (np.arange(bins)[:, None] + (np.arange(count) + 0.5) / count)
        inside = (place >= -1) & (place <= cells)
        place = np.clip(place, 0, cells - 1)
        low = np.floor(place).astype(int)
        rows = np.zeros((bins, cells))
        for r in range(bins):
            high = np.minimum(low[r] + 1, cells - 1)
            np.add.at(rows[r], low[r], (1 - place[r] + low[r]) * inside[r] / count)
            np.add.at(rows[r], high, (place[r] - low[r]) * inside[r] / count)
        found.append(rows)
    return found


# 01: the loss


def logs(probability, target, eps=1e-6):
    positive = target > 0.5
    return positive, -torch.where(positive, probability, 1 - probability).add(eps).log()


def means(probability, target, eps=1e-6):
    positive, cost = logs(probability, target, eps)
    return [cost[group].mean() for group in (positive, ~positive) if group.any()]


def plain_mean(probability, target):
    return logs(probability, target)[1].mean()


def plain_sum(probability, target):
    return logs(probability, target)[1].sum()


def sum_of_means(probability, target):
    return sum(means(probability, target))


def half_of_an_empty_group(probability, target):
    return sum(means(probability, target)) / 2


def nan_of_an_empty_group(probability, target):
    positive, cost = logs(probability, target)
    return (cost[positive].mean() + cost[~positive].mean()) / 2


def soft_targets(probability, target):
    cost = F.binary_cross_entropy(probability, target.to(probability), reduction="none")
    positive = target > 0.5
    return torch.stack([cost[g].mean() for g in (positive, ~positive) if g.any()]).mean()


def half_is_positive(probability, target):
    return torch.stack(means(probability, (target >= 0.5).to(target))).mean()


def above_zero(probability, target):
    return torch.stack(means(probability, (target > 0).to(target))).mean()


def row_by_row(probability, target):
    rows = zip(torch.atleast_2d(probability), torch.atleast_2d(target), strict=True)
    return torch.stack([torch.stack(means(p, t)).mean() for p, t in rows]).mean()


def without_epsilon(probability, target):
    return torch.stack(means(probability, target, eps=0.0)).mean()


def detached_loss(probability, target):
    return torch.stack(means(probability.detach(), target)).mean()


def half_detached(probability, target):
    own = means(probability, target)
    return (own[0].detach() + own[-1]) / 2 if len(own) == 2 else own[0]


def as_a_number(probability, target):
    return torch.stack(means(probability, target)).mean().item()


def of_logits(probability, target):
    return torch.stack(means(probability.sigmoid(), target)).mean()


def squared(probability, target):
    positive, _ = logs(probability, target)
    cost = (positive.float() - probability).square()
    return torch.stack([cost[g].mean() for g in (positive, ~positive) if g.any()]).mean()


def log_base_two(probability, target):
    return torch.stack(means(probability, target)).mean() / np.log(2)


def only_positives(probability, target):
    return means(probability, target)[0]


def each_cost(probability, target):
    return logs(probability, target)[1]


def by_weights(probability, target):
    positive = target > 0.5
    share = sum(g / g.sum() for g in (positive, ~positive) if g.any())
    cost = F.binary_cross_entropy(probability, positive.to(probability), reduction="none")
    return (cost * share).sum() / share.sum()


def by_clamp(probability, target):
    positive = target > 0.5
    safe = probability.clamp(1e-6, 1 - 1e-6)
    parts = []
    if positive.any():
        parts.append(-(safe * positive + ~positive).log().sum() / positive.sum())
    if not positive.all():
        parts.append(-((1 - safe) * ~positive + positive).log().sum() / (~positive).sum())
    return (sum(parts) / len(parts))[None]


# 02: the three passes


def forward(encoder, snippets, size):
    with torch.no_grad():
        return torch.cat([encoder(chunk) for chunk in snippets.split(size)])


def passes(  # noqa: PLR0913  (a step each)
    encoder,
    snippets,
    loss_of,
    size,
    picked,
    weights,
    *,
    push=None,
    rows=None,
    after=None,
    loss=None,
):
    """Three passes with one step changed."""
    features = forward(encoder, snippets, size).requires_grad_()
    value = loss_of(features)
    value.backward()
    given = features.grad[picked] * weights[:, None]
    if push is not None:
        given = push(features.grad, picked, weights)
    rows = picked if rows is None else rows(picked, len(snippets))
    for index, part in zip(rows.split(size), given.split(size), strict=True):
        encoder(snippets[index]).backward(part)
    if after is not None:
        after(encoder)
    return value.detach() if loss is None else loss(value)


def passes_with(name, **rule):
    def answer(*given):
        return passes(*given, **rule)

    answer.__name__ = name
    return answer


def all_at_once(encoder, snippets, loss_of, size, picked, weights):
    loss = loss_of(encoder(snippets))
    loss.backward()
    return loss.detach()


def keeps_every_chunk(encoder, snippets, loss_of, size, picked, weights):
    encoded = torch.cat([encoder(chunk) for chunk in snippets.split(size)])
    features = encoded.detach().requires_grad_()
    loss = loss_of(features)
    loss.backward()
    forward(encoder, snippets[picked], size)
    encoded[picked].backward(features.grad[picked] * weights[:, None])
    return loss.detach()


def pushes_at_the_end(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    again = torch.cat([encoder(snippets[rows]) for rows in picked.split(size)])
    again.backward(features.grad[picked] * weights[:, None])
    return loss.detach()


def replays_at_once(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    encoder(snippets[picked]).backward(features.grad[picked] * weights[:, None])
    return loss.detach()


def chunk_for_split(encoder, snippets, loss_of, size, picked, weights):
    with torch.no_grad():
        features = torch.cat([encoder(chunk) for chunk in snippets.chunk(size)])
    loss = loss_of(features.requires_grad_())
    loss.backward()
    for rows in picked.split(size):
        encoder(snippets[rows]).backward(features.grad[rows])
    return loss.detach()


def drops_the_rest(encoder, snippets, loss_of, size, picked, weights):
    whole = len(snippets) // size * size or len(snippets)
    return passes(encoder, snippets[:whole], loss_of, size, picked[picked < whole], weights[:1])


def two_passes(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    return loss.detach()


def loss_twice(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss_of(features).backward()
    return passes(encoder, snippets, loss_of, size, picked, weights)


def grad_of_features_only(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    (gradient,) = torch.autograd.grad(loss, features)
    for rows, w in zip(picked.split(size), weights.split(size), strict=True):
        encoder(snippets[rows]).backward(gradient[rows] * w[:, None])
    return loss.detach()


def clears_first(encoder, snippets, loss_of, size, picked, weights):
    encoder.weight.grad = None
    return passes(encoder, snippets, loss_of, size, picked, weights)


def in_single_precision(gradient, picked, weights):
    return (gradient[picked] * weights[:, None]).half().to(gradient)


def one_by_one(encoder, snippets, loss_of, size, picked, weights):
    return passes(encoder, snippets, loss_of, 1, picked, weights)


def every_row(picked, count):
    return torch.arange(count)


def divides(encoder):
    encoder.weight.grad /= 2


def freezes(encoder):
    encoder.weight.requires_grad_(False)


def of_a_dot(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    for rows, w in zip(picked.split(size), weights.split(size), strict=True):
        (encoder(snippets[rows]) * features.grad[rows] * w[:, None]).sum().backward()
    return loss.item()


def by_autograd_grad(encoder, snippets, loss_of, size, picked, weights):
    features = forward(encoder, snippets, size).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    parameters = list(encoder.parameters())
    for rows, w in zip(picked.split(size), weights.split(size), strict=True):
        push = features.grad[rows] * w[:, None]
        for parameter, part in zip(
            parameters, torch.autograd.grad(encoder(snippets[rows]), parameters, push), strict=True
        ):
            parameter.grad = part if parameter.grad is None else parameter.grad + part
    return loss


def by_a_loop(encoder, snippets, loss_of, size, picked, weights):
    parts = []
    for first in range(0, len(snippets), size):
        parts.append(encoder(snippets[first : first + size]).detach())
    features = torch.cat(parts)
    features.requires_grad = True
    loss = loss_of(features)
    torch.autograd.backward(loss)
    for first in range(0, len(picked), size):
        rows = picked[first : first + size].tolist()
        push = features.grad[rows] * weights[first : first + size].reshape(-1, 1)
        torch.autograd.backward([encoder(snippets[rows])], [push])
    return np.float64(loss.item())


def by_a_mask(encoder, snippets, loss_of, size, picked, weights):
    order = picked.argsort()
    return passes(encoder, snippets, loss_of, size, picked[order], weights[order])


WRONG = {
    "matched_actions": [
        (most_shared, "though the long one shares more"),
        (nearest_middle, "an equal middle is not the best fit|the highest tIoU|fits better"),
        (nearest_start, "an equal start is not the best fit|fits better"),
        (first_touched, "fits better|highest tIoU"),
        (best_proposals, "have the shape"),
        (one_for_all, "each proposal has its own"),
        (whole_cells, "the actions themselves"),
        (worst, "fits better"),
        (indices, "have the shape"),
        (itself_without_actions, "for a video without actions every proposal should get [0, 0]"),
        (never_without_actions, "your function raised"),
        (share_of_the_proposal, "fits better"),
        (mixed, "the actions themselves"),
        (sorted_in_place, "in place"),
    ],
    "roi_weights": [
        (roi_like(shift=-0.5), "half a cell earlier"),
        (roi_like(offset=0.0), "the middles of a bin's equal parts"),
        (roi_like(shortest=0.0), "shorter than one cell"),
        (roi_like(places=torch.floor), "round the number up"),
        (roi_like(places=torch.round), "round the number up"),
        (roi_like(places=lambda width: torch.tensor(1.0)), "not the one in its middle"),
        (roi_like(kernel=lambda apart: (apart <= 0.5).double()), "half way between two cells"),
        (roi_like(beyond=1e9), "count 0"),
        (roi_like(beyond=0.0), "less than one cell outside|count 0"),
        (roi_like(reduce=torch.sum), "yours is their sum"),
        (rounded_ends, "nothing is rounded"),
        (adds_up_to_one, "yours adds up to 1"),
        (clamped_segments, "count 0"),
        (cells_first, "have the shape"),
        (first_segment, "other lengths have other places"),
        (covered_share, "cell t has its top at position t"),
        (cell_by_cell, "cell after cell"),
    ],
    "balanced_bce": [
        (plain_mean, "one positive weighs as much as three negatives"),
        (plain_sum, "one positive weighs as much"),
        (sum_of_means, "one positive weighs as much"),
        (half_of_an_empty_group, "without positives"),
        (nan_of_an_empty_group, "without positives"),
        (soft_targets, "a target above 0.5 is a positive, whatever its value"),
        (half_is_positive, "a target above 0.5"),
        (above_zero, "a target above 0.5"),
        (row_by_row, "over the whole batch"),
        (without_epsilon, "add 1e-6"),
        (detached_loss, "lost its way back"),
        (half_detached, "a part of it detached"),
        (as_a_number, "lost its way back"),
        (of_logits, "one positive weighs as much"),
        (squared, "one positive weighs as much"),
        (log_base_two, "one positive weighs as much"),
        (only_positives, "one positive weighs as much"),
        (each_cost, "return one number"),
    ],
    "three_passes": [
        (all_at_once, "24 snippets at once"),
        (keeps_every_chunk, "snippets at once; encode without gradient in pass 1"),
        (pushes_at_the_end, "call backward() after each chunk in pass 3"),
        (replays_at_once, "24 snippets at once"),
        (chunk_for_split, "chunk(n) makes n pieces"),
        (drops_the_rest, "your function raised|all once in pass 1"),
        (two_passes, "saw 24 snippets instead of 24 + 24"),
        (loss_twice, "snippets instead of|called 2 times"),
        (grad_of_features_only, "the detector's weights have no gradient"),
        (clears_first, "added to the .grad that is there"),
        (
            passes_with("no weights", push=lambda g, p, w: g[p]),
            "do the weights reach the push?",
        ),
        (
            passes_with("first rows", push=lambda g, p, w: g[: len(p)] * w[:, None]),
            "its own row of the gradient",
        ),
        (
            passes_with("ones", push=lambda g, p, w: torch.ones_like(g[p])),
            "pushed by 1",
        ),
        (
            passes_with("all replayed", push=lambda g, p, w: g, rows=every_row),
            "instead of 24 + 7",
        ),
        (passes_with("half precision", push=in_single_precision), "differs from that of plain"),
        (passes_with("divided", after=divides), "0.50 times as long"),
        (passes_with("frozen", after=freezes), "switched the encoder's own gradient off"),
        (passes_with("no loss", loss=lambda value: None), "returns nothing"),
        (passes_with("mean loss", loss=lambda value: value.detach() / 24), "the loss to return"),
        (one_by_one, "give it whole chunks"),
    ],
}
RIGHT = {
    "matched_actions": [looped_match, numpy_match, last_of_equals],
    "roi_weights": [roi_like(), by_torchvision, numpy_weights],
    "balanced_bce": [by_weights, by_clamp],
    "three_passes": [of_a_dot, by_autograd_grad, by_a_loop, by_a_mask],
}
