"""The picture of a conversion: mel of source and result, F0 of both, and the intensity that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from affgen.audio_plot import draw_mel, draw_pitch
from affgen.emotion.spec import MAX_INTENSITY
from affgen.features import HOP, SAMPLE_RATE, Features
from affgen.plots import GREY, OKABE_ITO, _figure, _save

SOURCE, RESULT = GREY, OKABE_ITO[1]


def plot(source: Features, result: Features, intensity: np.ndarray, path: str | Path, *, title: str = "") -> None:
    """Draw two mels (80, T) on one colour scale, both F0 (T,) in Hz and the ``intensity`` (T,) over the result's time.

    Raises :class:`AffgenError` for a path that is not a writable ``.png``.
    """
    seconds = max(len(source), len(result)) * HOP / SAMPLE_RATE
    figure = _figure(12, 9.6)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 2, 1.4))
    limits = (min(source.mel.min(), result.mel.min()), max(source.mel.max(), result.mel.max()))
    for axes, features, name in ((panels[0], source, "source"), (panels[1], result, "result")):
        image = draw_mel(axes, features.mel, limits)
        axes.set_ylabel(f"{name}\nfrequency [Hz], mel scale")
    figure.colorbar(image, ax=list(panels[:2]), label="log magnitude (ln)", pad=0.01)
    draw_pitch(panels[2], source, SOURCE, "source")
    draw_pitch(panels[2], result, RESULT, "result")
    panels[2].legend(loc="upper right", frameon=False, ncols=2, markerscale=3)
    times = (np.arange(len(intensity)) + 0.5) * HOP / SAMPLE_RATE
    panels[3].plot(times, intensity, color=OKABE_ITO[0], linewidth=2.2)
    panels[3].set(ylabel="intensity\nasked", xlabel="time [s]", ylim=(-0.05, MAX_INTENSITY + 0.05), xlim=(0, seconds))
    panels[3].grid(color="#E6E6E6")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    _save(figure, path)
