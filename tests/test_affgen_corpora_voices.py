"""Corpora of voices: their published layouts (fabricated), the tables, the split, refusals."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from affgen.audio import read_scp
from affgen.corpora import CORPORA, prepare
from affgen.datadir import DataDir, validate
from affgen.errors import AffgenError, DataError
from affgen.testing_corpora import TREES, fabricated_corpus

VOICES = [name for name in CORPORA if name not in ("emopia", "vgmidi")]


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("a tree's")  # a blank and a quote, which commands have to survive
    return {name: fabricated_corpus(name, root / name) for name in TREES}


def prepared(trees: dict[str, Path], corpus: str, out: Path) -> dict[str, DataDir]:
    tree = trees["ravdess" if corpus.startswith("ravdess") else corpus]
    return {part: DataDir.read(out / part) for part in prepare(corpus, tree, out, str)}


COUNTS = {
    "ravdess": {"train": 14, "test": 7},
    "ravdess_speech": {"train": 8, "test": 4},
    "ravdess_song": {"train": 6, "test": 3},
    "nemo": {"train": 6, "test": 3},
    "emodb": {"train": 12, "test": 6},
    "cremad": {"train": 6, "test": 1},
    "esd": {"train": 11, "val": 11, "test": 10},
    "an4": {"train": 2, "test": 2},
    "ljspeech": {"train": 3, "test": 12},
    "vctk": {"train": 4, "test": 4},
    "nit_song070": {"train": 1, "test": 1},
    "opencpop": {"train": 2, "test": 1},
    "m4singer": {"train": 4, "test": 4},
    "gtsinger": {"train": 2, "test": 2},
}


@pytest.mark.parametrize("corpus", VOICES)
def test_published_layouts_become_whole_directories(trees, tmp_path, corpus):
    found = prepared(trees, corpus, tmp_path)
    assert {part: len(data.utterances) for part, data in found.items()} == COUNTS[corpus]
    assert next(iter(found)) == "train"
    for part, data in found.items():
        assert validate(tmp_path / part).problems == ()
        for utterance, speaker in data.tables["utt2spk"].items():
            assert utterance.startswith(speaker)
            assert speaker.split("-")[0] == {"ravdess_speech": "ravdess", "ravdess_song": "ravdess"}.get(
                corpus, {"ljspeech": "lj", "nit_song070": "nit"}.get(corpus, corpus)
            )
    speakers = [set(data.tables["utt2spk"].values()) for data in found.values()]
    if corpus not in ("esd", "ljspeech", "nit_song070", "opencpop", "m4singer"):  # those are split otherwise
        assert not speakers[0] & speakers[-1]


SAMPLES = {
    "ravdess_speech": (
        "ravdess-01-03-01-05-02-02-01-01",
        {"utt2emo": "angry", "utt2intensity": "1", "text": "Dogs are sitting by the door", "utt2spk": "ravdess-01"},
    ),
    "ravdess_song": (
        "ravdess-01-03-02-03-01-02-01-01",
        {"utt2emo": "happy", "utt2intensity": "0.5", "text": "Dogs are sitting by the door", "utt2spk": "ravdess-01"},
    ),
    "ravdess": ("ravdess-02-03-01-01-01-01-01-02", {"utt2emo": "neutral", "utt2intensity": "0"}),
    "nemo": ("nemo-EB0_anger_2", {"utt2emo": "angry", "text": "To „jest” próba.", "utt2spk": "nemo-EB0"}),
    "emodb": (
        "emodb-08-08b10Wa",
        {"utt2emo": "angry", "text": "Die wird auf dem Platz sein, wo wir sie immer hinlegen."},
    ),
    "cremad": (
        "cremad-1001_IEO_FEA_LO",
        {"utt2emo": "fearful", "utt2intensity": "0.3333", "text": "It's eleven o'clock"},
    ),
    "esd": ("esd-0001_001451", {"utt2emo": "surprised", "text": "The nine words of line 51.", "utt2spk": "esd-0001"}),
    "an4": ("an4-fash-an251-fash-b", {"utt2emo": "neutral", "text": "YES", "utt2spk": "an4-fash"}),
    "ljspeech": ("lj-LJ001-0002", {"utt2emo": "neutral", "text": 'The "1 pages" of it', "utt2spk": "lj"}),
    "vctk": ("vctk-p225_002", {"text": "Sentence 2.", "utt2spk": "vctk-p225"}),
    "nit_song070": (
        "nit-f001-004",
        {"label": "0.00000 0.10000 sil 0.10000 0.15000 h 0.15000 0.25000 a", "utt2spk": "nit-f001"},
    ),
    "opencpop": (
        "opencpop-2001000002",
        {
            "text": "你好",
            "label": "0.00000 0.10000 SP 0.10000 0.12000 n 0.12000 0.15000 i 0.15000 0.19000 h 0.19000 0.25000 ao",
        },
    ),
    "m4singer": ("m4singer-Alto-1-一首_歌-0001", {"text": "啊", "utt2spk": "m4singer-Alto-1"}),
    "gtsinger": (
        "gtsinger-EN-Alto-1-Glissando-my_love-Glissando_Group-0000",
        {"text": "love", "utt2emo": "happy", "label": "0.00000 0.05000 <AP> 0.05000 0.10000 L 0.10000 0.20000 AH1"},
    ),
}


@pytest.mark.parametrize("corpus", VOICES)
def test_labels_are_read_from_names_and_transcripts(trees, tmp_path, corpus):
    train = prepared(trees, corpus, tmp_path)["train"].tables
    utterance, expected = SAMPLES[corpus]
    assert {name: train[name].get(utterance) for name in expected} == expected


def test_held_out_speakers_are_those_of_the_rule(trees, tmp_path):
    rule = {
        "ravdess": {"ravdess-17"},
        "nemo": {"nemo-SM0"},
        "emodb": {"emodb-15"},
        "vctk": {"vctk-p360", "vctk-s5"},
        "cremad": {"cremad-1091"},
        "gtsinger": {"gtsinger-EN-Alto-2"},
    }
    for corpus, held in rule.items():
        assert set(prepared(trees, corpus, tmp_path / corpus)["test"].tables["utt2spk"].values()) == held
    assert prepared(trees, "nit_song070", tmp_path / "nit")["test"].utterances == ("nit-f001-007",)
    assert prepared(trees, "ljspeech", tmp_path / "lj")["train"].utterances[-1] == "lj-LJ001-0003"


def test_intensity_is_written_only_where_it_is_labelled(trees, tmp_path):
    levels = prepared(trees, "cremad", tmp_path)["train"].tables["utt2intensity"]
    assert "cremad-1001_DFA_ANG_XX" not in levels
    assert (levels["cremad-1001_WSI_NEU_XX"], levels["cremad-1001_IEO_ANG_HI"]) == ("0", "1")


def test_singing_has_scores_and_no_emotion_that_nobody_labelled(trees, tmp_path):
    for corpus, ending in (("nit_song070", ".lab"), ("m4singer", ".mid"), ("gtsinger", ".json")):
        tables = prepared(trees, corpus, tmp_path / corpus)["train"].tables
        assert all(path.endswith(ending) for path in tables["score.scp"].values())
        assert ("utt2emo" in tables) == (corpus == "gtsinger")
    names = prepared(trees, "gtsinger", tmp_path / "again")["train"].utterances
    assert not any("Speech" in name for name in names)


def test_opencpop_without_its_test_list_is_split_the_same(tmp_path):
    tree = fabricated_corpus("opencpop", tmp_path / "opencpop")
    (tree / "segments" / "test.txt").unlink()
    assert prepare("opencpop", tree, tmp_path / "out", str) == {"train": 2, "test": 1}


def test_vctk_of_the_older_release(tmp_path):
    tree = fabricated_corpus("vctk", tmp_path / "vctk")
    for path in list(tree.glob("wav48_silence_trimmed/*/*_mic1.flac")):
        new = tree / "wav48" / path.parent.name / path.name.replace("_mic1.flac", ".wav")
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    assert prepare("vctk", tree, tmp_path / "out", str) == {"train": 4, "test": 4}


SOX = """#!{python}
import io, sys
import numpy as np, soundfile
words = sys.argv[1:]
rate, path = int(words[words.index("-r") + 1]), words[-4]
samples = np.fromfile(path, "<i2" if "-L" in words else ">i2").astype(np.int16)
buffer = io.BytesIO()
soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
sys.stdout.buffer.write(buffer.getvalue())
"""


@pytest.mark.parametrize(
    ("corpus", "utterance", "rate"), [("an4", "an4-mblb-cen1-mblb-b", 16_000), ("nit_song070", "nit-f001-004", 48_000)]
)
def test_headerless_sound_is_read_through_sox(trees, tmp_path, monkeypatch, corpus, utterance, rate):
    sox = tmp_path / "bin" / "sox"  # stands in for sox and understands only what is asked of it here
    sox.parent.mkdir()
    sox.write_text(SOX.format(python=sys.executable))
    sox.chmod(sox.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(sox.parent))
    entry = prepared(trees, corpus, tmp_path / "out")["train"].tables["wav.scp"][utterance]
    audio = read_scp(entry)
    assert (audio.sample_rate, len(audio.samples)) == (rate, rate // 4)
    assert np.abs(np.diff(audio.samples)).max() < 0.2  # the other byte order is noise


def test_sphere_files_go_through_sox(trees, tmp_path):
    entry = prepared(trees, "an4", tmp_path)["test"].tables["wav.scp"]["an4-fcaw-an406-fcaw-b"]
    assert entry.startswith("sox ") and entry.endswith(" -t wav - |")


# --- tables ---------------------------------------------------------------------------------------------------------

TABLES = {
    "ravdess_speech": (
        "file\tduration",
        ["Actor_01/03-01-05-02-02-01-01.wav\t0.250", "Actor_17/03-01-01-01-01-01-17.wav\t0.25"],
    ),
    "nemo": (
        "file\tspeaker\temotion\ttext\tduration",
        ["samples/EB0_anger_2.wav\tEB0\tanger\tTo jest.\t0.250", "samples/SM0_anger_2.wav\tSM0\tanger\tTo jest.\t0.25"],
    ),
    "emodb": ("file\tduration", ["wav/08b10Wa.wav\t0.250", "wav/15a01Fa.wav\t0.25"]),
    "an4": (
        "file\tsplit\tspeaker\ttext\tduration",
        [
            "wav/an4_clstk/fash/an251-fash-b.wav\ttrain\tfash\tYES\t0.250",
            "wav/an4test_clstk/fcaw/an407-fcaw-b.wav\ttest\tfcaw\tENTER\t0.25",
        ],
    ),
    "ljspeech": ("file\ttext\tduration", [f"wavs/LJ001-{n:04d}.wav\tWords\t0.250" for n in range(1, 16)]),
}


@pytest.mark.parametrize("corpus", TABLES)
def test_tables_give_what_the_published_layout_gives(trees, tmp_path, corpus):
    name = corpus.removesuffix("_speech")
    published = prepared(trees, corpus, tmp_path / "published")
    tree = fabricated_corpus(name, tmp_path / "tree")
    head, rows = TABLES[corpus]
    (tree / "table.tsv").write_text("\n".join([head, *rows]) + "\n")
    prepare(corpus, tree, tmp_path / "out", str)
    for part in ("train", "test"):
        tables, before = DataDir.read(tmp_path / "out" / part).tables, published[part].tables
        assert tables["utt2dur"]
        for utterance in tables["wav.scp"]:
            assert tables["utt2dur"][utterance] == "0.250"
            for kind in ("utt2spk", "utt2emo"):
                assert tables[kind][utterance] == before[kind][utterance]


def test_nit_song070_from_a_table(tmp_path):
    tree = fabricated_corpus("nit_song070", tmp_path / "nit")
    for song, start in (("004", ""), ("007", "label_phone_align__")):
        name = f"nitech_jp_song070_f001_{song}"
        (tree / "data" / "labels" / "full" / f"{name}.lab").rename(tree / f"{start}{name}.lab")
        (tree / f"{name}.flac").write_bytes(b"")
    rows = [f"nitech_jp_song070_f001_{song}.flac\t{song}\t0.25" for song in ("004", "007")]
    (tree / "table.tsv").write_text("file\tsong\tduration\n" + "\n".join(rows))
    assert prepare("nit_song070", tree, tmp_path / "out", str) == {"train": 1, "test": 1}
    test = DataDir.read(tmp_path / "out" / "test").tables
    assert test["score.scp"]["nit-f001-007"].endswith("label_phone_align__nitech_jp_song070_f001_007.lab")
    assert test["label"]["nit-f001-007"].endswith("0.25000 a")


def test_quotes_that_csv_writers_leave_in_a_table_are_removed(tmp_path):
    tree = fabricated_corpus("ljspeech", tmp_path / "lj")
    cells = ['"""a book, or """"a Bible"""" of it,"""', 'the "lower-case" than', *["x"] * 12]
    rows = [f"wavs/LJ001-{n:04d}.wav\t{cell}\t1" for n, cell in enumerate(cells, 1)]
    (tree / "table.tsv").write_text("file\ttext\tduration\n" + "\n".join(rows))
    prepare("ljspeech", tree, tmp_path / "out", str)
    text = DataDir.read(tmp_path / "out" / "train").tables["text"]
    assert list(text.values()) == ['a book, or "a Bible" of it,', 'the "lower-case" than']


# --- refusals -------------------------------------------------------------------------------------------------------

BAD_FILES = {
    "ravdess": ("Actor_01/03-01-09-01-01-01-01.wav", "seven two-digit codes"),
    "emodb": ("wav/03a01Xa.wav", "03a01Fa"),
    "cremad": ("AudioWAV/1001_DFA_JOY_XX.wav", "1001_DFA_ANG_XX"),
    "esd": ("0001/Angry/train/0002_000001.wav", "0001_NNNNNN"),
    "vctk": ("wav48_silence_trimmed/p225/x_mic1.flac", "p225_001_mic1"),
    "nit_song070": ("data/raw/song.raw", "nitech_jp_song070"),
    "gtsinger": ("English/EN-Alto-1/Vibrato/s/Control_Group/0000.wav", "0000.json: cannot be read"),
}
BAD_TEXTS = {
    "nemo": ("data.tsv", "file_id\temotion\n", "raw_text|file_id"),
    "an4": ("etc/an4_train.transcription", "YES\n", "accepted: WORDS"),
    "ljspeech": ("metadata.csv", "LJ1|x\n", "accepted: LJ001-0001"),
    "opencpop": ("segments/transcriptions.txt", "2001000001|a|b|C4|1|0.1 0.2|0\n", "1 phones but 2 durations"),
    "m4singer": ("meta.json", '[{"item_name": "Alto-1#../x#0000"}]', "accepted: SINGER#SONG#NUMBER"),
    "gtsinger": (
        "English/EN-Alto-1/Glissando/my love/Control_Group/0000.json",
        '[{"word": 1}]',
        "accepted: words with",
    ),
}


@pytest.mark.parametrize("corpus", BAD_FILES)
def test_names_that_the_corpus_does_not_have_are_refused(tmp_path, corpus):
    tree = fabricated_corpus(corpus, tmp_path / "tree")
    name, expected = BAD_FILES[corpus]
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_bytes(b"")
    with pytest.raises(DataError, match=expected) as caught:
        prepare(corpus, tree, tmp_path / "out", str)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("corpus", BAD_TEXTS)
def test_damaged_transcripts_are_refused(tmp_path, corpus):
    tree = fabricated_corpus(corpus, tmp_path / "tree")
    name, contents, expected = BAD_TEXTS[corpus]
    (tree / name).write_text(contents)
    with pytest.raises(DataError, match=expected) as caught:
        prepare(corpus, tree, tmp_path / "out", str)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_sound_and_equal_ids_are_refused(tmp_path):
    tree = fabricated_corpus("ljspeech", tmp_path / "lj")
    (tree / "wavs" / "LJ001-0004.wav").unlink()
    with pytest.raises(DataError, match=r"LJ001-0004\.wav: does not exist \(1 files"):
        prepare("ljspeech", tree, tmp_path / "out", str)
    tree = fabricated_corpus("ravdess", tmp_path / "ravdess")
    (tree / "copy").mkdir()
    (tree / "Actor_01" / "03-01-01-01-01-01-01.wav").rename(tree / "copy" / "03-01-01-01-01-01-01.wav")
    fabricated_corpus("ravdess", tree)
    with pytest.raises(DataError, match="same utterance id"):
        prepare("ravdess", tree, tmp_path / "out", str)


@pytest.mark.parametrize(
    ("row", "expected"), [("../x.wav\t1", "outside"), ("wav/03a01Fa.wav\tlong", "a number from 0")]
)
def test_bad_rows_of_a_table_are_refused(tmp_path, row, expected):
    tree = fabricated_corpus("emodb", tmp_path / "emodb")
    (tree / "table.tsv").write_text(f"file\tduration\n{row}\n")
    with pytest.raises(DataError, match=expected):
        prepare("emodb", tree, tmp_path / "out", str)


def test_unknown_tree_is_refused(tmp_path):
    with pytest.raises(AffgenError, match="accepted: ravdess"):
        fabricated_corpus("timit", tmp_path)


REAL = {
    "ravdess_speech": ("ravdess_speech", {"train": 959, "test": 240}),
    "ravdess_song": ("ravdess_song_trunc", {"train": 704, "test": 130}),
    "nemo": ("nemo", {"train": 3493, "test": 988}),
    "emodb": ("emodb", {"train": 408, "test": 127}),
    "an4": ("an4", {"train": 948, "test": 130}),
    "ljspeech": ("ljspeech_mini", {"train": 120, "test": 12}),
    "nit_song070": ("nit_song070_2", {"train": 1, "test": 1}),
}


@pytest.mark.skipif("AFFGEN_DATA" not in os.environ, reason="AFFGEN_DATA does not name the folder of the real corpora")
@pytest.mark.parametrize("corpus", REAL)
def test_real_voices(tmp_path, corpus):
    folder, counts = REAL[corpus]
    assert prepare(corpus, Path(os.environ["AFFGEN_DATA"]) / folder, tmp_path, str) == counts
    for part in counts:
        assert validate(tmp_path / part, audio=corpus in ("ljspeech", "nit_song070")).problems == ()
