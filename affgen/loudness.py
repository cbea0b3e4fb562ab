"""Loudness of a mono signal as ITU-R BS.1770-4 measures it, at any sample rate."""

from __future__ import annotations

import math

import numpy as np

from affgen.errors import AffgenError

OFFSET = -0.691  # dB, equation (2): cancels the gain of the K weighting at 997 Hz
BLOCK_S, STEP_S = 0.4, 0.1
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS, and LU below the loudness of what passes the first gate


def loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Return the integrated loudness in LUFS of ``samples`` (L,); ``-inf`` for silence and what the gates leave out.

    Blocks of 400 ms that overlap by 75 % pass an absolute gate of -70 LUFS and a relative one of -10 LU (ITU-R
    BS.1770-4, annex 1, equations 2 to 7). A signal shorter than a block is taken as one block, which the standard
    leaves open. Raises :class:`AffgenError` for another shape, no samples, samples that are not finite, or a rate
    below 4,000 Hz, where the weighting does not fit.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise AffgenError(f"samples of shape {samples.shape}: accepted are finite samples of shape (L,), L > 0")
    if sample_rate < 4_000:
        raise AffgenError(f"sample rate of {sample_rate}: loudness is measured from 4000 per second")
    power = _block_power(k_weighted(samples, sample_rate), sample_rate)
    power = power[power > _power(ABSOLUTE_GATE)]
    if not power.size:
        return -math.inf
    power = power[power > _power(_level(power.mean()) + RELATIVE_GATE)]
    return _level(power.mean())


def k_weighted(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return ``samples`` (L,) after the two filters of the K weighting, float64.

    The standard tabulates them at 48 kHz only; these are their analogue prototypes, carried over by the bilinear
    transform, which give the table back at 48 kHz (as libebur128 and pyloudnorm do).
    """
    from scipy.signal import lfilter

    shelf, highpass = k_filters(sample_rate)
    return lfilter(*highpass, lfilter(*shelf, np.asarray(samples, dtype=np.float64)))


def k_filters(sample_rate: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return numerator (3,) and denominator (3,) of the high shelf (tables 1) and of the high pass (table 2)."""
    gain, quality = 10 ** (3.999843853973347 / 20), 0.7071752369554196
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    middle = gain**0.4996667741545416
    first = np.array([gain + middle * k / quality + k * k, 2 * (k * k - gain), gain - middle * k / quality + k * k])
    shelf = first, np.array([1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k])
    quality, k = 0.5003270373238773, math.tan(math.pi * 38.13547087602444 / sample_rate)
    poles = np.array([1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k])
    return (shelf[0] / shelf[1][0], shelf[1] / shelf[1][0]), (np.array([1.0, -2.0, 1.0]), poles / poles[0])


def _block_power(weighted: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean square of every block (N,) of a weighted signal (L,)."""
    size, length = BLOCK_S * sample_rate, len(weighted)
    if length < round(size):
        return np.array([np.mean(weighted**2)])
    starts = np.arange(1 + int((length - round(size)) / (STEP_S * sample_rate)))
    low = np.round(starts * STEP_S * sample_rate).astype(int)
    high = np.minimum(low + round(size), length)
    summed = np.concatenate([[0.0], np.cumsum(weighted**2)])
    return (summed[high] - summed[low]) / (high - low)


def _level(power: float) -> float:
    return OFFSET + 10 * math.log10(power)


def _power(level: float) -> float:
    return 10 ** ((level - OFFSET) / 10)
