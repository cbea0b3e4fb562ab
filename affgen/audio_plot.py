"""A picture of features: the log-mel spectrogram over the contour of F0."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affgen.frames import HOP, SAMPLE_RATE
from affgen.plots import OKABE_ITO, _figure, _save

if TYPE_CHECKING:
    from affgen.features import Features

COLUMNS = 4_000
"""Columns of the picture at most; longer sounds are averaged."""
MARKS = (250, 500, 1000, 2000, 4000, 8000)  # Hz


def draw(features: Features, path: str | Path, *, title: str = "") -> None:
    """Draw mel (80, T) and F0 (T,) in Hz over seconds to the PNG ``path``.

    Raises :class:`AffgenError` for a path that is not a writable ``.png``.
    """
    seconds = features.mel.shape[1] * HOP / SAMPLE_RATE
    figure = _figure(12, 6.4)
    mel, pitch = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    starts = np.arange(0, features.mel.shape[1], -(-features.mel.shape[1] // COLUMNS))
    columns = np.add.reduceat(features.mel, starts, axis=1) / np.diff(starts, append=features.mel.shape[1])
    bands = features.mel.shape[0]
    image = mel.imshow(columns, origin="lower", aspect="auto", extent=(0, seconds, -0.5, bands - 0.5))
    figure.colorbar(image, ax=mel, label="log magnitude (ln)", pad=0.01)
    mel.set_yticks([_band(hertz, bands) for hertz in MARKS], [str(hertz) for hertz in MARKS])
    mel.set_ylabel("frequency [Hz], mel scale")
    times = (np.arange(len(features.f0)) + 0.5) * HOP / SAMPLE_RATE
    pitch.plot(times, np.where(features.f0 > 0, features.f0, np.nan), ".", markersize=2, color=OKABE_ITO[1])
    pitch.set(ylabel="F0 [Hz]", xlabel="time [s]", xlim=(0, seconds), yscale="log", ylim=(60, 1150))
    pitch.set_yticks((65, 130, 260, 520, 1040), ("65", "130", "260", "520", "1040"))
    pitch.minorticks_off()
    pitch.grid(color="#E6E6E6")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    _save(figure, path)


def _band(hertz: float, bands: int, highest: float = 8000.0) -> float:
    """Return the place of ``hertz`` among ``bands`` bands from 0 Hz up to ``highest``, on Slaney's scale."""
    return _mel(hertz) / _mel(highest) * (bands + 1) - 1


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)
