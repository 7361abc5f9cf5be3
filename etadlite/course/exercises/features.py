"""Checkers of 01_feature_based_tad."""

from etadlite.course.exercises.form import Checker

CHECKERS: dict[str, Checker] = {}
