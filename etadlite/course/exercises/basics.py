"""Checkers of the notebooks 00 and 01, in the order of `CHECKERS`."""

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou as true_tiou
from etadlite.course.exercises.form import (
    at_most,
    no_global_draws,
    number,
    tensor,
    wrong_numbers,
)
from etadlite.sampling.snippets import SnippetContext


def tiou(attempt: Callable) -> Iterator[str]:
    """Check the temporal IoU of two segments (start, end)."""
    cases = [
        (((0, 10), (5, 15)), 1 / 3, "they share 5 s of the 15 s that they cover together"),
        (((2, 6), (2, 6)), 1.0, "a segment overlaps itself completely"),
        (((0, 4), (6, 9)), 0.0, "segments that do not touch share nothing; is yours negative?"),
        (((0, 4), (4, 9)), 0.0, "segments that only touch share no time"),
        (((0, 10), (4, 6)), 0.2, "2 s are shared; the union is the longer segment alone"),
        (((4, 6), (0, 10)), 0.2, "the order of the two segments must not matter"),
        (((0.5, 1.25), (1.0, 3.0)), 0.1, "they share 0.25 s of 2.5 s; seconds have fractions"),
    ]
    first = number(attempt(*cases[0][0]))
    if abs(first - 5 / 20) < 1e-6:
        yield "the sum of both lengths counts the shared time twice; yours divides by it."
    if abs(first - 5 / 10) < 1e-6:
        yield "yours is a share of one segment; divide by what both cover together."
    yield from wrong_numbers("tiou", attempt, cases)
    numbers = random.Random(1)
    for _ in range(200):
        a, b = (
            (start, start + round(numbers.uniform(0.1, 20), 2))
            for start in (round(numbers.uniform(0, 30), 2) for _ in "ab")
        )
        expected = float(true_tiou(torch.tensor(a).double(), torch.tensor(b).double()))
        reason = "it is the shared time over the time covered together, for any two segments"
        yield from wrong_numbers("tiou", attempt, [((a, b), expected, reason)])


def step_cost(attempt: Callable) -> Iterator[str]:
    """Check the cost of a step's encoding at (ratio, replay), relative to ratio 1."""
    cases = [
        ((1.0, 3.0), 1.0, "the cost at ratio 1 is the unit, so the answer there is 1"),
        ((0.0, 3.0), 0.25, "every snippet is still encoded once without gradient"),
        ((0.3, 3.0), 0.475, "encode all once (cost 1), then replay 0.3 of them (cost 3 each)"),
        ((0.5, 2.0), 2 / 3, "does the second argument reach the divisor, too?"),
        ((0.25, 3.89), 1.9725 / 4.89, "neither number is whole, and nothing is rounded"),
        ((0.7, 0.25), 0.94, "a replay may cost less than pass 1, too"),
    ]
    yield from wrong_numbers("step_cost", attempt, cases)


def evenly(attempt: Callable) -> Iterator[str]:
    """Check indices [B, count] for (context, count): ascending, spread evenly."""
    sizes = ((2, 10, 5), (1, 64, 20), (3, 7, 7), (2, 9, 1), (2, 128, 39), (4, 4, 3), (2, 61, 60))
    for batch, snippets, count in sizes:
        context = SnippetContext(Draws(range(batch)), snippets)
        case = f"for {batch} videos of {snippets} snippets and count {count}"
        with no_global_draws(case):
            given = attempt(context, count)
        picked = tensor(given, (batch, count), case, whole=True)
        first, last, gap = int(picked.min()), int(picked.max()), -(-snippets // count)
        if first < 0 or last >= snippets:
            yield f"{case} indices should lie in 0..{snippets - 1}; yours do not."
        steps = picked.diff(dim=1)
        if (steps < 1).any():
            yield f"{case} each index should be larger than the one before; no snippet twice."
        if (picked != picked[0]).any():
            yield f"{case} all videos should have the same picks; yours differ."
        if (steps > gap).any():
            yield f"{case} no gap should exceed {gap}, yours has one of {int(steps.max())}."
        if first >= gap or last < snippets - gap:
            ends = f"from the first {gap} snippets to the last {gap}"
            yield f"{case} the picked ones should reach {ends}; yours cover {first} to {last}."
        other = SnippetContext(Draws(range(7, 8 + batch)), snippets)
        again = tensor(attempt(other, count), (batch + 1, count), case, whole=True)
        if (again != picked[0]).any():
            yield f"{case} chance should not matter: another call picks other snippets."


def count_proposals(attempt: Callable) -> Iterator[str]:
    """Check the number of proposals of (cells, longest)."""
    cases = [
        ((5, 1), 5, "a proposal of one cell can start in every cell"),
        ((5, 2), 9, "5 starts for one cell but 4 for two: the last would end after the video"),
        ((4, 4), 10, "4 + 3 + 2 + 1; does the shortest or the longest go missing?"),
        ((7, 3), 18, "7 + 6 + 5; odd numbers must not be rounded"),
        ((64, 32), 1552, "64 + 63 + ... + 33; proposals longer than 32 cells are not listed"),
    ]
    yield from wrong_numbers("count_proposals", attempt, cases, tolerance=0, relative=0)
    for cells in range(1, 30):
        for longest in range(1, cells + 1):
            expected = sum(cells - d + 1 for d in range(1, longest + 1))
            case = [((cells, longest), expected, "a duration d has T - d + 1 starts; add them up")]
            yield from wrong_numbers("count_proposals", attempt, case, tolerance=0, relative=0)
    large = [((5000, 5000), 12_502_500, "5000 · 5001 / 2; is it exact for large maps?")]
    with at_most(1_000_000, "for 5,000 cells yours lists proposal after proposal; use a formula."):
        faults = list(wrong_numbers("count_proposals", attempt, large, tolerance=0, relative=0))
    yield from faults


def _segments(numbers: random.Random, count: int) -> Tensor:
    starts = [round(numbers.uniform(0, 20), 2) for _ in range(count)]
    return torch.tensor([[s, s + round(numbers.uniform(1, 12), 2)] for s in starts]).double()


def recall_at(attempt: Callable) -> Iterator[str]:
    """Check the share of actions that the best k segments find: (segments, actions, k, tiou)."""
    segments = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 26.0], [40.0, 50.0]])
    actions = torch.tensor([[0.0, 10.0], [20.0, 30.0]])
    cases = [
        ((1, 0.5), 0.5, "the best segment finds one of two actions; only the first k count"),
        ((2, 0.5), 0.5, "both segments find the same action, which counts once"),
        ((3, 0.5), 1.0, "the third finds the second action (tIoU 0.6): both of two are found"),
        ((4, 0.5), 1.0, "the fourth finds nothing, but recall is a share of the actions"),
        ((3, 0.7), 0.5, "a tIoU of 0.6 does not reach a threshold of 0.7"),
        ((1, 1.0), 0.5, "a tIoU of 1 reaches a threshold of 1: at least, not more than"),
        ((9, 0.5), 1.0, "k may exceed the number of segments"),
    ]

    def recall(k: int, threshold: float) -> float:
        return attempt(segments.clone(), actions.clone(), k, threshold)

    yield from wrong_numbers("recall for k and threshold of ", recall, cases)
    wide = torch.tensor([[0.0, 10.0]]), torch.tensor([[0.0, 4.0], [5.0, 10.0]])
    if abs(number(attempt(*wide, 1, 0.3)) - 1) > 1e-6:
        yield "a segment may find two actions: 0 to 10 has a tIoU of 0.4 with 0 to 4 and 0.5 " + (
            "with 5 to 10, so at a threshold of 0.3 the recall should be 1."
        )
    numbers = random.Random(2)
    for _ in range(60):
        drawn, true = _segments(numbers, numbers.randint(1, 9)), _segments(numbers, 3)
        k, threshold = numbers.randint(1, 9), round(numbers.uniform(0.1, 0.8), 3)
        fits = true_tiou(drawn[:k, None], true)
        if (fits - threshold).abs().min() < 1e-4:
            continue
        expected = float((fits.amax(dim=0) >= threshold).double().mean())
        found = number(attempt(drawn, true, k, threshold))
        if abs(found - expected) > 1e-5:
            yield (
                f"for {len(drawn)} segments, 3 actions, k = {k} and threshold {threshold:g} recall "
                f"should be {expected:.3f}, yours gives {found:.3f}: compare the first k segments "
                "with every action."
            )


def hard_nms(attempt: Callable) -> Iterator[str]:
    """Check the picks of hard NMS for (segments, scores, threshold)."""
    segments = torch.tensor([[0.0, 10.0], [4.0, 14.0], [8.0, 18.0], [30.0, 40.0]])
    same = torch.tensor([[0.0, 5.0], [0.0, 10.0]])
    falling, rising, mixed = [0.9, 0.5, 0.3, 0.2], [0.2, 0.3, 0.5, 0.9], [0.3, 0.9, 0.5, 0.2]
    overlap = "0 removes 1 (tIoU 6 / 14); 2 overlaps only the removed one, so it stays"
    cases = [
        (segments, falling, 0.9, [0, 1, 2, 3], "no tIoU reaches 0.9, so all stay, best first"),
        (segments, rising, 0.9, [3, 2, 1, 0], "the best goes first, at any place in the list"),
        (segments, falling, 0.4, [0, 2, 3], overlap),
        (segments, mixed, 0.4, [1, 3], "the best removes both of its neighbours"),
        (same, [0.5, 0.9], 0.5, [1], "a tIoU of exactly the threshold removes"),
        (segments[[0, 0, 3]], [0.5, 0.9, 0.2], 0.9, [1, 2], "of two equal segments one stays"),
        (segments[:1], [0.7], 0.5, [0], "a single segment stays"),
    ]
    for spans, scores, threshold, expected, reason in cases:
        given = _indices(attempt(spans.clone(), torch.tensor(scores), threshold))
        if given != expected:
            case = f"scores {scores} and threshold {threshold:g} should pick {expected}"
            yield f"{case}, yours picks {given}: {reason}."
    numbers = random.Random(3)
    for _ in range(60):
        spans = _segments(numbers, numbers.randint(2, 14))
        fits, threshold = true_tiou(spans[:, None], spans), round(numbers.uniform(0.1, 0.8), 3)
        if (fits - threshold).abs().min() < 1e-4:
            continue
        scores = torch.tensor(numbers.sample(range(1, 1000), len(spans))).double() / 1000
        kept: list[int] = []
        for index in scores.argsort(descending=True).tolist():
            if all(fits[index, other] < threshold for other in kept):
                kept.append(index)
        if (given := _indices(attempt(spans, scores, threshold))) != kept:
            yield (
                f"of {len(spans)} drawn segments at threshold {threshold:g} hard NMS should pick "
                f"{kept}, yours picks {given}: only a *picked* segment removes others."
            )


def _indices(value: object) -> list[int]:
    found = tensor(value, case="of the picked segments", whole=True)
    return found.flatten().tolist()
