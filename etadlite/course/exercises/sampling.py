"""Checkers of the notebooks 02 to 04, in the order of `CHECKERS`."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.course.exercises.form import answer, wrong_numbers
from etadlite.detector.proposals import valid_proposals
from etadlite.sampling.proposals import ProposalContext
from etadlite.sampling.snippets import SnippetContext


def conv_bytes(attempt: Callable) -> Iterator[str]:
    """Check the bytes that a 2+1 convolution keeps: (mid planes, out planes, (F, H, W), number)."""
    one = (1, 1, 1)
    cases = [
        ((1, 0, one, 1), 2, "the space convolution's output is kept, and again after the ReLU"),
        ((0, 1, one, 1), 2, "the time convolution's output is kept, and again after the ReLU"),
        ((1, 1, (2, 3, 5), 1), 120, "every plane has F · H · W positions"),
        ((3, 2, one, 2), 20, "each number takes `number` bytes, also in half precision"),
    ]
    yield from wrong_numbers("conv_bytes", attempt, cases)


def push(attempt: Callable) -> Iterator[str]:
    """Check a number whose backward() gives the features [n, C] exactly the given gradient."""
    features = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], requires_grad=True)
    gradient = torch.tensor([[2.0, 0.0, -1.0], [5.0, 3.0, -4.0]])
    loss = answer(attempt(features, gradient), (), "backward() alone needs a single number, so")
    if not loss.requires_grad:
        yield "your number has lost its way back to the features; leave detach() and item() out."
    loss.backward()
    given = torch.zeros_like(gradient) if features.grad is None else features.grad
    if torch.equal(given, torch.ones_like(given)):
        yield "every feature is pushed by 1: where does `gradient` come in?"
    if torch.allclose(given * features.numel(), gradient):
        factor = features.numel()
        yield f"every push is {factor} times too small: a mean divides; take the gradient as it is."
    if not torch.allclose(given, gradient):
        first = f"its first number should be {gradient[0, 0]:g}, yours is {given[0, 0]:g}"
        yield f"the gradient should be the one given, whatever the features are; {first}."


class _Watched(nn.Module):
    """An encoder that gives [v, 10 v, 100 v] for a snippet of value v, and notes batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.sizes = nn.Parameter(torch.tensor([1.0, 10.0, 100.0])), []

    def forward(self, frames: Tensor) -> Tensor:
        self.sizes.append(len(frames))
        return frames.float().mean((1, 2, 3, 4))[:, None] * self.scale


def encode_batch(attempt: Callable) -> Iterator[str]:
    """Check features [B, C, N] of (encoder, frames [B, N, 3, F, H, W], chunk_size)."""
    for batch, snippets, chunk_size in ((2, 5, 4), (1, 4, 2), (3, 3, 9)):
        encoder = _Watched()
        values = torch.arange(batch * snippets, dtype=torch.uint8).view(batch, snippets)
        frames = values[:, :, None, None, None, None].expand(-1, -1, 3, 2, 2, 2)
        case = f"for {batch} videos of {snippets} snippets and chunks of {chunk_size}"
        features = answer(attempt(encoder, frames, chunk_size))
        if encoder.sizes and max(encoder.sizes) > chunk_size:
            yield f"{case} the encoder was given {max(encoder.sizes)} snippets at once."
        if sum(encoder.sizes) != batch * snippets:
            seen = f"saw {sum(encoder.sizes)} snippets instead of {batch * snippets}"
            yield f"{case} the encoder {seen}: is the last, smaller chunk there, each encoded once?"
        answer(features, (batch, 3, snippets), case)
        expected = values[:, None].float() * encoder.scale.detach()[:, None]
        if not torch.allclose(features.detach(), expected):
            row = "a row of a video's features should hold one channel of its snippets, in order"
            yield f"{case} the shape is right and the numbers stand in wrong places: {row}."
        if features.requires_grad:
            yield f"{case} autograd still keeps activations; encode under torch.no_grad()."


def sampling_error(attempt: Callable) -> Iterator[str]:
    """Check the mean squared error of a sum of n of N random rows, weighted by N / n."""
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


def epochs_until(attempt: Callable) -> Iterator[str]:
    """Check the epochs after which a share of the proposals was drawn at (ratio, share)."""
    cases = [
        ((0.5, 0.5), 1, "one epoch draws half of them, which is the share already"),
        ((0.5, 0.6), 2, "half is too little; after two epochs a quarter is left"),
        ((0.06, 0.5), 12, "11 epochs miss 0.94 to the power 11 = 0.506; do misses multiply?"),
        ((0.3, 0.99), 13, "0.7 to the power 12 is 0.014, and to the power 13 0.0097"),
    ]
    yield from wrong_numbers("epochs_until", attempt, cases)


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
    cases = [
        ([torch.tensor([[2.0, 6.0]])], 10),
        ([torch.tensor([[3.2, 4.1], [7.0, 15.0]]), torch.tensor([[10.0, 12.0]])], 10),
        ([torch.zeros(0, 2), torch.tensor([[0.0, 1.0], [5.0, 8.0], [9.0, 16.0]])], 3),
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
