"""Measure aligners: `python local/results.py --data data --labels FOLDER --model NAME=DIR ... --out results.json`.

Prints the tables of RESULTS.md. The first model also goes against pocketsphinx, sings, and gives the pseudo-phonemes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affgen.align import evaluate as e
from affgen.align.aligner import Aligner
from affgen.align.lexicon import pronounce
from affgen.align.marks import Mark, label_file, read_lablaut, to_segments
from affgen.align.phones import SILENCE, VOWELS
from affgen.align.segments import Segment, frame_phones
from affgen.align.singing import slowed, speechlike
from affgen.align.sphinx import Sphinx
from affgen.align.units import learn
from affgen.audio import Audio
from affgen.datadir import DataDir
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir
from affgen.files import atomic_write

SUNG = {"Kids": "Kids are talking", "Dogs": "Dogs are sitting"}
"""What is left of the two sentences in the sung files, which end after about 1.4 s."""
RATE = 22_050


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", metavar="FOLDER", required=True, help="data directories, NAME/train and NAME/test, with features")
    add("--labels", metavar="FOLDER", required=True, help="EmoDB's .lablaut files")
    add("--model", metavar="NAME=DIR", action="append", required=True, help="aligner; DIR empty: the shipped one")
    add("--utterances", type=int, default=60, help="recordings of each English corpus (default: 60)")
    add("--out", metavar="FILE", required=True, help="where the JSON goes")
    return parser.parse_args()


def marked(data: Path, labels: str) -> Iterator[tuple[str, np.ndarray, list[Mark]]]:
    """Yield name, mel (80, T) and marks of the utterances that have label files."""
    features = FeatureDir(data)
    for name in features.utterances:
        file = label_file(labels, name)
        try:
            if file:
                yield name, features.features(name).mel, read_lablaut(file)
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)


def boundaries(aligner: Aligner, data: Path, labels: str, by_text: bool) -> list[e.Boundary]:
    """Return the boundaries of held-out EmoDB, from the phones that were marked or from the text."""
    texts = DataDir.read(data).tables["text"]
    found: list[e.Boundary] = []
    for name, mel, marks in marked(data, labels):
        if by_text:
            phones = [phone for word in pronounce(texts[name], "de") for phone in word.phones]
        else:
            phones = [phone for mark in marks for phone in mark.phones if phone != SILENCE]
        found += e.compare(marks, aligner.align(mel, phones=phones))
    return found


def sounds(data: Path, count: int) -> Iterator[tuple[str, Audio, str]]:
    """Yield name, sound and text of ``count`` utterances spread over a data directory."""
    features, texts = FeatureDir(data), DataDir.read(data).tables["text"]
    names = features.utterances
    for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, min(count, len(names)))}):
        yield names[i], Audio(features.wave(names[i]), RATE), texts[names[i]]


def against_sphinx(aligner: Aligner, data: Path, count: int) -> dict[str, Any]:
    """Return how much later the aligner has the boundaries of pocketsphinx, given the phones that it chose."""
    late: list[e.Boundary] = []
    failed, seconds, took = 0, 0.0, {"ctc": 0.0, "sphinx": 0.0}
    with Sphinx() as sphinx:
        for _, audio, text in sounds(data, count):
            seconds += audio.duration_s
            began = time.perf_counter()
            try:
                theirs = sphinx.align(audio, text)
            except AffgenError:
                failed += 1
                continue
            between = time.perf_counter()
            ours = aligner.align(audio, phones=[segment.phone for segment in theirs])
            took["sphinx"] += between - began
            took["ctc"] += time.perf_counter() - between
            late += e.agreement(theirs, ours)
    return {**e.summary(late), "failed": failed, "seconds": seconds, "took": took}


def sung(aligner: Aligner, data: Path, count: int) -> dict[str, Any]:
    """Return the steps between the vowels of sung syllables by four ways of aligning them."""
    steps: dict[str, list[float]] = {}
    failed: dict[str, int] = {}
    onsets: dict[str, list[list[float]]] = {}
    with Sphinx() as sphinx:
        ways: dict[str, Callable[[Audio, str], list[Segment]]] = {
            "sphinx": sphinx.align,
            "sphinx, lowered": lambda audio, text: slowed(sphinx.align(speechlike(audio), text)),
            "ctc": aligner.align,
            "ctc, lowered": lambda audio, text: aligner.align(audio, text, singing=True),
        }
        for _, audio, text in sounds(data, count):
            for way, align in ways.items():
                try:
                    found = [s.start_s for s in align(audio, SUNG[text.split()[0]]) if s.phone in VOWELS]
                except AffgenError:
                    failed[way] = failed.get(way, 0) + 1
                    continue
                onsets.setdefault(way, []).append(found)
                steps.setdefault(way, []).extend(b - a for a, b in pairwise(found))
    report = {}
    for way, values in steps.items():
        x = np.array(values)
        near = float((np.abs(x - 0.32) <= 0.1).mean())
        medians = np.median(np.array(onsets[way]), axis=0)
        report[way] = {
            "files": len(onsets[way]),
            "failed": failed.get(way, 0),
            "step_s": float(np.median(x)),
            "near": near,
            "onsets_s": [float(value - medians[0]) for value in medians],
        }
    return report


def pseudo(aligner: Aligner, train: Path, test: Path, labels: str) -> dict[str, Any]:
    """Return how well units tell the marked phones, beside k-means of the log-mel and the network's own best phone."""
    items = list(marked(test, labels))
    truth = np.concatenate([frame_phones(to_segments(marks), mel.shape[1]) for _, mel, marks in items])
    settings = aligner.parts.config.units
    features = FeatureDir(train)
    raw = learn(np.concatenate([features.features(name).mel.T for name in features.utterances]), settings)
    rows = {
        "units": [aligner.units(mel) for _, mel, _ in items],
        "units, not smoothed": [aligner.parts.codebook.units(_hidden(aligner, mel), 0.0, 1) for _, mel, _ in items],
        "k-means of the log-mel": [raw.units(mel.T, settings.switch, settings.shortest) for _, mel, _ in items],
        "best phone of the network": [aligner.posteriors(mel).argmax(axis=1) for _, mel, _ in items],
    }
    report = {}
    for name, found in rows.items():
        runs = sum(int((np.diff(units) != 0).sum()) + 1 for units in found)
        seconds = sum(len(units) for units in found) * 256 / RATE
        report[name] = {**e.purity(np.concatenate(found), truth), "per_second": runs / seconds}
    return report


def _hidden(aligner: Aligner, mel: np.ndarray) -> np.ndarray:
    from affgen.align.pack import hidden

    return hidden(aligner.parts.network, mel)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers with one decimal or, below 10 and not whole, three."""
    shown = [[_cell(value) for value in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *shown])


def _cell(value: object) -> str:
    return (
        f"{value:.3f}"
        if isinstance(value, float) and abs(value) < 3
        else f"{value:.1f}"
        if isinstance(value, float)
        else str(value)
    )


ERRORS = ("count", "median_ms", "p95_ms", "mean_ms", "late_ms", "within_10_ms", "within_20_ms", "within_50_ms")


def main() -> None:
    """Print the tables and write the JSON."""
    args = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = Path(args.data)
    models = {n: Aligner.from_pretrained(folder or None) for n, _, folder in (m.partition("=") for m in args.model)}
    first = next(iter(models.values()))
    report: dict[str, Any] = {}
    rows = []
    for name, aligner in models.items():
        for given, by_text in (("phones", False), ("text", True)):
            found = boundaries(aligner, data / "emodb/test", args.labels, by_text)
            key = f"{name}, {given} given"
            report[key] = {**e.summary(found), "classes": e.by_class(found)}
            rows.append([key, *(report[key][field] for field in ERRORS)])
    print(f"## EmoDB, speakers 15 and 16, against its marks\n\n{table(['', *ERRORS], rows)}\n")
    classes = report[f"{next(iter(models))}, phones given"]["classes"]
    rows = [[name, *(c[field] for field in ERRORS[:5])] for name, c in classes.items()]
    print(f"By the classes before and after, {next(iter(models))}, phones given:\n\n{table(['', *ERRORS[:5]], rows)}\n")
    english = {n: data / n / "test" for n in ("an4", "ljspeech", "ravdess_speech") if (data / n / "test").is_dir()}
    report["english"] = {name: against_sphinx(first, folder, args.utterances) for name, folder in english.items()}
    rows = [[name, *(r[field] for field in ERRORS), r["failed"]] for name, r in report["english"].items()]
    print(f"## English, against pocketsphinx\n\n{table(['', *ERRORS, 'sphinx failed'], rows)}\n")
    report["sung"] = sung(first, data / "ravdess_song/test", args.utterances)
    fields = ("files", "failed", "step_s", "near")
    rows = [
        [n, *(r[f] for f in fields), " ".join(f"{o:.2f}" for o in r["onsets_s"])] for n, r in report["sung"].items()
    ]
    print(f"## Singing\n\n{table(['', *fields, 'onsets'], rows)}\n")
    report["units"] = pseudo(first, data / "emodb/train", data / "emodb/test", args.labels)
    fields = ("purity", "inverse", "nmi", "per_second")
    rows = [[name, *(r[field] for field in fields)] for name, r in report["units"].items()]
    print(f"## Pseudo-phonemes, EmoDB, speakers 15 and 16\n\n{table(['', *fields], rows)}")
    atomic_write(args.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except AffgenError as error:
        sys.exit(f"error: {error}")
