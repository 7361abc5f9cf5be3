"""Check an exercise: one sentence says what is wrong, and no error is raised."""

from typing import Any

from etadlite.course.exercises import CHECKERS
from etadlite.course.exercises.form import Unattempted, answer


def check(exercise: str, attempt: Any) -> bool:
    """Print whether a function solves an exercise or what is wrong with it; return True if it does.

    Args:
        exercise: its name: one of `CHECKERS`.
        attempt: the student's function; None or ... before the first attempt.
    """
    if exercise not in CHECKERS:
        print(f'There is no exercise "{exercise}"; there are {", ".join(CHECKERS)}.')
        return False
    try:
        if callable(answer(attempt)):
            wrong = next(CHECKERS[exercise](attempt), None)
        else:
            wrong = "write a function and give it to check()."
    except Unattempted:
        wrong = "not attempted yet."
    except Exception as error:  # the student's code may raise anything
        wrong = f"your function raised {type(error).__name__}: {error}"
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None
