"""What is evaluated: the neutral clips of held-out speakers, their own emotional clips, and the ways to convert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affgen.audio import Audio
from affgen.datadir import DataDir
from affgen.emotion.labels import resolve
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir
from affgen.features import SAMPLE_RATE
from vc import baselines

if TYPE_CHECKING:
    from vc.convert import VoiceConverter

Row = Callable[[Audio, str, float], Audio]
"""From a neutral sound, a label and an intensity to a sound."""

NEUTRAL = "neutral"
TEACHER_STEPS = 30
BASELINES = ("source", "vocoded", "gain", "rule")
VARIANTS: dict[str, dict[str, Any]] = {
    "difference": {"difference": True},
    "none": {"none": True},
    **{f"dvm-{rank}": {"rank": rank} for rank in range(1, 9)},
}
"""What :meth:`VoiceConverter.variant` is asked for: the plain difference of means, no DVM at all, DVM at a rank."""
ROWS = (*BASELINES, "model", "teacher", *VARIANTS)


@dataclass(frozen=True, eq=False)
class Clip:
    """A recording of a data directory; ``level`` is its labelled intensity, 1 where an emotional clip has none."""

    name: str
    speaker: str
    text: str
    label: str
    level: float
    audio: Audio


@dataclass(frozen=True, eq=False)
class Twin:
    """A clip ``clip`` that the speaker of the neutral clip ``source`` recorded of the same sentence."""

    source: Clip
    clip: Clip
    label: str
    level: float


# ------------------------------------------------------------------------------------------------- the recordings


def load(folders: Sequence[str | Path]) -> list[Clip]:
    """Return the clips of data directories with features and sound; raises :class:`DataError` for what lacks."""
    clips = []
    for folder in folders:
        data, sounds = DataDir.read(folder), FeatureDir(folder)
        for name in ("utt2spk", "utt2emo"):
            if name not in data.tables:
                raise DataError(f"{folder}: has no {name}; accepted: a data directory with utt2spk and utt2emo")
        tables = data.tables
        for name in sounds.utterances:
            if name not in tables["utt2spk"] or name not in tables["utt2emo"]:
                raise DataError(f"{folder}: {name} has no speaker or no emotion; run 'affgen data fix {folder}'")
            label = resolve(tables["utt2emo"][name])
            level = 0.0 if label == NEUTRAL else float(tables.get("utt2intensity", {}).get(name, 1.0))
            text = " ".join(tables.get("text", {}).get(name, "").split())
            audio = Audio(sounds.wave(name), SAMPLE_RATE)
            clips.append(Clip(name, tables["utt2spk"][name], text, label, level, audio))
    if not clips:
        raise DataError(f"{', '.join(map(str, folders))}: no clips; accepted: data directories with features and sound")
    return clips


def neutral(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Return the neutral clips of each speaker; raises :class:`DataError` if there are none."""
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.label == NEUTRAL:
            found.setdefault(clip.speaker, []).append(clip)
    if not found:
        raise DataError("no neutral clips to convert; accepted: data directories whose utt2emo has 'neutral'")
    return dict(sorted(found.items()))


def chosen(clips: Sequence[Clip], utterances: int | None, seed: int = 0) -> list[Clip]:
    """Return up to ``utterances`` neutral clips of each speaker (default: all), sentences in turn."""
    found: list[Clip] = []
    for own in neutral(clips).values():
        seen: dict[str, int] = {}
        turns = []
        for k in np.random.default_rng(seed).permutation(len(own)):
            seen[own[k].text] = seen.get(own[k].text, 0) + 1
            turns.append((seen[own[k].text], own[k].text, own[k]))
        turns.sort(key=lambda turn: turn[:2])
        found += [clip for *_, clip in turns[:utterances]]
    return sorted(found, key=lambda clip: clip.name)


def natural(clips: Sequence[Clip], sources: Sequence[Clip], labels: Sequence[str]) -> Iterator[Twin]:
    """Yield what the speakers of ``sources`` made of them themselves: at 0 another neutral take, above it the emotion.

    The n-th take of a neutral sentence goes with the n-th take of the emotional one.
    """
    takes: dict[tuple[str, str, str, float], list[Clip]] = {}
    for clip in clips:
        takes.setdefault((clip.speaker, clip.text.casefold(), clip.label, clip.level), []).append(clip)
    levels = sorted({clip.level for clip in clips if clip.label in labels and clip.level > 0})
    for source in sources:
        speaker, text = source.speaker, source.text.casefold()
        own = takes[speaker, text, NEUTRAL, 0.0]
        number = own.index(source)
        for label in labels:
            if len(own) > 1:
                yield Twin(source, own[(number + 1) % len(own)], label, 0.0)
            for level in levels:
                theirs = takes.get((speaker, text, label, level), [])
                if theirs:
                    yield Twin(source, theirs[number % len(theirs)], label, level)


# ------------------------------------------------------------------------------------------------- ways to convert


def rows(converter: VoiceConverter | None, names: Sequence[str], steps: int | None, seed: int) -> dict[str, Row]:
    """Return the ways to convert that ``names`` lists; ``converter`` may be None if none of them needs it.

    Raises :class:`AffgenError` for a name that is not known and a variant that the converter does not offer.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise AffgenError(f"--rows {', '.join(unknown)}; accepted: {', '.join(ROWS)}")
    found: dict[str, Row] = {}
    for name in names:
        if name in BASELINES:
            found[name] = _baseline(name)
            continue
        if converter is None:
            raise AffgenError(f"row {name}: needs a model; name one with --model")
        found[name] = _conversion(_variant(converter, name), TEACHER_STEPS if name == "teacher" else steps, seed)
    return found


def offered(converter: VoiceConverter | None) -> tuple[str, ...]:
    """Return the rows that can be made with ``converter``."""
    if converter is None:
        return BASELINES
    return ROWS if hasattr(converter, "variant") else tuple(name for name in ROWS if name not in VARIANTS)


def _variant(converter: VoiceConverter, name: str) -> VoiceConverter:
    how: Mapping[str, Any] = VARIANTS.get(name, {})
    if not how:
        return converter
    make: Callable[..., VoiceConverter] | None = getattr(converter, "variant", None)
    if make is None:
        raise AffgenError(f"row {name}: this converter has no variants; accepted: {', '.join(offered(converter))}")
    return make(**how)


def _conversion(converter: VoiceConverter, steps: int | None, seed: int) -> Row:
    return lambda audio, label, intensity: converter.convert(audio, label, intensity, steps=steps, seed=seed)


def _baseline(name: str) -> Row:
    if name == "vocoded":
        from affgen.vocoder import Vocoder

        vocoder = Vocoder.from_pretrained()
        return lambda audio, label, intensity: baselines.vocoded(audio, vocoder)
    return {"source": lambda audio, label, intensity: audio, "gain": baselines.gain, "rule": baselines.rule}[name]
