"""The notebooks' helpers and the exercises' checkers; nothing else imports this room."""

from etadlite.course.exercises import check
from etadlite.course.notebook import RealData, Run, start

__all__ = ["RealData", "Run", "check", "start"]
