from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from affgen.errors import DataError
from affgen.featuredir import FOLDER, write_index, write_shard
from affgen.features import Features, extract
from vc.prosody import NAMES, fit
from vc.twins import align, changes, find, measure, partners, speech

SILENCE = 12
"""Frames at either end of a fabricated utterance."""


def utterance(
    *, phone: int = 10, hz: float = 200.0, slope: float = 0.0, level: float = 0.0, seed: int = 0, pause: int = 0
) -> Features:
    """Eight vowels of ``phone`` frames, a hiss of as many after the fourth and perhaps a pause; silent ends."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(99).normal(0, 1.2, (9, 6))  # the same phones in every utterance
    waves = np.cos(np.pi * np.arange(1, 7)[:, None] * (np.arange(80) + 0.5) / 80)
    columns, f0 = [], []
    for k in range(9):
        columns.append(np.repeat((shapes[k] @ waves)[:, None], phone, axis=1) - 1.5)
        f0.append(np.full(phone, 0.0 if k == 4 else hz))
        if k == 4 and pause:
            columns.append(np.full((80, pause), -9.0))
            f0.append(np.zeros(pause))
    ends = np.full((80, SILENCE), -9.0)
    mel = np.concatenate([ends, *columns, ends], axis=1)
    mel[:, SILENCE:-SILENCE] += level
    mel += rng.normal(0, 0.02, mel.shape)
    pitch = np.concatenate([np.zeros(SILENCE), *f0, np.zeros(SILENCE)])
    place = np.linspace(-0.5, 0.5, len(pitch) - 2 * SILENCE)
    pitch[SILENCE:-SILENCE] *= 2 ** (slope * place)
    return Features(mel, pitch, np.exp(mel).sum(axis=0))


def directory(folder: Path, rows: list[tuple[str, str, str, str, str | None, Features]]) -> Path:
    """A data directory of (utterance, speaker, text, emotion, intensity, features)."""
    rows = sorted(rows, key=lambda row: row[0])
    folder.mkdir(parents=True)
    columns = {"wav.scp": 0, "utt2spk": 1, "text": 2, "utt2emo": 3, "utt2intensity": 4}
    for name, column in columns.items():
        lines = [f"{row[0]} {row[column]}\n" for row in rows if row[column] is not None]
        if lines:
            (folder / name).write_text("".join(lines))
    (folder / FOLDER).mkdir()
    tensors = {}
    for key, *_, sound in rows:
        tensors |= {f"{key}/mel": sound.mel.astype(np.float16), f"{key}/f0": sound.f0, f"{key}/energy": sound.energy}
    write_shard(folder / FOLDER / "00000.safetensors", tensors, {})
    write_index(folder / FOLDER, {row[0]: ("00000.safetensors", len(row[-1])) for row in rows})
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers whose anger is half an octave higher, 30 % slower and a neper louder at full intensity."""
    rows = []
    for s, hz in enumerate((110.0, 160.0, 220.0)):
        for name, emotion, strength in (("n", "neutral", "0"), ("h", "anger", "0.5"), ("s", "angry", "1")):
            w = float(strength)
            sound = utterance(phone=round(10 + 3 * w), hz=hz * 2 ** (0.5 * w), level=w, seed=10 * s + int(2 * w))
            rows.append(
                (
                    f"s{s}-{name}",
                    f"s{s}",
                    "Kids  are talking" if name == "n" else "kids are Talking",
                    emotion,
                    strength,
                    sound,
                )
            )
    rows.append(("s0-other", "s0", "another sentence", "sad", "1", utterance(seed=77)))
    return directory(tmp_path_factory.mktemp("twins") / "train", rows)


def test_twins_share_speaker_and_sentence(corpus: Path) -> None:
    found = find([corpus])
    assert [(t.neutral, t.emotional, t.label, t.intensity) for t in found if t.speaker == "s1"] == [
        ("s1-n", "s1-h", "angry", 0.5),
        ("s1-n", "s1-s", "angry", 1.0),
    ]
    assert len(found) == 6 and not any(t.emotional == "s0-other" for t in found)
    assert {t.folder for t in found} == {corpus}


def test_speakers_left_out_have_no_twins(corpus: Path) -> None:
    assert {t.speaker for t in find([corpus], leave_out=["s1"])} == {"s0", "s2"}
    assert find([corpus], leave_out=["s[0-9]"]) == []


def test_unknown_intensity_is_nan(tmp_path: Path) -> None:
    rows = [("a-1", "a", "x y", "neutral", None, utterance()), ("a-2", "a", "x y", "happy", None, utterance(seed=1))]
    (twin,) = find([directory(tmp_path / "d", rows)])
    assert np.isnan(twin.intensity)
    with pytest.raises(DataError, match="intensity"):
        fit([tmp_path / "d"])


@pytest.mark.parametrize("table", ["text", "utt2emo"])
def test_a_directory_without_what_twins_are_found_by_is_refused(tmp_path: Path, table: str) -> None:
    folder = directory(tmp_path / "d", [("a-1", "a", "x", "neutral", "0", utterance())])
    (folder / table).unlink()
    with pytest.raises(DataError, match=f"{table}; twins"):
        find([folder])


def test_no_twins_are_refused(corpus: Path) -> None:
    with pytest.raises(DataError, match="no neutral-emotional twins"):
        changes(find([corpus], leave_out=["*"]))


@pytest.mark.parametrize("phone", [7, 10, 14, 18])
def test_alignment_finds_the_boundaries_of_a_slower_twin(phone: int) -> None:
    one, other = utterance(phone=10), utterance(phone=phone, hz=330, level=1.3, seed=5)
    places = partners(align(one, other), len(one))
    for k in range(1, 9):
        assert abs(np.interp(SILENCE + 10 * k - 0.5, np.arange(len(one)), places) + 0.5 - (SILENCE + phone * k)) <= 1.5


def test_alignment_of_an_utterance_with_itself_is_the_diagonal() -> None:
    sound = utterance()
    path = align(sound, sound)
    assert (path[:, 0] == path[:, 1]).all()
    first, end = speech(np.log(np.exp(2 * sound.mel).sum(axis=0)) / 2)
    assert path[0, 0] <= first and path[-1, 0] >= end - 1 and len(path) < len(sound)


def test_a_path_never_steps_back_and_leaves_no_frame_out() -> None:
    path = align(utterance(phone=8), utterance(phone=15, seed=3))
    steps = np.diff(path, axis=0)
    assert steps.min() >= 0 and steps.max() <= 1 and steps.max(axis=1).min() == 1


def test_a_pause_in_one_of_the_two_is_stepped_over() -> None:
    one, other = utterance(), utterance(pause=25, seed=4)
    places = partners(align(one, other), len(one))
    assert abs(places[SILENCE + 75] - (SILENCE + 75 + 25)) <= 2
    assert abs(places[SILENCE + 25] - (SILENCE + 25)) <= 2


def test_partners_outside_of_the_path_are_unknown() -> None:
    places = partners(np.array([[2, 5], [2, 6], [3, 7]]), 5)
    np.testing.assert_array_equal(places, [np.nan, np.nan, 5.5, 7, np.nan])


def test_measures_are_those_of_the_sound() -> None:
    plain, moved = measure(utterance()), measure(utterance(hz=400, slope=0.3, level=0.7, seed=2))
    assert plain is not None and moved is not None
    change = moved.minus(plain)
    assert change["pitch"] == pytest.approx(1.0, abs=0.02)
    assert change["slope"] == pytest.approx(0.3, abs=0.03)
    assert change["gain"] == pytest.approx(0.7, abs=0.03)
    assert change["range"] > 0.5 and abs(change["tilt"]) < 0.1 and abs(change["dynamics"]) < 0.1


def test_a_whisper_cannot_be_measured() -> None:
    sound = utterance()
    assert measure(Features(sound.mel, np.zeros_like(sound.f0), sound.energy)) is None


def test_changes_are_what_was_made(corpus: Path) -> None:
    found = changes(find([corpus]))
    strong = dict(zip(NAMES, found.values[found.intensity == 1].mean(axis=0), strict=True))
    assert strong["pitch"] == pytest.approx(0.5, abs=0.02)
    assert strong["gain"] == pytest.approx(1.0, abs=0.03)
    assert strong["voiced"] == pytest.approx(np.log(1.3), abs=0.03)
    assert strong["pause"] == pytest.approx(0.0, abs=0.3)


def test_a_fit_to_directories_gives_back_what_was_made_and_does_so_again(corpus: Path) -> None:
    one, two = fit([corpus]), fit([corpus])
    assert one.labels == ("angry",)
    at = {name: i for i, name in enumerate(NAMES)}
    assert one.offset[0, at["pitch"]] == pytest.approx(0.5, abs=0.02)
    assert one.offset[0, at["voiced"]] == pytest.approx(np.log(1.3), abs=0.04)
    assert one.half[0, at["pitch"]] == pytest.approx(0.5, abs=0.04)
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, two.arrays()[name])


@pytest.mark.skipif("AFFGEN_DATA" not in os.environ, reason="AFFGEN_DATA does not name the folder of the real corpora")
def test_real_twins_are_aligned_at_the_phones() -> None:
    from affgen.align import Aligner
    from affgen.align.segments import FRAME_S
    from affgen.audio import read

    aligner, off = Aligner.from_pretrained(), []
    for actor in ("01", "02"):
        edges, sounds = [], []
        for name in (f"03-01-01-01-01-01-{actor}", f"03-01-05-02-01-01-{actor}"):
            (path,) = (Path(os.environ["AFFGEN_DATA"]) / "ravdess_speech").rglob(f"{name}.*")
            sounds.append(extract(read(path)))
            spoken = aligner.align(sounds[-1], "Kids are talking by the door")
            edges.append(np.array([s.start_s for s in spoken if s.phone != "sil"]) / FRAME_S)
        places = partners(align(*sounds), len(sounds[0]))
        known = np.flatnonzero(np.isfinite(places))
        off.append(np.abs(np.interp(edges[0] - 0.5, known, places[known]) + 0.5 - edges[1]))
    assert np.median(np.concatenate(off)) < 2
