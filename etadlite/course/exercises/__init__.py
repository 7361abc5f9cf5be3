"""The checkers of the exercises, one module per part of the course.

A checker takes the student's function and yields its faults, one sentence each and the most telling
fault first; only the first is shown. First it compares with values that can be computed by hand,
where each case reveals one likely mistake; then it compares many drawn cases with a formula, and
tests what must hold: frequencies, gradients, memory, independence of the batch.
"""

from typing import Any

from etadlite.course.exercises import basics, real_data, sampling
from etadlite.course.exercises.form import Checker, Student, UnfitError

CHECKERS: dict[str, Checker] = {
    checker.__name__: checker
    for checker in (
        *(basics.tiou, basics.step_cost, basics.evenly),  # 00
        *(basics.count_proposals, basics.recall_at, basics.hard_nms),  # 01
        *(sampling.conv_bytes, sampling.push, sampling.encode_batch),  # 02
        *(sampling.sampling_error, sampling.group_weights, sampling.stratified),  # 03
        *(sampling.epochs_until, sampling.scale_chances, sampling.with_positives),  # 04
        *(real_data.hours_left, real_data.fuse),  # 05
        *(real_data.seconds_of, real_data.lower),  # 06
        *(real_data.seconds, real_data.best_threshold),  # 07
    )
}  # exercise -> its checker, by notebook


def check(exercise: str, attempt: Any) -> bool:
    """Print whether a function solves an exercise or what is wrong with it; return True if it does.

    `attempt` is the student's function; None or ... before the first attempt.
    """
    if exercise not in CHECKERS:
        print(f'There is no exercise "{exercise}"; there are {", ".join(CHECKERS)}.')
        return False
    try:
        if attempt is None or attempt is ...:
            wrong = "not attempted yet."
        elif callable(attempt):
            wrong = next(CHECKERS[exercise](Student(attempt)), None)
        else:
            wrong = "write a function and give it to check()."
    except UnfitError as error:
        wrong = str(error)
    except Exception as error:  # not the student's: `Student` reports those
        wrong = f"the checker itself failed ({type(error).__name__}: {error}); please report this."
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None
