"""A converter measured on held-out speakers, beside what it has to beat; every sound at one loudness.

=====================  ========================================================================================
:mod:`evaluate_rows`   which clips are converted, and by what: the model, its variants, baselines
:mod:`evaluate_tools`  what is read in a sound, with the instruments of :mod:`vc.instruments`
this module            every row on every clip, emotion and intensity; readings kept, so that a run can go on
:mod:`vc.figures`      figures of readings
:mod:`evaluate_report` the record of all figures, and its tables
=====================  ========================================================================================

The speakers' own emotional clips pass the same instruments: they say what is natural and how far the judge can be
trusted. Nothing here was listened to by people.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from affgen.audio import Audio
from affgen.checkpoint import describe
from affgen.cli import say
from affgen.emotion.labels import LABELS, resolve
from affgen.errors import AffgenError
from affgen.files import atomic_write, require_parent
from vc import evaluate_rows, evaluate_tools, instruments
from vc.baselines import vocoded
from vc.evaluate_report import Material, markdown, record
from vc.evaluate_rows import Clip, Row
from vc.evaluate_tools import Heard, Reader, Source
from vc.figures import at

if TYPE_CHECKING:
    from vc.convert import VoiceConverter

FORMAT = 1
HERE = Path(__file__).parent
READING = ("acoustics", "baselines", "content", "evaluate_tools", "instruments", "judge", "twins")
"""Modules that the readings of every row depend on; those of a row with a model on all but :data:`NOT_READ`."""
NOT_READ = ("cli", "convert_cli", "evaluate", "evaluate_cli", "evaluate_report", "evaluate_rows", "figures", "picture")
NEEDS_MODEL = frozenset(evaluate_rows.ROWS) - frozenset(evaluate_rows.BASELINES)


@dataclass(frozen=True)
class Settings:
    """What is to be measured; see :mod:`vc.evaluate_cli`."""

    emotions: tuple[str, ...]
    intensities: tuple[float, ...]
    steps: int | None
    seed: int
    keep: Path | None


@dataclass(eq=False)
class Session:
    """What all rows share: settings, the instruments, the sources, and a line for progress."""

    settings: Settings
    reader: Reader
    sources: list[Source]
    args: argparse.Namespace

    def cells(self) -> Iterator[tuple[str, float]]:
        """Yield each emotion with each intensity."""
        for label in self.settings.emotions:
            for intensity in self.settings.intensities:
                yield label, intensity


def run(args: argparse.Namespace) -> int:
    """``affgen vc evaluate DIR... --out metrics.json``: measure, print the tables, write the figures.

    Raises :class:`AffgenError` for data without neutral clips of speakers who have clips of the emotions too, for rows
    and emotions that are not known, and for a model that cannot be loaded.
    """
    require_parent(args.out)
    if args.threads:
        torch.set_num_threads(min(args.threads, 1024))
    settings = _settings(args)
    converter = _converter(args)
    rows = evaluate_rows.rows(converter, args.rows or evaluate_rows.offered(converter), settings.steps, settings.seed)
    digests = {name: _digest(name, args.model) for name in rows}  # before any of these files can change
    session, natural, missing = _opened(args, settings)
    found, failures = {}, []
    for name, row in rows.items():
        say(args, f"row {name}")
        found[name], failed = _row(session, name, row, digests[name])
        failures += failed
    material = Material(session.sources, natural, found, failures)
    steps = settings.steps or getattr(converter, "steps", None)
    about = {"command": "vc evaluate", "format": FORMAT, "steps": steps, "missing": missing}
    made = record(material, about | _about(args, settings, session.reader))
    atomic_write(args.out, json.dumps(made, indent=1, allow_nan=False) + "\n")
    print(json.dumps(made, allow_nan=False) if getattr(args, "json", False) else markdown(made))
    return 0


def _opened(args: argparse.Namespace, settings: Settings) -> tuple[Session, list[dict[str, Any]], list[str]]:
    """Return the session, the readings of the speakers' own clips, and which instruments are missing."""
    clips = evaluate_rows.load(args.data)
    picked = evaluate_rows.chosen(clips, args.utterances, settings.seed)
    judge = _judge()
    lacking = [label for label in settings.emotions if label not in judge.labels]
    if lacking:
        raise AffgenError(f"--emotions {', '.join(lacking)}: the judge has: {', '.join(judge.labels[1:])}")
    reader, missing = instruments.instruments(judge, {clip.text for clip in picked})
    say(args, f"{len(picked)} neutral clips of {len({clip.speaker for clip in picked})} speakers")
    session = Session(settings, reader, _sources(reader, clips, picked), args)
    natural = _natural(session, clips, picked)
    if not at(natural):
        wanted = ", ".join(settings.emotions)
        raise AffgenError(f"{', '.join(args.data)}: no clip of {wanted} of intensity 1 by a speaker with neutral ones")
    return session, natural, missing


def _settings(args: argparse.Namespace) -> Settings:
    emotions = tuple(resolve(name) for name in args.emotions)
    wrong = [name for name in emotions if name not in LABELS or name == evaluate_rows.NEUTRAL]
    if wrong:
        raise AffgenError(f"--emotions {', '.join(wrong)}; accepted: {', '.join(LABELS[1:])}")
    keep = Path(args.keep) if args.keep else None
    if keep is not None:
        require_parent(keep / "x") if keep.is_dir() else require_parent(keep).mkdir()
    return Settings(emotions, tuple(args.intensities), args.steps, args.seed, keep)


def _judge() -> evaluate_tools.Listener:
    from vc.judge import Judge

    return Judge.from_pretrained()


def _converter(args: argparse.Namespace) -> VoiceConverter | None:
    """Return the model, if any row asks for it."""
    if args.rows is not None and not NEEDS_MODEL & set(args.rows):
        return None
    from vc.convert import VoiceConverter

    return VoiceConverter.from_pretrained(args.model)


def _about(args: argparse.Namespace, settings: Settings, reader: Reader) -> dict[str, Any]:
    """Return what the figures depend on besides the sounds."""
    from vc.pack import SHIPPED

    folder = Path(args.model or SHIPPED)
    model: dict[str, Any] | None = None
    if (folder / "config.json").is_file():
        model = {"folder": str(args.model or "shipped"), "parameters": describe(folder)["parameters"]}
    return {
        "data": [str(folder) for folder in args.data], "model": model, "emotions": list(settings.emotions),
        "intensities": list(settings.intensities), "seed": settings.seed, "threads": torch.get_num_threads(),
        "loudness": evaluate_tools.LUFS, "instruments": reader.about(),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- the sources


def _sources(reader: Reader, clips: Sequence[Clip], picked: Sequence[Clip]) -> list[Source]:
    """Read every neutral clip of the speakers, and the picked ones vocoded."""
    from affgen.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained()
    speakers = {clip.speaker for clip in picked}
    heard: dict[str, dict[str, Heard]] = {
        speaker: {clip.name: reader.hear(clip.audio) for clip in own}
        for speaker, own in evaluate_rows.neutral(clips).items()
        if speaker in speakers
    }
    return [
        Source(
            clip.name,
            clip.speaker,
            clip.text,
            clip.audio,
            heard[clip.speaker][clip.name],
            reader.hear(vocoded(clip.audio, vocoder)),
            tuple(other for name, other in heard[clip.speaker].items() if name != clip.name),
        )
        for clip in picked
    ]


def _natural(session: Session, clips: Sequence[Clip], picked: Sequence[Clip]) -> list[dict[str, Any]]:
    """Read the speakers' own clips as if they were conversions of the neutral ones."""
    by_name = {source.name: source for source in session.sources}
    return [
        session.reader.read(by_name[twin.source.name], twin.clip.audio, twin.label, twin.level)
        | {"twin": twin.clip.name}
        for twin in evaluate_rows.natural(clips, picked, session.settings.emotions)
    ]


# ------------------------------------------------------------------------------------------------------- one row


def _row(session: Session, name: str, row: Row, digest: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the readings of a row, and what failed in it, in one line each."""
    readings: list[dict[str, Any]] = []
    failures: list[str] = []
    warm = False
    for number, source in enumerate(session.sources, 1):
        place = _place(session.settings.keep, name, source.name)
        about = _fingerprint(session, source, digest)
        kept = _kept(place, about)
        if kept is None:
            if not warm:
                with suppress(AffgenError):  # it will be told of where it counts
                    row(source.audio, session.settings.emotions[0], 1.0)  # loads what is loaded once; not timed
                warm = True
            kept = _utterance(session, name, row, source)
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(place, json.dumps({"about": about, **kept}) + "\n")
        readings += kept["readings"]
        failures += kept["failures"]
        say(session.args, f"row {name}: {number} of {len(session.sources)}")
    return readings, failures


def _utterance(session: Session, name: str, row: Row, source: Source) -> dict[str, Any]:
    """Convert one source to everything and read it; a conversion that is refused is a failure, not a gap."""
    readings, failures = [], []
    for label, intensity in session.cells():
        start = time.perf_counter()
        try:
            audio = row(source.audio, label, intensity)
            spent = time.perf_counter() - start
            reading = session.reader.read(source, audio, label, intensity)
        except AffgenError as error:
            failures.append(f"{name}: {source.name} {label} {intensity:g}: {error}")
            continue
        reading["numbers"]["rtf"] = spent / source.audio.duration_s
        readings.append(reading)
        if session.settings.keep is not None:
            sound = session.settings.keep / name / f"{_file(source.name)}.{label}.{intensity:g}.flac"
            sound.parent.mkdir(parents=True, exist_ok=True)
            _matched(audio).save(sound)
    return {"readings": readings, "failures": failures}


def _matched(audio: Audio) -> Audio:
    """Return ``audio`` at the loudness it was read at, softer only where its peaks would be clipped."""
    level = evaluate_tools.normalise(audio, evaluate_tools.LUFS)
    peak = float(np.abs(level.samples).max(initial=0.0))
    return replace(level, samples=level.samples / max(peak, 1.0))


def _place(keep: Path | None, row: str, source: str) -> Path | None:
    return None if keep is None else keep / row / f"{_file(source)}.json"


def _file(name: str) -> str:
    """A name that a file can have; names that had to be changed end in a digest."""
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:100]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _kept(place: Path | None, about: str) -> dict[str, Any] | None:
    """Return what an earlier run found, if it was asked for the same and is whole."""
    if place is None or not place.is_file():
        return None
    try:
        found = json.loads(place.read_text("utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("about") == about else None


def _fingerprint(session: Session, source: Source, digest: str) -> str:
    """Return a digest of all that the readings of a row in ``source`` depend on."""
    settings = replace(session.settings, keep=None)
    parts = [FORMAT, digest, source.name, source.text, str(settings), session.reader.about()]
    voices = [[float(v) for v in other.voices["affgen"][:4]] for other in source.others if "affgen" in other.voices]
    text = json.dumps([*parts, voices, hashlib.sha256(source.audio.samples.tobytes()).hexdigest()])
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(row: str, model: str | None) -> str:
    """Return a digest of the code and weights behind a row, and of those that read it."""
    code = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem not in NOT_READ}
    files = list(code.values()) if row in NEEDS_MODEL else [code[name] for name in READING if name in code]
    folders = [HERE / "pretrained" / "judge"]
    if row in NEEDS_MODEL:
        folders.append(Path(model) if model else HERE / "pretrained" / "converter")
    whole = hashlib.sha256(row.encode())
    for path in [*files, *(path for folder in folders for path in sorted(folder.glob("*.safetensors")))]:
        whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
