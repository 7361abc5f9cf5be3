"""Checkers of the notebooks 05 to 07, in the order of `CHECKERS`."""

import random
from collections.abc import Callable, Iterator
from math import ceil, exp, inf, nan

import torch

from etadlite.course.exercises.form import number, tensor, wrong_numbers


def hours_left(attempt: Callable) -> Iterator[str]:
    """Check the hours of a training from (videos, batch, epochs, seconds per step)."""
    cases = [
        ((3600, 4, 1, 4.0), 1.0, "900 steps of 4 s; a step takes a whole batch"),
        ((3600, 4, 6, 4.0), 6.0, "every epoch sees all videos again"),
        ((10, 4, 1, 1200.0), 1.0, "10 videos are 2 full batches and a smaller one: 3 steps"),
        ((10, 4, 2, 600.0), 1.0, "each epoch ends with its own smaller batch"),
        ((3, 4, 1, 1800.0), 0.5, "fewer videos than a batch are a step as well"),
        ((50, 1, 2, 3600.0), 100.0, "a training may take longer than a day"),
    ]
    numbers = random.Random(6)
    for _ in range(40):
        videos, batch, epochs = (numbers.randint(1, top) for top in (10_000, 64, 30))
        seconds = round(numbers.uniform(0.05, 9), 3)
        expected = ceil(videos / batch) * epochs * seconds / 3600
        reason = "steps per epoch, rounded up, times epochs and seconds; the hours are not rounded"
        cases.append(((videos, batch, epochs, seconds), expected, reason))
    if abs(number(attempt(*cases[0][0])) - 3600) < 1e-3:
        yield "900 steps of 4 s take 1 hour, yours gives 3600; is it in seconds?"
    yield from wrong_numbers("hours_left", attempt, cases)


def fuse(attempt: Callable) -> Iterator[str]:
    """Check scores [S, k] from segments' scores [S], class scores [K] and k."""
    scores, classes = torch.tensor([0.5, 1.0, 0.2]), torch.tensor([0.1, 0.6, 0.0, 0.3])
    expected = torch.tensor([[0.3, 0.15], [0.6, 0.3], [0.12, 0.06]]).double()
    case = "for 3 segments and 2 of 4 classes"
    got = tensor(attempt(scores, classes, 2), (3, 2), case)
    best = classes.topk(2).values
    if torch.allclose(got, expected.flip(1)):
        yield "the best class should stand first; yours come in the opposite order."
    if torch.allclose(got, (scores[:, None] * classes[:2]).double()):
        yield "yours takes the first 2 classes; take the 2 with the highest scores."
    if torch.allclose(got, (scores[:, None] * classes.topk(2).indices).double()):
        yield "yours multiplies by the numbers of the classes; multiply by their scores."
    if torch.allclose(got, (scores[:, None] + best).double()):
        yield "yours adds the scores; fusion multiplies them."
    if torch.allclose(got, (scores[:, None] * best / best.sum()).double()):
        yield "yours divides by the sum of the best classes; take their scores as they are."
    if not torch.allclose(got, expected):
        yours = "{:.2f} and {:.2f}".format(*got[0].tolist())
        yield f"0.5 with classes of 0.6 and 0.3 should score 0.30 and 0.15, yours gives {yours}."
    if not torch.allclose(
        tensor(attempt(scores, classes, 1), (3, 1), "with k = 1"), expected[:, :1]
    ):
        yield "with k = 1 only the best class should remain; does k reach your answer?"
    stream = torch.Generator().manual_seed(7)
    for size, kinds, k in ((2, 2, 2), (3, 3, 3), (1, 20, 5), (40, 200, 2), (5, 7, 7), (4, 9, 4)):
        scores = torch.rand(size, generator=stream, dtype=torch.float64)
        classes = 3 * torch.rand(kinds, generator=stream, dtype=torch.float64)  # no probabilities
        case = f"for {size} segments and {k} of {kinds} classes"
        got = tensor(attempt(scores, classes, k), (size, k), case)
        wanted = scores[:, None] * classes.sort(descending=True).values[:k]
        if size == k and torch.allclose(got, wanted.T, atol=1e-5):
            yield f"{case} a row should be a segment and a column a class, yours are swapped."
        if not torch.allclose(got, wanted, atol=1e-5):
            row, column = divmod(int((got - wanted).abs().argmax()), k)
            yield (
                f"{case} segment {row} with class {column} should score {wanted[row, column]:.3f}, "
                f"yours gives {got[row, column]:.3f}: its score times that of the class, unchanged."
            )
    scores = torch.tensor([0.5, 1.0, 0.2])
    equal = torch.tensor([0.25, 0.75, 0.1, 0.75])
    got = tensor(attempt(scores, equal, 3), (3, 3), "with two classes of the same score")
    if not torch.allclose(got, (scores[:, None] * torch.tensor([0.75, 0.75, 0.25])).double()):
        yield "two classes of the same score are two classes: both are among the best 3."


def average_precision(attempt: Callable) -> Iterator[str]:
    """Check average precision of one class, from (scores [P], overlaps [P, A], threshold)."""
    alone, both = [[0.8], [0.9]], [[0.9, 0.6], [0.8, 0.7]]
    half = "the first of two actions is found at once: precision 1, for one action of two"
    best = "the better one takes action 0, on which it lies best; the other one is left action 1"
    greedy = (
        "the better one takes action 1, on which it lies best; action 0 is too far for the other"
    )
    wrong_first = "the wrong one has the higher score, and takes no action: 1 of 2 right"
    late = "precisions 1 and 2 / 3; a later place in the list reaches no more"
    more = "at the first right one 1 of 2 is right, but a later place reaches 2 / 3: take that"
    cases = [
        ([0.9], [[0.7]], 0.5, 1.0, "one action, found by the only detection"),
        ([0.9], [[0.4]], 0.5, 0.0, "a tIoU of 0.4 does not reach 0.5"),
        ([0.9], [[0.499]], 0.5, 0.0, "a tIoU of 0.499 does not reach 0.5 either"),
        ([0.9], [[0.5]], 0.5, 1.0, "a tIoU of exactly the threshold is enough"),
        ([0.9], [[0.6]], 0.7, 0.0, "a tIoU of 0.6 does not reach 0.7; use `threshold`"),
        ([0.9], [[0.7, 0.0]], 0.5, 0.5, half),
        ([0.2, 0.9], [[0.7], [0.1]], 0.5, 0.5, wrong_first),
        ([0.9, 0.8], alone, 0.5, 1.0, "the second one is a duplicate, but stands below"),
        ([0.9, 0.8, 0.7], [[0.8, 0], [0.9, 0], [0, 0.6]], 0.5, 5 / 6, f"a duplicate: {late}"),
        ([0.9, 0.8, 0.7], [[0, 0], [0.9, 0], [0, 0.6]], 0.5, 2 / 3, more),
        ([0.9, 0.8], both, 0.5, 1.0, best),
        ([0.9, 0.8], [[0.6, 0.9], [0.3, 0.8]], 0.5, 0.5, greedy),
        ([0.9, 0.8], [[0.4], [0.9]], 0.5, 0.5, "what does not reach the threshold takes no action"),
        ([0.9, 0.9], [[0.8, 0], [0, 0.7]], 0.5, 1.0, "two detections of one score are two"),
        ([], [], 0.5, 0.0, "without a detection no action is found"),
    ]
    for scores, rows, threshold, expected, reason in cases:
        fits = torch.tensor(rows) if rows else torch.zeros(0, 2)
        given = number(attempt(torch.tensor(scores), fits, threshold), "average precision")
        if not abs(given - expected) <= 1e-5:  # NaN is wrong, too
            asked = f"scores {scores}, overlaps {rows} and threshold {threshold:g}"
            yield f"{asked} should give {expected:.3f}, yours gives {given:.3f}: {reason}."
    stream = torch.Generator().manual_seed(10)
    for size, actions in ((1, 1), (2, 5), (6, 3), (9, 2), (20, 8), (60, 12), (60, 1), (5, 40)):
        for threshold in (0.3, 0.5, 0.75):
            scores = torch.rand(size, generator=stream, dtype=torch.float64)
            fits = torch.rand(size, actions, generator=stream, dtype=torch.float64)
            expected = _average_precision(scores, fits, threshold)
            given = number(attempt(scores, fits, threshold), "average precision")
            if not abs(given - expected) <= 1e-5:  # NaN is wrong, too
                yield (
                    f"with {size} detections, {actions} actions and threshold {threshold:g} it "
                    f"should be {expected:.4f}, yours gives {given:.4f}: each detection, best "
                    "first, takes the free action on which it lies best, if the tIoU suffices."
                )


def _average_precision(scores: torch.Tensor, fits: torch.Tensor, threshold: float) -> float:
    """Return average precision: for each action found, the best precision from there on."""
    right, free = [], fits.clone()
    for row in scores.argsort(descending=True).tolist():
        best = int(free[row].argmax())
        right.append(float(free[row, best]) >= threshold)
        if right[-1]:
            free[:, best] = -1
    precisions = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))]
    return sum(max(precisions[n:]) for n, hit in enumerate(right) if hit) / fits.shape[1]


def seconds_of(attempt: Callable) -> Iterator[str]:
    """Check the seconds at (cell, first frame, stride, offset, frames per second)."""
    cases = [
        ((0, 300, 4, 0, 30.0), 10.0, "frame 300 at 30 frames per second is second 10"),
        ((15, 300, 4, 0, 30.0), 12.0, "15 cells of 4 frames are 60 frames, 2 s more"),
        ((0, 0, 4, 15, 30.0), 0.5, "a snippet stands for the frame `offset` after its first"),
        ((2.5, 25, 8, 5, 25.0), 2.0, "a position may lie between two cells: 25 + 5 + 20 frames"),
        ((0.3, 7, 3, 1, 29.97), 8.9 / 29.97, "nothing is rounded: 7 + 1 + 0.9 frames"),
        ((64, 54_000, 4, 16, 30.0), 1809.0667, "hours later it is the same: 54,272 frames"),
    ]
    numbers = random.Random(12)
    for _ in range(40):
        cell, fps = numbers.uniform(0, 128), numbers.choice([10.0, 23.976, 25.0, 59.94])
        first, stride, offset = (numbers.randint(0, top) for top in (90_000, 16, 32))
        expected = (first + offset + cell * stride) / fps
        reason = "first frame, offset and `stride` frames per cell, over the frames per second"
        cases.append(((cell, first, stride, offset, fps), expected, reason))
    yield from wrong_numbers("seconds_of", attempt, cases)


def merge_windows(attempt: Callable) -> Iterator[str]:
    """Check rows [K, 4] (pick, start, end, score) of (segments, scores, sigma, voting, least)."""
    far = torch.tensor([[0.0, 10.0], [20.0, 30.0], [40.0, 44.0]])
    twice = torch.tensor([[0.0, 10.0], [0.0, 9.0], [50.0, 52.0]])
    copies = torch.tensor([[5.0, 9.0], [5.0, 9.0], [60.0, 61.0]])
    # Detections, their scores, sigma, voting, least; then the expected rows, and why.
    cases = [
        (far, [0.5, 0.9, 0.7], 0.5, 0.9, 0.01,
         [(1, 20, 30, 0.9), (2, 40, 44, 0.7), (0, 0, 10, 0.5)],
         "detections that do not overlap keep their scores, the best first"),
        (far, [0.5, 0.9, 0.7], 0.5, 0.9, 0.6, [(1, 20, 30, 0.9), (2, 40, 44, 0.7)],
         "a detection below `least` is not reported"),
        (far, [0.5, 0.9, 0.75], 0.5, 0.9, 0.75, [(1, 20, 30, 0.9), (2, 40, 44, 0.75)],
         "a detection of exactly `least` is reported"),
        (far, [0.5, 0.3, 0.2], 0.5, 0.9, 0.6, [],
         "no score reaches `least`, so there is no row"),
        (twice, [0.8, 0.4, 0.6], 0.3, 0.95, 0.001,
         [(0, 0, 10, 0.8), (2, 50, 52, 0.6), (1, 0, 9, 0.4 * exp(-(0.9**2) / 0.3))],
         "a tIoU of 0.9 multiplies a score by exp(-0.81 / 0.3) = 0.067 for good; "
         "nobody else votes"),
        (twice, [0.8, 0.4, 0.6], 0.9, 0.95, 0.001,
         [(0, 0, 10, 0.8), (2, 50, 52, 0.6), (1, 0, 9, 0.4 * exp(-(0.9**2) / 0.9))],
         "with `sigma` 0.9 the factor is exp(-0.81 / 0.9) = 0.407"),
        (twice, [0.6, 0.3, 0.5], 0.3, 0.85, 0.1, [(0, 0, 29 / 3, 0.6), (2, 50, 52, 0.5)],
         "0 and 1 overlap by 0.9 and vote: (0.6 * 10 + 0.3 * 9) / 0.9 = 9.667; scores weigh"),
        (copies, [0.6, 0.9, 0.5], 0.5, 0.95, 0.001,
         [(1, 5, 9, 0.9), (2, 60, 61, 0.5), (0, 5, 9, 0.6 * exp(-2))],
         "an exact copy of a pick has a tIoU of 1, and its score is lowered like any other"),
    ]  # fmt: skip
    for segments, scores, *limits, rows, reason in cases:
        given = _rows(attempt(segments, torch.tensor(scores), *limits), len(rows), reason)
        expected = torch.tensor(rows, dtype=torch.float64).view(-1, 4)
        if not torch.allclose(given, expected, atol=1e-4):
            place, column = divmod(int((given - expected).abs().argmax()), 4)
            what = ("pick", "start", "end", "score")[column]
            yield (
                f"of segments {segments.tolist()} with scores {scores}, sigma, voting and least "
                f"{limits}, row {place} should have the {what} {expected[place, column]:.4g}, "
                f"yours {given[place, column]:.4g}: {reason}."
            )
    stream = torch.Generator().manual_seed(11)
    for size, sigma, voting in ((1, 0.5, 0.9), (8, 0.3, 0.5), (25, 0.1, 0.8), (60, 0.9, 0.3)):
        begin = 30 * torch.rand(size, generator=stream, dtype=torch.float64)
        length = 1 + 9 * torch.rand(size, generator=stream, dtype=torch.float64)
        segments = torch.stack([begin, begin + length], dim=1)
        scores = torch.rand(size, generator=stream, dtype=torch.float64)
        limits = sigma, voting, 0.05 * float(scores.max())
        expected = _merged(segments, scores, *limits)
        case = f"{size} drawn detections (sigma {sigma:g}, voting {voting:g})"
        given = _rows(attempt(segments, scores, *limits), len(expected), f"of {case}")
        if given[:, 0].tolist() != expected[:, 0].tolist():
            yield (
                f"of {case} other ones are picked: lower *all* scores after each pick, and pick "
                "each detection once."
            )
        if not torch.allclose(given[:, 3], expected[:, 3], atol=1e-5):
            yield f"of {case} a score is wrong: report the score that is left when it is picked."
        if not torch.allclose(given, expected, atol=1e-4):
            yield (
                f"of {case} a place is wrong: all *given* segments with a tIoU of at least "
                "`voting` to the pick vote, with the scores that were given."
            )


def _rows(value: object, count: int, case: str) -> torch.Tensor:
    """Return an answer's rows; an answer without rows may have any shape."""
    found = tensor(value, case=case)
    return tensor(found, (count, 4), f"({case})") if count or found.numel() else found.view(0, 4)


def _merged(
    segments: torch.Tensor, scores: torch.Tensor, sigma: float, voting: float, least: float
) -> torch.Tensor:
    """Return the rows of soft-NMS with voting, in plain loops."""
    spans, left, rows = segments.tolist(), dict(enumerate(scores.tolist())), []

    def fit(one: list[float], other: list[float]) -> float:
        shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
        return shared / (one[1] - one[0] + other[1] - other[0] - shared)

    while left and max(left.values()) >= least:
        pick = max(left, key=left.__getitem__)
        score = left.pop(pick)
        voters = [n for n, span in enumerate(spans) if fit(span, spans[pick]) >= voting]
        weight = sum(float(scores[n]) for n in voters)
        place = [sum(float(scores[n]) * spans[n][end] for n in voters) / weight for end in (0, 1)]
        rows.append([pick, *place, score])
        left = {n: s * exp(-(fit(spans[n], spans[pick]) ** 2) / sigma) for n, s in left.items()}
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4)


def lower(attempt: Callable) -> Iterator[str]:
    """Check lowered scores [P] from (scores, overlaps, labels, label, sigma)."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    overlaps, labels = torch.tensor([1.0, 0.5, 0.5, 0.0]), torch.tensor([1, 1, 0, 1])
    got = tensor(attempt(scores, overlaps, labels, 1, 0.5), (4,), "for 4 detections")
    cases = [
        (2, 0.7, "of another class should keep its score of 0.70 (compare `labels` with `label`)"),
        (3, 0.6, "that does not overlap the pick should keep its score of 0.60"),
        (1, 0.8 * exp(-0.5), "with a tIoU of 0.5 should become 0.80 exp(-0.25 / 0.5) = 0.49"),
        (0, 0.9 * exp(-2), "with a tIoU of 1, as an exact copy has, should become 0.12"),
    ]
    for place, expected, what in cases:
        if abs(float(got[place]) - expected) > 1e-5:
            hint = "; is the tIoU squared, and sigma used?" if place == 1 else "."
            yield f"a detection {what}, yours has {float(got[place]):.2f}{hint}"
    other = tensor(attempt(scores, overlaps, labels, 0, 0.25), (4,), "for 4 detections")
    if not torch.allclose(other, torch.tensor([0.9, 0.8, 0.7 * exp(-1), 0.6]).double(), atol=1e-5):
        yield "with the pick in class 0 and sigma 0.25, only the third score should fall, to 0.26."
    stream = torch.Generator().manual_seed(8)
    for size, label, sigma in ((1, 0, 0.5), (5, 3, 0.35), (60, 7, 0.1), (60, 0, 2.0)):
        scores, overlaps = torch.rand(2, size, generator=stream, dtype=torch.float64)
        labels = torch.randint(9, (size,), generator=stream)
        labels[0] = label
        got = tensor(attempt(scores, overlaps, labels, label, sigma), (size,), "for the detections")
        wanted = scores * torch.where(labels == label, torch.exp(-(overlaps**2) / sigma), 1.0)
        if not torch.allclose(got, wanted, atol=1e-5):
            place = int((got - wanted).abs().argmax())
            yield (
                f"of {size} detections with sigma {sigma:g}, one of class {int(labels[place])} "
                f"with a tIoU of {overlaps[place]:.2f} to a pick of class {label} should go from "
                f"{scores[place]:.3f} to {wanted[place]:.3f}, yours gives {got[place]:.3f}."
            )


def seconds(attempt: Callable) -> Iterator[str]:
    """Check the seconds of a time as text; NaN if it can mean two things."""
    cases = [
        (("7",), 7.0, "text without a colon is seconds"),
        (("83.5",), 83.5, "text without a colon is seconds"),
        (("0:59",), 59.0, "no minute, 59 seconds"),
        (("00:08.25",), 8.25, "a player shows 8.25 seconds as 00:08.25: zeros may stand in front"),
        (("1:23.5",), 83.5, "one minute of 60 s and 23.5 s; the seconds may have a fraction"),
        (("2:00",), 120.0, "two minutes of 60 s"),
        (("1:00:00",), 3600.0, "with three parts the first is hours, each of 60 minutes of 60 s"),
        (("0:01:23.5",), 83.5, "with three parts the first is hours, the second minutes"),
        (("1:83",), nan, "no minute has 83 seconds, so it may be a slip for 1:38 or 183"),
        (("0:83",), nan, "no minute has 83 seconds, also if it is the first one"),
        (("1:60",), nan, "the next minute begins at 60, so a player writes 2:00"),
        (("1:75:00",), nan, "no hour has 75 minutes: minutes, too, must stay below 60"),
        (("90:00",), 5400.0, "the first part has no limit: a film may last 90 minutes"),
        (("100:59:59.75",), 363599.75, "the first part has no limit, and seconds have fractions"),
        (("0:59.999",), 59.999, "59.999 seconds are below 60"),
        (("1:61:61",), nan, "neither the minutes nor the seconds may reach 60"),
        (("0",), 0.0, "0 is a time as well"),
    ]
    yield from wrong_numbers("seconds", attempt, cases)


def best_threshold(attempt: Callable) -> Iterator[str]:
    """Check the cheapest lowest score, from (scores, right, actions, alarm, miss)."""
    scores, right = [0.9, 0.8, 0.6, 0.5, 0.3, 0.2], [True, False, True, True, False, True]
    few, good = [0.9, 0.8, 0.6], [True, False, True]
    mixed = ([0.2, 0.6, 0.9, 0.5], [True, True, True, False], 3, 1, 0.4)
    worse = ([0.9, 0.3, 0.2], [False, True, False], 1, 2, 1)
    equal = ([0.7, 0.7, 0.4], [True, False, True], 2, 3, 1.2)
    cases = [
        (([0.9, 0.4], [True, False], 1, 1, 1), 0.9, "a score of 0.9 reaches a threshold of 0.9"),
        ((few, good, 2, 4, 1), 0.9, "an alarm costs 4 and a miss 1, not the other way round"),
        ((few, good, 2, 1, 4), 0.6, "0.9 would miss an action, and a miss costs 4"),
        ((scores, right, 4, 1, 0.8), 0.5, "one false alarm and one miss cost 1.8 together"),
        ((scores, right, 4, 1, 10), 0.2, "a miss is expensive, so keep all right detections"),
        ((scores, right, 4, 4, 1), 0.9, "an alarm is expensive, so stop before the first one"),
        ((scores, right, 9, 1, 10), 0.2, "actions that no detection finds always cost the same"),
        (mixed, 0.6, "the detections need not be in order"),
        (worse, inf, "the best detection is wrong, and to keep none costs only one miss"),
        (equal, inf, "equal scores are kept together, so 0.7 costs an alarm and a miss"),
    ]
    given = number(attempt([0.9, 0.4], [True, False], 1, 1, 1))
    if given != inf and min(abs(given - 0.9), abs(given - 0.4)) > 1e-5:
        yield (
            f'of the scores 0.9 and 0.4 return one, or float("inf"), yours gives {given:g}; a '
            "score of 0.9 reaches a threshold of 0.9."
        )
    yield from wrong_numbers("best_threshold", attempt, cases)
    numbers = random.Random(9)
    for _ in range(60):
        size = numbers.randint(1, 12)
        scores = [numbers.randint(1, 20) / 20 for _ in range(size)]
        right = [numbers.random() < 0.5 for _ in range(size)]
        actions = sum(right) + numbers.randint(0, 3)
        alarm, miss = round(numbers.uniform(0.1, 5), 2), round(numbers.uniform(0.1, 5), 2)

        drawn = scores, right, actions, alarm, miss
        least = min(_total(threshold, *drawn) for threshold in (*scores, inf))
        given = number(attempt(list(scores), list(right), actions, alarm, miss))
        call = f"for scores {scores}, right {right}, alarm {alarm:g} and miss {miss:g}"
        if min(abs(given - threshold) for threshold in scores) > 1e-5 and given != inf:
            yield f'{call} return one of the scores or float("inf"), yours gives {given:g}.'
        if (spent := _total(given, *drawn)) > least + 1e-6:
            yield (
                f"{call} the total should be {least:.2f}; your threshold, {given:g}, costs "
                f"{spent:.2f}: compare all scores, and keeping nothing."
            )


def _total(
    threshold: float, scores: list, right: list, actions: int, alarm: float, miss: float
) -> float:
    """Return what false alarms and misses cost if the scores that reach a threshold are kept."""
    pairs = zip(scores, right, strict=True)
    kept = [good for score, good in pairs if score >= threshold - 1e-6]
    return alarm * (len(kept) - sum(kept)) + miss * (actions - sum(kept))
