"""Pictures of what was made: piece and emotion over its bars, emotions in the plane, latent maps.

Figures are drawn without pyplot, so that nothing is shared between threads; PNG files carry no date and no program
name, so that equal content gives equal bytes. Colours: viridis, and Okabe & Ito's eight for the colour-blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affgen.errors import AffgenError
from affgen.files import atomic_path
from affgen.score import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Positions in bars (N,) from 0, and valence and arousal there (N, 2) in [-1, 1]."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
VALENCE, AROUSAL = OKABE_ITO[0], OKABE_ITO[1]
GREY = "#777777"
DPI = 100
LETTER = 0.0085  # width of a letter of a chord name as a share of the roll


def piano_roll(
    score: Score, path: str | Path, *, title: str = "", asked: Curve | None = None, read: Curve | None = None
) -> None:
    """Draw ``score`` as a piano roll, coloured by velocity, with bar lines and its markers, to the PNG ``path``.

    With ``asked`` or ``read`` (positions in bars (N,), valence and arousal (N, 2)), a second panel shows the emotion
    asked for as lines and the one read from the piece as points. Raises :class:`AffgenError` for a score without
    notes, curves of other shapes or not finite, or a path that is not a writable ``.png``.
    """
    if not score.notes:
        raise AffgenError(f"{path}: the score has no notes; there is nothing to draw")
    curves = [_curve(asked, "asked"), _curve(read, "read")]
    figure = _figure(12, 6.4 if any(curves) else 4.4)
    grid = figure.add_gridspec(
        2 if any(curves) else 1, 2, width_ratios=(60, 1), height_ratios=(5, 2)[: 1 + any(curves)]
    )
    roll = figure.add_subplot(grid[0, 0])
    bars = len(score.bar_lines()) - 1
    _draw_notes(figure, roll, figure.add_subplot(grid[0, 1]), score)
    _draw_chords(roll, score)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    lowest = roll
    if any(curves):
        lowest = figure.add_subplot(grid[1, 0], sharex=roll)
        roll.tick_params(labelbottom=False)
        _draw_curves(lowest, *curves)
    lowest.set_xlabel("bar")
    step = max(1, -(-bars // 32))
    lowest.set_xticks(np.arange(0, bars, step), [str(bar + 1) for bar in range(0, bars, step)])
    roll.set_xlim(0, bars)
    _save(figure, path)


def va_plane(
    asked: np.ndarray,
    path: str | Path,
    *,
    read: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw emotions in the valence-arousal square: ``asked`` (N, 2), with an arrow to ``read`` (N, 2) where given.

    ``labels`` (N,) gives each kind of point its colour and shape. Raises :class:`AffgenError` for arrays of other
    shapes, empty or not finite, labels of another number, or a path that is not a writable ``.png``.
    """
    asked = _points(asked, "asked")
    read = asked if read is None else _points(read, "read")
    names = _labels(labels if labels is not None else [""] * len(asked), len(asked))
    if len(read) != len(asked):
        raise AffgenError(f"{len(asked)} points asked, {len(read)} read: one each is needed")
    figure = _figure(8, 7)
    axes = figure.add_subplot()
    _draw_circumplex(axes)
    moved = not np.array_equal(asked, read)
    if moved:
        _draw_moves(axes, asked, read, names)
    for rank, name, chosen in _groups(names):
        colour, shape = _style(rank)
        axes.scatter(read[chosen, 0], read[chosen, 1], s=60, color=colour, marker=shape, label=name or None, zorder=3)
    if moved or any(names):
        figure.legend(loc="outside right upper", frameon=False)
    axes.set_title(title, loc="left", fontsize=13, parse_math=False)
    _save(figure, path)


def latent_map(xy: np.ndarray, labels: Sequence[str], path: str | Path, *, title: str = "") -> None:
    """Draw a map of latents: points ``xy`` (N, 2) on any scale, coloured and shaped by ``labels`` (N,).

    Raises :class:`AffgenError` as :func:`va_plane` does.
    """
    xy = _points(xy, "xy")
    names = _labels(labels, len(xy))
    figure = _figure(9, 6.5)
    axes = figure.add_subplot()
    for rank, name, chosen in _groups(names):
        colour, shape = _style(rank)
        axes.scatter(
            xy[chosen, 0], xy[chosen, 1], s=22, color=colour, marker=shape, alpha=0.75, label=f"{name} ({chosen.sum()})"
        )
    axes.set_xlabel("first axis (no unit)")
    axes.set_ylabel("second axis (no unit)")
    axes.set_title(title, loc="left", fontsize=13, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, markerscale=1.6)
    _save(figure, path)


# --- parts -----------------------------------------------------------------------------------------------------------


def _draw_notes(figure: Figure, axes: Axes, scale: Axes, score: Score) -> None:
    from matplotlib.collections import PolyCollection

    lines = score.bar_lines()
    columns = score.arrays()
    left = np.interp(columns["onset"], lines, np.arange(len(lines)))
    right = np.interp(columns["onset"] + columns["duration"], lines, np.arange(len(lines)))
    low, high = columns["pitch"] - 0.5, columns["pitch"] + 0.5
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)  # (N, 4, 2)
    notes = PolyCollection(list(corners), cmap="viridis_r", edgecolor="white", linewidth=0.3, zorder=3)
    notes.set_array(columns["velocity"])
    notes.set_clim(0, 127)
    axes.add_collection(notes)
    figure.colorbar(notes, cax=scale, label="velocity", ticks=[0, 32, 64, 96, 127])
    if len(lines) <= 200:
        axes.vlines(np.arange(len(lines)), 0, 127, color="#CCCCCC", linewidth=0.8, zorder=1)
    octaves = range(0, 128, 12)
    axes.set_yticks(octaves, [f"C{octave // 12 - 1}" for octave in octaves])
    axes.grid(axis="y", color="#E6E6E6", zorder=0)
    axes.set_ylim(columns["pitch"].min() - 2, columns["pitch"].max() + 2)
    axes.set_ylabel("pitch")


def _draw_chords(axes: Axes, score: Score) -> None:
    """Write the markers above the roll, chord symbols in short (``A_min`` as Am), as many as fit."""
    lines = score.bar_lines()
    texts = [(marker.beat, _short(marker.text)) for marker in score.markers if marker.text and marker.beat < score.end]
    style: dict[str, Any] = {"fontsize": 10, "clip_on": False, "parse_math": False}  # a marker may hold any character
    free = 0.0  # the bar from which the line of names is empty
    for beat, text in texts:
        bar = float(np.interp(beat, lines, np.arange(len(lines))))
        if bar >= free:
            axes.text(bar, 1.02, text, transform=axes.get_xaxis_transform(), **style)
            free = bar + (len(text) + 1) * LETTER * (len(lines) - 1)


def _short(text: str) -> str:
    root, _, kind = text.partition("_")
    return " ".join((root + {"maj": "", "min": "m"}.get(kind, kind)).split())[:12]


def _draw_curves(axes: Axes, asked: Curve | None, read: Curve | None) -> None:
    names = (("valence", VALENCE, "o"), ("arousal", AROUSAL, "s"))
    for column, (name, colour, shape) in enumerate(names):
        if asked:
            axes.plot(asked[0], asked[1][:, column], color=colour, linewidth=2.2, label=f"{name} asked")
        if read:
            axes.plot(read[0], read[1][:, column], color=colour, linestyle=":", linewidth=1, zorder=2)
            style: dict[str, Any] = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.6, "zorder": 3}
            axes.scatter(read[0], read[1][:, column], marker=shape, s=32, label=f"{name} read", **style)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_ylim(-1.1, 1.1)
    axes.set_yticks([-1, 0, 1])
    axes.set_ylabel("emotion [-1, 1]")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, frameon=False, borderaxespad=0.1)


def _draw_moves(axes: Axes, asked: np.ndarray, read: np.ndarray, names: list[str]) -> None:
    """Hollow points where the emotion was asked, arrows to where it was read, and what hollow and filled mean."""
    arrows: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003, "color": "#999999"}
    axes.quiver(*asked.T, *(read - asked).T, zorder=2, **arrows)
    for rank, _, chosen in _groups(names):
        colour, shape = _style(rank)
        style: dict[str, Any] = {"s": 60, "facecolor": "white", "edgecolor": colour, "linewidth": 1.6}
        axes.scatter(asked[chosen, 0], asked[chosen, 1], marker=shape, zorder=3, **style)
    axes.scatter([], [], marker="o", s=60, facecolor="white", edgecolor=GREY, label="hollow: asked")
    axes.scatter([], [], marker="o", s=60, facecolor=GREY, edgecolor=GREY, label="filled: read")


def _draw_circumplex(axes: Axes) -> None:
    """The square of [-1, 1] with the unit circle, the axes and the names of the quadrants."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1, fill=False, color="#BBBBBB", linewidth=1))
    axes.axhline(0, color="#BBBBBB", linewidth=1, zorder=1)
    axes.axvline(0, color="#BBBBBB", linewidth=1, zorder=1)
    for name, x, y in (("Q1", 1, 1), ("Q2", -1, 1), ("Q3", -1, -1), ("Q4", 1, -1)):
        axes.text(0.97 * x, 0.97 * y, name, ha="center", va="center", color=GREY, fontsize=13)
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("valence (negative to positive)")
    axes.set_ylabel("arousal (calm to excited)")


def _curve(curve: Curve | None, name: str) -> Curve | None:
    if curve is None:
        return None
    positions, values = np.asarray(curve[0], dtype=np.float64), _points(curve[1], name)
    if positions.shape != (len(values),) or not np.isfinite(positions).all():
        raise AffgenError(f"{name}: positions of shape {positions.shape} for {len(values)} values; one each is needed")
    return positions, values


def _points(points: np.ndarray, name: str) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise AffgenError(
            f"{name}: an array of shape {points.shape}; accepted are finite numbers of shape (N, 2), N > 0"
        )
    return points


def _labels(labels: Sequence[str], count: int) -> list[str]:
    if len(labels) != count:
        raise AffgenError(f"{len(labels)} labels for {count} points: one each is needed")
    return [str(label) for label in labels]


def _groups(names: list[str]) -> list[tuple[int, str, np.ndarray]]:
    """Every label in order with its rank and which points (N,) carry it."""
    return [(rank, name, np.array(names) == name) for rank, name in enumerate(sorted(set(names)))]


def _style(rank: int) -> tuple[str, str]:
    """Colour and shape of the label of this rank: 64 pairs before one comes again."""
    return OKABE_ITO[rank % 8], SHAPES[(rank + rank // 8) % 8]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    if Path(path).suffix.lower() != ".png":
        raise AffgenError(f"{path}: pictures are written as .png; name such a file")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
