"""Checkers of 07_your_own_videos."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
