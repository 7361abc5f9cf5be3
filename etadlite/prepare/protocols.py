"""The published protocols: on how many videos published numbers are measured."""

from collections.abc import Mapping
from typing import NamedTuple


class Protocol(NamedTuple):
    """A data set with its published splits."""

    name: str
    videos: Mapping[str, int]  # number in each split, without those that are blocked in the test
    looks: str  # a pattern that the names of its videos match


ACTIVITYNET = Protocol("ActivityNet-1.3", {"training": 10_024, "test": 4_728}, r"(v_)?[\w-]{11}")
THUMOS = Protocol("THUMOS-14", {"training": 200, "test": 211}, r"video_(test|validation)_\d{7}")
PROTOCOLS = {  # of presets
    "anet_tsp": ACTIVITYNET,
    "e2e_anet_tsp": ACTIVITYNET,
    "thumos_i3d": THUMOS,
    "e2e_thumos_tsp": THUMOS,
}
