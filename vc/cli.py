"""Read the emotion of voices."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affgen.cli import emit_json, positive_int, say
from affgen.errors import AffgenError

if TYPE_CHECKING:
    from affgen.emotion.encoder import Encoder

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
SHOWN = 0.1
"""Probability from which a label besides the likeliest one is printed."""


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen vc``."""
    text = "read label, valence and arousal from voices"
    parser = verbs.add_parser("classify", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="WAV, FLAC, OGG or MP3 files, folders of them, .scp lists, or '-'")
    add("--model", metavar="DIR", help="model directory of an emotion encoder (default: the shipped one)")
    add("--threads", type=positive_int, metavar="N", help="processor threads (default: what the machine has)")
    add("--json", action="store_true", help="one JSON object on standard output, nothing else there")
    add("--quiet", action="store_true", help="no remarks on standard error")
    parser.set_defaults(run=run_classify)


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
