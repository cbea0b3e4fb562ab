"""Train and measure vocoders; `affgen audio copy` uses them."""

from __future__ import annotations

import argparse
from pathlib import Path

from affgen.cli import add_training_flags, device
from affgen.errors import AffgenError


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen vocoder``."""
    train = verbs.add_parser("train", help="train a vocoder on data directories with packed waves", allow_abbrev=False)
    add_training_flags(train, "data directory with packed waves; once for each", many=True)
    train.set_defaults(run=run_train)


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
