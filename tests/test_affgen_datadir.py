"""Kaldi data directories: reading, writing, validation, repair."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from affgen.audio import Audio
from affgen.datadir import DataDir, fix, speakers, validate
from affgen.errors import DataError


def make(folder: Path, **tables: str) -> Path:
    """Write tables; a name's double underscore stands for its dot."""
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.fixture
def speech(tmp_path):
    sounds = []
    for name in ("a-1", "a-2", "b-1"):
        (tmp_path / f"{name}.wav").write_bytes(b"")
        sounds.append(f"{name} {tmp_path}/{name}.wav\n")
    return make(
        tmp_path / "data",
        wav__scp="".join(sounds),
        utt2spk="a-1 a\na-2 a\nb-1 b\n",
        spk2utt="a a-1 a-2\nb b-1\n",
        text="a-1 good morning\na-2 good night\nb-1 hello\n",
        utt2emo="a-1 happy\na-2 anger\nb-1 neutral\n",
        utt2intensity="a-1 0.5\na-2 1\nb-1 0\n",
    )


@pytest.fixture
def music(tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"{name}.mid").write_bytes(b"")
    return make(
        tmp_path / "music",
        midi__scp=f"x {tmp_path}/x.mid\ny {tmp_path}/y.mid\n",
        utt2emo="x Q1\ny Q3\n",
        utt2va="x 0 1\ny -1 -.5\n",
    )


def test_whole_directories_have_no_problems(speech):
    report = validate(speech)
    assert report.problems == ()
    assert report.ok
    assert report.counts == {"utterances": 3, "speakers": 2, "commands": 0, "anger": 1, "happy": 1, "neutral": 1}


def test_music_needs_no_speakers(music):
    assert validate(music).problems == ()
    assert DataDir.read(music).music
    (music / "utt2emo").unlink()
    assert validate(music).problems == ()
    (music / "utt2va").unlink()
    assert "utt2emo or utt2va or measure_va" in validate(music).problems[0]


def test_read_and_write_give_the_same_bytes(speech, tmp_path):
    data = DataDir.read(speech)
    assert data.utterances == ("a-1", "a-2", "b-1")
    assert data.tables["text"]["a-2"] == "good night"
    data.write(tmp_path / "deep" / "copy")
    for path in speech.iterdir():
        assert (tmp_path / "deep" / "copy" / path.name).read_bytes() == path.read_bytes()


def test_written_in_the_order_of_the_c_locale(tmp_path):
    keys = ["é", "b", "B", "a_", "a-", "a", "Z", "aa"]
    DataDir(tmp_path / "d", {"midi.scp": dict.fromkeys(keys, "x.mid")}).write()
    written = [line.split()[0] for line in (tmp_path / "d" / "midi.scp").read_text().splitlines()]
    assert written == ["B", "Z", "a", "a-", "a_", "aa", "b", "é"]


def test_writing_over_other_tables_is_refused(speech, music):
    before = (speech / "utt2emo").read_text()
    with pytest.raises(DataError, match=r"wav\.scp.*of other data"):
        DataDir.read(music).write(speech)
    assert (speech / "utt2emo").read_text() == before
    assert not (speech / "midi.scp").exists()


@pytest.mark.parametrize(("key", "value"), [("a b", "x"), ("", "x"), ("a", ""), ("a", "x\ny"), ("a\n", "x")])
def test_keys_and_values_that_cannot_be_lines_are_refused(tmp_path, key, value):
    with pytest.raises(DataError, match="accepted"):
        DataDir(tmp_path / "d", {"midi.scp": {key: value}}).write()
    assert not (tmp_path / "d").exists()


def test_commands_are_recognised_and_not_run(speech, tmp_path):
    mark = tmp_path / "ran"
    (speech / "wav.scp").write_text(f"a-1 touch {mark} |\na-2 sox x.wav -t wav - |\nb-1 touch {mark}; cat x |\n")
    report = validate(speech)
    assert report.problems == ()
    assert report.counts["commands"] == 3
    assert fix(speech).kept == 3
    assert not mark.exists()


def test_segments_key_the_sound_by_recording(speech, tmp_path):
    (speech / "wav.scp").write_text(f"rec1 {tmp_path}/a-1.wav\nrec2 {tmp_path}/b-1.wav\n")
    make(speech, segments="a-1 rec1 0.0 1.5\na-2 rec1 1.5 3\nb-1 rec2 0 1\n")
    report = validate(speech)
    assert report.problems == ()
    assert report.counts["recordings"] == 2
    part = DataDir.read(speech).subset(["b-1"])
    assert set(part.tables["wav.scp"]) == {"rec2"}
    make(speech, segments="a-1 rec1 2 1\na-2 rec3 0 1\nb-1 rec2 0 nan\n")
    problems = "\n".join(validate(speech).problems)
    assert "a-1: segments has 'rec1 2 1'" in problems
    assert "a-2: its recording 'rec3' is not in wav.scp" in problems
    assert "b-1: segments" in problems


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("text", "a-1 x\na-2 y\n", "b-1: not in text"),
        ("text", "a-1 x\na-2 y\nb-1 z\nc-1 w\n", "c-1: not in"),
        ("text", "b-1 z\na-1 x\na-2 y\n", "not sorted"),
        ("text", "a-1 x\na-2\nb-1 z\n", "has no value"),
        ("text", "a-1 x\n\na-2 y\nb-1 z\n", "has no value"),
        ("text", "a-1 x\na-1 v\na-2 y\nb-1 z\n", "comes twice"),
        ("text", "a-1 x\r\na-2 y\r\nb-1 z\r\n", "carriage return"),
        ("text", b"a-1 \xff\na-2 y\nb-1 z\n", "not UTF-8"),
        ("utt2emo", "a-1 happy\na-2 furious!\nb-1 sad\n", "a-2: utt2emo has 'furious!'"),
        ("utt2intensity", "a-1 0.5\na-2 1.6\nb-1 0\n", "a-2: utt2intensity"),
        ("utt2intensity", "a-1 nan\na-2 1\nb-1 0\n", "a-1: utt2intensity"),
        ("utt2dur", "a-1 1\na-2 -1\nb-1 1\n", "a-2: utt2dur"),
        ("utt2va", "a-1 0 0\na-2 0\nb-1 0 2\n", "a-2: utt2va"),
        ("measure_va", "a-1 0/0 0.5/1\na-2 0/0 1\nb-1 0/0\n", "a-2: measure_va"),
        ("utt2spk", "a-1 a\na-2 a x\nb-1 b\n", "a-2: utt2spk"),
        ("utt2spk", "a-1 b\na-2 a\nb-1 b\n", "speakers are out of order"),
        ("spk2utt", "a a-1\nb b-1\n", "does not agree with utt2spk"),
        ("wav.scp", "a-1 /none.wav\na-2 x |\nb-1 y |\n", "a-1: its file '/none.wav' does not exist"),
    ],
)
def test_each_fault_is_named(speech, name, text, expected):
    (speech / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    problems = validate(speech).problems
    assert any(expected in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_missing_tables_are_named(speech):
    (speech / "spk2utt").unlink()
    assert any("spk2utt is missing" in problem for problem in validate(speech).problems)
    (speech / "utt2spk").unlink()
    assert any("utt2spk is missing" in problem for problem in validate(speech).problems)


@pytest.mark.parametrize("call", [validate, fix, DataDir.read])
def test_no_data_directory_is_refused(tmp_path, call):
    with pytest.raises(DataError, match="is not a folder"):
        call(tmp_path / "none")
    with pytest.raises(DataError, match=r"neither wav\.scp nor midi\.scp"):
        call(tmp_path)


def test_reading_damaged_tables_says_how_to_repair(speech):
    (speech / "text").write_text("a-1\n")
    with pytest.raises(DataError, match=r"text line 1: has no value.*affgen data fix"):
        DataDir.read(speech)


def test_fix_sorts_drops_with_reasons_and_keeps_a_backup(speech):
    before = "b-1 z\na-2 y\na-1 x\nc-1 w\n"
    (speech / "text").write_text(before)
    (speech / "utt2emo").write_text("a-1 happy\na-2 nonsense\nb-1 sad\n")
    (speech / "spk2utt").unlink()
    fixed = fix(speech)
    assert fixed.kept == 2
    assert fixed.dropped["a-2"] == "utt2emo has 'nonsense'"
    assert fixed.dropped["c-1"].startswith("not in wav.scp")
    assert (speech / "text").read_text() == "a-1 x\nb-1 z\n"
    assert (speech / "spk2utt").read_text() == "a a-1\nb b-1\n"
    assert (speech / ".backup" / "text").read_text() == before
    assert validate(speech).problems == ()
    again = fix(speech)
    assert (again.kept, again.dropped) == (2, {})


def test_fix_drops_an_utterance_whose_lines_disagree(speech):
    (speech / "text").write_text("a-1 x\na-1 other\na-2 y\nb-1 z\n")
    assert "comes twice" in fix(speech).dropped["a-1"]
    assert validate(speech).problems == ()


def test_fix_changes_nothing_when_nothing_would_be_left(speech):
    (speech / "text").write_text("c-1 x\n")
    before = {path.name: path.read_bytes() for path in speech.iterdir()}
    with pytest.raises(DataError, match="nothing was changed"):
        fix(speech)
    assert {path.name: path.read_bytes() for path in speech.iterdir()} == before


def test_subset(speech):
    part = DataDir.read(speech).subset(["b-1", "a-2"])
    assert part.utterances == ("a-2", "b-1")
    assert part.tables["spk2utt"] == {"a": "a-2", "b": "b-1"}
    assert all(set(table) == {"a-2", "b-1"} for name, table in part.tables.items() if name != "spk2utt")
    with pytest.raises(DataError, match="'zz'"):
        DataDir.read(speech).subset(["a-1", "zz"])


def test_speakers_gathers_sorted_utterances():
    assert speakers({"s-2": "s", "t-1": "t", "s-1": "s"}) == {"s": "s-1 s-2", "t": "t-1"}


# --- the sound -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sounding(speech, tmp_path):
    """A directory like ``speech`` whose files hold a second of noise."""
    for name in ("a-1", "a-2", "b-1"):
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000).astype(np.float32)
        (tmp_path / f"{name}.wav").write_bytes(Audio(noise, 16_000).wav())
    return speech


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        (b"", "is empty"),
        (b"these are words", "is no sound file"),
        (Audio(np.zeros(700, np.float32), 16_000).wav(), "shorter than a frame"),
        (Audio(np.zeros(16_000, np.float32), 16_000).wav()[:5000], "is cut short"),
        (None, "does not exist"),
    ],
)
def test_sound_that_cannot_be_used_is_found_and_dropped(sounding, tmp_path, sound, expected):
    assert validate(sounding, audio=True).problems == ()
    (tmp_path / "a-2.wav").unlink()
    if sound is not None:
        (tmp_path / "a-2.wav").write_bytes(sound)
    (problem,) = validate(sounding, audio=True).problems
    assert "a-2: " in problem and expected in problem
    fixed = fix(sounding, audio=True)
    assert (fixed.kept, list(fixed.dropped)) == (2, ["a-2"])
    assert validate(sounding, audio=True).problems == ()


def test_a_failing_command_is_found_when_it_is_run(sounding, tmp_path):
    failing = f"{sys.executable} -c 'import sys; sys.exit(\"no such disc\")' |"
    (sounding / "wav.scp").write_text(f"a-1 cat {tmp_path}/a-1.wav |\na-2 {failing}\nb-1 {tmp_path}/b-1.wav\n")
    assert validate(sounding).problems == ()
    (problem,) = validate(sounding, audio=True).problems
    assert "a-2: " in problem and "no such disc" in problem


def test_segments_are_held_against_the_length_of_the_recording(sounding, tmp_path):
    (sounding / "wav.scp").write_text(f"rec {tmp_path}/a-1.wav\n")
    make(sounding, segments="a-1 rec 0 0.5\na-2 rec 0.99 1.5\nb-1 rec 2 3\n")
    problems = "\n".join(validate(sounding, audio=True).problems)
    assert "a-1" not in problems.replace("a-1.wav", "")
    assert "a-2: its sound" in problems and "b-1: its segment begins at 2 s" in problems


def test_command_line_checks_the_sound_unless_told_not_to(sounding, tmp_path, command):
    (tmp_path / "a-2.wav").write_bytes(b"")
    outcome = command("data", "validate", sounding)
    assert outcome.code == 2 and b"a-2.wav: is empty" in outcome.out and "1 problem;" in outcome.err
    command("data", "validate", sounding, "--no-audio").done()
    assert b"dropped 0" in command("data", "fix", sounding, "--no-audio").done().out
    assert b"dropped a-2" in command("data", "fix", sounding).done().out


def test_some_tables_may_leave_utterances_out(speech, tmp_path):
    (tmp_path / "a-1.lab").write_text("")
    make(speech, utt2intensity="a-1 0.5\n", label="a-1 0 0.5 h 0.5 1 a\n", score__scp=f"a-1 {tmp_path}/a-1.lab\n")
    assert validate(speech).problems == ()
    DataDir.read(speech).subset(["a-2", "b-1"]).write(tmp_path / "part")
    assert validate(tmp_path / "part").problems == ()
    (speech / "utt2intensity").write_text("a-1 0.5\nz-1 1\n")
    assert any("z-1: not in" in problem for problem in validate(speech).problems)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("label", "a-1 0 0.5 h 0.5 a", "label has"),
        ("label", "a-1 0.5 0 h", "label has"),
        ("label", "a-1 0 nan h", "label has"),
        ("score.scp", "a-1 /none.lab", "'/none.lab' does not exist"),
    ],
)
def test_bad_labels_and_scores_are_named(speech, name, value, expected):
    (speech / name).write_text(value + "\n")
    (problem,) = validate(speech).problems
    assert "a-1: " in problem and expected in problem
