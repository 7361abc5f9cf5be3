"""The checkers of every notebook's exercises, one module a notebook.

A checker takes the student's function and yields what is wrong with it, the most telling fault
first, each as one sentence; only the first is shown. It compares with values that can be worked out
by hand, so that a wrong answer is told apart by the mistake behind it.
"""

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
from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {
    **quickstart.CHECKERS,
    **features.CHECKERS,
    **sequential.CHECKERS,
    **snippets.CHECKERS,
    **proposals.CHECKERS,
    **activitynet.CHECKERS,
    **thumos.CHECKERS,
    **own_videos.CHECKERS,
}
"""Exercise -> its checker."""
