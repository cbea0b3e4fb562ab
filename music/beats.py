"""Beats of a MIDI performance: kept where the file has them, otherwise estimated from the notes alone.

Estimation follows Ellis, "Beat tracking by dynamic programming" (JNMR 2007), on an onset envelope of note starts
weighted by
velocity and register, with the tempo chosen by how well the sixteenth-note grid between the beats meets the onsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affgen.score import Score
from music.chords import recognise
from music.tokens import BEATS_PER_BAR, CHORDS, STEPS_PER_BAR, STEPS_PER_BEAT, Grid

HOP = 0.02
"""Seconds per frame of the onset envelope."""
SLOWEST, FASTEST = 50.0, 200.0
"""Tempi considered, beats per minute."""
TIGHTNESS = 100.0
"""Weight of tempo constancy in the dynamic programme (Ellis's alpha)."""
ON_GRID = 0.02
"""Mean distance of onsets to the file's own sixteenths, in sixteenths, below which the file's beats are believed."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """A score on the grid, and when its beats are: ``edges`` (beats + 1,) in seconds, the first of them the start
    of bar 1.
    """

    grid: Grid
    edges: np.ndarray
    believed: bool
    """Whether the beats are those of the file."""

    def in_file(self, score: Score, beats: np.ndarray) -> np.ndarray:
        """Where beat positions (N,) of the grid are in the beats of the file, ``score``; beyond the last edge at the
        tempo of the last bar.
        """
        if self.believed:
            return beats
        last = len(self.edges) - 1
        pace = (self.edges[-1] - self.edges[max(0, last - BEATS_PER_BAR)]) / min(last, BEATS_PER_BAR)
        inside = np.interp(beats, np.arange(last + 1), self.edges)
        return score.beats(np.where(beats > last, self.edges[-1] + (beats - last) * pace, inside))

    def on_grid(self, score: Score, beats: np.ndarray) -> np.ndarray:
        """Where beats (N,) of the file are on the grid: the inverse of :meth:`in_file`."""
        return beats if self.believed else np.maximum(_positions(score.seconds(beats), self.edges), 0.0)


def grid_of(score: Score, *, beats: str = "auto") -> Grid:
    """The score on a sixteenth-note grid in bars of four beats, with chords; see :func:`align`."""
    return align(score, beats=beats).grid


def align(score: Score, *, beats: str = "auto") -> Alignment:
    """Put a score on a sixteenth-note grid in bars of four beats.

    beats: ``"file"`` believes the file's tempo map, ``"estimate"`` ignores it, ``"auto"`` believes it when the
    onsets lie on it.
    """
    table = score.arrays()
    onset, end = table["onset"], table["onset"] + table["duration"]
    if beats == "file" or (beats == "auto" and on_grid(score)):
        beats_in_bars = BEATS_PER_BAR * (int(end.max() - 1e-6) // BEATS_PER_BAR + 1)
        edges = score.seconds(np.arange(beats_in_bars + 1, dtype=float))
        steady = False
    else:
        starts, stops = score.seconds(onset), score.seconds(end)
        edges = estimate_beats(starts, table["pitch"], table["velocity"])
        onset, end = _positions(starts, edges), _positions(stops, edges)
        steady = True
    steps = np.maximum(np.rint(onset * STEPS_PER_BEAT).astype(np.int64), 0)
    durations = np.clip(np.rint((end - onset) * STEPS_PER_BEAT).astype(np.int64), 1, STEPS_PER_BAR)
    bars = int(steps.max()) // STEPS_PER_BAR + 1  # a bar in which nothing starts is only the ring of the one before
    durations = np.minimum(durations, bars * STEPS_PER_BAR - steps)
    notes = np.stack([steps, table["pitch"], durations, table["velocity"]], axis=1)
    notes = notes[np.lexsort((-notes[:, 1], notes[:, 0]))]
    bpm = 60 / np.maximum(np.diff(edges), 1e-3)
    bpm = np.pad(bpm, (0, max(0, bars * BEATS_PER_BAR - len(bpm))), mode="edge")[: bars * BEATS_PER_BAR]
    written = None if steady else _written_chords(score, len(bpm))
    chords = recognise(notes, len(bpm)) if written is None else written
    return Alignment(Grid(notes, _steady(bpm) if steady else bpm, chords, bars), edges, not steady)


def _written_chords(score: Score, beats: int) -> np.ndarray | None:
    """Chord numbers (beats,) of a score whose markers are chord names on its beats, the first on beat 0; else None."""
    numbers = {name: number for number, name in enumerate(CHORDS)}
    if not score.markers or score.markers[0].beat > 0:
        return None
    if any(marker.text not in numbers or marker.beat % 1 for marker in score.markers):
        return None
    chords = np.zeros(beats, dtype=np.int64)
    for marker in score.markers:
        chords[int(marker.beat) :] = numbers[marker.text]
    return chords


def on_grid(score: Score) -> bool:
    """Whether the onsets lie on the sixteenths of the file's own tempo map."""
    positions = score.arrays()["onset"] * STEPS_PER_BEAT
    return bool(np.abs(positions - np.rint(positions)).mean() < ON_GRID)


def estimate_beats(starts: np.ndarray, pitches: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Beat times in seconds, the first of them a bar line, covering all onsets.

    starts (N,) seconds, pitches (N,), velocities (N,). Times before the first onset may be negative.
    """
    envelope, origin = _envelope(starts, pitches, velocities)
    candidates = [_track(envelope, period) for period in _periods(envelope)]
    times = [origin + HOP * frames for frames in candidates]
    scored = [_fit(_complete(beats, starts), starts, velocities) for beats in times]
    beats = _complete(times[int(np.argmax(scored))], starts)
    beats = _refine(beats, starts, velocities)
    return _start_on_bar(beats, starts, pitches, velocities)


def _envelope(starts: np.ndarray, pitches: np.ndarray, velocities: np.ndarray) -> tuple[np.ndarray, float]:
    """Onset strength per frame and the time of frame 0; bass notes and loud notes weigh more."""
    origin = float(starts.min()) - 1.0
    frames = int((starts.max() - origin) / HOP) + 60
    envelope = np.zeros(frames)
    weight = (0.3 + velocities / 127) * (1.0 + np.clip(60 - pitches, 0, 24) / 24)
    np.add.at(envelope, np.rint((starts - origin) / HOP).astype(int), weight)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    envelope = np.convolve(envelope, kernel, mode="same")
    return np.sqrt(envelope / (envelope.std() + 1e-9)), origin


def _periods(envelope: np.ndarray, count: int = 6) -> np.ndarray:
    """Most likely beat periods in frames: peaks of the autocorrelation under a log-normal tempo prior around 110
    bpm.
    """
    lags = np.arange(int(60 / FASTEST / HOP), int(60 / SLOWEST / HOP) + 1)
    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: lags[-1] * 2 + 2]
    comb = correlation[lags] + 0.5 * correlation[np.minimum(2 * lags, len(correlation) - 1)]
    prior = np.exp(-0.5 * (np.log2(60 / (lags * HOP) / 110) / 0.6) ** 2)
    strength = np.maximum(comb, 0) * prior
    inner = strength[1:-1]
    peaks = 1 + np.flatnonzero((inner >= strength[:-2]) & (inner >= strength[2:]) & (inner > 0))
    if not len(peaks):
        return np.array([lags[int(prior.argmax())]], dtype=float)
    return lags[peaks[np.argsort(-strength[peaks])[:count]]].astype(float)


def _track(envelope: np.ndarray, period: float) -> np.ndarray:
    """Frames of the best beat sequence for a period (Ellis 2007, eq. 5-7)."""
    offsets = np.arange(-int(2 * period), -int(period / 2))
    penalty = -TIGHTNESS * np.log(-offsets / period) ** 2
    gain = np.zeros(len(envelope))
    back = np.full(len(envelope), -1)
    for frame in range(len(envelope)):
        reach = offsets[-min(len(offsets), frame + int(offsets[-1])) :] if frame + offsets[-1] > 0 else offsets[:0]
        if len(reach):
            options = gain[frame + reach] + penalty[-len(reach) :]
            best = int(options.argmax())
            if options[best] > 0:
                gain[frame], back[frame] = options[best], frame + reach[best]
        gain[frame] += envelope[frame]
    tail = max(0, len(gain) - int(period))
    frame = tail + int(gain[tail:].argmax())
    beats = [frame]
    while back[frame] >= 0:
        frame = back[frame]
        beats.append(frame)
    return np.array(beats[::-1], dtype=float)


def _fit(beats: np.ndarray, starts: np.ndarray, velocities: np.ndarray) -> float:
    """How well a beat sequence explains the onsets: close to its sixteenths, beats themselves struck, a plausible
    tempo.
    """
    position = _positions(starts, beats) * STEPS_PER_BEAT
    error = np.average(np.abs(position - np.rint(position)), weights=velocities)
    nearest = np.rint(position[np.abs(position - np.rint(position)) < 0.3]).astype(int)
    struck = np.isin(np.arange(len(beats)) * STEPS_PER_BEAT, nearest).mean()
    bpm = 60 / np.median(np.diff(beats))
    return float(-2.0 * error + 0.5 * struck - 0.35 * np.log2(bpm / 110) ** 2)


def _complete(beats: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Beats extended at their local tempo until they cover every onset and one beat beyond."""
    if len(beats) < 2:
        beats = np.array([beats[0], beats[0] + 60 / 110])
    first, last = beats[1] - beats[0], beats[-1] - beats[-2]
    before = max(0, int(np.ceil((beats[0] - starts.min()) / first)))
    after = max(0, int(np.ceil((starts.max() - beats[-1]) / last))) + 1
    return np.concatenate(
        [beats[0] - first * np.arange(before, 0, -1), beats, beats[-1] + last * np.arange(1, after + 1)]
    )


def _refine(beats: np.ndarray, starts: np.ndarray, velocities: np.ndarray, reach: float = 0.06) -> np.ndarray:
    """Each beat moved to the weighted mean of the onsets near it, then the whole lightly smoothed."""
    moved = beats.copy()
    for index, beat in enumerate(beats):
        near = np.abs(starts - beat) < reach
        if near.any():
            moved[index] = np.average(starts[near], weights=velocities[near])
    if len(moved) > 4:
        smooth = moved.copy()
        smooth[1:-1] = 0.25 * moved[:-2] + 0.5 * moved[1:-1] + 0.25 * moved[2:]
        moved = 0.7 * moved + 0.3 * smooth
    apart = 1e-3 * np.arange(len(moved))  # beats stay in order, at least a millisecond apart
    return np.maximum.accumulate(moved - apart) + apart


def _start_on_bar(beats: np.ndarray, starts: np.ndarray, pitches: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Drop or add leading beats so that beat 0 is a bar line: the phase with most bass weight and chord changes
    wins.
    """
    index = np.rint(_positions(starts, beats)).astype(int)
    close = np.abs(_positions(starts, beats) - index) < 0.2
    weight = np.zeros(len(beats) + 1)
    bass = (velocities / 127) * np.clip((62 - pitches) / 24, 0.05, 1.0)
    np.add.at(weight, np.clip(index[close], 0, len(beats)), bass[close])
    weight = np.minimum(weight, np.percentile(weight, 95) + 1e-9)
    chroma = np.zeros((len(beats) + 1, 12))
    np.add.at(chroma, (np.clip(index, 0, len(beats)), pitches % 12), velocities / 127)
    chroma /= np.linalg.norm(chroma, axis=1, keepdims=True) + 1e-9
    change = np.r_[0.0, 1 - (chroma[1:] * chroma[:-1]).sum(axis=1)]
    strength = weight / (weight.mean() + 1e-9) + change / (change.mean() + 1e-9)
    first = int(index.min())
    phase = max(
        range(BEATS_PER_BAR),
        key=lambda p: strength[first + p :: BEATS_PER_BAR].mean() if first + p < len(strength) else 0.0,
    )
    start = first + phase - (BEATS_PER_BAR if phase else 0)
    if (_positions(starts, beats) < start - 1 / 8).any():  # a pick-up gets a bar of its own
        start -= BEATS_PER_BAR
    if start >= 0:
        return beats[start:]
    return np.concatenate([beats[0] - (beats[1] - beats[0]) * np.arange(-start, 0, -1), beats])


def _positions(times: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """Beat positions of times (seconds), linear between beats and beyond the ends."""
    index = np.clip(np.searchsorted(beats, times, side="right") - 1, 0, len(beats) - 2)
    return index + (times - beats[index]) / np.maximum(beats[index + 1] - beats[index], 1e-6)


def _steady(bpm: np.ndarray) -> np.ndarray:
    """Tempo at each beat from the median over the bars around it, so that jitter of single beats is no tempo change."""
    per_bar = np.median(bpm.reshape(-1, BEATS_PER_BAR), axis=1)
    smooth = np.array([np.median(per_bar[max(0, k - 1) : k + 2]) for k in range(len(per_bar))])
    return np.repeat(smooth, BEATS_PER_BAR)
