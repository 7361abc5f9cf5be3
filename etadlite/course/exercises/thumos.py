"""Checkers of 06_end_to_end_thumos."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
