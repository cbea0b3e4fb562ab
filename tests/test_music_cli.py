"""``affgen music``: what each verb writes, prints and returns, over files, folders, lists, pipes and interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import affgen.files
from affgen.score import Note, Score, midi_bytes, read_midi, write_midi
from affgen.testing import fabricated_score
from music.compose import Composer
from music.evaluator import Evaluator

Command = Callable[..., Any]
ReadOnly = Callable[[], AbstractContextManager[Path]]
ROOT = Path(__file__).resolve().parents[1]
OWN, DONOR = fabricated_score(5, bars=4, quadrant="Q1"), fabricated_score(6, bars=4, quadrant="Q3")
KEYS = {"command", "input", "output", "model", "emotion", "intensity", "seed", "bars", "notes", "tempo"}
KEYS |= {"duration_s", "compute_s", "warnings", "classified"}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """A folder of three pieces, one in a folder of its own, and a file that is no music."""
    folder = tmp_path / "songs"
    (folder / "more").mkdir(parents=True)
    write_midi(OWN, folder / "a.mid")
    write_midi(DONOR, folder / "b.midi")
    write_midi(fabricated_score(7, bars=2), folder / "more/c.mid")
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_midi(OWN, tmp_path / "own.mid")
    return tmp_path / "own.mid"


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    write_midi(DONOR, tmp_path / "donor.mid")
    return tmp_path / "donor.mid"


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---------------------------------------------------------------------------------------------------------- compose


def test_the_command_writes_what_the_function_gives(
    command: Command, miniature: Path, composer: Composer, tmp_path: Path
) -> None:
    out = tmp_path / "piece.mid"
    done = command("music", "compose", out, "--model", miniature, "--emotion", "Q1", "--bars", 4, "--seed", 3).done()
    assert out.read_bytes() == midi_bytes(composer.compose("Q1", bars=4, seed=3).score)
    assert listing(tmp_path) == ["piece.mid"]
    assert done.out == b"" and done.err.startswith(f"{out}: 4 bars, ") and done.err.count("\n") == 1
    assert Evaluator.from_pretrained().card_line in done.err


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (("--seconds", "9.5"), {"seconds": 9.5}),
        (("--seconds", "9.5", "--tempo", "77"), {"seconds": 9.5, "tempo": 77.0}),
        (("--bars", "3", "--key", "f# minor", "--intensity", "0.2@0b,1.5@3b"), {"bars": 3, "key": "f# minor"}),
        (("--bars", "3", "--emotion", "Q4@0b,happy:0.6+sad:0.4@3b", "--threads", "1", "--device", "cpu"), {"bars": 3}),
        (("--emotion", "va:0.4/-0.2", "--bars", "2", "--device", "auto"), {"emotion": "va:0.4/-0.2", "bars": 2}),
    ],
)
def test_every_wish_reaches_the_function(
    command: Command, miniature: Path, composer: Composer, tmp_path: Path, flags: tuple[str, ...], options: dict
) -> None:
    if "--intensity" in flags:
        options = {**options, "intensity": "0.2@0b,1.5@3b"}
    if "Q4@0b,happy:0.6+sad:0.4@3b" in flags:
        options = {**options, "emotion": "Q4@0b,happy:0.6+sad:0.4@3b"}
    done = command("music", "compose", tmp_path / "x.MID", "--model", miniature, "--quiet", *flags).done()
    assert (done.out, done.err) == (b"", "")
    assert (tmp_path / "x.MID").read_bytes() == midi_bytes(composer.compose(**options).score)


def test_a_curve_reaches_the_decoder(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    decode = Composer.decode
    monkeypatch.setattr(Composer, "decode", lambda self, requests: seen.extend(requests) or decode(self, requests))
    flags = ("--emotion", "Q4@0b,Q1@8b", "--intensity", "0@0%,1@100%", "--bars", 8)
    command("music", "compose", tmp_path / "x.mid", "--model", miniature, *flags).done()
    _, arousal, guidance = seen[0].steer(8, 100.0).T[:3]
    middles = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(arousal / arousal[-1], (2 * middles - 1) / (2 * middles[-1] - 1), atol=1e-9)
    np.testing.assert_allclose(guidance / guidance[-1], middles / middles[-1], atol=1e-9)


def test_sixteen_neutral_bars_by_default(command: Command, miniature: Path, composer: Composer, tmp_path: Path) -> None:
    command("music", "compose", tmp_path / "x.mid", "--model", miniature).done()
    assert (tmp_path / "x.mid").read_bytes() == midi_bytes(composer.compose("neutral", bars=16).score)


def test_json_is_one_object_with_every_key(command: Command, miniature: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.mid"
    flags = ("--emotion", "Q4", "--intensity", "0.5", "--seed", 8, "--seconds", 10, "--json", "--quiet")
    done = command("music", "compose", out, "--model", miniature, *flags).done()
    record, score = done.json, read_midi(out)
    assert set(record) == KEYS and done.err == ""
    assert (record["command"], record["input"], record["output"]) == ("music compose", None, str(out))
    assert (record["model"], record["emotion"], record["intensity"]) == ("tiny", "Q4", "0.5")
    assert (record["seed"], record["warnings"]) == (8, [])
    assert record["bars"] == len(score.bar_lines()) - 1 and record["notes"] == len(score.notes)
    assert record["tempo"] == pytest.approx(score.tempos[0].bpm, abs=0.01)
    assert record["duration_s"] == pytest.approx(10, abs=0.05) and record["compute_s"] > 0
    reading = Evaluator.from_pretrained().read(score)
    assert record["classified"].pop("quadrant") == reading.quadrant
    assert record["classified"] == pytest.approx({"valence": reading.valence, "arousal": reading.arousal}, abs=0.05)


def test_counted_pieces_are_those_of_single_seeds(command: Command, miniature: Path, tmp_path: Path) -> None:
    flags = ("--model", miniature, "--emotion", "Q2", "--bars", 3, "--quiet")
    done = command("music", "compose", tmp_path / "many", "--count", 3, "--seed", 5, "--json", *flags).done()
    assert listing(tmp_path / "many") == ["piece_001.mid", "piece_002.mid", "piece_003.mid"]
    command("music", "compose", tmp_path / "named.mid", "--count", 2, "--seed", 5, *flags).done()
    for number in range(3):
        command("music", "compose", tmp_path / "one.mid", "--seed", 5 + number, *flags).done()
        data = (tmp_path / "one.mid").read_bytes()
        assert (tmp_path / f"many/piece_{number + 1:03d}.mid").read_bytes() == data
        if number < 2:
            assert (tmp_path / f"named-{number + 1:03d}.mid").read_bytes() == data
    record = done.json
    assert record["command"] == "music compose"
    assert [(set(p), p["seed"]) for p in record["pieces"]] == [(KEYS, 5), (KEYS, 6), (KEYS, 7)]


def test_sound_and_picture_of_each_piece(command: Command, miniature: Path, tmp_path: Path) -> None:
    flags = ("--model", miniature, "--bars", 2, "--wav", tmp_path / "x.flac", "--plot", tmp_path / "x.png")
    command("music", "compose", tmp_path / "x.mid", *flags).done()
    assert listing(tmp_path) == ["x.flac", "x.mid", "x.png"]
    samples, rate = soundfile.read(tmp_path / "x.flac")
    assert 0 <= len(samples) / rate - read_midi(tmp_path / "x.mid").duration_s <= 2.1
    assert np.abs(samples).max() > 0.05
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    command("music", "compose", tmp_path / "y.mid", "--count", 2, *flags).done()
    assert {f"x-00{k}.{end}" for k in (1, 2) for end in ("flac", "png")} <= set(listing(tmp_path))


def test_composing_again_writes_the_same_file_anew(command: Command, miniature: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.mid"
    out.write_text("something else")
    command("music", "compose", out, "--model", miniature, "--bars", 1).done()
    first = out.read_bytes()
    command("music", "compose", out, "--model", miniature, "--bars", 1).done()
    assert out.read_bytes() == first and listing(tmp_path) == ["x.mid"]


# --------------------------------------------------------------------------------------------------------- continue


@pytest.mark.parametrize("played", [False, True], ids=["on the grid", "performed"])
def test_continue_keeps_the_piece_and_adds_after(
    command: Command, miniature: Path, tmp_path: Path, played: bool
) -> None:
    rng = np.random.default_rng(3)
    notes = [Note(0.3 + 1.17 * k + float(rng.uniform(-0.03, 0.03)), 0.8, 55 + k % 9, 40 + k) for k in range(32)]
    score = Score(tuple(notes)) if played else OWN
    write_midi(score, tmp_path / "in.mid")
    flags = ("--emotion", "Q3", "--bars", 2, "--seed", 4, "--model", miniature)
    done = command("music", "continue", tmp_path / "in.mid", tmp_path / "out.mid", *flags, "--json").done()
    before, after = (read_midi(tmp_path / name) for name in ("in.mid", "out.mid"))
    assert not Counter(before.notes) - Counter(after.notes)
    new = Counter(after.notes) - Counter(before.notes)
    assert new and min(n.onset for n in new) >= max(n.onset for n in before.notes)
    assert (before.tempos, before.meters) == (after.tempos, after.meters)
    assert after.controls[: len(before.controls)] == before.controls
    record = done.json
    assert set(record) == KEYS and record["command"] == "music continue"
    assert record["input"] == str(tmp_path / "in.mid") and record["notes"] == len(after.notes)


def test_eight_bars_are_added_by_default_in_the_key_asked_for(
    command: Command, miniature: Path, composer: Composer, own: Path, tmp_path: Path
) -> None:
    command("music", "continue", own, tmp_path / "x.mid", "--model", miniature, "--key", "Ab").done()
    wanted = composer.extend(read_midi(own), "neutral", bars=8, key="Ab")
    assert (tmp_path / "x.mid").read_bytes() == midi_bytes(wanted.score)
    assert read_midi(tmp_path / "x.mid").end == pytest.approx(48)


def test_the_record_describes_the_file(command: Command, miniature: Path, own: Path, tmp_path: Path) -> None:
    done = command("music", "continue", own, tmp_path / "x.mid", "--model", miniature, "--bars", 2, "--json").done()
    score = read_midi(tmp_path / "x.mid")
    assert (done.json["notes"], done.json["bars"]) == (len(score.notes), len(score.bar_lines()) - 1)


# --------------------------------------------------------------------------------------------------------- transfer


def test_transfer_moves_the_elements_named(
    command: Command, miniature: Path, own: Path, donor: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.mid"
    done = command("music", "transfer", own, out, "--from", donor, "--model", miniature, "--json").done()
    before, after = read_midi(own), read_midi(out)
    assert [(n.onset, n.pitch, n.duration) for n in before.notes] == [
        (n.onset, n.pitch, n.duration) for n in after.notes
    ]
    assert [n.velocity for n in before.notes] != [n.velocity for n in after.notes]
    assert set(done.json) == KEYS and done.json["bars"] == 4 and done.json["command"] == "music transfer"
    flags = ("--from", donor, "--model", miniature, "--elements", "duration,tempo")
    command("music", "transfer", own, out, *flags).done()
    after = read_midi(out)
    assert [(n.onset, n.pitch, n.velocity) for n in before.notes] == [
        (n.onset, n.pitch, n.velocity) for n in after.notes
    ]
    assert before.tempos != after.tempos


def test_transfer_row_by_row(command: Command, miniature: Path, own: Path, donor: Path, tmp_path: Path) -> None:
    results = []
    for align in ((), ("--align", "bars"), ("--align", "rows")):
        flags = ("--from", donor, "--model", miniature, "--seed", 2, *align)
        command("music", "transfer", own, tmp_path / "x.mid", *flags).done()
        results.append((tmp_path / "x.mid").read_bytes())
    assert results[0] == results[1] != results[2]


def test_the_donor_may_come_through_the_pipe_and_both_may_be_one_file(
    command: Command, miniature: Path, own: Path, tmp_path: Path
) -> None:
    flags = ("--from", own, "--model", miniature, "--quiet")
    command("music", "transfer", own, tmp_path / "x.mid", *flags).done()
    done = command("music", "transfer", "-", "-", *flags, stdin=own.read_bytes()).done()
    assert done.out == (tmp_path / "x.mid").read_bytes()


# ----------------------------------------------------------------------------------------------- origins, classifying


def test_what_was_made_verifies(command: Command, miniature: Path, own: Path, donor: Path, tmp_path: Path) -> None:
    model = ("--model", miniature)
    made = [tmp_path / f"{verb}.mid" for verb in ("composed", "continued", "transferred")]
    command("music", "compose", made[0], *model, "--bars", 1, "--emotion", "Q2", "--seed", 9).done()
    command("music", "continue", made[0], made[1], *model, "--bars", 1).done()
    command("music", "transfer", own, made[2], *model, "--from", donor).done()
    for path, word, count in zip(made, ("composed", "continued", "transferred"), (1, 2, 1), strict=True):
        lines = command("verify", path).done().out.decode().splitlines()
        assert len(lines) == count and f"music {word}" in lines[-1]
    assert "seed=9" in command("verify", made[1]).done().out.decode().splitlines()[0]
    assert command("verify", donor).code == 1


def test_classify_prints_readings_and_how_far_to_trust_them(command: Command, songs: Path, own: Path) -> None:
    done = command("music", "classify", own, songs).done()
    lines = done.out.decode().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        str(p) for p in (own, songs / "a.mid", songs / "b.midi", songs / "more/c.mid")
    ]
    reading = Evaluator.from_pretrained().read(OWN)
    assert f"{reading.quadrant}  valence {reading.valence:+.2f}  arousal {reading.arousal:+.2f}" in lines[0]
    assert done.err == Evaluator.from_pretrained().card_line + "\n"
    assert command("music", "classify", own, "--quiet").done().err == ""


def test_classify_as_json(command: Command, songs: Path, own: Path) -> None:
    evaluator = Evaluator.from_pretrained()
    record = command("music", "classify", "-", "--json", "--quiet", stdin=own.read_bytes()).done().json
    assert set(record) == {"command", "input", "results", "classified", "evaluator", "warnings"}
    assert record["evaluator"] == evaluator.card_line and record["input"] == ["-"]
    reading = evaluator.read(OWN)
    assert (
        record["classified"]["quadrant"]
        == reading.quadrant
        == max(zip(record["results"][0]["probabilities"], ("Q1", "Q2", "Q3", "Q4"), strict=True))[1]
    )
    assert record["classified"]["arousal"] == pytest.approx(reading.arousal, abs=1e-6)
    many = command("music", "classify", songs, "--json").done().json
    assert "classified" not in many and len(many["results"]) == len(many["input"]) == 3


# ------------------------------------------------------------------------------------------------- folders and lists


@pytest.mark.parametrize("verb", ["continue", "transfer"])
def test_a_folder_with_one_damaged_file(
    command: Command, miniature: Path, composer: Composer, songs: Path, donor: Path, tmp_path: Path, verb: str
) -> None:
    (songs / "bad.mid").write_bytes(midi_bytes(OWN)[:60])
    flags = ("--bars", 1) if verb == "continue" else ("--from", donor)
    arguments = ("music", verb, songs, tmp_path / "out", "--model", miniature, "--seed", 6, *flags)
    first = command(*arguments, "--json", "--quiet")
    assert first.code == 3
    assert listing(tmp_path / "out") == ["a.mid", "b.mid", "failures.tsv", "more", "more/c.mid"]
    ((path, reason),) = [line.split("\t") for line in (tmp_path / "out/failures.tsv").read_text().splitlines()]
    assert path == str(songs / "bad.mid") and "cut short" in reason
    assert first.err == f"error: {reason}\n"
    assert [set(piece) for piece in first.json["pieces"]] == [KEYS] * 3
    command("music", verb, songs / "a.mid", tmp_path / "one.mid", *arguments[4:]).done()
    assert (tmp_path / "out/a.mid").read_bytes() == (tmp_path / "one.mid").read_bytes()

    (tmp_path / "out/a.mid").write_text("mine")
    second = command(*arguments, "--json", "--quiet")
    assert second.code == 3 and second.json["pieces"] == []
    assert (tmp_path / "out/a.mid").read_text() == "mine"
    (songs / "bad.mid").unlink()
    assert len(command(*arguments, "--json", "--overwrite").done().json["pieces"]) == 3
    assert (tmp_path / "out/a.mid").read_bytes() == (tmp_path / "one.mid").read_bytes()
    assert not (tmp_path / "out/failures.tsv").exists()


def test_a_list_names_the_outputs(command: Command, miniature: Path, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.scp").write_text(f"first {songs}/a.mid\nsecond {songs}/more/c.mid\ngone {songs}/none.mid\n")
    done = command("music", "continue", tmp_path / "x.scp", tmp_path / "out", "--model", miniature, "--bars", 1)
    assert done.code == 3
    assert listing(tmp_path / "out") == ["failures.tsv", "first.mid", "second.mid"]
    assert "none.mid: no such file" in (tmp_path / "out/failures.tsv").read_text()


def test_the_model_is_loaded_once(
    command: Command, composer: Composer, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    monkeypatch.setattr(
        Composer, "from_pretrained", classmethod(lambda cls, folder=None: loads.append(folder) or composer)
    )
    command("music", "continue", songs, tmp_path / "out", "--bars", 1).done()
    assert loads == [None]


@pytest.mark.parametrize("flag", ["--wav", "--plot"])
def test_one_sound_or_picture_cannot_be_that_of_many(
    command: Command, miniature: Path, songs: Path, tmp_path: Path, flag: str
) -> None:
    name = tmp_path / ("x.wav" if flag == "--wav" else "x.png")
    command("music", "continue", songs, tmp_path / "out", "--model", miniature, flag, name).refused("name one file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("--emotion", "blue"), ("--bars", "10000"), ("--key", "H"), ("--intensity", "2")])
def test_wishes_that_no_input_can_meet_are_refused_once(
    command: Command, miniature: Path, songs: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    command("music", "continue", songs, tmp_path / "out", "--model", miniature, *flags).refused("accepted")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- interrupts


def test_an_interrupt_while_composing_leaves_nothing(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Composer, requests: list[Any]) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Composer, "decode", interrupted)
    done = command("music", "compose", tmp_path / "x.mid", "--model", miniature)
    assert (done.code, done.out, done.err) == (130, b"", "interrupted\n")
    assert listing(tmp_path) == []


def test_an_interrupt_while_writing_leaves_nothing(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(affgen.files.os, "fsync", interrupted)
    assert command("music", "compose", tmp_path / "x.mid", "--model", miniature, "--bars", 1).code == 130
    assert listing(tmp_path) == []


def test_an_interrupted_batch_keeps_what_is_done_and_goes_on_from_there(
    command: Command, miniature: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    decode = Composer.decode

    def interrupted(self: Composer, requests: list[Any]) -> Any:
        calls.append(requests)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return decode(self, requests)

    arguments = ("music", "continue", songs, tmp_path / "out", "--model", miniature, "--bars", 1)
    monkeypatch.setattr(Composer, "decode", interrupted)
    assert command(*arguments).code == 130
    assert listing(tmp_path / "out") == ["a.mid"]
    command(*arguments).done()
    assert len(calls) == 4 and listing(tmp_path / "out") == ["a.mid", "b.mid", "more", "more/c.mid"]


def test_a_failure_of_ours_is_one_line_and_exit_1(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Composer, requests: list[Any]) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(Composer, "decode", broken)
    done = command("music", "compose", tmp_path / "x.mid", "--model", miniature)
    assert done.code == 1 and done.err.startswith("internal error: RuntimeError: odd;") and done.err.count("\n") == 1
    assert "Traceback" in command("music", "compose", tmp_path / "x.mid", "--model", miniature, "--debug").err
    assert listing(tmp_path) == []


# ----------------------------------------------------------------------------------------------------- as a program


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "affgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, check=False, **options)


def test_pieces_go_through_pipes(miniature: Path, composer: Composer) -> None:
    composed = program("music", "compose", "-", "--model", miniature, "--bars", 2, "--tempo", 100, "--quiet")
    assert (composed.returncode, composed.stderr) == (0, b"")
    assert composed.stdout == midi_bytes(composer.compose(bars=2, tempo=100).score)
    flags = ("--model", miniature, "--bars", 1, "--quiet")
    longer = program("music", "continue", "-", "-", *flags, input=composed.stdout)
    assert longer.returncode == 0 and read_midi(longer.stdout).end == pytest.approx(12)
    refused = program("music", "continue", "-", "-", *flags, input=b"MThd")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert refused.stderr.startswith(b"error: MIDI data: ") and refused.stderr.count(b"\n") == 1


SLOW = """
import sys, time
from music.compose import Composer
decode = Composer.decode
def told(self, requests):
    print("decoding", flush=True, file=sys.stderr)
    time.sleep(60)  # a fast machine could be done before the signal comes
    return decode(self, requests)
Composer.decode = told
from affgen.cli import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_control_c_stops_the_program_and_leaves_nothing(miniature: Path, tmp_path: Path) -> None:
    arguments = ["music", "compose", tmp_path / "x.mid", "--model", miniature, "--bars", 2]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stderr is not None and process.stderr.readline() == b"decoding\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")
    assert listing(tmp_path) == []


def test_the_tempo_of_a_file_is_the_one_asked_for(command: Command, miniature: Path, tmp_path: Path) -> None:
    command("music", "compose", tmp_path / "x.mid", "--model", miniature, "--tempo", "93.5", "--bars", 2).done()
    (tempo,) = read_midi(tmp_path / "x.mid").tempos
    assert (tempo.beat, tempo.bpm) == (0, pytest.approx(93.5, abs=0.001))
