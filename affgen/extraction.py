"""Extract the features of a data directory into shards, over all processors: ``affgen data features DIR``.

The utterances, sorted, are dealt to shards of :data:`PER_SHARD`. A shard is written once and renamed into place; its
header holds a digest of what it was made from, so that a run that was stopped goes on where it was and a changed
data directory makes its shards again. The bytes do not depend on the engine or the number of workers: every worker
computes with one thread, and this process alone writes. Utterances that cannot be used are listed in
``DIR/features/failures.tsv``; the others go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affgen.datadir import DataDir, is_command
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FAILURES, FOLDER, INDEX, SHARD_NAME, WAVE_SCALE, read_about, write_index, write_shard
from affgen.files import atomic_write
from affgen.frames import HOP, SAMPLE_RATE
from affgen.parallel import Engine, pmap

PER_SHARD = 256
PER_TASK = 8
PER_TASK_OF_SEGMENTS = 32
"""Utterances per call of a worker; with segments more, because each call decodes its recordings from the start."""
FORMAT = 1
"""Raised when the same sound would give other features, so that old shards are made again."""


@dataclass(frozen=True)
class Item:
    """One utterance to extract: its entry in ``wav.scp`` and, of a segment, start and end in seconds."""

    utterance: str
    source: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Task:
    """What a worker gets: some utterances, and whether their sound is kept."""

    items: tuple[Item, ...]
    waves: bool

    def __repr__(self) -> str:
        return f"{self.items[0].utterance} and {len(self.items) - 1} more" if self.items else "nothing"


@dataclass
class Extracted:
    """What an extraction came to."""

    frames: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    shards: int = 0
    skipped: int = 0

    @property
    def utterances(self) -> int:
        """How many utterances have features."""
        return len(self.frames)

    @property
    def seconds(self) -> float:
        """How much sound these features cover."""
        return sum(self.frames.values()) * HOP / SAMPLE_RATE

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        counts = {"utterances": self.utterances, "duration_s": self.seconds}
        return {**counts, "shards": self.shards, "skipped": self.skipped, "failures": self.failures}


def extract_features(
    path: str | Path,
    *,
    engine: Engine = "process",
    jobs: int = 1,
    waves: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Extracted:
    """Extract mel, F0 and energy of every utterance of the data directory ``path`` into ``path/features``.

    ``waves`` keeps the sound at 22,050 Hz as well; ``overwrite`` makes shards again that are there already; ``say``
    is told of each shard. Raises :class:`DataError` if there is no data directory of sound at ``path``, and
    :class:`AffgenError` as :func:`affgen.parallel.pmap` does.
    """
    path = Path(path)
    shards = _plan(path)
    folder = _made(path / FOLDER)
    digests = {name: _digest(items, waves) for name, items in shards.items()}
    found = {name: read_about(folder / name) for name in shards}
    to_do = [name for name in shards if overwrite or found[name].get("digest") != digests[name]]
    if to_do:
        (folder / INDEX).unlink(missing_ok=True)  # it must never speak of shards that are being replaced
        _warm_up()
    tasks = {name: _tasks(shards[name], waves) for name in to_do}
    results = pmap(extract_task, (task for name in to_do for task in tasks[name]), jobs=jobs, engine=engine)
    for name in to_do:
        found[name] = _write(folder / name, (next(results) for _ in tasks[name]), digests[name])
        say(f"{folder / name}: {len(found[name]['frames'])} utterances, {len(found[name]['failures'])} failed")
    done = Extracted(shards=len(shards), skipped=len(shards) - len(to_do))
    _finish(folder, shards, found, done)
    return done


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); name a folder that can be written") from error
    return folder


def _tasks(items: tuple[Item, ...], waves: bool) -> list[Task]:
    size = PER_TASK_OF_SEGMENTS if any(item.end is not None for item in items) else PER_TASK
    return [Task(items[i : i + size], waves) for i in range(0, len(items), size)]


def _plan(path: Path) -> dict[str, tuple[Item, ...]]:
    """Return {shard: its utterances}."""
    data = DataDir.read(path)
    recordings = data.tables.get("wav.scp")
    if not recordings or not data.utterances:
        raise DataError(f"{path}: has no sound; accepted: a data directory with a wav.scp")
    items = []
    for utterance in data.utterances:
        try:
            recording, start, end = data.sound(utterance)
            items.append(Item(utterance, recordings[recording], start, end))
        except (KeyError, ValueError) as error:
            raise DataError(f"{path / 'segments'}: {utterance}: {error}; run 'affgen data fix {path}'") from error
    starts = range(0, len(items), PER_SHARD)
    return {f"{n:05d}.safetensors": tuple(items[i : i + PER_SHARD]) for n, i in enumerate(starts)}


def _digest(items: Iterable[Item], waves: bool) -> str:
    """Return a digest of all that decides what a shard holds; of a file its place and size count."""
    made_of = [[i.utterance, i.source, i.start, i.end, _size(i.source)] for i in items]
    return hashlib.sha256(json.dumps([FORMAT, waves, made_of]).encode()).hexdigest()


def _size(source: str) -> int:
    try:
        return -1 if is_command(source) else os.stat(source).st_size
    except (OSError, ValueError):
        return -1


def _warm_up() -> None:
    """Compile what is compiled at first use, so that workers find it in the cache and do not all compile it."""
    from affgen.audio import Audio
    from affgen.features import extract

    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    extract(Audio(0.1 * noise, SAMPLE_RATE))


def _write(path: Path, results: Iterable[list[Any]], digest: str) -> dict[str, Any]:
    """Write one shard of the results of its tasks; return what its header says."""
    tensors: dict[str, np.ndarray] = {}
    frames: dict[str, int] = {}
    failures: dict[str, str] = {}
    for result in results:
        for utterance, outcome in result:
            if isinstance(outcome, str):
                failures[utterance] = outcome
            else:
                tensors |= {f"{utterance}/{name}": value for name, value in outcome.items()}
                frames[utterance] = len(outcome["f0"])
    about = {"digest": digest, "frames": frames, "failures": failures}
    write_shard(path, tensors, about)
    return about


def _finish(
    folder: Path, shards: dict[str, tuple[Item, ...]], found: dict[str, dict[str, Any]], done: Extracted
) -> None:
    """Write failures and index; then shards that the index does not name may go."""
    entries: dict[str, tuple[str, int]] = {}
    lines = []
    for name, items in shards.items():
        for item in items:
            if item.utterance in found[name]["failures"]:
                reason = found[name]["failures"][item.utterance]
                done.failures[item.utterance] = reason
                lines.append(f"{item.utterance}\t{_printable(item.source)}\t{_printable(reason)}\n")
            else:
                done.frames[item.utterance] = found[name]["frames"][item.utterance]
                entries[item.utterance] = (name, done.frames[item.utterance])
    if lines:
        atomic_write(folder / FAILURES, "".join(lines))
    else:
        (folder / FAILURES).unlink(missing_ok=True)
    write_index(folder, entries)
    for entry in list(folder.iterdir()):
        if SHARD_NAME.fullmatch(entry.name) and entry.name not in shards:
            entry.unlink()


def extract_task(task: Task) -> list[tuple[str, dict[str, np.ndarray] | str]]:
    """Return the arrays of each utterance of ``task``, or why it has none; runs in a worker, with one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return [(item.utterance, outcome) for item, outcome in _outcomes(task)]


def _outcomes(task: Task) -> Iterator[tuple[Item, dict[str, np.ndarray] | str]]:
    """Yield each item with its arrays or why it has none; a recording is decoded once for all its segments."""
    from affgen.audio import blocks_scp

    recordings: dict[str, list[Item]] = {}
    for item in task.items:
        recordings.setdefault(item.source, []).append(item)
    cut: dict[str, np.ndarray] = {}
    broken: dict[str, str] = {}
    for item in task.items:
        try:
            if item.end is None:
                yield item, _arrays(blocks_scp(item.source, sample_rate=SAMPLE_RATE), task.waves)
                continue
            if item.utterance not in cut and item.source not in broken:
                try:
                    cut |= _cut(item.source, recordings[item.source])
                except AffgenError as error:
                    broken[item.source] = str(error)
            yield item, broken.get(item.source) or _arrays([cut.pop(item.utterance)], task.waves)
        except AffgenError as error:
            yield item, str(error) if str(error).startswith(item.source[:20]) else f"{item.source}: {error}"


def _arrays(blocks: Iterable[np.ndarray], waves: bool) -> dict[str, np.ndarray]:
    """Return what a shard holds of a sound that comes in ``blocks`` (L,) at 22,050 Hz."""
    from affgen.features import extract_blocks

    kept = bytearray()  # grows in place: an hour of pieces put together at the end would be there twice

    def passed() -> Iterator[np.ndarray]:
        for block in blocks:
            if waves:
                kept.extend(np.round(block.clip(-1, 1) * WAVE_SCALE).astype(np.int16).tobytes())
            yield block

    features = extract_blocks(passed())
    arrays = {"mel": features.mel.astype(np.float16), "f0": features.f0, "energy": features.energy}
    if waves:
        arrays["wave"] = np.frombuffer(kept, np.int16)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _cut(source: str, items: list[Item]) -> dict[str, np.ndarray]:
    """Return {utterance: samples (L,)} of segments of one recording, which is never whole in memory."""
    from affgen.audio import blocks_scp

    bounds = {item.utterance: (round(item.start * SAMPLE_RATE), round((item.end or 0) * SAMPLE_RATE)) for item in items}
    kept: dict[str, list[np.ndarray]] = {utterance: [] for utterance in bounds}
    last, position = max(end for _, end in bounds.values()), 0
    for block in blocks_scp(source, sample_rate=SAMPLE_RATE):
        for utterance, (start, end) in bounds.items():
            part = block[max(0, start - position) : max(0, end - position)]
            if len(part):
                kept[utterance].append(part.copy())  # not a view that would keep the block
        position += len(block)
        if position >= last:
            break
    empty = np.zeros(0, np.float32)
    return {utterance: np.concatenate([empty, *parts]) for utterance, parts in kept.items()}


def _printable(text: str) -> str:
    """Return ``text`` on one line; the name of a file may hold any character."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
