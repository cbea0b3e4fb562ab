"""Chord symbols from notes: template matching per beat, smoothed by a Viterbi search over 12 roots x 11 qualities."""

from __future__ import annotations

import numpy as np

from music.tokens import CHORD_INTERVALS, CHORDS, NO_CHORD, STEPS_PER_BEAT

CHANGE_COST = 0.45
"""Cost of a chord change between two beats, in units of matched chroma; changes on the first beat of a bar cost
less.
"""
COMPLEXITY = np.array([0.0, 0.0, 0.12, 0.12, 0.05, 0.08, 0.05, 0.1, 0.08, 0.1, 0.14])
"""Handicap of each quality, so that a triad wins where a seventh is not really heard."""


def recognise(notes: np.ndarray, beats: int) -> np.ndarray:
    """Chord numbers (beats,) for notes (N, 4) of step, pitch, duration, velocity; 0 where nothing sounds."""
    if beats == 0:
        return np.zeros(0, dtype=np.int64)
    chroma, bass = _chroma(notes, beats)
    silent = chroma.sum(axis=1) == 0
    scores = _scores(chroma, bass)  # (beats, 132)
    path = _viterbi(scores)
    return np.where(silent, NO_CHORD, path + 1)


def _chroma(notes: np.ndarray, beats: int) -> tuple[np.ndarray, np.ndarray]:
    """Sounding weight per beat and pitch class (beats, 12), normalised to sum 1, and the bass pitch class as
    weights.
    """
    chroma, bass = np.zeros((beats, 12)), np.zeros((beats, 12))
    lowest = np.full(beats, 128)
    for step, pitch, duration, velocity in notes.tolist():
        first, last = step // STEPS_PER_BEAT, min(beats - 1, (step + duration - 1) // STEPS_PER_BEAT)
        for beat in range(first, last + 1):
            begin, end = beat * STEPS_PER_BEAT, (beat + 1) * STEPS_PER_BEAT
            sounding = min(end, step + duration) - max(begin, step)
            chroma[beat, pitch % 12] += sounding * (0.3 + velocity / 127) * (1.0 if step >= begin else 0.6)
            if pitch < lowest[beat]:
                lowest[beat] = pitch
    sounding_beats = lowest < 128
    bass[sounding_beats, lowest[sounding_beats] % 12] = 1.0
    total = chroma.sum(axis=1, keepdims=True)
    return chroma / np.maximum(total, 1e-9), bass


def _scores(chroma: np.ndarray, bass: np.ndarray) -> np.ndarray:
    """How well each of the 132 chords explains each beat: chord tones in, others out, root in the bass preferred."""
    scores = np.empty((len(chroma), len(CHORDS) - 1))
    for number in range(len(CHORDS) - 1):
        fifth, quality = divmod(number, len(CHORD_INTERVALS))
        root = 7 * fifth % 12
        tones = [(root + interval) % 12 for interval in CHORD_INTERVALS[quality]]
        inside = chroma[:, tones].sum(axis=1)
        missing = (chroma[:, tones] < 0.02).sum(axis=1) / len(tones)
        scores[:, number] = 2 * inside - 1 - 0.5 * missing + 0.25 * bass[:, root] - COMPLEXITY[quality]
    return scores


def _viterbi(scores: np.ndarray) -> np.ndarray:
    """Best chord path: staying is free, changing costs more inside a bar than on its first or third beat."""
    beats, _ = scores.shape
    best = scores[0].copy()
    back = np.zeros(scores.shape, dtype=np.int64)
    for beat in range(1, beats):
        cost = CHANGE_COST * (0.6, 1.5, 1.0, 1.5)[beat % 4]
        leader = int(best.argmax())
        change = best[leader] - cost
        stay = best >= change
        back[beat] = np.where(stay, np.arange(len(best)), leader)
        best = np.where(stay, best, change) + scores[beat]
    path = np.empty(beats, dtype=np.int64)
    path[-1] = best.argmax()
    for beat in range(beats - 1, 0, -1):
        path[beat - 1] = back[beat, path[beat]]
    return path
