"""Compiled inner loops of the aligner (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def best_way(scores: np.ndarray, silent: np.ndarray, enter: np.ndarray) -> np.ndarray:
    """Return the place (T,) in a chain of N states of the best path through ``scores`` (T, N).

    It begins at the first or second state, ends at the last or the one before, and at each step stays, moves on, or
    passes over a state that is ``silent`` (N,). ``enter`` (N,) is added on entering a state.
    """
    frames, length = scores.shape
    total = np.full(length, -np.inf)
    total[:2] = scores[0, :2]
    back = np.zeros((frames, length), dtype=np.int8)
    for t in range(1, frames):
        for i in range(length - 1, -1, -1):
            best, step = total[i], 0
            if i >= 1 and total[i - 1] + enter[i] > best:
                best, step = total[i - 1] + enter[i], 1
            if i >= 2 and silent[i - 1] and total[i - 2] > best:
                best, step = total[i - 2], 2
            back[t, i] = step
            total[i] = best + scores[t, i]
    place = length - 1 if total[length - 1] >= total[length - 2] else length - 2
    path = np.empty(frames, dtype=np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = place
        place -= back[t, place]
    return path
