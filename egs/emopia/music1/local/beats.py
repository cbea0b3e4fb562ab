"""How well beats are found without the file's own: `python local/beats.py FOLDER_OF_BEAT_ALIGNED_MIDI`.

F-measure at 70 ms (Davies, Degara & Plumbley, 2009) over the first minute of each piece, as it is and with double,
half and off-beat readings allowed. The known beats are those of the tempo map of the file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from affgen.errors import AffgenError
from affgen.score import read_midi
from music.beats import estimate_beats

TOLERANCE, LENGTH = 0.07, 60.0


def f_measure(known: np.ndarray, found: np.ndarray) -> float:
    """Harmonic mean of precision and recall; each found beat answers for one known beat."""
    free = np.ones(len(found), bool)
    hits = 0
    for beat in known:
        near = np.flatnonzero(free & (np.abs(found - beat) <= TOLERANCE))
        if len(near):
            free[near[np.abs(found[near] - beat).argmin()]] = False
            hits += 1
    return 2 * hits / max(1, len(known) + len(found))


def measure(path: Path) -> tuple[float, float]:
    """F-measure of one file, strict and with other metrical levels allowed."""
    score = read_midi(path)
    table = score.arrays()
    starts = score.seconds(table["onset"])
    early = starts < starts.min() + LENGTH
    found = estimate_beats(starts[early], table["pitch"][early], table["velocity"][early])
    known = score.seconds(np.arange(int(score.beats(float(starts[early].max()))) + 2))
    low, high = starts[early].min() - 0.1, starts[early].max() + 0.1
    known, found = (beats[(beats >= low) & (beats <= high)] for beats in (known, found))
    halves = np.sort(np.concatenate([known, (known[1:] + known[:-1]) / 2]))
    readings = [f_measure(k, found) for k in (known, halves, known[::2], known[1::2])]
    return readings[0], max(readings)


def main(folder: str) -> None:
    """Print the means over a folder."""
    figures, start = [], time.process_time()
    for path in sorted(Path(folder).rglob("*.mid")):
        try:
            figures.append(measure(path))
        except AffgenError as error:
            print(f"left out: {error}", file=sys.stderr)
    strict, loose = np.mean(figures, axis=0)
    spent = (time.process_time() - start) / len(figures)
    print(
        f"{len(figures)} pieces: F {strict:.3f}, with double, half and off-beat allowed {loose:.3f}, {spent:.3f} s each"
    )


if __name__ == "__main__":
    main(sys.argv[1])
