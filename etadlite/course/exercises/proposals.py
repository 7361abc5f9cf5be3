"""Checkers of 04_proposal_sampling."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
