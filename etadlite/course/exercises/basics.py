"""Checkers of the notebooks 00 and 01, in the order of `CHECKERS`."""

from collections.abc import Callable, Iterator

import torch

from etadlite.base.draws import Draws
from etadlite.course.exercises.form import answer, wrong_numbers
from etadlite.sampling.snippets import SnippetContext


def tiou(attempt: Callable) -> Iterator[str]:
    """Check the temporal IoU of two segments (start, end)."""
    cases = [
        (((0, 10), (5, 15)), 1 / 3, "they share 5 s of the 15 s that they cover together"),
        (((2, 6), (2, 6)), 1.0, "a segment overlaps itself completely"),
        (((0, 4), (6, 9)), 0.0, "segments that do not touch share nothing; is yours negative?"),
        (((0, 10), (4, 6)), 0.2, "2 s are shared; the union is the longer segment alone"),
        (((4, 6), (0, 10)), 0.2, "the order of the two segments must not matter"),
    ]
    first = float(answer(attempt(*cases[0][0])))
    if abs(first - 5 / 20) < 1e-6:
        yield "the sum of both lengths counts the shared time twice; yours divides by it."
    if abs(first - 5 / 10) < 1e-6:
        yield "yours is a share of one segment; divide by what both cover together."
    yield from wrong_numbers("tiou", attempt, cases)


def step_cost(attempt: Callable) -> Iterator[str]:
    """Check the cost of a step's encoding at (ratio, replay), relative to ratio 1."""
    cases = [
        ((1.0, 3.0), 1.0, "the cost at ratio 1 is the unit, so the answer there is 1"),
        ((0.0, 3.0), 0.25, "every snippet is still encoded once without gradient"),
        ((0.3, 3.0), 0.475, "encode all once (cost 1), then replay 0.3 of them (cost 3 each)"),
        ((0.5, 2.0), 2 / 3, "does the second argument reach the divisor, too?"),
    ]
    yield from wrong_numbers("step_cost", attempt, cases)


def evenly(attempt: Callable) -> Iterator[str]:
    """Check indices [B, count] for (context, count): ascending, spread evenly."""
    for batch, snippets, count in ((1, 10, 5), (2, 64, 20), (3, 7, 7), (2, 9, 1)):
        context = SnippetContext(Draws.fresh(batch), snippets)
        case = f"for {batch} videos of {snippets} snippets and count {count}"
        picked = answer(attempt(context, count), (batch, count), case, whole=True)
        first, last, gap = int(picked.min()), int(picked.max()), -(-snippets // count)
        if first < 0 or last >= snippets:
            yield f"{case} indices should lie in 0..{snippets - 1}; yours do not."
        steps = picked.diff(dim=1)
        if (steps < 1).any():
            yield f"{case} each index should be larger than the one before; no snippet twice."
        if (steps > gap).any():
            yield f"{case} no gap should exceed {gap}, yours has one of {int(steps.max())}."
        if first >= gap or last < snippets - gap:
            ends = f"from the first {gap} snippets to the last {gap}"
            yield f"{case} the picked ones should reach {ends}; yours cover {first} to {last}."


def count_proposals(attempt: Callable) -> Iterator[str]:
    """Check the number of proposals of (cells, longest)."""
    cases = [
        ((5, 1), 5, "a proposal of one cell can start in every cell"),
        ((5, 2), 9, "5 starts for one cell but 4 for two: the last would end after the video"),
        ((4, 4), 10, "4 + 3 + 2 + 1; does the shortest or the longest go missing?"),
        ((64, 32), 1552, "64 + 63 + ... + 33; proposals longer than 32 cells are not listed"),
    ]
    yield from wrong_numbers("count_proposals", attempt, cases)


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
    ]
    for spans, scores, threshold, expected, reason in cases:
        given = answer(attempt(spans.clone(), torch.tensor(scores), threshold))
        given = given.tolist() if isinstance(given, torch.Tensor) else given
        if given != expected:
            case = f"scores {scores} and threshold {threshold:g} should pick {expected}"
            yield f"{case}, yours picks {given}: {reason}."
