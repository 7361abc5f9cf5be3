"""End-to-end training of temporal action detectors on a laptop.

Data walks one way through the package: ``data`` (video, snippets) -> ``encoders`` (features) ->
``detector`` and ``sampling`` (proposals) -> ``training`` -> ``inference`` (detections) ->
``evaluation`` (mAP). Shapes follow one legend: B videos, N snippets, F frames a snippet,
C channels, T temporal cells, P proposals.
"""

__version__ = "0.1.0"
