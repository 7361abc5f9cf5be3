"""Checkers of 04_proposal_sampling."""

from collections.abc import Callable, Iterator

import torch

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.course.exercises.form import answer, wrong_numbers
from etadlite.detector.proposals import valid_proposals
from etadlite.sampling.proposals import ProposalContext


def count_valid(attempt: Callable) -> Iterator[str]:
    """Check the number of proposals for (cells, longest)."""
    cases = [
        ((4, 2), 7, "4 of one cell and 3 of two; a proposal must end within the video"),
        ((4, 1), 4, "every cell by itself is a proposal, and no longer one is allowed"),
        ((3, 3), 6, "3 of one cell, 2 of two and 1 of three"),
        ((128, 128), 8256, "128 + 127 + ... + 1"),
        ((64, 32), 1552, "64 + 63 + ... + 33, so the longest row still has 33 places"),
    ]
    yield from wrong_numbers("count_valid", attempt, cases)


def scale_chances(attempt: Callable) -> Iterator[str]:
    """Check the probabilities [P] that draw every octave of durations equally often."""
    cases = [
        ([1, 1, 2], [1 / 4, 1 / 4, 1 / 2], "two proposals share the first octave's half"),
        ([2, 3, 1], [1 / 4, 1 / 4, 1 / 2], "2 and 3 cells are the same octave"),
        ([7, 8, 8], [1 / 2, 1 / 4, 1 / 4], "7 cells end one octave (4 to 7), 8 begin the next"),
        ([1, 16], [1 / 2, 1 / 2], "an octave in which no proposal lies takes no share"),
    ]
    for durations, expected, reason in cases:
        case = f"for the durations {durations}"
        given = answer(attempt(torch.tensor(durations).float()), (len(durations),), case)
        if abs(float(given.sum()) - 1) > 1e-5:
            total = f"should add up to 1, yours add up to {float(given.sum()):.3f}"
            yield f"{case} the chances {total}: divide by the number of octaves that occur, too."
        if not torch.allclose(given.double(), torch.tensor(expected).double(), atol=1e-5):
            chances = f"{_shown(expected)}, yours are {_shown(given.tolist())}"
            yield f"{case} the chances should be {chances}: {reason}."


def with_positives(attempt: Callable) -> Iterator[str]:
    """Check a random strategy whose picks contain the best proposal of every action."""
    proposals = valid_proposals(16, 8)  # [100, 2]
    none = torch.zeros(0, 2)
    cases = [
        ([torch.tensor([[2.0, 6.0]])], 10),
        ([torch.tensor([[3.2, 4.1], [7.0, 15.0]]), torch.tensor([[10.0, 12.0]])], 10),
        ([none, torch.tensor([[0.0, 1.0], [5.0, 8.0], [9.0, 16.0]])], 3),
    ]
    for actions, count in cases:
        batch = len(actions)
        case = f"for {', '.join(str(len(a)) for a in actions)} actions in videos and count {count}"
        draws = Draws(range(batch)), Draws(range(100, 100 + batch))
        contexts = [ProposalContext(own, proposals, actions) for own in draws]
        picked, other = (answer(attempt(c, count), (batch, count, 2), case) for c in contexts)
        same = (picked[:, :, None] == proposals).all(dim=-1)  # [B, count, P]
        if not same.any(dim=-1).all():
            yield f"{case} every pick should be one of context.proposals; some of yours are not."
        if int(same.sum(dim=1).max()) > 1:
            yield f"{case} no proposal should be picked twice; one of yours is."
        for own, found in zip(actions, same.any(dim=1), strict=True):
            for action in own:
                best = int(tiou(action, proposals).argmax())
                if not found[best]:
                    fit = f"{proposals[best].tolist()} fits the action {_shown(action.tolist())}"
                    yield f"{case} the proposal {fit} best; it is missing from your picks."
        if count > max(map(len, actions)) and torch.equal(picked, other):
            yield f"{case} other draws should give other picks; use context.draws."


def _shown(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
