"""How good predictions are: mean average precision, average recall, and where they fail."""

from etadlite.evaluation.arrays import PredictionWarning
from etadlite.evaluation.average_precision import AveragePrecision, mean_average_precision
from etadlite.evaluation.numbers import read_numbers
from etadlite.evaluation.recall import AverageRecall, Breakdown, average_recall, breakdown

__all__ = [
    "AveragePrecision",
    "AverageRecall",
    "Breakdown",
    "PredictionWarning",
    "average_recall",
    "breakdown",
    "mean_average_precision",
    "read_numbers",
]
