"""The score JSON: what is written is read again exactly, and nothing but a score or one line comes of any text."""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen import score_json as module
from affgen.errors import AffgenError
from affgen.score import MAX_BEATS, Control, Dynamic, Edit, Marker, Meter, Note, Score, Tempo
from affgen.score_json import load_json, load_text, parse_score, score_json, slurs, write_score
from affgen.testing import fabricated_score

beats = st.floats(0, MAX_BEATS)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
edits = st.builds(
    Edit,
    cents=st.floats(-1200, 1200),
    gain_db=st.floats(-24, 24),
    shift_s=st.floats(-1, 1),
    vibrato=st.floats(0, 5),
    intensity=st.none() | st.floats(0, 1.5),
)
notes = st.builds(
    Note,
    beats,
    st.floats(0, MAX_BEATS, exclude_min=True),
    st.integers(0, 127),
    st.integers(1, 127),
    st.just("") | texts,
    st.lists(texts, max_size=3).map(tuple),
    st.none() | edits,
)
scores = st.builds(
    Score,
    st.lists(notes, max_size=12).map(tuple),
    st.lists(st.builds(Tempo, beats, st.floats(0, exclude_min=True, allow_infinity=False)), max_size=4).map(tuple),
    st.lists(st.builds(Meter, beats, st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 32, 64])), max_size=4).map(
        tuple
    ),
    st.lists(st.builds(Marker, beats, texts), max_size=4).map(tuple),
    st.lists(st.builds(Control, beats, st.integers(0, 127), st.integers(0, 127)), max_size=4).map(tuple),
    st.lists(texts, max_size=3).map(tuple),
    st.integers(1, 32767),
    st.lists(st.builds(Dynamic, beats, st.floats(1, 127)), max_size=4).map(tuple),
)
SUNG = Score(
    (
        Note(0, 1, 60, 80, "hel-", ("hh", "ah"), Edit(cents=-12.5, intensity=0.0)),
        Note(1, 0.5, 62, 90, "lo", ("l", "ow")),
        Note(1.5, 0.5, 64),
        Note(3, 1, 65, lyric="wörld", edit=Edit()),
    ),
    tempos=(Tempo(0, 90), Tempo(2, 60)),
    dynamics=(Dynamic(0, 40), Dynamic(4, 100)),
    markers=(Marker(0, "verse"),),
)


def document(**changes) -> dict:
    return {"format": 1, "notes": [{"onset": 0, "duration": 1, "pitch": 60}], **changes}


def parsed(data) -> Score:
    return parse_score(json.dumps(data), "s.json")


def refused(text: str) -> str:
    with pytest.raises(AffgenError) as caught:
        parse_score(text, "s.json")
    message = str(caught.value)
    assert message.startswith("s.json: ") and "\n" not in message and len(message) < 400
    return message


@settings(max_examples=300, deadline=None)
@given(scores)
def test_what_is_written_is_read_again_exactly(score):
    text = score_json(score)
    assert parse_score(text, "s.json") == score
    assert score_json(parse_score(text, "s.json")) == text


def test_equal_scores_give_equal_bytes():
    whole = Score((Note(0, 1, 60, edit=Edit(cents=5)),), (Tempo(0, 90),), dynamics=(Dynamic(0, 64),))
    real = Score((Note(-0.0, 1.0, 60, edit=Edit(cents=5.0)),), (Tempo(0.0, 90.0),), dynamics=(Dynamic(-0.0, 64.0),))
    assert whole == real and score_json(whole) == score_json(real)


def test_the_text_has_one_note_on_a_line_and_seconds_by_the_tempos():
    lines = score_json(SUNG).splitlines()
    assert [line for line in lines if "pitch" in line] == [
        '  {"onset": 0.0, "duration": 1.0, "onset_s": 0.0, "duration_s": 0.666667, "pitch": 60, "velocity": 80, '
        '"syllable": "hel-", "phonemes": ["hh", "ah"], "edit": {"cents": -12.5, "intensity": 0.0}},',
        '  {"onset": 1.0, "duration": 0.5, "onset_s": 0.666667, "duration_s": 0.333333, "pitch": 62, "velocity": 90, '
        '"syllable": "lo", "phonemes": ["l", "ow"]},',
        '  {"onset": 1.5, "duration": 0.5, "onset_s": 1.0, "duration_s": 0.333333, "pitch": 64, "velocity": 80, '
        '"slur": true},',
        '  {"onset": 3.0, "duration": 1.0, "onset_s": 2.333333, "duration_s": 1.0, "pitch": 65, "velocity": 80, '
        '"syllable": "wörld", "edit": {}}',
    ]


def test_every_key_that_is_read_is_drawn_in_the_docstring():
    drawn = module.__doc__.split("accepted::\n")[1].split("\n\nSeconds")[0]
    keys = {
        *module._SCORE,
        *module._NOTE,
        *module._EDIT,
        *(key for _, kinds in module._TABLES.values() for key in kinds),
    }
    assert all(f'"{key}": ' in drawn for key in keys)


def test_files_are_written_whole_and_read_with_or_without_a_mark_of_their_order(tmp_path):
    write_score(SUNG, tmp_path / "s.json")
    assert (tmp_path / "s.json").read_bytes() == score_json(SUNG).encode()
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + score_json(SUNG).encode())
    assert parse_score(load_text(tmp_path / "bom.json"), "b") == SUNG
    (tmp_path / "latin.json").write_bytes("é".encode("latin-1"))
    (tmp_path / "large.json").write_bytes(b" " * 20_000_001)
    for name, words in (("latin", "byte 0 is no UTF-8"), ("large", "larger than 20 MB"), ("absent", "no such file")):
        with pytest.raises(AffgenError, match=words):
            load_text(tmp_path / f"{name}.json")
    with pytest.raises(AffgenError, match="cannot be read"):
        load_text(tmp_path)


def test_what_is_left_out_has_its_usual_value():
    assert parsed(document()) == Score((Note(0, 1, 60),))
    assert parsed(document(notes=[])) == Score(())


def test_seconds_count_where_there_are_no_beats():
    rows = [{"onset_s": 1.0, "duration_s": 2.0, "pitch": 60}, {"onset": 4, "duration_s": 1.5, "pitch": 62}]
    score = parsed(document(notes=rows, tempos=[{"beat": 0, "bpm": 60}, {"beat": 2, "bpm": 120}]))
    assert score.notes == (Note(1, 3, 60), Note(4, 3, 62))


def test_seconds_that_contradict_the_beats_are_refused():
    row = {"onset": 1, "duration": 1, "pitch": 60}
    assert parsed(document(notes=[{**row, "onset_s": 0.5009, "duration_s": 0.4991}])).notes == (Note(1, 1, 60),)
    assert "note 2 has onset_s 0.6, but its beats are 0.5 s" in refused(
        json.dumps(document(notes=[row, {**row, "onset_s": 0.6}]))
    )
    assert "note 1 has duration_s 1, but its beats are 0.5 s" in refused(
        json.dumps(document(notes=[{**row, "duration_s": 1}]))
    )


def test_slurs_are_the_further_notes_of_a_melisma():
    assert slurs(SUNG) == [False, False, True, False]
    assert slurs(fabricated_score(0)) == [False] * len(fabricated_score(0).notes)
    assert slurs(Score((Note(0, 1, 60), Note(1, 1, 60, phonemes=("aa",)), Note(1, 1, 55), Note(2, 1, 60)))) == [
        *(False, False, False, True)
    ]


NOTE = {"onset": 0, "duration": 1, "pitch": 60}
WRONG = [
    (document(tempo=90), "the score has the key 'tempo'; accepted are format, ticks_per_beat, texts, notes, tempos"),
    (document(format=2), "format 2; accepted is 1"),
    (document(format=True), "format True; accepted is a whole number"),
    ({"notes": []}, "has no format"),
    ({"format": 1}, "has no notes"),
    ([], "the score is []; accepted is an object"),
    (document(notes={}), "notes {}; accepted is a list"),
    (document(notes=[1]), "note 1 is 1; accepted is an object with onset, duration"),
    (document(notes=[NOTE, {**NOTE, "lyric": "la"}]), "note 2 has the key 'lyric'; accepted are onset"),
    (document(notes=[{**NOTE, "pitch": 60.5}]), "note 1 has pitch 60.5; accepted is a whole number"),
    (document(notes=[{**NOTE, "pitch": 128}]), "note 1: note of onset 0.0"),
    (document(notes=[{**NOTE, "pitch": 10**30}]), "accepted is a whole number"),
    (document(notes=[{**NOTE, "onset": "0"}]), "note 1 has onset '0'; accepted is a number"),
    (document(notes=[{**NOTE, "syllable": None}]), "note 1 has syllable None; accepted is a text"),
    (document(notes=[{**NOTE, "phonemes": "aa"}]), "accepted is a list"),
    (document(notes=[{**NOTE, "phonemes": [1]}]), "its phonemes hold 1; accepted are texts"),
    (document(notes=[{**NOTE, "slur": 1}]), "accepted is true or false"),
    (document(notes=[{**NOTE, "slur": True}]), "note 1 is a slur, but follows no note with a syllable"),
    (document(notes=[{**NOTE, "slur": True, "syllable": "la"}]), "note 1 is a slur, but has a syllable"),
    (document(notes=[{**NOTE, "edit": {"pitch": 1}}]), "the edit of note 1 has the key 'pitch'; accepted are cents"),
    (document(notes=[{**NOTE, "edit": {"cents": 1300}}]), "note 1: edit of 1300 cents"),
    (document(notes=[{"pitch": 60, "duration": 1}]), "note 1 has neither onset (beats) nor onset_s (seconds)"),
    (document(notes=[{"onset": 0, "duration": 1}]), "note 1 has no pitch"),
    (document(tempos=[{"beat": 0}]), "item 1 of tempos has no bpm"),
    (document(tempos=[{"beat": 0, "bpm": 0}]), "must be above 0"),
    (document(meters=[{"beat": 0, "numerator": 4, "denominator": 3}]), "meter 4/3"),
    (document(controls=[{"beat": 0, "number": 64, "value": 1.5}]), "item 1 of controls has value 1.5"),
    (document(texts=[3]), "texts hold 3"),
    (document(ticks_per_beat=0), "0 ticks per beat"),
]


@pytest.mark.parametrize(("data", "words"), WRONG, ids=[words for _, words in WRONG])
def test_mistakes_are_named_with_what_is_accepted(data, words):
    assert words in refused(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no"),
        ("{", "not usable JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"format": 1, "format": 1, "notes": []}', "the key 'format' stands twice"),
        ('{"format": 1, "notes": [{"onset": NaN, "duration": 1, "pitch": 60}]}', "NaN is no JSON"),
        ('{"format": 1, "notes": [{"onset": 1e999, "duration": 1, "pitch": 60}]}', "note of onset inf"),
        ('{"format": 1, "notes": [{"onset_s": 1e999, "duration_s": 1e999, "pitch": 60}]}', "note of onset"),
        ('{"format": 1, "notes": [], "texts": ["\\ud800"]}', "half of a surrogate pair"),
        ('{"format": 1, "notes": [], "texts": ["\ud800"]}', "half of a surrogate pair"),
        ('{"format": %s, "notes": []}' % ("1" * 1_000_000), "accepted is a whole number"),
        (" " * 20_000_001, "larger than 20 MB"),
        ('{"format": 1, "notes": [%s1]}' % ("1," * 200_000), "200,001 notes; accepted are up to 200,000"),
    ],
    ids=lambda value: value[:30],
)
def test_hostile_texts_are_refused(text, words):
    assert words in refused(text)


def test_nesting_that_json_can_still_read_is_refused_as_well():
    for depth in range(1, 1000, 37):
        for inner in ("", '"\\u0041"'):
            refused('{"format": 1, "notes": [], "texts": [' + "[" * depth + inner + "]" * depth + "]}")


def test_scores_too_large_to_be_read_are_not_written():
    with pytest.raises(AffgenError, match="200,001 notes"):
        score_json(Score((Note(0, 1, 60),) * 200_001))
    with pytest.raises(AffgenError, match="split it"):
        score_json(Score((), texts=("x" * 20_000_001,)))


def test_lone_surrogates_are_written_as_question_marks():
    score = Score((Note(0, 1, 60, lyric="l\ud800a"),))
    assert parse_score(score_json(score), "s") == replace(score, notes=(Note(0, 1, 60, lyric="l?a"),))


def mutated(rng: random.Random, text: str) -> str:
    """Damage ``text`` one to three times: mostly values in the place of others, or signs, cuts and repeats."""
    hostile = ("null", "[]", "{}", "-1", "1e400", "1e-320", "true", '""', "NaN", '"\\ud800"', "9" * 20)
    values = (*hostile, *("1", "2", "0.25", "100", "1e-3", "3.5") * 2)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) or 1)
        span = rng.choice((1, 1, 8, 40))
        match rng.randrange(12):
            case 0:
                text = text[:at] + rng.choice('{}[]",:.-0123456789e\\x\n') + text[at + 1 :]
            case 1:
                text = text[:at] + text[at + span :]
            case 2:
                text = text[:at] + text[at : at + span] + text[at:]
            case _:
                start = text.find(": ", at) + 2
                stops = [stop for stop in (text.find(sign, start) for sign in ",}]\n") if stop >= 0]
                text = text[:start] + rng.choice(values) + text[min(stops, default=start) :]
    return text


def test_mutated_texts_give_a_score_or_one_line():
    rng, read = random.Random(20_260_101), 0
    count = int(os.environ.get("AFFGEN_FUZZ", "1500"))
    sound = (score_json(SUNG), re.sub(r'"(onset|duration)_s": [^,]+, ', "", score_json(SUNG)))
    for number in range(count):
        text = mutated(rng, sound[number % 2])
        try:
            score = parse_score(text, "s.json")
        except AffgenError as error:
            assert "\n" not in str(error) and len(str(error)) < 400, number
        else:
            read += 1
            assert parse_score(score_json(score), "s.json") == score
    # a fuzzer whose texts are all refused at the door, or all pass, tests nothing
    assert count * 0.05 < read < count * 0.9


def test_json_is_read_for_every_schema_alike():
    assert load_json('{"a": [1, 2.5, "\\u00e9"]}', "x") == {"a": [1, 2.5, "é"]}
