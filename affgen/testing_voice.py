"""Fabricated voices with a known F0: glottal pulses through formants, with vibrato, gaps of noise and background noise.

The pulse is Rosenberg's (Rosenberg 1971, "Effect of glottal pulse shape on the quality of natural vowels", JASA 49:
583-590, shape C); the formants are the men's means of Peterson and Barney 1952 (JASA 24: 175-184).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affgen.errors import AffgenError
from affgen.frames import HOP, SAMPLE_RATE

VOICES = {"man": (80.0, 170.0, 1.0), "woman": (160.0, 340.0, 1.16), "singer": (110.0, 1000.0, 1.1)}
"""Lowest and highest F0 in Hz without vibrato, and the factor on the formants."""
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
BANDWIDTHS = (70.0, 90.0, 130.0)
OVERSAMPLING = 4


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """``samples`` (L,) float32 at 22,050 Hz and the true ``f0`` (T,) in Hz at the centres of the frames, 0 unvoiced."""

    samples: np.ndarray
    f0: np.ndarray


def fabricated_voice(
    seed: int, kind: str = "man", *, seconds: float = 10.0, vibrato_cents: float = 50.0, snr_db: float = 30.0
) -> Voice:
    """Make up ``seconds`` of a "man", a "woman" or a "singer" (up to 1,000 Hz); equal arguments give equal voices.

    Stretches of 0.3 to 1.2 s on one vowel, with a wandering F0 (a held note for the singer) and a vibrato at 5.5 Hz,
    take turns with gaps of 0.1 to 0.3 s that hold a fricative or nothing; white noise lies ``snr_db`` under it all.
    """
    if kind not in VOICES or not 0.1 <= seconds <= 3600:
        raise AffgenError(f"{seconds} s of a {kind!r}: accepted are 0.1 to 3600 s of {', '.join(VOICES)}")
    rng = np.random.default_rng([seed, list(VOICES).index(kind)])
    length = round(seconds * SAMPLE_RATE)
    samples, f0 = np.zeros(length), np.zeros(length)
    at = round(0.1 * SAMPLE_RATE)
    while at < length:
        count = min(round(rng.uniform(0.3, 1.2) * SAMPLE_RATE), length - at)
        if count > 0.1 * SAMPLE_RATE:  # no stump at the end
            f0[at : at + count] = _contour(rng, kind, count, vibrato_cents)
            samples[at:] += _vowel(rng, f0[at : at + count], VOICES[kind][2], length - at)
        at += count
        count = min(round(rng.uniform(0.1, 0.3) * SAMPLE_RATE), length - at)
        if count > 0 and rng.random() < 0.5:
            samples[at : at + count] += _fricative(rng, count)
        at += count
    loud = np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)
    samples += rng.normal(0, loud, length)
    frames = np.arange(length // HOP) * HOP + HOP // 2
    return Voice((0.5 * samples / np.abs(samples).max()).astype(np.float32), f0[frames].astype(np.float32))


def _contour(rng: np.random.Generator, kind: str, count: int, cents: float) -> np.ndarray:
    """F0 (count,) of one stretch: a note for the singer, a smooth line across up to an octave for the others."""
    low, high, _ = VOICES[kind]
    knots = np.log2(low) + rng.uniform(0, np.log2(high / low), 1 if kind == "singer" else 3)
    position = np.linspace(0, len(knots) - 1, count)
    eased = np.floor(position) + 0.5 - 0.5 * np.cos(np.pi * (position % 1))
    line = np.interp(eased, np.arange(len(knots)), knots)
    phase = 2 * np.pi * (5.5 * np.arange(count) / SAMPLE_RATE + rng.random())
    return 2 ** (line + cents / 1200 * np.sin(phase))


def _vowel(rng: np.random.Generator, f0: np.ndarray, scale: float, length: int) -> np.ndarray:
    """Voice the contour ``f0`` and let the formants ring on: (length,), of mean square about 1 while it lasts."""
    import soxr
    from scipy.signal import lfilter

    phase = np.cumsum(np.repeat(f0, OVERSAMPLING)) / (SAMPLE_RATE * OVERSAMPLING) + rng.random()
    flow = np.diff(_rosenberg(phase % 1), prepend=0.0) * (SAMPLE_RATE * OVERSAMPLING) / np.repeat(f0, OVERSAMPLING)
    ramp = np.minimum(1, np.minimum(np.arange(len(f0)), np.arange(len(f0))[::-1]) / (0.005 * SAMPLE_RATE))
    pulses = soxr.resample(flow, SAMPLE_RATE * OVERSAMPLING, SAMPLE_RATE)[: len(f0)]
    sound = np.zeros(length)
    sound[: len(f0)] = pulses * ramp[: len(pulses)]
    for centre, width in zip(VOWELS[rng.integers(len(VOWELS))], BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * centre * scale / SAMPLE_RATE), radius**2]
        sound = lfilter([sum(poles)], poles, sound)
    return sound / np.sqrt(np.mean(sound[: len(f0)] ** 2))


def _rosenberg(phase: np.ndarray, opening: float = 0.4, closing: float = 0.16) -> np.ndarray:
    """Glottal flow at ``phase`` (L,) in 0..1 of the period."""
    rising = 0.5 * (1 - np.cos(np.pi * phase / opening))
    falling = np.cos(0.5 * np.pi * (phase - opening) / closing)
    return np.where(phase < opening, rising, np.where(phase < opening + closing, falling, 0.0))


def _fricative(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise (count,) of mean square about 0.04 that rises towards high frequencies."""
    noise = np.diff(rng.normal(size=count + 1))
    return 0.2 * noise / np.sqrt(2) * np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 200)
