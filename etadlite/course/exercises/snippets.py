"""Checkers of 03_snippet_gradient_sampling."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations

import torch

from etadlite.base.draws import Draws
from etadlite.course.exercises.form import answer, wrong_numbers
from etadlite.sampling.snippets import SnippetContext


def sampling_error(attempt: Callable) -> Iterator[str]:
    """Check the mean squared error of a sum of n of N random rows, weighted by N / n.

    The true value enumerates all sets of n rows.
    """
    table = torch.tensor([[1.0, 0.0], [2.0, 3.0], [4.0, -1.0], [9.0, 2.0], [4.0, 6.0]])
    cases = [  # rows, columns, n
        (5, 2, 5, "with all of them picked there is no error left: is the factor (1 - f) there?"),
        (5, 1, 2, "N² (1 - f) / n times its variance, the one that divides by N - 1"),
        (5, 2, 2, "do the variances of all columns add up, each around its own mean?"),
        (3, 2, 1, "does the number of rows come from `rows`, and n from the argument?"),
    ]
    for size, columns, n, reason in cases:
        rows = table[:size, :columns]
        guesses = [size / n * rows[list(s)].sum(dim=0) for s in combinations(range(size), n)]
        errors = torch.stack(guesses) - rows.sum(dim=0)
        case = [((n,), float(errors.square().sum(dim=1).mean()), reason)]
        name = f"sampling_error for {size} rows of {columns} and n = "
        yield from wrong_numbers(name, partial(attempt, rows), case, tolerance=1e-3)


def group_weights(attempt: Callable) -> Iterator[str]:
    """Check the weights [N] of a sampler that draws in two groups."""
    cases = [  # inside, picks inside and outside
        ([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], 2, 1),
        ([0, 1, 0, 1, 1, 0], 3, 1),
        ([1, 0, 0, 0, 0], 1, 2),
    ]
    for marks, n_inside, n_outside in cases:
        inside = torch.tensor(marks, dtype=torch.bool)
        case = f"for {marks.count(1)} snippets inside and {marks.count(0)} outside, "
        case += f"{n_inside} and {n_outside} of them picked,"
        given = answer(attempt(inside, n_inside, n_outside), (len(marks),), case)
        for name, group, picks in (("inside", inside, n_inside), ("outside", ~inside, n_outside)):
            weights, size = given[group].double(), int(group.sum())
            expected, found = size / picks, float(weights.mean())
            if (weights - expected).abs().max() < 1e-4:
                continue
            reason = "a snippet's chance is the picks of its group over the size of its group"
            if abs(found - picks / size) < 1e-4:
                reason = "that is the chance; what is picked seldom has to count more, not less"
            elif abs(found - len(marks) / (n_inside + n_outside)) < 1e-4:
                reason = "that is N / n, which is right only where all have the same chance"
            yield f"{case} one {name} should weigh {expected:.2f}, yours {found:.2f}: {reason}."


def stratified(attempt: Callable) -> Iterator[str]:
    """Check indices [B, n], one drawn in each of n strata."""
    batch = 600
    for snippets, n in ((12, 4), (64, 20), (7, 7), (10, 3)):
        context = SnippetContext(Draws(range(batch)), snippets)
        case = f"for {batch} videos of {snippets} snippets and n = {n}"
        picked = answer(attempt(context, n), (batch, n), case, whole=True)
        borders = torch.arange(n + 1) * snippets // n
        outside = (picked < borders[:-1]) | (picked >= borders[1:])
        if outside.any():
            video, stratum = outside.nonzero()[0].tolist()
            span = f"{int(borders[stratum])} to {int(borders[stratum + 1]) - 1}"
            yours = f"in one video yours is {int(picked[video, stratum])}"
            yield f"{case} pick {stratum} should lie in its stratum, {span}; {yours}."
        shares = picked.flatten().bincount(minlength=snippets) / batch
        widths = borders.diff()
        expected = (1 / widths).repeat_interleave(widths)
        worst = int((shares - expected).abs().argmax())
        if abs(shares[worst] - expected[worst]) > 0.15:
            found = f"snippet {worst} comes in {shares[worst]:.0%} instead of {expected[worst]:.0%}"
            yield f"{case} all snippets of a stratum should have the same chance: {found}."
        place = (picked - borders[:-1])[:, widths == widths.max()]
        if place.shape[1] > 1 and widths.max() > 1 and (place[:, 0] == place[:, 1]).all():
            grid = "yours take the same place in all strata, which is a grid"
            yield f"{case} each stratum should draw for itself; {grid}."
