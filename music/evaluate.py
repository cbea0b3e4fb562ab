"""Figures of a model: what the evaluator reads from its pieces, how close they are to real clips, and what they copy.

All figures come from :mod:`affgen.metrics.music` and :mod:`music.evaluator`; the evaluator's own accuracy on real clips
stands beside every score that rests on it.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from affgen.datadir import DataDir
from affgen.emotion.labels import QUADRANTS
from affgen.emotion.spec import parse_emotion, parse_intensity
from affgen.errors import DataError
from affgen.files import atomic_write
from affgen.metrics import music as metrics
from affgen.score import Score, read_midi, write_midi
from music.compose import Composer, check_bars, ring_out
from music.config import TokenConfig
from music.data import Clip, load_clips
from music.decode import Request
from music.evaluator import Evaluator, Reading
from music.markov import MarkovChain
from music.steering import quadrant_token, steering
from music.tokens import Grid, score_from_grid, snap

AXIS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Valence and arousal of the 5 x 5 points."""
FEATURES: dict[str, Callable[[Score], float]] = {
    "pitch_range": metrics.pitch_range,
    "pitch_classes": metrics.pitch_classes,
    "polyphony": metrics.polyphony,
    "density": metrics.note_density,
    "velocity": metrics.mean_velocity,
}
Generate = Callable[[str, int], list[Grid]]
"""(emotion SPEC, how many) -> grids; the seeds go on from call to call."""


def evaluate(args: Namespace) -> dict[str, Any]:
    """Measure what ``affgen music evaluate`` was asked to and write it to ``args.out``; returns the record.

    Raises :class:`DataError` if the directory holds no labelled clips.
    """
    check_bars(args.bars)
    if args.train:
        DataDir.read(args.train)
    if args.keep and Path(args.keep).is_file():
        raise DataError(f"{args.keep}: is a file; --keep names a folder")
    evaluator, real = Evaluator.from_pretrained(), _real_clips(args.data)
    generate, name = _generator(args)
    start = time.perf_counter()
    pieces = {quadrant: generate(quadrant, args.pieces) for quadrant in QUADRANTS}
    spent = time.perf_counter() - start
    scores = {quadrant: [score_from_grid(grid) for grid in grids] for quadrant, grids in pieces.items()}
    record: dict[str, Any] = {
        "command": "music evaluate",
        "model": name,
        "pieces": args.pieces,
        "bars": args.bars,
        "seed": args.seed,
        "guidance": args.guidance,
        "prior": args.prior,
        "evaluator": evaluator.card_line,
        "seconds_per_piece": spent / (4 * args.pieces),
        "real": accuracy(evaluator, real),
        "generated": accuracy(evaluator, scores),
        "overlap": overlaps(scores, real),
        "bar_means": {"real": bar_means(real), "generated": bar_means(scores)},
        "grid": grid_correlation(evaluator, generate, args.grid),
    }
    if args.train:
        tokens = Composer.from_pretrained(args.model).config.tokens
        clips = load_clips(args.train, tokens, cache=Path(args.out).with_name("clips.npz"))
        record["copied"] = copied(scores, clips, tokens)
    if args.keep:
        _keep(scores, Path(args.keep))
    atomic_write(args.out, json.dumps(record, indent=1) + "\n")
    return record


def accuracy(evaluator: Evaluator, scores: dict[str, list[Score]]) -> dict[str, Any]:
    """Share of pieces read as the quadrant, arousal half and valence half they should be, and the confusion matrix."""
    asked = [quadrant for quadrant, pieces in scores.items() for _ in pieces]
    readings = [evaluator.read(score) for pieces in scores.values() for score in pieces]
    hits = np.array([_hits(quadrant, reading) for quadrant, reading in zip(asked, readings, strict=True)])
    matrix = metrics.confusion(asked, [reading.quadrant for reading in readings], QUADRANTS)
    shares = {key: float(hits[:, k].mean()) for k, key in enumerate(("quadrant", "arousal", "valence"))}
    return {**shares, "pieces": len(asked), "confusion": np.asarray(matrix).tolist()}


def overlaps(scores: dict[str, list[Score]], real: dict[str, list[Score]]) -> dict[str, float]:
    """Overlapping area of the distributions of generated and real pieces, each feature over all quadrants together."""
    return {
        name: metrics.overlap(
            *(np.array([feature(s) for pieces in side.values() for s in pieces]) for side in (scores, real))
        )
        for name, feature in FEATURES.items()
    }


def bar_means(scores: dict[str, list[Score]]) -> dict[str, float]:
    """Bar-level pitch range, pitch classes and polyphony: mean over the pieces, bars by each score's own bar lines."""
    table = [
        [
            measure(score, score.bar_lines())
            for measure in (metrics.bar_pitch_range, metrics.bar_pitch_classes, metrics.bar_polyphony)
        ]
        for pieces in scores.values()
        for score in pieces
    ]
    return dict(zip(("BPR", "BNPC", "BPOLY"), np.mean(table, axis=0).tolist(), strict=True))


def grid_correlation(evaluator: Evaluator, generate: Generate, count: int) -> dict[str, Any]:
    """Spearman correlation of asked and read valence and arousal over 5 x 5 points, by pieces and by point means."""
    asked, read = [], []
    for valence in AXIS:
        for arousal in AXIS:
            for grid in generate(f"va:{valence}/{arousal}", count):
                reading = evaluator.read(score_from_grid(grid))
                asked.append((valence, arousal))
                read.append((reading.valence, reading.arousal))
    table, answers = np.array(asked), np.array(read)
    points, means = table[::count], answers.reshape(-1, count, 2).mean(axis=1)
    result: dict[str, Any] = {"pieces_per_point": count, "asked": points.tolist(), "read": means.tolist()}
    for k, axis in enumerate(("valence", "arousal")):
        result[axis] = metrics.spearman(table[:, k], answers[:, k])
        result[f"{axis}_of_means"] = metrics.spearman(points[:, k], means[:, k])
    return result


def copied(scores: dict[str, list[Score]], clips: list[Clip], tokens: TokenConfig) -> dict[str, Any]:
    """Longest run of consecutive notes that also stands in a training clip: by pitch alone, and by pitch and rhythm."""
    corpus = [score_from_grid(snap(clip.grid, tokens)) for clip in clips]
    result: dict[str, Any] = {}
    for mode in ("pitch", "rhythm"):
        index = metrics.VerbatimIndex(corpus, mode=mode)
        runs = [metrics.longest_verbatim_run(score, index, mode=mode) for pieces in scores.values() for score in pieces]
        result[mode] = {
            "longest": int(max(runs)),
            "median": float(np.median(runs)),
            "p95": float(np.percentile(runs, 95)),
        }
    return result


def _generator(args: Namespace) -> tuple[Generate, str]:
    """How pieces are made: by the model, by the model with codes from their frequencies, or by Markov chains."""
    composer = Composer.from_pretrained(args.model)
    seed, sampling = args.seed, composer.config.sampling
    if args.guidance is not None:
        sampling = replace(sampling, guidance=args.guidance)
    if args.baseline:
        if not args.train:
            raise DataError("--baseline needs --train DIR, the clips that its chains are counted on")
        clips = load_clips(args.train, composer.config.tokens, cache=Path(args.out).with_name("clips.npz"))
        chains = {k: MarkovChain(clips, k, composer.config.tokens) for k in range(1, 5)}

    def generate(emotion: str, count: int) -> list[Grid]:
        nonlocal seed
        seeds = range(seed, seed + count)
        seed += count
        feeling = parse_emotion(emotion)
        if args.baseline:
            chain = chains[max(1, quadrant_token(feeling))]
            return [ring_out(chain.piece(args.bars, number)) for number in seeds]
        requests = [
            Request(
                number,
                steering(feeling, parse_intensity(1.0), sampling, seed=number),
                bars=args.bars,
                quadrant=quadrant_token(feeling),
                latents=_chance(composer, args, number),
            )
            for number in seeds
        ]
        return [
            ring_out(grid) for start in range(0, count, 50) for grid in composer.decode(requests[start : start + 50])
        ]

    return generate, "first-order Markov chain" if args.baseline else composer.name


def _chance(composer: Composer, args: Namespace, seed: int) -> np.ndarray | None:
    """Latents of codes drawn by their frequency alone, for the ablation without the prior."""
    if args.prior == "model":
        return None
    counts = composer.model.quantise.counts.double().numpy()
    codes = np.random.default_rng(seed).choice(len(counts), size=100 * args.bars, p=counts / counts.sum())
    return composer.model.quantise.codebook.numpy()[codes]


def _real_clips(folder: str) -> dict[str, list[Score]]:
    data = DataDir.read(folder)
    paths, labels = data.tables.get("midi.scp", {}), data.tables.get("utt2emo", {})
    clips = {q: [read_midi(path) for name, path in paths.items() if labels.get(name) == q] for q in QUADRANTS}
    if not all(clips.values()):
        raise DataError(f"{folder}: needs clips of all of {', '.join(QUADRANTS)} in midi.scp and utt2emo")
    return clips


def _hits(quadrant: str, reading: Reading) -> tuple[bool, bool, bool]:
    return (
        reading.quadrant == quadrant,
        (reading.arousal > 0) == (quadrant in ("Q1", "Q2")),
        (reading.valence > 0) == (quadrant in ("Q1", "Q4")),
    )


def _keep(scores: dict[str, list[Score]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for quadrant, pieces in scores.items():
        for index, score in enumerate(pieces):
            write_midi(score, folder / f"{quadrant}_{index:03d}.mid")
