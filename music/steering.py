"""From an emotion and an intensity to what the decoder is told in each bar: valence, arousal, guidance and key.

Unless a key is asked for, it is drawn like everything else: the mode by its probability given the emotion, sharpened
by the guidance with the same rule as every other score, the tonic evenly. Where a curve crosses from one mode to the
other the piece changes to the parallel key.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from affgen.emotion.labels import QUADRANTS, coordinates, quadrant
from affgen.emotion.spec import Clock, Curve, Emotion
from music.config import SamplingConfig

VALENCE, AROUSAL, GUIDANCE, KEY = range(4)
Steering = Callable[[int, float], np.ndarray]
"""(bars, beats per minute) -> (bars, 4): valence, arousal, guidance and key number of each bar."""


def steering(
    emotion: Emotion,
    intensity: Curve,
    sampling: SamplingConfig,
    *,
    seed: int,
    key: int | None = None,
    tonic: int | None = None,
) -> Steering:
    """Steer by an emotion, read in the middle of each bar; guidance is the model's, times the intensity.

    key: a fixed key number (0: none is told); otherwise one is drawn from ``seed``, on ``tonic`` (0..11) if that is
    given.
    """
    random = np.random.Generator(np.random.Philox(key=seed, counter=1 << 64))
    drawn_tonic, chance = int(random.integers(12)), float(random.random())

    def steer(bars: int, bpm: float) -> np.ndarray:
        positions = np.arange(bars) + 0.5
        clock = Clock(240 * bars / bpm, bars)
        va = emotion.valence_arousal(positions, "b", clock) * np.array(sampling.gain)
        guidance = sampling.guidance * intensity.sample(positions, "b", clock)
        keys = np.full(bars, key if key is not None else 0)
        if key is None:
            minor = chance >= major_share(va, guidance, sampling.major)
            keys = 1 + (drawn_tonic if tonic is None else tonic) + 12 * minor
        return np.column_stack([va, guidance, keys])

    return steer


def major_share(va: np.ndarray, guidance: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Probability (N,) of a major key at points va (N, 2) under guidance (N,).

    ``shares`` are those of the four quadrants in the training data; between their centres the log-odds are bilinear.
    """
    odds = np.log(np.array(shares) / (1 - np.array(shares)))
    corners = np.array([coordinates(name) for name in QUADRANTS])
    design = np.column_stack([np.ones(4), corners, corners.prod(axis=1)])
    neutral, *slopes = np.linalg.solve(design, odds)
    lean = np.column_stack([va, va.prod(axis=1)]) @ np.array(slopes)
    return 1 / (1 + np.exp(-(neutral + guidance * lean)))


def quadrant_token(emotion: Emotion) -> int:
    """1..4 for the quadrant that a curve starts in, 0 at the origin; for models conditioned by a first token."""
    valence, arousal = emotion.points[0].mix().va
    return 0 if valence == arousal == 0 else 1 + QUADRANTS.index(quadrant(valence, arousal))
