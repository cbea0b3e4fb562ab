"""Musical keys: names, numbers, and estimation from notes (Krumhansl & Kessler, Psychological Review 1982)."""

from __future__ import annotations

import re

import numpy as np

from affgen.errors import AffgenError

UNKNOWN = 0
TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAJOR_PROFILE = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR_PROFILE = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


def parse_key(text: str) -> int:
    """Key number 1..24 (major keys by tonic, then minor) of a name such as ``C``, ``F#``, ``Bb major``, ``Am``,
    ``c# minor``.
    """
    match = re.fullmatch(r"\s*([A-Ga-g])\s*([#b♯♭]?)\s*(m|min|minor|maj|major|:min|:maj|)\s*", text)
    if not match:
        raise AffgenError(
            f"--key {text!r} is not a key; accepted: a tonic and a mode, such as C, F# major, Bbm, a minor"
        )
    letter, accidental, mode = match.groups()
    tonic = (LETTERS[letter.upper()] + {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}[accidental]) % 12
    minor = mode.lstrip(":") in ("m", "min", "minor") or (letter.islower() and not mode)
    return 1 + tonic + (12 if minor else 0)


def key_name(key: int) -> str:
    """``"C major"`` ... ``"B minor"``; ``"unknown"`` for 0."""
    if key == UNKNOWN:
        return "unknown"
    minor, tonic = divmod(key - 1, 12)
    return f"{TONICS[tonic]} {'minor' if minor else 'major'}"


def transpose_key(key: int, semitones: int) -> int:
    """The key with its tonic moved."""
    if key == UNKNOWN:
        return key
    minor, tonic = divmod(key - 1, 12)
    return 1 + (tonic + semitones) % 12 + 12 * minor


def scale_pitch_classes(key: int) -> np.ndarray:
    """Mask (12,) of the pitch classes of a key; minor keys have the raised seventh too, unknown has all twelve."""
    mask = np.zeros(12, dtype=bool)
    if key == UNKNOWN:
        return ~mask
    minor, tonic = divmod(key - 1, 12)
    steps = (*MINOR_SCALE, 11) if minor else MAJOR_SCALE
    mask[[(tonic + step) % 12 for step in steps]] = True
    return mask


def estimate_key(pitches: np.ndarray, weights: np.ndarray) -> int:
    """Key number 1..24 whose profile correlates best with the weighted pitch classes; 0 without notes."""
    histogram = np.bincount(np.asarray(pitches, dtype=int) % 12, weights=weights, minlength=12)
    if histogram.std() == 0:
        return UNKNOWN
    profiles = np.array([np.roll(profile, tonic) for profile in (MAJOR_PROFILE, MINOR_PROFILE) for tonic in range(12)])
    scores = [float(np.corrcoef(profile, histogram)[0, 1]) for profile in profiles]
    return 1 + int(np.argmax(scores))
