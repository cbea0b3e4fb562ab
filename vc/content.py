"""What is said, apart from who says it and how: an envelope without harmonics, without level and without its mean.

===================  ==================================================================================================
:func:`levelled`     mel with the level of the utterance taken out, no lower than ``FLOOR`` under it
:func:`envelope`     log-mel smoothed over one harmonic spacing on either side: F0 leaves no ripple (the idea of
                     CheapTrick, Morise 2015: a window as wide as a period cancels what repeats every F0)
:func:`cepstra`      cosine transform of the envelope over the bands, without the constant: (C, T)
:func:`timbre`       mean cepstra of the active frames, (C,): the voice, and the colour an emotion gives it
content              cepstra - timbre
:func:`ripple`       what :func:`envelope` took out, made anew for any F0
===================  ==================================================================================================

EmoReg takes the phoneme-average mel as content. Its errors are heard as wrong phonemes; this content needs no
recogniser and no language. What it lacks on purpose, the decoder must take from speaker, emotion, F0 and energy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from affgen.features import BANDS, N_FFT, SAMPLE_RATE, mel_filterbank
from affgen.speaker.data import band_centres

FLOOR = -9.0
"""Lowest value of a levelled mel, nepers."""
ACTIVE = 4.0
"""Frames less than this many nepers (35 dB) under the loudest count as speech."""
UNVOICED_HZ = 120.0
"""Smoothing width where there is no F0."""
LOWEST, PER_OCTAVE, WIDTHS = 50.0, 8, 36
VALLEY = -3.0
"""Voices leave no deeper valleys between harmonics, in nepers."""
FINE = 96
"""Ripples per octave of F0: between two, the tenth harmonic moves by a fourteenth of its distance."""


def log_energy(mel: np.ndarray) -> np.ndarray:
    """Return the log energy (T,) in nepers of a natural-log mel (80, T): half the log of the summed squares."""
    top = mel.max(axis=0)
    energy: np.ndarray = top + 0.5 * np.log(np.exp(2 * (mel - top)).sum(axis=0))
    return energy


def active(energy: np.ndarray) -> np.ndarray:
    """Return which frames (T,) of a log energy (T,) are speech rather than pause."""
    frames: np.ndarray = energy > energy.max() - ACTIVE
    return frames


def level(energy: np.ndarray) -> float:
    """Return the level in nepers of a log energy (T,): the root mean square over the active frames."""
    return float(0.5 * np.log(np.mean(np.exp(2 * energy[active(energy)].astype(np.float64)))))


def levelled(mel: np.ndarray, by: float) -> np.ndarray:
    """Return mel (80, T) with the level ``by`` taken out, no lower than :data:`FLOOR`."""
    return np.maximum(mel - by, FLOOR)


def levelled_energy(energy: np.ndarray, by: float) -> np.ndarray:
    """Return the log energy (T,) float32 with ``by`` taken out, no lower than that of a mel at :data:`FLOOR`."""
    quiet = FLOOR + 0.5 * np.log(BANDS)
    return np.maximum(energy - by, quiet).astype(np.float32)


def envelope(mel: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """Return mel (80, T) smoothed by a triangle one F0 wide to either side; ``f0`` (T,) in Hz, 0 = unvoiced."""
    hertz = np.where(f0 > 0, f0, UNVOICED_HZ)
    rows = np.clip(np.round(np.log2(hertz / LOWEST) * PER_OCTAVE), 0, WIDTHS - 1).astype(int)
    linear = np.exp(mel.astype(np.float32))
    out = np.empty_like(linear)
    for row in np.unique(rows):
        chosen = rows == row
        out[:, chosen] = _smoothers()[row] @ linear[:, chosen]
    return np.log(out)


def cepstra(mel: np.ndarray, f0: np.ndarray, count: int) -> np.ndarray:
    """Return the cepstra (``count``, T) float32 of :func:`envelope`, the constant left out."""
    return _cosines(count) @ envelope(mel, f0)


def timbre(values: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the mean (C,) of cepstra (C, T) over the active frames of a log energy (T,)."""
    mean: np.ndarray = values[:, active(energy)].mean(axis=1)
    return mean


def between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return ``values`` (C, T) at ``places`` (T'), linearly interpolated."""
    where = np.clip(places, 0, values.shape[1] - 1)
    left = np.minimum(where.astype(int), max(0, values.shape[1] - 2))
    share = (where - left).astype(np.float32)
    return values[:, left] * (1 - share) + values[:, np.minimum(left + 1, values.shape[1] - 1)] * share


def register(f0: np.ndarray) -> float:
    """Return the median of log2 F0 over the voiced frames of f0 (T,) in Hz; that of 160 Hz if there are none."""
    return float(np.median(np.log2(f0[f0 > 0]))) if (f0 > 0).any() else float(np.log2(160.0))


def ripple(f0: np.ndarray) -> np.ndarray:
    """Return what harmonics of flat amplitude leave in a mel: log-mel minus its envelope, (80, T); 0 where unvoiced.

    ``f0`` (T,) in Hz. The other half of :func:`envelope`: the decoder need not learn where harmonics lie.
    """
    table = _ripples()
    place = np.clip(np.log2(np.maximum(f0, 1) / LOWEST) * FINE, 0, len(table) - 1.001)
    left = place.astype(int)
    share = (place - left)[:, None]
    rows = np.where((f0 > 0)[:, None], table[left] * (1 - share) + table[left + 1] * share, 0)
    return np.ascontiguousarray(rows.T, dtype=np.float32)


@lru_cache(maxsize=1)
def _ripples() -> np.ndarray:
    """:func:`ripple` of F0 = LOWEST * 2^(n / FINE), one row each: (R, 80) float32."""
    hertz = LOWEST * 2 ** (np.arange(round(FINE * WIDTHS / PER_OCTAVE)) / FINE)
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    window = np.abs(np.fft.rfft(np.hanning(N_FFT + 1)[:-1], 64 * N_FFT)) ** 2
    step = SAMPLE_RATE / (64 * N_FFT)
    mels = []
    for f0 in hertz:
        harmonics = np.arange(f0, SAMPLE_RATE / 2, f0)
        apart = np.round(np.abs(bins[:, None] - harmonics) / step).astype(int)
        mels.append(mel_filterbank() @ np.sqrt(window[np.minimum(apart, len(window) - 1)].sum(axis=1)))
    mel = np.log(np.stack(mels, axis=1)).astype(np.float32)
    rows: np.ndarray = np.maximum(mel - envelope(mel, hertz), VALLEY).T
    return rows


@lru_cache(maxsize=1)
def _smoothers() -> np.ndarray:
    """One matrix (80, 80) for each width, rows summing to 1: (WIDTHS, 80, 80) float32."""
    centres = band_centres()
    widths = np.gradient(centres)
    apart = np.abs(centres[:, None] - centres[None])
    out = []
    for row in range(WIDTHS):
        hertz = LOWEST * 2 ** (row / PER_OCTAVE)
        triangle = np.maximum(1 - apart / np.maximum(hertz, widths)[:, None], 0) * widths[None]
        out.append(triangle / triangle.sum(axis=1, keepdims=True))
    return np.stack(out).astype(np.float32)


@lru_cache(maxsize=4)
def _cosines(count: int) -> np.ndarray:
    """Orthonormal cosines (``count``, 80) of the type-II transform from the first on."""
    place = (np.arange(BANDS) + 0.5) / BANDS
    rows = np.sqrt(2 / BANDS) * np.cos(np.pi * np.arange(1, count + 1)[:, None] * place)
    return rows.astype(np.float32)
