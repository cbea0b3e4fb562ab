"""Preparing corpora: the layouts they are published in, refusals, and that preparing again changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from affgen.corpora import CORPORA, prepare
from affgen.datadir import DataDir, validate
from affgen.errors import DataError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"MThd")
    return folder


@pytest.fixture
def table(tmp_path):
    source = files(tmp_path / "emopia", "midis/Q1_a-B_c_0.mid", "midis/Q1_a-B_c_1.mid", "midis/Q3_zz_0.mid")
    rows = ["Q1_a-B_c_0.mid\ta-B_c\ttrain\tQ1", "Q1_a-B_c_1.mid\ta-B_c\ttrain\tQ1", "Q3_zz_0.mid\tzz\tval\tQ3"]
    (source / "table.tsv").write_text("file\tsong\tsplit\tquadrant\n" + "".join(f"midis/{row}\n" for row in rows))
    return source


@pytest.fixture
def published(tmp_path):
    source = files(
        tmp_path / "EMOPIA_1.0",
        *("midis/Q1_a-B_c_0.mid", "midis/Q4_a-B_c_1.mid", "midis/Q2_-x__2.mid", "midis/Q3_zz_0.mid"),
        *("midis/Q3_yy_0.mid", "midis/readme.mid"),
    )
    (source / "split").mkdir()
    return source


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_emopia_from_a_table(table, tmp_path):
    said: list[str] = []
    assert prepare("emopia", table, tmp_path / "data", said.append) == {"train": 2, "val": 1}
    assert "CC BY-NC-SA 4.0" in said[0]
    train = DataDir.read(tmp_path / "data" / "train")
    assert train.tables["utt2emo"] == {"Q1_a-B_c_0": "Q1", "Q1_a-B_c_1": "Q1"}
    assert train.tables["utt2spk"] == {"Q1_a-B_c_0": "a-B_c", "Q1_a-B_c_1": "a-B_c"}
    assert train.tables["midi.scp"]["Q1_a-B_c_0"] == str(table / "midis" / "Q1_a-B_c_0.mid")
    assert validate(tmp_path / "data" / "train").ok
    assert validate(tmp_path / "data" / "val").ok


def test_preparing_again_gives_the_same_bytes_from_any_directory(table, tmp_path, monkeypatch):
    prepare("emopia", table, tmp_path / "data", str)
    before = tree(tmp_path / "data")
    monkeypatch.chdir(table)
    prepare("emopia", ".", tmp_path / "data", str)
    assert tree(tmp_path / "data") == before


def test_licence_is_printed_first(table, tmp_path, capsys):
    prepare("emopia", table, tmp_path / "data")
    assert capsys.readouterr().out.startswith("emopia: CC BY-NC-SA 4.0")


def test_published_emopia_without_split_files_is_all_train(published, tmp_path):
    assert prepare("emopia", published, tmp_path / "data", str) == {"train": 5}
    train = DataDir.read(tmp_path / "data" / "train")
    assert train.tables["utt2spk"]["Q2_-x__2"] == "-x_"
    assert train.tables["utt2emo"]["Q4_a-B_c_1"] == "Q4"


def test_published_emopia_with_songs_or_clips_per_split(published, tmp_path):
    split = published / "split"
    (split / "train_SL.csv").write_text("songID,Q1,Q2,Q3,Q4,DominantQ\na-B_c,1,0,0,1,1\n")
    (split / "val_clip.csv").write_text(",clip_name\n0,Q2_-x__2.mid\n")
    (split / "test_SONGS.csv").write_text("zz\n")
    assert prepare("emopia", published, tmp_path / "data", str) == {"train": 2, "val": 1, "test": 1}
    everything = [DataDir.read(tmp_path / "data" / part).utterances for part in ("train", "val", "test")]
    assert everything == [("Q1_a-B_c_0", "Q4_a-B_c_1"), ("Q2_-x__2",), ("Q3_zz_0",)]


def test_a_song_in_two_splits_is_refused(published, tmp_path):
    for split in ("train", "val"):
        (published / "split" / f"{split}_SONGS.csv").write_text("zz\n")
    with pytest.raises(DataError, match="in train and val"):
        prepare("emopia", published, tmp_path / "data", str)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("midis/none.mid\tzz\tval\tQ3", "does not exist"),
        ("midis/Q3_zz_0.mid\tzz\tdev\tQ3", "accepted: split"),
        ("midis/Q3_zz_0.mid\tzz\tval\tQ5", "accepted: split"),
        ("midis/Q3_zz_0.mid\ta b\tval\tQ3", "accepted: split"),
        ("midis/Q3_zz_0.mid\tzz", "column"),
        ("midis/../../x.mid\tzz\tval\tQ3", "outside"),
        ("/etc/passwd\tzz\tval\tQ3", "outside"),
    ],
)
def test_bad_rows_are_refused_and_write_nothing(table, tmp_path, row, expected):
    (table / "table.tsv").write_text(f"file\tsong\tsplit\tquadrant\n{row}\n")
    with pytest.raises(DataError, match=expected) as caught:
        prepare("emopia", table, tmp_path / "data", str)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def vgmidi_rows(*rows: str) -> str:
    return "midi,in_pieces_dir,measure,valence_mean,arousal_mean\n" + "".join(f"{row}\n" for row in rows)


def test_vgmidi_measures(tmp_path):
    source = files(tmp_path / "vg", "pieces/A Song's End.mid", "pieces/b.mid")
    rows = ["A Song's End.mid,1,0,0.5,-0.25", "A Song's End.mid,1,1,0.1,0.75", "b.mid,1,0,0,0", "gone.mid,0,0,0,0"]
    (source / "per_measure_va.csv").write_text(vgmidi_rows(*rows))
    assert prepare("vgmidi", source, tmp_path / "data", str) == {"eval": 2}
    data = DataDir.read(tmp_path / "data" / "eval")
    assert data.tables["measure_va"]["A_Song's_End"] == "0.5000/-0.2500 0.1000/0.7500"
    assert data.tables["utt2va"]["A_Song's_End"] == "0.3000 0.2500"
    assert data.tables["midi.scp"]["A_Song's_End"] == str(source / "pieces" / "A Song's End.mid")
    assert validate(tmp_path / "data" / "eval").ok


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["b.mid,1,1,0,0"], "not counted from 0"),
        (["b.mid,1,0,2,0"], "from -1 to 1"),
        (["b.mid,1,0,x,0"], "from -1 to 1"),
        (["c.mid,1,0,0,0"], "does not exist"),
        (["a b.mid,1,0,0,0", "a_b.mid,1,0,0,0"], "same utterance id"),
    ],
)
def test_bad_vgmidi_is_refused(tmp_path, rows, expected):
    source = files(tmp_path / "vg", "pieces/b.mid", "pieces/a b.mid", "pieces/a_b.mid")
    (source / "per_measure_va.csv").write_text(vgmidi_rows(*rows))
    with pytest.raises(DataError, match=expected):
        prepare("vgmidi", source, tmp_path / "data", str)


def test_wrong_folder_and_unknown_corpus_are_refused(tmp_path):
    for corpus in CORPORA:
        with pytest.raises(DataError, match="is not a folder"):
            prepare(corpus, tmp_path / "none", tmp_path / "data", str)
        with pytest.raises(DataError):
            prepare(corpus, tmp_path, tmp_path / "data", str)
    with pytest.raises(DataError, match="accepted: emopia, vgmidi"):
        prepare("lakh", tmp_path, tmp_path / "data", str)


@pytest.mark.skipif("AFFGEN_DATA" not in os.environ, reason="AFFGEN_DATA does not name the folder of the real corpora")
def test_real_corpora(tmp_path):
    root = Path(os.environ["AFFGEN_DATA"])
    assert prepare("emopia", root / "emopia", tmp_path, str) == {"train": 876, "val": 114}
    assert prepare("vgmidi", root / "vgmidi", tmp_path, str) == {"eval": 126}
    assert all(validate(tmp_path / part).ok for part in ("train", "val", "eval"))
    songs = [set(DataDir.read(tmp_path / part).tables["utt2spk"].values()) for part in ("train", "val")]
    assert not songs[0] & songs[1]
