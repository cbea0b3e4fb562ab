"""Train and measure vocoders; `affgen audio copy` uses them."""

from __future__ import annotations

import argparse
from pathlib import Path

from affgen.cli import positive_int
from affgen.errors import AffgenError


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs of ``affgen vocoder``."""
    train = verbs.add_parser("train", help="train a vocoder on data directories with packed waves", allow_abbrev=False)
    add = train.add_argument
    add("--config", metavar="FILE", help="YAML with what differs from the defaults")
    add("--data", metavar="DIR", required=True, action="append", help="data directory with packed waves; once for each")
    add("--out", metavar="EXP", required=True, help="where states, logs and the model go")
    add("--resume", action="store_true", help="go on where it was stopped")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to train (default: auto)")
    add("--threads", type=positive_int, metavar="N", help="processor threads (default: what the machine has)")
    add("--quiet", action="store_true", help="no progress on standard error")
    add("overrides", nargs="*", metavar="SECTION.KEY=VALUE", help="changes of the configuration")
    train.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    """``affgen vocoder train``."""
    from affgen import config as configs
    from affgen.vocoder.config import VocoderConfig

    config = configs.load(VocoderConfig, args.config, args.overrides)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    import torch

    from affgen.vocoder.train import train

    if args.threads:
        torch.set_num_threads(args.threads)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=device)
    return 0
