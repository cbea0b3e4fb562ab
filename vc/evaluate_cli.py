"""The flags of ``affgen vc evaluate``; imports nothing heavy."""

from __future__ import annotations

import argparse
from itertools import pairwise

from affgen.cli import finite_float, positive_int, seed

EMOTIONS = ("angry", "happy", "sad", "fearful")
INTENSITIES = (0.0, 0.25, 0.5, 0.75, 1.0)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that :func:`vc.evaluate.run` reads."""
    add = parser.add_argument
    add("data", metavar="DIR", nargs="+", help="data directories of held-out speakers with features and sound")
    add("--out", required=True, metavar="metrics.json", help="where the figures go")
    add("--model", metavar="DIR", help="model directory (default: the shipped model)")
    add("--rows", type=names, metavar="LIST", help="such as source,gain,rule,model (default: all there are)")
    add("--utterances", type=positive_int, metavar="N", help="neutral clips of each speaker (default: all)")
    add("--emotions", type=names, default=EMOTIONS, metavar="LIST", help=f"(default: {','.join(EMOTIONS)})")
    add("--intensities", type=levels, default=INTENSITIES, metavar="LIST", help="from 0, with 1 (default: 0,.25,..,1)")
    add("--steps", type=positive_int, metavar="N", help="steps of the sampler (default: the model's own)")
    add("--seed", type=seed, default=0, metavar="N", help="seed of every conversion (default: 0)")
    add("--keep", metavar="FOLDER", help="keep the sounds and readings here; a later run goes on from them")
    add("--threads", type=positive_int, metavar="N", help="processor threads")
    add("--json", action="store_true", help="one JSON object on standard output in place of the tables")
    add("--quiet", action="store_true", help="no progress on standard error")


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, for ``type=``."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: different names separated by commas")
    return found


def levels(text: str) -> tuple[float, ...]:
    """Read rising intensities separated by commas, 0 first and 1 among them, for ``type=``."""
    found = tuple(finite_float(part) for part in text.split(","))
    rising = all(a < b for a, b in pairwise(found))
    if not rising or found[0] != 0 or 1 not in found or found[-1] > 1.5:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: rising numbers from 0 to at most 1.5, with 1")
    return found
