"""Statistics of how an utterance is spoken: spectrum, F0, voicing, energy and rhythm, the same whatever its loudness.

Everything is computed from :class:`affgen.features.Features` with numpy alone. The level of the active frames is taken
out first, bands more than ``DEPTH`` nepers below it do not count (there is the room, or what a vocoder leaves there),
and spectra are described over active frames only.

=============  ========================================================================================================
names          what they describe
=============  ========================================================================================================
``c*``         cepstra 1 to 16 of the log-mel (the constant, which is the level, left out): mean, deviation, deciles,
               movement; ``v*`` over voiced frames
``spec_*``     alpha ratio, Hammarberg index, slopes, centroid, spread, roll-off, flatness, flux (the parameters of
               eGeMAPS, Eyben et al. 2016, "The Geneva minimalistic acoustic parameter set", read from the mel)
``voice_*``    harmonics: level of the first over the second and third, and over the formants; depth of the ripple
               that harmonics leave in the mel, which stands for periodicity
``f0_*``       semitones: height, range, slopes, course over the utterance, micro variation (like jitter)
``rhythm_*``   voiced and silent stretches, peaks of energy per second, modulation spectrum of the energy
``energy_*``   decibels relative to the utterance's own level: spread, movement, course, micro variation (like shimmer)
=============  ========================================================================================================
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from affgen.features import BANDS, FLOOR, FMAX, FMIN, HOP, SAMPLE_RATE, Features

RATE = SAMPLE_RATE / HOP
"""Frames per second."""
CEPSTRA, VOICED_CEPSTRA = 16, 8
ACTIVE = 3.5
"""Frames less than this many nepers (30 dB) under the loudest count as speech."""
DEPTH = 7.0
"""Bands are heard down to this many nepers (61 dB) under the level of the utterance."""
DECIBELS = 20 / np.log(10)
BASE_HZ = 55.0
"""0 semitones."""
PARTS = 4
"""Equal parts of the utterance whose course is described."""
MODULATION_HZ = (0.7, 2.0, 4.0, 6.0, 9.0, 14.0)

Table = dict[str, float]


def statistics(features: Features) -> np.ndarray:
    """Return the statistics (S,) float32 of an utterance in the order of :func:`names`; always finite.

    A gain (a constant added to the mel) changes nothing as long as it does not push bands to the floor of the front
    end. Silence, a single frame and an utterance without voice give what can be said of them, and 0 for the rest.
    """
    return np.array(list(described(features).values()), dtype=np.float32)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the names of the statistics, in order."""
    silence = Features(np.full((BANDS, 1), np.log(FLOOR)), np.zeros(1), np.zeros(1))
    return tuple(described(silence))


def described(features: Features) -> Table:
    """Return the statistics of an utterance by name."""
    mel = features.mel.astype(np.float64)
    if not mel.shape[1]:
        mel = np.full((BANDS, 1), np.log(FLOOR))
    f0 = features.f0.astype(np.float64) if len(features) else np.zeros(1)
    loud = 0.5 * np.logaddexp.reduce(2 * mel, axis=0)  # (T,)
    spoken = loud > max(loud.max() - ACTIVE, np.log(FLOOR) + 3.0)  # in silence no frame is
    level = 0.5 * np.log(np.mean(np.exp(2 * loud[spoken]))) if spoken.any() else float(loud.max())
    first, last = _ends(spoken)
    mel, f0, spoken = np.maximum(mel - level, -DEPTH)[:, first:last], f0[first:last], spoken[first:last]
    decibels = np.maximum(loud[first:last] - level, -DEPTH) * DECIBELS
    voiced = (f0 > 0) & spoken
    table = _cepstral(mel, spoken, voiced) | _spectral(mel, spoken, voiced) | _harmonic(mel, f0, voiced)
    table |= _melodic(f0, voiced) | _rhythmic(decibels, spoken, voiced) | _dynamic(decibels, spoken, voiced)
    return table


# ------------------------------------------------------------------------------------------------------ spectrum


def _cepstral(mel: np.ndarray, spoken: np.ndarray, voiced: np.ndarray) -> Table:
    values = _cosines() @ mel  # (CEPSTRA, T)
    table: Table = {}
    steps = np.abs(np.diff(values, axis=1))[:, spoken[1:] & spoken[:-1]]
    for row, value in enumerate(values, 1):
        table |= _summary(f"c{row}", value[spoken])
        table[f"c{row}_move"] = _mean(steps[row - 1])
    for row in range(VOICED_CEPSTRA):
        table[f"v{row + 1}_mean"] = _mean(values[row, voiced])
    return table


def _spectral(mel: np.ndarray, spoken: np.ndarray, voiced: np.ndarray) -> Table:
    hertz, octaves = _centres(), np.log2(_centres() / 1000)
    power = np.exp(2 * mel)
    share = power / power.sum(axis=0)
    centroid = octaves @ share
    below = np.cumsum(share, axis=0)
    low, high = (hertz >= 50) & (hertz < 1000), (hertz >= 1000) & (hertz < 5000)
    peak_low, peak_high = mel[hertz < 2000].max(axis=0), mel[(hertz >= 2000) & (hertz < 5000)].max(axis=0)
    curves = {
        "alpha": DECIBELS / 2 * (np.log(power[low].sum(axis=0)) - np.log(power[high].sum(axis=0))),
        "hammarberg": DECIBELS * (peak_low - peak_high),
        "slope": DECIBELS * _slope(mel, octaves),
        "slope_low": DECIBELS * _slope(mel[hertz < 1000], octaves[hertz < 1000]),
        "slope_high": DECIBELS * _slope(mel[hertz >= 1000], octaves[hertz >= 1000]),
        "centroid": centroid,
        "spread": np.sqrt(np.maximum((octaves**2) @ share - centroid**2, 0)),
        "rolloff": octaves[np.minimum((below < 0.85).sum(axis=0), BANDS - 1)],
        "flatness": DECIBELS * (mel.mean(axis=0) - 0.5 * np.log(power.mean(axis=0))),
    }
    table: Table = {}
    for name, curve in curves.items():
        table |= _summary(f"spec_{name}", curve[spoken])
    for name in ("alpha", "hammarberg", "slope", "centroid"):
        table[f"spec_{name}_voiced"] = _mean(curves[name][voiced])
    flux = np.sqrt(np.mean(np.diff(mel, axis=1) ** 2, axis=0))[spoken[1:] & spoken[:-1]]
    return table | _summary("spec_flux", flux)


def _harmonic(mel: np.ndarray, f0: np.ndarray, voiced: np.ndarray) -> Table:
    """Levels in dB of harmonics 1 to 3 and the highest band of three regions, and the ripple of the harmonics."""
    tones, pitch = mel[:, voiced], f0[voiced]
    places = [_at(tones, number * pitch) for number in (1, 2, 3)]
    hertz = _centres()
    regions = [tones[(hertz >= low) & (hertz < high)] for low, high in ((300, 1000), (1000, 2500), (2500, 4500))]
    peaks = [region.max(axis=0) for region in regions]
    between = [_at(tones, (number + 0.5) * pitch) for number in (1, 2)]
    ripple = np.mean(places[1:], axis=0) - np.mean(between, axis=0)
    table = _summary("voice_h1_h2", DECIBELS * (places[0] - places[1]))
    table |= _summary("voice_h1_h3", DECIBELS * (places[0] - places[2]))
    for name, peak in zip(("a1", "a2", "a3"), peaks, strict=True):
        table[f"voice_h1_{name}"] = _mean(DECIBELS * (places[0] - peak))
    table |= _summary("voice_ripple", DECIBELS * ripple)
    return table


# ------------------------------------------------------------------------------------------------------------ F0


def _melodic(f0: np.ndarray, voiced: np.ndarray) -> Table:
    tone = 12 * np.log2(np.maximum(f0, 1.0) / BASE_HZ)
    spoken = tone[voiced]
    table = _summary("f0", spoken)
    middle = table["f0_p50"]
    levels = np.percentile(spoken, (3, 25, 75, 97)) if spoken.size else np.zeros(4)
    table |= dict(zip(("f0_p3", "f0_p25", "f0_p75", "f0_p97"), levels.tolist(), strict=True))
    table["f0_range"] = table["f0_p90"] - table["f0_p10"]
    table["f0_span"] = float(levels[3] - levels[0])
    table["f0_quartiles"] = float(levels[2] - levels[1])
    table["f0_lean"] = table["f0_p90"] + table["f0_p10"] - 2 * middle if spoken.size else 0.0
    pairs = voiced[1:] & voiced[:-1]
    step = np.diff(tone)[pairs] * RATE  # semitones per second
    step = step[np.abs(step) < 2 * RATE]  # no jumps of the tracker
    table |= _summary("f0_step", step)
    table["f0_speed"] = _mean(np.abs(step))
    table["f0_rises"] = _mean((step > 0).astype(float))
    bends = np.abs(np.diff(tone, n=2))[pairs[1:] & pairs[:-1]]
    table["f0_jitter"] = float(np.median(bends)) if bends.size else 0.0
    table["f0_rough"] = _mean(np.minimum(bends, 2.0))
    table |= _course("f0", tone - middle, voiced)
    return table


# -------------------------------------------------------------------------------------------------------- rhythm


def _rhythmic(decibels: np.ndarray, spoken: np.ndarray, voiced: np.ndarray) -> Table:
    seconds = len(decibels) / RATE
    runs, pauses = _runs(voiced) / RATE, _runs(~spoken) / RATE
    pauses = pauses[pauses >= 0.06]
    table = {
        "rhythm_voiced": _mean(voiced[spoken].astype(float)),
        "rhythm_voiced_rate": len(runs) / seconds,
        "rhythm_voiced_length": _mean(runs),
        "rhythm_voiced_varies": float(runs.std()) if runs.size else 0.0,
        "rhythm_longest": float(runs.max()) if runs.size else 0.0,
        "rhythm_pause": float(pauses.sum()) / seconds,
        "rhythm_pause_rate": len(pauses) / seconds,
        "rhythm_pause_length": _mean(pauses),
        "rhythm_unspoken": _mean((~spoken).astype(float)),
    }
    smooth = np.convolve(np.pad(decibels, 4, mode="edge"), np.hanning(11)[1:-1] / np.hanning(11).sum(), mode="valid")
    table["rhythm_peaks"] = _peaks(smooth) / seconds
    return table | _modulation(decibels)


def _modulation(decibels: np.ndarray) -> Table:
    """Shares in dB of the bands of the modulation spectrum in the movement of the energy, and its centre."""
    padded = np.zeros(max(1024, len(decibels)))
    padded[: len(decibels)] = (decibels - decibels.mean()) * np.hanning(len(decibels) + 2)[1:-1]
    power = np.abs(np.fft.rfft(padded)) ** 2
    hertz = np.fft.rfftfreq(len(padded), 1 / RATE)
    inside = (hertz >= MODULATION_HZ[0]) & (hertz < MODULATION_HZ[-1])
    total = power[inside].sum() + 1e-6
    table = {}
    for low, high in pairwise(MODULATION_HZ):
        band = power[(hertz >= low) & (hertz < high)].sum()
        table[f"rhythm_modulation_{low:g}"] = float(10 * np.log10(band / total + 1e-3))
    table["rhythm_modulation_centre"] = float(hertz[inside] @ power[inside] / total)
    return table


def _dynamic(decibels: np.ndarray, spoken: np.ndarray, voiced: np.ndarray) -> Table:
    table = _summary("energy", decibels[spoken])
    table["energy_range"] = table["energy_p90"] - table["energy_p10"]
    table["energy_top"] = float(np.percentile(decibels, 98))
    table["energy_voiced"] = _mean(decibels[voiced])
    table["energy_voiced_spread"] = float(decibels[voiced].std()) if voiced.any() else 0.0
    step = np.diff(decibels)[spoken[1:] & spoken[:-1]] * RATE
    table |= _summary("energy_step", step)
    table["energy_speed"] = _mean(np.abs(step))
    bends = np.abs(np.diff(decibels, n=2))[voiced[2:] & voiced[1:-1] & voiced[:-2]]
    table["energy_shimmer"] = float(np.median(bends)) if bends.size else 0.0
    return table | _course("energy", decibels, spoken)


# ------------------------------------------------------------------------------------------------------- helpers


def _summary(name: str, values: np.ndarray) -> Table:
    """Mean, deviation and the 10th, 50th and 90th percentiles; 0 of nothing."""
    if not values.size:
        values = np.zeros(1)
    low, middle, high = np.percentile(values, (10, 50, 90)).tolist()
    table = {"mean": float(values.mean()), "std": float(values.std()), "p10": low, "p50": middle, "p90": high}
    return {f"{name}_{key}": value for key, value in table.items()}


def _course(name: str, values: np.ndarray, chosen: np.ndarray) -> Table:
    """Means of the ``chosen`` frames in equal parts of the utterance, and their trend from end to end."""
    table = {}
    for number, part in enumerate(np.array_split(np.arange(len(values)), PARTS), 1):
        table[f"{name}_part{number}"] = _mean(values[part[chosen[part]]])
    place = np.linspace(-0.5, 0.5, len(values))[chosen]
    table[f"{name}_trend"] = float(np.polyfit(place, values[chosen], 1)[0]) if len(place) > 9 else 0.0
    return table


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _ends(spoken: np.ndarray) -> tuple[int, int]:
    """First frame that is spoken and the one after the last; the whole where none is."""
    where = np.flatnonzero(spoken)
    return (int(where[0]), int(where[-1]) + 1) if where.size else (0, len(spoken))


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths in frames of the stretches in which ``mask`` (T,) holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    lengths: np.ndarray = edges[1::2] - edges[::2]
    return lengths


def _peaks(curve: np.ndarray) -> int:
    """How many peaks of a curve in dB stand out by 2 dB or more: about the syllables."""
    from scipy.signal import find_peaks

    return len(find_peaks(np.pad(curve, 1, constant_values=curve.min() - 10), prominence=2.0)[0])


def _slope(mel: np.ndarray, octaves: np.ndarray) -> np.ndarray:
    """Least-squares slope (T,) of mel (n, T) per octave."""
    centred = octaves - octaves.mean()
    slope: np.ndarray = centred @ mel / (centred @ centred)
    return slope


def _at(mel: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Values (T,) of mel (80, T) at ``hertz`` (T,), linear between bands."""
    place = np.interp(hertz, _centres(), np.arange(BANDS))
    low = np.minimum(place.astype(int), BANDS - 2)
    frames, part = np.arange(len(hertz)), place - low
    values: np.ndarray = (1 - part) * mel[low, frames] + part * mel[low + 1, frames]
    return values


@lru_cache(maxsize=1)
def _centres() -> np.ndarray:
    """Centres (80,) of the bands in Hz."""
    from affgen.features import mel_filterbank

    bins = np.linspace(0, SAMPLE_RATE / 2, mel_filterbank().shape[1])
    centres: np.ndarray = (mel_filterbank() @ bins) / mel_filterbank().sum(axis=1)
    return np.clip(centres, FMIN + 1.0, FMAX)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The type-II cosine transform without its constant: (CEPSTRA, 80)."""
    place = (np.arange(BANDS) + 0.5) / BANDS
    return np.sqrt(2 / BANDS) * np.cos(np.pi * np.arange(1, CEPSTRA + 1)[:, None] * place)
