"""Corpora of singing: NIT-SONG070, Opencpop, M4Singer, GTSinger.

``label`` gives the phones as the corpus names them, ``score.scp`` the file of the corpus that holds the notes. Only
GTSinger labels emotion; the others have no ``utt2emo``, for a song that nobody labelled is not therefore neutral.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from affgen.corpora.common import Parts, Utterance, find, listed, number, plain, tabulate, text
from affgen.corpora.read import raw_command
from affgen.emotion.labels import resolve
from affgen.errors import AffgenError, DataError

NIT_TEST = ("007",)
OPENCPOP_TEST = ("2044", "2086", "2092", "2093", "2100")
GTSINGER_TEST = ("EN-Alto-2", "IT-Bass-2", "KO-Soprano-2")

_NIT_NAME = re.compile(r"nitech_jp_song070_f001_([0-9]{3})")
_HTS_PHONE = re.compile(r"[^^]*\^[^-]*-([^+]+)\+")
_HTS_SECOND = 1e7  # times in HTS labels are in units of 100 ns
_SILENT = {"<AP>", "<SP>", "AP", "SP", ""}


def nit_song070(source: Path) -> Parts:
    """Read NIT-SONG070 (Nagoya Institute of Technology), one Japanese singer: the HTS demo or a ``table.tsv``.

    Published are ``data/raw/nitech_jp_song070_f001_NNN.raw`` (headerless, 48 kHz; a command for ``sox`` in
    ``wav.scp``) with ``data/labels/{full,mono}/*.lab``; the table (columns file, song, duration) lies beside the sound
    and the labels, of which some are called ``label_phone_align__*``. The songs :data:`NIT_TEST` are ``test``.
    """
    found: list[tuple[str, str, float | None]]
    if (source / "table.tsv").is_file():
        table = source / "table.tsv"
        found = [
            (str(path), path.stem, number(row["duration"], table)) for path, row in listed(source, ("song", "duration"))
        ]
        folders = [source]
    else:
        found = [(raw_command(path, 48_000), path.stem, None) for path in find(source, "data/raw/*.raw")]
        folders = [source / "data" / "labels" / "full", source / "data" / "labels" / "mono"]
    help = "has neither table.tsv nor data/raw/nitech_jp_song070_f001_NNN.raw; name the folder of NIT-SONG070"
    return tabulate((_nit(*entry, folders) for entry in found), source, help)


def _nit(sound: str, stem: str, duration: float | None, folders: Iterable[Path]) -> Utterance:
    match = _NIT_NAME.fullmatch(stem)
    if not match:
        raise DataError(f"{stem}: is no name of NIT-SONG070; accepted: nitech_jp_song070_f001_NNN")
    places = [folder / f"{start}{stem}.lab" for folder in folders for start in ("label_phone_align__", "")]
    score = next((path for path in places if path.is_file()), None)
    return Utterance(
        part="test" if match[1] in NIT_TEST else "train",
        name=f"nit-f001-{match[1]}",
        speaker="nit-f001",
        source=sound,
        duration=duration,
        label=_hts_label(score) if score else None,
        score=str(score) if score else None,
    )


def _hts_label(path: Path) -> str:
    """Return the phones of an HTS label file (start, end, full context or phone alone) as a line of ``label``."""
    phones = []
    for line in text(path).splitlines():
        fields = line.split()
        if len(fields) != 3:
            raise DataError(f"{path}: {line[:60]!r}; accepted: START END CONTEXT in units of 100 ns")
        context = _HTS_PHONE.match(fields[2])
        times = [number(field, path) / _HTS_SECOND for field in fields[:2]]
        phones.append((times[0], times[1], context[1] if context else fields[2]))
    return _label(phones)


def _label(phones: Iterable[tuple[float, float, str]]) -> str:
    return " ".join(f"{start:.5f} {end:.5f} {phone}" for start, end, phone in phones)


def _consecutive(phones: Iterable[str], durations: Iterable[float]) -> Iterator[tuple[float, float, str]]:
    """Yield (start, end, phone) of phones that follow one another from 0 on."""
    start = 0.0
    for phone, duration in zip(phones, durations, strict=True):
        yield start, start + duration, phone
        start += duration


def opencpop(source: Path) -> Parts:
    """Read Opencpop (Wang et al. 2022), one Mandarin singer: ``segments/transcriptions.txt`` and ``segments/wavs``.

    The published layout only, tested on a fabricated tree of the same names. A line is
    ``NAME|text|phones|notes|note durations|phone durations|slurs``. ``test`` are the names in ``segments/test.txt``, or
    without it the songs :data:`OPENCPOP_TEST`, which are the same. The notes stand in the transcriptions, not in
    files, so there is no ``score.scp``.
    """
    transcriptions = source / "segments" / "transcriptions.txt"
    held = source / "segments" / "test.txt"
    names = {line.split("|")[0] for line in text(held).splitlines()} if held.is_file() else None
    found = []
    for line in text(transcriptions).splitlines():
        name, *fields = line.split("|")
        if len(fields) != 6 or not re.fullmatch(r"[0-9]{10}", name):
            raise DataError(f"{transcriptions}: {line[:60]!r}; accepted: seven fields between |, a name of ten digits")
        phones, durations = fields[1].split(), [number(value, transcriptions) for value in fields[4].split()]
        if len(phones) != len(durations):
            raise DataError(f"{transcriptions}: {name}: {len(phones)} phones but {len(durations)} durations")
        found.append(
            Utterance(
                part="test" if (name[:4] in OPENCPOP_TEST if names is None else name in names) else "train",
                name=f"opencpop-{name}",
                speaker="opencpop",
                source=str(source / "segments" / "wavs" / f"{name}.wav"),
                text=fields[0],
                label=_label(_consecutive(phones, durations)),
            )
        )
    return tabulate(found, source, "segments/transcriptions.txt has no line")


def m4singer(source: Path) -> Parts:
    """Read M4Singer (Zhang et al. 2022), 20 Mandarin singers: ``meta.json`` and ``Alto-1#SONG/0000.wav`` with ``.mid``.

    The published layout only, tested on a fabricated tree of the same names. The corpus has no split by song: of each
    singer the last song in order of name is ``test``.
    """
    items = _json(source / "meta.json", list)
    last: dict[str, str] = {}
    for item in items:
        singer, song, _ = _m4singer_name(item, source)
        last[singer] = max(song, last.get(singer, ""))
    return tabulate((_m4singer(item, source, last) for item in items), source, "meta.json lists nothing")


def _m4singer(item: dict[str, Any], source: Path, last: dict[str, str]) -> Utterance:
    singer, song, index = _m4singer_name(item, source)
    base = source / f"{singer}#{song}" / index
    midi = base.with_name(f"{index}.mid")
    try:
        label = _label(_consecutive(map(str, item["phs"]), map(float, item["ph_dur"])))
        words = str(item["txt"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source / 'meta.json'}: {item['item_name']}: has no txt, or phs and ph_dur differ") from error
    return Utterance(
        part="test" if song == last[singer] else "train",
        name=plain(f"m4singer-{singer}-{song}-{index}"),
        speaker=f"m4singer-{singer}",
        source=f"{base}.wav",
        text=words,
        label=label,
        score=str(midi) if midi.is_file() else None,
    )


def _m4singer_name(item: Any, source: Path) -> tuple[str, str, str]:
    name = str(item.get("item_name")) if isinstance(item, dict) else str(item)
    match = re.fullmatch(r"([\w-]+)#([^#/]+)#([0-9]+)", name)
    if not match:
        raise DataError(f"{source / 'meta.json'}: item_name {name[:60]!r}; accepted: SINGER#SONG#NUMBER")
    return match[1], match[2], match[3]


def gtsinger(source: Path) -> Parts:
    """Read GTSinger (Zhang et al. 2024), 20 singers: ``English/EN-Alto-1/TECHNIQUE/SONG/GROUP/0000.wav``.

    The published layout only, tested on a fabricated tree of the same names. Each wave file has a ``0000.json`` beside
    it, a list of words with their phones, notes and the emotion. The spoken ``Paired_Speech_Group`` is left out. The
    corpus has no split: the singers :data:`GTSINGER_TEST`, each one of two of a kind, are ``test``.
    """
    paths = [path for path in find(source, "*/*/*/*/*/*.wav") if path.parent.name != "Paired_Speech_Group"]
    help = "holds no English/EN-Alto-1/Glissando/SONG/Control_Group/0000.wav; name the folder of GTSinger"
    return tabulate((_gtsinger(path, source) for path in paths), source, help)


def _gtsinger(path: Path, source: Path) -> Utterance:
    _, singer, technique, song, group = path.relative_to(source).parts[:-1]
    described = path.with_suffix(".json")
    words = _json(described, list)
    try:
        phones = [
            (float(start), float(end), str(phone))
            for word in words
            for phone, start, end in zip(word["ph"], word["ph_start"], word["ph_end"], strict=True)
        ]
        lyrics = [word["word"].strip() for word in words if word["word"].strip() not in _SILENT]
        emotion = resolve(str(words[0]["emotion"])) if words and "emotion" in words[0] else None
    except (KeyError, TypeError, ValueError, AttributeError, AffgenError) as error:
        raise DataError(f"{described}: {error}; accepted: words with word, ph, ph_start, ph_end, emotion") from error
    return Utterance(
        part="test" if singer in GTSINGER_TEST else "train",
        name=plain(f"gtsinger-{singer}-{technique}-{song}-{group}-{path.stem}"),
        speaker=f"gtsinger-{singer}",
        source=str(path),
        emotion=emotion,
        text=" ".join(lyrics),
        label=_label(phones),
        score=str(described),
    )


def _json(path: Path, kind: type) -> Any:
    try:
        found = json.loads(text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON") from error
    if not isinstance(found, kind):
        raise DataError(f"{path}: holds a {type(found).__name__}; accepted: a {kind.__name__}")
    return found
