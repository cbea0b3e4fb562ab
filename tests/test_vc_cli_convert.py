"""``affgen vc convert``: files, pipes, folders, streams, its JSON and its pictures, over a stand-in for the model."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from affgen import cli
from affgen.audio import Audio, blocks, read, resample, save_blocks
from affgen.errors import AffgenError
from affgen.features import Features, extract
from affgen.testing_audio import encoded, tone, wav
from affgen.wav_stream import open_wav, write_wav

KEYS = {
    *("command", "input", "output", "model", "emotion", "intensity", "seed", "sample_rate", "duration_s", "compute_s"),
    *("rtf", "steps", "warnings"),
}
VOICE = encoded(tone(0.6, 16_000), 16_000)
Command = Callable[..., Any]


@dataclass
class Report:
    seconds: float
    warnings: list[str]


@dataclass
class Made:
    audio: Audio
    source: Features
    features: Features
    intensity: np.ndarray
    warnings: list[str] = field(default_factory=list)


class Fake:
    """Turns the sound down by the intensity asked for at its beginning; keeps what it was called with."""

    steps = 4

    def __init__(self) -> None:
        self.loads: list[Any] = []
        self.calls: list[tuple[str, str, str, dict[str, Any]]] = []
        self.interrupt = False

    def from_pretrained(self, model: Any = None) -> Fake:
        self.loads.append(model)
        return self

    def request(self, emotion: Any, intensity: Any, **options: Any) -> None:
        """Refuses nothing."""

    def _gain(self, way: str, emotion: Any, intensity: Any, options: dict[str, Any]) -> float:
        self.calls.append((way, str(emotion), str(intensity), options))
        return 1 - intensity.points[0][0] / 2

    def run(self, source: Path, emotion: Any, intensity: Any, **options: Any) -> Made:
        gain = self._gain("run", emotion, intensity, options)
        audio = read(source, sample_rate=22_050)
        made = Audio(gain * audio.samples, 22_050)
        return Made(made, extract(audio), extract(made), np.full(len(audio.samples) // 256, 0.5), ["of the model"])

    def convert_file(self, source: Path, out: Path, emotion: Any, intensity: Any, **options: Any) -> Report:
        gain, count = self._gain("file", emotion, intensity, options), 0

        def made() -> Iterator[np.ndarray]:
            nonlocal count
            for block in blocks(source):
                count += len(block)
                yield gain * block
                if self.interrupt:
                    raise KeyboardInterrupt

        save_blocks(out, made(), 22_050)
        return Report(count / 22_050, ["of the model"])

    def stream(self, parts: Any, rate: int, emotion: Any, intensity: Any, **options: Any) -> Iterator[np.ndarray]:
        gain = self._gain("stream", emotion, intensity, options)
        for part in parts:
            yield gain * resample(part, rate, 22_050)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    known, stand_in = cli.tasks(), Fake()
    monkeypatch.setattr(cli, "tasks", lambda: {**known, "vc": "vc.cli:register"})
    module = types.ModuleType("vc.convert")
    module.VoiceConverter = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vc.convert", module)
    return stand_in


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    (tmp_path / "voice.wav").write_bytes(VOICE)
    return tmp_path / "voice.wav"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- one file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_file_is_converted(command: Command, fake: Fake, voice: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    done = command("vc", "convert", voice, out, "--emotion", "anger", "--intensity", 1, "--seed", 7, "--json").done()
    record = done.json
    assert set(record) == KEYS
    assert (record["command"], record["input"], record["output"]) == ("vc convert", str(voice), str(out))
    assert (record["emotion"], record["intensity"], record["seed"]) == ("angry", "1", 7)
    assert (record["model"], record["sample_rate"], record["steps"]) == ("shipped", 22_050, 4)
    assert record["duration_s"] == 0.6 == soundfile.info(out).duration
    assert record["rtf"] == pytest.approx(record["compute_s"] / 0.6, abs=0.002)
    assert record["warnings"] == ["of the model"] and "warning: " in done.err
    assert abs(read(out).samples).max() == pytest.approx(1 / 6, rel=0.01)


def test_every_flag_reaches_the_converter(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    flags = ("--source-emotion", "sadness", "--steps", 9, "--guidance", 2.5, "--keep-duration", "--model", tmp_path)
    record = command("vc", "convert", voice, out, "--emotion", "joy:0.6+sad:0.4", *flags, "--json").done().json
    (call,) = fake.calls
    assert call[:3] == ("file", "happy:0.6+sad:0.4", "1")
    assert call[3] == {
        **{"source_emotion": "sad", "steps": 9, "guidance": 2.5, "seed": 0},
        **{"reference": None, "keep_duration": True},
    }
    assert fake.loads == [str(tmp_path)] == [record["model"]] and record["steps"] == 9
    command("vc", "convert", voice, out, "--reference", voice, "--intensity", "0.2@0s,1@0.5s", "--quiet").done()
    heard = fake.calls[1][3].pop("reference")
    assert heard.sample_rate == 16_000 and len(heard.samples) == 9_600
    assert fake.calls[1][1:] == (
        *("neutral", "0.2@0s,1@0.5s"),
        {"source_emotion": "neutral", "steps": None, "guidance": None, "seed": 0, "keep_duration": False},
    )


def test_the_reference_is_named_in_the_record(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    record = command("vc", "convert", voice, tmp_path / "o.wav", "--reference", voice, "--json", "--quiet").done().json
    assert record["emotion"] == f"reference:{voice}"


def test_pipes_carry_the_same_bytes_as_files(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    command("vc", "convert", voice, tmp_path / "out.wav", "--emotion", "sad").done()
    done = command("vc", "convert", "-", "-", "--emotion", "sad", "--quiet", stdin=VOICE).done()
    assert done.out == (tmp_path / "out.wav").read_bytes() and done.err == ""
    record = command("vc", "convert", "-", tmp_path / "b.wav", "--emotion", "sad", "--json", stdin=VOICE).done().json
    assert record["input"] == "-" and (tmp_path / "b.wav").read_bytes() == done.out
    mp3 = encoded(tone(0.6, 22_050), 22_050, "MP3", "MPEG_LAYER_III")
    command("vc", "convert", "-", tmp_path / "c.wav", "--emotion", "sad", stdin=mp3).done()


def test_a_picture_is_drawn(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    picture = tmp_path / "a.png"
    record = command("vc", "convert", voice, tmp_path / "a.wav", "--emotion", "sad", "--plot", picture, "--json").json
    assert set(record) == KEYS and record["duration_s"] == 0.6 and fake.calls[0][0] == "run"
    pixels = np.rint(imread(picture) * 255).astype(int)[..., :3]
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x77, 0x77, 0x77)):  # intensity, F0 made, F0 before
        assert (pixels == colour).all(axis=-1).sum() > 40, colour


def test_an_interrupt_leaves_nothing(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    fake.interrupt = True
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(VOICE)
    for source, out in ((voice, "out.wav"), (voice, "-"), ("-", "out.wav"), (folder, "out")):
        target = out if out == "-" else tmp_path / out
        done = command("vc", "convert", source, target, "--emotion", "sad", stdin=VOICE)
        assert (done.code, done.out, done.err) == (130, b"", "interrupted\n")
    assert names(tmp_path) == {"voice.wav", "in/a.wav"}


# --- warnings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (("--intensity", "0.2@3s,1@9s"), "curve of the intensity begins at 3 s, the sound ends at 0.60 s: its first"),
        (("--intensity", "0.2@3s,1@9s"), "value, 0.2, holds throughout"),
        (("--intensity", "0.2@0s,1@9s"), "goes on to 9 s, the sound ends at 0.60 s: the rest of the curve is not"),
        (("--emotion", "sad@5s,happy+angry@7s"), "curve of the emotion begins at 5 s"),
        (("--emotion", "sad@5s,happy+angry@7s"), "value, sad, holds"),
        (("--emotion", "neutral", "--source-emotion", "neutral"), None),
        (("--intensity", "0.2@10%,1@0.5s"), None),
        (("--intensity", "1@9s"), None),
    ],
)
def test_curves_that_the_sound_does_not_reach(
    command: Command, fake: Fake, voice: Path, tmp_path: Path, flags: tuple[str, ...], warning: str | None
) -> None:
    asked = flags if "--emotion" in flags else ("--emotion", "happy", *flags)
    warnings = command("vc", "convert", voice, tmp_path / "o.wav", *asked, "--json", "--quiet").done().json["warnings"]
    if warning is None:
        assert warnings == ["of the model"]
    else:
        assert len(warnings) == 2 and warning in warnings[0]


def test_what_goes_without_saying_is_said(command: Command, fake: Fake, voice: Path, tmp_path: Path) -> None:
    warnings = command("vc", "convert", voice, tmp_path / "o.wav", "--json").done().json["warnings"]
    assert warnings[0] == "no --emotion and no --reference was given: neutral stays neutral"
    two = encoded(tone(0.3, 16_000, channels=2), 16_000)
    for flags in ((), ("--stream",)):
        done = command("vc", "convert", "-", tmp_path / "o.wav", "--emotion", "sad", "--json", *flags, stdin=two).done()
        assert "2 channels were mixed down to one" in done.json["warnings"]
        assert "warning: -: 2 channels were mixed down to one\n" in done.err


# --- many ------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_a_folder_with_one_model(command: Command, fake: Fake, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.wav").write_bytes(VOICE)
    (folder / "sub" / "b.flac").write_bytes(encoded(tone(0.3, 22_050), 22_050, "FLAC"))
    (folder / "bad.wav").write_bytes(b"no sound")
    done = command("vc", "convert", folder, out, "--emotion", "sad", "--json", "--quiet")
    assert done.code == 3 and done.err.count("\n") == 1 and "bad.wav" in done.err
    assert done.json["command"] == "vc convert" and [set(record) for record in done.json["files"]] == [KEYS] * 2
    assert names(out) == {"a.wav", "sub/b.wav", "failures.tsv"} and len(fake.loads) == 1
    assert "bad.wav\t" in (out / "failures.tsv").read_text(encoding="utf-8")
    (folder / "bad.wav").unlink()
    before = (out / "a.wav").stat().st_mtime_ns
    again = command("vc", "convert", folder, out, "--emotion", "sad", "--json").done()
    assert again.json["files"] == [] and (out / "a.wav").stat().st_mtime_ns == before
    assert names(out) == {"a.wav", "sub/b.wav"}
    command("vc", "convert", folder, out, "--emotion", "sad", "--overwrite").done()
    assert (out / "a.wav").stat().st_mtime_ns > before


def test_a_list_is_converted_and_its_own_files_are_safe(
    command: Command, fake: Fake, voice: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "wav.scp"
    listed.write_text(f"x {voice}\ny cat '{voice}' |\nvoice {voice}\n", encoding="utf-8")
    command("vc", "convert", listed, tmp_path / "out", "--emotion", "sad").done()
    made = {name: (tmp_path / "out" / name).read_bytes() for name in ("x.wav", "y.wav")}
    assert made["x.wav"] == made["y.wav"]
    done = command("vc", "convert", listed, tmp_path, "--emotion", "sad", "--overwrite", "--json", "--quiet")
    assert done.code == 3 and "voice.wav: is the input itself" in done.err
    assert voice.read_bytes() == VOICE


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_is_converted_from_and_to_pipes_and_files(
    command: Command, fake: Fake, voice: Path, tmp_path: Path
) -> None:
    data = encoded(tone(0.6, 22_050), 22_050)
    (tmp_path / "in.wav").write_bytes(data)
    wanted = Audio(tone(0.6, 22_050) / 2, 22_050)
    wanted.save(tmp_path / "wanted.wav")
    expected = soundfile.read(tmp_path / "wanted.wav", dtype="int16")[0]
    for source, out in (("-", "-"), ("-", "o.wav"), ("in.wav", "-"), ("in.wav", "o.flac")):
        paths = [name if name == "-" else tmp_path / name for name in (source, out)]
        done = command("vc", "convert", *paths, "--emotion", "sad", "--stream", "--seed", 3, stdin=data).done()
        sound = io.BytesIO(done.out) if out == "-" else paths[1]
        samples, rate = soundfile.read(sound, dtype="int16")
        assert rate == 22_050 and len(samples) == 13_230
        assert abs(samples.astype(int) - expected).max() <= 1  # read from 16 bits, halved, and rounded once more
        assert "0.60 s in" in done.err
    assert {call[0] for call in fake.calls} == {"stream"}
    assert fake.calls[0][3] == {
        **{"source_emotion": "neutral", "steps": None, "guidance": None, "seed": 3, "reference": None}
    }


class Pipe(io.RawIOBase):
    """Standard input whose second half comes only after something was heard on standard output."""

    def __init__(self, data: bytes, heard: threading.Event) -> None:
        self.data, self.heard, self.at = data, heard, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.at >= len(self.data) // 2:
            assert self.heard.wait(5), "nothing came out before the input had ended"
        count = min(len(buffer), 512, len(self.data) - self.at)
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


class Ear(io.BytesIO):
    def __init__(self, heard: threading.Event) -> None:
        super().__init__()
        self.heard, self.flushed = heard, 0

    def flush(self) -> None:
        self.flushed += 1
        if len(self.getvalue()) > 44:
            self.heard.set()


def test_sound_comes_out_while_it_still_comes_in(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()
    ear = Ear(heard)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BufferedReader(Pipe(VOICE, heard), 512)))
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=ear, flush=lambda: None))
    assert cli.main(["vc", "convert", "-", "-", "--stream", "--emotion", "sad", "--quiet"]) == 0
    assert ear.flushed >= 30  # 0.6 s in blocks of 20 ms
    made = open_wav(io.BytesIO(ear.getvalue()), "x")
    assert made.size is None and sum(map(len, made.blocks(1.0))) == pytest.approx(0.6 * 22_050, abs=60)


@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_U8", 7), ("PCM_16", 15), ("PCM_24", 15), ("PCM_32", 15), ("FLOAT", 15), ("ULAW", 5)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_streams_read_as_files_do(tmp_path: Path, subtype: str, bits: int, channels: int) -> None:
    sound = tone(0.1, 8_000, channels=channels)
    data = encoded(sound, 8_000, "WAV" if channels == 1 else "WAVEX", subtype)
    (tmp_path / "a.wav").write_bytes(data)
    opened = open_wav(io.BytesIO(data), "a.wav")
    assert (opened.sample_rate, opened.channels) == (8_000, channels)
    made = list(opened.blocks(0.03))
    assert [len(block) for block in made] == [240, 240, 240, 80]
    np.testing.assert_array_equal(np.concatenate(made), read(tmp_path / "a.wav").samples)
    np.testing.assert_allclose(np.concatenate(made), sound.reshape(800, -1).mean(axis=1), atol=2.0**-bits)


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 2**32 - 1])
def test_wav_of_unknown_length_is_read_to_its_end(size: int) -> None:
    data = wav(tone(0.5, 16_000).astype("<f4").tobytes() + b"\1", tag=3, bits=32, data_size=size)
    assert sum(map(len, open_wav(io.BytesIO(data), "x").blocks(0.1))) == 8_000


def test_what_is_written_to_a_pipe_is_what_a_file_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 0.5, 1000).astype(np.float32) for _ in range(3)]  # some beyond full scale
    pipe = io.BytesIO()
    assert write_wav(pipe, [parts[0], np.zeros(0, np.float32), *parts[1:]], 22_050, "x") == 3000
    save_blocks(tmp_path / "a.wav", parts, 22_050)
    (tmp_path / "b.wav").write_bytes(pipe.getvalue())
    whole, streamed = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("a.wav", "b.wav"))
    np.testing.assert_array_equal(whole, streamed)
    np.testing.assert_array_equal(read(tmp_path / "a.wav").samples, read(tmp_path / "b.wav").samples)
    for bad in ([], [np.array([0.0, np.nan], np.float32)]):
        empty = io.BytesIO()
        with pytest.raises(AffgenError):
            write_wav(empty, bad, 22_050, "x")
        assert empty.getvalue() == b""


# --- train and evaluate ----------------------------------------------------------------------------------------------


def test_train_and_evaluate_are_wired(command: Command, fake: Fake, tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[Any] = []
    for name, function in (("train", "train"), ("evaluate", "run")):
        module = types.ModuleType(f"vc.{name}")
        setattr(module, function, lambda *given, **more: calls.append((given, more)))
        monkeypatch.setitem(sys.modules, f"vc.{name}", module)
        monkeypatch.setattr(f"vc.{name}", module, raising=False)
    flags = ("--data", "a", "--data", "b", "--out", tmp_path / "exp", "--resume", "--quiet", "--device", "cpu")
    command("vc", "train", *flags, "decoder.width=64").done()
    (config, data, out), more = calls[0]
    assert (config.decoder.width, data, out) == (64, ["a", "b"], str(tmp_path / "exp"))
    assert more == {"resume": True, "quiet": True, "device": "cpu"}
    command("vc", "evaluate", "a", "b", "--out", tmp_path / "m.json", "--utterances", 5).done()
    (args,), _ = calls[1]
    assert (args.data, args.out, args.utterances, args.model) == (["a", "b"], str(tmp_path / "m.json"), 5, None)
    command("vc", "train", "--data", "a", "--out", tmp_path / "no" / "exp").refused("does not exist")
    command("vc", "evaluate", "a", "--out", tmp_path / "no" / "m.json").refused("does not exist")
    assert len(calls) == 2


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from affgen.cli import Parser; from vc.cli import register\n"
        "register(Parser().add_subparsers())\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'numba', 'numpy', 'soundfile', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
