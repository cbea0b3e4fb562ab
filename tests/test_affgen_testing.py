from __future__ import annotations

import csv

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.score import midi_bytes, read_midi
from affgen.testing import damaged_midis, fabricated_emopia, fabricated_score


@pytest.mark.parametrize("quadrant", ["Q1", "Q2", "Q3", "Q4"])
def test_pieces_are_deterministic_and_survive_a_file(quadrant):
    score = fabricated_score(7, bars=5, quadrant=quadrant)
    assert score == fabricated_score(7, bars=5, quadrant=quadrant)
    assert score != fabricated_score(8, bars=5, quadrant=quadrant)
    assert read_midi(midi_bytes(score)) == score
    assert len(score.bar_lines()) - 1 == 5 == len(score.markers)


@pytest.mark.parametrize("seed", range(5))
def test_features_follow_the_quadrant(seed):
    pieces = {quadrant: fabricated_score(seed, quadrant=quadrant) for quadrant in ("Q1", "Q2", "Q3", "Q4")}
    for loud, soft in (("Q1", "Q4"), ("Q2", "Q3"), ("Q1", "Q3"), ("Q2", "Q4")):
        assert pieces[loud].tempos[0].bpm > pieces[soft].tempos[0].bpm + 30
        assert pieces[loud].arrays()["velocity"].mean() > pieces[soft].arrays()["velocity"].mean() + 25
        assert len(pieces[loud].notes) > 2 * len(pieces[soft].notes)
    assert {quadrant: piece.markers[-1].text.split("_")[1] for quadrant, piece in pieces.items()} == {
        "Q1": "maj",
        "Q2": "min",
        "Q3": "min",
        "Q4": "maj",
    }


@pytest.mark.parametrize(("bars", "quadrant"), [(0, "Q1"), (8, "Q5"), (8, "happy")])
def test_pieces_that_cannot_be_are_refused(bars, quadrant):
    with pytest.raises(AffgenError, match="accepted"):
        fabricated_score(0, bars=bars, quadrant=quadrant)


def test_corpus_has_the_layout_of_emopia(tmp_path):
    fabricated_emopia(tmp_path / "a", songs=8, seed=1)
    fabricated_emopia(tmp_path / "b", songs=8, seed=1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    with open(tmp_path / "a" / "table.tsv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 16 == len(files) - 1
    assert list(rows[0]) == ["file", "song", "split", "quadrant"]
    assert all(row["file"] == f"midis/{row['quadrant']}_{row['song']}_{i % 2}.mid" for i, row in enumerate(rows))
    assert {row["quadrant"] for row in rows if row["split"] == "train"} == {"Q1", "Q2", "Q3", "Q4"}
    trained, validated = ({row["song"] for row in rows if row["split"] == split} for split in ("train", "val"))
    assert validated and not trained & validated
    assert all(read_midi(tmp_path / "a" / row["file"]).notes for row in rows)


def test_a_corpus_of_one_song_is_refused(tmp_path):
    with pytest.raises(AffgenError, match="two at least"):
        fabricated_emopia(tmp_path, songs=1, seed=0)


def test_damaged_files_are_deterministic_and_named_once():
    first, second = (dict(damaged_midis(np.random.default_rng(3))) for _ in range(2))
    assert first == second and len(first) == len(list(damaged_midis(np.random.default_rng(3)))) >= 20
