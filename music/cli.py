"""Compose, continue, transfer and classify piano music; train and evaluate models of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affgen.cli import (
    add_generation_flags,
    add_training_flags,
    device,
    emit_json,
    finite_float,
    positive_int,
    say,
    seed,
)
from affgen.errors import AffgenError

if TYPE_CHECKING:
    from affgen.score import Score
    from music.compose import Composer, Piece

MIDI = (".mid", ".midi")
LARGEST = 20_000_000
"""Bytes read from standard input."""


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen music``."""
    for name, flags, run, text in (
        ("compose", _compose_flags, run_compose, "compose a piece: OUT.mid, or a folder with --count"),
        ("continue", _continue_flags, run_continue, "go on from a piece, whose own notes stay as they are"),
        ("transfer", _transfer_flags, run_transfer, "take elements of a piece from another one"),
        ("classify", _classify_flags, run_classify, "read quadrant, valence and arousal from MIDI"),
        ("train", _train_flags, run_train, "train a model on a data directory of labelled MIDI"),
        ("evaluate", _evaluate_flags, run_evaluate, "measure a model against a data directory of held-out MIDI"),
    ):
        parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        flags(parser)
        parser.set_defaults(run=run)


# --- compose ---


def _compose_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="MIDI file, '-' for standard output, or with --count a folder")
    add_generation_flags(parser)
    _output_flags(parser)
    add = parser.add_argument
    add("--bars", type=positive_int, metavar="N", help="length in bars of 4/4 (default: 16)")
    add("--seconds", type=finite_float, metavar="S", help="length in seconds, in place of --bars")
    add("--tempo", type=finite_float, metavar="BPM", help="beats per minute (default: the model chooses)")
    add("--key", metavar="KEY", help="such as C, 'F# major', Bbm, 'a minor' (default: the model chooses)")
    add(
        "--count",
        type=positive_int,
        default=1,
        metavar="K",
        help="compose K pieces with seeds N, N+1, ... (default: 1)",
    )


def run_compose(args: argparse.Namespace) -> int:
    """``affgen music compose OUT``."""
    outputs = _compose_outputs(args)
    composer = _composer(args)
    start = time.perf_counter()
    pieces = composer.compose_many(
        [args.seed + k for k in range(args.count)],
        args.emotion or "neutral",
        intensity=args.intensity,
        bars=args.bars,
        seconds=args.seconds,
        tempo=args.tempo,
        key=args.key,
    )
    spent = (time.perf_counter() - start) / args.count
    records = []
    if args.count > 1:
        Path(outputs[0]).parent.mkdir(exist_ok=True)
    for index, (piece, out) in enumerate(zip(pieces, outputs, strict=True)):
        numbered = index + 1 if args.count > 1 else None
        records.append(_deliver(args, "music compose", None, out, piece, composer, spent, numbered))
    emit_json(args, records[0] if args.count == 1 else {"command": "music compose", "pieces": records})
    return 0


def _compose_outputs(args: argparse.Namespace) -> list[str]:
    """Where each piece goes, checked before anything is computed."""
    if args.count > 1000:
        raise AffgenError(f"--count {args.count}; accepted: 1 to 1000")
    if args.count == 1:
        _check_outputs(args, args.out)
        return [args.out]
    out = Path(args.out)
    if out.suffix.lower() in MIDI:
        names = [str(_numbered(out, k + 1)) for k in range(args.count)]
    else:
        if args.out == "-":
            raise AffgenError("--count with standard output; name a folder or a .mid file")
        if not out.absolute().parent.is_dir() or out.is_file():
            raise AffgenError(f"{out}: is no folder and cannot become one; name a folder in one that exists")
        names = [str(out / f"piece_{k + 1:03d}.mid") for k in range(args.count)]
    for name in names:
        _check_outputs(
            args, name if out.is_dir() or out.suffix.lower() in MIDI else str(out.with_name(Path(name).name))
        )
    return names


# --- continue and transfer ---


def _continue_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="MIDI file, '-' for standard input, a folder or a .scp list")
    parser.add_argument("out", metavar="OUT", help="MIDI file, '-' for standard output, or a folder")
    add_generation_flags(parser)
    _output_flags(parser)
    parser.add_argument("--bars", type=positive_int, default=8, metavar="N", help="how many bars to add (default: 8)")
    parser.add_argument("--key", metavar="KEY", help="key of the new bars (default: the model chooses)")


def run_continue(args: argparse.Namespace) -> int:
    """``affgen music continue IN OUT``."""
    from music.compose import check_bars
    from music.keys import parse_key

    check_bars(args.bars)
    if args.key is not None:
        parse_key(args.key)

    def work(composer: Composer, score: Score) -> Piece:
        return composer.extend(
            score, args.emotion or "neutral", intensity=args.intensity, bars=args.bars, key=args.key, seed=args.seed
        )

    return _rework(args, "music continue", work)


def _transfer_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="MIDI file, '-' for standard input, a folder or a .scp list")
    parser.add_argument("out", metavar="OUT", help="MIDI file, '-' for standard output, or a folder")
    parser.add_argument(
        "--from", dest="donor", required=True, metavar="DONOR", help="MIDI file that gives the elements"
    )
    parser.add_argument(
        "--elements",
        default="velocity",
        metavar="LIST",
        help="of velocity,duration,pitch,tempo,chord,beat (default: velocity)",
    )
    parser.add_argument(
        "--align",
        choices=("bars", "rows"),
        default="bars",
        help="match rows by bar (default), or one by one as published",
    )
    add_generation_flags(parser)
    _output_flags(parser)


def run_transfer(args: argparse.Namespace) -> int:
    """``affgen music transfer IN OUT --from DONOR --elements ...``."""
    from affgen.emotion.spec import parse_intensity
    from music.transfer import parse_elements

    if args.emotion:
        raise AffgenError("--emotion has no effect on a transfer; leave it out, or use 'continue' or 'compose'")
    parse_elements(args.elements)
    donor = _read(args.donor)

    def work(composer: Composer, score: Score) -> Piece:
        from affgen.emotion.spec import parse_emotion
        from music.beats import grid_of
        from music.compose import Piece
        from music.transfer import transfer

        result = transfer(composer, score, donor, args.elements, align=args.align, seed=args.seed)
        grid = grid_of(result, beats="file")
        return Piece(result, grid, parse_emotion("neutral"), parse_intensity(args.intensity), args.seed)

    return _rework(args, "music transfer", work)


def _rework(args: argparse.Namespace, command: str, work: Callable[[Composer, Score], Piece]) -> int:
    """Read one MIDI file or many, change them by ``work``, write what comes out."""
    from affgen import batch
    from affgen.emotion.spec import parse_emotion, parse_intensity

    parse_emotion(args.emotion or "neutral")
    parse_intensity(args.intensity)

    many = None if args.source == "-" else batch.sources(args.source, MIDI)
    if many is None:
        _check_outputs(args, args.out)
        score = _read(args.source)
    composer = _composer(args)
    records: list[dict[str, Any]] = []

    def one(source: str | Path, out: str | Path, score: Score) -> None:
        start = time.perf_counter()
        piece = work(composer, score)
        spent = time.perf_counter() - start
        records.append(_deliver(args, command, str(source), str(out), piece, composer, spent, None))

    if many is None:
        one(args.source, args.out, score)
        emit_json(args, records[0])
        return 0
    if args.wav or args.plot:
        raise AffgenError("--wav and --plot name one file; leave them out when IN is a folder or a list")
    code = batch.run(
        many, args.out, ".mid", lambda source, out: one(source, out, _read(source)), overwrite=args.overwrite
    )
    emit_json(args, {"command": command, "pieces": records})
    return code


# --- classify ---


def _classify_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="MIDI files, folders of them, or '-'")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")
    parser.add_argument("--quiet", action="store_true", help="no remarks on standard error")


def run_classify(args: argparse.Namespace) -> int:
    """``affgen music classify FILE...``."""
    from affgen import batch
    from music.evaluator import Evaluator

    evaluator = Evaluator.from_pretrained()
    files: list[str | Path] = []
    for name in args.files:
        many = None if name == "-" else batch.sources(name, MIDI)
        files += [name] if many is None else list(many.values())
    results = []
    for name in files:
        reading = evaluator.read(_read(name))
        results.append({"input": str(name), **_reading(reading), "probabilities": reading.probabilities})
        if not args.json:
            print(f"{name}  {reading.quadrant}  valence {reading.valence:+.2f}  arousal {reading.arousal:+.2f}")
    say(args, evaluator.card_line)
    record: dict[str, Any] = {"command": "music classify", "input": [str(n) for n in files], "results": results}
    if len(results) == 1:
        record["classified"] = {key: results[0][key] for key in ("quadrant", "valence", "arousal")}
    emit_json(args, record | {"evaluator": evaluator.card_line, "warnings": []})
    return 0


# --- train and evaluate ---


def _train_flags(parser: argparse.ArgumentParser) -> None:
    add_training_flags(parser, "data directory with midi.scp and utt2emo (Q1..Q4)")


def run_train(args: argparse.Namespace) -> int:
    """``affgen music train``."""
    from affgen import config as configs
    from music.config import MusicConfig

    config = configs.load(MusicConfig, args.config, args.overrides)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    place = device(args)
    from music.train import train

    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=place)
    return 0


def _evaluate_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="DIR", help="data directory of held-out clips: midi.scp and utt2emo (Q1..Q4)")
    add("--out", required=True, metavar="metrics.json", help="where the figures go")
    add("--model", metavar="DIR", help="model directory (default: the shipped model)")
    add("--train", metavar="DIR", help="data directory of the training clips, for the longest copied run of notes")
    add("--pieces", type=positive_int, default=100, metavar="N", help="pieces for each quadrant (default: 100)")
    add("--grid", type=positive_int, default=8, metavar="N", help="pieces for each of 5 x 5 points (default: 8)")
    add("--bars", type=positive_int, default=16, metavar="N", help="bars of each piece (default: 16)")
    add("--guidance", type=finite_float, metavar="W", help="in place of the model's own")
    add("--prior", choices=("model", "none"), default="model", help="none: codes by their frequency alone (ablation)")
    add(
        "--baseline",
        action="store_true",
        help="a first-order Markov chain over the training rows in place of the model",
    )
    add("--keep", metavar="DIR", help="keep the pieces as MIDI files in this folder")
    add("--seed", type=seed, default=0, metavar="N", help="first seed (default: 0)")
    add("--threads", type=positive_int, metavar="N", help="processor threads")
    add("--json", action="store_true", help="print the figures as one JSON object")
    add("--quiet", action="store_true", help="no progress on standard error")


def run_evaluate(args: argparse.Namespace) -> int:
    """``affgen music evaluate DIR --out metrics.json``."""
    from affgen.files import require_parent

    require_parent(args.out)
    from music.evaluate import evaluate

    record = evaluate(args)
    emit_json(args, record)
    return 0


# --- shared ---


def _output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wav", metavar="OUT.wav", help="also render to sound (WAV or FLAC)")


def _check_outputs(args: argparse.Namespace, out: str) -> None:
    """Refuse what could not be written before anything is computed."""
    from affgen.files import require_parent

    if out == "-" and args.json:
        raise AffgenError("--json and MIDI cannot both go to standard output; name a file")
    for path, suffixes in ((out, MIDI), (args.wav, (".wav", ".flac")), (args.plot, (".png",))):
        if path in (None, "-"):
            continue
        if Path(path).suffix.lower() not in suffixes:
            raise AffgenError(f"{path}: must end in {' or '.join(suffixes)}")
        require_parent(path)


def _read(source: str | Path) -> Score:
    from affgen.score import read_midi

    if str(source) != "-":
        return read_midi(source)
    return read_midi(sys.stdin.buffer.read(LARGEST + 1))


def _composer(args: argparse.Namespace) -> Composer:
    device(args)  # for the threads and the check: decoding always runs on the processor, where single rows are fastest
    from music.compose import Composer

    return Composer.from_pretrained(args.model)


def _numbered(path: Path, number: int | None) -> Path:
    return path if number is None else path.with_name(f"{path.stem}-{number:03d}{path.suffix}")


def _reading(reading: Any) -> dict[str, Any]:
    return {"quadrant": reading.quadrant, "valence": reading.valence, "arousal": reading.arousal}


def _deliver(
    args: argparse.Namespace,
    command: str,
    source: str | None,
    out: str,
    piece: Piece,
    composer: Composer,
    spent: float,
    number: int | None,
) -> dict[str, Any]:
    """Write a piece and what else was asked for; returns its JSON record."""
    from affgen.score import midi_bytes
    from music.evaluator import Evaluator

    evaluator = Evaluator.from_pretrained()
    reading = evaluator.read(piece.score)
    audio = piece.render() if args.wav else None
    data = midi_bytes(piece.score)
    if out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        piece.save(out)
    if audio is not None:
        audio.save(_numbered(Path(args.wav), number))
    if args.plot:
        from music.picture import plot

        plot(piece, evaluator, _numbered(Path(args.plot), number))
    notes, tempo = len(piece.score.notes), round(piece.tempo, 3)
    bars = len(piece.score.bar_lines()) - 1
    line = f"{out}: {bars} bars, {notes} notes, {tempo:g} bpm, {piece.score.duration_s:.1f} s"
    say(
        args,
        f"{line}; read as {reading.quadrant} ({reading.valence:+.2f}/{reading.arousal:+.2f}); {evaluator.card_line}",
    )
    return {
        "command": command,
        "input": source,
        "output": out,
        "model": composer.name,
        "emotion": str(piece.emotion),
        "intensity": str(piece.intensity),
        "seed": piece.seed,
        "bars": bars,
        "notes": notes,
        "tempo": tempo,
        "duration_s": round(piece.score.duration_s, 3),
        "compute_s": round(spent, 3),
        "warnings": [],
        "classified": _reading(reading),
    }
