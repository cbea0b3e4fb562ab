"""Kaldi data directories: one line per key in each table, sorted in the C locale.

Speech and singing: ``wav.scp`` (paths, or ``cmd |``) ``utt2spk spk2utt``, optionally ``text segments utt2dur utt2emo
utt2intensity score.scp label``. Music: ``midi.scp`` with at least one of ``utt2emo utt2va measure_va``, optionally
``utt2spk spk2utt`` (the song in the place of the speaker). Where there is a ``segments``, ``wav.scp`` is keyed by
recording; every other table but ``spk2utt`` is keyed by utterance. Beyond Kaldi:

=================  =============================================================
``utt2emo``        ``UTT LABEL`` (a label, alias or quadrant)
``utt2intensity``  ``UTT INTENSITY`` (0 to 1.5)
``label``          ``UTT START END PHONE START END PHONE ...`` in seconds
``utt2va``         ``UTT VALENCE AROUSAL`` (each from -1 to 1)
``measure_va``     ``UTT V/A V/A ...``, one pair for each measure from the first
=================  =============================================================

``utt2intensity``, ``label`` and ``score.scp`` (``UTT PATH``, the file with the notes) may leave utterances out; every
other table has all of them or is not there. Commands in a ``wav.scp`` are run only by a check of the sound. Relative
paths are relative to the working directory, as in Kaldi.
"""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from affgen.emotion.labels import resolve
from affgen.errors import AffgenError, DataError
from affgen.files import atomic_write
from affgen.frames import SAMPLE_RATE, SHORTEST

TABLES = (
    *("wav.scp", "midi.scp", "segments", "utt2spk", "spk2utt", "text", "utt2dur", "utt2emo", "utt2intensity"),
    *("utt2va", "measure_va", "score.scp", "label"),
)
SOURCES = ("wav.scp", "midi.scp")
AFFECT = ("utt2emo", "utt2va", "measure_va")
PARTIAL = ("utt2intensity", "label", "score.scp")
SHORTEST_S = SHORTEST / SAMPLE_RATE
"""Seconds of one frame of the analysis; a shorter sound has no features."""
BACKUP = ".backup"

Table = dict[str, str]


@dataclass(frozen=True)
class DataDir:
    """The tables of one data directory, each {key: rest of the line}."""

    path: Path
    tables: Mapping[str, Table]

    @classmethod
    def read(cls, path: str | Path) -> DataDir:
        """Read every table of the folder ``path``.

        Raises :class:`DataError` for a folder that is missing or has neither ``wav.scp`` nor ``midi.scp``, and for a
        line without a value, a key that comes twice and text that is not UTF-8, each with file and line.
        """
        tables, notes = _read_tables(Path(path))
        if notes:
            raise DataError(f"{notes[0][1]}; run 'affgen data fix {path}'")
        return cls(Path(path), tables)

    @property
    def utterances(self) -> tuple[str, ...]:
        """The utterance ids, in the order of the C locale."""
        return tuple(_sorted(self._index()))

    @property
    def music(self) -> bool:
        """Whether this is a music directory (``midi.scp``)."""
        return "midi.scp" in self.tables

    def sound(self, utterance: str) -> tuple[str, float, float | None]:
        """Return recording, start and end (None: to its end) in seconds of an utterance of ``wav.scp``."""
        if "segments" not in self.tables:
            return utterance, 0.0, None
        recording, start, end = self.tables["segments"][utterance].split()
        return recording, float(start), float(end)

    def write(self, path: str | Path | None = None) -> None:
        """Write the tables, sorted, to ``path`` (default: where they came from), which is made if need be.

        Raises :class:`DataError` if the folder holds tables of something else, which would no longer fit.
        """
        path = self.path if path is None else Path(path)
        foreign = [name for name in TABLES if name not in self.tables and (path / name).exists()]
        if foreign:
            raise DataError(f"{path}: holds {', '.join(foreign)} of other data; remove these or name a fresh folder")
        for name, table in self.tables.items():
            for key, value in table.items():
                if not re.fullmatch(r"\S+", key) or not value.strip() or "\n" in value:
                    raise DataError(f"{path / name}: {key!r} {value[:40]!r}; accepted: a key without blanks, one line")
        _make_folder(path)
        for name, table in self.tables.items():
            atomic_write(path / name, "".join(f"{key} {table[key]}\n" for key in _sorted(table)))

    def subset(self, utterances: Iterable[str]) -> DataDir:
        """Return the part that concerns ``utterances``; raises :class:`DataError` for one that is not here."""
        keep = set(utterances)
        unknown = _sorted(keep - set(self.utterances))
        if unknown:
            raise DataError(f"{self.path}: has no utterance {unknown[0]!r} ({len(unknown)} unknown in all)")
        recordings = {line.split()[0] for key, line in self.tables.get("segments", {}).items() if key in keep}
        tables = {}
        for name, table in self.tables.items():
            keys = recordings if name == "wav.scp" and "segments" in self.tables else keep
            tables[name] = {key: value for key, value in table.items() if key in keys}
        if "spk2utt" in tables:
            tables["spk2utt"] = speakers(tables["utt2spk"])
        return DataDir(self.path, tables)

    def _index(self) -> Table:
        """Return the table that says which utterances there are."""
        return next(self.tables[name] for name in ("segments", *SOURCES) if name in self.tables)


@dataclass(frozen=True)
class Report:
    """What :func:`validate` found: how many of what, and one line per problem."""

    counts: dict[str, int]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


@dataclass(frozen=True)
class Fixed:
    """What :func:`fix` did: utterances kept, and why each of the others was dropped."""

    kept: int
    dropped: dict[str, str]


def speakers(utt2spk: Mapping[str, str]) -> Table:
    """Return ``spk2utt`` (speaker: its utterances, sorted, with blanks between) of an ``utt2spk``."""
    gathered: dict[str, list[str]] = {}
    for utterance in _sorted(utt2spk):
        gathered.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(utterances) for speaker, utterances in gathered.items()}


def is_command(source: str) -> bool:
    """Return whether an entry of a ``wav.scp`` is a command whose output is the sound (``cmd |``), not a path."""
    return source.endswith("|")


def validate(path: str | Path, *, audio: bool = False) -> Report:
    """Check a data directory as Kaldi's ``validate_data_dir.sh`` does, and the values of the tables beyond Kaldi.

    With ``audio`` the header of every sound file is read and every command run: what cannot be read, is shorter than
    :data:`SHORTEST_S` or ends before its segment is a problem. Raises :class:`DataError` only when there is no data
    directory at ``path``.
    """
    path = Path(path)
    tables, notes = _read_tables(path)
    problems = [text for _, text in notes]
    problems += [f"{path}: {name} is missing" for name in _lacking(tables)]
    for name, table in tables.items():
        if list(table) != _sorted(table):
            problems.append(f"{path / name}: is not sorted in the C locale")
    data = DataDir(path, tables)
    faults = _faults(data, audio=audio)
    problems += [f"{path}: {utterance}: {reason}" for utterance, reason in faults.items()]
    utt2spk = tables.get("utt2spk", {})
    if "spk2utt" in tables and tables["spk2utt"] != speakers(utt2spk):
        problems.append(f"{path / 'spk2utt'}: does not agree with utt2spk")
    order = [utt2spk[utterance] for utterance in _sorted(utt2spk)]
    if order != _sorted(order) and not data.music:  # Kaldi's tools rely on it
        problems.append(f"{path / 'utt2spk'}: speakers are out of order; begin each utterance id with its speaker")
    return Report(_counts(data), tuple(problems))


def fix(path: str | Path, *, audio: bool = False) -> Fixed:
    """Put a data directory right: sort, drop what some table lacks or gets wrong, make ``spk2utt`` from ``utt2spk``.

    With ``audio`` also what :func:`validate` finds in the sound is dropped. The tables as they were are kept in
    ``.backup`` inside it. Raises :class:`DataError`, and changes nothing, when no utterance would be left.
    """
    path = Path(path)
    tables, notes = _read_tables(path)
    if "utt2spk" in tables:
        tables["spk2utt"] = speakers(tables["utt2spk"])
    data = DataDir(path, tables)
    dropped = {key: text for key, text in notes if key} | _faults(data, audio=audio)
    kept = [utterance for utterance in data.utterances if utterance not in dropped]
    if not kept:
        first = next(iter(dropped.items()), ("it", "has no utterance"))
        raise DataError(f"{path}: nothing would be left ({first[0]}: {first[1]}); nothing was changed")
    (path / BACKUP).mkdir(exist_ok=True)
    for name in TABLES:
        if (path / name).is_file():
            shutil.copy2(path / name, path / BACKUP / name)
    data.subset(kept).write()
    return Fixed(len(kept), dropped)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be made ({error.strerror}); name a folder that can be written") from error


def _read_tables(path: Path) -> tuple[dict[str, Table], list[tuple[str, str]]]:
    """Return the tables of a folder and what is wrong with their lines, as (key or "", one line of text)."""
    if not path.is_dir():
        raise DataError(f"{path}: is not a folder; name a data directory")
    tables, notes = {}, []
    for name in TABLES:
        if (path / name).is_file():
            tables[name], wrong = _read_table(path / name)
            notes += wrong
    if not any(name in tables for name in SOURCES):
        raise DataError(f"{path}: has neither wav.scp nor midi.scp; name a data directory")
    return tables, notes


def _read_table(path: Path) -> tuple[Table, list[tuple[str, str]]]:
    table: Table = {}
    notes = []
    contents = path.read_bytes()
    for number, raw in enumerate(contents.removesuffix(b"\n").split(b"\n") if contents else (), 1):
        where = f"{path} line {number}"
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            notes.append(("", f"{where}: is not UTF-8"))
            continue
        if line.endswith("\r"):
            notes.append(("", f"{where}: ends in a carriage return"))
        key, _, value = line.strip(" \t\r").replace("\t", " ", 1).partition(" ")
        if not value:
            notes.append((key, f"{where}: has no value; accepted: KEY VALUE"))
        elif table.setdefault(key, value.strip()) != value.strip():
            notes.append((key, f"{where}: {key!r} comes twice with different values"))
    return table, notes


def _lacking(tables: Mapping[str, Table]) -> list[str]:
    """Return the tables that are required and not there."""
    required = {"spk2utt"} if "utt2spk" in tables else set()
    if "midi.scp" not in tables:
        required |= {"utt2spk", "spk2utt"}
    elif not any(name in tables for name in AFFECT):
        required.add(" or ".join(AFFECT))
    return sorted(required - set(tables))


def _faults(data: DataDir, *, audio: bool) -> dict[str, str]:
    """Return {utterance: first reason why it cannot be used}, over the utterances of all tables."""
    keyed = {name: table for name, table in data.tables.items() if name != "spk2utt"}
    if "segments" in keyed:
        keyed.pop("wav.scp", None)
    lengths: dict[str, float | str] = {}
    faults = {}
    for utterance in _sorted(set().union(*keyed.values())):
        absent = [name for name, table in keyed.items() if utterance not in table and name not in PARTIAL]
        reason = f"not in {', '.join(absent)}" if absent else _fault(data, keyed, utterance)
        if audio and not reason and "wav.scp" in data.tables:
            reason = _sound_fault(data, utterance, lengths)
        if reason:
            faults[utterance] = reason
    return faults


def _fault(data: DataDir, keyed: Mapping[str, Table], utterance: str) -> str:
    """Return what is wrong with the values of an utterance that every table has, or nothing."""
    for name, check in _CHECKS.items():
        value = keyed.get(name, {}).get(utterance)
        if value is not None:
            try:
                usable = check(value)
            except (AffgenError, ValueError):
                usable = False
            if not usable:
                return f"{name} has {value[:60]!r}"
    source = keyed.get("wav.scp", keyed.get("midi.scp", {})).get(utterance)
    if "segments" in keyed:
        recording = keyed["segments"][utterance].split()[0]
        source = data.tables.get("wav.scp", {}).get(recording)
        if source is None:
            return f"its recording {recording!r} is not in wav.scp"
    for file in (source, keyed.get("score.scp", {}).get(utterance)):
        if file and not is_command(file) and not Path(file).is_file():
            return f"its file {file!r} does not exist"
    return ""


def _sound_fault(data: DataDir, utterance: str, lengths: dict[str, float | str]) -> str:
    """Return what is wrong with the sound of an utterance, or nothing.

    ``lengths`` holds the seconds of each recording that has been looked at, or why it cannot be read.
    """
    recording, start, end = data.sound(utterance)
    source = data.tables["wav.scp"][recording]
    if recording not in lengths:
        try:
            lengths[recording] = _seconds(source)
        except AffgenError as error:
            lengths[recording] = str(error)
    length = lengths[recording]
    if isinstance(length, str):
        return length
    if end is not None and start >= length:
        return f"its segment begins at {start:g} s, {source!r} ends at {length:.3f} s"
    if min(length if end is None else end, length) - start < SHORTEST_S:
        return f"its sound in {source!r} is shorter than a frame, {SHORTEST_S:.3f} s"
    return ""


def _seconds(source: str) -> float:
    """Return the length of a file from its header, or of what a command writes."""
    from affgen.audio import read_scp  # soundfile is loaded only when it is needed
    from affgen.audio_read import checked, opened

    if is_command(source):
        return read_scp(source).duration_s
    with opened(source) as (file, name), checked(file, name) as sound:
        return sound.frames / sound.samplerate


def _segment_is_usable(value: str) -> bool:
    _, start, end = value.split()
    return 0 <= float(start) < float(end) < math.inf


def _label_is_usable(value: str) -> bool:
    fields = value.split()
    times = [(float(start), float(end)) for start, end in zip(fields[::3], fields[1::3], strict=True)]
    return len(fields) == 3 * len(times) and all(0 <= start <= end < math.inf for start, end in times)


def _pairs_are_usable(value: str) -> bool:
    return all(_va_is_usable(pair.replace("/", " ", 1)) for pair in value.split())


def _va_is_usable(value: str) -> bool:
    valence, arousal = value.split()
    return all(-1 <= float(x) <= 1 for x in (valence, arousal))


_CHECKS: dict[str, Callable[[str], bool]] = {
    "segments": _segment_is_usable,
    "utt2spk": lambda value: " " not in value,
    "utt2dur": lambda value: 0 < float(value) < math.inf,
    "utt2emo": lambda value: bool(resolve(value)),
    "utt2intensity": lambda value: 0 <= float(value) <= 1.5,
    "utt2va": _va_is_usable,
    "measure_va": _pairs_are_usable,
    "label": _label_is_usable,
}


def _counts(data: DataDir) -> dict[str, int]:
    counts = {"utterances": len(data.utterances)}
    if "utt2spk" in data.tables:
        counts["speakers"] = len(set(data.tables["utt2spk"].values()))
    if "segments" in data.tables:
        counts["recordings"] = len(data.tables.get("wav.scp", {}))
    counts["commands"] = sum(map(is_command, data.tables.get("wav.scp", {}).values()))
    counts |= dict(sorted(Counter(data.tables.get("utt2emo", {}).values()).items()))
    return counts


def _sorted(keys: Iterable[str]) -> list[str]:
    """Sort as ``LC_ALL=C sort`` does: by bytes."""
    return sorted(keys, key=str.encode)
