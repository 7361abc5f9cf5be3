"""How good predictions are: mean average precision, average recall, and where they fail."""

from etadlite.evaluation.arrays import PredictionWarning
from etadlite.evaluation.average_precision import AveragePrecision, mean_average_precision
from etadlite.evaluation.error_analysis import Breakdown, breakdown
from etadlite.evaluation.recall import AverageRecall, average_recall

__all__ = [
    "AveragePrecision",
    "AverageRecall",
    "Breakdown",
    "PredictionWarning",
    "average_recall",
    "breakdown",
    "mean_average_precision",
]
