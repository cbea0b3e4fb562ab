"""Fabricated trees in the layouts that corpora of voices are published in: same names, made-up sound and words.

For tests and toy recipes. A tree shows that names are read rightly, not that the published corpus holds no surprise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from affgen.audio import Audio
from affgen.errors import AffgenError

RATE = 16_000
LENGTH_S = 0.25


def fabricated_corpus(corpus: str, folder: str | Path, *, seed: int = 0) -> Path:
    """Make a small corpus laid out as ``corpus`` is published; return ``folder``, which is made if needed.

    Each file is a quarter of a second of a tone with some noise; equal arguments give equal bytes. Raises
    :class:`AffgenError` for a corpus that has no fabricated tree.
    """
    if corpus not in TREES:
        raise AffgenError(f"no fabricated tree of {corpus!r}; accepted: {', '.join(TREES)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    TREES[corpus](_Maker(folder, np.random.default_rng(seed)))
    return folder


def fabricated_tone(rng: np.random.Generator, *, seconds: float = LENGTH_S, rate: int = RATE) -> np.ndarray:
    """Return a tone (L,) float32 between 100 and 300 Hz with three harmonics and noise 40 dB below it."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(100, 300)
    tone = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in (1, 2, 3))
    return (0.2 * tone + 0.002 * rng.standard_normal(len(time))).astype(np.float32)


class _Maker:
    """Writes the files of one tree below ``folder``."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.rng = folder, rng

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def sound(self, *names: str) -> None:
        for name in names:
            audio = Audio(fabricated_tone(self.rng), RATE)
            if name.endswith(".wav"):
                self.place(name).write_bytes(audio.wav())
            else:
                audio.save(self.place(name))

    def raw(self, name: str, kind: str, rate: int) -> None:
        samples = (fabricated_tone(self.rng, rate=rate) * 32_767).astype(np.int16)
        self.place(name).write_bytes(samples.astype(kind).tobytes())

    def text(self, name: str, *lines: str, encoding: str = "utf-8") -> None:
        self.place(name).write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))

    def json(self, name: str, value: object) -> None:
        self.place(name).write_bytes(json.dumps(value, ensure_ascii=False).encode())


def _ravdess(make: _Maker) -> None:
    for actor in ("01", "02", "17"):
        codes = ["01-01-01-01-01", "01-05-01-01-01", "01-05-02-02-01", "01-08-02-01-02"]
        codes += ["02-01-01-01-01", "02-03-01-02-01", "02-06-02-01-02"]
        make.sound(*(f"Actor_{actor}/03-{code}-{actor}.wav" for code in codes))


def _nemo(make: _Maker) -> None:
    lines = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for speaker in ("EB0", "WR0", "SM0"):
        for emotion in ("anger", "neutral", "surprised"):
            name = f"{speaker}_{emotion}_{1 + len(lines) % 3}.wav"
            make.sound(f"samples/{name}")
            lines.append(f"{name}\t{emotion}\tTo „jest” próba.\tto jest próba\t        {speaker}\tmale\t23")
    make.text("data.tsv", *lines)


def _emodb(make: _Maker) -> None:
    for speaker in ("03", "08", "15"):
        make.sound(*(f"wav/{speaker}{code}.wav" for code in ("a01Fa", "a02Nc", "b10Wa", "a05Lb", "b01Ea", "a07Aa")))


def _cremad(make: _Maker) -> None:
    names = ["1001_DFA_ANG_XX", "1001_IEO_ANG_HI", "1001_IEO_FEA_LO", "1001_IEO_HAP_MD", "1001_WSI_NEU_XX"]
    make.sound(*(f"AudioWAV/{name}.wav" for name in [*names, "1040_ITH_SAD_X", "1091_IEO_DIS_MD"]))


def _esd(make: _Maker) -> None:
    emotions = {"Neutral": 0, "Angry": 350, "Happy": 700, "Sad": 1050, "Surprise": 1400}
    splits = {"evaluation": 1, "test": 21, "train": 51}
    for speaker, encoding, gap in (("0001", "utf-16", "\t"), ("0011", "utf-8", "\t")):
        lines = []
        for emotion, first in emotions.items():
            for split, offset in splits.items():
                name = f"{speaker}_{first + offset:06d}"
                make.sound(f"{speaker}/{emotion}/{split}/{name}.wav")
                lines.append(f"{name}{gap}The nine words of line {offset}.{gap}{emotion}")
        make.text(f"{speaker}/{speaker}.txt", *lines, encoding=encoding)
    make.sound("0012/Sad/0012_001051.wav", "0012/Sad/0012_001101.wav", "0012/Sad/0012_001102.wav")
    make.text("0012/0012.txt", "0012_001051\tOne two.\tSad", "0012_001101\tThree four.\tSad")


def _an4(make: _Maker) -> None:
    make.text("etc/an4_train.transcription", "<s> YES </s> (an251-fash-b)", "<s> GO ON </s> (cen1-mblb-b)")
    make.text("etc/an4_test.transcription", "RUBOUT G M (an406-fcaw-b)", "<s> ENTER </s> (an407-fcaw-b)")
    make.sound("wav/an4_clstk/fash/an251-fash-b.wav", "wav/an4test_clstk/fcaw/an407-fcaw-b.wav")
    make.raw("wav/an4_clstk/mblb/cen1-mblb-b.raw", ">i2", 16_000)
    make.text("wav/an4test_clstk/fcaw/an406-fcaw-b.sph", "NIST_1A", "   1024")


def _ljspeech(make: _Maker) -> None:
    names = [f"LJ001-{n:04d}" for n in range(1, 16)]
    make.sound(*(f"wavs/{name}.wav" for name in names))
    make.text("metadata.csv", *(f'{name}|The "{n}" of it|The "{n} pages" of it' for n, name in enumerate(names)))


def _vctk(make: _Maker) -> None:
    for speaker in ("p225", "p226", "p360", "s5"):
        for n in (1, 2):
            make.sound(*(f"wav48_silence_trimmed/{speaker}/{speaker}_00{n}_mic{mic}.flac" for mic in (1, 2)))
            make.text(f"txt/{speaker}/{speaker}_00{n}.txt", f"Sentence {n}.")
    make.sound("wav48_silence_trimmed/p315/p315_001_mic1.flac")


def _nit_song070(make: _Maker) -> None:
    phones = [(0, 1_000_000, "sil"), (1_000_000, 1_500_000, "h"), (1_500_000, 2_500_000, "a")]
    for song in ("004", "007"):
        name = f"nitech_jp_song070_f001_{song}"
        make.raw(f"data/raw/{name}.raw", "<i2", 48_000)
        full = (f"{start} {end} p@xx^xx-{phone}+xx=xx_00%xx/E:G4]7^0=4/4~100" for start, end, phone in phones)
        make.text(f"data/labels/full/{name}.lab", *full)
        make.text(f"data/labels/mono/{name}.lab", *(f"{start} {end} {phone}" for start, end, phone in phones))


def _opencpop(make: _Maker) -> None:
    lines = []
    for name in ("2001000001", "2001000002", "2044000001"):
        fields = (
            "你好",
            "SP n i h ao",
            "rest C4 C4 D4 D4",
            "0.1 0.05 0.05 0.1 0.1",
            "0.1 0.02 0.03 0.04 0.06",
            "0 0 0 0 0",
        )
        lines.append("|".join((name, *fields)))
        make.sound(f"segments/wavs/{name}.wav")
    make.text("segments/transcriptions.txt", *lines)
    make.text("segments/train.txt", *lines[:2])
    make.text("segments/test.txt", lines[2])


def _m4singer(make: _Maker) -> None:
    items = []
    for singer in ("Alto-1", "Tenor-1"):
        for song in ("一首 歌", "二首歌"):
            for n in range(2):
                base = f"{singer}#{song}/{n:04d}"
                make.sound(f"{base}.wav")
                make.place(f"{base}.mid").write_bytes(b"MThd")
                times = {"ph_dur": [0.1, 0.05, 0.1], "notes_dur": [0.1, 0.15, 0.15], "notes": [0, 60, 60]}
                words = {"txt": "啊", "phs": ["<AP>", "x", "a"], "is_slur": [0, 0, 0]}
                items.append({"item_name": f"{singer}#{song}#{n:04d}", **words, **times})
    make.json("meta.json", items)


def _gtsinger(make: _Maker) -> None:
    for language, singer in (("English", "EN-Alto-1"), ("English", "EN-Alto-2")):
        song = f"{language}/{singer}/Glissando/my love"
        make.sound(f"{song}/Paired_Speech_Group/0000.wav")
        for group in ("Control_Group", "Glissando_Group"):
            make.sound(f"{song}/{group}/0000.wav")
            common = {"emotion": "happy", "pace": "slow", "range": "medium", "singing_method": "pop"}
            rest = {"word": "<AP>", "ph": ["<AP>"], "ph_start": [0.0], "ph_end": [0.05], "note": [0]}
            love = {"word": "love", "ph": ["L", "AH1"], "ph_start": [0.05, 0.1], "ph_end": [0.1, 0.2], "note": [60]}
            make.json(f"{song}/{group}/0000.json", [rest | common, love | common])
            make.text(f"{song}/{group}/0000.TextGrid", 'File type = "ooTextFile"')


TREES: dict[str, Callable[[_Maker], None]] = {
    "ravdess": _ravdess,
    "nemo": _nemo,
    "emodb": _emodb,
    "cremad": _cremad,
    "esd": _esd,
    "an4": _an4,
    "ljspeech": _ljspeech,
    "vctk": _vctk,
    "nit_song070": _nit_song070,
    "opencpop": _opencpop,
    "m4singer": _m4singer,
    "gtsinger": _gtsinger,
}
