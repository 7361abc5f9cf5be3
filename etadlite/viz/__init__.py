"""Pictures of data, training and detections."""

from etadlite.viz.breakdown import draw_breakdown
from etadlite.viz.curves import draw_curves
from etadlite.viz.timeline import draw_timeline

__all__ = ["draw_breakdown", "draw_curves", "draw_timeline"]
