"""Keys: names there and back, transposition, scales, estimation."""

from __future__ import annotations

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.testing import fabricated_score
from music.keys import UNKNOWN, estimate_key, key_name, parse_key, scale_pitch_classes, transpose_key

KEYS = range(1, 25)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(
            ("C", "C major"),
            ("c", "C minor"),
            ("Am", "A minor"),
            ("a", "A minor"),
            ("F#", "F# major"),
            ("Gb", "F# major"),
        ),
        *(
            ("Bb major", "Bb major"),
            ("bb", "Bb minor"),
            ("b", "B minor"),
            ("Bbm", "Bb minor"),
            ("c# minor", "Db minor"),
        ),
        *(
            (" D  min ", "D minor"),
            ("a major", "A major"),
            ("E:min", "E minor"),
            ("E♭", "Eb major"),
            ("f♯:maj", "F# major"),
        ),
        *(("Cb", "B major"), ("B#", "C major"), ("E#m", "F minor")),
    ],
)
def test_names_of_keys(text: str, name: str) -> None:
    assert key_name(parse_key(text)) == name


def test_names_go_there_and_back() -> None:
    assert [parse_key(key_name(key)) for key in KEYS] == list(KEYS)
    assert len({key_name(key) for key in KEYS}) == 24
    assert key_name(UNKNOWN) == "unknown"


@pytest.mark.parametrize(
    "text", ["", "H", "C##", "Cmin7", "major", "1", "C major minor", "dorian", "unknown", "C\nmajor x"]
)
def test_what_is_no_key_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(AffgenError, match="is not a key; accepted") as caught:
        parse_key(text)
    assert "\n" not in str(caught.value)


def test_transposed_keys() -> None:
    assert key_name(transpose_key(parse_key("B"), 1)) == "C major"
    assert key_name(transpose_key(parse_key("Am"), -2)) == "G minor"
    assert all(transpose_key(transpose_key(key, 5), -5) == key and transpose_key(key, 12) == key for key in KEYS)
    assert transpose_key(UNKNOWN, 3) == UNKNOWN


def test_scales() -> None:
    assert np.flatnonzero(scale_pitch_classes(parse_key("C"))).tolist() == [0, 2, 4, 5, 7, 9, 11]
    assert np.flatnonzero(scale_pitch_classes(parse_key("Am"))).tolist() == [0, 2, 4, 5, 7, 8, 9, 11]
    assert scale_pitch_classes(UNKNOWN).all()
    for key in KEYS:
        np.testing.assert_array_equal(scale_pitch_classes(transpose_key(key, 3)), np.roll(scale_pitch_classes(key), 3))


@pytest.mark.parametrize("key", KEYS)
def test_a_scale_with_its_triad_is_recognised(key: int) -> None:
    minor, tonic = divmod(key - 1, 12)
    scale = np.flatnonzero(scale_pitch_classes(key))
    pitches = np.concatenate([60 + scale, 60 + tonic + np.array([0, 0, 0, 3 if minor else 4, 7, 7])])
    assert estimate_key(pitches, np.ones(len(pitches))) == key


def test_longer_notes_weigh_more() -> None:
    pitches = np.array([60, 64, 67, 66, 70, 73])  # C major and F# major
    assert key_name(estimate_key(pitches, np.array([9, 9, 9, 1, 1, 1]))) == "C major"
    assert key_name(estimate_key(pitches, np.array([1, 1, 1, 9, 9, 9]))) == "F# major"


def test_the_estimate_moves_with_the_piece() -> None:
    table = fabricated_score(2, quadrant="Q4").arrays()
    key = estimate_key(table["pitch"], table["duration"])
    for semitones in (-7, 4, 12):
        assert estimate_key(table["pitch"] + semitones, table["duration"]) == transpose_key(key, semitones)


def test_the_estimate_explains_made_up_pieces() -> None:
    """Major and relative minor share their notes: the scale is told by them, the mode not always."""
    for quadrant in ("Q1", "Q2", "Q3", "Q4"):
        for seed in range(6):
            table = fabricated_score(seed, quadrant=quadrant).arrays()
            inside = scale_pitch_classes(estimate_key(table["pitch"], table["duration"]))[table["pitch"] % 12]
            assert np.average(inside, weights=table["duration"]) > 0.85


def test_without_notes_or_with_all_alike_the_key_is_unknown() -> None:
    assert estimate_key(np.zeros(0, int), np.zeros(0)) == UNKNOWN
    assert estimate_key(np.arange(60, 72), np.ones(12)) == UNKNOWN
