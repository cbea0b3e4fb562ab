"""Read an emotion as the generators read it."""

from __future__ import annotations

import argparse
from typing import Any

from affgen.cli import emit_json


def register(verbs: argparse._SubParsersAction) -> None:
    """Add ``affgen emotion show``."""
    show = verbs.add_parser("show", help="what a SPEC means: label weights, valence, arousal, quadrant at each point")
    show.add_argument("spec", metavar="SPEC", help="such as happy:0.6+sad:0.4, va:0.4/-0.2 or neutral@0s,angry:1@3s")
    show.add_argument("--intensity", metavar="I", help="0 to 1.5, or a curve such as 0.2@0s,1@3s")
    show.add_argument("--json", action="store_true", help="one JSON object on standard output")
    show.set_defaults(run=run_show)


def run_show(args: argparse.Namespace) -> None:
    """Print the points of ``args.spec`` (and of ``args.intensity``) as a table or as JSON."""
    from affgen.emotion.spec import parse_emotion, parse_intensity

    emotion = parse_emotion(args.spec)
    curve = None if args.intensity is None else parse_intensity(args.intensity)
    rows = [_reading(point) for point in emotion.points]
    levels = [] if curve is None else [{"time": _moment(time), "intensity": value} for value, time in curve.points]
    if args.json:
        record = {"command": "emotion show", "emotion": str(emotion), "points": rows}
        emit_json(args, record | ({"intensity": str(curve), "intensity_points": levels} if curve else {}))
        return
    print(_table(["time", "labels", "valence", "arousal", "quadrant"], [_cells(row) for row in rows]))
    if levels:
        print(
            "\n" + _table(["time", "intensity"], [[str(level["time"]), f"{level['intensity']:g}"] for level in levels])
        )


def _reading(point: Any) -> dict[str, Any]:
    from affgen.emotion.labels import quadrant

    mix = point.mix()
    valence, arousal = mix.va
    return {
        "time": _moment(point.time),
        "weights": dict(mix.weights),
        "valence": valence,
        "arousal": arousal,
        "quadrant": quadrant(valence, arousal) if (valence, arousal) != (0.0, 0.0) else None,
    }


def _moment(time: Any) -> str:
    return "start" if time is None else str(time)


def _cells(row: dict[str, Any]) -> list[str | None]:
    labels = " + ".join(f"{weight:.0%} {name}" for name, weight in row["weights"].items())
    return [row["time"], labels, f"{row['valence']:+.2f}", f"{row['arousal']:+.2f}", row["quadrant"]]


def _table(head: list[str], rows: list[list[str | None]]) -> str:
    """Return rows as aligned text; empty cells as a dash."""
    cells = [head] + [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)
