"""From posteriors to segments: the best path of CTC, its silences put right, its boundaries placed between frames.

The network is trained so that the blank is silence and a phone lasts (see :mod:`affgen.align.train`); a short blank
between two phones is then no pause but the join of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from affgen.align.config import PathConfig
from affgen.align.phones import CLASS_OF, CLASSES, INDEX, SILENCE
from affgen.align.segments import FRAME_S, Segment
from affgen.errors import AffgenError

_STOP = CLASSES.index("stop")
_SHORTEST_S = 0.002


def best_path(scores: Tensor, phones: Sequence[str]) -> np.ndarray:
    """Return which of ``phones`` each frame belongs to, (T,) from 0, -1 for silence; ``scores`` (T, V) are log-scores.

    The path is that of :func:`torchaudio.functional.forced_align` (Pratap et al. 2023). Raises :class:`AffgenError`
    for no phones, and for fewer frames than the phones need.
    """
    from torchaudio.functional import forced_align

    if not phones:
        raise AffgenError("there are no phones to align; give text or phones")
    numbers = [INDEX[phone] for phone in phones]
    needed = len(numbers) + sum(a == b for a, b in pairwise(numbers))
    if len(scores) < needed:
        raise AffgenError(
            f"{len(scores)} frames ({len(scores) * FRAME_S:.2f} s) are too few for {len(phones)} phones; "
            f"accepted: a sound of {needed * FRAME_S:.2f} s or more that holds all of the text"
        )
    labels = forced_align(scores[None].float(), torch.tensor([numbers], dtype=torch.int32), blank=0)[0][0].numpy()
    before = np.concatenate([[0], labels[:-1]])
    fresh = (labels != before) & (labels != 0)
    return np.where(labels == 0, -1, np.cumsum(fresh) - 1)


def without_gaps(path: np.ndarray, scores: np.ndarray, phones: Sequence[str], config: PathConfig) -> np.ndarray:
    """Return ``path`` (T,) with each silence between two phones that is too short for a pause given to them."""
    out = path.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (path < 0).astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if start == 0 or end == len(path):
            continue
        before, after = int(path[start - 1]), int(path[end])
        closure = CLASS_OF[phones[after]] == _STOP
        if (end - start) * FRAME_S >= (config.closure if closure else config.pause):
            continue
        split = start if closure and CLASS_OF[phones[before]] != _STOP else _split(path, scores, phones, start, end)
        out[start:split], out[split:end] = before, after
    return out


def _split(path: np.ndarray, scores: np.ndarray, phones: Sequence[str], start: int, end: int) -> int:
    """Return the frame from ``start`` to ``end`` where the phone after best takes over from the phone before."""
    one, other = (scores[start:end, INDEX[phones[path[at]]]] for at in (start - 1, end))
    if path[start - 1] == path[end] or phones[path[start - 1]] == phones[path[end]]:
        return (start + end) // 2
    total = np.concatenate([[0], np.cumsum(one)]) + np.concatenate([np.cumsum(other[::-1])[::-1], [0]])
    return start + int(np.argmax(total))


def to_segments(
    path: np.ndarray, scores: np.ndarray, phones: Sequence[str], offsets: np.ndarray | None = None
) -> list[Segment]:
    """Return the segments of ``path`` (T,), silences included; together they fill the T frames.

    A boundary lies where the line between the scores of the two neighbouring frames favours neither side. From it
    ``offsets`` (5, 5) seconds, by the classes of the phone before and after, are taken off.
    """
    if not len(path):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(path)) + 1, [len(path)]])
    names = [SILENCE if path[start] < 0 else phones[path[start]] for start in starts[:-1]]
    times = [0.0]
    for start, before, after in zip(starts[1:-1], names[:-1], names[1:], strict=True):
        time = FRAME_S * _crossing(scores[start - 1 : start + 1], INDEX[before], INDEX[after], int(start))
        if offsets is not None:
            time -= float(offsets[CLASS_OF[before], CLASS_OF[after]])
        times.append(time)
    times.append(len(path) * FRAME_S)
    _put_in_order(times)
    return [Segment(a, b, name) for (a, b), name in zip(pairwise(times), names, strict=True)]


def _crossing(pair: np.ndarray, before: int, after: int, start: int) -> float:
    """Return the place of a boundary in frames; ``pair`` (2, V) are the scores before and after edge ``start``."""
    left, right = (float(row[before] - row[after]) for row in pair)
    return start - 0.5 + left / (left - right) if left > 0 > right else float(start)


def _put_in_order(times: list[float]) -> None:
    """Move boundaries so that every segment has a length, in place."""
    for i in range(1, len(times) - 1):
        times[i] = max(times[i], times[i - 1] + _SHORTEST_S)
    for i in range(len(times) - 2, 0, -1):
        times[i] = min(times[i], times[i + 1] - _SHORTEST_S)


def segments(
    scores: Tensor, phones: Sequence[str], config: PathConfig, offsets: np.ndarray | None = None
) -> list[Segment]:
    """Return the segments of ``phones`` by log-scores (T, V); raises as :func:`best_path` does."""
    values = scores.numpy()
    path = without_gaps(best_path(scores, phones), values, phones, config)
    return to_segments(path, values, phones, offsets)


def labels_of(path: np.ndarray, phones: Sequence[str]) -> np.ndarray:
    """Return the phone numbers (T,) of a path, 0 for silence."""
    numbers = np.array([*(INDEX[phone] for phone in phones), 0], dtype=np.int64)
    return numbers[path]
