"""``affgen data align``: the phones of a data directory in time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from affgen.cli import emit_json, say
from affgen.errors import AffgenError, DataError

if TYPE_CHECKING:
    from affgen.align.segments import Segment
    from affgen.audio import Audio
    from affgen.datadir import DataDir

FAILED = 3
METHODS = ("ctc", "sphinx", "units")
LANGUAGES = ("en", "de", "pl")
OUTPUT = "phones.ctm"


def add_align(verbs: argparse._SubParsersAction) -> None:
    """Add ``affgen data align``."""
    parser = verbs.add_parser("align", help="find which phone is spoken when; writes CTM", allow_abbrev=False)
    add = parser.add_argument
    add("dir", metavar="DIR", help="data directory; with features where there are any, else from its sound")
    add("--method", choices=METHODS, default="ctc", help="sphinx: English only; units: no text needed (default: ctc)")
    add("--language", choices=LANGUAGES, default="en", help="of the text (default: en)")
    add("--singing", action="store_true", help="make the sound more like speech first: an octave lower, faster")
    add("--out", metavar="FILE.ctm", help=f"where to write (default: DIR/{OUTPUT})")
    add("--textgrids", metavar="FOLDER", help="also write a TextGrid of each utterance")
    add("--model", metavar="DIR", help="model directory (default: the shipped one)")
    add("--json", action="store_true", help="one JSON object on standard output")
    add("--quiet", action="store_true", help="no progress on standard error")
    parser.set_defaults(run=run_align)


def run_align(args: argparse.Namespace) -> int:
    """Align all utterances, write them and say how many; return 3 if some could not be aligned."""
    from affgen.align.formats import write_ctm, write_textgrid
    from affgen.datadir import DataDir
    from affgen.files import require_parent

    if args.singing and args.method == "units":
        raise AffgenError("--singing: accepted with --method ctc and sphinx")
    data = DataDir.read(args.dir)
    if args.method != "units" and "text" not in data.tables:
        raise DataError(f"{args.dir}: has no text; accepted without text: --method units")
    out = require_parent(args.out or Path(args.dir) / OUTPUT)
    if args.textgrids:
        Path(args.textgrids).mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Segment]] = {}
    failures: dict[str, str] = {}
    with _worker(args, data) as work:
        for name in data.utterances:
            try:
                found[name] = work(name)
            except AffgenError as error:
                failures[name] = str(error)
                say(args, f"failed {name}: {error}")
                continue
            if args.textgrids:
                write_textgrid(Path(args.textgrids) / f"{name.replace('/', '_')}.TextGrid", found[name])
    write_ctm(out, found)
    record = {"command": "data align", "input": args.dir, "output": str(out), "method": args.method}
    emit_json(args, {**record, "utterances": len(found), "failures": failures})
    if not args.json:
        print(f"{out}: {len(found)} utterances, {len(failures)} failed")
    return FAILED if failures else 0


@contextmanager
def _worker(args: argparse.Namespace, data: DataDir) -> Iterator[Callable[[str], list[Segment]]]:
    """Give what aligns an utterance by name."""
    from affgen.align.aligner import Aligner
    from affgen.align.singing import slowed, speechlike
    from affgen.align.sphinx import Sphinx
    from affgen.featuredir import FOLDER, INDEX, FeatureDir

    if args.method == "sphinx":
        with Sphinx() as sphinx:

            def by_sphinx(name: str) -> list[Segment]:
                audio, text = _sound(data, name), _text(data, name)
                return slowed(sphinx.align(speechlike(audio), text)) if args.singing else sphinx.align(audio, text)

            yield by_sphinx
        return
    aligner = Aligner.from_pretrained(args.model)
    packed = FeatureDir(data.path) if (data.path / FOLDER / INDEX).is_file() else None

    def by_network(name: str) -> list[Segment]:
        known = packed is not None and name in packed and not args.singing
        heard = packed.features(name) if packed is not None and known else _sound(data, name)
        if args.method == "units":
            return aligner.unit_segments(heard)
        return aligner.align(heard, _text(data, name), args.language, singing=args.singing)

    yield by_network


def _text(data: DataDir, name: str) -> str:
    text = data.tables["text"].get(name)
    if not text:
        raise DataError(f"{data.path / 'text'}: has no line for {name}")
    return text


def _sound(data: DataDir, name: str) -> Audio:
    """Return the sound of an utterance."""
    from affgen.audio import Audio, read_scp

    recording, start, end = data.sound(name)
    audio = read_scp(data.tables["wav.scp"][recording])
    first = round(start * audio.sample_rate)
    last = None if end is None else round(end * audio.sample_rate)
    return Audio(audio.samples[first:last], audio.sample_rate)
