"""Turn a corpus as it is published into data directories: ``affgen data prepare CORPUS SRC DIR``.

Each corpus is one function that reads the folder ``SRC`` and yields (name of the part, tables); nothing is copied, the
tables point into ``SRC`` with absolute paths. Preparing again writes the same bytes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from affgen.datadir import DataDir, Table, speakers
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


def prepare(corpus: str, source: str | Path, out: str | Path, say: Callable[[str], None] = print) -> dict[str, int]:
    """Write the data directories of ``corpus``, found in ``source``, below ``out``; return {part: utterances}.

    The licence of the corpus is told first. Raises :class:`DataError` for a corpus that is not known and for a
    ``source`` that does not hold it.
    """
    if corpus not in CORPORA:
        raise DataError(f"unknown corpus {corpus!r}; accepted: {', '.join(CORPORA)}")
    licence, read = CORPORA[corpus]
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError(f"{source}: is not a folder; name the folder of {corpus}")
    say(f"{corpus}: {licence}")
    written = {}
    for part, tables in read(source):
        data = DataDir(Path(out) / part, tables)
        data.write()
        written[part] = len(data.utterances)
    return written


def emopia(source: Path) -> Iterator[tuple[str, dict[str, Table]]]:
    """Read EMOPIA (Hung et al. 2021): ``midi.scp``, ``utt2emo`` (Q1 to Q4), ``utt2spk`` (the song) for each split.

    ``source`` has either a ``table.tsv`` (columns file, song, split, quadrant) or the published layout: files
    ``midis/Qx_SONG_n.mid`` and, if there are split files, ``split/{train,val,test}_*.csv`` whose cells name songs
    or clips; clips that no split names are left out. Without split files everything is ``train``.
    """
    parts = _emopia_table(source) if (source / "table.tsv").is_file() else _emopia_published(source)
    for part, clips in parts.items():
        utterances = dict(zip(_ids(clip.path for clip in clips), clips, strict=True))
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


def vgmidi(source: Path) -> Iterator[tuple[str, dict[str, Table]]]:
    """Read VGMIDI (Ferreira and Whitehead 2019): ``midi.scp``, ``measure_va`` and ``utt2va`` of one part, ``eval``.

    From ``per_measure_va.csv`` the listeners' mean valence and arousal of each measure of the files in ``pieces``
    (``in_pieces_dir`` is 1); ``utt2va`` is the mean over the measures. Blanks in file names become ``_`` in ids.
    """
    pieces: dict[str, list[tuple[float, float]]] = {}
    columns = ("midi", "in_pieces_dir", "measure", "valence_mean", "arousal_mean")
    for row in _rows(source / "per_measure_va.csv", ",", columns):
        if row["in_pieces_dir"] == "1":
            measures = pieces.setdefault(row["midi"], [])
            if row["measure"] != str(len(measures)):
                raise DataError(f"{source / 'per_measure_va.csv'}: {row['midi']}: measures are not counted from 0 on")
            measures.append((_number(row["valence_mean"], source), _number(row["arousal_mean"], source)))
    paths = [source / "pieces" / Path(name).name for name in pieces]
    _require_files(paths)
    files = dict(zip(_ids(paths), paths, strict=True))
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
    for row in _rows(source / "table.tsv", "\t", ("file", "song", "split", "quadrant")):
        song_ok = re.fullmatch(r"\S+", row["song"])
        if row["split"] not in SPLITS or row["quadrant"] not in QUADRANTS or not song_ok:
            raise DataError(f"{source / 'table.tsv'}: {row['file']}: {row['split']!r} {row['quadrant']!r}; {_ROW_HELP}")
        path = source / row["file"]
        if ".." in path.parts or not path.is_relative_to(source):
            raise DataError(f"{source / 'table.tsv'}: {row['file']}: lies outside {source}")
        parts.setdefault(row["split"], []).append(Clip(path, row["quadrant"], row["song"]))
    _require_files(clip.path for clips in parts.values() for clip in clips)
    return parts


def _emopia_published(source: Path) -> dict[str, list[Clip]]:
    found = [(path, _EMOPIA_NAME.fullmatch(path.name)) for path in sorted((source / "midis").glob("*.mid"))]
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


def _ids(paths: Iterable[Path]) -> list[str]:
    """Return an utterance id for each file: its name without the ending, blanks as ``_``."""
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(re.sub(r"\s+", "_", path.stem), path)
        if other is not path:
            raise DataError(f"{path}: gives the same utterance id as {other}; rename one")
    return list(found)


def _cells(paths: Iterable[Path]) -> set[str]:
    """Return every cell of some CSV files, without the ending of file names."""
    cells = set()
    for path in paths:
        for line in _text(path).splitlines():
            cells |= {cell.strip().removesuffix(".mid") for cell in line.split(",")}
    return cells


def _rows(path: Path, delimiter: str, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of a table with a head line; every row has ``columns``."""
    rows = list(csv.DictReader(_text(path).splitlines(), delimiter=delimiter))
    lacking = [name for name in columns if not rows or any(row.get(name) is None for row in rows)]
    if lacking:
        raise DataError(f"{path}: has no column {lacking[0]!r} throughout; accepted: {', '.join(columns)}")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text") from error


def _number(text: str, source: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 2.0
    if not -1 <= value <= 1:
        raise DataError(f"{source / 'per_measure_va.csv'}: {text!r}; accepted: valence and arousal from -1 to 1")
    return value


def _require_files(paths: Iterable[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: does not exist ({len(missing)} files missing in all)")


CORPORA: dict[str, tuple[str, Callable[[Path], Iterator[tuple[str, dict[str, Table]]]]]] = {
    "emopia": ("CC BY-NC-SA 4.0 (Hung et al. 2021): not for commercial use, nor are models trained on it", emopia),
    "vgmidi": ("no licence stated (Ferreira and Whitehead 2019): for evaluation, train nothing to share on it", vgmidi),
}
