"""Names, aliases, coordinates and quadrants."""

from __future__ import annotations

import pytest

from affgen.emotion.labels import LABELS, QUADRANTS, coordinates, quadrant, resolve
from affgen.errors import AffgenError


def test_the_eight_labels_and_four_quadrants():
    assert " ".join(LABELS) == "neutral calm happy sad angry fearful disgust surprised"
    assert " ".join(QUADRANTS) == "Q1 Q2 Q3 Q4"
    assert [resolve(name) for name in LABELS + QUADRANTS] == [*LABELS, *QUADRANTS]


@pytest.mark.parametrize(
    ("alias", "label"),
    [
        ("anger", "angry"),
        ("joy", "happy"),
        ("happiness", "happy"),
        ("fear", "fearful"),
        ("anxiety", "fearful"),
        ("boredom", "calm"),
        ("sadness", "sad"),
        ("surprise", "surprised"),
        ("disgusted", "disgust"),
        (" ANGRY ", "angry"),
        ("q3", "Q3"),
    ],
)
def test_aliases_in_any_case(alias, label):
    assert resolve(alias) == label
    assert coordinates(alias) == coordinates(label)


@pytest.mark.parametrize("name", ["", "hapy", "Q5", "va", "neutral\n\nx" * 100, "héureux"])
def test_unknown_names_are_refused_with_what_is_accepted(name):
    with pytest.raises(AffgenError) as caught:
        resolve(name)
    message = str(caught.value)
    assert all(label in message for label in LABELS + QUADRANTS)
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("label", "where"),
    [("calm", "Q4"), ("happy", "Q1"), ("sad", "Q3"), ("angry", "Q2"), ("fearful", "Q2"), ("disgust", "Q2")]
    + [("surprised", "Q1")]
    + [(name, name) for name in QUADRANTS],
)
def test_each_label_lies_in_its_quadrant(label, where):
    valence, arousal = coordinates(label)
    assert quadrant(valence, arousal) == where
    assert 0.5 < (valence**2 + arousal**2) ** 0.5 <= 1


def test_neutral_is_the_origin():
    assert coordinates("neutral") == (0.0, 0.0)


def test_no_two_labels_share_a_place():
    assert len({coordinates(name) for name in LABELS + QUADRANTS}) == len(LABELS + QUADRANTS)


def test_zero_counts_as_positive():
    assert [quadrant(0, 0), quadrant(-0.1, 0), quadrant(0, -0.1), quadrant(-0.1, -0.1)] == ["Q1", "Q2", "Q4", "Q3"]
