"""Compare, train and measure: whose voice it is, spoken or sung."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from affgen.cli import add_training_flags, device, emit_json, positive_int
from affgen.errors import AffgenError


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen speaker``."""
    compare = verbs.add_parser("compare", help="how alike the voices of two sound files are", allow_abbrev=False)
    compare.add_argument("first", metavar="FIRST", help="WAV, FLAC, OGG or MP3")
    compare.add_argument("second", metavar="SECOND", help="WAV, FLAC, OGG or MP3")
    compare.add_argument("--model", metavar="DIR", help="model directory (default: the shipped model)")
    compare.add_argument("--json", action="store_true", help="one JSON object on standard output")
    compare.set_defaults(run=run_compare)
    train = verbs.add_parser("train", help="train a speaker encoder on directories with features", allow_abbrev=False)
    add_training_flags(train, "data directory with features; once for each", many=True)
    train.set_defaults(run=run_train)
    evaluate = verbs.add_parser("evaluate", help="equal error rates over held-out speakers", allow_abbrev=False)
    evaluate.add_argument("data", metavar="DIR", nargs="+", help="data directories of held-out speakers with features")
    evaluate.add_argument("--out", metavar="metrics.json", required=True, help="where the figures go")
    evaluate.add_argument("--model", metavar="DIR", help="model directory (default: the shipped model)")
    evaluate.add_argument("--baseline", action="store_true", help="cepstral statistics in place of a model")
    evaluate.add_argument("--threads", type=positive_int, metavar="N", help="processor threads")
    evaluate.add_argument("--json", action="store_true", help="also print the figures as one JSON object")
    evaluate.set_defaults(run=run_evaluate)


def run_compare(args: argparse.Namespace) -> None:
    """``affgen speaker compare FIRST SECOND``."""
    from affgen.audio import read
    from affgen.speaker.embed import SpeakerEncoder, similarity

    sounds = []
    for path in (args.first, args.second):
        sounds.append((path, read(path)))
    encoder = SpeakerEncoder.from_pretrained(args.model)
    vectors = []
    for path, audio in sounds:
        try:
            vectors.append(encoder.embed(audio))
        except AffgenError as error:
            raise AffgenError(f"{path}: {error}") from error
    cosine = similarity(*vectors)
    if not args.json:
        print(f"{cosine:.3f}")
    emit_json(args, {"command": "speaker compare", "input": [args.first, args.second], "similarity": cosine})


def run_train(args: argparse.Namespace) -> None:
    """``affgen speaker train``."""
    from affgen import config as configs
    from affgen.speaker.config import SpeakerConfig

    config = configs.load(SpeakerConfig, args.config, args.overrides)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    place = device(args)
    from affgen.speaker.train import train

    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=place)


def run_evaluate(args: argparse.Namespace) -> None:
    """``affgen speaker evaluate DIR ... --out metrics.json``."""
    from affgen.files import atomic_write, require_parent

    require_parent(args.out)
    if args.baseline and args.model:
        raise AffgenError("--baseline and --model: accepted is one of them")
    import torch

    from affgen.speaker.evaluate import evaluate

    if args.threads:
        torch.set_num_threads(args.threads)
    record = evaluate(args.data, args.model, baseline=args.baseline)
    atomic_write(args.out, json.dumps(record, indent=2, allow_nan=False) + "\n")
    if not args.json:
        print(f"equal error rate {record['pooled']['eer']:.2%} of {record['speakers']} speakers; more in {args.out}")
    emit_json(args, {"command": "speaker evaluate", "output": args.out, **record})
