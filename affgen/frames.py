"""The clock of every acoustic model: the rate, the hop, and sound cut into the same pieces however it arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from affgen.errors import AffgenError

SAMPLE_RATE = 22050
HOP = 256
MARGIN = 1000
"""Samples that a piece holds before its first frame and after its last one."""
PIECE = 512
"""Frames of a piece; the last one of a sound has fewer."""
SHORTEST = 1024
"""Samples of the shortest sound accepted: one window of the mel, and enough to mirror ``MARGIN`` samples."""


def pieces(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a sound as float32 pieces of ``n * HOP + 2 * MARGIN`` samples, for ``n`` frames each.

    ``blocks`` are consecutive parts (L,) of any lengths, at 22,050 Hz. Pieces overlap by ``2 * MARGIN`` samples, the
    sound is mirrored at both ends, and frame ``t`` of a piece owns its samples from ``MARGIN + t * HOP`` on. All but
    the last piece hold ``PIECE`` frames: pieces do not depend on how the sound was cut into blocks, so nothing that
    is computed from them does.

    Raises :class:`AffgenError` for a sound shorter than ``SHORTEST`` samples, or samples that are not finite.
    """
    kept = np.zeros(0, np.float32)
    total, size, first = 0, PIECE * HOP + 2 * MARGIN, True
    for block in _portions(blocks):
        total += len(block)
        kept = np.concatenate([kept, block])
        if first and total >= SHORTEST:
            kept, first = np.concatenate([kept[MARGIN:0:-1], kept]), False
        start = 0
        while not first and len(kept) - start >= size:
            yield kept[start : start + size]
            start += PIECE * HOP
        kept = kept[start:]
    if total < SHORTEST:
        raise AffgenError(f"{total} samples at {SAMPLE_RATE} Hz: accepted are {SHORTEST} or more")
    # What is left ends with the sound; mirror it and drop the samples after the last whole frame.
    kept = np.concatenate([kept, kept[-2 : -2 - MARGIN : -1]])
    start, left = 0, total // HOP - (total - (len(kept) - 2 * MARGIN)) // HOP
    while left > 0:
        count = min(PIECE, left)
        yield kept[start : start + count * HOP + 2 * MARGIN]
        start, left = start + count * HOP, left - count


def _portions(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Check the blocks and yield them as float32 of no more samples than a piece, so that no long one is copied."""
    total = 0
    for block in blocks:
        if np.ndim(block) != 1:
            raise AffgenError(f"samples of shape {np.shape(block)}: accepted is mono, of shape (L,)")
        for first in range(0, len(block), PIECE * HOP):
            part = np.asarray(block[first : first + PIECE * HOP], dtype=np.float32)
            if not np.isfinite(part).all():
                where = int(np.argmin(np.isfinite(part)))
                raise AffgenError(f"sample {total + where} is {part[where]}: accepted are finite samples")
            total += len(part)
            yield part
