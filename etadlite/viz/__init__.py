"""Pictures of data, training and detections."""

from etadlite.viz.curves import draw_curves
from etadlite.viz.timeline import draw_timeline

__all__ = ["draw_curves", "draw_timeline"]
