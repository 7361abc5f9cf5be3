"""Checkers of 00_quickstart."""

from collections.abc import Callable, Iterator

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
