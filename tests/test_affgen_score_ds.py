"""Scores in DiffSinger's segments: the words of the format, there and back, and whatever the bytes one line at most."""

from __future__ import annotations

import json
import random

import librosa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from affgen.score import Edit, Note, Score, Tempo
from affgen.score_ds import ds_json, note_name, parse_ds, place, write_ds
from affgen.score_json import slurs

# text, phones and notes as the README of MakeDiffSinger draws them, with times made up
WORDS = {
    "offset": 1.5,
    "text": "AP shi zhe SP",
    "ph_seq": "AP sh ir zh e SP",
    "ph_dur": "0.4 0.1 0.45 0.05 0.5 0.1",
    "ph_num": "2 2 1 1",
    "note_seq": "rest D#3 D#3 C4+12 rest",
    "note_dur": "0.5 0.25 0.25 0.5 0.1",
    "note_slur": "0 0 1 0 0",
    "f0_seq": "150.0 151.2",
    "f0_timestep": "0.005",
}


def parsed(*segments: dict) -> Score:
    return parse_ds(json.dumps(segments), "s.ds")


def test_consonants_go_to_the_syllable_that_they_lead_in_to():
    score = parsed(WORDS)
    assert score.notes == (
        Note(4.0, 0.5, 51, lyric="shi", phonemes=("sh", "ir")),
        Note(4.5, 0.5, 51),
        Note(5.0, 1.0, 60, lyric="zhe", phonemes=("zh", "e"), edit=Edit(cents=12)),
    )
    assert slurs(score) == [False, True, False]
    assert score.tempos == (Tempo(0, 120),)
    assert score.texts == ("read from DiffSinger segments, 1 of them with an F0 curve that was not kept",)


def test_consonants_before_a_rest_close_the_syllable():
    score = parsed({**WORDS, "ph_seq": "AP s t AA p SP", "ph_num": "3 2 1", "text": "", "note_slur": "0 0 1 1 0"})
    assert [note.phonemes for note in score.notes] == [("s", "t", "AA", "p"), (), ()]
    assert score.notes[0].lyric == "stAAp"


@pytest.mark.parametrize(
    ("phones", "counts", "found"),
    [
        pytest.param("SP en/hh en/ah en/l en/ow", "2 2 1", ["en/hh en/ah", "en/l en/ow"], id="language"),
        pytest.param("SP ah l ow w er", "1 4 1", ["ah l ow", "w er"], id="two vowels in a word"),
        pytest.param("SP l v n i", "2 2 1", ["l v", "n i"], id="a vowel that does not begin with one"),
        pytest.param("SP N k a", "1 2 1", ["N", "k a"], id="isolated consonant"),
        pytest.param("SP a i", "1 1 1", ["a", "i"], id="vowels alone"),
        pytest.param("AP SP k a i", "3 1 1", ["k a", "i"], id="breath and silence"),
    ],
)
def test_words_of_other_languages(phones, counts, found):
    segment = {"ph_seq": phones, "ph_num": counts, "note_seq": "rest C4 D4", "note_dur": "0.5 0.5 0.5"}
    assert [" ".join(note.phonemes) for note in parsed(segment).notes] == found


@pytest.mark.parametrize(
    "name", ["C4", "A#3", "Db4", "C♯4", "b2", "B#3", "C-1", "G9", "C4+12", "F#3-49", "C-1+5", "Ebb5"]
)
def test_names_of_notes_mean_what_librosa_reads_in_them(name):
    segment = {"ph_seq": "a", "ph_num": "1", "note_seq": name, "note_dur": "1"}
    (note,) = parsed(segment).notes
    cents = note.edit.cents if note.edit else 0
    assert note.pitch + cents / 100 == pytest.approx(librosa.note_to_midi(name, round_midi=False))


@pytest.mark.parametrize("pitch", range(128))
def test_notes_are_named_as_librosa_names_them(pitch):
    assert note_name(Note(0, 1, pitch)) == librosa.midi_to_note(pitch, unicode=False)
    assert librosa.note_to_midi(note_name(Note(0, 1, pitch, edit=Edit(cents=-31.4)))) == pitch


def test_one_segment_alone_offsets_as_text_and_rounded_ones_are_read():
    segment = {**WORDS, "offset": "-0.50004"}
    assert parse_ds(json.dumps(segment), "s.ds").notes[0].onset == 0
    assert parsed({**WORDS, "offset": 0}, WORDS).notes[3].onset == 4
    assert parse_ds("[]", "s.ds") == Score(())


def voice() -> Score:
    return Score(
        (
            Note(0.5, 0.5, 60, lyric="stop", phonemes=("s", "t", "aa", "p"), edit=Edit(cents=12.4, gain_db=3)),
            Note(1, 1, 62, lyric="it", phonemes=("ih", "t")),
            Note(2, 0.5, 64),
            Note(2.75, 0.25, 60, lyric="a b", phonemes=("b", "ah")),
            Note(5, 1, 60, lyric="", phonemes=("hh", "m")),
        ),
        tempos=(Tempo(0, 60),),
    )


def test_a_phrase_is_a_segment_of_words():
    first, second = json.loads(ds_json(voice()))
    assert first == {
        "offset": 0.25,
        "text": "SP stop it SP a_b SP",
        "ph_seq": "SP s t aa p ih t SP b ah SP",
        "ph_num": "3 2 2 2 1 1",
        "ph_lead": "0 2 0 0 1 0",
        "note_seq": "rest C4+12 D4 E4 rest C4 rest",
        "note_dur": "0.250000 0.500000 1.000000 0.500000 0.250000 0.250000 0.100000",
        "note_slur": "0 0 0 1 0 0 0",
    }
    assert (second["offset"], second["ph_seq"], second["ph_num"]) == (4.75, "SP hh m SP", "2 1 1")


def test_a_note_at_the_very_start_keeps_its_consonants():
    (segment,) = json.loads(ds_json(Score((Note(0, 1, 60, lyric="la", phonemes=("l", "aa")),))))
    assert (segment["offset"], segment["ph_seq"], segment["ph_num"], segment["ph_lead"]) == (0, "l aa SP", "2 1", "0 0")


phones = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=3).filter(
    lambda phone: phone not in ("SP", "AP")
)
syllables = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=4)


@st.composite
def voices(draw):
    """A voice with rests, melismas and edits, on a grid of microseconds so that nothing is rounded."""
    at, notes, previous = draw(st.integers(0, 3_000_000)), [], None
    for _ in range(draw(st.integers(0, 12))):
        length = draw(st.integers(2_000, 4_000_000))
        slur = previous == at and draw(st.booleans())
        cents = draw(st.none() | st.integers(-1200, 1200).filter(bool))
        notes.append(
            Note(
                at / 1e6,
                length / 1e6,
                draw(st.integers(0, 127)),
                lyric="" if slur else draw(syllables),
                phonemes=() if slur else tuple(draw(st.lists(phones, min_size=1, max_size=5))),
                edit=None if cents is None else Edit(cents=cents),
            )
        )
        previous = at + length
        at = previous + draw(st.just(0) | st.integers(2_000, 2_000_000))
    return Score(tuple(notes), tempos=(Tempo(0, 60),))


@settings(max_examples=300, deadline=None)
@given(voices())
def test_notes_survive_a_file(score):
    back = parse_ds(ds_json(score), "s.ds")
    kept = [(n.pitch, n.lyric, n.phonemes, n.edit) for n in score.notes]
    assert [(n.pitch, n.lyric, n.phonemes, n.edit) for n in back.notes] == kept
    assert slurs(back) == slurs(score)
    for one, two in zip(score.notes, back.notes, strict=True):
        assert back.seconds([two.onset, two.end]) == pytest.approx([one.onset, one.end], abs=1e-6)
    assert json.loads(ds_json(back)) == json.loads(ds_json(score))


@settings(max_examples=100, deadline=None)
@given(voices())
def test_what_other_programs_read_in_a_file_fits_together(score):
    for segment in json.loads(ds_json(score)):
        counts, flags = segment["ph_num"].split(), segment["note_slur"].split()
        assert sum(map(int, counts)) == len(segment["ph_seq"].split())
        assert len(counts) == flags.count("0") == len(segment["text"].split()) and flags[0] == "0"
        assert len(flags) == len(segment["note_seq"].split()) == len(segment["note_dur"].split())
        assert segment["offset"] >= 0 and min(map(float, segment["note_dur"].split())) > 0


def test_notes_nearer_than_a_millisecond_are_joined():
    score = Score(
        (Note(0, 1 / 3, 60, phonemes=("a",)), Note(0.3339, 0.1668, 62), Note(0.5, 1, 64, phonemes=("i",))),
        tempos=(Tempo(0, 60),),
    )
    (segment,) = json.loads(ds_json(score))
    assert segment["note_dur"] == "0.333900 0.166100 1.000000 0.100000"
    with pytest.raises(AffgenError, match=r"note 2 .* starts before"):
        ds_json(Score((Note(0, 1e-3, 60, phonemes=("a",)), Note(0, 1, 62, phonemes=("a",)))))


SUNG = Note(0, 1, 60, lyric="la", phonemes=("l", "aa"))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (Note(4, 1, 63, lyric="la"), r"note 2 \(D#4, bar 2\) has no phonemes"),
        (Note(1.5, 1, 60), r"note 2 \(C4, bar 1\) goes on with a syllable after a rest"),
        (Note(0.5, 1, 60, phonemes=("a",)), r"note 2 \(C4, bar 1\) starts before the one before it ends"),
        (Note(0, 1, 64, phonemes=("a",)), r"note 2 \(E4, bar 1\) starts before"),
        (Note(1, 1, 64, phonemes=("a", "SP")), "SP or AP, which are rests"),
        (Note(1, 1, 64, phonemes=("a b",)), "phonemes with blanks"),
        (Note(1, 1, 64, phonemes=("",)), "phonemes with blanks"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(second, words, tmp_path):
    score = Score((SUNG, second))
    with pytest.raises(AffgenError, match=words):
        ds_json(score)
    with pytest.raises(AffgenError) as caught:
        write_ds(score, tmp_path / "a.ds")
    assert str(caught.value).startswith(f"{tmp_path / 'a.ds'}: note 2 (") and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_score_without_an_end_in_seconds_is_refused():
    with pytest.raises(AffgenError, match="so slow are its tempos"):
        ds_json(Score((SUNG, Note(1, 1, 60)), tempos=(Tempo(0, 5e-324),)))


def test_files_are_written_as_they_are_read(tmp_path):
    write_ds(voice(), tmp_path / "a.ds")
    assert (tmp_path / "a.ds").read_text(encoding="utf-8") == ds_json(voice())
    assert "l?" in ds_json(Score((Note(0, 1, 60, lyric="l\ud800", phonemes=("l",)),)))


def test_a_place_in_the_score_is_its_note_and_bar():
    assert place(Score((SUNG, Note(3.9999999999, 1, 61))), 1) == "note 2 (C#4, bar 2)"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"note_seq": None}, "note_seq is None, no text"),
        ({"note_seq": "rest D#3 X3 C4 rest"}, "note_seq has 'X3', no name of a note such as C4"),
        ({"note_seq": "rest D#3 G#9 C4 rest"}, "pitch 128"),
        ({"note_seq": "rest D#3"}, "2 note_seq, 5 note_dur, 5 note_slur"),
        ({"note_dur": "a b c d e"}, "not all numbers"),
        ({"note_dur": "0.5 0.25 0 0.5 0.1"}, "duration 0.0"),
        ({"note_dur": "0.5 nan 0.25 0.5 0.1"}, "note of onset"),
        ({"note_dur": "-0.5 0.25 0.25 0.5 0.1"}, "below 0"),
        ({"note_slur": "1 0 1 0 0"}, "note_slur is not 0 where"),
        ({"note_slur": "0 0 2 0 0"}, "note_slur is not 0 where"),
        ({"ph_num": "2 2 2"}, "ph_num has 3 words, the notes that are no slurs are 4"),
        ({"ph_num": "2 2 2 1"}, "ph_num makes up 7 phones"),
        ({"ph_num": "2 3 0 1"}, "with 1 or more each"),
        ({"ph_lead": "0 2 1 0"}, "ph_lead does not fit"),
        ({"ph_lead": "0 1"}, "ph_lead does not fit"),
        ({"offset": "a"}, "not all numbers"),
        ({"offset": ""}, "offset is '', no number"),
        ({"offset": -3}, "onset -5"),
    ],
)
def test_mistakes_name_their_segment(change, words):
    with pytest.raises(AffgenError) as caught:
        parsed(WORDS, {**WORDS, **change})
    message = str(caught.value)
    assert message.startswith("s.ds: segment 2: ") and words in message and "\n" not in message
    assert "accepted: DiffSinger segments with offset, ph_seq, ph_num" in message


def test_segments_without_what_is_needed_are_refused():
    for key in ("ph_seq", "ph_num", "note_seq", "note_dur"):
        with pytest.raises(AffgenError, match=f"segment 1: has no {key}"):
            parsed({name: value for name, value in WORDS.items() if name != key})
    for data in ("1", '"a"', "[[]]", "[" * 100_000):
        with pytest.raises(AffgenError, match=r"^s\.ds: "):
            parse_ds(data, "s.ds")


def test_mutated_files_give_a_score_or_one_line():
    rng, read = random.Random(20_260_102), 0
    items = ["0", "1", "-1", "2", "1e999", "nan", "SP", "AP", "rest", "C4", "C44", "", "a", "0.25", "9" * 5000]
    for number in range(1500):
        segment = json.loads(ds_json(voice()))[0] if number % 2 else dict(WORDS)
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(list(segment))
            parts = str(segment[key]).split()
            match rng.randrange(8):
                case 0:
                    segment[key] = rng.choice([None, 1, [], {}, True, "", 1e300])
                case 1:
                    del segment[key]
                case 2:
                    parts[rng.randrange(len(parts) + 1) :] = []
                    segment[key] = " ".join(parts)
                case _:
                    at = rng.randrange(len(parts) or 1)
                    segment[key] = " ".join([*parts[:at], rng.choice([*items, *parts]), *parts[at + 1 :]])
            if not segment:
                break
        try:
            parsed(segment)
        except AffgenError as error:
            assert "\n" not in str(error) and len(str(error)) < 400, number
        else:
            read += 1
    assert 75 < read < 1350
