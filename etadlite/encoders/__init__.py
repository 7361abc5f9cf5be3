"""Encoders: snippets of frames in, one feature a snippet out; and their weights."""

from etadlite.encoders.r2plus1d import R2Plus1D, StagedEncoder, TinyR2Plus1D, freeze
from etadlite.encoders.weights import from_tsp, tiny_encoder

__all__ = [
    "R2Plus1D",
    "StagedEncoder",
    "TinyR2Plus1D",
    "freeze",
    "from_tsp",
    "tiny_encoder",
]
