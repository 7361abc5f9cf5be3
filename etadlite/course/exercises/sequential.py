"""Checkers of 02_sequential_snippet_encoding."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
