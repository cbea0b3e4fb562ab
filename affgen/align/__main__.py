"""``python -m affgen.align``: train an aligner on data directories; recipes use it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from affgen import config as configs
from affgen.align.config import AlignerConfig
from affgen.align.lexicon import LANGUAGES
from affgen.errors import AffgenError


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and train; a user's error is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m affgen.align", description="Train an aligner.", allow_abbrev=False)
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML with what differs from the defaults")
    add("--data", metavar="LANGUAGE=DIR", required=True, action="append", help="data directory; once for each")
    add("--labels", metavar="FOLDER", help="label files (.lablaut), which give the phones of their utterances")
    add("--out", metavar="EXP", required=True, help="where states, logs and the model go")
    add("--resume", action="store_true", help="go on where it was stopped")
    add("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where to train (default: cpu)")
    add("--quiet", action="store_true", help="no progress on standard error")
    add("overrides", nargs="*", metavar="SECTION.KEY=VALUE", help="changes of the configuration")
    args = parser.parse_args(arguments)
    try:
        config = configs.load(AlignerConfig, args.config, args.overrides)
        data, labels = [_pair(value) for value in args.data], args.labels
        from affgen.align.train import train

        train(config, data, args.out, labels=labels, resume=args.resume, quiet=args.quiet, device=args.device)
    except AffgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _pair(value: str) -> tuple[str, str]:
    language, equals, folder = value.partition("=")
    if not equals or language not in LANGUAGES:
        raise AffgenError(f"--data {value}; accepted: LANGUAGE=DIR with {', '.join(LANGUAGES)}")
    return language, folder


if __name__ == "__main__":
    sys.exit(main())
