"""What is read in one sound: everything that :mod:`vc.figures` needs, measured at one loudness.

By itself a sound is :class:`Heard`; against the :class:`Source` it was made from it becomes a reading, a dictionary of
plain numbers. Content is compared as symbols, not as frames: a change of duration alone is no error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from affgen import pitch
from affgen.align.lexicon import pronounce, words
from affgen.audio import Audio, loudness, normalise, resample
from affgen.emotion.labels import coordinates
from affgen.errors import AffgenError
from affgen.features import BANDS, SAMPLE_RATE, Features, energy, log_mel
from vc import figures, twins
from vc.content import log_energy

LUFS = -23.0
ACTIVE = 4.0
"""Frames less than this many nepers (35 dB) under the loudest speech count as speech."""
DEPTH = 7.0
"""Bands are heard down to this many nepers (61 dB) under the loudest speech."""
CEPSTRA = 20
"""Mel-cepstra, the constant left out, of the Fréchet distance and of the distortion."""
RECENT = 8
ROUGHNESS = ("jitter", "periodicity", "voiced", "flux", "detail", "variance")

Embed = Callable[[Audio], np.ndarray]


class Listener(Protocol):
    """What a judge offers: :class:`vc.judge.Judge`."""

    @property
    def labels(self) -> Sequence[str]:
        """The labels it tells apart."""

    def read(self, audio: Audio) -> Any:
        """Return what is heard, with ``posterior`` {label: probability}."""

    def strength(self, judged: Any, label: str, anchor: Any) -> float:
        """Return the signed projection of what is heard on the direction of ``label``, anchored."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What a sound is by itself; ``voices`` {encoder: unit vector}, ``phones`` and ``words`` as recognised."""

    lufs: float
    features: Features
    periodicity: np.ndarray
    judged: Any
    voices: dict[str, np.ndarray]
    phones: tuple[str, ...]
    words: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Source:
    """A neutral clip to be converted, raw and ``vocoded``, and ``others``: the speaker's other neutral clips."""

    name: str
    speaker: str
    text: str
    audio: Audio
    heard: Heard
    vocoded: Heard
    others: tuple[Heard, ...]


@dataclass(eq=False)
class Reader:
    """The instruments; a sound that is the same to the last bit as one of the last few is not read again."""

    judge: Listener
    encoders: dict[str, Embed]
    phones: Callable[[np.ndarray], tuple[str, ...]]
    words: Callable[[Audio], tuple[str, ...]] | None
    mos: Callable[[Audio], float] | None

    def __post_init__(self) -> None:
        self._recent: dict[str, Heard] = {}

    def hear(self, audio: Audio) -> Heard:
        """Read a sound by itself; raises :class:`AffgenError` for silence, and as the judge does."""
        digest = hashlib.sha256(audio.samples.tobytes() + str(audio.sample_rate).encode()).hexdigest()
        if digest not in self._recent:
            while len(self._recent) >= RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[digest] = self._heard(audio)
        return self._recent[digest]

    def _heard(self, audio: Audio) -> Heard:
        level = loudness(audio.samples, audio.sample_rate)
        if not np.isfinite(level):
            raise AffgenError("nothing is heard in it: silence")
        samples = resample(normalise(audio, LUFS).samples, audio.sample_rate, SAMPLE_RATE)
        matched = Audio(samples, SAMPLE_RATE)
        mel = log_mel(samples)
        f0, periodicity = pitch.f0(samples, SAMPLE_RATE)
        return Heard(
            level,
            Features(mel, f0, energy(samples)),
            periodicity,
            self.judge.read(matched),
            {name: embed(matched) for name, embed in self.encoders.items()},
            self.phones(mel),
            self.words(matched) if self.words else None,
        )

    def read(self, source: Source, audio: Audio, label: str, intensity: float) -> dict[str, Any]:
        """Return the reading of ``audio``, made from ``source``, as plain JSON data; raises as :meth:`hear`."""
        heard = self.hear(audio)
        told = {name: float(chance) for name, chance in heard.judged.posterior.items()}
        strengths = {
            name: float(self.judge.strength(heard.judged, name, source.heard.judged))
            for name in self.judge.labels
            if name != "neutral"
        }
        wrong = errors(source, heard)
        reading: dict[str, Any] = {
            "utterance": source.name, "speaker": source.speaker, "label": label, "intensity": intensity,
            "posterior": told, "strength": strengths, "errors": wrong,
            "speaker_likeness": likeness(source, heard), "numbers": described(source, heard),
        }  # fmt: skip
        if intensity == figures.TOP:
            reading["moments"] = figures.moments(frames(heard.features))
            if self.mos is not None:
                reading["numbers"]["mos"] = self.mos(normalise(audio, LUFS))
        return reading

    def about(self) -> dict[str, Any]:
        """Say which instruments there are."""
        return {
            "speaker encoders": sorted(self.encoders),
            "words": self.words is not None,
            "mos": self.mos is not None,
        }


# ------------------------------------------------------------------------------------- one sound against its source


def errors(source: Source, heard: Heard) -> dict[str, tuple[int, int]]:
    """Return (errors, symbols) of ``phones`` and ``words`` against an English text, and ``phones_source``.

    The last is against what the recogniser makes of the raw source, in whatever language; without English text it
    stands for ``phones`` too.
    """
    own = source.heard.phones
    found = {"phones_source": (figures.edits(own, heard.phones), len(own))}
    text = spoken(source.text)
    found["phones"] = (figures.edits(text, heard.phones), len(text)) if text else found["phones_source"]
    if text and heard.words is not None:
        said = words(source.text)
        found["words"] = (figures.edits(said, heard.words), len(said))
    return found


def likeness(source: Source, heard: Heard) -> dict[str, dict[str, float]]:
    """Return for each speaker encoder the cosine to the ``source`` and the mean cosine to its ``others``.

    A sound that is itself one of the others is not compared with itself.
    """
    found = {}
    for name, vector in heard.voices.items():
        near = {"source": float(vector @ source.heard.voices[name])}
        others = [v for v in (other.voices[name] for other in source.others) if not np.array_equal(v, vector)]
        if others:
            near["others"] = float(np.mean([vector @ other for other in others]))
        found[name] = near
    return found


def described(source: Source, heard: Heard) -> dict[str, float]:
    """Return prosody, roughness, distortion and plane of ``heard``, and how they differ from the source.

    Semitones for F0, decibels for energy, LU for ``loudness_change`` (of the sounds before they are matched).
    ``duration_ratio`` is of the stretch between the first and the last speech.
    """
    path = twins.align(source.heard.features, heard.features)
    voice, own = (melody(part.features) for part in (heard, source.heard))
    place, origin = (plane(part.judged.posterior) for part in (heard, source.heard))
    ours, theirs = (np.diff(twins.speech(log_energy(part.features.mel)))[0] for part in (heard, source.heard))
    found = {
        **roughness(heard),
        "mcd": distortion(source.vocoded.features, heard.features, path),
        "valence_change": place[0] - origin[0],
        "arousal_change": place[1] - origin[1],
        "f0_change": voice["median"] - own["median"],
        "f0_range": voice["range"],
        "f0_range_change": voice["range"] - own["range"],
        "f0_correlation": correlation(source.heard.features.f0, heard.features.f0, path),
        "energy_spread": spread(heard.features),
        "energy_spread_change": spread(heard.features) - spread(source.heard.features),
        "duration_ratio": float(ours / theirs),
        "loudness_change": heard.lufs - source.heard.lufs,
    }
    for name, change in changes(source, heard).items():
        found[name] = change
    return {name: float(value) for name, value in found.items()}


def changes(source: Source, heard: Heard) -> dict[str, float]:
    """Return the errors beyond those in the vocoded source, in points of 100 symbols: ``phones_change`` and so on."""
    before, after = errors(source, source.vocoded), errors(source, heard)
    return {
        f"{name}_change": 100 * (after[name][0] - before[name][0]) / max(before[name][1], 1)
        for name in after
        if name in before
    }


def melody(sound: Features) -> dict[str, float]:
    """Return the median of F0 in semitones above 55 Hz, and the range from its 5th to its 95th hundredth."""
    tones = 12 * np.log2(sound.f0[sound.f0 > 0] / 55.0)
    if not len(tones):
        return {"median": float("nan"), "range": float("nan")}
    low, middle, high = np.percentile(tones, (5, 50, 95))
    return {"median": float(middle), "range": float(high - low)}


def correlation(f0: np.ndarray, other: np.ndarray, path: np.ndarray) -> float:
    """Return Pearson's correlation of two log F0 contours along ``path`` (N, 2), where both are voiced."""
    a, b = f0[path[:, 0]], other[path[:, 1]]
    both = (a > 0) & (b > 0)
    if both.sum() < 10:
        return float("nan")
    x, y = (np.log2(values[both]) - np.log2(values[both]).mean() for values in (a, b))
    return float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-12))


def spread(sound: Features) -> float:
    """Return the standard deviation of the log energy of speech, in dB."""
    loud = log_energy(sound.mel)
    return float(20 / np.log(10) * loud[active(loud)].std())


def plane(posterior: Mapping[str, float]) -> tuple[float, float]:
    """Return valence and arousal: the labels' published coordinates, weighted by their probabilities."""
    places = np.array([coordinates(name) for name in posterior])
    valence, arousal = np.array(list(posterior.values())) @ places
    return float(valence), float(arousal)


def roughness(heard: Heard) -> dict[str, float]:
    """Return what sounds processed, as numbers to be compared with those of real speech of the same emotion.

    ``jitter``: mean bend of F0 from frame to frame, semitones; ``periodicity`` of voiced frames; ``voiced``: share of
    speech; ``flux``: root mean square change of the log spectrum per frame; ``detail``: deviation of the log spectrum
    from its mean over 5 bands (low: smeared); ``variance``: mean log deviation of cepstra 1 to 12 over time (low:
    over-smoothed; Toda and Tokuda 2007, global variance).
    """
    sound = heard.features
    loud = active(log_energy(sound.mel))
    mel = clipped(sound.mel)
    voiced = (sound.f0 > 0) & loud
    tones = 12 * np.log2(np.where(sound.f0 > 0, sound.f0, 1.0))
    bends = np.abs(np.diff(tones, n=2))[voiced[2:] & voiced[1:-1] & voiced[:-2]]
    steps = np.diff(mel, axis=1)[:, loud[1:] & loud[:-1]]
    edged = np.pad(mel, ((2, 2), (0, 0)), mode="edge")
    smooth = np.mean([edged[k : k + len(mel)] for k in range(5)], axis=0)
    values = cepstra(mel, 12)[:, loud]
    return {
        "jitter": _mean(np.minimum(bends, 2.0)),
        "periodicity": _mean(heard.periodicity[voiced]),
        "voiced": _mean((sound.f0 > 0)[loud].astype(float)),
        "flux": float(np.sqrt(_mean(steps**2))),
        "detail": _mean((mel - smooth)[:, loud].std(axis=0)),
        "variance": _mean(np.log(values.std(axis=1) + 1e-6)),
    }


def distortion(one: Features, other: Features, path: np.ndarray) -> float:
    """Return the mel-cepstral distortion in dB along ``path`` (N, 2), over the frames of ``one`` that are speech."""
    kept = path[active(log_energy(one.mel))[path[:, 0]]]
    difference = cepstra(clipped(one.mel), CEPSTRA)[:, kept[:, 0]] - cepstra(clipped(other.mel), CEPSTRA)[:, kept[:, 1]]
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * (difference**2).sum(axis=0))))


def frames(sound: Features) -> np.ndarray:
    """Return cepstra and their slopes (40, n) of the n frames that are speech, squares of which are dB squared."""
    values = 10 / np.log(10) * np.sqrt(2) * cepstra(clipped(sound.mel), CEPSTRA)
    still = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    return np.vstack([values, (still[:, 2:] - still[:, :-2]) / 2])[:, active(log_energy(sound.mel))]


def active(loud: np.ndarray) -> np.ndarray:
    """Return which frames (T,) of a log energy (T,) are speech."""
    chosen: np.ndarray = loud > twins.peak(loud) - ACTIVE
    return chosen


def clipped(mel: np.ndarray) -> np.ndarray:
    """Return mel (80, T) no lower than :data:`DEPTH` under its loudest speech."""
    return np.maximum(mel, twins.peak(log_energy(mel)) - DEPTH)


def cepstra(mel: np.ndarray, count: int) -> np.ndarray:
    """Return c_1 to c_``count`` (``count``, T) of ln |H| = c_0 + sum_d c_d cos(w d): :mod:`affgen.metrics.speech`."""
    return _cosines(count) @ mel


@lru_cache(maxsize=4)
def _cosines(count: int) -> np.ndarray:
    place = (np.arange(BANDS) + 0.5) / BANDS
    return 2 / BANDS * np.cos(np.pi * np.arange(1, count + 1)[:, None] * place)


def _mean(numbers: np.ndarray) -> float:
    return float(numbers.mean()) if numbers.size else float("nan")


@lru_cache(maxsize=512)
def spoken(text: str) -> tuple[str, ...]:
    """Return the phones of an English text; none where it has a word that the CMU dictionary has not."""
    try:
        return tuple(phone for word in pronounce(text, "en") for phone in word.phones) if text else ()
    except AffgenError:
        return ()
