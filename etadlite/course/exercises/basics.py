"""Checkers of the notebooks 00 and 01, in the order of `CHECKERS`."""

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou as true_tiou
from etadlite.course.exercises.form import (
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
        (((9000, 9010), (9005, 9015)), 1 / 3, "hours later they share 5 s of 15 s as well"),
        (((0, 1 / 64), (1 / 128, 3 / 128)), 1 / 3, "even milliseconds have fractions"),
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
        ((0.1, 9.0), 0.19, "a replay may cost much: pass 1 is then a small part of the step"),
        ((0.5, 0.0), 1.0, "if the replay costs nothing, every ratio costs the same"),
    ]
    numbers = random.Random(2)
    for _ in range(40):
        ratio, replay = numbers.uniform(0, 1), numbers.uniform(0, 12)
        reason = "1 + ratio times replay, over the same at ratio 1, for any two numbers"
        cases.append(((ratio, replay), (1 + ratio * replay) / (1 + replay), reason))
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
        if (steps < snippets // count).any():
            yield (
                f"{case} no gap should be shorter than {snippets // count}, yours has one of "
                f"{int(steps.min())}: spread the picks evenly from the beginning to the end."
            )
        other = SnippetContext(Draws(range(7, 8 + batch)), snippets)
        again = tensor(attempt(other, count), (batch + 1, count), case, whole=True)
        if (again != picked[0]).any():
            yield f"{case} chance should not matter: another call picks other snippets."


def _segments(numbers: random.Random, count: int) -> Tensor:
    starts = [round(numbers.uniform(0, 20), 2) for _ in range(count)]
    return torch.tensor([[s, s + round(numbers.uniform(1, 12), 2)] for s in starts]).double()


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
        (segments[[0, 0, 3]], [0.9, 0.5, 0.2], 0.9, [0, 2], "of two equal ones the better stays"),
        (segments[:1], [0.7], 0.5, [0], "a single segment stays"),
        (segments[[0, 2, 3]], [0.5, 0.0, 0.2], 0.9, [0, 2, 1], "a score of 0 removes nobody"),
    ]
    for spans, scores, threshold, expected, reason in cases:
        given = _indices(attempt(spans.clone(), torch.tensor(scores), threshold))
        if given != expected:
            case = f"scores {scores} and threshold {threshold:g} should pick {expected}"
            yield f"{case}, yours picks {given}: {reason}."
    far = torch.tensor([[0.0, 5.0], [20.0, 25.0], [40.0, 45.0]])
    given = _indices(attempt(far, torch.tensor([0.5, 0.9, 0.5]), 0.5))
    if given not in ([1, 0, 2], [1, 2, 0]):
        yield (
            f"of three segments that lie apart, two of one score, all stay, yours picks {given}: "
            "an equal score is no reason to drop one."
        )
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
