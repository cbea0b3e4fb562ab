"""Training data: clips on the grid, cut and transposed into batches that are a pure function of the step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affgen.datadir import DataDir
from affgen.emotion.labels import QUADRANTS, coordinates
from affgen.errors import DataError
from affgen.files import atomic_path
from affgen.parallel import pmap
from affgen.score import read_midi
from music.beats import grid_of
from music.config import DataConfig, MusicConfig, TokenConfig
from music.keys import UNKNOWN, estimate_key, transpose_key
from music.model import BARS_LEFT, Batch, Conditions
from music.tokens import BEAT, METRICAL, TYPE, Grid, bars_of_rows, rows_from_grid

ANALYSIS = 2
"""Raised when beats or chords are found in another way, so that stored analyses are made again."""

FEWEST_BARS = 4
"""Clips shorter than this are left out of training."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A labelled piece: name, song it is cut from, grid, quadrant 1..4, key number, and the number of rows up to
    the end of each bar (bars + 1,).
    """

    name: str
    song: str
    grid: Grid
    quadrant: int
    key: int
    ends: np.ndarray


def load_clips(folder: str | Path, config: TokenConfig, *, cache: Path | None = None, jobs: int = 1) -> list[Clip]:
    """Clips of a data directory with ``midi.scp`` and ``utt2emo`` (Q1..Q4), analysed once and kept in ``cache`` (.npz).

    Raises :class:`DataError` for a label that is no quadrant or a directory without clips.
    """
    data = DataDir.read(folder)
    paths, labels = data.tables.get("midi.scp", {}), data.tables.get("utt2emo", {})
    for name in paths:
        if labels.get(name) not in QUADRANTS:
            raise DataError(
                f"{folder}/utt2emo: {name} has label {labels.get(name)!r}; accepted: {', '.join(QUADRANTS)}"
            )
    grids = _cached_grids(paths, cache, jobs)
    songs = data.tables.get("utt2spk", {})
    clips = [
        _clip(name, songs.get(name, name), grid, QUADRANTS.index(labels[name]) + 1, config)
        for name, grid in grids.items()
    ]
    clips = [clip for clip in clips if clip.grid.bars >= FEWEST_BARS]
    if not clips:
        raise DataError(f"{folder}: no clip of at least {FEWEST_BARS} bars")
    return clips


def clip_batches(
    clips: list[Clip], config: MusicConfig, *, seed: int, batch_size: int
) -> Callable[[int, int, int], Batch]:
    """``batches(step, rank, world)`` for :func:`affgen.training.fit`: every clip once per epoch, each time cut and
    transposed anew.
    """

    def batch(step: int, rank: int, world: int) -> Batch:
        first = (step * world + rank) * batch_size
        return collate([_example(clips, index, config, seed) for index in range(first, first + batch_size)], config)

    return batch


def split_songs(clips: list[Clip], share: float = 0.05) -> tuple[list[Clip], list[Clip]]:
    """Clips to learn from and clips to tune on: about ``share`` of the songs, chosen by a hash of their names."""

    def tuning(song: str) -> bool:
        return int.from_bytes(hashlib.sha256(song.encode()).digest()[:4], "big") < share * 2**32

    return [c for c in clips if not tuning(c.song)], [c for c in clips if tuning(c.song)]


def whole_batches(clips: list[Clip], config: MusicConfig, batch_size: int = 16) -> Iterable[Batch]:
    """The clips as they are, cut to the model's length at a bar line: for validation and for reading latents."""
    for start in range(0, len(clips), batch_size):
        examples = []
        for clip in clips[start : start + batch_size]:
            stop = _fitting(clip, 0, config.model.max_rows)
            examples.append(
                Example(clip.name, clip.grid.slice(0, stop), clip.quadrant, clip.key, clip.grid.bars - stop)
            )
        yield collate(examples, config)


@dataclass(frozen=True, eq=False)
class Example:
    """One training piece: a cut of a clip, and what is told about it (0 where hidden)."""

    name: str
    grid: Grid
    quadrant: int
    key: int
    bars_after: int
    """Bars of the clip after the cut; with none the piece ends here."""
    show_left: bool = True
    show_valence: bool = True
    show_arousal: bool = True


def collate(examples: list[Example], config: MusicConfig) -> Batch:
    """Rows of examples, padded with end rows to a common length."""
    token_mode = config.model.conditioning == "token"
    pieces = [rows_from_grid(e.grid, config.tokens, e.quadrant if token_mode else 0) for e in examples]
    pieces = [rows if e.bars_after == 0 else rows[:-1] for rows, e in zip(pieces, examples, strict=True)]
    longest = max(len(rows) for rows in pieces) - 1
    if config.model.reduction == "trans":
        longest = min(longest, config.model.max_rows)
    x = np.zeros((len(pieces), longest, 8), dtype=np.int64)
    y, mask = x.copy(), np.zeros((len(pieces), longest), dtype=np.float32)
    for index, rows in enumerate(pieces):
        count = min(len(rows) - 1, longest)
        x[index, :count], y[index, :count], mask[index, :count] = rows[:count], rows[1 : count + 1], 1.0
    conditions = _conditions(examples, x)
    names = [example.name for example in examples]
    return Batch(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(mask), conditions, names)


def places(rows: np.ndarray) -> np.ndarray:
    """Last ``beat`` id heard at each row (..., T), 0 before the first bar: where in the bar the next row starts
    from.
    """
    metrical = rows[..., TYPE] == METRICAL
    index = np.where(metrical, np.arange(rows.shape[-2]), -1)
    last = np.maximum.accumulate(index, axis=-1)
    return np.where(last >= 0, np.take_along_axis(rows[..., BEAT], np.maximum(last, 0), axis=-1), 0)


def bars_left(bars: np.ndarray | int, heard: np.ndarray) -> np.ndarray:
    """Id of the number of bars after the current one: 0 is unknown, so 1 means none, and the last id "many"."""
    return np.clip(1 + bars - np.maximum(heard, 1), 1, BARS_LEFT - 1)


def _conditions(examples: list[Example], x: np.ndarray) -> Conditions:
    batch, rows = x.shape[:2]
    va = np.zeros((batch, rows, 2), dtype=np.float32)
    key, left = np.zeros((batch, rows), dtype=np.int64), np.zeros((batch, rows), dtype=np.int64)
    heard = bars_of_rows(x)
    for index, e in enumerate(examples):
        valence, arousal = coordinates(QUADRANTS[e.quadrant - 1])
        va[index] = (valence * e.show_valence, arousal * e.show_arousal)
        key[index] = e.key
        if e.show_left:
            left[index] = bars_left(e.grid.bars + e.bars_after, heard[index])
    return Conditions(*(torch.from_numpy(array) for array in (va, key, left, places(x))))


def _example(clips: list[Clip], index: int, config: MusicConfig, seed: int) -> Example:
    """The ``index``-th example of an endless seeded stream."""
    epoch, place = divmod(index, len(clips))
    clip = clips[int(np.random.default_rng((seed, 1, epoch)).permutation(len(clips))[place])]
    rng, data = np.random.default_rng((seed, 2, index)), config.data
    start = int(rng.integers(0, max(1, clip.grid.bars - FEWEST_BARS)))
    if rng.random() < 0.5 or clip.ends[-1] <= config.model.max_rows:
        start = 0
    stop = _fitting(clip, start, config.model.max_rows)
    shift = _shift(clip, data, config.tokens, rng)
    show = rng.random(3) >= data.drop_emotion
    hide_key, hide_left = rng.random(2) < data.drop_hints
    return Example(
        clip.name,
        clip.grid.slice(start, stop).transpose(shift),
        clip.quadrant,
        UNKNOWN if hide_key else transpose_key(clip.key, shift),
        clip.grid.bars - stop,
        not hide_left,
        bool(show[0] and show[1]),
        bool(show[0] and show[2]),
    )


def _shift(clip: Clip, data: DataConfig, tokens: TokenConfig, rng: np.random.Generator) -> int:
    pitches = clip.grid.notes[:, 1]
    low = max(-data.transpose, tokens.pitch_low - int(pitches.min(initial=60)))
    high = min(data.transpose, tokens.pitch_high - int(pitches.max(initial=60)))
    return int(rng.integers(low, high + 1)) if low <= high else 0


def _fitting(clip: Clip, start: int, max_rows: int) -> int:
    """Last bar (exclusive) of the longest cut from ``start`` that fits into ``max_rows`` rows, at least one bar."""
    room = clip.ends[start] + max_rows - 3  # the emotion row, and a first beat row that a cut may have to spell out
    return max(start + 1, int(np.searchsorted(clip.ends, room, side="right")) - 1)


def _clip(name: str, song: str, grid: Grid, quadrant: int, config: TokenConfig) -> Clip:
    rows = rows_from_grid(grid, config)
    bars = bars_of_rows(rows)
    ends = np.searchsorted(bars, np.arange(grid.bars + 1), side="right")
    key = estimate_key(grid.notes[:, 1], grid.notes[:, 2])
    return Clip(name, song, grid, quadrant, key, ends)


def _grid_from_file(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    grid = grid_of(read_midi(path))
    return grid.notes, grid.tempos, grid.chords, grid.bars


def _cached_grids(paths: dict[str, str], cache: Path | None, jobs: int) -> dict[str, Grid]:
    """Grids by name; read from ``cache`` when it was made from the same list of files."""
    listing = "\n".join([f"analysis {ANALYSIS}", *(f"{name} {path}" for name, path in sorted(paths.items()))])
    key = hashlib.sha256(listing.encode()).hexdigest()
    if cache is not None and cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return {name: _unpack(stored, index) for index, name in enumerate(stored["names"].tolist())}
    names = sorted(paths)
    parts = list(pmap(_grid_from_file, [paths[name] for name in names], jobs=jobs))
    if cache is not None:
        arrays: dict[str, Any] = {
            f"{field}{index}": part[k]
            for index, part in enumerate(parts)
            for k, field in enumerate(("n", "t", "c", "b"))
        }
        with atomic_path(cache) as temporary:
            np.savez_compressed(temporary, key=key, names=np.array(names), **arrays)
    return {name: Grid(*part) for name, part in zip(names, parts, strict=True)}


def _unpack(stored: np.lib.npyio.NpzFile, index: int) -> Grid:
    return Grid(stored[f"n{index}"], stored[f"t{index}"], stored[f"c{index}"], int(stored[f"b{index}"]))
