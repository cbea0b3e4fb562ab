"""Corpora of acted emotion: RAVDESS (speech and song), nEMO, EmoDB, CREMA-D, ESD.

Intensity, for every corpus that labels it: 0 is neutral, 1 the strongest level it labels, the levels between evenly
spaced (:data:`RAVDESS_INTENSITY`, :data:`CREMAD_INTENSITY`). Held-out speakers are named in one constant per corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from affgen.corpora.common import Parts, Utterance, find, listed, number, rows, tabulate, text
from affgen.emotion.labels import resolve
from affgen.errors import DataError

RAVDESS_TEST = ("17", "18", "19", "20")
NEMO_TEST = ("SM0", "MK0")
EMODB_TEST = ("15", "16")
CREMAD_TEST = tuple(str(actor) for actor in range(1082, 1092))

RAVDESS_INTENSITY = {"01": 0.5, "02": 1.0}
"""Normal and strong; neutral, which is recorded as normal only, is 0."""

CREMAD_INTENSITY = {"LO": 1 / 3, "MD": 2 / 3, "HI": 1.0}
"""Low, medium and high; neutral is 0, and where the level is not specified (XX) there is none."""

_RAVDESS_EMOTION = {
    **{"01": "neutral", "02": "calm", "03": "happy", "04": "sad"},
    **{"05": "angry", "06": "fearful", "07": "disgust", "08": "surprised"},
}
_RAVDESS_TEXT = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_RAVDESS_NAME = re.compile(r"03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([0-9]{2})")

_EMODB_EMOTION = {
    **{"W": "anger", "L": "boredom", "E": "disgust", "A": "fear"},
    **{"F": "happiness", "T": "sadness", "N": "neutral"},
}
_EMODB_TEXT = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Blatt Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EMODB_NAME = re.compile(r"([0-9]{2})([ab][0-9]{2})([WLEAFTN])[a-z]")

_CREMAD_EMOTION = {
    **{"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"},
}
_CREMAD_TEXT = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
_CREMAD_NAME = re.compile(r"([0-9]{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)")

_ESD_NAME = re.compile(r"([0-9]{4})_([0-9]{6})")
_ESD_LINE = re.compile(r"([0-9]{4}_[0-9]{6})\s+(\S.*?)(?:\t\s*\S+)?\s*")
_ESD_PARTS = {"train": "train", "evaluation": "val", "test": "test"}
_ESD_SENTENCES = 350
"""Sentences of each speaker, numbered through the emotions; 1 to 20 are for evaluation, 21 to 50 for testing."""


def ravdess(source: Path) -> Parts:
    """Read RAVDESS (Livingstone and Russo 2018), speech and song; an actor has the same speaker id in both.

    Found are ``03-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR.wav`` (or ``.flac``) at any depth, as in the
    published ``Actor_NN`` folders, or the files of a ``table.tsv`` (columns file, duration). The codes in the names
    give all labels; :data:`RAVDESS_TEST` are the actors of ``test``.
    """
    return _ravdess(source, "0[12]")


def ravdess_speech(source: Path) -> Parts:
    """Read the spoken part (channel 01) of RAVDESS, as :func:`ravdess` does."""
    return _ravdess(source, "01")


def ravdess_song(source: Path) -> Parts:
    """Read the sung part (channel 02) of RAVDESS, as :func:`ravdess` does."""
    return _ravdess(source, "02")


def _ravdess(source: Path, channel: str) -> Parts:
    files: list[tuple[Path, float | None]]
    if (source / "table.tsv").is_file():
        files = [(path, number(row["duration"], source / "table.tsv")) for path, row in listed(source, ("duration",))]
    else:
        files = [(path, None) for path in find(source, "**/03-0[12]-*.wav", "**/03-0[12]-*.flac")]
    found = [_ravdess_utterance(path, duration, channel) for path, duration in files]
    help = "holds no 03-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR.wav; name the folder of the Actor_NN"
    return tabulate([utterance for utterance in found if utterance], source, help)


def _ravdess_utterance(path: Path, duration: float | None, channel: str) -> Utterance | None:
    match = _RAVDESS_NAME.fullmatch(path.stem)
    if not match:
        raise DataError(f"{path}: is no name of RAVDESS; accepted: seven two-digit codes such as 03-01-05-02-01-01-12")
    if not re.fullmatch(channel, match[1]):
        return None
    speaker = f"ravdess-{match[6]}"
    return Utterance(
        part="test" if match[6] in RAVDESS_TEST else "train",
        name=f"{speaker}-{path.stem}",
        speaker=speaker,
        source=str(path),
        emotion=_RAVDESS_EMOTION[match[2]],
        intensity=0.0 if match[2] == "01" else RAVDESS_INTENSITY[match[3]],
        text=_RAVDESS_TEXT[match[4]],
        duration=duration,
    )


def nemo(source: Path) -> Parts:
    """Read nEMO (Christop 2024): ``samples/SPEAKER_EMOTION_NUMBER.wav`` with ``data.tsv``, or a ``table.tsv``.

    ``data.tsv`` has the columns file_id, emotion, raw_text, speaker_id; ``table.tsv`` file, speaker, emotion, text,
    duration. :data:`NEMO_TEST` are the speakers of ``test``.
    """
    read: list[tuple[Path, str, str, str, float | None]]
    if (source / "table.tsv").is_file():
        columns = ("speaker", "emotion", "text", "duration")
        read = [
            (path, row["speaker"], row["emotion"], row["text"], number(row["duration"], source / "table.tsv"))
            for path, row in listed(source, columns)
        ]
    else:
        columns = ("file_id", "emotion", "raw_text", "speaker_id")
        read = [
            (source / "samples" / Path(row["file_id"]).name, row["speaker_id"], row["emotion"], row["raw_text"], None)
            for row in rows(source / "data.tsv", "\t", columns)
        ]
    found = [
        Utterance(
            part="test" if speaker.strip() in NEMO_TEST else "train",
            name=f"nemo-{path.stem}",
            speaker=f"nemo-{speaker.strip()}",  # the published table pads it with blanks
            source=str(path),
            emotion=resolve(emotion),
            text=words,
            duration=duration,
        )
        for path, speaker, emotion, words, duration in read
    ]
    return tabulate(found, source, "lists no sample; name the folder with data.tsv and samples/")


def emodb(source: Path) -> Parts:
    """Read EmoDB (Burkhardt et al. 2005): ``wav/03a01Fa.wav``, or a ``table.tsv`` (columns file, duration).

    The names give all labels: speaker, sentence, emotion and version. The emotion is W L E A F T or N: anger, boredom,
    disgust, fear, happiness, sadness or neutral. :data:`EMODB_TEST` are the speakers of ``test``.
    """
    files: list[tuple[Path, float | None]]
    if (source / "table.tsv").is_file():
        files = [(path, number(row["duration"], source / "table.tsv")) for path, row in listed(source, ("duration",))]
    else:
        files = [(path, None) for path in find(source, "wav/*.wav")]
    return tabulate(_emodb(files), source, "has neither table.tsv nor wav/03a01Fa.wav; name the folder of EmoDB")


def _emodb(files: list[tuple[Path, float | None]]) -> Iterator[Utterance]:
    for path, duration in files:
        match = _EMODB_NAME.fullmatch(path.stem)
        if not match or match[2] not in _EMODB_TEXT:
            raise DataError(f"{path}: is no name of EmoDB; accepted: speaker, sentence, emotion, version as in 03a01Fa")
        yield Utterance(
            part="test" if match[1] in EMODB_TEST else "train",
            name=f"emodb-{match[1]}-{path.stem}",
            speaker=f"emodb-{match[1]}",
            source=str(path),
            emotion=resolve(_EMODB_EMOTION[match[3]]),
            text=_EMODB_TEXT[match[2]],
            duration=duration,
        )


def cremad(source: Path) -> Parts:
    """Read CREMA-D (Cao et al. 2014): ``AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav``.

    The published layout only, tested on a fabricated tree of the same names. The corpus has no split: the actors
    :data:`CREMAD_TEST` are ``test``.
    """
    found = []
    for path in find(source, "AudioWAV/*.wav"):
        match = _CREMAD_NAME.fullmatch(path.stem)
        if not match or match[2] not in _CREMAD_TEXT or match[3] not in _CREMAD_EMOTION:
            raise DataError(f"{path}: is no name of CREMA-D; accepted: ACTOR_SENTENCE_EMOTION_LEVEL, 1001_DFA_ANG_XX")
        found.append(
            Utterance(
                part="test" if match[1] in CREMAD_TEST else "train",
                name=f"cremad-{path.stem}",
                speaker=f"cremad-{match[1]}",
                source=str(path),
                emotion=_CREMAD_EMOTION[match[3]],
                intensity=0.0 if match[3] == "NEU" else CREMAD_INTENSITY.get(match[4]),
                text=_CREMAD_TEXT[match[2]],
            )
        )
    return tabulate(found, source, "holds no AudioWAV/1001_DFA_ANG_XX.wav; name the folder of CREMA-D")


def esd(source: Path) -> Parts:
    """Read ESD (Zhou et al. 2021): ``0001/0001.txt`` and ``0001/Angry/{train,evaluation,test}/0001_000351.wav``.

    The published layout only, tested on a fabricated tree of the same names. The parts are the corpus's own, with
    ``evaluation`` as ``val``; where the wave files lie in the folder of the emotion itself, the numbers in their names
    give the same parts. They share speakers, not sentences. A file that no transcript names is left out.
    """
    found = []
    for folder in find(source, "[0-9][0-9][0-9][0-9]"):
        if not (folder / f"{folder.name}.txt").is_file():
            raise DataError(f"{folder}: has no {folder.name}.txt; name the folder of ESD")
        words = _esd_text(folder / f"{folder.name}.txt")
        for path in find(folder, "*/*.wav", "*/*/*.wav"):
            match = _ESD_NAME.fullmatch(path.stem)
            if not match or match[1] != folder.name:
                raise DataError(f"{path}: is no name of ESD; accepted: {folder.name}_NNNNNN.wav")
            if path.stem in words:
                found.append(_esd_utterance(path, folder, int(match[2]), words[path.stem]))
    return tabulate(found, source, "holds no 0001/Angry/train/0001_000351.wav with 0001/0001.txt; name the folder")


def _esd_utterance(path: Path, folder: Path, index: int, words: str) -> Utterance:
    emotion, *split = path.relative_to(folder).parts[:-1]
    if split and split[0] not in _ESD_PARTS:
        raise DataError(f"{path}: lies in {split[0]!r}; accepted: {', '.join(_ESD_PARTS)}")
    sentence = (index - 1) % _ESD_SENTENCES + 1
    part = _ESD_PARTS[split[0]] if split else "val" if sentence <= 20 else "test" if sentence <= 50 else "train"
    return Utterance(
        part=part,
        name=f"esd-{path.stem}",
        speaker=f"esd-{folder.name}",
        source=str(path),
        emotion=resolve(emotion),
        text=words,
    )


def _esd_text(path: Path) -> dict[str, str]:
    """Return {name: words}; the transcripts come in several encodings, a third column repeats the emotion."""
    raw = text(path, ("utf-16",) if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"))
    matches = (_ESD_LINE.fullmatch(line) for line in raw.splitlines())
    return {match[1]: match[2] for match in matches if match}
