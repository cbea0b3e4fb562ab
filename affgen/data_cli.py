"""Prepare, check and repair Kaldi data directories."""

from __future__ import annotations

import argparse

from affgen.cli import emit_json
from affgen.errors import DataError

SHOWN = 20


def register(verbs: argparse._SubParsersAction) -> None:
    """Add ``affgen data prepare``, ``validate`` and ``fix``."""
    prepare = verbs.add_parser("prepare", help="make data directories of a published corpus")
    prepare.add_argument("corpus", metavar="CORPUS", help="emopia or vgmidi")
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


def run_prepare(args: argparse.Namespace) -> None:
    """Write the data directories of a corpus and say how many utterances each has."""
    from affgen.corpora import prepare

    for part, count in prepare(args.corpus, args.source, args.out).items():
        print(f"{args.out}/{part}: {count} utterances")


def run_validate(args: argparse.Namespace) -> None:
    """Print the counts and the first problems of a data directory; raise :class:`DataError` if there are any."""
    from affgen.datadir import validate

    report = validate(args.dir)
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

    fixed = fix(args.dir)
    for utterance, reason in list(fixed.dropped.items())[:SHOWN]:
        print(f"dropped {utterance}: {reason}")
    print(f"{args.dir}: kept {fixed.kept}, dropped {len(fixed.dropped)}; the tables as they were are in .backup")
