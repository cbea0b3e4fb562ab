"""F0 and periodicity of a voice, spoken or sung: peaks of similarity one period apart, and the best path through them.

The steps, and where they come from (equations only):

1. Every lag is judged by two stretches of sound that far apart, centred on the frame and long enough to hold a period
   (the cross-correlation of Talkin 1995, "A robust algorithm for pitch tracking"), by their normalised square
   difference (McLeod and Wyvill 2005, "A smarter way to find pitch"), at half the rate.
2. Peaks become candidates. A lag an octave longer must do better by a margin, and the level of a frame under that of
   the loud ones counts against a voice (Boersma 1993, "Accurate short-term analysis of the fundamental frequency").
3. Candidates are judged again in a short stretch, as long as the lag, so that voices begin and end in time.
4. The best path pays for jumps and for changes between voiced and unvoiced (Boersma 1993; Viterbi 1967).
5. The lag is read at the full rate.

The constants were chosen on fabricated voices and on training speakers of RAVDESS, nEMO and EmoDB.
"""

from __future__ import annotations

import numpy as np

from affgen.audio import resample
from affgen.errors import AffgenError
from affgen.frames import HOP, MARGIN, SAMPLE_RATE, pieces

FLOOR, CEILING = 65.0, 1100.0
"""Lowest and highest F0 in Hz, unless told."""
LIMITS = (40.0, 2000.0)
"""What may be told: two periods of the lowest fit into the margin of a piece."""
CUTOFF = 2500.0
"""Hz above which nothing helps to find a candidate."""
CANDIDATES = 8
LONG_S, SHORT_S = 0.0203, 0.008
"""Shortest stretches in seconds: to find a lag, and to tell where the voice begins and ends."""
SHORT_WEIGHT = 0.75
OCTAVE_COST = 0.05
JUMP_COST = 1.0
SWITCH_COST = 0.3
VOICING = 0.57
"""Similarity from which a frame of full level at 160 Hz counts as voiced."""
MIDDLE = 160.0
SILENCE_DB, LEVEL_DB = -45.0, -25.0
"""Levels under that of the loud frames: where a voice is unlikely, and from where on the level says nothing."""
SILENCE_COST = 0.6
NOISE = 1e-10
"""Power of what counts as noise in any recording, a tenth of that of a 16-bit step."""


def f0(
    samples: np.ndarray, sample_rate: int, *, floor: float = FLOOR, ceiling: float = CEILING
) -> tuple[np.ndarray, np.ndarray]:
    """Track the F0 of ``samples`` (L,): Hz (T,), 0 where unvoiced, and periodicity (T,) in 0..1, both float32.

    The frames are those of the mel: ``T = L // 256`` at 22,050 Hz, frame ``t`` centred on sample ``256 t + 128``.
    Raises :class:`AffgenError` for a ``floor`` and ``ceiling`` outside 40..2000 Hz or less than an octave apart, fewer
    than 1,024 samples at 22,050 Hz, or samples that are not finite.
    """
    tracker = Tracker(floor, ceiling)
    for piece in pieces([resample(samples, sample_rate, SAMPLE_RATE)]):
        tracker.feed(piece)
    return tracker.finish()


class Tracker:
    """F0 of a sound that arrives in pieces; per frame it keeps up to eight candidates, about 100 bytes."""

    def __init__(self, floor: float = FLOOR, ceiling: float = CEILING) -> None:
        if not (LIMITS[0] <= floor <= ceiling / 2 and ceiling <= LIMITS[1]):
            raise AffgenError(
                f"F0 from {floor:g} to {ceiling:g} Hz: accepted are {LIMITS[0]:g} to {LIMITS[1]:g} Hz, an octave apart"
            )
        self._lags = (int(SAMPLE_RATE / 2 / ceiling), int(np.ceil(SAMPLE_RATE / 2 / floor)))
        taps = np.sinc(np.arange(-16, 17) * 2 * CUTOFF / SAMPLE_RATE) * np.hamming(33)
        self._taps = (taps / taps.sum()).astype(np.float32)
        self._found: list[tuple[np.ndarray, ...]] = []

    def feed(self, piece: np.ndarray) -> None:
        """Take the next of :func:`affgen.frames.pieces`."""
        from affgen import pitch_kernels as kernels

        frames = (len(piece) - 2 * MARGIN) // HOP
        first, rate = MARGIN + HOP // 2, SAMPLE_RATE / 2
        whole, half = kernels.signal(piece), kernels.signal(kernels.halve(piece, self._taps))
        grid = (first // 2, HOP // 2, frames)
        lags, values, power = kernels.candidates(
            half, grid, self._lags, round(LONG_S * rate), CANDIDATES, OCTAVE_COST, NOISE
        )
        near = kernels.nearby(half, grid, lags, round(SHORT_S * rate), NOISE)
        values = (1 - SHORT_WEIGHT) * values + SHORT_WEIGHT * near
        lags = kernels.refined(whole, (first, HOP, frames), 2 * lags, round(2 * LONG_S * rate), NOISE)
        self._found.append((lags, values.astype(np.float32), power))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """F0 (T,) in Hz, 0 where unvoiced, and periodicity (T,) in 0..1 of all that was fed."""
        from affgen import pitch_kernels as kernels

        lags, values, power = (np.concatenate(part) for part in zip(*self._found, strict=True))
        octaves = np.log2(np.maximum(lags, 1) * np.float32(MIDDLE / SAMPLE_RATE))  # below the middle
        level = 10 * np.log10(power + np.float32(NOISE))
        quiet = 1 - (level - np.percentile(level, 95) - SILENCE_DB) / (LEVEL_DB - SILENCE_DB)
        unvoiced = VOICING + SILENCE_COST * np.clip(quiet, 0, 1)
        path = kernels.best_path(lags, values - OCTAVE_COST * octaves, unvoiced, JUMP_COST, SWITCH_COST)
        frames, chosen = np.arange(len(path)), np.maximum(path, 0)
        hz = np.where(path < 0, 0, SAMPLE_RATE / np.maximum(lags[frames, chosen], 1))
        return hz.astype(np.float32), values[frames, chosen].clip(0, 1)
