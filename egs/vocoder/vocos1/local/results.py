"""Copy synthesis measured: `python local/results.py --data NAME=DIR ... --out FOLDER > RESULTS.md`.

DIR are data directories of speakers that no model was trained on, their features extracted with sound. The rows are
Griffin-Lim from the mel, WORLD from the wave, and what is named with `--model` and `--hifigan`. FOLDER receives
results.json and what the slow pitch tracker found, so that a second run needs a third of the time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.vocoder import evaluate as e


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", metavar="NAME=DIR", action="append", required=True, help="data directory; once for each corpus")
    add(
        "--model",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="vocoder to measure; DIR empty: the shipped one",
    )
    add("--hifigan", metavar="NAME=DIR", action="append", default=[], help="HiFi-GAN checkpoint to measure")
    add("--rows", default="griffin-lim,world", help="which of griffin-lim, griffin-lim-1984 (no momentum), world")
    add("--utterances", type=int, default=60, help="recordings in all, the corpora alike (default: 60)")
    add("--seed", type=int, default=0, help="which recordings (default: 0)")
    add("--out", metavar="FOLDER", required=True, help="where results.json and the cache go")
    return parser.parse_args()


def pairs(values: list[str]) -> dict[str, str]:
    """``NAME=DIR`` as a dictionary."""
    return {name: folder for name, _, folder in (value.partition("=") for value in values)}


def rows(args: argparse.Namespace) -> dict[str, e.Synthesizer]:
    """The vocoders that are asked for."""
    from affgen.vocoder.hifigan import HifiGan
    from affgen.vocoder.vocoder import Vocoder

    found: dict[str, e.Synthesizer] = {}
    for name, folder in pairs(args.model).items():
        vocoder = Vocoder.from_pretrained(folder or None)
        found[name] = lambda item, vocoder=vocoder: vocoder.synthesize(item.mel, item.f0)
    for name, folder in pairs(args.hifigan).items():
        hifigan = HifiGan.from_pretrained(folder)
        found[name] = lambda item, hifigan=hifigan: hifigan.synthesize(item.mel)
    known = {
        "griffin-lim": e.griffin_lim_copy,
        "griffin-lim-1984": lambda item: e.griffin_lim_copy(item, momentum=0.0),
        "world": e.world,
    }
    for name in filter(None, args.rows.split(",")):
        if name not in known:
            raise AffgenError(f"--rows {name}; accepted: {', '.join(known)}")
        found[name] = known[name]
    return found


def main() -> None:
    """Print the tables."""
    args = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    items = e.select(pairs(args.data), args.utterances, seed=args.seed)
    report = e.evaluate(rows(args), items, cache=out / "cache")
    atomic_write(out / "results.json", report.json())
    count = sum(report.items.values())
    print(f"## All: {count} recordings, {report.seconds:.0f} s\n\n{report.table()}")
    for corpus, number in report.items.items():
        print(f"## {corpus}: {number} recordings\n\n{report.table(corpus)}")
    for what, number in report.failures.items():
        print(f"Left out of the mean of {what}: {number}.")


if __name__ == "__main__":
    try:
        main()
    except AffgenError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
