"""``python -m affgen.align``: train an aligner on data directories; recipes use it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from affgen import config as configs
from affgen.align.config import AlignerConfig
from affgen.align.lexicon import LANGUAGES
from affgen.cli import Parser, add_training_flags, device, guard
from affgen.errors import AffgenError


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = Parser(prog="python -m affgen.align", description="Train an aligner.")
    add_training_flags(parser, "LANGUAGE=DIR, a data directory with features; once or more", many=True)
    parser.add_argument("--labels", metavar="FOLDER", help="label files (.lablaut): the phones of their utterances")
    args = parser.parse_args(arguments)
    config = configs.load(AlignerConfig, args.config, args.overrides)
    data = [_pair(value) for value in args.data]
    place = device(args)
    from affgen.align.train import train

    train(config, data, args.out, labels=args.labels, resume=args.resume, quiet=args.quiet, device=place)


def _pair(value: str) -> tuple[str, str]:
    language, equals, folder = value.partition("=")
    if not equals or language not in LANGUAGES:
        raise AffgenError(f"--data {value}; accepted: LANGUAGE=DIR with {', '.join(LANGUAGES)}")
    return language, folder


if __name__ == "__main__":
    sys.exit(guard(main))
