"""Phones in time."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.align.phones import SILENCE
from affgen.errors import AffgenError
from affgen.score import Note, Score, Tempo
from svs.text import Sung, sung
from svs.timing import CLASS_LENGTHS, Placed, consonants_before, timeline

SECOND = (Tempo(0, 60.0),)
"""One beat is one second."""


def score(*notes: tuple[float, float, str]) -> Score:
    return Score(tuple(Note(onset, length, 60, lyric=lyric) for onset, length, lyric in notes), tempos=SECOND)


def times(piece: Score, **lengths: float) -> list[tuple[str, float, float, int, str]]:
    placed = timeline(piece, sung(piece), lengths)
    return [(p.phone, round(p.start_s, 6), round(p.end_s, 6), p.note, p.role) for p in placed]


def test_vowels_are_on_the_beat_and_consonants_before_it() -> None:
    piece = score((1, 1, "do"), (2, 1, ""), (3, 1, "star"))
    assert times(piece, d=0.1, s=0.2, t=0.1, ɹ=0.25) == [
        (SILENCE, 0, 0.9, -1, "rest"),
        ("d", 0.9, 1, 0, "onset"),
        ("u", 1, 2, 0, "nucleus"),
        ("u", 2, 2.7, 1, "nucleus"),
        ("s", 2.7, 2.9, 2, "onset"),
        ("t", 2.9, 3, 2, "onset"),
        ("ɑ", 3, 3.75, 2, "nucleus"),
        ("ɹ", 3.75, 4, 2, "coda"),
    ]


def test_consonants_take_the_rest_first_then_at_most_two_fifths_of_the_note_before() -> None:
    rest = score((0, 1, "ah"), (1.2, 1, "do"))
    assert times(rest, d=0.1)[1:3] == [(SILENCE, 1, 1.1, -1, "rest"), ("d", 1.1, 1.2, 1, "onset")]
    assert times(rest, d=0.3)[:2] == [("ɑ", 0, 0.9, 0, "nucleus"), ("d", 0.9, 1.2, 1, "onset")]
    assert times(rest, d=0.8)[1] == ("d", 0.6, 1.2, 1, "onset")  # squeezed: 0.2 of the rest and 0.4 of the note


def test_codas_take_at_most_two_fifths_and_stand_before_the_next_onset() -> None:
    piece = score((0, 1, "art"), (1, 1, "do"))
    assert times(piece, ɹ=0.3, t=0.1, d=0.2)[:4] == [
        ("ɑ", 0, 0.4, 0, "nucleus"),
        ("ɹ", 0.4, 0.7, 0, "coda"),
        ("t", 0.7, 0.8, 0, "coda"),
        ("d", 0.8, 1, 1, "onset"),
    ]
    assert times(piece, ɹ=3, t=1, d=9)[:4] == [
        ("ɑ", 0, 0.2, 0, "nucleus"),
        ("ɹ", 0.2, 0.5, 0, "coda"),
        ("t", 0.5, 0.6, 0, "coda"),
        ("d", 0.6, 1.4, 1, "onset"),  # less than half of what it wants: the vowel comes late
    ]


def test_at_the_very_start_the_vowel_comes_late() -> None:
    assert times(score((0, 1, "do")), d=0.2) == [("d", 0, 0.1, 0, "onset"), ("u", 0.1, 1, 0, "nucleus")]
    assert times(score((0.1, 1, "do")), d=0.2)[0] == ("d", 0, 0.1, 0, "onset")


def test_syllables_share_a_note_equally() -> None:
    assert times(score((0, 1, "open")), p=0.1, n=0.1) == [
        ("oʊ", 0, 0.4, 0, "nucleus"),
        ("p", 0.4, 0.5, 0, "onset"),
        ("ə", 0.5, 0.9, 0, "nucleus"),
        ("n", 0.9, 1, 0, "coda"),
    ]


def test_an_offglide_ends_the_last_note() -> None:
    glide = [Sung((0, 1), "ihr", (), ("i", "ɐ"), ("t",), True, False)]
    placed = timeline(score((0, 1, "ihr"), (1, 1, "")), glide, {"ɐ": 0.1, "t": 0.2})
    expected = [("i", 0, 1, "nucleus"), ("i", 1, 1.7, "nucleus"), ("ɐ", 1.7, 1.8, "nucleus"), ("t", 1.8, 2, "coda")]
    assert [(p.phone, round(p.start_s, 6), round(p.end_s, 6), p.role) for p in placed] == expected


def test_gaps_in_a_melisma_and_notes_that_nobody_sings_are_silent_but_not_a_millisecond() -> None:
    gap = score((0, 1, "ah"), (1.5, 0.5, ""), (2.0005, 1, "oh"))
    assert [(p[0], p[1]) for p in times(gap)] == [("ɑ", 0), (SILENCE, 1), ("ɑ", 1.5), ("oʊ", 2.0005)]
    assert timeline(gap, sung(gap)[1:], {})[0] == Placed(SILENCE, 0.0, 2.0005, -1, "rest")
    assert timeline(gap, [], {}) == [Placed(SILENCE, 0.0, 3.0005, -1, "rest")]


def test_overlapping_notes_are_cut_and_the_end_of_the_score_is_kept() -> None:
    assert [(p[0], p[1], p[2]) for p in times(score((0, 5, "ah"), (1, 1, "oh")))] == [
        *[("ɑ", 0, 1), ("oʊ", 1, 2), (SILENCE, 2, 5)]
    ]
    assert timeline(Score(()), [], {}) == []


def test_consonants_want_their_lengths() -> None:
    (star,) = sung(score((0, 1, "star")))
    assert consonants_before(star) == CLASS_LENGTHS["fricative"] + CLASS_LENGTHS["stop"]
    assert consonants_before(star, {"s": 0.2}) == 0.2 + CLASS_LENGTHS["stop"]


@pytest.mark.parametrize("length", [0.0, -1.0, math.nan, math.inf])
def test_lengths_that_are_none_are_refused(length: float) -> None:
    with pytest.raises(AffgenError, match=r"length of 'd' is .* s; accepted are lengths above 0"):
        times(score((0, 1, "do")), d=length)


def test_syllables_that_are_not_of_the_score_are_refused() -> None:
    piece = score((0, 1, "do"), (1, 1, "re"))
    for wrong in (sung(piece)[::-1], [Sung((2,), "", (), ("a",), (), True, False)]):
        with pytest.raises(AffgenError, match="not in the order of the notes"):
            timeline(piece, wrong, {})


LYRICS = ("", "", "ah", "strengths", "open", "beautiful", "twin-", "[m]", "[s t r ɑ t s]")
REAL = st.floats(0.01, 4.0)


@st.composite
def songs(draw: st.DrawFn, lyrics: tuple[str, ...] = LYRICS) -> Score:
    notes, now = [], draw(st.sampled_from([0.0, 0.01, 1.0]))
    for number in range(draw(st.integers(1, 8))):
        length = draw(REAL)
        lyric = draw(st.sampled_from(lyrics)) if number else "ah"
        notes.append(Note(now, length * draw(st.sampled_from([1.0, 1.0, 0.5, 1.5, 0.99999])), 60, lyric=lyric))
        now += length
    return Score(tuple(notes), tempos=(Tempo(0, draw(st.floats(30, 300))), Tempo(draw(REAL), draw(st.floats(30, 300)))))


CONSONANTS = ("s", "t", "ɹ", "θ", "ŋ", "k", "b", "j", "f", "l", "m", "n", "p")


@given(songs(), st.dictionaries(st.sampled_from(CONSONANTS), st.floats(0.001, 3.0)))
@settings(deadline=None)
def test_phones_follow_each_other_from_the_start_to_the_end(piece: Score, lengths: dict[str, float]) -> None:
    placed = timeline(piece, sung(piece), lengths)
    assert placed[0].start_s == 0.0
    assert placed[-1].end_s == piece.duration_s
    assert all(a.end_s == b.start_s for a, b in pairwise(placed))
    assert all(p.start_s <= p.end_s for p in placed)
    assert all(p.end_s > p.start_s for p in placed if p.role == "nucleus")
    sounds = [phone for one in sung(piece) for phone in (*one.onset, *one.nucleus * len(one.notes), *one.coda)]
    assert [p.phone for p in placed if p.role != "rest"] == sounds
    assert all((p.phone == SILENCE) == (p.role == "rest") == (p.note == -1) for p in placed)


@given(songs())
@settings(deadline=None)
def test_no_vowel_is_early_and_consonants_leave_a_fifth_of_each_note(piece: Score) -> None:
    starts = piece.seconds([note.onset for note in piece.notes])  # type: ignore[arg-type]
    placed = timeline(piece, sung(piece), {})
    for p in placed:
        if p.role == "nucleus":
            assert p.start_s >= starts[p.note]
    for index, note in enumerate(piece.notes):
        end = float(piece.seconds(min([note.end, *(n.onset for n in piece.notes[index + 1 : index + 2])])))
        vowel = sum(p.end_s - p.start_s for p in placed if p.note == index and p.role == "nucleus")
        assert vowel >= 0.2 * 0.6 * (end - starts[index]) * (1 - 1e-9)


@given(songs(lyrics=("", "ah", "strengths", "[m]")))
@settings(deadline=None)
def test_vowels_are_exactly_on_the_onsets_when_there_is_room(piece: Score) -> None:
    short = dict.fromkeys(CONSONANTS, 0.0002)
    placed = timeline(piece, sung(piece), short)
    starts = piece.seconds([note.onset for note in piece.notes])  # type: ignore[arg-type]
    assert {p.note: p.start_s for p in placed if p.role == "nucleus"} == dict(enumerate(starts))
