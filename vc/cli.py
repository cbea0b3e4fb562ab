"""Give voices another emotion, and read theirs; train and evaluate models of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affgen.cli import add_training_flags, device, emit_json, positive_int, say
from affgen.errors import AffgenError
from vc import convert_cli, evaluate_cli

if TYPE_CHECKING:
    from affgen.emotion.encoder import Encoder

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
SHOWN = 0.1
"""Probability from which a label besides the likeliest one is printed."""


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen vc``."""
    for name, flags, run, text in (
        ("convert", convert_cli.flags, convert_cli.run_convert, "give a recording another emotion, as strong as asked"),
        ("classify", _classify_flags, run_classify, "read label, valence and arousal from voices"),
        ("train", _train_flags, run_train, "train a converter on data directories with features"),
        (
            "evaluate",
            evaluate_cli.add_flags,
            run_evaluate,
            "measure a converter on data directories of held-out speakers",
        ),
    ):
        parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        flags(parser)
        parser.set_defaults(run=run)


# --- classify ------------------------------------------------------------------------------------------------------


def _classify_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="WAV, FLAC, OGG or MP3 files, folders of them, .scp lists, or '-'")
    add("--model", metavar="DIR", help="model directory of an emotion encoder (default: the shipped one)")
    add("--threads", type=positive_int, metavar="N", help="processor threads (default: what the machine has)")
    add("--json", action="store_true", help="one JSON object on standard output, nothing else there")
    add("--quiet", action="store_true", help="no remarks on standard error")


def run_classify(args: argparse.Namespace) -> int:
    """``affgen vc classify FILE...``: exit 3 if some of several files could not be used, 2 if the only one."""
    from affgen import batch

    files: list[str | Path] = []
    many = len(args.files) > 1
    for name in args.files:
        found = None if name == "-" else batch.sources(name, SOUNDS)
        many = many or found is not None
        files += [name] if found is None else list(found.values())
    encoder = _encoder(args)
    results, failures = [], []
    for name in files:
        try:
            results.append(_classify(encoder, name, args))
        except AffgenError as error:
            if not many:
                raise
            failures.append({"input": str(name), "error": str(error)})
            print("".join(c if c.isprintable() else repr(c)[1:-1] for c in f"error: {error}"), file=sys.stderr)
    say(args, encoder.card_line)
    record: dict[str, Any] = {"command": "vc classify", "input": [str(name) for name in files]}
    record |= {"model": args.model or encoder.backend, "results": results, "failures": failures}
    if len(results) == 1:
        record["classified"] = {key: results[0][key] for key in ("label", "valence", "arousal")}
    emit_json(args, record | {"evaluator": encoder.card_line, "warnings": []})
    return batch.FAILED if failures else 0


def _encoder(args: argparse.Namespace) -> Encoder:
    import torch

    from affgen.emotion.encoder import load_encoder

    if args.threads:
        if args.threads > 1024:
            raise AffgenError(f"--threads {args.threads}; accepted: 1 to 1024")
        torch.set_num_threads(args.threads)
    return load_encoder(args.model)


def _classify(encoder: Encoder, name: str | Path, args: argparse.Namespace) -> dict[str, Any]:
    """Read one file, print a line about it unless ``--json``, and return its record."""
    from affgen.audio import read

    sound = read(name)
    try:
        heard = encoder.encode(sound)
    except AffgenError as error:
        raise AffgenError(f"{name}: {error}") from error
    if not args.json:
        others = sorted(((p, label) for label, p in heard.posterior.items() if label != heard.label), reverse=True)
        rest = ", ".join(f"{label} {p:.2f}" for p, label in others if p >= SHOWN)
        line = f"{name}  {heard.label} {heard.posterior[heard.label]:.2f}"
        line += f"  valence {heard.valence:+.2f}  arousal {heard.arousal:+.2f}"
        print(line + (f"  ({rest})" if rest else ""))
    return {
        "input": str(name),
        "label": heard.label,
        "valence": heard.valence,
        "arousal": heard.arousal,
        "probabilities": heard.posterior,
        "duration_s": round(sound.duration_s, 3),
    }


# --- train and evaluate --------------------------------------------------------------------------------------------


def _train_flags(parser: argparse.ArgumentParser) -> None:
    add_training_flags(parser, "data directory with features; once for each", many=True)


def run_train(args: argparse.Namespace) -> int:
    """``affgen vc train``."""
    from affgen import config as configs
    from vc.config import VcConfig
    from vc.emoreg.config import EmoRegConfig

    systems = {"converter": VcConfig, "emoreg": EmoRegConfig}
    config = configs.load_one(systems, "system", args.config, args.overrides)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    place = device(args)
    if isinstance(config, EmoRegConfig):
        from vc.emoreg.train import train as train_emoreg

        train_emoreg(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=place)
        return 0
    from vc.train import train

    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=place)
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """``affgen vc evaluate DIR ... --out metrics.json``."""
    from affgen.files import require_parent

    require_parent(args.out)
    from vc import evaluate

    return int(evaluate.run(args) or 0)
