"""Corpora of piano music in MIDI: EMOPIA and VGMIDI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from affgen.corpora.common import Parts, find, ids, inside, require_files, rows, text
from affgen.datadir import speakers
from affgen.emotion.labels import QUADRANTS
from affgen.errors import DataError

SPLITS = ("train", "val", "test")
_ROW_HELP = "accepted: split train, val or test, quadrant Q1 to Q4, a song"
_EMOPIA_NAME = re.compile(r"(Q[1-4])_(.+)_([0-9]+)\.mid")


@dataclass(frozen=True)
class Clip:
    """One MIDI file of EMOPIA: where it is, its quadrant and the song it was cut from."""

    path: Path
    quadrant: str
    song: str


def emopia(source: Path) -> Parts:
    """Read EMOPIA (Hung et al. 2021): ``midi.scp``, ``utt2emo`` (Q1 to Q4), ``utt2spk`` (the song) for each split.

    ``source`` has either a ``table.tsv`` (columns file, song, split, quadrant) or the published layout: files
    ``midis/Qx_SONG_n.mid`` and, if there are split files, ``split/{train,val,test}_*.csv`` whose cells name songs
    or clips; clips that no split names are left out. Without split files everything is ``train``.
    """
    parts = _emopia_table(source) if (source / "table.tsv").is_file() else _emopia_published(source)
    for part, clips in parts.items():
        utterances = dict(zip(ids(clip.path for clip in clips), clips, strict=True))
        utt2spk = {key: clip.song for key, clip in utterances.items()}
        yield (
            part,
            {
                "midi.scp": {key: str(clip.path) for key, clip in utterances.items()},
                "utt2emo": {key: clip.quadrant for key, clip in utterances.items()},
                "utt2spk": utt2spk,
                "spk2utt": speakers(utt2spk),
            },
        )


def vgmidi(source: Path) -> Parts:
    """Read VGMIDI (Ferreira and Whitehead 2019): ``midi.scp``, ``measure_va`` and ``utt2va`` of one part, ``eval``.

    From ``per_measure_va.csv`` the listeners' mean valence and arousal of each measure of the files in ``pieces``
    (``in_pieces_dir`` is 1); ``utt2va`` is the mean over the measures. Blanks in file names become ``_`` in ids.
    """
    pieces: dict[str, list[tuple[float, float]]] = {}
    columns = ("midi", "in_pieces_dir", "measure", "valence_mean", "arousal_mean")
    for row in rows(source / "per_measure_va.csv", ",", columns):
        if row["in_pieces_dir"] == "1":
            measures = pieces.setdefault(row["midi"], [])
            if row["measure"] != str(len(measures)):
                raise DataError(f"{source / 'per_measure_va.csv'}: {row['midi']}: measures are not counted from 0 on")
            measures.append((_axis(row["valence_mean"], source), _axis(row["arousal_mean"], source)))
    paths = [source / "pieces" / Path(name).name for name in pieces]
    require_files(paths)
    files = dict(zip(ids(paths), paths, strict=True))
    curves = dict(zip(files, pieces.values(), strict=True))
    means = {key: [sum(axis) / len(curve) for axis in zip(*curve, strict=True)] for key, curve in curves.items()}
    yield (
        "eval",
        {
            "midi.scp": {key: str(path) for key, path in files.items()},
            "utt2va": {key: f"{v:.4f} {a:.4f}" for key, (v, a) in means.items()},
            "measure_va": {key: " ".join(f"{v:.4f}/{a:.4f}" for v, a in curve) for key, curve in curves.items()},
        },
    )


def _emopia_table(source: Path) -> dict[str, list[Clip]]:
    parts: dict[str, list[Clip]] = {}
    table = source / "table.tsv"
    for row in rows(table, "\t", ("file", "song", "split", "quadrant")):
        song_ok = re.fullmatch(r"\S+", row["song"])
        if row["split"] not in SPLITS or row["quadrant"] not in QUADRANTS or not song_ok:
            raise DataError(f"{table}: {row['file']}: {row['split']!r} {row['quadrant']!r}; {_ROW_HELP}")
        clip = Clip(inside(source, row["file"], table), row["quadrant"], row["song"])
        parts.setdefault(row["split"], []).append(clip)
    require_files(clip.path for clips in parts.values() for clip in clips)
    return parts


def _emopia_published(source: Path) -> dict[str, list[Clip]]:
    found = [(path, _EMOPIA_NAME.fullmatch(path.name)) for path in find(source, "midis/*.mid")]
    clips = [Clip(path, match[1], match[2]) for path, match in found if match]
    if not clips:
        raise DataError(f"{source}: has neither table.tsv nor midis/Qx_SONG_n.mid; name the folder of EMOPIA")
    named = {split: _cells((source / "split").glob(f"{split}_*.csv")) for split in SPLITS}
    if not any(named.values()):
        return {"train": clips}
    parts: dict[str, list[Clip]] = {}
    for clip in clips:
        where = [split for split in SPLITS if named[split] & {clip.song, clip.path.stem}]
        if len(where) > 1:
            raise DataError(f"{source / 'split'}: {clip.path.name} is in {' and '.join(where)}")
        if where:
            parts.setdefault(where[0], []).append(clip)
    return parts


def _cells(paths: Iterable[Path]) -> set[str]:
    """Return every cell of some CSV files, without the ending of file names."""
    cells = set()
    for path in paths:
        for line in text(path).splitlines():
            cells |= {cell.strip().removesuffix(".mid") for cell in line.split(",")}
    return cells


def _axis(value: str, source: Path) -> float:
    try:
        found = float(value)
    except ValueError:
        found = 2.0
    if not -1 <= found <= 1:
        raise DataError(f"{source / 'per_measure_va.csv'}: {value!r}; accepted: valence and arousal from -1 to 1")
    return found
