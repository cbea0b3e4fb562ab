"""Scores as values, and what MIDI files make of them; mido is the independent witness."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from affgen.score import Control, Dynamic, Edit, Marker, Meter, Note, Score, Tempo, midi_bytes, read_midi, write_midi
from affgen.testing import fabricated_score


def midi_file(*tracks: bytes, kind: int = 1, division: int = 96) -> bytes:
    head = b"MThd\0\0\0\6" + b"".join(value.to_bytes(2, "big") for value in (kind, len(tracks), division))
    return head + b"".join(b"MTrk" + len(track).to_bytes(4, "big") + track for track in tracks)


def mido_notes(file: mido.MidiFile) -> list[tuple[int, int, int, int]]:
    """(start, end, pitch, velocity) of every note but drums, first in first out, as mido's messages have them."""
    found = []
    for track in file.tracks:
        tick, open_notes = 0, defaultdict(list)
        for message in track:
            tick += message.time
            if message.type not in ("note_on", "note_off") or message.channel == 9:
                continue
            key = message.channel, message.note
            if message.type == "note_on" and message.velocity:
                open_notes[key].append((tick, message.velocity))
            elif open_notes[key]:
                start, velocity = open_notes[key].pop(0)
                found.append((start, tick, message.note, velocity))
        found += [(start, tick, key[1], velocity) for key, left in open_notes.items() for start, velocity in left]
    return sorted(note for note in found if note[1] > note[0])


def own_notes(score: Score) -> list[tuple[int, int, int, int]]:
    per = score.ticks_per_beat
    return sorted((round(n.onset * per), round(n.end * per), n.pitch, n.velocity) for n in score.notes)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Note(-1, 1, 60),
        lambda: Note(float("nan"), 1, 60),
        lambda: Note(0, 0, 60),
        lambda: Note(0, float("inf"), 60),
        lambda: Note(0, 1, 128),
        lambda: Note(0, 1, 60, 0),
        lambda: Tempo(0, 0),
        lambda: Tempo(0, float("nan")),
        lambda: Tempo(-1, 120),
        lambda: Meter(0, 0, 4),
        lambda: Meter(0, 4, 3),
        lambda: Marker(float("nan"), "A"),
        lambda: Control(0, 64, 128),
        lambda: Score((), ticks_per_beat=0),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(make):
    with pytest.raises(AffgenError) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_order_of_construction_does_not_matter():
    notes = (Note(1, 1, 60), Note(0, 2, 64), Note(0, 1, 60))
    score = Score(notes, tempos=(Tempo(4, 90), Tempo(0, 100)), markers=(Marker(2, "b"), Marker(1, "a")))
    assert score == Score(notes[::-1], tempos=(Tempo(0, 100), Tempo(4, 90)), markers=(Marker(1, "a"), Marker(2, "b")))
    assert [(n.onset, n.pitch) for n in score.notes] == [(0, 60), (0, 64), (1, 60)]
    assert hash(score) == hash(Score(score.notes, score.tempos, markers=score.markers))


def test_a_start_without_tempo_or_meter_gets_the_usual_ones_and_the_later_of_two_counts():
    score = Score((), tempos=(Tempo(2, 60), Tempo(2, 90)), meters=(Meter(3, 3, 4),))
    assert score.tempos == (Tempo(0, 120), Tempo(2, 90))
    assert score.meters == (Meter(0, 4, 4), Meter(3, 3, 4))


def test_seconds_follow_the_tempo_map_and_beats_undo_them():
    score = Score((Note(0, 10, 60),), tempos=(Tempo(0, 60), Tempo(2, 120), Tempo(6, 30)))
    np.testing.assert_allclose(score.seconds(np.array([0, 1, 2, 4, 6, 10])), [0, 1, 2, 3, 4, 12])
    assert score.duration_s == 12 and score.end == 10
    beats = np.linspace(-1, 20, 85).reshape(5, 17)
    np.testing.assert_allclose(score.beats(score.seconds(beats)), beats, atol=1e-12)


def test_bar_lines_follow_the_meters():
    meters = (Meter(0, 4, 4), Meter(8, 6, 8))
    np.testing.assert_allclose(Score((Note(0, 11.5, 60),), meters=meters).bar_lines(), [0, 4, 8, 11, 14])
    np.testing.assert_allclose(Score((Note(0, 8, 60),), meters=meters).bar_lines(), [0, 4, 8])
    np.testing.assert_allclose(
        Score((Note(0, 6, 60),), meters=(Meter(0, 4, 4), Meter(5, 2, 4))).bar_lines(), [0, 4, 5, 7]
    )
    np.testing.assert_allclose(Score(()).bar_lines(), [0, 4])


def test_arrays_are_columns_in_order():
    columns = Score((Note(1.5, 0.5, 62, 90), Note(0, 1, 60, 70))).arrays()
    assert {key: (value.tolist(), value.dtype.kind) for key, value in columns.items()} == {
        "onset": ([0, 1.5], "f"),
        "duration": ([1, 0.5], "f"),
        "pitch": ([60, 62], "i"),
        "velocity": ([70, 90], "i"),
    }
    assert all(len(value) == 0 for value in Score(()).arrays().values())


# --- MIDI, there and back --------------------------------------------------------------------------------------------

ticks = st.integers(0, 5000)
texts = st.text(st.characters(codec="utf-8"), max_size=12).map(str.strip)


@st.composite
def scores(draw):
    per_beat = draw(st.sampled_from([1, 24, 96, 480, 960, 32767]))
    rows = st.tuples(ticks, st.integers(1, 2000), st.integers(0, 127), st.integers(1, 127))
    sung = draw(st.sets(ticks, max_size=5))
    last: dict[int, int] = {}
    notes = []
    for start, length, pitch, velocity in sorted(draw(st.lists(rows, min_size=1, max_size=40))):
        if start + length >= last.get(pitch, 0):  # MIDI cannot tell which of two enclosing notes ends
            last[pitch] = start + length
            lyric = draw(texts) if start in sung else ""
            notes.append(Note(start / per_beat, length / per_beat, pitch, velocity, lyric))
    if any(not note.lyric for note in notes if note.onset * per_beat in sung):
        notes = [Note(n.onset, n.duration, n.pitch, n.velocity) for n in notes]
    positions = ticks.map(lambda tick: tick / per_beat)
    tempo = st.builds(lambda beat, value: Tempo(beat, 60_000_000 / value), positions, st.integers(1, 3_000_000))
    meter = st.builds(Meter, positions, st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    control = st.builds(Control, positions, st.integers(0, 127), st.integers(0, 127))
    return Score(
        tuple(notes),
        tempos=tuple(draw(st.lists(tempo, max_size=5))),
        meters=tuple(draw(st.lists(meter, max_size=5))),
        markers=tuple(draw(st.lists(st.builds(Marker, positions, texts), max_size=5))),
        controls=tuple(draw(st.lists(control, max_size=8))),
        texts=tuple(draw(st.lists(texts, max_size=3))),
        ticks_per_beat=per_beat,
    )


@settings(max_examples=150, deadline=None)
@given(scores())
def test_scores_on_the_grid_survive_a_file_unchanged(score):
    data = midi_bytes(score)
    assert read_midi(data) == score
    assert midi_bytes(read_midi(data)) == data
    assert mido_notes(mido.MidiFile(file=io.BytesIO(data))) == own_notes(score)


def test_positions_off_the_grid_are_rounded_and_legato_stays_legato():
    score = Score((Note(0, 1 / 3, 60), Note(1 / 3, 1 / 7, 60), Note(1 / 3 + 1 / 7, 1e-6, 60)), ticks_per_beat=10)
    assert own_notes(read_midi(midi_bytes(score))) == [(0, 3, 60, 80), (3, 5, 60, 80), (5, 6, 60, 80)]


def test_mido_reads_tempo_meter_markers_and_lyrics_from_our_file():
    score = Score(
        (Note(0, 1, 60, 80, "hal-"), Note(1, 1, 62, 80, "lo")),
        tempos=(Tempo(0, 90),),
        meters=(Meter(0, 7, 8),),
        markers=(Marker(1, "C_maj"),),
        controls=(Control(0, 64, 127), Control(2, 64, 0)),
        texts=("from here",),
    )
    file = mido.MidiFile(file=io.BytesIO(midi_bytes(score)))
    conductor, performance = file.tracks
    assert file.type == 1 and file.ticks_per_beat == 480
    assert [(m.type, m.time) for m in conductor] == [
        ("text", 0),
        ("time_signature", 0),
        ("set_tempo", 0),
        ("marker", 480),
        ("end_of_track", 0),
    ]
    assert mido.tempo2bpm(conductor[2].tempo) == pytest.approx(90, rel=1e-6)
    assert (conductor[1].numerator, conductor[1].denominator) == (7, 8)
    kinds = " ".join(m.type for m in performance)
    assert kinds == "control_change lyrics note_on note_off lyrics note_on note_off control_change end_of_track"


def test_write_midi_writes_the_bytes_whole_or_not_at_all(tmp_path):
    score = fabricated_score(1)
    write_midi(score, tmp_path / "a.mid")
    assert (tmp_path / "a.mid").read_bytes() == midi_bytes(score)
    assert read_midi(str(tmp_path / "a.mid")) == score
    with pytest.raises(AffgenError, match=r"tempo of 1\.0 .* MIDI holds"):
        write_midi(Score(score.notes, tempos=(Tempo(0, 1.0),)), tmp_path / "b.mid")
    with pytest.raises(AffgenError, match="ticks or bytes in a row"):
        midi_bytes(Score((Note(90_000, 1, 60),), ticks_per_beat=32767))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mid"]


# --- MIDI as others write it -----------------------------------------------------------------------------------------

ON, OFF = b"\0\x90\x3c\x40", b"\x60\x80\x3c\x40"


def read_notes(*tracks: bytes, kind: int = 1) -> list[tuple[int, int, int, int]]:
    return own_notes(read_midi(midi_file(*tracks, kind=kind)))


@pytest.mark.parametrize(
    ("track", "notes"),
    [
        pytest.param(ON + OFF, [(0, 96, 60, 64)], id="no end of track"),
        pytest.param(ON + b"\x60\x90\x3c\0", [(0, 96, 60, 64)], id="velocity 0 ends"),
        pytest.param(ON + b"\x60\x3c\0", [(0, 96, 60, 64)], id="running status"),
        pytest.param(ON + b"\x60\xff\1\1x\0\x3c\0", [(0, 96, 60, 64)], id="running status across a text"),
        pytest.param(ON + b"\0\xf0\3\1\2\xf7" + OFF, [(0, 96, 60, 64)], id="system exclusive"),
        pytest.param(ON + b"\0\xc0\1\0\xd0\1\0\xe0\1\1" + OFF, [(0, 96, 60, 64)], id="program, pressure, bend"),
        pytest.param(b"\0\xff\x59\2\x0c\7" + ON + OFF, [(0, 96, 60, 64)], id="key signature that cannot be"),
        pytest.param(b"\0\x90\x3c\xff" + OFF, [(0, 96, 60, 127)], id="velocity above 127"),
        pytest.param(ON + b"\x30\xff\x2f\0", [(0, 48, 60, 64)], id="never closed"),
        pytest.param(b"\0\x90\x3e\x40\0\x80\x3e\0" + ON + OFF, [(0, 96, 60, 64)], id="no length"),
        pytest.param(ON + b"\0\x99\x24\x40" + OFF, [(0, 96, 60, 64)], id="drums"),
        pytest.param(OFF + ON + OFF, [(96, 192, 60, 64)], id="closed before it opens"),
        pytest.param(ON + b"\x10\x90\x3c\x20" + OFF + OFF, [(0, 112, 60, 64), (16, 208, 60, 32)], id="overlap"),
        pytest.param(ON + OFF + b"\0\xff\x2f\0" + ON + OFF, [(0, 96, 60, 64)], id="events after the end"),
        pytest.param(
            b"\0\x91\x3c\x20" + ON + b"\x30\x81\x3c\0" + OFF, [(0, 48, 60, 32), (0, 144, 60, 64)], id="channels"
        ),
    ],
)
def test_habits_of_other_programs(track, notes):
    assert read_notes(track) == notes
    assert read_notes(track, kind=0) == notes


def test_a_header_longer_than_usual_and_chunks_of_other_kinds_are_passed_over():
    data = midi_file(ON + OFF)
    odd = b"MThd\0\0\0\x08" + data[8:14] + b"\1\2" + b"XFIH\0\0\0\2ab" + data[14:] + b"trailing"
    assert read_midi(odd) == read_midi(data)


@pytest.mark.parametrize(("top", "exponent"), [(7, 3), (5, 4), (1, 0), (255, 6)])
def test_meters_of_any_kind_are_read(top, exponent):
    score = read_midi(midi_file(b"\0\xff\x58\4" + bytes([top, exponent, 24, 8]) + ON + OFF))
    assert score.meters == (Meter(0, top, 2**exponent),)


def test_lyrics_go_to_the_voice_of_their_own_track_else_to_the_highest_note():
    piano = b"\0\x91\x48\x40\x60\x81\x48\x40"
    own = read_midi(midi_file(piano, b"\0\xff\5\2la" + ON + OFF))
    assert {n.pitch: n.lyric for n in own.notes} == {60: "la", 72: ""}
    apart = read_midi(midi_file(piano, ON + OFF, b"\0\xff\5\3la "))
    assert {n.pitch: n.lyric for n in apart.notes} == {60: "", 72: "la"}
    unplaced = read_midi(midi_file(ON + OFF, b"\x10\xff\5\2la"))
    assert [n.lyric for n in unplaced.notes] == [""]


def test_texts_of_old_files_are_latin_1():
    score = read_midi(midi_file("\0ÿ\1\4café\0ÿ\6\1Ä".encode("latin-1") + ON + OFF))
    assert score.texts == ("café",) and score.markers == (Marker(0, "Ä"),)


def test_errors_name_the_file_in_one_line(tmp_path):
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    for path, words in (("bad.mid", "header is cut short"), ("absent.mid", "no such file"), (".", "cannot be read")):
        with pytest.raises(AffgenError, match=words) as caught:
            read_midi(tmp_path / path)
        assert str(caught.value).startswith(str(tmp_path / path) + ": ") and "\n" not in str(caught.value)


@pytest.mark.skipif("AFFGEN_DATA" not in os.environ, reason="AFFGEN_DATA does not name the folder of the corpora")
def test_the_corpora_are_read_as_mido_reads_them():
    root = Path(os.environ["AFFGEN_DATA"])
    files = sorted((root / "emopia/midis").glob("*.mid"))[::10] + sorted((root / "vgmidi").rglob("*.mid"))[::5]
    assert len(files) > 100
    for path in files:
        assert own_notes(read_midi(path)) == mido_notes(mido.MidiFile(path)), path


# --- edits and dynamics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"cents": 1300}, {"gain_db": -30}, {"shift_s": 2}, {"vibrato": -1}, {"intensity": 1.6}, {"cents": np.nan}]
)
def test_edits_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AffgenError, match=r"accepted are \+-1200 cents, \+-24 dB, \+-1 s, vibrato 0\.\.5"):
        Edit(**wrong)


def test_an_edit_belongs_to_its_note() -> None:
    note = Note(0, 1, 60, lyric="la", phonemes=("l", "aa"), edit=Edit(cents=-10, intensity=0.0))
    assert note.edit == Edit(cents=-10, intensity=0.0) and note != Note(0, 1, 60, lyric="la", phonemes=("l", "aa"))


def test_dynamics_are_put_in_order_and_steps_keep_theirs() -> None:
    score = Score((Note(0, 1, 60),), dynamics=(Dynamic(2, 90), Dynamic(0, 40), Dynamic(2, 50)))
    assert [(d.beat, d.level) for d in score.dynamics] == [(0, 40), (2, 90), (2, 50)]
    for level in (0, 128, np.nan):
        with pytest.raises(AffgenError, match=r"accepted are levels 1\.\.127"):
            Dynamic(0, level)
