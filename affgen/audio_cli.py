"""Features of sound files, and sound made from features again by a vocoder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from affgen.cli import emit_json, positive_int, say, seed
from affgen.errors import AffgenError

if TYPE_CHECKING:
    import numpy as np

    from affgen.features import Features

Source = str | Path
"""A path, ``-``, or a command that ends in ``|`` (from a list only)."""

Work = Callable[["Features", Source], dict[str, Any]]
"""Writes what is made of features to a path or ``-``; returns what the JSON record says beyond the usual."""

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
WRITTEN = (".wav", ".flac")
VOCODERS = ("neural", "griffin-lim")


def register(verbs: argparse._SubParsersAction) -> None:
    """Add ``affgen audio features`` and ``copy``."""
    for name, flags, run, text in (
        ("features", _features_flags, run_features, "log-mel, F0 and energy of a sound, as an .npz file"),
        ("copy", _copy_flags, run_copy, "take a sound apart and put it together again by the vocoder"),
    ):
        parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        add = parser.add_argument
        add(
            "source",
            metavar="IN",
            help="WAV, FLAC, OGG or MP3 file, '-' for standard input, a folder, or a .scp list, whose commands are run",
        )
        flags(parser)
        add("--threads", type=positive_int, metavar="N", help="processor threads (default: what the machine has)")
        add("--plot", metavar="OUT.png", help="also draw mel and F0")
        add("--json", action="store_true", help="one JSON object on standard output, nothing else there")
        add("--quiet", action="store_true", help="no progress on standard error")
        add("--overwrite", action="store_true", help="make files again that are already there")
        parser.set_defaults(run=run)


def _features_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help=".npz file with mel (80, T), f0 (T,) and energy (T,), or a folder")


def run_features(args: argparse.Namespace) -> int:
    """``affgen audio features IN OUT.npz``."""

    def work(features: Features, out: Source) -> dict[str, Any]:
        _save_features(features, out)
        return {"frames": len(features.f0)}

    return _each(args, "audio features", (".npz",), lambda: work)


def _copy_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("out", metavar="OUT", help="WAV or FLAC file, '-' for standard output, or a folder")
    add("--vocoder", choices=VOCODERS, default="neural", help="what makes the wave (default: neural)")
    add("--model", metavar="DIR", help="model directory of the neural vocoder (default: the shipped model)")
    add("--seed", type=seed, default=0, metavar="N", help="same seed, same bytes (default: 0)")


def run_copy(args: argparse.Namespace) -> int:
    """``affgen audio copy IN OUT.wav``."""
    if args.vocoder != "neural" and args.model:
        raise AffgenError(f"--model has no effect with --vocoder {args.vocoder}; leave one of them out")
    if args.out == "-" and args.json:
        raise AffgenError("--json and WAV cannot both go to standard output; name a file")
    return _each(args, "audio copy", WRITTEN, lambda: _copier(args))


def _copier(args: argparse.Namespace) -> Work:
    """Load the vocoder; return what writes the wave it makes of features."""
    import numpy as np

    from affgen.audio import Audio, save_blocks
    from affgen.frames import SAMPLE_RATE

    synthesise = _synthesiser(args)
    model = (args.model or "shipped") if args.vocoder == "neural" else None

    def work(features: Features, out: Source) -> dict[str, Any]:
        if out == "-":
            sys.stdout.buffer.write(Audio(np.concatenate(list(synthesise(features))), SAMPLE_RATE).wav())
            sys.stdout.buffer.flush()
        else:
            save_blocks(out, synthesise(features), SAMPLE_RATE)
        return {"vocoder": args.vocoder, "model": model, "seed": args.seed}

    return work


def _synthesiser(args: argparse.Namespace) -> Callable[[Features], Iterable[np.ndarray]]:
    """Return what makes a wave, in pieces that are T * 256 samples in all, of features."""
    if args.vocoder == "griffin-lim":
        from affgen.vocoder.griffin_lim import griffin_lim

        return lambda features: [griffin_lim(features.mel, seed=args.seed)]
    from affgen.vocoder import Vocoder

    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    vocoder = Vocoder.from_pretrained(args.model)
    return lambda features: vocoder.stream(features.mel, features.f0, seed=args.seed)


# --- one sound or many ---------------------------------------------------------------------------------------------


def _each(args: argparse.Namespace, command: str, suffixes: tuple[str, ...], prepare: Callable[[], Work]) -> int:
    """Take apart one sound or every one of a folder or list and report; return the exit code.

    ``prepare`` is called once, after everything that can be refused without computing, and returns what writes each.
    """
    many = None if args.source == "-" else inputs(Path(args.source))
    check_outputs(args, suffixes, many is not None)
    use_threads(args.threads)
    work = prepare()
    records: list[dict[str, Any]] = []

    def one(source: Source, out: Source) -> None:
        records.append(_one(args, command, work, source, out))

    if many is None:
        one(args.source, args.out)
        emit_json(args, records[0])
        return 0
    from affgen import batch

    code = batch.run(cast(Mapping[str, Path], many), args.out, suffixes[0], one, overwrite=args.overwrite)
    emit_json(args, {"command": command, "input": args.source, "output": args.out, "files": records})
    return code


def _one(args: argparse.Namespace, command: str, work: Work, source: Source, out: Source) -> dict[str, Any]:
    """Read, extract, ``work`` and draw one sound; return its JSON record."""
    from affgen.audio import blocks, blocks_scp
    from affgen.features import extract_blocks
    from affgen.frames import HOP, SAMPLE_RATE

    start = time.perf_counter()
    command_or_path = str(source)
    samples = blocks_scp(command_or_path) if command_or_path.endswith("|") else blocks(source)
    with _named("standard input" if command_or_path == "-" else command_or_path):
        features = extract_blocks(samples)
    more = work(features, out)
    spent = time.perf_counter() - start
    duration = len(features.f0) * HOP / SAMPLE_RATE
    if args.plot:
        from affgen.audio_plot import draw

        draw(features, args.plot, title=Path(command_or_path).name)
    warnings = [] if (features.f0 > 0).any() else ["no voiced frame was found"]
    for warning in warnings:
        say(args, f"warning: {source}: {warning}")
    say(args, f"{out}: {duration:.2f} s in {spent:.2f} s")
    record = {"command": command, "input": command_or_path, "output": str(out), "sample_rate": SAMPLE_RATE}
    times = {"duration_s": round(duration, 3), "compute_s": round(spent, 3), "rtf": round(spent / duration, 5)}
    return {**record, **more, **times, "warnings": warnings}


def inputs(path: Path) -> dict[str, Source] | None:
    """Return {output name: path or command} of a folder or ``.scp`` list; None for a single sound."""
    if path.suffix != ".scp" or not path.is_file():
        from affgen import batch

        found = batch.sources(path, SOUNDS)
        return None if found is None else dict(found)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise AffgenError(f"{path}: is not UTF-8 text; accepted: lines of a name and a path or 'command |'") from None
    inputs: dict[str, Source] = {}
    for number, line in enumerate(lines, 1):
        key, _, value = line.replace("\t", " ").strip().partition(" ")
        name = key.replace("/", "_")
        if not key:
            continue
        if not value.strip():
            raise AffgenError(f"{path} line {number}: has no path; accepted: a name and a path or 'command |'")
        if name in inputs:
            raise AffgenError(f"{path} line {number}: {name!r} comes twice; its outputs would be one file")
        inputs[name] = value.strip()
    if not inputs:
        raise AffgenError(f"{path}: names no sound; accepted: lines of a name and a path or 'command |'")
    return inputs


def check_outputs(args: argparse.Namespace, suffixes: tuple[str, ...], many: bool) -> None:
    """Refuse what could not be written before anything is computed."""
    from affgen.files import require_parent

    if many:
        if args.plot:
            raise AffgenError("--plot names one file; leave it out when IN is a folder or a list")
        if args.out == "-":
            raise AffgenError("OUT -: a folder or a list gives many sounds, which need a folder; name one")
        return
    for path, accepted in ((args.out, suffixes), (args.plot, (".png",))):
        if path is None or (path == "-" and accepted == WRITTEN):
            continue
        if Path(path).suffix.lower() not in accepted:
            raise AffgenError(f"{path}: must end in {' or '.join(accepted)}")
        require_parent(path)


def use_threads(threads: int | None) -> None:
    """Set the threads of the feature extraction to ``--threads``."""
    if threads is None:
        return
    if threads > 1024:
        raise AffgenError(f"--threads {threads}; accepted: 1 to 1024")
    import numba

    numba.set_num_threads(min(threads, numba.get_num_threads()))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put ``name`` before errors that do not begin with it, such as those about samples."""
    try:
        yield
    except AffgenError as error:
        if str(error).startswith(name[:100]):
            raise
        raise AffgenError(f"{name}: {error}") from None


def _save_features(features: Features, path: Source) -> None:
    import numpy as np

    from affgen.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, mel=features.mel, f0=features.f0, energy=features.energy)
