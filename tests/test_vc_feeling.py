"""Emotions as coordinates: anchored at each speaker's neutral speech, linear in intensity, and kept in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError
from vc.config import FeelingConfig
from vc.feeling import Feeling

NAMES, WIDTH = ("neutral", "surprised", "angry", "calm"), 32
CONFIG = FeelingConfig(mixtures=1, rank=3)


def shifts() -> dict[str, np.ndarray]:
    """What a label adds to an embedding at intensity 1."""
    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, 3)))[0].T
    return {"neutral": np.zeros(WIDTH), **dict(zip(NAMES[1:], 3 * rows, strict=True))}


def voices() -> np.ndarray:
    return 5 * np.random.default_rng(2).standard_normal((4, WIDTH))


def material(noise: float = 0.02) -> tuple[np.ndarray, list[str], list[float], list[str]]:
    """Clips of four speakers: neutral, and each label at half and at full intensity, three times."""
    rng, rows = np.random.default_rng(0), []
    for number, voice in enumerate(voices()):
        for name, shift in shifts().items():
            for intensity in (0.0,) if name == "neutral" else (0.5, 1.0):
                for _ in range(3):
                    place = voice + intensity * shift + noise * rng.standard_normal(WIDTH)
                    rows.append((place, name, intensity, f"s{number}"))
    embeddings, labels, intensities, speakers = zip(*rows, strict=True)
    return np.stack(embeddings), list(labels), list(intensities), list(speakers)


@pytest.fixture(scope="module")
def feeling() -> Feeling:
    return Feeling.fit(*material(), CONFIG)


def test_labels_are_in_the_order_of_the_project(feeling: Feeling) -> None:
    assert feeling.labels == ("neutral", "calm", "angry", "surprised")
    assert list(feeling.labels) == sorted(feeling.labels, key=LABELS.index)
    assert not feeling.prototypes[0].any()


def test_a_speakers_own_neutral_speech_is_the_origin_and_intensity_a_straight_way(feeling: Feeling) -> None:
    for voice in voices():
        assert np.abs(feeling.coordinates(voice, voice)).max() < 1e-6
        for label in NAMES[1:]:
            for intensity in (0.5, 1.0, 1.4):
                found = feeling.coordinates(voice + intensity * shifts()[label], voice)
                assert np.allclose(found, intensity * feeling.prototype(label), atol=0.05)


def test_prototypes_lie_apart_and_have_unit_size(feeling: Feeling) -> None:
    rows = feeling.prototypes[1:]
    assert np.sqrt(np.mean(rows**2)) == pytest.approx(1, abs=1e-5)
    assert min(np.linalg.norm(rows[a] - rows[b]) for a in range(3) for b in range(a)) > 1


def test_without_an_anchor_the_origin_is_neutral(feeling: Feeling) -> None:
    assert np.abs(feeling.coordinates(feeling.origin)).max() < 1e-6
    assert feeling.coordinates(np.zeros((2, 5, WIDTH))).shape == (2, 5, 3)


def test_a_speaker_without_neutral_clips_moves_no_prototype(feeling: Feeling) -> None:
    embeddings, labels, intensities, speakers = material()
    stranger = voices()[0] + 40 + shifts()["angry"]
    more = Feeling.fit(
        np.vstack([embeddings, stranger]), [*labels, "angry"], [*intensities, 1.0], [*speakers, "new"], CONFIG
    )
    assert np.allclose(more.prototypes, feeling.prototypes, atol=1e-4)


def test_prototypes_come_from_labelled_intensities_alone(feeling: Feeling) -> None:
    embeddings, labels, intensities, speakers = material()
    weak = [voices()[0] + 0.2 * shifts()["angry"] + 0.01 * n for n in range(6)]
    more = Feeling.fit(
        np.vstack([embeddings, *weak]),
        labels + 6 * ["angry"],
        intensities + 6 * [np.nan],
        speakers + 6 * ["s0"],
        CONFIG,
    )
    own, other = (f.prototype("angry") @ f.basis for f in (feeling, more))  # the directions may turn, the place may not
    assert np.linalg.norm(own - other) < 0.1 * np.linalg.norm(own)


def test_an_unknown_label_is_refused_with_those_there_are(feeling: Feeling) -> None:
    with pytest.raises(AffgenError, match=r"disgust.*model has: neutral, calm, angry, surprised"):
        feeling.prototype("disgust")


def test_too_few_clips_for_the_local_means_are_refused() -> None:
    with pytest.raises(AffgenError, match="local means"):
        Feeling.fit(*material(), FeelingConfig(mixtures=100, rank=3))


def test_data_without_neutral_or_without_intensities_are_refused() -> None:
    embeddings, _, intensities, speakers = material()
    count = len(embeddings)
    with pytest.raises(AffgenError, match="neutral"):
        Feeling.fit(embeddings, count * ["angry"], intensities, speakers, CONFIG)
    with pytest.raises(AffgenError):
        Feeling.fit(embeddings, count * ["angry"], count * [np.nan], speakers, CONFIG)


def test_equal_material_gives_equal_numbers(feeling: Feeling) -> None:
    again = Feeling.fit(*material(), CONFIG)
    assert all(np.array_equal(a, b) for a, b in zip(feeling.arrays().values(), again.arrays().values(), strict=True))


# --- files -----------------------------------------------------------------------------------------------------------


def test_arrays_make_the_same_again(feeling: Feeling) -> None:
    again = Feeling.from_arrays(feeling.labels, feeling.arrays())
    assert again.labels == feeling.labels
    for name, array in feeling.arrays().items():
        assert np.array_equal(again.arrays()[name], array) and array.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("basis", np.zeros((3, WIDTH + 1))),
        ("basis", np.zeros(WIDTH)),
        ("origin", np.zeros(3)),
        ("prototypes", np.zeros((5, 3))),
        ("prototypes", np.zeros((4, 2))),
        ("plain", np.zeros((5, 3))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(feeling: Feeling, name: str, wrong: Any) -> None:
    with pytest.raises(AffgenError, match="do not fit"):
        Feeling.from_arrays(feeling.labels, feeling.arrays() | {name: wrong})


@pytest.mark.parametrize("name", ["basis", "origin", "prototypes", "plain"])
def test_arrays_that_are_not_finite_are_refused(feeling: Feeling, name: str) -> None:
    broken = feeling.arrays()[name].copy()
    broken[..., 0] = np.nan
    with pytest.raises(AffgenError, match="not finite"):
        Feeling.from_arrays(feeling.labels, feeling.arrays() | {name: broken})


def test_fewer_directions_leave_the_others_at_nought(feeling: Feeling) -> None:
    kept = feeling.keeping(1)
    assert np.array_equal(kept.prototypes[:, 0], feeling.prototypes[:, 0]) and not kept.prototypes[:, 1:].any()
    assert not feeling.keeping(0).prototypes.any()
    assert np.array_equal(feeling.keeping(3).prototypes, feeling.prototypes)
