"""Emotion as one object: names and coordinates, the SPEC grammar, curves over time."""

from affgen.emotion.labels import LABELS, QUADRANTS, coordinates, quadrant, resolve
from affgen.emotion.spec import (
    Clock,
    Curve,
    Emotion,
    Mix,
    Time,
    parse_emotion,
    parse_intensity,
    require_labels,
)

__all__ = [
    "LABELS",
    "QUADRANTS",
    "Clock",
    "Curve",
    "Emotion",
    "Mix",
    "Time",
    "coordinates",
    "parse_emotion",
    "parse_intensity",
    "quadrant",
    "require_labels",
    "resolve",
]
