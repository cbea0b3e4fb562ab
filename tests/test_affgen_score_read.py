"""Scores by the ending of their file, ESPnet's JSON, syllables from a text, and libresvip where it is installed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from affgen.midi import write_midi
from affgen.score import Edit, Marker, Meter, Note, Score, Tempo
from affgen.score_ds import write_ds
from affgen.score_espnet import is_espnet, parse_espnet
from affgen.score_json import slurs, write_score
from affgen.score_read import READERS, read_score, split_syllables

SUNG = Score(
    (
        Note(0, 1, 60, lyric="hel-", phonemes=("hh", "ah"), edit=Edit(cents=5)),
        Note(1, 1, 62, lyric="lo", phonemes=("l", "ow")),
        Note(2, 1, 64),
        Note(4, 2, 65, lyric="you", phonemes=("y", "uw")),
    )
)
PLAIN = Score(tuple(Note(n.onset, n.duration, n.pitch, lyric=n.lyric) for n in SUNG.notes))
ESPNET = {
    "tempo": 90,
    "item_list": ["st", "et", "lyric", "midi", "phns"],
    "note": [
        [0.0, 1.0, "SP", 0, "SP"],
        [1.0, 2.0, "sh_ir", 60, "sh_ir"],
        [2.0, 2.5, "—", 62, "ir"],
        [2.5, 2.5, "B", 0, "B"],
        [2.5, 3.0, "zhe", 64, "zh_e"],
        [3.0, 4.0, "P", 0, "P"],
    ],
}


def refused(path: Path, lyrics: Path | None = None) -> str:
    with pytest.raises(AffgenError) as caught:
        read_score(path, lyrics=lyrics)
    message = str(caught.value)
    assert message.startswith(f"{lyrics or path}: ") and "\n" not in message
    return message.removeprefix(f"{lyrics or path}: ")


# --- by the ending ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mid", "a.MIDI", "a.json", "a.ds"])
def test_the_ending_says_which_reader_takes_a_file(name, tmp_path):
    write = {"m": write_midi, "j": write_score, "d": write_ds}[name[2].lower()]
    write(SUNG, tmp_path / name)
    kept = {"m": PLAIN, "j": SUNG, "d": SUNG}[name[2].lower()]
    assert read_score(tmp_path / name) == kept == read_score(str(tmp_path / name))


def test_music_xml_goes_to_its_reader(tmp_path, monkeypatch):
    reader = ModuleType("affgen.musicxml")
    reader.read_musicxml = lambda path: Score((Note(0, 1, 60, lyric=Path(path).suffix),))
    monkeypatch.setitem(sys.modules, "affgen.musicxml", reader)
    for ending in (".musicxml", ".xml", ".mxl", ".XML"):
        assert read_score(tmp_path / f"a{ending}").notes[0].lyric == ending


def test_json_of_espnet_is_told_apart_by_its_keys(tmp_path):
    for data in (ESPNET, {"utt1": ESPNET}):
        (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
        assert read_score(tmp_path / "a.json") == parse_espnet(json.dumps(data), "a")
    for data in ({}, [], {"format": 1, "notes": []}, {"a": ESPNET, "b": 1}, 1, None):
        assert not is_espnet(data)
        (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
        assert "the score " in refused(tmp_path / "a.json") or "has no notes" in refused(tmp_path / "a.json")


def test_scores_without_notes_or_an_end_are_refused(tmp_path):
    write_score(Score(()), tmp_path / "a.json")
    assert refused(tmp_path / "a.json").startswith("has no notes")
    for bpm in (0.1, 5e-324):
        write_score(Score((Note(0, 100, 60),), tempos=(Tempo(0, bpm),)), tmp_path / "a.json")
        assert "hours; accepted are up to 6" in refused(tmp_path / "a.json")


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    for ending in (".mid", ".json", ".ds"):
        assert "no such file" in refused(tmp_path / f"absent{ending}")
        (tmp_path / f"a{ending}").write_bytes(b"\xff\x00\x80")
        assert "accepted" in refused(tmp_path / f"a{ending}")


# --- ESPnet ----------------------------------------------------------------------------------------------------------


def test_notes_of_espnet_have_syllables_phones_slurs_and_rests():
    score = parse_espnet(json.dumps(ESPNET), "a")
    assert score.notes == (
        Note(1.5, 1.5, 60, lyric="sh_ir", phonemes=("sh", "ir")),
        Note(3.0, 0.75, 62),
        Note(3.75, 0.75, 64, lyric="zhe", phonemes=("zh", "e")),
    )
    assert slurs(score) == [False, True, False]
    assert score.tempos == (Tempo(0, 90),) and score.markers == ()


def test_utterances_of_espnet_follow_each_other_with_their_tempos():
    other = {"tempo": 60, "item_list": ["midi", "et", "st", "lyric"], "note": [[70, 1.5, 1, "la"], [72, 2, 1.5, "—"]]}
    score = parse_espnet(json.dumps({"one": ESPNET, "two": other, "three": other}), "a")
    for at, note in ((7, 3), (9, 5)):
        assert score.notes[note : note + 2] == (Note(at, 0.5, 70, lyric="la"), Note(at + 0.5, 0.5, 72))
    assert score.tempos == (Tempo(0, 90), Tempo(6, 60), Tempo(8, 60))
    assert score.markers == (Marker(0, "one"), Marker(6, "two"), Marker(8, "three"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"note": 1}, "it has note 1; accepted is a list"),
        ({"tempo": "90"}, "it has tempo '90'; accepted is a number"),
        ({"tempo": 0}, "tempo of 0.0 beats per minute"),
        ({"item_list": ["st", "et", "pitch"]}, "not 3 items as item_list has"),
        ({"item_list": ["st", "et", "lyric", "pitch", "phns"]}, "note 1 has the key 'pitch'; accepted are st, et"),
        ({"item_list": ["st"], "note": [[0]]}, "note 1 has no et"),
        ({"item_list": 1}, "accepted is a list"),
        ({"item_list": [1]}, "item_list hold 1"),
        ({"note": [[0, 1, "la", 60.5, "l_a"]]}, "note 1 has midi 60.5; accepted is a whole number"),
        ({"note": [[0, 1, "la", "C4", "l_a"]]}, "note 1 has midi 'C4'"),
        ({"note": [[1, 1, "la", 60, "l_a"]]}, "duration 0.0"),
        ({"note": [[-1, 1, "la", 60, "l_a"]]}, "onset -1.5"),
        ({"note": [[0, 1e308, "la", 0, "l_a"]], "tempo": 1e300}, "tempo at beat inf"),
    ],
)
def test_mistakes_in_scores_of_espnet_are_named(change, words):
    with pytest.raises(AffgenError) as caught:
        parse_espnet(json.dumps({"one": {**ESPNET, **change}, "two": ESPNET}), "a.json")
    message = str(caught.value)
    assert message.startswith("a.json: utterance '") and words in message and 'accepted: {"tempo"' in message
    assert "\n" not in message


def test_json_that_is_not_of_espnet_is_refused():
    for text in ("{}", "[]", '{"notes": []}'):
        with pytest.raises(AffgenError, match="no score of ESPnet"):
            parse_espnet(text, "a")
    with pytest.raises(AffgenError, match="it has no tempo"):
        parse_espnet('{"note": []}', "a")
    many = {**ESPNET, "note": [[0, 1, "", 60, ""]] * 200_001}
    with pytest.raises(AffgenError, match="200,001 notes; accepted are up to 200,000"):
        parse_espnet(json.dumps(many), "a")


# --- syllables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("hel-lo world", ["hel-", "lo", "world"]),
        ("hel - lo\nworld\n", ["hel-", "lo", "world"]),
        ("hel- lo  _ _ a-gain", ["hel-", "lo", "", "", "a-", "gain"]),
        ("Glo-_-_ri-a__", ["Glo-", "", "", "ri-", "a", "", ""]),
        ("hel--lo -", ["hel-", "lo-"]),
        ("- la", ["la"]),
        ("l'amour, (ö)", ["l'amour,", "(ö)"]),
        ("", []),
    ],
)
def test_blanks_part_syllables_and_dashes_join_words(text, syllables):
    assert split_syllables(text) == syllables


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab-_ \n"), max_size=20))
def test_no_syllable_is_a_dash_and_none_is_lost(text):
    syllables = split_syllables(text)
    assert all(syllable.strip("ab") in ("", "-") and syllable != "-" for syllable in syllables)
    assert "".join(syllables).replace("-", "") == "".join(sign for sign in text if sign in "ab")
    assert syllables.count("") == text.count("_")


def test_syllables_are_set_on_the_notes_in_order(tmp_path):
    write_score(SUNG, tmp_path / "a.json")
    (tmp_path / "a.txt").write_text("a-gain\n_ wörld", encoding="utf-8")
    notes = read_score(tmp_path / "a.json", lyrics=tmp_path / "a.txt").notes
    assert [note.lyric for note in notes] == ["a-", "gain", "", "wörld"]
    assert all(note.phonemes == () for note in notes) and notes[0].edit == Edit(cents=5)
    assert read_score(str(tmp_path / "a.json"), lyrics=str(tmp_path / "a.txt")).notes == notes


def test_of_a_chord_the_highest_note_has_the_syllable(tmp_path):
    write_score(Score((Note(0, 1, 60), Note(0, 2, 55), Note(2, 1, 60))), tmp_path / "a.json")
    (tmp_path / "a.txt").write_text("la lo")
    notes = read_score(tmp_path / "a.json", lyrics=tmp_path / "a.txt").notes
    assert [(note.pitch, note.lyric) for note in notes] == [(55, ""), (60, "la"), (60, "lo")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two three", "3 syllables (each _ counts) for 4 notes: note 4 (F4, bar 2) has none"),
        ("", "0 syllables (each _ counts) for 4 notes: note 1 (C4, bar 1) has none"),
        ("one two three four five six", "6 syllables (each _ counts) for 4 notes: 'five' is the first left over"),
        ("one two three four _", "5 syllables (each _ counts) for 4 notes: '_' is the first left over"),
        ("_ two three four", "starts with _"),
    ],
)
def test_too_few_or_too_many_syllables_are_named(text, words, tmp_path):
    write_midi(PLAIN, tmp_path / "a.mid")
    (tmp_path / "a.txt").write_text(text)
    assert refused(tmp_path / "a.mid", tmp_path / "a.txt").startswith(words)


def test_a_text_of_syllables_that_cannot_be_read_is_named(tmp_path):
    write_midi(PLAIN, tmp_path / "a.mid")
    assert "no such file" in refused(tmp_path / "a.mid", tmp_path / "absent.txt")


# --- libresvip -------------------------------------------------------------------------------------------------------


def project(**changes) -> SimpleNamespace:
    """Have what the adapter reads in libresvip's model."""
    note = SimpleNamespace(start_pos=480, length=240, key_number=60, lyric="hello")
    further = [SimpleNamespace(start_pos=720, length=240, key_number=62, lyric=lyric) for lyric in ("-", "+")]
    parts = {
        "song_tempo_list": [SimpleNamespace(position=0, bpm=90.0), SimpleNamespace(position=960, bpm=60.0)],
        "time_signature_list": [
            SimpleNamespace(bar_index=2, numerator=3, denominator=4),
            SimpleNamespace(bar_index=0, numerator=6, denominator=8),
        ],
        "track_list": [SimpleNamespace(), SimpleNamespace(note_list=[]), SimpleNamespace(note_list=[note, *further])],
    }
    return SimpleNamespace(**{**parts, **changes})


def stub(monkeypatch, load) -> None:
    """Put a libresvip in place that reads ``.svp`` by ``load``."""
    manager = ModuleType("libresvip.extension.manager")
    manager.get_supported_suffixes = lambda: ["mid", "svp"]
    manager.get_svs_plugin_by_suffix = {"svp": SimpleNamespace(load=load)}.get
    for name in ("libresvip", "libresvip.extension"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "libresvip.extension.manager", manager)


def test_without_libresvip_other_endings_are_refused_with_the_way_to_have_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "libresvip", None)
    for name in ("a.svp", "a", "a.pdf"):
        message = refused(tmp_path / name)
        assert f"accepted: {' '.join(READERS)}, and with libresvip (pip install 'affgen[scores]')" in message
    assert "the ending that is missing" in refused(tmp_path / "a")


def test_projects_of_editors_are_converted_from_libresvips_model(tmp_path, monkeypatch):
    stub(monkeypatch, lambda path, options: project() if options["import_pitch"] is False else None)
    (tmp_path / "a.svp").write_text("{}")
    assert read_score(tmp_path / "a.svp") == Score(
        (Note(1, 0.5, 60, lyric="hello"), Note(1.5, 0.5, 62), Note(1.5, 0.5, 62)),
        tempos=(Tempo(0, 90), Tempo(2, 60)),
        meters=(Meter(0, 6, 8), Meter(6, 3, 4)),
    )


def test_what_libresvip_cannot_read_is_one_line(tmp_path, monkeypatch):
    def fail(path, options):
        raise KeyError("two\nlines")

    stub(monkeypatch, fail)
    assert "the ending .pdf is not read here; accepted: .musicxml" in refused(tmp_path / "a.pdf")
    assert refused(tmp_path / "a.pdf").endswith(" .ds .svp")
    assert "no such file" in refused(tmp_path / "a.svp")
    (tmp_path / "a.svp").write_text("{}")
    assert "libresvip cannot read it (KeyError: 'two\\nlines')" in refused(tmp_path / "a.svp")
    note = SimpleNamespace(start_pos=0, length=0, key_number=60, lyric="la")
    for notes, words in (([note], "duration 0"), ([note] * 200_001, "200,001 notes"), ([], "has no notes")):
        stub(monkeypatch, lambda path, options, notes=notes: project(track_list=[SimpleNamespace(note_list=notes)]))
        assert words in refused(tmp_path / "a.svp")
    (tmp_path / "a.svp").write_bytes(b" " * 20_000_001)
    assert "larger than 20 MB" in refused(tmp_path / "a.svp")


def test_libresvip_itself_reads_a_project(tmp_path):
    pytest.importorskip("libresvip")
    rows = [("R", 60), ("la", 62), ("-", 64)]
    body = "".join(
        f"[#{number:04d}]\nLength=480\nLyric={lyric}\nNoteNum={pitch}\nPreUtterance=\n"
        for number, (lyric, pitch) in enumerate(rows)
    )
    head = "[#VERSION]\nUST Version1.2\n[#SETTING]\nTempo=90.00\nTracks=1\nProjectName=x\nMode2=True\n"
    (tmp_path / "a.ust").write_text(f"{head}{body}[#TRACKEND]\n")
    assert read_score(tmp_path / "a.ust") == Score((Note(1, 1, 62, lyric="la"), Note(2, 1, 64)), tempos=(Tempo(0, 90),))
    (tmp_path / "a.ust").write_text("[#VERSION")
    assert "libresvip cannot read it" in refused(tmp_path / "a.ust")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_mutated_files_give_a_score_or_one_line(tmp_path):
    write_midi(SUNG, tmp_path / "a.mid")
    write_score(SUNG, tmp_path / "b.json")
    write_ds(SUNG, tmp_path / "c.ds")
    (tmp_path / "d.json").write_text(json.dumps({"one": ESPNET, "two": ESPNET}), encoding="utf-8")
    rng, read = random.Random(20_260_103), 0
    for path in sorted(tmp_path.iterdir()):
        sound = path.read_bytes()
        for number in range(150):
            data = bytearray(sound)
            for _ in range(rng.randint(1, 2)):
                at = rng.randrange(len(data))
                data[at : at + rng.randrange(3)] = rng.choice((b"", b"0", b"9", b"-", b'"', b"\xff", b"[", b"SP"))
            path.write_bytes(data)
            try:
                read += bool(read_score(path).notes)
            except AffgenError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error), (path, number)
    assert 30 < read < 540
