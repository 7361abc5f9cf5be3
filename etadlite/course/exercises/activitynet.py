"""Checkers of 05_end_to_end_activitynet."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
