"""``affgen music evaluate``: a complete record for model, ablation and baseline, and figures that are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from affgen.corpora import prepare
from affgen.score import Note, Score, read_midi
from affgen.testing import fabricated_emopia, fabricated_score
from music import evaluate as evaluation
from music.beats import grid_of
from music.compose import Composer
from music.config import MINIATURE
from music.data import load_clips
from music.evaluator import Evaluator
from music.tokens import Grid, score_from_grid, snap

Command = Callable[..., Any]
QUADRANTS = ("Q1", "Q2", "Q3", "Q4")
BRIEF = ("--pieces", 1, "--grid", 1, "--bars", 2, "--quiet")
KEYS = {"command", "model", "pieces", "bars", "seed", "evaluator", "seconds_per_piece", "real", "generated"}
KEYS |= {"guidance", "prior", "overlap", "bar_means", "grid"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare("emopia", fabricated_emopia(folder / "emopia", songs=8, seed=1), folder / "data", say=lambda line: None)
    return folder / "data" / "train"


def numbers(value: Any) -> list[float]:
    """All numbers in a record, however deep."""
    if isinstance(value, dict):
        return [x for item in value.values() for x in numbers(item)]
    if isinstance(value, list):
        return [x for item in value for x in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def evaluated(command: Command, model: Path, corpus: Path, out: Path, *flags: object) -> dict[str, Any]:
    command("music", "evaluate", corpus, "--model", model, "--out", out, *BRIEF, *flags).done()
    return json.loads(out.read_text())


VARIANTS = {
    "model": (),
    "guidance": ("--guidance", 0),
    "no prior": ("--prior", "none"),
    "copied": ("--train",),
    "baseline": ("--baseline", "--train"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_record_is_complete(command: Command, miniature: Path, corpus: Path, tmp_path: Path, name: str) -> None:
    flags = VARIANTS[name]
    data = (corpus,) if "--train" in flags else ()
    record = evaluated(command, miniature, corpus, tmp_path / "m.json", *flags, *data)
    assert set(record) == KEYS | ({"copied"} if data else set())
    assert (record["pieces"], record["bars"], record["seed"]) == (1, 2, 0)
    assert record["model"] == ("first-order Markov chain" if name == "baseline" else "tiny")
    asked = {"guidance": 0 if name == "guidance" else None, "prior": "none" if name == "no prior" else "model"}
    assert {key: record[key] for key in asked} == asked
    assert record["evaluator"] == Evaluator.from_pretrained().card_line
    assert np.isfinite(numbers(record)).all() and "NaN" not in (tmp_path / "m.json").read_text()
    for part, pieces in (("real", len((corpus / "midi.scp").read_text().splitlines())), ("generated", 4)):
        assert record[part]["pieces"] == pieces == np.sum(record[part]["confusion"])
        assert record[part]["quadrant"] == pytest.approx(np.trace(record[part]["confusion"]) / pieces)
        assert set(record["bar_means"][part]) == {"BPR", "BNPC", "BPOLY"}
    assert set(record["overlap"]) == set(evaluation.FEATURES)
    assert len(record["grid"]["asked"]) == len(record["grid"]["read"]) == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == (["clips.npz"] if data else []) + ["m.json"]


@pytest.mark.parametrize("flags", [("--prior", "none"), ("--guidance", 0)])
def test_an_ablation_is_told_from_the_model(
    command: Command, miniature: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple
) -> None:
    monkeypatch.setattr(evaluation, "accuracy", lambda *rest: {})
    monkeypatch.setattr(evaluation, "grid_correlation", lambda *rest: {})
    monkeypatch.setattr(evaluation, "overlaps", lambda *rest: {})
    monkeypatch.setattr(evaluation, "bar_means", lambda *rest: {})
    usual, other = (evaluated(command, miniature, corpus, tmp_path / "m.json", *f) for f in ((), flags))
    assert {**usual, "seconds_per_piece": 0} != {**other, "seconds_per_piece": 0}


def test_the_same_seed_gives_the_same_figures_and_json_prints_them(
    command: Command, miniature: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.json"
    record = evaluated(command, miniature, corpus, out)
    done = command("music", "evaluate", corpus, "--model", miniature, "--out", out, *BRIEF, "--json").done()
    assert {**done.json, "seconds_per_piece": 0} == {**record, "seconds_per_piece": 0}
    other = evaluated(command, miniature, corpus, out, "--seed", 50)
    assert other["generated"] != record["generated"] or other["grid"] != record["grid"]
    assert other["real"] == record["real"]


def test_pieces_are_kept_and_are_what_the_composer_makes(
    command: Command, miniature: Path, composer: Composer, corpus: Path, tmp_path: Path
) -> None:
    evaluated(command, miniature, corpus, tmp_path / "m.json", "--keep", tmp_path / "kept", "--seed", 7)
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [f"{q}_000.mid" for q in QUADRANTS]
    for number, quadrant in enumerate(QUADRANTS):
        piece = composer.compose(quadrant, bars=2, seed=7 + number)
        assert read_midi(tmp_path / "kept" / f"{quadrant}_000.mid").notes == piece.score.notes


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--bars", "0"), "accepted: a whole number from 1"),
        (("--bars", "-3"), "accepted: a whole number from 1"),
        (("--pieces", "0"), "accepted: a whole number from 1"),
        (("--guidance", "nan"), "accepted: a finite number"),
        (("--prior", "other"), "invalid choice: 'other'"),
        (("--model", "none"), "is not a folder; a model directory holds"),
        (("--baseline",), "--baseline needs --train"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    command: Command, miniature: Path, corpus: Path, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "m.json"
    command("music", "evaluate", corpus, "--model", miniature, "--out", out, *BRIEF, *flags).refused(words)
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_used_is_refused(command: Command, miniature: Path, corpus: Path, tmp_path: Path) -> None:
    flags = ("--model", miniature, "--out", tmp_path / "m.json", *BRIEF)
    command("music", "evaluate", tmp_path / "none", *flags).refused("is not a folder")
    lines = [line for line in (corpus / "midi.scp").read_text().splitlines() if not line.startswith("Q3")]
    data = tmp_path / "data"
    data.mkdir()
    (data / "midi.scp").write_text("\n".join(lines) + "\n")
    (data / "utt2emo").write_text("".join(f"{line.split()[0]} {line[:2]}\n" for line in lines))
    command("music", "evaluate", data, *flags).refused("needs clips of all of Q1, Q2, Q3, Q4")
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    with (data / "midi.scp").open("a") as scp, (data / "utt2emo").open("a") as labels:
        scp.write(f"Q3_bad {tmp_path}/bad.mid\n")
        labels.write("Q3_bad Q3\n")
    command("music", "evaluate", data, *flags).refused("bad.mid: not a usable MIDI file")
    assert not (tmp_path / "m.json").exists()


def test_an_output_that_cannot_be_is_refused_before_any_work(command: Command, corpus: Path, tmp_path: Path) -> None:
    command("music", "evaluate", corpus, "--model", "none", "--out", tmp_path / "none/m.json").refused("does not exist")
    command("music", "evaluate", corpus, "--model", "none", "--out", tmp_path).refused("is a folder")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composing fails, so that what is only noticed afterwards is exit code 1."""

    def decode(self: Composer, requests: list[Any]) -> Any:
        raise RuntimeError("composed")

    monkeypatch.setattr(Composer, "decode", decode)


@pytest.mark.parametrize(
    "flags",
    [("--bars", "10000"), ("--seed", "-1"), ("--keep", "file"), ("--train", "none")],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_before_composing(
    command: Command,
    miniature: Path,
    corpus: Path,
    tmp_path: Path,
    idle: None,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    command("music", "evaluate", corpus, "--model", miniature, "--out", "m.json", *BRIEF, *flags).refused()


# ------------------------------------------------------------------------------------------------------------ figures


class Reader:
    """An evaluator that reads valence and arousal from the first two notes: pitch 60 is 0, 70 is 1, 50 is -1."""

    def read(self, score: Score) -> Any:
        valence, arousal = ((note.pitch - 60) / 10 for note in score.notes[:2])
        index = {(True, True): 0, (False, True): 1, (False, False): 2, (True, False): 3}[valence > 0, arousal > 0]
        return SimpleNamespace(quadrant=QUADRANTS[index], valence=valence, arousal=arousal)


def saying(valence: float, arousal: float) -> Score:
    return Score((Note(0.0, 1.0, round(60 + 10 * valence)), Note(1.0, 1.0, round(60 + 10 * arousal))))


def spoken(emotion: str, count: int) -> list[Grid]:
    valence, arousal = map(float, emotion.removeprefix("va:").split("/"))
    return [grid_of(saying(valence, arousal)) for _ in range(count)]


def test_accuracy_counts_quadrants_and_halves() -> None:
    scores = {
        "Q1": [saying(0.5, 0.5), saying(0.5, -0.5)],  # the second is heard as Q4: the valence is right
        "Q2": [saying(-0.5, 0.5)],
        "Q3": [saying(0.5, 0.5)],  # both halves wrong
        "Q4": [],
    }
    result = evaluation.accuracy(Reader(), scores)
    assert (result["quadrant"], result["arousal"], result["valence"]) == (0.5, 0.5, 0.75)
    assert result["pieces"] == 4
    assert result["confusion"] == [[1, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_correlations_of_a_perfect_and_a_contrary_model() -> None:
    perfect = evaluation.grid_correlation(Reader(), spoken, 2)
    assert perfect["pieces_per_point"] == 2
    assert perfect["asked"] == [[v, a] for v in evaluation.AXIS for a in evaluation.AXIS]
    np.testing.assert_allclose(perfect["read"], perfect["asked"], atol=0.01)
    for key in ("valence", "arousal", "valence_of_means", "arousal_of_means"):
        assert perfect[key] == pytest.approx(1.0)

    def contrary(emotion: str, count: int) -> list[Grid]:
        valence, arousal = map(float, emotion.removeprefix("va:").split("/"))
        return spoken(f"va:{-valence}/{arousal}", count)

    assert evaluation.grid_correlation(Reader(), contrary, 1)["valence"] == pytest.approx(-1.0)


def test_what_is_alike_overlaps_and_what_is_not_does_not() -> None:
    def pieces(quadrant: str) -> dict[str, list[Score]]:
        return {quadrant: [fabricated_score(seed, quadrant=quadrant) for seed in range(12)]}

    same, other = (evaluation.overlaps(pieces("Q1"), pieces(quadrant)) for quadrant in ("Q1", "Q3"))
    assert all(value == pytest.approx(1.0, abs=0.02) for value in same.values())
    assert other["density"] < 0.1 and other["velocity"] < 0.1


def test_means_over_bars_follow_the_bar_lines_of_each_score() -> None:
    """Two bars: a third sounding together, then a single note."""
    score = Score((Note(0.0, 4.0, 60), Note(0.0, 4.0, 64), Note(4.0, 4.0, 72)))
    assert evaluation.bar_means({"Q1": [score]}) == {"BPR": 2.0, "BNPC": 1.5, "BPOLY": 1.5}


def test_a_copy_is_found_by_pitch_and_by_rhythm(corpus: Path) -> None:
    clips = load_clips(corpus, MINIATURE.tokens)
    theirs = score_from_grid(snap(clips[0].grid, MINIATURE.tokens))
    result = evaluation.copied({"Q1": [theirs]}, clips, MINIATURE.tokens)
    assert result["pitch"]["longest"] == result["rhythm"]["longest"] == len(theirs.notes)
    own = Score(tuple(Note(k / 4, 0.25, 30 + (k * k * 7) % 61) for k in range(40)))
    fresh = evaluation.copied({"Q1": [own, own]}, clips, MINIATURE.tokens)
    assert fresh["rhythm"]["longest"] < 10 and fresh["pitch"]["p95"] >= fresh["pitch"]["median"] >= 0


def test_the_baseline_is_measured_like_the_model(corpus: Path, miniature: Path, tmp_path: Path) -> None:
    """Its pieces are of the bars asked for and lie on the grid of the tokens."""
    args = SimpleNamespace(
        model=miniature, seed=3, guidance=None, baseline=True, train=str(corpus), out=tmp_path / "m.json", bars=3
    )
    generate, name = evaluation._generator(args)
    assert name == "first-order Markov chain"
    for grid in generate("Q2", 3):
        assert grid.bars == 3
        assert (grid.notes[:, 0] + grid.notes[:, 2]).max() == 48
        np.testing.assert_array_equal(snap(grid, MINIATURE.tokens).notes[:, :2], grid.notes[:, :2])
