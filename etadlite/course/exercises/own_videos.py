"""Checkers of 07_your_own_videos."""

from collections.abc import Callable, Iterator
from math import inf, nan

from etadlite.course.exercises.form import wrong_numbers


def seconds(attempt: Callable) -> Iterator[str]:
    """Check the seconds of a time as text; NaN if it can mean two things."""
    texts = [
        ("7", 7.0, "text without a colon is seconds"),
        ("83.5", 83.5, "text without a colon is seconds"),
        ("0:59", 59.0, "no minute, 59 seconds"),
        ("1:23.5", 83.5, "one minute of 60 s and 23.5 s; the seconds may have a fraction"),
        ("2:00", 120.0, "two minutes of 60 s"),
        ("1:00:00", 3600.0, "with three parts the first is hours, each of 60 minutes of 60 s"),
        ("0:01:23.5", 83.5, "with three parts the first is hours, the second minutes"),
        ("1:83", nan, "no minute has 83 seconds, so it may be a slip for 1:38 or 183"),
        ("1:60", nan, "the next minute begins at 60, so a player writes 2:00"),
        ("1:75:00", nan, "no hour has 75 minutes: minutes, too, must stay below 60"),
        ("90:00", 5400.0, "the first part has no limit: a film may last 90 minutes"),
    ]
    cases = [((text,), expected, reason) for text, expected, reason in texts]
    yield from wrong_numbers("my_seconds", attempt, cases)


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
    yield from wrong_numbers("best_threshold", attempt, cases)
