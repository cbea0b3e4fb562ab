"""A picture of features: the log-mel spectrogram over the contour of F0."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affgen.frames import HOP, SAMPLE_RATE
from affgen.plots import OKABE_ITO, _figure, _save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

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
    image = draw_mel(mel, features.mel)
    figure.colorbar(image, ax=mel, label="log magnitude (ln)", pad=0.01)
    mel.set_ylabel("frequency [Hz], mel scale")
    draw_pitch(pitch, features, OKABE_ITO[1])
    pitch.set(xlabel="time [s]", xlim=(0, seconds))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    _save(figure, path)


def draw_mel(axes: Axes, mel: np.ndarray, limits: tuple[float | None, float | None] = (None, None)) -> AxesImage:
    """Draw a log-mel (80, T) over seconds, its colours between ``limits``, and mark frequencies in Hz."""
    starts = np.arange(0, mel.shape[1], -(-mel.shape[1] // COLUMNS))
    columns = np.add.reduceat(mel, starts, axis=1) / np.diff(starts, append=mel.shape[1])
    extent = (0, mel.shape[1] * HOP / SAMPLE_RATE, -0.5, len(mel) - 0.5)
    image = axes.imshow(columns, origin="lower", aspect="auto", extent=extent, vmin=limits[0], vmax=limits[1])
    axes.set_yticks([_band(hertz, len(mel)) for hertz in MARKS], [str(hertz) for hertz in MARKS])
    return image


def draw_pitch(axes: Axes, features: Features, colour: str, name: str = "") -> None:
    """Draw F0 over seconds on a logarithmic scale, as dots where there is voice; ``name`` is for a legend."""
    times = (np.arange(len(features.f0)) + 0.5) * HOP / SAMPLE_RATE
    axes.plot(times, np.where(features.f0 > 0, features.f0, np.nan), ".", markersize=2, color=colour, label=name)
    axes.set(ylabel="F0 [Hz]", yscale="log", ylim=(60, 1150))
    axes.set_yticks((65, 130, 260, 520, 1040), ("65", "130", "260", "520", "1040"))
    axes.minorticks_off()
    axes.grid(color="#E6E6E6")


def _band(hertz: float, bands: int, highest: float = 8000.0) -> float:
    """Return the place of ``hertz`` among ``bands`` bands from 0 Hz up to ``highest``, on Slaney's scale."""
    return _mel(hertz) / _mel(highest) * (bands + 1) - 1


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)
