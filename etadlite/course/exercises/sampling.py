"""Checkers of the notebooks 02 to 04, in the order of `CHECKERS`."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from math import ceil, log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.course.exercises.form import (
    UnfitError,
    of_own_draws,
    tensor,
    wrong_numbers,
)
from etadlite.course.exercises.form import (
    number as number_of,
)
from etadlite.detector.proposals import valid_proposals
from etadlite.sampling.proposals import ProposalContext
from etadlite.sampling.snippets import SnippetContext
from etadlite.training.activations import SavedActivations


def conv_bytes(attempt: Callable) -> Iterator[str]:
    """Check the bytes that a 2+1 convolution keeps: (mid planes, out planes, (F, H, W), number)."""
    one = (1, 1, 1)
    cases = [
        (
            (1, 0, one, 1),
            2,
            "the space convolution's output is kept, and again after the ReLU; the input "
            "does not count",
        ),
        ((0, 1, one, 1), 2, "the time convolution's output is kept, and again after the ReLU"),
        ((1, 1, (2, 3, 5), 1), 120, "every plane has F · H · W positions"),
        ((3, 2, one, 2), 20, "each number takes `number` bytes, also in half precision"),
        ((3, 2, one, 8), 80, "each number takes `number` bytes, also in double precision"),
        ((45, 64, (8, 56, 28), 4), 10_938_368, "all four outputs have F · H · W positions"),
        (
            (1024, 1024, (64, 256, 256), 8),
            2**37,
            "137 GB are more than a 32-bit whole number holds; count with Python's own numbers",
        ),
    ]
    yield from wrong_numbers("conv_bytes", attempt, cases, tolerance=0, relative=0)


def push(attempt: Callable) -> Iterator[str]:
    """Check a number whose backward() gives the features [n, C] exactly the given gradient."""
    wanted = torch.tensor([[2.0, 0.0, -1.0, 7.0], [5.0, 3.0, -4.0, 1.0], [0.5, -2.0, 6.0, 8.0]])
    features = torch.tensor([[1.0, -2.0, 3.0, 2.0], [0.5, 4.0, -1.0, 3.0], [2.0, 1.0, 5.0, -3.0]])
    given = _pushed(attempt, features, wanted)
    if torch.equal(given, torch.ones_like(given)):
        yield "every feature is pushed by 1: where does `gradient` come in?"
    if torch.allclose(given * features.numel(), wanted):
        factor = features.numel()
        yield f"every push is {factor} times too small: a mean divides; take the gradient as it is."
    for axis, what in ((1, "channels"), (0, "snippets")):
        if torch.allclose(given * features.shape[axis], wanted):
            yield f"every push is divided by the number of {what}: sum over both axes, no mean."
    if not torch.allclose(given, wanted):
        place = divmod(int((given - wanted).abs().nan_to_num(1e9).argmax()), features.shape[1])
        one = f"its number at {list(place)} should be {wanted[place]:g}, yours is {given[place]:g}"
        yield f"the gradient should be the one given, whatever the features are; {one}."
    stream = torch.Generator().manual_seed(4)
    for shape in ((1, 1), (1, 5), (6, 1), (4, 4), (64, 48)):
        features = torch.randn(shape, generator=stream, dtype=torch.float64)
        features[0, 0] = 0.0
        wanted = 1e3 * torch.randn(shape, generator=stream, dtype=torch.float64)
        given = _pushed(attempt, features, wanted)
        if not (given - wanted).abs().max() < 1e-9:
            off = float((given - wanted).abs().max())
            yield (
                f"for features {list(shape)} in double precision the gradient should be the one "
                f"given, yours differs by up to {off:.1e}: multiply each feature by its own number."
            )


def _pushed(attempt: Callable, features: Tensor, gradient: Tensor) -> Tensor:
    """Return what backward() of the student's number leaves in features made from a leaf."""
    leaf = features.clone().requires_grad_()
    made = leaf * 1.0  # in a training step the features come out of the encoder
    loss = attempt(made, gradient.clone())
    if leaf.grad is not None:
        raise UnfitError("your function runs backward() already; only return the number.")
    if not isinstance(loss, Tensor):
        raise UnfitError(
            "backward() needs a tensor with a way back to the features, and yours is a "
            f"{type(loss).__name__}; compute it in torch, without item()."
        )
    if loss.numel() != 1:
        raise UnfitError(
            "backward() alone needs a single number, so it should have the shape [], yours has "
            f"{list(loss.shape)}."
        )
    if not loss.requires_grad:
        raise UnfitError(
            "your number has lost its way back to the features; leave detach() and item() out."
        )
    if not loss.is_floating_point():
        raise UnfitError(f"the number should be real, yours has the dtype {loss.dtype}.")
    try:
        loss.backward()
    except RuntimeError as error:
        raise UnfitError(f"backward() of your number fails: {error}") from None
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


class _Watched(nn.Module):
    """An encoder in double precision that notes how it is used: [n, 3, F, H, W] -> [n, 6]."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(9)
        self.weight = nn.Parameter(torch.randn(120, 6, generator=stream, dtype=dtype) / 4)
        self.sizes: list[int] = []
        self.wrong = ""

    def forward(self, frames: Tensor) -> Tensor:
        if frames.ndim != 5 or tuple(frames.shape[1:]) != (3, 2, 4, 5):
            shown = list(frames.shape)
            raise UnfitError(f"the encoder takes snippets [n, 3, F, H, W]; yours gives it {shown}.")
        if frames.dtype != torch.uint8:
            self.wrong = f"as {frames.dtype}; it takes bytes (uint8) and normalises by itself"
        self.sizes.append(len(frames))
        return (frames.to(self.weight.dtype).flatten(1) / 255 @ self.weight).tanh()


class _Detector(nn.Module):
    """A loss of features [M, 6] in which every feature meets the others."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.3, 1.5, -0.7], dtype=dtype))
        self.calls = 0

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != 6:
            raise UnfitError(f"loss_of takes features [M, C]; yours gives {list(features.shape)}.")
        self.calls += 1
        scores = features @ self.weight
        return (scores.cumsum(dim=0) / len(scores)).sin().square().sum() + scores.square().mean()


def three_passes(attempt: Callable) -> Iterator[str]:
    """Check gradients, loss and memory of (encoder, snippets, loss_of, chunk_size, picked, w)."""
    cases = [  # M, chunk, picked (None: all), are there weights, dtype
        (24, 4, None, False, torch.float64),
        (25, 4, None, False, torch.float64),
        (24, 4, [3, 4, 5, 11, 12, 19, 23], False, torch.float64),
        (24, 4, [1, 4, 9, 10, 16, 22], True, torch.float64),
        (7, 9, [6, 2, 4], True, torch.float64),
        (5, 1, None, True, torch.float64),
        (24, 5, [20, 3, 8, 1, 13, 14, 2], True, torch.float32),
    ]
    stream = torch.Generator().manual_seed(10)
    for number, (count, chunk, chosen, weighted, dtype) in enumerate(cases):
        shape = (count, 3, 2, 4, 5)
        snippets = torch.randint(256, shape, generator=stream, dtype=torch.uint8)
        picked = torch.arange(count) if chosen is None else torch.tensor(chosen)
        weights = torch.ones(len(picked), dtype=dtype)
        if weighted:
            weights += 2 * torch.rand(len(picked), generator=stream, dtype=dtype)
        encoder, detector = _Watched(dtype), _Detector(dtype)
        wanted = _gradients(encoder, detector, snippets, picked, weights)
        allowed = 1.5 * max(_kept(encoder, snippets[:chunk]), _kept_by(detector, count, dtype))
        # What was there before stays: a later case begins with a gradient.
        for module in (encoder, detector):
            module.weight.grad = torch.ones_like(module.weight) if number > 4 else None
        encoder.sizes.clear()
        detector.calls = 0
        what = "all" if chosen is None else f"{len(picked)} of them"
        case = f"for {count} snippets in chunks of {chunk}, {what} replayed,"
        with SavedActivations(encoder, detector, snippets) as saved:
            loss = attempt(encoder, snippets, detector, chunk, picked, weights)
        yield from _used_well(encoder, detector, count, chunk, len(picked), case)
        if saved.peak_bytes > allowed:
            at_once = saved.peak_bytes / _kept(_Watched(dtype), snippets[:1])
            yield (
                f"{case} autograd keeps the activations of about {at_once:.0f} snippets at once; "
                "encode without gradient in pass 1, and call backward() after each chunk in pass 3."
            )
        value = number_of(loss, f"{case} the loss")
        if not abs(value - wanted.loss) <= 1e-4 * abs(wanted.loss):
            yield f"{case} the loss to return is {wanted.loss:.5g}, yours is {value:.5g}."
        before = float(number > 4)
        yield from _same_gradients(encoder, detector, wanted, before, case)


class _Wanted(NamedTuple):
    loss: float
    encoder: Tensor  # its gradient from the picked snippets, with their weights
    detector: Tensor
    known: dict[str, Tensor]  # a mistake -> the gradient that it makes in the encoder


def _gradients(
    encoder: _Watched, detector: _Detector, snippets: Tensor, picked: Tensor, weights: Tensor
) -> _Wanted:
    """Compute by plain back-propagation what three passes should give."""
    features = encoder(snippets)
    loss = detector(features)
    push, by_detector = torch.autograd.grad(loss, [features, detector.weight], retain_graph=True)

    def pushed(rows: Tensor, gradient: Tensor) -> Tensor:
        return torch.autograd.grad(features[rows], encoder.weight, gradient, retain_graph=True)[0]

    every = torch.arange(len(snippets))
    column = weights[:, None]
    known = {
        "every snippet is replayed: encode again only those in `picked`": pushed(every, push),
        "do the weights reach the push?": pushed(picked, push[picked]),
        "each picked snippet needs its own row of the gradient, gradient[picked]": pushed(
            picked, push[: len(picked)] * column
        ),
        "it is pushed by 1 instead of the features' gradient": pushed(
            picked, torch.ones_like(push[picked])
        ),
        "each weight belongs to the snippet at its own place in `picked`": pushed(
            picked.sort().values, push[picked.sort().values] * column
        ),
        "the weights are taken as they are, not divided by their mean": pushed(
            picked, push[picked] * column / column.mean()
        ),
        "the weights are taken as they are, not divided by their sum": pushed(
            picked, push[picked] * column / column.sum()
        ),
    }
    right = pushed(picked, push[picked] * column)
    return _Wanted(float(loss.detach()), right, by_detector, known)


def _kept(encoder: _Watched, snippets: Tensor) -> int:
    """Return the bytes that one chunk keeps for its backward pass."""
    with SavedActivations(encoder, snippets) as saved:
        encoder(snippets)
    return saved.peak_bytes


def _kept_by(detector: _Detector, count: int, dtype: torch.dtype) -> int:
    features = torch.zeros(count, 6, dtype=dtype, requires_grad=True)
    with SavedActivations(detector) as saved:
        detector(features)
    return saved.peak_bytes


def _used_well(
    encoder: _Watched, detector: _Detector, count: int, chunk: int, picked: int, case: str
) -> Iterator[str]:
    """Yield what is wrong with how encoder and loss are called."""
    if encoder.wrong:
        yield f"{case} the encoder was given the frames {encoder.wrong}."
    if encoder.sizes and max(encoder.sizes) > chunk:
        yield (
            f"{case} the encoder was given {max(encoder.sizes)} snippets at once; "
            "split(n) makes pieces of n, chunk(n) makes n pieces."
        )
    if sum(encoder.sizes) != count + picked:
        seen = f"saw {sum(encoder.sizes)} snippets instead of {count} + {picked}"
        yield f"{case} the encoder {seen}: all once in pass 1, the picked ones again in pass 3."
    if detector.calls != 1:
        yield f"{case} loss_of was called {detector.calls} times; pass 2 calls it once."
    if len(encoder.sizes) > ceil(count / chunk) + ceil(picked / chunk) + 1:
        yield (
            f"{case} the encoder was called {len(encoder.sizes)} times; give it whole chunks "
            f"of {chunk} snippets, as far as there are enough."
        )
    if not (encoder.training and detector.training):
        yield f"{case} your function leaves eval() behind; do not change the mode of a network."
    if not encoder.weight.requires_grad:
        yield f"{case} your function has switched the encoder's own gradient off for good."


def _same_gradients(
    encoder: _Watched, detector: _Detector, wanted: _Wanted, before: float, case: str
) -> Iterator[str]:
    """Yield how the gradients differ from those of plain back-propagation."""
    for name, module, right in (
        ("detector", detector, wanted.detector),
        ("encoder", encoder, wanted.encoder),
    ):
        found = module.weight.grad
        if found is None:
            why = "pass 2 calls backward()" if name == "detector" else "pass 3 pushes it there"
            yield f"{case} the {name}'s weights have no gradient afterwards: {why}."
            return
        near = {"rtol": 1e-4, "atol": 1e-5 if right.dtype == torch.float32 else 1e-10}
        if torch.allclose(found - before, right, **near):
            continue
        if before and torch.allclose(found, right, **near):
            yield f"{case} the gradient should be added to the .grad that is there; yours is lost."
        for why, other in wanted.known.items() if name == "encoder" else ():
            if torch.allclose(found - before, other, **near):
                yield f"{case} the encoder's gradient should be another one: {why}."
        ratio = float((found - before).norm() / right.norm())
        yield (
            f"{case} the {name}'s gradient differs from that of plain back-propagation; it should "
            f"be the same, and is {ratio:.2f} times as long."
        )


def sampling_error(attempt: Callable) -> Iterator[str]:
    """Check the mean squared error of a sum of n of N random rows, weighted by N / n."""
    table = torch.tensor([[1.0, 0.0], [2.0, 3.0], [4.0, -1.0], [9.0, 2.0], [4.0, 6.0]])
    cases = [  # rows, columns, n
        (5, 2, 5, "with all of them picked there is no error left: is the factor (1 - f) there?"),
        (5, 1, 2, "N² (1 - f) / n times its variance, the one that divides by N - 1"),
        (5, 2, 2, "do the variances of all columns add up, each around its own mean?"),
        (3, 2, 1, "does the number of rows come from `rows`, and n from the argument?"),
    ]
    stream = torch.Generator().manual_seed(5)
    tables = [(table[:size, :columns], n, reason) for size, columns, n, reason in cases]
    for size, columns, n in ((7, 3, 4), (8, 9, 3), (9, 40, 6)):
        drawn = 3 * torch.randn(size, columns, generator=stream, dtype=torch.float64) + 2
        tables.append((drawn, n, "the variances of all columns add up, for any rows"))
    for rows, n, reason in tables:
        size, columns = rows.shape
        guesses = [size / n * rows[list(s)].sum(dim=0) for s in combinations(range(size), n)]
        errors = torch.stack(guesses) - rows.sum(dim=0)
        case = [((n,), float(errors.square().sum(dim=1).mean()), reason)]
        name = f"sampling_error for {size} rows of {columns} and n = "
        near = {"tolerance": 1e-3, "relative": 1e-4}
        yield from wrong_numbers(name, partial(attempt, rows.clone()), case, **near)


def group_weights(attempt: Callable) -> Iterator[str]:
    """Check the weights [N] of a sampler that draws in two groups."""
    cases = [  # inside, picks inside and outside
        ([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], 2, 1),
        ([0, 1, 0, 1, 1, 0], 3, 1),
        ([1, 0, 0, 0, 0], 1, 2),
        ([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0], 3, 3),
        ([0] * 40 + [1] * 24, 15, 5),
        ([1] * 3 + [0], 2, 1),
    ]
    for marks, n_inside, n_outside in cases:
        inside = torch.tensor(marks, dtype=torch.bool)
        case = f"for {marks.count(1)} snippets inside and {marks.count(0)} outside, "
        case += f"{n_inside} and {n_outside} of them picked,"
        given = tensor(attempt(inside, n_inside, n_outside), (len(marks),), case)
        for name, group, picks in (("inside", inside, n_inside), ("outside", ~inside, n_outside)):
            weights, size = given[group], int(group.sum())
            expected = size / picks
            off = (weights - expected).abs().nan_to_num(9e9)
            found = float(weights[off.argmax()])
            if off.max() < 1e-4:
                continue
            reason = "a snippet's chance is the picks of its group over the size of its group"
            if abs(found - picks / size) < 1e-4:
                reason = "that is the chance; what is picked seldom has to count more, not less"
            elif abs(found - len(marks) / (n_inside + n_outside)) < 1e-4:
                reason = "that is N / n, which is right only where all have the same chance"
            elif found in (size // picks, round(expected), ceil(expected)):
                reason = "weights need not be whole numbers; divide without rounding"
            yield f"{case} one {name} should weigh {expected:.2f}, yours {found:.2f}: {reason}."


def stratified(attempt: Callable) -> Iterator[str]:
    """Check indices [B, n], one drawn in each of n strata."""
    batch = 1500
    for snippets, n in ((12, 4), (64, 20), (7, 7), (10, 3), (30, 2)):
        case = f"for {batch} videos of {snippets} snippets and n = {n}"
        sample = partial(_stratified_picks, attempt, snippets, n)
        picked = tensor(sample(Draws(range(batch))), (batch, n), case, whole=True)
        borders = torch.arange(n + 1) * snippets // n
        outside = (picked < borders[:-1]) | (picked >= borders[1:])
        if outside.any():
            video, stratum = outside.nonzero()[0].tolist()
            span = f"{int(borders[stratum])} to {int(borders[stratum + 1]) - 1}"
            yours = f"in one video yours is {int(picked[video, stratum])}"
            yield f"{case} pick {stratum} should lie in its stratum, {span}; {yours}."
        if batch > 1 and snippets > n and (picked == picked[0]).all():
            yield (
                f"{case} all snippets of a stratum should have the same chance, and in yours every "
                "video has the same picks: each video should draw for itself."
            )
        shares = picked.flatten().bincount(minlength=snippets) / batch
        widths = borders.diff()
        expected = (1 / widths).repeat_interleave(widths)
        allowed = 5 * (expected * (1 - expected) / batch).sqrt() + 1e-6  # five deviations
        worst = int(((shares - expected).abs() - allowed).argmax())
        if abs(shares[worst] - expected[worst]) > allowed[worst]:
            found = f"snippet {worst} comes in {shares[worst]:.0%} instead of {expected[worst]:.0%}"
            yield f"{case} all snippets of a stratum should have the same chance: {found}."
        place = (picked - borders[:-1] - (widths - 1) / 2)[:, widths > 1]
        if place.shape[1] > 1 and place.T.corrcoef().fill_diagonal_(0).abs().max() > 0.12:
            yield (
                f"{case} each stratum should draw for itself; yours move together, as the picks "
                "of a grid do, with one random number for several strata."
            )
        read = partial(_indices, n=n, case=case)
        yield from of_own_draws(sample, read, case)


def _stratified_picks(attempt: Callable, snippets: int, n: int, draws: Draws) -> object:
    return attempt(SnippetContext(draws, snippets), n)


def _indices(given: object, batch: int, *, n: int, case: str) -> Tensor:
    return tensor(given, (batch, n), case, whole=True)


def epochs_until(attempt: Callable) -> Iterator[str]:
    """Check the epochs after which a share of the proposals was drawn at (ratio, share)."""
    cases = [
        ((0.5, 0.5), 1, "one epoch draws half of them, which is the share already"),
        ((0.5, 0.6), 2, "half is too little; after two epochs a quarter is left"),
        ((0.06, 0.5), 12, "11 epochs miss 0.94 to the power 11 = 0.506; do misses multiply?"),
        ((0.3, 0.99), 13, "0.7 to the power 12 is 0.014, and to the power 13 0.0097"),
        ((0.9, 0.2), 1, "one epoch draws more than enough, and no epoch draws nothing"),
        ((0.01, 0.999), 688, "a small ratio takes long: 0.99 to the power 687 is 0.001003"),
    ]
    for ratio in (0.03, 0.11, 0.25, 0.47, 0.83):
        for share in (0.05, 0.33, 0.61, 0.87, 0.97):
            epochs = ceil(log(1 - share) / log(1 - ratio))
            cases.append(((ratio, share), epochs, "the smallest number that reaches the share"))
    yield from wrong_numbers("epochs_until", attempt, cases, tolerance=0, relative=0)


def scale_chances(attempt: Callable) -> Iterator[str]:
    """Check the probabilities [P] that draw every octave of durations equally often."""
    octaves = [[2**k, 2 ** (k + 1) - 1] for k in range(11)]  # the first and the last of each
    every = [1, *[d for ends in octaves[1:] for d in ends]]
    cases = [
        ([1, 1, 2], [1 / 4, 1 / 4, 1 / 2], "two proposals share the first octave's half"),
        ([2, 3, 1], [1 / 4, 1 / 4, 1 / 2], "2 and 3 cells are the same octave"),
        ([7, 8, 8], [1 / 2, 1 / 4, 1 / 4], "7 cells end one octave (4 to 7), 8 begin the next"),
        ([1, 16], [1 / 2, 1 / 2], "an octave in which no proposal lies takes no share"),
        ([5], [1.0], "a single proposal is always drawn"),
        (every, [1 / 11] + [1 / 22] * 20, "each octave ends just below a power of two"),
    ]
    durations = [4, 1, 9, 2, 2, 40, 33, 3, 1, 17, 5, 6, 7, 8]
    sizes = {
        d.bit_length(): sum(d.bit_length() == e.bit_length() for e in durations) for d in every
    }
    occur = len({d.bit_length() for d in durations})
    expected = [1 / sizes[d.bit_length()] / occur for d in durations]
    cases.append((durations, expected, "the order of the proposals should not matter"))
    for durations, expected, reason in cases:
        case = f"for the durations {durations if len(durations) < 9 else '1, 2, 3, 4, 7, 8, ...'}"
        given = tensor(attempt(torch.tensor(durations).float()), (len(durations),), case)
        if not given.isfinite().all():
            yield f"{case} some of your chances are not finite: is an octave empty?"
        if abs(float(given.sum()) - 1) > 1e-4:
            total = f"should add up to 1, yours add up to {float(given.sum()):.3f}"
            yield f"{case} the chances {total}: divide by the number of octaves that occur, too."
        if not torch.allclose(given, torch.tensor(expected).double(), atol=1e-5):
            chances = f"{_shown(expected)}, yours are {_shown(given.tolist())}"
            yield f"{case} the chances should be {chances}: {reason}."


def with_positives(attempt: Callable) -> Iterator[str]:
    """Check a random strategy whose picks contain the best proposal of every action."""
    proposals = valid_proposals(16, 8)  # [100, 2]
    cases = [
        ([torch.tensor([[2.0, 6.0]])], 10),
        ([torch.tensor([[3.2, 4.1], [7.0, 15.0]]), torch.tensor([[10.0, 12.0]])], 10),
        ([torch.zeros(0, 2), torch.tensor([[0.0, 1.0], [5.0, 8.0], [9.0, 16.0]])], 3),
        ([torch.tensor([[2.0, 6.0], [2.0, 6.0], [2.1, 6.1]])], 5),  # all have the same best one
        ([torch.tensor([[0.0, 1.0], [9.0, 16.0]])], 100),
        ([torch.tensor([[5.4, 5.6]]), torch.tensor([[0.5, 15.5]])], 4),  # none fits well
    ]
    for actions, count in cases:
        batch = len(actions)
        case = f"for {', '.join(str(len(a)) for a in actions)} actions in videos and count {count}"
        draws = Draws(range(batch)), Draws(range(100, 100 + batch))
        contexts = [ProposalContext(own, proposals, actions) for own in draws]
        picked, other = (tensor(attempt(c, count), (batch, count, 2), case) for c in contexts)
        same = (picked[:, :, None] == proposals).all(dim=-1)  # [B, count, P]
        if not same.any(dim=-1).all():
            yield f"{case} every pick should be one of context.proposals; some of yours are not."
        if int(same.sum(dim=1).max()) > 1:
            yield f"{case} no proposal should be picked twice; one of yours is."
        for own, found in zip(actions, same.any(dim=1), strict=True):
            for action in own:
                fits = tiou(action, proposals)
                best = fits >= fits.max() - 1e-6
                if not found[best].any():
                    place = proposals[int(fits.argmax())].tolist()
                    fit = f"{place} fits the action {_shown(action.tolist())}"
                    yield f"{case} the proposal {fit} best; it is missing from your picks."
        if max(map(len, actions)) < count < len(proposals) and torch.equal(picked, other):
            yield f"{case} other draws should give other picks; use context.draws."
    yield from _drawn_fairly(attempt, proposals)


def _drawn_fairly(attempt: Callable, proposals: Tensor) -> Iterator[str]:
    """Yield a fault if the rest is not drawn with equal chances, each video for itself."""
    actions, count, batch = torch.tensor([[2.0, 6.0], [9.0, 16.0]]), 12, 800
    case = f"for 2 actions in each of {batch} videos and count {count}"

    def sample(draws: Draws) -> object:
        own = [actions.clone() for _ in range(len(draws))]
        return attempt(ProposalContext(draws, proposals, own), count)

    def read(given: object, size: int) -> Tensor:
        picked = tensor(given, (size, count, 2), case)
        same = (picked[:, :, None] == proposals).all(dim=-1)
        return same.any(dim=1)  # [B, P] in any order

    yield from of_own_draws(sample, read, case)
    picked = torch.cat([read(part, 1) for part in _rows(sample(Draws(range(batch))), case)])
    shares = picked.double().mean(dim=0)
    rest = shares < 1
    wanted = (count - 2) / (len(proposals) - 2)
    worst = int((shares - wanted).masked_fill(~rest, 0).abs().argmax())
    if int(rest.sum()) != len(proposals) - 2 or abs(float(shares[worst]) - wanted) > 0.06:
        yield (
            f"{case} every other proposal should come as often, in {wanted:.0%} of the draws; "
            f"{proposals[worst].tolist()} comes in {shares[worst]:.0%}."
        )
    together = picked[:, rest].double().T.corrcoef().fill_diagonal_(0)
    if together.max() > 0.3:  # drawn one by one, it stays below 0.2
        one, other = (
            proposals[rest][int(n)].tolist() for n in (together == together.max()).nonzero()[0]
        )
        yield (
            f"{case} the others should be drawn one by one, and in yours {one} and {other} come "
            "together: a block or a grid of proposals is not a random pick."
        )


def _rows(given: object, case: str) -> Iterator[Tensor]:
    yield from tensor(given, None, case).split(1)


def _shown(values: list[float]) -> str:
    more = ", ..." if len(values) > 8 else ""
    return "[" + ", ".join(f"{value:.3g}" for value in values[:8]) + more + "]"
