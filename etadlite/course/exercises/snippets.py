"""Checkers of 03_snippet_gradient_sampling."""

from collections.abc import Callable, Iterator
from itertools import combinations

import torch

from etadlite.base.draws import Draws
from etadlite.course.exercises.form import answer, misfit
from etadlite.sampling.snippets import SnippetContext


def sampling_error(attempt: Callable) -> Iterator[str]:
    """Check the mean squared error of a sum of n of N random rows, weighted by N / n.

    The true value enumerates all sets of n rows.
    """
    rows = torch.tensor([[1.0, 0.0], [2.0, 3.0], [4.0, -1.0], [9.0, 2.0], [4.0, 6.0]])
    cases = [
        (rows, 5, "with all of them picked there is no error left: is the factor (1 - f) there?"),
        (rows[:, :1], 2, "N² (1 - f) / n times its variance, the one that divides by N - 1"),
        (rows, 2, "do the variances of all columns add up, each around its own mean?"),
        (rows[:3], 1, "does the number of rows come from `rows`, and n from the argument?"),
    ]
    for given_rows, n, reason in cases:
        size = len(given_rows)
        guesses = [size / n * given_rows[list(s)].sum(dim=0) for s in combinations(range(size), n)]
        errors = torch.stack(guesses) - given_rows.sum(dim=0)
        expected = float(errors.square().sum(dim=1).mean())
        given = answer(attempt(given_rows, n))
        if isinstance(given, torch.Tensor) and given.numel() != 1:
            yield f"it should return one number, yours has the shape {list(given.shape)}."
        given = float(given)
        if not abs(given - expected) <= 1e-3 * max(expected, 1):
            yield (
                f"for {size} rows of {given_rows.shape[1]} and n = {n} it should be "
                f"{expected:.2f}, yours gives {given:.2f}: {reason}"
            )


def group_weights(attempt: Callable) -> Iterator[str]:
    """Check the weights [N] of a sampler that draws in two groups."""
    cases = [  # inside, picks inside and outside
        ([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], 2, 1),
        ([0, 1, 0, 1, 1, 0], 3, 1),
        ([1, 0, 0, 0, 0], 1, 2),
    ]
    for marks, n_inside, n_outside in cases:
        inside = torch.tensor(marks, dtype=torch.bool)
        sizes = int(inside.sum()), int((~inside).sum())
        given = answer(attempt(inside, n_inside, n_outside))
        case = f"for {sizes[0]} snippets inside and {sizes[1]} outside, {n_inside} and {n_outside} "
        case += "of them picked,"
        if wrong := misfit(given, (len(marks),)):
            yield f"{case} it should {wrong}."
        for name, group, size, picks in (
            ("inside", inside, sizes[0], n_inside),
            ("outside", ~inside, sizes[1], n_outside),
        ):
            expected, found = size / picks, float(given[group].double().mean())
            if given[group].double().sub(expected).abs().max() < 1e-4:
                continue
            reason = "a snippet's chance is the picks of its group over the size of its group"
            if abs(found - picks / size) < 1e-4:
                reason = "that is the chance; what is picked seldom has to count more, not less"
            elif abs(found - len(marks) / (n_inside + n_outside)) < 1e-4:
                reason = "that is N / n, which is right only where all have the same chance"
            yield f"{case} one {name} should weigh {expected:.2f}, yours {found:.2f}: {reason}."


def stratified(attempt: Callable) -> Iterator[str]:
    """Check indices [B, n], one drawn in each of n strata."""
    for snippets, n in ((12, 4), (64, 20), (7, 7), (10, 3)):
        batch = 600
        picked = answer(attempt(SnippetContext(Draws(range(batch)), snippets), n))
        case = f"for {snippets} snippets and n = {n}"
        if wrong := misfit(picked, (batch, n)):
            yield f"{case}, in {batch} videos, it should {wrong}."
        if picked.dtype != torch.long:
            yield f"{case} indices should be whole numbers (torch.long), yours are {picked.dtype}."
        borders = torch.arange(n + 1) * snippets // n
        outside = (picked < borders[:-1]) | (picked >= borders[1:])
        if outside.any():
            video, stratum = outside.nonzero()[0].tolist()
            first, last = int(borders[stratum]), int(borders[stratum + 1]) - 1
            yield (
                f"{case} pick {stratum} should lie in its stratum, {first} to {last}; in one video "
                f"yours is {int(picked[video, stratum])}."
            )
        shares = (picked[..., None] == torch.arange(snippets)).double().mean(dim=0).sum(dim=0)
        widths = borders.diff()
        expected = (1 / widths).repeat_interleave(widths)
        if (shares - expected).abs().max() > 0.15:
            worst = int((shares - expected).abs().argmax())
            yield (
                f"{case} all snippets of a stratum should have the same chance: snippet {worst} "
                f"comes in {shares[worst]:.0%} of {batch} videos instead of {expected[worst]:.0%}."
            )
        place = (picked - borders[:-1])[:, widths == widths.max()].double()
        if place.shape[1] > 1 and widths.max() > 1 and (place[:, 0] == place[:, 1]).all():
            yield (
                f"{case} each stratum should draw for itself; yours take the same place in all "
                "strata, which is a grid."
            )
