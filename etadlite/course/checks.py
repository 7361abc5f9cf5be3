"""The exercises' checkers: one sentence on what is wrong, and never an error."""

from typing import Any

from etadlite.course.exercises import CHECKERS
from etadlite.course.exercises.form import Unattempted


def check(exercise: str, attempt: Any) -> bool:
    """Print whether an attempt solves an exercise, and if not, what to look at.

    Args:
        exercise: its name: one of `CHECKERS`.
        attempt: what was asked for; None or ... where nothing was tried yet.

    Returns:
        Whether it is solved.
    """
    if exercise not in CHECKERS:
        print(f'There is no exercise "{exercise}"; there are {", ".join(CHECKERS)}.')
        return False
    if attempt is None or attempt is ...:
        print(f"{exercise}: not attempted yet.")
        return False
    if not callable(attempt):
        print(f"{exercise}: write a function and give it to check().")
        return False
    try:
        wrong = next(CHECKERS[exercise](attempt), None)
    except Unattempted:
        print(f"{exercise}: not attempted yet.")
        return False
    except Exception as error:  # the reader's code may raise anything
        wrong = f"your function raised {type(error).__name__}: {error}"
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None
