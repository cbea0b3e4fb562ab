"""Corpora of speech that is read, all of it neutral: AN4, LJ Speech, VCTK."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affgen.corpora.common import Parts, Utterance, find, listed, number, tabulate, text
from affgen.errors import DataError

LJ_TEST = 12
"""How many sentences, the last in order of name, are ``test``."""

VCTK_TEST = ("p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5")

_AN4_PARTS = {"train": "an4_clstk", "test": "an4test_clstk"}
_AN4_LINE = re.compile(r"(?:<s>)?(.*?)(?:</s>)?\s*\((\S+)\)\s*")
_AN4_NAME = re.compile(r"[^-]+-([^-]+)-[^-]+")
_VCTK_NAME = re.compile(r"([ps][0-9]+_[0-9]+)(?:_mic1)?")


def an4(source: Path) -> Parts:
    """Read AN4 (Acero 1991), with its own training and test sets: the published layout or a ``table.tsv``.

    Published are ``etc/an4_{train,test}.transcription`` and ``wav/{an4_clstk,an4test_clstk}/SPEAKER/NAME`` as
    ``.wav``, ``.sph`` or headerless ``.raw`` (16 bits, 16 kHz, in the byte order of the archive); the latter two
    become commands for ``sox`` in ``wav.scp``. The table has the columns file, split, speaker, text, duration.
    """
    if (source / "table.tsv").is_file():
        return tabulate(_an4_table(source), source, "table.tsv has no row")
    return tabulate(_an4_published(source), source, "holds no etc/an4_train.transcription; name the folder of AN4")


def _an4_table(source: Path) -> Iterator[Utterance]:
    for path, row in listed(source, ("split", "speaker", "text", "duration")):
        if row["split"] not in _AN4_PARTS:
            raise DataError(f"{source / 'table.tsv'}: {row['file']}: split {row['split']!r}; accepted: train, test")
        duration = number(row["duration"], source / "table.tsv")
        yield _an4(row["split"], path.stem, row["speaker"], str(path), row["text"], duration)


def _an4_published(source: Path) -> Iterator[Utterance]:
    for part, folder in _AN4_PARTS.items():
        transcription = source / "etc" / f"an4_{part}.transcription"
        if not transcription.is_file():
            raise DataError(f"{transcription}: does not exist; name the folder of AN4, with etc and wav")
        for line in text(transcription).splitlines():
            match = _AN4_LINE.fullmatch(line.strip())
            name = _AN4_NAME.fullmatch(match[2]) if match else None
            if not match or not name:
                raise DataError(f"{transcription}: {line[:60]!r}; accepted: WORDS (an251-SPEAKER-b)")
            base = source / "wav" / folder / name[1] / match[2]
            yield _an4(part, match[2], name[1], _an4_source(base), match[1], None)


def _an4(part: str, name: str, speaker: str, source: str, words: str, duration: float | None) -> Utterance:
    return Utterance(
        part=part,
        name=f"an4-{speaker}-{name}",
        speaker=f"an4-{speaker}",
        source=source,
        emotion="neutral",
        text=words,
        duration=duration,
    )


def _an4_source(base: Path) -> str:
    """Return what ``wav.scp`` says for a file without ending: a path, or a command for what is not WAV."""
    sphere, headerless = Path(f"{base}.sph"), Path(f"{base}.raw")
    if sphere.is_file():
        return f"sox {shlex.quote(str(sphere))} -t wav - |"
    if headerless.is_file():
        return raw_command(headerless, 16_000, little_endian=_little_endian(headerless))
    return f"{base}.wav"


def raw_command(path: Path, sample_rate: int, *, little_endian: bool = True) -> str:
    """Return the entry of ``wav.scp`` for headerless 16-bit samples: a call of ``sox``, as Kaldi's recipes have it."""
    form = f"-t raw -r {sample_rate} -e signed-integer -b 16 -c 1 {'-L' if little_endian else '-B'}"
    return f"sox {form} {shlex.quote(str(path))} -t wav - |"


def _little_endian(path: Path) -> bool:
    """Return whether 16-bit samples make the smoother wave in this byte order; speech in the wrong one is noise."""
    with open(path, "rb") as stream:
        data = stream.read(1 << 16)
    data = data[: len(data) // 2 * 2]
    rough = [np.abs(np.diff(np.frombuffer(data, f"{order}i2").astype(float))).sum() for order in "<>"]
    return bool(rough[0] <= rough[1])


def ljspeech(source: Path) -> Parts:
    """Read LJ Speech (Ito 2017): ``metadata.csv`` and ``wavs/LJ001-0001.wav``, or a ``table.tsv``.

    The text is the normalised one; the table has the columns file, text, duration. The last :data:`LJ_TEST` sentences
    of what is there are ``test``.
    """
    found: list[tuple[Path, str, float | None]]
    if (source / "table.tsv").is_file():
        table = source / "table.tsv"
        found = [
            (path, _unquoted(row["text"]), number(row["duration"], table))
            for path, row in listed(source, ("text", "duration"))
        ]
    else:
        found = [(path, words, None) for path, words in _lj_metadata(source)]
    found.sort(key=lambda entry: entry[0].stem)
    utterances = [
        Utterance(
            part="test" if index >= len(found) - LJ_TEST else "train",
            name=f"lj-{path.stem}",
            speaker="lj",
            source=str(path),
            emotion="neutral",
            text=words,
            duration=duration,
        )
        for index, (path, words, duration) in enumerate(found)
    ]
    return tabulate(utterances, source, "metadata.csv has no line")


def _lj_metadata(source: Path) -> Iterator[tuple[Path, str]]:
    for line in text(source / "metadata.csv").splitlines():
        name, *words = line.split("|")
        if not re.fullmatch(r"LJ[0-9]{3}-[0-9]{4}", name) or not any(words):
            raise DataError(f"{source / 'metadata.csv'}: {line[:60]!r}; accepted: LJ001-0001|as written|as spoken")
        yield source / "wavs" / f"{name}.wav", words[-1] or words[0]


def _unquoted(words: str) -> str:
    """Return a cell of a table without the quotation marks that CSV writers have put around and doubled in it."""
    inner = words[3:-3] if words.startswith('"""') and words.endswith('"""') else words
    return re.sub('"+', '"', inner)


def vctk(source: Path) -> Parts:
    """Read VCTK (Yamagishi et al. 2019): ``wav48_silence_trimmed/p225/p225_001_mic1.flac``, ``txt/p225/p225_001.txt``.

    The published layouts only (0.92, or ``wav48/p225/p225_001.wav`` of 0.80), tested on a fabricated tree of the same
    names. Of the two microphones the first is read; a file without a transcript (all of p315) is left out. The corpus
    has no split: the speakers :data:`VCTK_TEST` are ``test``.
    """
    found = []
    for path in find(source, "wav48_silence_trimmed/*/*_mic1.flac") or find(source, "wav48/*/*.wav"):
        match = _VCTK_NAME.fullmatch(path.stem)
        if not match:
            raise DataError(f"{path}: is no name of VCTK; accepted: p225_001_mic1.flac, p225_001.wav")
        transcript = source / "txt" / path.parent.name / f"{match[1]}.txt"
        if transcript.is_file():
            speaker = path.parent.name
            found.append(
                Utterance(
                    part="test" if speaker in VCTK_TEST else "train",
                    name=f"vctk-{match[1]}",
                    speaker=f"vctk-{speaker}",
                    source=str(path),
                    emotion="neutral",
                    text=text(transcript),
                )
            )
    help = "holds no wav48_silence_trimmed/p225/p225_001_mic1.flac with txt/p225/p225_001.txt; name the folder of VCTK"
    return tabulate(found, source, help)
