"""The published protocols: how many videos a number stands for."""

from typing import NamedTuple


class Protocol(NamedTuple):
    """How many videos published numbers stand for.

    Attributes:
        name: of the data set.
        training: videos to train on.
        test: videos of the test subset.
        scored: those of them that are not blocked.
        looks: what its videos' names look like.
    """

    name: str
    training: int
    test: int
    scored: int
    looks: str


ACTIVITYNET = Protocol("ActivityNet-1.3", 10_024, 4_926, 4_728, r"(v_)?[\w-]{11}")
THUMOS = Protocol("THUMOS-14", 200, 213, 211, r"video_(test|validation)_\d{7}")
PROTOCOLS = {
    "anet_tsp": ACTIVITYNET,
    "e2e_anet_tsp": ACTIVITYNET,
    "thumos_i3d": THUMOS,
    "e2e_thumos_tsp": THUMOS,
}
"""The protocol that each preset follows."""
