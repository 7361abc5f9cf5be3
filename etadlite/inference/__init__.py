"""From the detector's outputs to scored segments."""

from etadlite.inference.nms import soft_nms

__all__ = ["soft_nms"]
