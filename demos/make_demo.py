"""What ``make demo`` does: use every shipped model once, and say what was asked, what is read and how long it took.

    python demos/make_demo.py OUT

Writes WAV, MIDI and PNG files to the folder OUT and prints one table. A neutral sentence is converted to four emotions
at three intensities, and piano music is composed; singing joins the table with its model.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from affgen.cli import guard
from affgen.errors import AffgenError

SENTENCE = Path(__file__).parent / "material" / "sentence.wav"
"""A synthesised voice; its README.md says which."""
EMOTIONS = ("angry", "happy", "sad", "fearful")
INTENSITIES = (0.33, 0.67, 1.0)
BARS = 16
ASKED = ("Q1", "Q2", "Q3", "Q4", "Q4@0b,Q1@8b")
"""One piece per quadrant, and one whose emotion turns from calm to lively."""


@dataclass(frozen=True)
class Line:
    """One line of the table; ``strength`` is the judge's, 0 as the source and 1 as strong speech; None where it has
    no meaning.
    """

    name: str
    asked: str
    read: str
    valence: float
    arousal: float
    seconds: float
    compute: float | None
    strength: float | None = None
    notes: int | None = None


def make_voices(out: Path, seed: int = 0) -> tuple[list[Line], str]:
    """Convert and draw the sentence once for each emotion and intensity; the lines of the table, the source first, and
    how far to trust what reads them.
    """
    from affgen.audio import read
    from affgen.emotion.encoder import load_encoder
    from vc.convert import VoiceConverter
    from vc.judge import Judge
    from vc.picture import plot

    converter, encoder, judge = VoiceConverter.from_pretrained(), load_encoder(None), Judge.from_pretrained()
    source = read(SENTENCE)
    source.save(out / "voice.wav")
    anchor, heard = judge.read(source), encoder.encode(source)
    lines = [Line("voice", "(source)", heard.label, heard.valence, heard.arousal, source.duration_s, None)]
    for emotion in EMOTIONS:
        for intensity in INTENSITIES:
            start = time.perf_counter()
            made = converter.run(source, emotion, intensity, seed=seed)
            spent = time.perf_counter() - start
            name = f"voice_{emotion}_{intensity:.2f}"
            made.audio.save(out / f"{name}.wav")
            title = f"{emotion}  intensity {intensity:g}  seed {seed}"
            plot(made.source, made.features, made.intensity, out / f"{name}.png", title=title)
            heard, strength = encoder.encode(made.audio), judge.strength(judge.read(made.audio), emotion, anchor)
            felt = (heard.label, heard.valence, heard.arousal)
            lines.append(Line(name, f"{emotion} {intensity:g}", *felt, made.audio.duration_s, spent, strength))
    return lines, encoder.card_line


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
        felt = (reading.quadrant, reading.valence, reading.arousal)
        lines.append(Line(name, asked, *felt, piece.score.duration_s, spent, notes=len(piece.score.notes)))
    return lines, evaluator.card_line


def table(lines: list[Line]) -> str:
    """The lines as text in columns; a dash where there is nothing to say."""
    head = ("file", "asked", "read", "valence", "arousal", "strength", "notes", "sound s", "made in s")
    rows = [
        (
            x.name,
            x.asked,
            x.read,
            f"{x.valence:+.2f}",
            f"{x.arousal:+.2f}",
            "-" if x.strength is None else f"{x.strength:+.2f}",
            "-" if x.notes is None else str(x.notes),
            f"{x.seconds:.1f}",
            "-" if x.compute is None else f"{x.compute:.2f}",
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
        lines, remarks = [], []
        for make in (make_voices, make_music):
            made, remark = make(args.out)
            lines += made
            remarks.append(remark)
        print(table(lines))
        print("", *remarks, f"everything is in {args.out}/", sep="\n")
        return 0

    return guard(work)


if __name__ == "__main__":
    sys.exit(main())
