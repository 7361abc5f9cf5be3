"""Checkers of the detector's parts in notebook 01, in the order of `CHECKERS`."""

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from etadlite.base.segments import tiou
from etadlite.course.exercises.form import UnfitError, at_most, number, tensor
from etadlite.detector.roi import extend, interpolate
from etadlite.detector.roi import roi_weights as true_weights


def matched_actions(attempt: Callable) -> Iterator[str]:
    """Check the action [P, 2] that fits each proposal best, of (actions, proposals)."""
    cases = [  # actions, proposals, reason
        ([[0, 20], [1, 4]], [[0, 4]], "the short one fits better, though the long one shares more"),
        ([[4, 6], [2, 12]], [[0, 10]], "an equal middle is not the best fit"),
        ([[10, 11], [12, 20]], [[10, 20]], "an equal start is not the best fit"),
        ([[0, 9.75], [10.25, 12]], [[0, 10], [10, 12]], "each proposal has its own best action"),
        ([[3.25, 7.5]], [[0, 4], [3, 8], [6, 7]], "a single action is the best for all proposals"),
        ([[0, 3], [2, 8], [9, 16]], [[1, 8]], "choose by the highest tIoU"),
        ([[0, 4], [4, 8]], [[2, 6]], "of two that fit equally well, either will do"),
    ]
    drawn = random.Random(6)
    for count in (1, 2, 5, 9):
        spans = _drawn_spans(drawn, count), _drawn_spans(drawn, 40)
        cases.append((*spans, "choose by the highest tIoU"))
    for kind in (torch.float32, torch.float64):
        for spans, proposed, reason in cases:
            actions, proposals = (torch.tensor(x, dtype=kind) for x in (spans, proposed))
            case = f"for {len(actions)} actions and {len(proposals)} proposals"
            given = tensor(attempt(actions, proposals), (len(proposals), 2), case)
            fits = tiou(actions[None].double(), proposals[:, None].double())  # [P, A]
            same = (given[:, None] - actions.double()).abs().amax(dim=-1) < 1e-5  # [P, A]
            found = torch.where(same, fits, -1.0).amax(dim=1)
            best = fits.amax(dim=1)
            for row in (found < best - 1e-6).nonzero().flatten().tolist():
                if best[row] == 0 and not given[row].any():  # it touches no action
                    continue
                wanted = actions[int(fits[row].argmax())].tolist()
                place = f"the proposal {_shown(proposed[row])} should get {_shown(wanted)}"
                foreign = "the answer holds the actions themselves, start and end, unchanged"
                why = reason if same[row].any() else foreign
                if best[row] == 0:
                    why = "it touches none, so any of the actions themselves will do, unchanged"
                if not given[row].any():
                    why = "a poor fit may be the best one; zeros are for a video without actions"
                yield f"{case} {place}, yours is {_shown(given[row].tolist())}: {why}."
    proposals = torch.tensor([[0.0, 4.0], [2.0, 3.0], [7.0, 9.0]])
    case = "for a video without actions"
    given = tensor(attempt(torch.zeros(0, 2), proposals), (3, 2), case)
    if given.any():
        yield f"{case} every proposal should get [0, 0], yours get {_shown(given[0].tolist())}."


def _drawn_spans(drawn: random.Random, count: int) -> list[list[float]]:
    starts = [drawn.uniform(0, 50) for _ in range(count)]
    return [[start, start + drawn.uniform(0.3, 9)] for start in starts]


def roi_weights(attempt: Callable) -> Iterator[str]:
    """Check RoIAlign's weights [P, bins, cells] of (segments, bins, cells)."""
    outside = "places beyond -1 and `cells` count 0, and nothing makes up for them"
    cases = [  # segments, bins, cells, reason
        ([[0, 4]], 4, 8, "a place half way between two cells takes half of each"),
        ([[0, 12]], 4, 16, "a bin of 3 cells is the mean of 3 places, not the one in its middle"),
        ([[1, 6]], 4, 12, "a bin of 1.25 cells has 2 places: round the number up"),
        ([[1.5, 4.25]], 2, 8, "ends have fractions; nothing is rounded to cells"),
        ([[3, 3.25]], 4, 8, "a segment shorter than one cell is read as if it were one cell long"),
        ([[5, 5]], 3, 8, "a segment without length is read as if it were one cell long"),
        ([[-4, 4]], 4, 8, outside),
        ([[5, 13]], 4, 8, outside),
        ([[20, 24]], 2, 8, outside),
        ([[-1, 1]], 2, 4, "a place less than one cell outside takes the value of the edge"),
        ([[-1.5, 2.5]], 4, 8, "a place at exactly -1 still counts, at the edge"),
        ([[4.5, 8.5]], 4, 8, "a place at exactly `cells` still counts, at the edge"),
        ([[0, 4], [2, 10], [7, 7.5]], 4, 12, "segments of other lengths have other places"),
    ]
    drawn = random.Random(7)
    for bins, cells in ((3, 10), (16, 64), (5, 31)):
        spans = []
        for _ in range(8):
            start = drawn.uniform(-0.4, 0.9) * cells
            spans.append([start, start + drawn.uniform(0.02, 1) * cells])
        cases.append((spans, bins, cells, "any segments have such weights"))
    for kind in (torch.float32, torch.float64):
        for spans, bins, cells, reason in cases:
            segments = torch.tensor(spans, dtype=kind)
            case = f"for segments {_shown(spans[0])}, {bins} bins and {cells} cells"
            case = case if len(spans) == 1 else f"for {len(spans)} segments, {bins} bins"
            given = tensor(attempt(segments, bins, cells), (len(spans), bins, cells), case)
            wanted = true_weights(segments, cells, bins, aligned=False).double()
            if torch.allclose(given, wanted, atol=2e-4):
                continue
            yield from _known_weights(given, segments, bins, cells, case)
            at = (given - wanted).abs().nan_to_num(9e9).flatten().argmax()
            p, r, t = (int(i) for i in torch.unravel_index(at, given.shape))
            yield (
                f"{case} the weight [{p}, {r}, {t}] should be {wanted[p, r, t]:.3g}, yours is "
                f"{given[p, r, t]:.3g}: {reason}."
            )
    many = torch.tensor([[s / 8, s / 8 + 5 + s % 11] for s in range(400)])
    with at_most(200_000, "for 400 segments yours visits cell after cell; compute them together."):
        given = attempt(many, 16, 64)
    tensor(given, (400, 16, 64), "for 400 segments")


def _known_weights(
    given: Tensor, segments: Tensor, bins: int, cells: int, case: str
) -> Iterator[str]:
    """Name a known mistake: another convention, sums for means, weights that always add up to 1."""
    longer = true_weights(extend(segments), cells, bins, aligned=False).double()
    if torch.allclose(given, longer, atol=2e-4):
        yield f"{case} the segments come already lengthened; yours lengthens them once more."
    aligned = true_weights(segments, cells, bins, aligned=True).double()
    if torch.allclose(given, aligned, atol=2e-4):
        yield (
            f"{case} yours reads half a cell earlier: the places lie in the middles of a bin's "
            "equal parts, and cell t has its top at position t."
        )
    samples = interpolate(segments, cells, bins, aligned=False).samples
    wanted = true_weights(segments, cells, bins, aligned=False).double()
    if torch.allclose(given, wanted * samples[:, None, None], atol=2e-4):
        yield f"{case} a bin is the mean of its places; yours is their sum."
    total = wanted.sum(dim=-1, keepdim=True)
    if torch.allclose(given, wanted / total.clamp(min=1e-9), atol=2e-4):
        yield f"{case} a place outside counts 0, and nothing makes up for it; yours adds up to 1."


def balanced_bce(attempt: Callable) -> Iterator[str]:
    """Check a cross entropy in which positives and negatives weigh the same."""
    cases = [  # probabilities, targets, reason
        ([0.9, 0.2, 0.2, 0.2], [1, 0, 0, 0], "one positive weighs as much as three negatives"),
        ([0.9, 0.7, 0.4], [1, 1, 0], "the mean of both groups' means; neither sum nor plain mean"),
        ([0.2, 0.4], [0, 0], "without positives it is the mean over the negatives alone"),
        ([0.6, 0.9, 0.3], [1, 1, 1], "without negatives it is the mean over the positives alone"),
        ([0.9, 0.2, 0.3], [0.6, 0.5, 0.1], "a target above 0.5 is a positive, whatever its value"),
        ([[0.9, 0.1], [0.2, 0.4]], [[1, 0], [0, 0]], "groups go over the whole batch, not a row"),
    ]
    drawn = random.Random(8)
    for rows, columns in ((3, 40), (1, 7), (5, 64)):
        said, wanted = (
            [[drawn.uniform(0.02, 0.98) for _ in range(columns)] for _ in range(rows)] for _ in "ab"
        )
        cases.append((said, wanted, "positives are targets above 0.5; both groups weigh 1/2"))
    for kind in (torch.float32, torch.float64):
        for said, wanted, reason in cases:
            probability = torch.tensor(said, dtype=kind)
            target = torch.tensor(wanted, dtype=kind)
            expected, slope = _balanced(probability.double(), target > 0.5)
            leaf = probability.clone().requires_grad_()
            loss, case = attempt(leaf * 1.0, target), f"for {list(probability.shape)} probabilities"
            value = number(loss, f"{case} the loss")
            if not abs(value - expected) <= 2e-4 * (1 + abs(expected)):
                yield f"{case} the loss should be {expected:.4f}, yours is {value:.4f}: {reason}."
            found = _slope(loss, leaf, case)
            if not torch.allclose(found.double(), slope, rtol=2e-3, atol=1e-4):
                yield (
                    f"{case} the value is right, but its gradient is not that of the loss: is a "
                    "part of it detached or clamped?"
                )
    for extreme, wanted in ((0.0, 1.0), (1.0, 0.0)):
        leaf = torch.tensor([extreme, 0.5], requires_grad=True)
        target = torch.tensor([wanted, 1 - wanted])
        loss = attempt(leaf * 1.0, target)
        value = number(loss, "the loss")
        # The wrong one alone costs -log(1e-6) = 13.8; half of it remains in the mean of two groups.
        if not 3 < value < 1e6 or not _slope(loss, leaf, "").isfinite().all():
            yield (
                f"a probability of exactly {extreme:g} where {wanted:g} is right gives the loss "
                f"{value:.4g}: add 1e-6 within the logarithms, so that it stays finite, and high."
            )


def _balanced(probability: Tensor, positive: Tensor) -> tuple[float, Tensor]:
    """Return the loss and its slope."""
    groups = [group for group in (positive, ~positive) if group.any()]
    right = torch.where(positive, probability, 1 - probability)
    share = sum(group / group.sum() for group in groups) / len(groups)
    sign = torch.where(positive, -1.0, 1.0)
    return float(-(right.log() * share).sum()), share * sign / right


def _slope(loss: object, leaf: Tensor, case: str) -> Tensor:
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise UnfitError(
            f"{case} the loss has lost its way back to the probabilities; return a torch number, "
            "without item() or detach().".lstrip()
        )
    found = torch.autograd.grad(loss.sum(), leaf, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


def _shown(segment: list[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in segment) + "]"
