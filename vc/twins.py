"""Neutral-emotional twins: one speaker, one sentence, said neutrally and with an emotion, and what differs.

=================  ====================================================================================================
:func:`find`       pairs of utterances in data directories
:func:`align`      which frame of one answers to which of the other: dynamic time warping (Sakoe and Chiba 1978,
                   symmetric steps) of cepstra without harmonics and their slopes, between the pauses at the ends
:func:`measure`    height, spread and slope of F0, level, dynamics and slope of the energy of one utterance
:func:`changes`    how far each control of :mod:`vc.prosody_config` moved from the one to the other, for many twins
=================  ====================================================================================================

Against the phone boundaries of :mod:`affgen.align` the warping is off by half a frame in the median.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit

from affgen.datadir import DataDir
from affgen.emotion.labels import resolve
from affgen.emotion.space import NEUTRAL
from affgen.errors import DataError
from affgen.featuredir import FeatureDir
from affgen.features import Features
from vc.content import ACTIVE, cepstra, log_energy
from vc.prosody import NAMES, Register, motion, peak, register
from vc.prosody_config import LEAST_VOICED, WIDEST

COUNT = 12
"""Cepstra that frames are compared by."""
SLOPE_WEIGHT, ENERGY_WEIGHT = 4.0, 0.5
STEP_COST = 4.0
"""What a frame without a partner of its own costs; this and the weights are chosen by phone boundaries."""
LEAST_MOTION = 0.002
"""Octaves added to the deviation of F0 from its running mean, which may be nothing."""
MARGIN = 3
"""Frames of silence kept at either end."""
FEW = 4.0
"""Frames added to both sides of a ratio of durations, which may be of none."""


Comparable = tuple[np.ndarray, int]
"""What frames are compared by (2 * COUNT + 2, n), and where the first of them is."""
Kinds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Twin:
    """Two utterances of data directory ``folder``; ``intensity`` is that of the emotional one, NaN if not known."""

    folder: Path
    neutral: str
    emotional: str
    label: str
    intensity: float
    speaker: str


def find(folders: Sequence[str | Path], *, leave_out: Iterable[str] = ()) -> list[Twin]:
    """Return all twins in Kaldi data directories, in a fixed order; speakers that match ``leave_out`` have none.

    Two utterances are twins if their ``text`` is the same but for case and blanks. Raises :class:`DataError` for a
    directory without ``text``, ``utt2emo`` or ``utt2spk``.
    """
    patterns = tuple(leave_out)
    return [twin for folder in folders for twin in _twins(DataDir.read(folder), patterns)]


def _twins(data: DataDir, leave_out: tuple[str, ...]) -> list[Twin]:
    for name in ("text", "utt2emo", "utt2spk"):
        if name not in data.tables:
            raise DataError(f"{data.path}: has no {name}; twins are found by speaker, sentence and emotion")
    levels = data.tables.get("utt2intensity", {})
    whose = data.tables["utt2spk"]
    labels = {key: resolve(name) for key, name in data.tables["utt2emo"].items()}
    said = {key: " ".join(line.casefold().split()) for key, line in data.tables["text"].items()}
    neutral: dict[tuple[str, str], list[str]] = {}
    for key in data.utterances:
        if labels[key] == NEUTRAL:
            neutral.setdefault((whose[key], said[key]), []).append(key)
    return [
        Twin(data.path, plain, key, labels[key], float(levels.get(key, "nan")), whose[key])
        for key in data.utterances
        if labels[key] != NEUTRAL and not any(fnmatchcase(whose[key], pattern) for pattern in leave_out)
        for plain in neutral.get((whose[key], said[key]), ())
    ]


def speech(energy: np.ndarray) -> tuple[int, int]:
    """Return where speech begins and ends in a log energy (T,): the first frame, and the one after the last."""
    found = np.flatnonzero(energy > peak(energy) - ACTIVE)
    return int(found[0]), int(found[-1]) + 1


# -------------------------------------------------------------------------------------------------- alignment


def align(one: Features, other: Features) -> np.ndarray:
    """Return the warping path (N, 2) of two utterances: frames of ``one`` and of ``other`` that answer to each other.

    Neither column ever falls, both rise by at most 1. Silence at the ends is not part of the path.
    """
    return _path(_comparable(one), _comparable(other))


def _path(one: Comparable, other: Comparable) -> np.ndarray:
    (a, begin_a), (b, begin_b) = one, other
    squares = (a**2).sum(axis=0)[:, None] + (b**2).sum(axis=0) - 2 * a.T @ b
    path = _best_path(np.sqrt(np.maximum(squares, 0)).astype(np.float64), STEP_COST)
    return path + np.array([begin_a, begin_b])


def partners(path: np.ndarray, frames: int) -> np.ndarray:
    """Return the place (``frames``,) in the second utterance of each frame of the first, NaN outside of the path."""
    count = np.bincount(path[:, 0], minlength=frames)
    total = np.bincount(path[:, 0], weights=path[:, 1], minlength=frames)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _comparable(sound: Features) -> Comparable:
    """Return what frames are compared by, (2 * COUNT + 2, n), and the first of the n frames."""
    energy = log_energy(sound.mel)
    loudest = peak(energy)
    first, last = speech(energy)
    first, last = max(first - MARGIN, 0), min(last + MARGIN, len(energy))
    values = cepstra(np.maximum(sound.mel - loudest, -7.0), sound.f0, COUNT)
    values -= values[:, energy > loudest - ACTIVE].mean(axis=1, keepdims=True)
    level = ENERGY_WEIGHT * np.maximum(energy - loudest, -ACTIVE - 1.5)
    still = np.pad(np.vstack([values, level]), ((0, 0), (1, 1)), mode="edge")
    slopes = (still[:, 2:] - still[:, :-2]) / 2
    return np.vstack([still[:, 1:-1], SLOPE_WEIGHT * slopes])[:, first:last], first


@njit(cache=True, nogil=True)
def _best_path(cost: np.ndarray, step_cost: float) -> np.ndarray:
    """Return the cheapest path (N, 2) through ``cost`` (n, m) from corner to corner."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    move = np.zeros((n, m), np.int8)
    total[0, 0] = -cost[0, 0]  # the first cell counts once
    for i in range(n):
        for j in range(m):
            best, chosen = total[i, j] + 2 * cost[i, j], 0
            for step, before in ((1, total[i, j + 1]), (2, total[i + 1, j])):
                if before + cost[i, j] + step_cost < best:
                    best, chosen = before + cost[i, j] + step_cost, step
            total[i + 1, j + 1], move[i, j] = best, chosen
    path = np.zeros((n + m, 2), np.int64)
    i, j, k = n - 1, m - 1, n + m
    while i >= 0 and j >= 0:
        k -= 1
        path[k, 0], path[k, 1] = i, j
        i, j = i - (move[i, j] != 2), j - (move[i, j] != 1)
    return path[k:]


# --------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Measured:
    """Prosody of one utterance; ``slope`` of log2 F0 (octaves) and ``tilt`` of the log energy (nepers) over it.

    ``gain`` is the level of its active frames and ``dynamics`` the log of their spread, both of the log energy;
    ``motion`` the log of how far F0 moves about its running mean.
    """

    register: Register
    slope: float
    tilt: float
    gain: float
    dynamics: float
    motion: float

    def minus(self, other: Measured) -> dict[str, float]:
        """Return how far each control but the durations is from that of ``other``."""
        return {
            "pitch": self.register.pitch - other.register.pitch,
            "range": float(np.log(self.register.spread / other.register.spread)),
            **{
                name: getattr(self, name) - getattr(other, name)
                for name in ("slope", "tilt", "gain", "dynamics", "motion")
            },
        }


def measure(sound: Features) -> Measured | None:
    """Measure an utterance; None if too little of it is voiced."""
    energy = log_energy(sound.mel)
    own = register(sound.f0, energy)
    loud = energy > own.peak - ACTIVE
    voiced = loud & (sound.f0 > 0)
    if voiced.sum() < LEAST_VOICED:
        return None
    first, end = speech(energy)
    phase = (np.arange(len(energy)) + 0.5 - first) / (end - first) - 0.5
    pitch = np.clip(np.log2(sound.f0[voiced]), own.pitch - WIDEST, own.pitch + WIDEST)
    gain = 0.5 * np.log(np.mean(np.exp(2 * energy[loud].astype(np.float64))))
    dynamics = np.log(energy[loud].std() + 0.05)
    quick = np.log(motion(sound.f0)[voiced].std() + LEAST_MOTION)
    slopes = _slope(phase[voiced], pitch), _slope(phase[loud], energy[loud])
    return Measured(own, *slopes, float(gain), float(dynamics), float(quick))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / max(centred @ centred, 1e-9))


@dataclass(frozen=True)
class Changes:
    """N twins: whose and what they are, ``values`` (N, C) of what changed, and where the neutral utterance was.

    ``intensity`` (N,) is NaN where unknown, ``register`` (N,) the median log2 F0 and ``spread`` (N,) the log of the
    spread of F0 of the neutral utterance.
    """

    folder: np.ndarray
    speaker: np.ndarray
    label: np.ndarray
    intensity: np.ndarray
    values: np.ndarray
    register: np.ndarray
    spread: np.ndarray


def changes(twins: Sequence[Twin]) -> Changes:
    """Measure what changed between the utterances of each twin; those with hardly a voiced frame are left out.

    Raises :class:`DataError` if none is left.
    """
    folders = {twin.folder: FeatureDir(twin.folder) for twin in twins}

    @lru_cache(maxsize=256)  # the twins of a speaker follow each other
    def known(folder: Path, utterance: str) -> tuple[Measured | None, Comparable, Kinds]:
        features = folders[folder].features(utterance)
        return measure(features), _comparable(features), _kinds(features)

    rows = []
    for twin in twins:
        (plain, one, kinds), (moved, other, _) = (known(twin.folder, key) for key in (twin.neutral, twin.emotional))
        if plain is not None and moved is not None:
            values = moved.minus(plain) | _durations(_path(one, other), kinds)
            own = plain.register
            rows.append((twin, [values[name] for name in NAMES], own.pitch, np.log(own.spread)))
    if not rows:
        raise DataError("there are no neutral-emotional twins: one speaker, one sentence, neutral and with an emotion")
    who, numbers, pitch, spread = zip(*rows, strict=True)
    named = (np.array([getattr(t, name) for t in who]) for name in ("speaker", "label", "intensity"))
    return Changes(np.array([str(t.folder) for t in who]), *named, *(np.array(x) for x in (numbers, pitch, spread)))


def _kinds(sound: Features) -> Kinds:
    """Return which frames are voiced, unvoiced and pause, each (T,)."""
    energy = log_energy(sound.mel)
    quiet = energy <= peak(energy) - ACTIVE
    return {"voiced": ~quiet & (sound.f0 > 0), "unvoiced": ~quiet & (sound.f0 <= 0), "pause": quiet}


def _durations(path: np.ndarray, kinds: Kinds) -> dict[str, float]:
    """Return the log duration ratios along a path; what is voiced, unvoiced or pause is asked of the neutral side."""
    out = {}
    for name, frames in kinds.items():
        chosen = frames[path[:, 0]]
        before, after = (len(np.unique(path[chosen, side])) for side in (0, 1))
        out[name] = float(np.log((after + FEW) / (before + FEW)))
    return out
