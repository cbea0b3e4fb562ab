"""Prepare, check and repair Kaldi data directories, extract their features, align their phones."""

from __future__ import annotations

import argparse
import os

from affgen.align_cli import add_align
from affgen.batch import FAILED
from affgen.cli import emit_json, positive_int, say
from affgen.errors import DataError
from affgen.parallel import ENGINES

SHOWN = 20


def register(verbs: argparse._SubParsersAction) -> None:
    """Add ``affgen data prepare``, ``validate``, ``fix`` and ``features``."""
    prepare = verbs.add_parser("prepare", help="make data directories of a published corpus")
    prepare.add_argument(
        "corpus", metavar="CORPUS", help="ravdess, nemo, ljspeech, emopia, ...; an unknown name lists all"
    )
    prepare.add_argument("source", metavar="SRC", help="the folder of the corpus")
    prepare.add_argument("out", metavar="DIR", help="where to write; one data directory per part")
    prepare.set_defaults(run=run_prepare)
    validate = verbs.add_parser("validate", help="check a data directory: counts, and what is wrong")
    validate.add_argument("dir", metavar="DIR")
    validate.add_argument("--json", action="store_true", help="one JSON object on standard output")
    validate.set_defaults(run=run_validate)
    fix = verbs.add_parser("fix", help="sort, and drop utterances that some table lacks or gets wrong")
    fix.add_argument("dir", metavar="DIR")
    fix.set_defaults(run=run_fix)
    for verb in (validate, fix):
        verb.add_argument(
            "--no-audio", action="store_true", help="look at the tables only: open no file, run no command"
        )
    _features_flags(verbs.add_parser("features", help="extract mel, F0 and energy of all utterances into DIR/features"))
    add_align(verbs)


def _features_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--engine", choices=ENGINES, default="process", help="where to compute (default: process)")
    parser.add_argument("--jobs", type=positive_int, metavar="N", help="workers (default: one per processor)")
    parser.add_argument("--waves", action="store_true", help="also keep the sound itself, to train vocoders")
    parser.add_argument("--overwrite", action="store_true", help="make shards again that are already there")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.set_defaults(run=run_features)


def run_prepare(args: argparse.Namespace) -> None:
    """Write the data directories of a corpus and say how many utterances each has."""
    from affgen.corpora import prepare

    for part, count in prepare(args.corpus, args.source, args.out).items():
        print(f"{args.out}/{part}: {count} utterances")


def run_validate(args: argparse.Namespace) -> None:
    """Print the counts and the first problems of a data directory; raise :class:`DataError` if there are any."""
    from affgen.datadir import validate

    report = validate(args.dir, audio=not args.no_audio)
    if args.json:
        emit_json(args, {"command": "data validate", "counts": report.counts, "problems": report.problems})
    else:
        print(", ".join(f"{name} {count}" for name, count in report.counts.items()))
        for problem in report.problems[:SHOWN]:
            print(problem)
    if report.problems:
        count = len(report.problems)
        raise DataError(f"{args.dir}: {count} problem{'s' * (count > 1)}; run 'affgen data fix {args.dir}'")


def run_fix(args: argparse.Namespace) -> None:
    """Repair a data directory in place and say what was dropped."""
    from affgen.datadir import fix

    fixed = fix(args.dir, audio=not args.no_audio)
    for utterance, reason in list(fixed.dropped.items())[:SHOWN]:
        print(f"dropped {utterance}: {reason}")
    print(f"{args.dir}: kept {fixed.kept}, dropped {len(fixed.dropped)}; the tables as they were are in .backup")


def run_features(args: argparse.Namespace) -> int:
    """Extract the features of a data directory; return 3 if some utterance could not be used."""
    from affgen.extraction import extract_features

    jobs = args.jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    done = extract_features(
        args.dir,
        engine=args.engine,
        jobs=jobs,
        waves=args.waves,
        overwrite=args.overwrite,
        say=lambda line: say(args, line),
    )
    for utterance, reason in list(done.failures.items())[:SHOWN]:
        say(args, f"failed {utterance}: {reason}")
    if args.json:
        emit_json(args, {"command": "data features", "input": args.dir, **done.record()})
    else:
        hours = done.seconds / 3600
        print(f"{args.dir}: {done.utterances} utterances, {hours:.2f} h, {len(done.failures)} failed")
    return FAILED if done.failures else 0
