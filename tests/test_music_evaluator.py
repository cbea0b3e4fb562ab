"""The evaluator: a small training on made-up music, its model directory, and the shipped model on real clips."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from affgen.corpora import prepare
from affgen.emotion.labels import QUADRANTS
from affgen.errors import AffgenError, DataError, ModelError
from affgen.score import Note, Score, read_midi
from affgen.testing import fabricated_emopia, fabricated_score
from music.evaluator import LEAF, Evaluator, Forest, excerpt
from music.evaluator_train import EvaluatorConfig, accuracy, read_clips, train_evaluator
from music.features import FEATURE_NAMES, features

SMALL = EvaluatorConfig(trees=20, leaf=3, folds=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directories train and val of made-up clips."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare("emopia", fabricated_emopia(folder / "emopia", songs=40, seed=1), folder / "data", say=lambda line: None)
    return folder / "data"


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluator, Path]:
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("model") / "evaluator"
    return train_evaluator(corpus / "train", out, held_out_dir=corpus / "val", config=SMALL), out


def test_learns_made_up_quadrants(trained: tuple[Evaluator, Path]) -> None:
    evaluator, _ = trained
    assert evaluator.figures["cross_validation"]["as played"]["quadrant"] > 0.65
    readings = {q: [evaluator.read(fabricated_score(900 + i, quadrant=q)) for i in range(4)] for q in QUADRANTS}
    assert sum(reading.quadrant == q for q in QUADRANTS for reading in readings[q]) >= 12
    for quadrant, valence, arousal in (("Q1", 1, 1), ("Q2", -1, 1), ("Q3", -1, -1), ("Q4", 1, -1)):
        assert np.mean([reading.valence for reading in readings[quadrant]]) * valence > 0.1
        assert np.mean([reading.arousal for reading in readings[quadrant]]) * arousal > 0.3
        chances = readings[quadrant][0].probabilities
        assert chances.shape == (4,) and chances.sum() == pytest.approx(1.0, abs=1e-3)


def test_model_directory_gives_the_same_evaluator(trained: tuple[Evaluator, Path]) -> None:
    evaluator, folder = trained
    loaded = Evaluator.from_pretrained(folder)
    score = fabricated_score(5, quadrant="Q3")
    np.testing.assert_array_equal(loaded.read(score).probabilities, evaluator.read(score).probabilities)
    assert loaded.card_line == evaluator.card_line
    assert f"on {evaluator.figures['held_out']['clips']} held-out clips" in loaded.card_line
    assert loaded.card_line in (folder / "README.md").read_text()


def test_trees_equal_scikit_learn(tmp_path: Path) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    from music.evaluator_train import _flatten

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, len(FEATURE_NAMES))).astype(np.float32), rng.integers(0, 4, 200)
    model = ensemble.ExtraTreesClassifier(15, min_samples_leaf=2, random_state=0).fit(x, y)
    forest = _flatten([tree.tree_ for tree in model.estimators_])
    np.testing.assert_allclose(forest.probabilities(x), model.predict_proba(x), atol=1e-3)


def test_training_repeats_exactly(trained: tuple[Evaluator, Path], corpus: Path, tmp_path: Path) -> None:
    train_evaluator(corpus / "train", tmp_path / "again", held_out_dir=corpus / "val", config=SMALL)
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[1] / name).read_bytes()


def test_trajectory_follows_the_music(trained: tuple[Evaluator, Path]) -> None:
    evaluator, _ = trained
    calm, lively = fabricated_score(3, quadrant="Q3"), fabricated_score(3, quadrant="Q1")
    speed = calm.tempos[0].bpm / lively.tempos[0].bpm
    late = tuple(replace(n, onset=32 + n.onset * speed, duration=n.duration * speed) for n in lively.notes)
    both = replace(calm, notes=calm.notes + late)
    turn = float(both.seconds(32.0))
    path = evaluator.trajectory(both, np.array([[0.0, turn], [turn, both.duration_s], [1e4, 1e4 + 8]]))
    assert path.shape == (3, 2) and np.isfinite(path).all()
    assert path[0, 1] < 0 < path[1, 1]
    np.testing.assert_allclose(path[0], [getattr(evaluator.read(calm), axis) for axis in ("valence", "arousal")])
    assert evaluator.trajectory(both, np.zeros((0, 2))).shape == (0, 2)


def test_constant_velocity_says_nothing(trained: tuple[Evaluator, Path]) -> None:
    score = fabricated_score(4)
    soft, loud = (Score(tuple(replace(n, velocity=v) for n in score.notes), score.tempos) for v in (30, 110))
    assert not np.array_equal(features(soft), features(loud))
    np.testing.assert_array_equal(trained[0].read(soft).probabilities, trained[0].read(loud).probabilities)


def test_one_note_and_none(trained: tuple[Evaluator, Path]) -> None:
    assert np.isfinite(trained[0].read(Score((Note(0.0, 1.0, 60),))).probabilities).all()
    for call in (trained[0].read, lambda score: trained[0].trajectory(score, [[0, 8]])):
        with pytest.raises(AffgenError, match="no notes"):
            call(Score(()))
    for windows in ([0.0, 8.0], [[8.0, 0.0]], [[0.0, np.nan]]):
        with pytest.raises(AffgenError, match="windows"):
            trained[0].trajectory(fabricated_score(0), windows)


def test_excerpt() -> None:
    table = np.array([[float(t), 1.0, 60.0, 64.0] for t in range(20)])
    assert excerpt(table, 4.0, 14.0)[:, 0].tolist() == list(range(4, 14))
    assert excerpt(table, 4.0, 6.0)[:, 0].tolist() == list(range(1, 9))  # 8 nearest to second 5
    assert len(excerpt(table[:3], 100.0, 108.0)) == 3


def test_accuracy_by_hand() -> None:
    chances = np.array([[0.6, 0.4, 0.0, 0.0], [0.4, 0.0, 0.3, 0.3]])  # the second: Q1 likeliest, arousal low
    assert accuracy(chances, np.array([1, 3])) == {"quadrant": 0.0, "arousal": 1.0, "valence": 0.5}
    assert accuracy(chances, np.array([1, 3]), np.array([3.0, 1.0]))["valence"] == 0.25


def test_damage_is_refused(trained: tuple[Evaluator, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        Evaluator.from_pretrained(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "README.md", "model.safetensors"):
        (broken / name).write_bytes((trained[1] / name).read_bytes())
    data = bytearray((broken / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (broken / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        Evaluator.from_pretrained(broken)
    text = (broken / "config.json").read_text()
    (broken / "config.json").write_text(text.replace('"music-evaluator"', '"music"'))
    with pytest.raises(ModelError, match="is a model for 'music'"):
        Evaluator.from_pretrained(broken)


def test_trees_that_would_never_end_are_refused() -> None:
    parts = {
        "feature": np.array([0, LEAF, LEAF], dtype=np.uint8),
        "threshold": np.zeros(3, dtype=np.float32),
        "branch": np.array([2, 0, 1], dtype=np.int32),
        "leaves": np.eye(4, dtype=np.float16)[:2],
        "roots": np.array([0], dtype=np.int32),
    }
    x = np.zeros((2, len(FEATURE_NAMES)))
    x[1, 0] = 1.0
    np.testing.assert_array_equal(Forest(**parts).probabilities(x), np.eye(4)[:2])
    for name, value in (("branch", [0, 0, 1]), ("branch", [2, 0, 9]), ("feature", [200, LEAF, LEAF]), ("roots", [3])):
        with pytest.raises(ModelError, match="damaged"):
            Forest(**{**parts, name: np.array(value)})


def test_data_without_songs_or_quadrants(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("midi.scp", "utt2emo"):
        (folder / name).write_bytes((corpus / "val" / name).read_bytes())
    with pytest.raises(DataError, match="utt2spk"):
        read_clips(folder)
    (folder / "utt2spk").write_bytes((corpus / "val" / "utt2spk").read_bytes())
    with pytest.raises(DataError, match="songs in Q"):
        train_evaluator(folder, tmp_path / "out", config=EvaluatorConfig(folds=9))
    labels = (folder / "utt2emo").read_text()
    (folder / "utt2emo").write_text("".join(labels.splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="affgen data fix"):
        read_clips(folder)
    (folder / "utt2emo").write_text(labels.replace(" Q2", " angry"))
    with pytest.raises(DataError, match="'angry'"):
        read_clips(folder)
    assert not (tmp_path / "out").exists()


def test_reading_loads_nothing_heavy() -> None:
    code = "import sys; from music.evaluator import Evaluator; Evaluator.from_pretrained(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy", "librosa", "matplotlib"} & set(loaded)


def test_shipped_model_reads_as_its_card_says() -> None:
    evaluator = Evaluator.from_pretrained()
    held_out = evaluator.figures["held_out"]
    assert evaluator.card_line.startswith("evaluator: .") and evaluator.card_line.endswith("over 876")
    assert np.sum(held_out["confusion"]) == held_out["clips"] == 114
    lively, sad = (evaluator.read(fabricated_score(0, quadrant=quadrant)) for quadrant in ("Q1", "Q3"))
    assert lively.arousal > 0.3 and sad.arousal < -0.3


def test_shipped_model_on_real_clips(tmp_path: Path) -> None:
    root = os.environ.get("AFFGEN_DATA")
    if not root:
        pytest.skip("AFFGEN_DATA is not set: the accuracy of the shipped evaluator on EMOPIA is NOT checked")
    prepare("emopia", Path(root) / "emopia", tmp_path, say=lambda line: None)
    clips = read_clips(tmp_path / "val")
    evaluator = Evaluator.from_pretrained()
    readings = [evaluator.read_table(table) for table in clips.tables]
    found = accuracy(np.array([reading.probabilities for reading in readings]), clips.quadrants)
    assert found == evaluator.figures["held_out"]["as played"]
    path = next((Path(root) / "emopia" / "midis").glob("Q1_*.mid"))
    assert evaluator.read(read_midi(path)).probabilities.shape == (4,)
