"""What the readers of corpora share: utterances and their tables, text files, lists of files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from affgen.datadir import Table, speakers
from affgen.errors import DataError

Parts = Iterator[tuple[str, dict[str, Table]]]
Reader = Callable[[Path], Parts]


@dataclass(frozen=True)
class Utterance:
    """One recording of a voice and what its corpus says about it; None where the corpus says nothing.

    ``speaker`` is unique over all corpora (``nemo-EB0``) and ``name`` begins with it, so that Kaldi's sorting holds.
    ``source`` is a path or a command that ends in ``|``; ``intensity`` is 0 for neutral and 1 for the strongest level
    that the corpus labels; ``duration`` is in seconds; ``label`` is a line of ``START END PHONE`` in seconds and
    ``score`` the file that holds the notes.
    """

    part: str
    name: str
    speaker: str
    source: str
    emotion: str | None = None
    intensity: float | None = None
    text: str | None = None
    duration: float | None = None
    label: str | None = None
    score: str | None = None


def tabulate(utterances: Iterable[Utterance], source: Path, accepted: str) -> Parts:
    """Yield (part, tables) of ``utterances``: first ``train``, then the others in order of name.

    ``utt2emo``, ``text`` and ``utt2dur`` are written where every utterance of the part has them, the others where any
    has. Raises :class:`DataError` with ``accepted`` if there is no utterance in ``source``, for a file that does not
    exist, and for two utterances of one name.
    """
    parts: dict[str, dict[str, Utterance]] = {}
    for utterance in utterances:
        part = parts.setdefault(utterance.part, {})
        other = part.setdefault(utterance.name, utterance)
        if other is not utterance:
            raise DataError(f"{utterance.source}: gives the same utterance id as {other.source}; remove one")
    if not parts:
        raise DataError(f"{source}: {accepted}")
    everything = [utterance for part in parts.values() for utterance in part.values()]
    require_files(Path(utterance.source) for utterance in everything if not utterance.source.endswith("|"))
    for name in sorted(parts, key=lambda part: (part != "train", part)):
        yield name, _tables(parts[name])


def _tables(utterances: dict[str, Utterance]) -> dict[str, Table]:
    utt2spk = {key: utterance.speaker for key, utterance in utterances.items()}
    tables = {"wav.scp": {key: u.source for key, u in utterances.items()}}
    tables |= {"utt2spk": utt2spk, "spk2utt": speakers(utt2spk)}
    whole = {
        "utt2emo": {key: u.emotion for key, u in utterances.items() if u.emotion},
        "text": {key: " ".join(u.text.split()) for key, u in utterances.items() if u.text and u.text.strip()},
        "utt2dur": {key: f"{u.duration:.3f}" for key, u in utterances.items() if u.duration is not None},
    }
    tables |= {name: table for name, table in whole.items() if len(table) == len(utterances)}
    partial = {
        "utt2intensity": {key: f"{u.intensity:.4g}" for key, u in utterances.items() if u.intensity is not None},
        "score.scp": {key: u.score for key, u in utterances.items() if u.score},
        "label": {key: u.label for key, u in utterances.items() if u.label},
    }
    return tables | {name: table for name, table in partial.items() if table}


def listed(source: Path, columns: Iterable[str]) -> list[tuple[Path, dict[str, str]]]:
    """Return (file, row) for each row of ``source/table.tsv``, which has ``file`` and ``columns``.

    Raises :class:`DataError` for a table that lacks one and for a file outside ``source``.
    """
    table = source / "table.tsv"
    return [(inside(source, row["file"], table), row) for row in rows(table, "\t", ("file", *columns))]


def inside(source: Path, name: str, where: Path) -> Path:
    """Return ``source / name``; raise :class:`DataError`, naming the table ``where``, if that lies outside."""
    path = source / name
    if ".." in path.parts or not path.is_relative_to(source):
        raise DataError(f"{where}: {name}: lies outside {source}")
    return path


def rows(path: Path, delimiter: str, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of a table with a head line; every row has ``columns``. Only commas come with quoting."""
    lines = text(path).splitlines()
    if delimiter == ",":
        found = list(csv.DictReader(lines))
    else:
        found = list(csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    lacking = [name for name in columns if not found or any(row.get(name) is None for row in found)]
    if lacking:
        raise DataError(f"{path}: has no column {lacking[0]!r} throughout; accepted: {', '.join(columns)}")
    return found


def text(path: Path, encodings: tuple[str, ...] = ("utf-8-sig",)) -> str:
    """Return the text of a file in the first of ``encodings`` that fits; raise :class:`DataError` if none does."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: is not text; accepted: {', '.join(encodings)}".replace("utf-8-sig", "UTF-8"))


def number(value: str, where: Path) -> float:
    """Return a finite number of at least 0; raise :class:`DataError`, naming the file ``where``, for anything else."""
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise DataError(f"{where}: {value[:40]!r}; accepted: a number from 0")
    return found


def ids(paths: Iterable[Path]) -> list[str]:
    """Return an utterance id for each file: its name without the ending, blanks as ``_``."""
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(plain(path.stem), path)
        if other is not path:
            raise DataError(f"{path}: gives the same utterance id as {other}; rename one")
    return list(found)


def plain(name: str) -> str:
    """Return ``name`` with blanks as ``_``, so that it can be a key."""
    return re.sub(r"\s+", "_", name)


def find(source: Path, *patterns: str) -> list[Path]:
    """Return the files of ``source`` that fit any of the glob ``patterns``, sorted."""
    return sorted({path for pattern in patterns for path in source.glob(pattern)})


def require_files(paths: Iterable[Path]) -> None:
    """Raise :class:`DataError` naming the first of ``paths`` that is no file, and how many are not."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: does not exist ({len(missing)} files missing in all)")
