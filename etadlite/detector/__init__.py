"""The detector: temporal enhancement, boundary evaluation, proposals, RoI, refinement stages."""

from etadlite.detector.etad import DetectorOutput, ETADDetector
from etadlite.detector.proposals import proposal_map, refine, valid_proposals
from etadlite.detector.roi import roi_align
from etadlite.detector.stages import StageOutput

__all__ = [
    "DetectorOutput",
    "ETADDetector",
    "StageOutput",
    "proposal_map",
    "refine",
    "roi_align",
    "valid_proposals",
]
