"""The checkers of the exercises, one module per notebook.

A checker takes the student's function and yields its faults, one sentence each and the most telling
fault first; only the first is shown. It compares with values that can be computed by hand, and each
case reveals one likely mistake.
"""

from typing import Any

from etadlite.course.exercises import (
    activitynet,
    features,
    own_videos,
    proposals,
    quickstart,
    sequential,
    snippets,
    thumos,
)
from etadlite.course.exercises.form import Checker, UnfitError, answer

CHECKERS: dict[str, Checker] = {
    checker.__name__: checker
    for checker in (
        *(quickstart.tiou, quickstart.step_cost, quickstart.evenly),
        *(features.count_proposals, features.recall_at, features.hard_nms),
        *(sequential.conv_bytes, sequential.push, sequential.encode_batch),
        *(snippets.sampling_error, snippets.group_weights, snippets.stratified),
        *(proposals.count_valid, proposals.scale_chances, proposals.with_positives),
        *(activitynet.hours_left, activitynet.fuse),
        *(thumos.seconds_of, thumos.lower),
        *(own_videos.seconds, own_videos.best_threshold),
    )
}
"""Exercise -> its checker."""


def check(exercise: str, attempt: Any) -> bool:
    """Print whether a function solves an exercise or what is wrong with it; return True if it does.

    `attempt` is the student's function; None or ... before the first attempt.
    """
    if exercise not in CHECKERS:
        print(f'There is no exercise "{exercise}"; there are {", ".join(CHECKERS)}.')
        return False
    try:
        if callable(answer(attempt)):
            wrong = next(CHECKERS[exercise](attempt), None)
        else:
            wrong = "write a function and give it to check()."
    except UnfitError as error:
        wrong = str(error)
    except Exception as error:  # the student's code may raise anything
        wrong = f"your function raised {type(error).__name__}: {error}"
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None
