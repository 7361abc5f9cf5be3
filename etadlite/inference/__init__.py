"""From the detector's outputs to detections: NMS, class scores, merged windows, new videos."""

from etadlite.inference.nms import soft_nms

__all__ = ["soft_nms"]
