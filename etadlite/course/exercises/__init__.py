"""The checkers of the exercises, one module per part of the course.

A checker takes the student's function and yields its faults, one sentence each and the most telling
fault first; only the first is shown. First it compares with values that can be computed by hand,
where each case reveals one likely mistake; then it compares many drawn cases with a formula, and
tests what must hold: frequencies, gradients, memory, independence of the batch.
"""

from typing import Any

from etadlite.course.exercises import basics, detector, real_data, sampling
from etadlite.course.exercises.form import Checker, Student, UnfitError

CHECKERS: dict[str, Checker] = {
    checker.__name__: checker
    for checker in (
        *(basics.tiou, basics.step_cost, basics.evenly),  # 00
        *(detector.matched_actions, detector.roi_weights, detector.balanced_bce),  # 01
        *(basics.hard_nms, sampling.conv_bytes, sampling.push, sampling.three_passes),  # 01, 02
        *(sampling.sampling_error, sampling.group_weights, sampling.stratified),  # 03
        *(sampling.epochs_until, sampling.scale_chances, sampling.with_positives),  # 04
        *(real_data.fuse, real_data.average_precision, real_data.hours_left),  # 05
        *(real_data.merge_windows, real_data.seconds_of, real_data.lower),  # 06
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
    wrong = fault_of(exercise, attempt)
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None


def fault_of(exercise: str, attempt: Any) -> str | None:
    """Return what is wrong with a function, in one sentence; None if it solves the exercise."""
    try:
        if attempt is None or attempt is ...:
            return "not attempted yet."
        if callable(attempt):
            with Student(attempt) as student:
                try:
                    fault = next(CHECKERS[exercise](student), None)
                except UnfitError as error:
                    fault = str(error)
                return student.remembers() or fault
        return "write a function and give it to check()."
    except UnfitError as error:
        return str(error)
    except Exception as error:  # not the student's: `Student` reports those
        return f"the checker itself failed ({type(error).__name__}: {error}); please report this."
