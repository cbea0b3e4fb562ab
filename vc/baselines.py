"""What a converter has to beat: the voice as the vocoder gives it back, a change of level, and a rule written by hand.

The rule takes a voice apart with WORLD (Morise, Yokomori and Ozawa 2016, IEICE Trans. E99-D: 1877-1884), changes what
the literature says an emotion changes, and puts it together again. Directions follow:

* I. R. Murray and J. L. Arnott, "Toward the simulation of emotion in synthetic speech", JASA 93 (1993) 1097-1108:
  F0 much higher and wider and speech louder and faster in anger, happiness and fear, sadness slower and narrower;
* R. Banse and K. R. Scherer, "Acoustic profiles in vocal emotion expression", J. Pers. Soc. Psychol. 70 (1996) 614-636:
  energy above 1 kHz rises with arousal; desperation, the strong sadness, has a raised F0 where mild sadness has not;
* P. N. Juslin and P. Laukka, "Communication of emotions in vocal expression and music performance", Psychol. Bull. 129
  (2003) 770-814: level, high frequencies, F0 and its variation, rate, contours, micro-irregularity.

Sizes are typed by hand, for a strong acted emotion. They were rounded after a look at the means of RAVDESS speakers 01
to 16, whose strong emotions are spoken more slowly than neutral ones whatever the literature says; those of sadness,
anger, disgust and surprise were set again once, after an early state of the judge (:mod:`vc.judge`) had heard the rule
on neutral clips of the same speakers. Nothing is fitted by machine, and no other speaker was looked at.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from affgen.audio import Audio, resample
from affgen.emotion.labels import resolve
from affgen.errors import AffgenError
from affgen.features import HOP, SAMPLE_RATE, extract

if TYPE_CHECKING:
    from affgen.vocoder.vocoder import Vocoder

FRAME_MS = 5.0
LOWEST, HIGHEST = 55.0, 1000.0
"""Hz within which the rule keeps F0."""
MOST = 1.5
"""Largest intensity accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What intensity 1 changes; every change grows in proportion to the intensity (``pace``: its logarithm).

    ``level_db`` of the whole; ``semitones`` of F0; ``span``: factor on the excursions of F0 about its median less 1;
    ``lift``: semitones by which the end is lifted against the beginning; ``pace``: factor on the duration;
    ``tilt_db``: dB per octave above 200 Hz; ``swing``: factor on the excursions of the level in dB less 1; ``breath``:
    share of the periodic part turned to noise; ``tremor``: semitones of irregular F0.
    """

    level_db: float = 0.0
    semitones: float = 0.0
    span: float = 0.0
    lift: float = 0.0
    pace: float = 1.0
    tilt_db: float = 0.0
    swing: float = 0.0
    breath: float = 0.0
    tremor: float = 0.0


RULES = {
    "neutral": Rule(),
    "calm": Rule(level_db=-5, semitones=-1, span=-0.2, lift=1.5, pace=1.25, tilt_db=-1.0, swing=-0.05, breath=0.15),
    "happy": Rule(level_db=12, semitones=9, span=0.3, lift=1, pace=1.10, tilt_db=2.5, swing=0.10),
    "sad": Rule(level_db=4, semitones=6, lift=2, pace=1.25, tilt_db=2.0, swing=0.2, breath=0.1, tremor=0.5),
    "angry": Rule(level_db=18, semitones=10, span=0.2, lift=1, pace=1.2, tilt_db=4.0, swing=0.25),
    "fearful": Rule(level_db=14, semitones=12, span=-0.2, lift=3, pace=1.05, tilt_db=3.0, swing=0.15, tremor=0.4),
    "disgust": Rule(level_db=4, semitones=3, span=0.2, lift=3, pace=1.4, tilt_db=2.0, swing=0.2, breath=0.05),
    "surprised": Rule(level_db=7, semitones=8, span=0.8, lift=4, tilt_db=2.0, swing=0.1, tremor=0.2),
}
"""Intensity 1 of every label."""


def vocoded(audio: Audio, vocoder: Vocoder | None = None) -> Audio:
    """Return ``audio`` after analysis and resynthesis by ``vocoder`` (default: the shipped one), at 22,050 Hz.

    Raises :class:`AffgenError` for a sound that the front end refuses.
    """
    from affgen.vocoder.vocoder import Vocoder

    features = extract(audio)
    chosen = Vocoder.from_pretrained() if vocoder is None else vocoder
    return Audio(chosen.synthesize(features.mel, features.f0), SAMPLE_RATE)


def gain(audio: Audio, label: str, intensity: float) -> Audio:
    """Return ``audio`` with the change of level that ``label`` has in :data:`RULES`, and nothing else changed.

    Peaks may pass full scale, as in :func:`affgen.audio.normalise`. Raises :class:`AffgenError` for a label that is
    not known and an intensity outside 0..1.5.
    """
    change = _rule(label, intensity)
    return Audio(audio.samples * np.float32(10 ** (change.level_db * intensity / 20)), audio.sample_rate)


def rule(audio: Audio, label: str, intensity: float) -> Audio:
    """Return ``audio`` as WORLD speaks it again after the rule for ``label`` at ``intensity``, at 22,050 Hz.

    Intensity 0 and neutral are the plain resynthesis. Equal arguments give equal samples. Raises as :func:`gain`, for
    a sound that the front end refuses, and where ``pyworld`` is not installed.
    """
    _rule(label, intensity)
    return analysed(audio).spoken(label, intensity)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A voice taken apart: ``f0`` (T,) in Hz, 0 unvoiced, power ``envelope`` and ``aperiodicity`` (T, bins)."""

    f0: np.ndarray
    envelope: np.ndarray
    aperiodicity: np.ndarray

    def spoken(self, label: str, intensity: float) -> Audio:
        """Return the voice with the rule for ``label`` at ``intensity``, at 22,050 Hz; raises as :func:`rule`."""
        change = _rule(label, intensity)
        pace = change.pace**intensity
        places = np.arange(round(len(self.f0) * pace)) / pace
        places = np.minimum(places, len(self.f0) - 1)
        hertz = _melody(self.f0, change, intensity)
        nearest = np.minimum(np.round(places).astype(int), len(self.f0) - 1)
        low = places.astype(int)
        high, part = np.minimum(low + 1, len(self.f0) - 1), (places - low)[:, None]
        level = _level(self.envelope, change, intensity)
        logs = np.log(self.envelope) + (level[:, None] + _colour(self.envelope.shape[1], change, intensity)) / DECIBELS
        envelope = np.exp((1 - part) * logs[low] + part * logs[high])
        breath = min(1.0, change.breath * intensity)
        aperiodicity = 1 - (1 - breath) * (1 - self.aperiodicity[nearest])
        wave = _pyworld().synthesize(
            _trembled(hertz[nearest], change.tremor * intensity), envelope, aperiodicity, SAMPLE_RATE, FRAME_MS
        )
        return Audio(wave.astype(np.float32), SAMPLE_RATE)


DECIBELS = 10 / math.log(10)
"""dB in a neper of power."""


def analysed(audio: Audio) -> World:
    """Take ``audio`` apart with CheapTrick and D4C in frames of 5 ms, F0 by the front end; raises as :func:`rule`.

    Harvest, the F0 of WORLD, would take three times as long as all the rest.
    """
    pyworld = _pyworld()
    samples = resample(audio.samples, audio.sample_rate, SAMPLE_RATE)
    coarse = extract(Audio(samples, SAMPLE_RATE)).f0.astype(np.float64)
    wave = samples.astype(np.float64)
    times = np.arange(0, len(wave) / SAMPLE_RATE, FRAME_MS / 1000)
    places = np.clip(times * SAMPLE_RATE / HOP - 0.5, 0, len(coarse) - 1)
    voiced = coarse[np.round(places).astype(int)] > 0
    known = np.flatnonzero(coarse)
    f0 = np.interp(places, known, coarse[known]) * voiced if known.size else np.zeros(len(times))
    envelope = pyworld.cheaptrick(wave, f0, times, SAMPLE_RATE)
    return World(f0, envelope, pyworld.d4c(wave, f0, times, SAMPLE_RATE))


def _melody(f0: np.ndarray, change: Rule, intensity: float) -> np.ndarray:
    """F0 (T,) moved, stretched about its median and lifted towards the end."""
    voiced = f0 > 0
    if not voiced.any() or not intensity:
        return f0
    tone = 12 * np.log2(np.where(voiced, f0, 1.0))
    middle = np.median(tone[voiced])
    course = change.lift * (np.linspace(0, 1, len(f0)) - 0.5)
    moved = middle + (1 + change.span * intensity) * (tone - middle) + (change.semitones + course) * intensity
    return np.where(voiced, np.clip(2 ** (moved / 12), LOWEST, HIGHEST), 0.0)


def _trembled(f0: np.ndarray, semitones: float) -> np.ndarray:
    """F0 (T,) with slow noise, about 8 Hz wide, of a deviation of ``semitones``."""
    if not semitones or not len(f0):
        return f0
    noise = np.random.default_rng(0).normal(size=len(f0) + 24)
    window = np.hanning(27)[1:-1]
    slow = np.convolve(noise, window / np.sqrt((window**2).sum()), mode="valid")
    return np.where(f0 > 0, np.clip(f0 * 2 ** (semitones * slow / 12), LOWEST, HIGHEST), 0.0)


def _level(envelope: np.ndarray, change: Rule, intensity: float) -> np.ndarray:
    """Change of level (T,) in dB: of the whole, and more where it is loud and less where it is soft."""
    level = DECIBELS * np.log(envelope.mean(axis=1))
    loud = level > level.max() - 35
    away = np.clip(level - level[loud].mean(), -15, 15)
    changed: np.ndarray = intensity * (change.level_db + change.swing * away)
    return changed


def _colour(bins: int, change: Rule, intensity: float) -> np.ndarray:
    """Tilt in dB (bins,), 0 at 1 kHz, flat below 200 Hz and above 6 kHz."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, bins)
    return intensity * change.tilt_db * np.log2(np.clip(hertz, 200, 6000) / 1000)


def _rule(label: str, intensity: float) -> Rule:
    name = resolve(label)
    if name not in RULES:
        raise AffgenError(f"emotion {label!r}: no rule; accepted: {', '.join(RULES)}")
    if not 0 <= intensity <= MOST:
        raise AffgenError(f"intensity {intensity}; accepted: 0 to {MOST:g}")
    return RULES[name]


def _pyworld() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks setuptools for its version
            import pyworld
    except ImportError as error:
        raise AffgenError("the rule baseline needs the package pyworld; install affgen[eval]") from error
    return pyworld
