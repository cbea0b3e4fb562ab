"""``affgen vc convert``: recordings given another emotion, one or many, from files or while they are spoken."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from affgen.audio_cli import WRITTEN, Source, check_outputs, inputs, use_threads
from affgen.cli import add_generation_flags, device, emit_json, finite_float, positive_int, say
from affgen.errors import AffgenError

if TYPE_CHECKING:
    import numpy as np

    from affgen.audio import Audio
    from affgen.emotion.spec import Curve, Emotion, Time
    from vc.convert import Conversion, VoiceConverter

SAMPLE_RATE = 22_050
"""That of :mod:`affgen.frames`, which needs numpy."""
REFERENCE_S = 600.0
"""Longest reference, and longest recording that is drawn."""
SILENT = 1e-4
"""Peak, -80 dB of full scale, below which a reference holds no voice."""
LIVE_S, FILE_S = 0.02, 1.0
"""Length of the blocks in which a stream is read from a pipe and from a file."""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    add = parser.add_argument
    add(
        "source",
        metavar="IN",
        help="WAV, FLAC, OGG or MP3 file, '-' for standard input, a folder, or a .scp list, whose commands are run",
    )
    add("out", metavar="OUT", help="WAV or FLAC file, '-' for standard output, or a folder")
    add_generation_flags(parser)
    add("--reference", metavar="REF.wav", help="take the emotion from this recording, in place of --emotion")
    add("--source-emotion", metavar="LABEL", default="neutral", help="the emotion of IN (default: neutral)")
    add("--steps", type=positive_int, metavar="N", help="steps of the sampler (default: the model's own)")
    add("--guidance", type=finite_float, metavar="G", help="weight of the emotion (default: the model's own)")
    add("--keep-duration", action="store_true", help="keep the timing of IN")
    add(
        "--stream",
        action="store_true",
        help="convert block by block with the timing of IN: WAV comes out while it still comes in",
    )
    parser.epilog = "Curves over time hold their first and last values outside their points."


def run_convert(args: argparse.Namespace) -> int:
    """``affgen vc convert IN OUT``: exit code 3 if some of many could not be converted."""
    many = None if args.source == "-" else inputs(Path(args.source))
    check_outputs(args, WRITTEN, many is not None)
    asked = _asked(args)

    @cache
    def load() -> VoiceConverter:
        return _load(args, asked)

    if many is None:
        record = (
            _live(args, asked, load)
            if args.stream and args.source == "-"
            else _one(args, asked, load, args.source, args.out)
        )
        emit_json(args, record)
        return 0
    from affgen import batch

    _check_folders(args)
    load()
    records: list[dict[str, Any]] = []

    def work(source: Source, out: Source) -> None:
        records.append(_one(args, asked, load, source, str(out)))

    code = batch.run(cast(Mapping[str, Path], many), args.out, WRITTEN[0], work, overwrite=args.overwrite)
    emit_json(args, {"command": "vc convert", "input": args.source, "output": args.out, "files": records})
    return code


# --- what is asked for, checked before any model is loaded ---------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What the flags ask for: ``options`` are the keywords that every way to convert has."""

    emotion: Emotion
    intensity: Curve
    options: dict[str, Any]
    shown: str
    warnings: tuple[str, ...]


def _asked(args: argparse.Namespace) -> Asked:
    """Read and check the flags; raises :class:`AffgenError` for what no model could do."""
    from affgen.emotion.labels import LABELS, QUADRANTS, resolve
    from affgen.emotion.spec import parse_emotion, parse_intensity

    emotion, intensity = parse_emotion(args.emotion or "neutral"), parse_intensity(args.intensity)
    source_emotion = resolve(args.source_emotion)
    if source_emotion in QUADRANTS:
        raise AffgenError(f"--source-emotion {args.source_emotion}; accepted: {', '.join(LABELS)}")
    if args.reference and args.emotion:
        raise AffgenError("--reference and --emotion both say which emotion; accepted is one of them")
    if args.stream and args.plot:
        raise AffgenError("--plot needs the whole sound; leave out --stream or --plot")
    if args.out == "-" and args.json:
        raise AffgenError("--json and WAV cannot both go to standard output; name a file")
    if args.stream:
        _check_times(emotion, intensity, None)
    warnings = []
    if not args.reference and not args.emotion and source_emotion == "neutral":
        warnings.append("no --emotion and no --reference was given: neutral stays neutral")
    options = {"source_emotion": source_emotion, "steps": args.steps, "guidance": args.guidance, "seed": args.seed}
    options["reference"] = _reference(args)
    shown = f"reference:{args.reference}" if args.reference else str(emotion)
    return Asked(emotion, intensity, options, shown, tuple(warnings))


def _reference(args: argparse.Namespace) -> Audio | None:
    """Read the reference; refuse one that cannot hold a voice."""
    if args.reference is None:
        return None
    if args.reference == "-":
        raise AffgenError("--reference -: cannot come from standard input; name a file")
    from affgen.audio import read
    from affgen.frames import SHORTEST

    audio = read(args.reference, max_seconds=REFERENCE_S)
    shortest = SHORTEST * audio.sample_rate / SAMPLE_RATE
    if len(audio.samples) < shortest or abs(audio.samples).max() < SILENT:
        what = "too short" if len(audio.samples) < shortest else "silent"
        raise AffgenError(f"{args.reference}: is {what}; a reference needs a voice, from which its emotion is taken")
    return audio


def _check_times(emotion: Emotion, intensity: Curve, seconds: float | None) -> list[str]:
    """Refuse times that a sound of ``seconds`` (None: nobody knows) cannot have; warn of those it does not reach."""
    from affgen.emotion.spec import Clock

    clock = None if seconds is None else Clock(seconds)
    emotion.valence_arousal([0.0], "s", clock)
    intensity.sample([0.0], "s", clock)
    if seconds is None:
        return []
    feelings = [("+".join(map(str, point.terms)), point.time) for point in emotion.points]
    levels = [(f"{value:g}", moment) for value, moment in intensity.points]
    return [*_beyond("emotion", feelings, seconds), *_beyond("intensity", levels, seconds)]


def _beyond(what: str, points: list[tuple[str, Time | None]], seconds: float) -> Iterator[str]:
    """Yield a warning if ``points`` (value, time) of a curve lie behind the end of the sound."""
    moments = [0.0 if time is None or time.unit == "%" else time.value for _, time in points]
    if len(points) > 1 and moments[0] >= seconds:
        yield (
            f"the curve of the {what} begins at {moments[0]:g} s, the sound ends at {seconds:.2f} s: "
            f"its first value, {points[0][0]}, holds throughout"
        )
    elif len(points) > 1 and max(moments) > seconds:
        yield (
            f"the curve of the {what} goes on to {max(moments):g} s, the sound ends at {seconds:.2f} s: "
            "the rest of the curve is not heard"
        )


def _check_folders(args: argparse.Namespace) -> None:
    """Refuse an output folder whose files would replace the input, or be taken for input the next time."""
    if args.out == "-":
        raise AffgenError(f"{args.source}: holds several recordings, which need a folder; name one in place of -")
    source, out = Path(args.source).resolve(), Path(args.out).resolve()
    if source.is_dir() and (out == source or source in out.parents):
        raise AffgenError(f"{args.out}: is in the folder {args.source} that is converted; name a folder elsewhere")


def _refuse_own(args: argparse.Namespace, path: Path | None, out: str) -> None:
    """Refuse an output that is a file which is read."""
    for kind, other in (("the input", path), ("the reference", args.reference)):
        if other and out != "-" and os.path.exists(out) and os.path.exists(other) and os.path.samefile(out, other):
            raise AffgenError(f"{out}: is {kind} itself; name another output")


def _load(args: argparse.Namespace, asked: Asked) -> VoiceConverter:
    """Load the model and refuse what it cannot do: labels that it lacks, steps and guidance out of its range."""
    use_threads(args.threads)
    device(args)
    from vc.convert import VoiceConverter

    converter = VoiceConverter.from_pretrained(args.model)
    converter.request(asked.emotion, asked.intensity, **asked.options | {"reference": None})
    return converter


# --- one recording -------------------------------------------------------------------------------------------------


def _one(
    args: argparse.Namespace, asked: Asked, load: Callable[[], VoiceConverter], source: Source, out: str
) -> dict[str, Any]:
    """Convert one recording; return its JSON record."""
    from affgen.audio import blocks

    name = "standard input" if str(source) == "-" else str(source)
    with _on_disk(source) as path:
        with _named(path, name):
            _refuse_own(args, path, out)
            warnings = [*asked.warnings, *_inspected(args, asked, path)]
        converter = load()
        start, made = time.perf_counter(), None
        with _named(path, name):
            if args.stream:
                seconds = _streamed(converter, asked, blocks(path, seconds=FILE_S), SAMPLE_RATE, out)
            else:
                with _delivered(out) as target:
                    seconds, more, made = _converted(args, asked, converter, path, target)
                warnings += more
        spent = time.perf_counter() - start
        if args.plot and made:
            from vc.picture import plot

            title = f"{asked.shown}  intensity {asked.intensity}  seed {args.seed}"
            plot(made.source, made.features, made.intensity, args.plot, title=title)
    return _record(args, asked, converter, (str(source), out), (seconds, spent), warnings)


def _live(args: argparse.Namespace, asked: Asked, load: Callable[[], VoiceConverter]) -> dict[str, Any]:
    """Convert standard input while it comes; return the JSON record."""
    from affgen.wav_stream import open_wav

    _refuse_own(args, None, args.out)
    sound = open_wav(sys.stdin.buffer, "standard input")
    converter = load()
    start = time.perf_counter()
    seconds = _streamed(converter, asked, sound.blocks(LIVE_S), sound.sample_rate, args.out)
    times = (seconds, time.perf_counter() - start)
    return _record(args, asked, converter, ("-", args.out), times, [*asked.warnings, *_mixed_down(sound.channels)])


def _inspected(args: argparse.Namespace, asked: Asked, path: Path) -> list[str]:
    """Decode a recording once, so that what is damaged is refused before the model is loaded; return warnings."""
    from affgen.audio_read import checked, mono_pieces, opened
    from affgen.frames import SHORTEST

    with opened(path) as (file, name), checked(file, name) as sound:
        seconds = sum(map(len, mono_pieces(sound, name))) / sound.samplerate
        channels = sound.channels
    if seconds * SAMPLE_RATE < SHORTEST:
        raise AffgenError(f"{name}: lasts {seconds:.4f} s; accepted: {SHORTEST / SAMPLE_RATE:.4f} s or more")
    if args.plot and seconds > REFERENCE_S:
        raise AffgenError(f"{name}: lasts {seconds:.0f} s; accepted with --plot: up to {REFERENCE_S:g} s")
    return [*_mixed_down(channels), *_check_times(asked.emotion, asked.intensity, seconds)]


def _mixed_down(channels: int) -> list[str]:
    return [f"{channels} channels were mixed down to one"] if channels > 1 else []


def _converted(
    args: argparse.Namespace, asked: Asked, converter: VoiceConverter, path: Path, target: Path
) -> tuple[float, list[str], Conversion | None]:
    """Write the conversion of ``path`` to ``target``; return its seconds, warnings and, to be drawn, the whole."""
    options = {**asked.options, "keep_duration": args.keep_duration}
    if not args.plot:
        report = converter.convert_file(path, target, asked.emotion, asked.intensity, **options)
        return report.seconds, report.warnings, None
    made = converter.run(path, asked.emotion, asked.intensity, **options)
    made.audio.save(target)
    return made.audio.duration_s, made.warnings, made


def _streamed(
    converter: VoiceConverter, asked: Asked, blocks: Iterator[np.ndarray], sample_rate: int, out: str
) -> float:
    """Write what is made of ``blocks`` (L,) as it is made, or to a file at once; return its seconds."""
    made = converter.stream(blocks, sample_rate, asked.emotion, asked.intensity, **asked.options)
    if out == "-":
        from affgen.wav_stream import write_wav

        return write_wav(sys.stdout.buffer, made, SAMPLE_RATE, "standard output") / SAMPLE_RATE
    from affgen.audio import save_blocks

    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for block in made:
            count += len(block)
            yield block

    save_blocks(out, counted(), SAMPLE_RATE)
    return count / SAMPLE_RATE


def _record(
    args: argparse.Namespace,
    asked: Asked,
    converter: VoiceConverter,
    names: tuple[str, str],
    times: tuple[float, float],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Tell people what was done, and return the JSON record; ``names`` of input and output, seconds made and spent."""
    warnings, (seconds, spent) = list(dict.fromkeys(warnings)), times
    for warning in warnings:
        say(args, f"warning: {names[0]}: {warning}")
    say(args, f"{names[1]}: {seconds:.2f} s in {spent:.2f} s")
    return {
        "command": "vc convert",
        "input": names[0],
        "output": names[1],
        "model": args.model or "shipped",
        "emotion": asked.shown,
        "intensity": str(asked.intensity),
        "seed": args.seed,
        "sample_rate": SAMPLE_RATE,
        "duration_s": round(seconds, 3),
        "compute_s": round(spent, 3),
        "rtf": round(spent / seconds, 5),
        "steps": args.steps or converter.steps,
        "warnings": warnings,
    }


# --- pipes as files ------------------------------------------------------------------------------------------------


@contextmanager
def _on_disk(source: Source) -> Iterator[Path]:
    """Yield the path of ``source``; what comes from a pipe or a command is kept in a temporary file meanwhile."""
    from affgen.audio_pipe import piped
    from affgen.audio_read import opened

    text = str(source)
    if text != "-" and not text.endswith("|"):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder, opened("-") if text == "-" else piped(text) as (stream, _):
        path = Path(folder, "sound")
        stream.seek(0)
        with open(path, "wb") as file:
            shutil.copyfileobj(stream, file)
        yield path


@contextmanager
def _delivered(out: str) -> Iterator[Path]:
    """Yield the path to write to: ``out``, or a temporary file that goes to standard output when it is done."""
    if out != "-":
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sound.wav")
        yield path
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Let errors begin with ``name``, which stands for ``path`` to the user."""
    try:
        yield
    except AffgenError as error:
        text = str(error).replace(str(path), name) if name != str(path) else str(error)
        raise AffgenError(text if text.startswith(name[:100]) else f"{name}: {text}") from error
