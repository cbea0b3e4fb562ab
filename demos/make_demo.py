"""What ``make demo`` does: use every shipped model once, and say what was asked, what is read and how long it took.

    python demos/make_demo.py OUT

Writes MIDI, WAV and PNG files to the folder OUT and prints one table. So far the shipped model composes piano music;
voice conversion and singing join the table with their models.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from affgen.cli import guard
from affgen.errors import AffgenError

BARS = 16
ASKED = ("Q1", "Q2", "Q3", "Q4", "Q4@0b,Q1@8b")
"""One piece per quadrant, and one whose emotion turns from calm to lively."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    asked: str
    read: str
    valence: float
    arousal: float
    notes: int
    seconds: float
    compute: float


def make_music(out: Path, seed: int = 0) -> tuple[list[Line], str]:
    """Compose, render and draw one piece for each of ASKED; the lines of the table and the evaluator's own accuracy."""
    from music.compose import Composer
    from music.evaluator import Evaluator
    from music.picture import plot

    composer, evaluator = Composer.from_pretrained(), Evaluator.from_pretrained()
    lines = []
    for number, asked in enumerate(ASKED):
        start = time.perf_counter()
        piece = composer.compose(asked, bars=BARS, seed=seed + number)
        spent = time.perf_counter() - start
        name = f"piece_{asked}" if "@" not in asked else "piece_curve"
        piece.save(out / f"{name}.mid")
        piece.render().save(out / f"{name}.wav")
        plot(piece, evaluator, out / f"{name}.png")
        reading = evaluator.read(piece.score)
        lines.append(
            Line(
                name,
                asked,
                reading.quadrant,
                reading.valence,
                reading.arousal,
                len(piece.score.notes),
                piece.score.duration_s,
                spent,
            )
        )
    return lines, evaluator.card_line


def table(lines: list[Line]) -> str:
    """The lines as text in columns."""
    head = ("file", "asked", "read", "valence", "arousal", "notes", "sound s", "made in s")
    rows = [
        (
            x.name,
            x.asked,
            x.read,
            f"{x.valence:+.2f}",
            f"{x.arousal:+.2f}",
            str(x.notes),
            f"{x.seconds:.1f}",
            f"{x.compute:.2f}",
        )
        for x in lines
    ]
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def main(argv: list[str] | None = None) -> int:
    """Make the demonstration in the folder given; exit code 2 with one line if it cannot be written."""
    parser = argparse.ArgumentParser(description="Use every shipped model once.")
    parser.add_argument("out", type=Path, help="folder for what is made")
    args = parser.parse_args(argv)

    def work() -> int:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AffgenError(f"{args.out}: cannot be made ({error.strerror}); name another folder") from error
        lines, accuracy = make_music(args.out)
        print(table(lines))
        print(f"\n{accuracy}\neverything is in {args.out}/")
        return 0

    return guard(work)


if __name__ == "__main__":
    sys.exit(main())
