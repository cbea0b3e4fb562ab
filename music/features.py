"""What a piece of piano music sounds like in numbers: the features from which its emotion is read.

Everything is measured in seconds and MIDI pitches, never in beats, bars or file tempo, so that a raw transcription
(constant 120 bpm, no beats), a score on a 16th grid and a window of a few seconds are described alike. Notes whose
onsets lie within 40 ms make one event (a chord), pedal and file structure are ignored, and no feature depends on how
long the piece is or, as far as harmony goes, on its key.

| group    | what it measures                                                                                     |
|----------|------------------------------------------------------------------------------------------------------|
| time     | notes and events per second, inter-onset intervals, regularity (nPVI, Grabe & Low 2002; pulse)       |
| length   | durations, articulation (duration over the time to the next event)                                   |
| velocity | level, spread, accents, balance of treble and bass; one constant value reads as "dynamics not known" |
| pitch    | level, spread, registers, top and bottom line and their motion                                       |
| key      | Krumhansl & Kessler (1982) correlations, pitch classes over the best-fitting diatonic collection     |
| harmony  | voices sounding, interval classes between them, triads and bass as degrees of that collection         |
"""

from __future__ import annotations

import numpy as np

from affgen.score import Score

CHORD_TOLERANCE = 0.04
"""Seconds; onsets closer than this to the one before belong to the same event (humans spread a chord by 10-40 ms)."""

FRAME = 0.1
"""Seconds per frame of the sounding-notes grid."""

MAX_FRAMES = 36_000
"""The grid grows coarser beyond one hour of music, so that memory stays bounded."""

KRUMHANSL_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
KRUMHANSL_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
DIATONIC = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], dtype=float)
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6)}


def note_table(score: Score) -> np.ndarray:
    """Return ``(N, 4)``: onset and duration in seconds, MIDI pitch, velocity; by onset, then pitch."""
    notes = score.arrays()
    onset = np.asarray(score.seconds(notes["onset"]), dtype=float)
    end = np.asarray(score.seconds(notes["onset"] + notes["duration"]), dtype=float)
    return np.stack([onset, end - onset, notes["pitch"].astype(float), notes["velocity"].astype(float)], axis=1)


def features(score: Score) -> np.ndarray:
    """Return the ``(F,)`` features of ``score`` in the order of :data:`FEATURE_NAMES`; always finite."""
    return table_features(note_table(score))


def table_features(table: np.ndarray) -> np.ndarray:
    """Return the ``(F,)`` features of ``table (N, 4)`` as :func:`note_table` makes it, N >= 1; always finite."""
    return np.fromiter(_describe(table).values(), dtype=float)


def _describe(table: np.ndarray) -> dict[str, float]:
    table = table[np.lexsort((table[:, 2], table[:, 0]))]
    starts = np.flatnonzero(np.diff(table[:, 0], prepend=-np.inf) > CHORD_TOLERANCE)
    event_times = table[starts, 0]
    intervals = np.diff(event_times) if len(starts) > 1 else np.array([max(table[0, 1], 0.1)])
    return {
        **_time(table, event_times, intervals),
        **_lengths(table, starts, intervals),
        **_velocities(table, starts),
        **_pitches(table, starts),
        **_key(table),
        **_harmony(table),
    }


def _time(table: np.ndarray, event_times: np.ndarray, intervals: np.ndarray) -> dict[str, float]:
    span = max(float(np.sum(intervals)) + float(np.median(intervals)), 0.5)
    log_intervals = np.log2(np.maximum(intervals, 0.02))
    pairs = np.abs(np.diff(intervals)) / (0.5 * (intervals[1:] + intervals[:-1]))
    sizes = len(table) / len(event_times)
    return {
        "notes_per_second": float(np.log2(len(table) / span)),
        "events_per_second": float(np.log2(len(event_times) / span)),
        "notes_per_event": float(sizes),
        "interval_median": float(np.median(log_intervals)),
        "interval_low": float(np.percentile(log_intervals, 15)),
        "interval_high": float(np.percentile(log_intervals, 85)),
        "interval_spread": float(np.std(log_intervals)),
        "interval_npvi": float(np.mean(pairs)) if len(pairs) else 0.0,
        **_pulse(table),
    }


def _pulse(table: np.ndarray) -> dict[str, float]:
    """Return the strength of the strongest periodicity of onsets between 0.2 and 1.2 s, and its log2 period."""
    onset = table[:, 0] - table[0, 0]
    step = max(0.05, float(onset[-1]) / MAX_FRAMES)
    envelope = np.bincount((onset / step).astype(int), minlength=64).astype(float)
    envelope = np.convolve(np.sqrt(envelope), [0.25, 0.5, 0.25])
    envelope -= envelope.mean()
    size = 2 ** int(np.ceil(np.log2(2 * len(envelope))))
    spectrum = np.abs(np.fft.rfft(envelope, size)) ** 2
    correlation = np.fft.irfft(spectrum, size)
    lags = np.arange(4, 25)
    values = correlation[lags] / max(float(correlation[0]), 1e-9)
    best = int(np.argmax(values))
    return {"pulse_strength": float(values[best]), "pulse_period": float(np.log2(lags[best] * step))}


def _lengths(table: np.ndarray, starts: np.ndarray, intervals: np.ndarray) -> dict[str, float]:
    log_duration = np.log2(np.clip(table[:, 1], 0.05, 8.0))
    event_duration = np.maximum.reduceat(table[:, 1], starts)[: len(intervals)]
    legato = np.log2(np.clip(event_duration / np.maximum(intervals, 0.05), 0.125, 16.0))
    return {
        "duration_median": float(np.median(log_duration)),
        "duration_mean": float(np.mean(log_duration)),
        "duration_low": float(np.percentile(log_duration, 15)),
        "duration_high": float(np.percentile(log_duration, 85)),
        "duration_spread": float(np.std(log_duration)),
        "duration_short": float(np.mean(table[:, 1] < 0.25)),
        "legato_median": float(np.median(legato)),
        "legato_low": float(np.percentile(legato, 15)),
    }


def _velocities(table: np.ndarray, starts: np.ndarray) -> dict[str, float]:
    velocity, pitch = table[:, 3], table[:, 2]
    spread = float(np.std(velocity))
    loudest = np.maximum.reduceat(velocity, starts)
    high, low = pitch >= 60, pitch < 52
    mean = float(np.mean(velocity))
    return {
        "velocity_mean": mean,
        "velocity_low": float(np.percentile(velocity, 10)),
        "velocity_high": float(np.percentile(velocity, 90)),
        "velocity_spread": spread,
        "velocity_change": float(np.mean(np.abs(np.diff(loudest)))) if len(loudest) > 1 else 0.0,
        "velocity_treble": float(np.mean(velocity[high])) - mean if high.any() else 0.0,
        "velocity_bass": float(np.mean(velocity[low])) - mean if low.any() else 0.0,
        "velocity_by_pitch": float(np.corrcoef(velocity, pitch)[0, 1]) if spread > 0 and np.ptp(pitch) > 0 else 0.0,
    }


def _pitches(table: np.ndarray, starts: np.ndarray) -> dict[str, float]:
    pitch = table[:, 2]
    low, high = np.percentile(pitch, [5, 95])
    top = np.maximum.reduceat(pitch, starts)
    bottom = np.minimum.reduceat(pitch, starts)
    return {
        "pitch_mean": float(np.mean(pitch)),
        "pitch_low": float(low),
        "pitch_high": float(high),
        "pitch_spread": float(np.std(pitch)),
        "register_deep": float(np.mean(pitch < 48)),
        "register_tenor": float(np.mean((pitch >= 48) & (pitch < 60))),
        "register_treble": float(np.mean(pitch >= 72)),
        **_motion(top, "top"),
        **_motion(bottom, "bottom"),
    }


def _motion(line: np.ndarray, name: str) -> dict[str, float]:
    steps = np.diff(line) if len(line) > 1 else np.zeros(1)
    size = np.abs(steps)
    return {
        f"{name}_mean": float(np.mean(line)),
        f"{name}_motion": float(np.mean(np.minimum(size, 24.0))),
        f"{name}_repeats": float(np.mean(size == 0)),
        f"{name}_steps": float(np.mean((size > 0) & (size <= 2))),
        f"{name}_rises": float(np.mean(steps > 0)),
    }


def _key(table: np.ndarray) -> dict[str, float]:
    weight = np.clip(table[:, 1], 0.1, 1.0) * (32.0 + table[:, 3])
    classes = np.bincount(table[:, 2].astype(int) % 12, weights=weight, minlength=12)
    classes = classes / classes.sum()
    rolled = np.stack([np.roll(classes, -tonic) for tonic in range(12)])
    major, minor = _correlations(rolled, KRUMHANSL_MAJOR), _correlations(rolled, KRUMHANSL_MINOR)
    home = tonic_of(classes)
    degrees = rolled[home]
    return {
        "key_major": float(major.max()),
        "key_minor": float(minor.max()),
        "key_mode": float(major.max() - minor.max()),
        "key_relative": float(major[home] - minor[(home + 9) % 12]),
        "key_diatonic": float(degrees @ DIATONIC),
        "key_tonic_triads": float(degrees[0] + degrees[7] - degrees[9] - degrees[4]),
        **{f"degree_{i}": float(degrees[i]) for i in (0, 2, 4, 5, 7, 8, 9, 11)},
    }


def tonic_of(classes: np.ndarray) -> int:
    """Return the pitch class 0-11 of the major tonic whose collection fits ``classes (12,)`` best.

    A piece in A minor gives C: the collection is far steadier than the choice between a key and its relative.
    """
    rolled = np.stack([np.roll(classes, -tonic) for tonic in range(12)])
    fit = np.maximum(_correlations(rolled, KRUMHANSL_MAJOR), np.roll(_correlations(rolled, KRUMHANSL_MINOR), -9))
    return int(np.argmax(rolled @ DIATONIC + 0.25 * fit))


def _correlations(rows: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each row of ``rows (12, 12)`` with ``profile (12,)``; 0 for a flat row."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    reference = profile - profile.mean()
    norm = np.linalg.norm(centred, axis=1) * np.linalg.norm(reference)
    return centred @ reference / np.maximum(norm, 1e-9)


def _harmony(table: np.ndarray) -> dict[str, float]:
    roll = sounding(table)  # (T, 128)
    voices = roll.sum(axis=1)
    active = roll[voices > 0]
    chroma = np.stack([active[:, c::12].any(axis=1) for c in range(12)], axis=1).astype(float)  # (T, 12)
    classes = np.array([(chroma * np.roll(chroma, -k, axis=1)).sum() for k in range(1, 7)])
    classes = classes / max(float(classes.sum()), 1.0)
    return {
        "voices_mean": float(voices.mean()),
        **{f"interval_class_{k}": float(v) for k, v in enumerate(classes, start=1)},
        **_chords(active),
    }


def sounding(table: np.ndarray) -> np.ndarray:
    """Return which pitches sound in each 0.1 s frame, ``(T, 128)`` bool, for ``table (N, 4)``."""
    start = float(table[:, 0].min())
    end = float((table[:, 0] + table[:, 1]).max())
    step = max(FRAME, (end - start) / MAX_FRAMES)
    first = np.round((table[:, 0] - start) / step).astype(int)
    last = np.maximum(np.round((table[:, 0] + table[:, 1] - start) / step).astype(int), first + 1)
    pitch = np.clip(table[:, 2].astype(int), 0, 127)
    edges = np.zeros((int(last.max()) + 1, 128), dtype=np.int32)
    np.add.at(edges, (first, pitch), 1)
    np.add.at(edges, (last, pitch), -1)
    return np.cumsum(edges, axis=0)[:-1] > 0


def _chords(active: np.ndarray) -> dict[str, float]:
    """Describe the chords of ``active (T, 128)``, each frame smoothed over the second around it."""
    frames = len(active)
    width = min(10, frames)
    total = np.cumsum(np.concatenate([np.zeros((1, 128)), active]), axis=0)
    blocks = (total[width:] - total[:-width])[:: max(width // 2, 1)] / width  # (M, 128)
    chroma = np.stack([blocks[:, c::12].sum(axis=1) for c in range(12)], axis=1)  # (M, 12)
    bass = np.argmax(blocks >= min(0.4, float(blocks.max())), axis=1)
    bass = np.where(blocks[np.arange(len(blocks)), bass] > 0, bass, np.argmax(blocks, axis=1))
    home = tonic_of(chroma.sum(axis=0) / chroma.sum())
    bonus = 0.15 * np.eye(12)[bass % 12]
    unit = chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-9)
    fits = {name: _triad_fit(unit, shape) + bonus for name, shape in TRIADS.items()}
    best = np.stack([fit.max(axis=1) for fit in fits.values()], axis=1)  # (M, 3)
    winner = np.argmax(best[:, :2], axis=1)
    root = np.where(winner == 0, fits["major"].argmax(axis=1), fits["minor"].argmax(axis=1))
    degree = np.bincount((root - home) % 12, minlength=12) / len(root)
    bass_degree = np.bincount((bass - home) % 12, minlength=12) / len(bass)
    change = np.mean(root[1:] != root[:-1]) if len(root) > 1 else 0.0
    return {
        **{f"chord_{name}": float(np.mean(best[:, i])) for i, name in enumerate(TRIADS)},
        "chord_mode": float(np.mean(best[:, 0] - best[:, 1])),
        "chord_major_share": float(np.mean(winner == 0)),
        "chord_change": float(change),
        "chord_classes": float(np.mean((chroma > 0.2).sum(axis=1))),
        "bass_level": float(np.mean(bass)),
        **{f"root_{d}": float(degree[d]) for d in (0, 2, 7, 9)},
        **{f"bass_{d}": float(bass_degree[d]) for d in (0, 5, 7, 9)},
    }


def _triad_fit(unit: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the cosine of each row of ``unit (M, 12)`` with the triad of ``shape`` on each of 12 roots, (M, 12)."""
    template = np.zeros(12)
    template[list(shape)] = 1.0 / np.sqrt(len(shape))
    return np.stack([unit @ np.roll(template, root) for root in range(12)], axis=1)


FEATURE_NAMES: tuple[str, ...] = tuple(_describe(np.array([[0.0, 1.0, 60.0, 64.0]])))
