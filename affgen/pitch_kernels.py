"""The inner loops of the F0 tracker, compiled by numba; affgen/pitch.py says what they are for.

A signal is a tuple of its samples (L,) and the running sums (L + 1,) of them and of their squares. A grid is a tuple
(first, hop, T): frame ``t`` is centred on sample ``first + t * hop``. What is computed for a frame depends on the
samples around it only by the order in which the compiler adds them, so equal pieces give equal bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

Signal = tuple[np.ndarray, np.ndarray, np.ndarray]
Grid = tuple[int, int, int]

LANE = 32
"""Numbers that the compiler adds at a time: sums over multiples of it leave no remainder, which is slow."""
GLIDE = 0.2
"""Octaves per frame from which a step costs as a jump; below, it costs the less the slower it is."""
LOWEST = 0.3
"""Similarity under which a peak is no candidate."""
WORST = -1e30
SUM_ORDER = {"reassoc", "contract", "nsz", "arcp"}
"""What the compiler may do to sums so that it vectorises them; NaN and infinity stay what they are."""


@njit(cache=True, nogil=True, fastmath=SUM_ORDER)
def halve(samples: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Filter ``samples`` (L,) with the symmetric ``taps`` and keep every second one; the ends are left at 0."""
    half = len(taps) // 2
    count = len(samples) // 2
    out = np.zeros(count, np.float32)
    even, odd = samples[: 2 * count : 2].copy(), samples[1 : 2 * count : 2].copy()
    for first in range(half, count - half, 8 * LANE):  # short stretches stay in the first-level cache
        last = min(first + 8 * LANE, count - half)
        target = out[first:last]
        for i in range(len(taps)):
            shift = i - half
            source = even if shift % 2 == 0 else odd
            part = source[first + shift // 2 : last + shift // 2]
            for k in range(last - first):
                target[k] += taps[i] * part[k]
    return out


@njit(cache=True, nogil=True)
def signal(samples: np.ndarray) -> Signal:
    """``samples`` (L,) with their running sums, which are in double precision."""
    plain, squares = np.zeros(len(samples) + 1), np.zeros(len(samples) + 1)
    for i in range(len(samples)):
        value = np.float64(samples[i])
        plain[i + 1] = plain[i] + value
        squares[i + 1] = squares[i] + value * value
    return samples, plain, squares


@njit(cache=True, nogil=True, fastmath=SUM_ORDER)
def four(x: Signal, centre: int, width: int, lag: int, noise: float, out: np.ndarray) -> None:
    """Write to ``out`` (4,) how alike stretches are that lie ``lag`` to ``lag + 3`` apart around ``centre``: -1 to 1.

    Twice their covariance over the sum of their powers, which equals the correlation where they are equally loud and
    falls short of it where the voice begins or ends (McLeod and Wyvill 2005). They hold ``width`` samples or more, so
    that a period fits; ``noise`` is added to the mean power. Four at a time, since they share the first stretch.
    """
    width = (max(width, lag + 3) + LANE - 1) // LANE * LANE
    start = centre - (lag + 2 + width) // 2
    end = start + width
    samples, plain, squares = x
    a, b = samples[start:end], samples[start + lag : end + lag + 3]
    total_0, total_1, total_2, total_3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(width):
        total_0 += a[i] * b[i]
        total_1 += a[i] * b[i + 1]
        total_2 += a[i] * b[i + 2]
        total_3 += a[i] * b[i + 3]
    out[0], out[1], out[2], out[3] = total_0, total_1, total_2, total_3
    sum_a = plain[end] - plain[start]
    power_a = squares[end] - squares[start] - sum_a * sum_a / width
    for i in range(4):
        sum_b = plain[end + lag + i] - plain[start + lag + i]
        power_b = squares[end + lag + i] - squares[start + lag + i] - sum_b * sum_b / width
        out[i] = (out[i] - sum_a * sum_b / width) / (0.5 * (power_a + power_b) + noise * width)


@njit(cache=True, nogil=True)
def summit(before: float, here: float, after: float) -> tuple[float, float]:
    """Place and height of the parabola's top through three neighbours, the place counted from the middle one."""
    bend = 2 * here - before - after
    if bend <= 0:
        return 0.0, here
    shift = min(max(0.5 * (after - before) / bend, -1.0), 1.0)
    return shift, here + 0.25 * (after - before) * shift


@njit(cache=True, nogil=True, fastmath=SUM_ORDER)
def candidates(
    x: Signal, grid: Grid, lags: tuple[int, int], width: int, count: int, octave: float, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the best ``count`` peaks of similarity: their lags (T, K) and heights (T, K), 0 where none, and power (T,).

    ``lags`` are the smallest and largest one; a peak an octave below another must be higher by ``octave`` to go first.
    """
    first, hop, frames = grid
    low, high = lags
    found, heights = np.zeros((frames, count), np.float32), np.zeros((frames, count), np.float32)
    power, row, score = np.zeros(frames, np.float32), np.zeros(high + 5), np.zeros(count)
    for t in range(frames):
        centre = first + t * hop
        start, end = centre - width // 2, centre + width // 2
        mean = (x[1][end] - x[1][start]) / (end - start)
        power[t] = (x[2][end] - x[2][start]) / (end - start) - mean * mean
        for lag in range(low - 1, high + 2, 4):
            four(x, centre, width, lag, noise, row[lag : lag + 4])
        filled = 0
        for lag in range(low, high + 1):
            if row[lag] < LOWEST or row[lag] < row[lag - 1] or row[lag] <= row[lag + 1]:
                continue
            shift, height = summit(row[lag - 1], row[lag], row[lag + 1])
            value = height - octave * np.log2((lag + shift) / low)
            if filled == count and value <= score[count - 1]:
                continue
            filled = min(filled + 1, count)
            place = filled - 1
            while place > 0 and score[place - 1] < value:
                score[place] = score[place - 1]
                found[t, place], heights[t, place] = found[t, place - 1], heights[t, place - 1]
                place -= 1
            score[place], found[t, place], heights[t, place] = value, lag + shift, height
    return found, heights, power


@njit(cache=True, nogil=True, fastmath=SUM_ORDER)
def nearby(x: Signal, grid: Grid, lags: np.ndarray, width: int, noise: float) -> np.ndarray:
    """Similarity (T, K) at ``lags`` (T, K) within short stretches: the best of those around and beside the frame."""
    first, hop, frames = grid
    out, around = np.zeros(lags.shape, np.float32), np.zeros(4)
    for t in range(frames):
        for k in range(lags.shape[1]):
            lag = int(np.round(lags[t, k]))
            if lag == 0:
                break
            best = 0.0
            for side in range(-1, 2):
                centre = first + t * hop + side * lag // 2
                four(x, centre, width, lag - 1, noise, around)
                best = max(best, summit(around[0], around[1], around[2])[1])
            out[t, k] = best
    return out


@njit(cache=True, nogil=True, fastmath=SUM_ORDER)
def refined(x: Signal, grid: Grid, lags: np.ndarray, width: int, noise: float) -> np.ndarray:
    """Return the lags (T, K) of the highest similarity within two samples of ``lags`` (T, K); 0 stays 0."""
    first, hop, frames = grid
    out, row = np.zeros(lags.shape, np.float32), np.zeros(8)
    for t in range(frames):
        for k in range(lags.shape[1]):
            if lags[t, k] <= 0:
                break
            lowest = int(np.round(lags[t, k])) - 3
            four(x, first + t * hop, width, lowest, noise, row[:4])
            four(x, first + t * hop, width, lowest + 4, noise, row[4:])
            best = 1 + np.argmax(row[1:6])
            out[t, k] = lowest + best + summit(row[best - 1], row[best], row[best + 1])[0]
    return out


@njit(cache=True, nogil=True)
def best_path(lags: np.ndarray, voiced: np.ndarray, unvoiced: np.ndarray, jump: float, switch: float) -> np.ndarray:
    """Choose a candidate per frame, or -1 for unvoiced: (T,), the path of the greatest sum (Viterbi 1967).

    ``voiced`` (T, K) are the scores of the candidates ``lags`` (T, K), 0 where there is none, ``unvoiced`` (T,) those
    of no voice. A step costs ``jump`` per octave between voiced frames and ``switch`` between voiced and unvoiced.
    """
    frames, count = lags.shape
    back = np.zeros((frames, count + 1), np.int8)
    scores, new = np.full(count + 1, WORST), np.zeros(count + 1)
    octave, before = np.zeros(count), np.zeros(count)
    scores[count] = 0.0
    for t in range(frames):
        for k in range(count):
            before[k] = octave[k]
            octave[k] = np.log2(lags[t, k]) if lags[t, k] > 0 else 0.0
        for k in range(count + 1):
            if k < count and lags[t, k] <= 0:
                new[k] = WORST
                continue
            best = -np.inf
            for j in range(count + 1):
                cost = 0.0 if j == k else switch
                if j < count and k < count:
                    distance = abs(octave[k] - before[j])
                    cost = jump * distance * min(1.0, distance / GLIDE)
                if scores[j] - cost > best:
                    best, back[t, k] = scores[j] - cost, j
            new[k] = best + (voiced[t, k] if k < count else unvoiced[t])
        scores[:] = new
    path = np.zeros(frames, np.int64)
    state = np.argmax(scores)
    for t in range(frames - 1, -1, -1):
        path[t] = state if state < count else -1
        state = back[t, state]
    return path
