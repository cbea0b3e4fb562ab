"""Which settings: conversions of the speakers left out of the decoder's training, by each of :data:`TRIED`.

    python local/tune.py --data DIR --model MODEL [--leave_out ravdess-13 ...] [--utterances 2]

Prints a table in Markdown, at intensity 1: the judged range in units of the natural gap from neutral to strong, its
mean over the emotions and each by itself; the share that the judge files under the emotion asked for; the similarity to
the speaker's other neutral clips by Resemblyzer; phone and word errors beyond those of the vocoded source, in points;
and how far the median of F0 moves, in semitones. The first rows are the speakers' own strong clips and the rule. What
Resemblyzer and words are read with comes with the extras ``eval`` and ``align``; without them their columns are empty.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from affgen.audio import Audio
from affgen.cli import guard, positive_int
from affgen.errors import DataError
from affgen.vocoder import Vocoder
from vc import baselines
from vc.convert import VoiceConverter
from vc.evaluate_rows import Clip, Row, chosen, load, natural, neutral
from vc.evaluate_tools import Heard, Reader, Source
from vc.instruments import instruments
from vc.judge import Judge

LABELS = ("angry", "happy", "sad", "fearful")
TIMES = ("voiced", "unvoiced", "pause")
TRIED: tuple[dict[str, Any], ...] = (
    {"name": "as it is"},
    {"name": "flow, 30 steps", "steps": 30},
    {"name": "flow, temperature 0", "temperature": 0.0},
    {"name": "flow, temperature 1", "temperature": 1.0},
    {"name": "maximum likelihood, 8 steps", "sampler": "ml", "steps": 8},
    {"name": "maximum likelihood, 8 steps, temperature 1", "sampler": "ml", "steps": 8, "temperature": 1.0},
    {"name": "F0 x 0.7", "controls": {"pitch": 0.7}},
    {"name": "F0 x 1.3", "controls": {"pitch": 1.3}},
    {"name": "motion x 0.4", "controls": {"motion": 0.4}},
    {"name": "dynamics x 2.5", "controls": {"dynamics": 2.5}},
    {"name": "durations as actors'", "controls": dict.fromkeys(TIMES, 2.5)},
    {"name": "durations kept", "controls": dict.fromkeys(TIMES, 0.0)},
    {"name": "colour x 0.7", "colour": 0.7},
    {"name": "colour x 1.3", "colour": 1.3},
)
"""``sampler``, ``steps`` and ``temperature`` stand in the place of those in :class:`vc.config.VcConfig`; ``controls``
multiply those of the prosody, ``colour`` the calibrated one. What a setting does not name stays as it is."""
HEAD = ("setting", "range", *LABELS, "accuracy", "Resemblyzer", "phones", "words", "F0")

Readings = Mapping[str, Sequence[Mapping[str, Any]]]
"""What was read in the sounds of a row, by label."""


def main(arguments: list[str]) -> int:
    """Convert, read and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="data directory of RAVDESS speech, its training speakers")
    parser.add_argument("--model", help="model directory (default: the shipped one)")
    parser.add_argument("--leave_out", nargs="+", default=[f"ravdess-{actor}" for actor in (13, 14, 15, 16)])
    parser.add_argument("--utterances", type=positive_int, default=2, help="neutral clips of each speaker (default: 2)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    converter = VoiceConverter.from_pretrained(args.model)
    clips = [clip for clip in load([args.data]) if any(fnmatchcase(clip.speaker, own) for own in args.leave_out)]
    picked = chosen(clips, args.utterances)
    reader, missing = instruments(Judge.from_pretrained(), {clip.text for clip in picked})
    print("\n".join(missing), file=sys.stderr)
    sources = heard(reader, clips, picked, converter.vocoder)
    own = strong(reader, clips, picked, sources)
    gaps = {label: float(np.mean([reading["strength"][label] for reading in own[label]])) for label in LABELS}
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    print(line("natural, strong", own, gaps))
    print(line("rule", made(reader, sources, baselines.rule), gaps), flush=True)
    for setting in TRIED:
        print(line(setting["name"], made(reader, sources, changed(converter, setting).convert), gaps), flush=True)
    return 0


def heard(reader: Reader, clips: Sequence[Clip], picked: Sequence[Clip], vocoder: Vocoder) -> list[Source]:
    """Return the ``picked`` clips as sources, each with all the other neutral clips of its speaker."""
    speakers = {clip.speaker for clip in picked}
    voices: dict[str, dict[str, Heard]] = {
        speaker: {clip.name: reader.hear(clip.audio) for clip in own}
        for speaker, own in neutral(clips).items()
        if speaker in speakers
    }
    sources = []
    for clip in picked:
        own = voices[clip.speaker]
        again = reader.hear(baselines.vocoded(clip.audio, vocoder))
        others = tuple(other for name, other in own.items() if name != clip.name)
        sources.append(Source(clip.name, clip.speaker, clip.text, clip.audio, own[clip.name], again, others))
    return sources


def strong(reader: Reader, clips: Sequence[Clip], picked: Sequence[Clip], sources: Sequence[Source]) -> Readings:
    """Return what is read in the speakers' own strong clips; raises :class:`DataError` for a label without any."""
    by_name = {source.name: source for source in sources}
    found: dict[str, list[Mapping[str, Any]]] = {label: [] for label in LABELS}
    for twin in natural(clips, picked, LABELS):
        if twin.level == 1:
            found[twin.label].append(reader.read(by_name[twin.source.name], twin.clip.audio, twin.label, 1.0))
    lacking = [label for label, readings in found.items() if not readings]
    if lacking:
        raise DataError(f"no strong clip of {', '.join(lacking)}; accepted: data with utt2intensity 1 for {LABELS}")
    return found


def made(reader: Reader, sources: Sequence[Source], row: Row) -> Readings:
    """Return what is read in the conversions of ``sources`` by ``row``."""

    def read(source: Source, label: str) -> Mapping[str, Any]:
        audio: Audio = row(source.audio, label, 1.0)
        return reader.read(source, audio, label, 1.0)

    return {label: [read(source, label) for source in sources] for label in LABELS}


def changed(converter: VoiceConverter, setting: Mapping[str, Any]) -> VoiceConverter:
    """Return ``converter`` with a setting of :data:`TRIED`."""
    parts = converter.parts
    how = {key: value for key, value in setting.items() if key in ("sampler", "steps", "temperature")}
    return converter.having(
        config=replace(parts.config, **how),
        prosody=parts.prosody.shared(**setting.get("controls", {})),
        calibration=replace(parts.calibration, colour=parts.calibration.colour * setting.get("colour", 1.0)),
    )


def line(name: str, readings: Readings, gaps: Mapping[str, float]) -> str:
    """Return a row of the table: means over the clips of each label, then over the labels."""
    ranges = [float(np.mean([r["strength"][label] for r in readings[label]])) / gaps[label] for label in LABELS]
    right = [[told(r["posterior"]) == label for r in readings[label]] for label in LABELS]
    voices = [[r["speaker_likeness"].get("resemblyzer", {}).get("others") for r in readings[x]] for x in LABELS]
    cells = [f"{value:.2f}" for value in (np.mean(ranges), *ranges)] + [shown(right, 2), shown(voices, 3)]
    for number in ("phones_change", "words_change", "f0_change"):
        cells.append(shown(([r["numbers"].get(number) for r in readings[label]] for label in LABELS), 1))
    return f"| {' | '.join([name, *cells])} |"


def told(posterior: Mapping[str, float]) -> str:
    """Return the label that is heard."""
    return max(posterior, key=lambda label: posterior[label])


def shown(values: Iterable[Sequence[float | None]], digits: int) -> str:
    """Return the mean over labels of the means over clips, without what was not measured; empty if nothing was."""
    numbers = [[v for v in own if v is not None and np.isfinite(v)] for own in values]
    means = [np.mean(own) for own in numbers if own]
    return f"{np.mean(means):.{digits}f}" if means else ""


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
