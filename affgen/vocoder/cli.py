"""Train and measure vocoders; `affgen audio copy` uses them."""

from __future__ import annotations

import argparse
from pathlib import Path

from affgen.cli import add_training_flags, device, positive_int
from affgen.errors import AffgenError


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen vocoder``."""
    train = verbs.add_parser("train", help="train a vocoder on data directories with packed waves", allow_abbrev=False)
    add_training_flags(train, "data directory with packed waves; once for each", many=True)
    train.set_defaults(run=run_train)
    evaluate = verbs.add_parser("evaluate", help="copy synthesis of held-out recordings, measured", allow_abbrev=False)
    evaluate.add_argument("data", metavar="DIR", nargs="+", help="data directories with packed waves")
    evaluate.add_argument("--out", required=True, metavar="metrics.json", help="where the figures go")
    evaluate.add_argument("--model", metavar="DIR", help="model directory (default: the shipped model)")
    evaluate.add_argument("--baselines", action="store_true", help="also Griffin-Lim and WORLD")
    evaluate.add_argument("--utterances", type=positive_int, default=60, metavar="N", help="in all (default: 60)")
    evaluate.set_defaults(run=run_evaluate)


def run_train(args: argparse.Namespace) -> int:
    """``affgen vocoder train``."""
    from affgen import config as configs
    from affgen.vocoder.config import VocoderConfig

    config = configs.load(VocoderConfig, args.config, args.overrides)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    place = device(args)
    from affgen.vocoder.train import train

    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=place)
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """``affgen vocoder evaluate DIR ... --out metrics.json``; needs the extra ``eval``."""
    from affgen.files import atomic_write, require_parent
    from affgen.vocoder import Vocoder
    from affgen.vocoder import evaluate as measure

    require_parent(args.out)
    vocoder = Vocoder.from_pretrained(args.model)
    items = measure.select({folder: folder for folder in args.data}, args.utterances)
    rows: dict[str, measure.Synthesizer] = {"neural": lambda item: vocoder.synthesize(item.mel, item.f0)}
    if args.baselines:
        rows |= {"griffin-lim": measure.griffin_lim_copy, "world": measure.world}
    report = measure.evaluate(rows, items)
    atomic_write(args.out, report.json())
    print(report.table())
    return 0
