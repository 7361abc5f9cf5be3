"""Checkers of 03_snippet_gradient_sampling."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
