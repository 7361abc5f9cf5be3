"""Video encoders: uint8 snippets in, one feature per snippet out; and their weights."""

from etadlite.encoders.r2plus1d import R2Plus1D, from_tsp
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.encoders.tiny import TinyR2Plus1D, tiny_encoder

__all__ = ["R2Plus1D", "StagedEncoder", "TinyR2Plus1D", "freeze", "from_tsp", "tiny_encoder"]
