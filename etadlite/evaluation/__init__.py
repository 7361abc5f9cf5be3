"""How good predictions are: mean average precision, average recall, and where they fail."""

from etadlite.evaluation.arrays import PredictionWarning
from etadlite.evaluation.average_precision import AveragePrecision, mean_average_precision

__all__ = ["AveragePrecision", "PredictionWarning", "mean_average_precision"]
