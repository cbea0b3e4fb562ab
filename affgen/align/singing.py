"""Singing made more like speech before it is aligned: an octave lower and one and a half times as fast, by WORLD.

Acoustic models of speech fail on long high notes: wide-set harmonics leave no formants to hear. Pitch down and time
compressed, sung vowels are found as well as spoken ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from affgen.align.segments import Segment
from affgen.errors import AffgenError

if TYPE_CHECKING:
    from affgen.audio import Audio

SPEED = 1.5
_PERIOD_MS = 5.0


def speechlike(audio: Audio, octaves: float = 1.0, speed: float = SPEED) -> Audio:
    """Return ``audio`` resynthesised ``octaves`` lower and ``speed`` times as fast, its formants where they were.

    Raises :class:`AffgenError` where pyworld is not installed.
    """
    from affgen.audio import Audio

    try:
        import pyworld
    except ImportError as error:
        raise AffgenError("singing is aligned with the help of pyworld; run: pip install 'affgen[align]'") from error
    x = audio.samples.astype(np.float64)
    rough, times = pyworld.dio(x, audio.sample_rate, f0_floor=65.0, f0_ceil=1100.0, frame_period=_PERIOD_MS)
    f0 = pyworld.stonemask(x, rough, times, audio.sample_rate)
    envelope = pyworld.cheaptrick(x, f0, times, audio.sample_rate)
    noise = pyworld.d4c(x, f0, times, audio.sample_rate)
    lower = f0 / 2**octaves
    out = pyworld.synthesize(lower, envelope, noise, audio.sample_rate, _PERIOD_MS / speed)
    return Audio(out[: max(1, round(len(x) / speed))].astype(np.float32), audio.sample_rate)


def slowed(segments: Sequence[Segment], speed: float = SPEED) -> list[Segment]:
    """Return the segments at the times they have in the sound that was sped up by ``speed``."""
    return [Segment(segment.start_s * speed, segment.end_s * speed, segment.phone) for segment in segments]
