"""Segments: which phone is spoken from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affgen.align.phones import INDEX, SILENCE, checked
from affgen.errors import AffgenError
from affgen.frames import HOP, SAMPLE_RATE

FRAME_S = HOP / SAMPLE_RATE
"""Seconds from one frame of the features to the next."""


@dataclass(frozen=True)
class Segment:
    """A phone (or a pseudo-phoneme, or ``sil``) from ``start_s`` to ``end_s`` in seconds."""

    start_s: float
    end_s: float
    phone: str


def frame_phones(segments: Sequence[Segment], frames: int) -> np.ndarray:
    """Return the index in :data:`affgen.align.phones.PHONES` of what is spoken at the centre of each frame, (T,) int64.

    What no segment covers is silence. Raises :class:`AffgenError` for a phone that is not known.
    """
    checked(segment.phone for segment in segments)
    found = np.full(frames, INDEX[SILENCE], dtype=np.int64)
    for segment in segments:
        # Frame t is centred at (t + 1/2) frames.
        first, last = (int(np.ceil(time / FRAME_S - 0.5)) for time in (segment.start_s, segment.end_s))
        found[max(0, first) : max(0, last)] = INDEX[segment.phone]
    return found


def spoken(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments that are not silence."""
    return [segment for segment in segments if segment.phone != SILENCE]


def check_order(segments: Sequence[Segment], where: str) -> None:
    """Raise :class:`AffgenError` that begins with ``where`` unless the segments follow each other in time."""
    last = 0.0
    for number, segment in enumerate(segments, 1):
        if not last - 1e-6 <= segment.start_s <= segment.end_s:
            raise AffgenError(
                f"{where}: segment {number} ({segment.phone}) goes from {segment.start_s:g} to {segment.end_s:g} s, "
                f"after one that ends at {last:g} s; accepted: segments in order of time, none of them overlapping"
            )
        last = segment.end_s
