"""Scores written as MusicXML: they come back equal, and every bar, tie and syllable is as other programs expect it."""

from __future__ import annotations

from fractions import Fraction
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from affgen.musicxml import musicxml_bytes, read_musicxml, write_musicxml
from affgen.musicxml_write import NOTE_TYPES
from affgen.score import Control, Dynamic, Edit, Marker, Meter, Note, Score, Tempo

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8).filter(
    lambda text: not text.endswith("-")
)
syllables = st.builds(lambda text, goes_on: text + "-" * (goes_on and text != ""), texts, st.booleans())


@st.composite
def dynamics(draw, per_beat):
    """Points that begin at 0 and say nothing twice: no three at one beat, no two alike."""
    points = [Dynamic(0.0, draw(st.integers(1, 127)))]
    ticks = sorted(draw(st.sets(st.integers(1, 1500), max_size=5)))
    for tick in ticks:
        for level in draw(st.lists(st.integers(10_000, 1_270_000), min_size=1, max_size=2, unique=True)):
            points.append(Dynamic(tick / per_beat, level / 10_000))
    return tuple(points)


@st.composite
def songs(draw):
    per_beat = draw(st.sampled_from([48, 32, 96, 480]))
    beats = st.integers(0, 1500).map(lambda tick: tick / per_beat)
    notes, at = [], 0
    for rest, length in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 400)), min_size=1, max_size=20)):
        pitch, velocity, lyric = draw(st.tuples(st.integers(12, 127), st.integers(1, 127), syllables))
        notes.append(Note((at + rest) / per_beat, length / per_beat, pitch, velocity, lyric))
        at += rest + length
    meter = st.builds(Meter, beats, st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    markers = st.builds(Marker, beats, texts.filter(bool))
    return Score(
        tuple(notes),
        tempos=tuple(draw(st.lists(st.builds(Tempo, beats, st.floats(1, 10_000)), max_size=4))),
        meters=tuple(draw(st.lists(meter, max_size=4))),
        markers=tuple(draw(st.lists(markers, max_size=3, unique_by=lambda marker: marker.beat))),
        dynamics=draw(st.just(()) | dynamics(per_beat)),
    )


@settings(max_examples=200, deadline=None)
@given(songs())
def test_songs_on_the_grid_survive_a_file_unchanged(song):
    data = musicxml_bytes(song)
    assert read_musicxml(data) == song
    assert musicxml_bytes(read_musicxml(data)) == data


@settings(max_examples=60, deadline=None)
@given(songs())
def test_signs_fill_their_bars_and_sound_as_long_as_they_look(song):
    root = ElementTree.fromstring(musicxml_bytes(song))
    divisions = int(root.findtext("part/measure/attributes/divisions", ""))
    meter = (0, 1)
    for bar in root.iterfind("part/measure"):
        if (time := bar.find("attributes/time")) is not None:
            meter = int(time.findtext("beats", "")), int(time.findtext("beat-type", ""))
        full = Fraction(4 * meter[0] * divisions, meter[1])
        filled = sum(int(sign.findtext("duration", "")) for sign in bar.iterfind("note"))
        assert filled == full or (filled < full and bar.get("implicit") == "yes")
        for sign in bar.iterfind("note"):
            if sign.find("type") is not None:
                value = Fraction(NOTE_TYPES[sign.findtext("type", "")]) * (
                    2 - Fraction(1, 2 ** len(sign.findall("dot")))
                )
                actual = Fraction(sign.findtext("time-modification/actual-notes", "1"))
                value *= Fraction(sign.findtext("time-modification/normal-notes", "1")) / actual
                assert value * divisions == int(sign.findtext("duration", ""))
            assert [tie.get("type") for tie in sign.iterfind("tie")] == [
                tied.get("type") for tied in sign.iterfind("notations/tied")
            ]


def written(*notes: Note, **rest: object) -> ElementTree.Element:
    return ElementTree.fromstring(musicxml_bytes(Score(notes, **rest)))  # type: ignore[arg-type]


def test_a_note_across_a_bar_line_is_tied_and_has_its_syllable_once():
    root = written(Note(3, 2.25, 61, lyric="oh"))
    signs = [sign for sign in root.iter("note") if sign.find("pitch") is not None]
    assert [sign.findtext("type") for sign in signs] == ["quarter", "quarter", "16th"]
    assert [[tie.get("type") for tie in sign.iterfind("tie")] for sign in signs] == [
        ["start"],
        ["stop", "start"],
        ["stop"],
    ]
    assert [sign.findtext("lyric/text") for sign in signs] == ["oh", None, None]
    assert [sign.findtext("pitch/alter") for sign in signs] == ["1"] * 3


def test_words_are_taken_apart_and_melismas_extend():
    words = ("sin-", "gu-", "", "lar", "& so", "-", "a-")
    lyrics = [
        note.find("lyric") for note in written(*(Note(i, 1, 60, lyric=w) for i, w in enumerate(words))).iter("note")
    ]
    assert [
        (lyric.findtext("syllabic"), lyric.findtext("text"), lyric.find("extend") is not None)
        for lyric in lyrics
        if lyric is not None
    ] == [
        ("begin", "sin", False),
        ("middle", "gu", True),
        ("end", "lar", False),
        ("single", "& so", False),
        ("single", "-", False),
        ("begin", "a", False),
    ]


def test_dynamics_are_shown_by_the_nearest_mark_and_by_wedges():
    points = tuple(Dynamic(*point) for point in [(0, 60), (2, 60), (2, 100), (3, 50), (4, 50.5)])
    shown = [
        wedge.get("type") or next(iter(wedge), wedge).tag
        for kind in written(Note(0, 4, 60), dynamics=points).iter("direction-type")
        for wedge in kind
        if wedge.tag in ("wedge", "dynamics")
    ]
    assert shown == ["mp", "f", "diminuendo", "stop", "p", "crescendo", "stop", "p"]


def test_dynamics_that_begin_late_are_said_from_the_start():
    late = Score((Note(0, 8, 60),), dynamics=(Dynamic(4, 100),))
    assert read_musicxml(musicxml_bytes(late)).dynamics == (Dynamic(0, 100), Dynamic(4, 100))


def test_equal_scores_give_equal_bytes():
    notes = (Note(0, 1, 60, lyric="a"), Note(1, 2, 62))
    whole = Score(notes, tempos=(Tempo(0, 90),), dynamics=(Dynamic(0, 64),), meters=(Meter(0, 3, 4), Meter(3, 4, 4)))
    same = Score(
        (Note(1.0, 2.0, 62), Note(0.0, 1.0, 60, lyric="a")),
        tempos=(Tempo(0.0, 90.0),),
        dynamics=(Dynamic(0.0, 64.0),),
        meters=(Meter(3.0, 4, 4), Meter(0.0, 3, 4)),
    )
    assert whole == same and musicxml_bytes(whole) == musicxml_bytes(same)
    assert b"<per-minute>90</per-minute>" in musicxml_bytes(same)


def test_the_ticks_of_a_score_are_a_grid_too():
    score = Score((Note(0.01, 0.37, 60), Note(0.5, 2.25, 60)), ticks_per_beat=100)
    assert read_musicxml(musicxml_bytes(score)) == Score(score.notes)


def test_what_musicxml_does_not_hold_is_left_out():
    plain = Note(0, 1, 60, lyric="a")
    full = Score(
        (Note(0, 1, 60, lyric="a", phonemes=("a",), edit=Edit(cents=10)),),
        controls=(Control(0, 64, 127),),
        texts=("from here",),
    )
    assert read_musicxml(musicxml_bytes(full)) == Score((plain,))
    odd = Score((Note(0, 1, 60, lyric=" a\x00\n b\ud800 "),), markers=(Marker(0, "\x01"),))
    assert read_musicxml(musicxml_bytes(odd)) == Score((Note(0, 1, 60, lyric="a b"),))


def test_positions_off_the_grid_are_rounded_and_legato_stays_legato():
    score = Score((Note(0, 0.1234567, 60), Note(0.1234567, 1 / 13, 60), Note(0.1234567 + 1 / 13, 1e-9, 62)))
    notes = read_musicxml(musicxml_bytes(score)).notes
    assert [note.onset for note in notes] == pytest.approx([note.onset for note in score.notes], abs=1e-4)
    assert notes[0].end == pytest.approx(notes[1].onset) and notes[2].duration == pytest.approx(1 / 10_080)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (Score((Note(0, 2, 60), Note(1, 1, 64))), "note 2 starts at beat 1 before the note before it ends; accepted"),
        (Score((Note(0, 1, 60), Note(0, 1, 64))), "note 2 starts at beat 0 before"),
        (Score((Note(0, 1, 11),)), "note 1 has pitch 11; accepted for MusicXML: 12..127"),
        (Score((Note(0, 1, 60),), tempos=(Tempo(0, 0.5),)), r"tempo of 0\.5 .* accepted for MusicXML: 1 to 10000"),
        (Score((Note(99_999, 1, 60),), meters=(Meter(0, 1, 64),)), "more than 100,000 bars; accepted"),
    ],
)
def test_scores_that_cannot_be_written_are_refused_and_leave_no_file(tmp_path, score, words):
    with pytest.raises(AffgenError, match=words) as caught:
        write_musicxml(score, tmp_path / "a.musicxml")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_file_is_what_the_bytes_are(tmp_path):
    score = Score((Note(0, 1, 60, lyric="la"),))
    write_musicxml(score, tmp_path / "a.musicxml")
    assert (tmp_path / "a.musicxml").read_bytes() == musicxml_bytes(score)
    assert read_musicxml(tmp_path / "a.musicxml") == score
