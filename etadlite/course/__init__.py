"""The notebooks' helpers and the exercises' checkers; nothing else imports this room."""

from etadlite.course.checks import check
from etadlite.course.notebook import Run, start

__all__ = ["Run", "check", "start"]
