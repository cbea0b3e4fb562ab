from __future__ import annotations

import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from affgen import cli
from affgen.errors import ModelError
from affgen.testing_audio import damaged_sounds, encoded, tone, wav

KEYS = {"command", "input", "output", "sample_rate", "duration_s", "compute_s", "rtf", "warnings"}
DAMAGED = dict(damaged_sounds(np.random.default_rng(3)))
VOICE = encoded(tone(0.6, 16_000) + tone(0.6, 16_000, hertz=440) / 2, 16_000)


@pytest.fixture
def affgen(command, monkeypatch):
    """Run ``affgen``; the task is there whether or not the installed metadata name it."""
    known = cli.tasks()
    monkeypatch.setattr(cli, "tasks", lambda: known | {"audio": "affgen.audio_cli:register"})
    return command


@pytest.fixture
def voice(tmp_path) -> Path:
    (tmp_path / "voice.wav").write_bytes(VOICE)
    return tmp_path / "voice.wav"


@pytest.fixture
def vocoders(monkeypatch):
    """Stand-ins for both vocoders, so that what is tested is the command: noise of the frames' energy."""

    class Vocoder:
        @classmethod
        def from_pretrained(cls, model=None):
            if model:
                raise ModelError(f"{model}: is no model directory; accepted: config.json and model.safetensors")
            return cls()

        def stream(self, mel, f0, *, seed=0):
            assert mel.shape == (80, len(f0))
            wave = np.random.default_rng(seed).normal(0, 0.1, 256 * len(f0)).astype(np.float32)
            yield from (wave[:5000], wave[5000:])

    neural, lim = types.ModuleType("affgen.vocoder"), types.ModuleType("affgen.vocoder.griffin_lim")
    neural.Vocoder = Vocoder
    lim.griffin_lim = lambda mel, iterations=60, seed=0: np.zeros(256 * mel.shape[1], np.float32)
    monkeypatch.setitem(sys.modules, "affgen.vocoder", neural)
    monkeypatch.setitem(sys.modules, "affgen.vocoder.griffin_lim", lim)


def test_features_are_those_of_the_library(affgen, voice, tmp_path):
    from affgen.audio import read
    from affgen.features import extract

    record = affgen("audio", "features", voice, tmp_path / "a.npz", "--json").done().json
    wanted = extract(read(voice, sample_rate=22_050))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as made:
        assert set(made) == {"mel", "f0", "energy"}
        assert {made[name].dtype for name in made} == {np.dtype(np.float32)}
        for name in made:
            np.testing.assert_allclose(made[name], getattr(wanted, name), atol=1e-5)
        assert made["mel"].shape == (80, 13_230 // 256) and np.median(made["f0"]) == pytest.approx(220, rel=0.01)
    assert set(record) >= KEYS and record["command"] == "audio features" and record["warnings"] == []
    assert record["frames"] == 51 and record["sample_rate"] == 22_050
    assert record["duration_s"] == pytest.approx(51 * 256 / 22_050, abs=1e-3)


def test_silence_is_valid_and_has_no_pitch(affgen, tmp_path):
    (tmp_path / "silence.wav").write_bytes(wav(bytes(32_000)))
    done = affgen("audio", "features", tmp_path / "silence.wav", tmp_path / "a.npz", "--json", "--quiet").done()
    assert done.json["warnings"] == ["no voiced frame was found"] and done.err == ""
    with np.load(tmp_path / "a.npz", allow_pickle=False) as made:
        assert not made["f0"].any() and np.ptp(made["mel"]) == 0
        assert all(np.isfinite(made[name]).all() for name in made)


def test_standard_input_eight_channels_and_clipping_are_accepted(affgen, tmp_path):
    affgen("audio", "features", "-", tmp_path / "a.npz", "--threads", 1, stdin=VOICE).done()
    eight = encoded(tone(0.3, 16_000, channels=8), 16_000)
    affgen("audio", "features", "-", tmp_path / "b.npz", stdin=eight).done()
    clipped = encoded(np.clip(9 * tone(0.3, 16_000), -1, 1), 16_000)
    affgen("audio", "features", "-", tmp_path / "c.npz", stdin=clipped).done()
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz", "c.npz"}


def test_a_picture_is_drawn(affgen, voice, tmp_path):
    affgen("audio", "features", voice, tmp_path / "a.npz", "--plot", tmp_path / "a.png").done()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("verb", ["features", "copy"])
@pytest.mark.parametrize("name", [n for n in DAMAGED if not n.startswith("3 h of")])
def test_damaged_sounds_are_refused(affgen, tmp_path, vocoders, verb, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    out = tmp_path / ("out.npz" if verb == "features" else "out.wav")
    affgen("audio", verb, tmp_path / name, out).refused(name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("samples", [1, 2, 256, 500])
def test_sounds_shorter_than_a_frame_are_refused_by_name(affgen, tmp_path, samples):
    (tmp_path / "short.wav").write_bytes(wav(bytes(2 * samples), rate=22_050))
    affgen("audio", "features", tmp_path / "short.wav", tmp_path / "a.npz").refused("short.wav: ", "accepted")
    affgen("audio", "features", "-", tmp_path / "a.npz", stdin=wav(bytes(2 * samples))).refused("standard input: ")


def test_what_cannot_be_done_is_refused_in_one_line(affgen, voice, tmp_path, vocoders):
    out = tmp_path / "out.npz"
    sound = tmp_path / "out.wav"
    for arguments, words in (
        (("features", tmp_path / "absent.wav", out), "absent.wav: cannot be read"),
        (("features", voice, tmp_path / "out.txt"), "must end in .npz"),
        (("features", voice, "-"), "must end in .npz"),
        (("features", voice, tmp_path / "absent" / "out.npz"), "does not exist"),
        (("features", voice, out, "--plot", "a.jpg"), "must end in .png"),
        (("features", voice, out, "--threads", 0), "accepted"),
        (("features", voice, out, "--threads", 5000), "accepted: 1 to 1024"),
        (("features", voice), "OUT"),
        (("copy", voice, tmp_path / "out.mp3"), "must end in .wav or .flac"),
        (("copy", voice, "-", "--json"), "cannot both go to standard output"),
        (("copy", voice, sound, "--vocoder", "hifigan"), "griffin-lim"),
        (("copy", voice, sound, "--vocoder", "griffin-lim", "--model", "x"), "--model has no effect"),
        (("copy", voice, sound, "--model", tmp_path / "absent"), "is no model directory"),
        (("copy", voice, sound, "--seed", -1), "accepted"),
    ):
        affgen("audio", *arguments).refused(words)
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_copy_is_written_by_either_vocoder(affgen, voice, tmp_path, vocoders, suffix):
    record = affgen("audio", "copy", voice, tmp_path / f"a{suffix}", "--json", "--seed", 3).done().json
    assert set(record) >= KEYS | {"model", "seed", "vocoder"}
    assert (record["vocoder"], record["model"], record["seed"]) == ("neural", "shipped", 3)
    assert soundfile.info(tmp_path / f"a{suffix}").frames == 51 * 256
    assert soundfile.info(tmp_path / f"a{suffix}").samplerate == 22_050
    affgen("audio", "copy", voice, tmp_path / f"b{suffix}", "--vocoder", "griffin-lim").done()
    assert not soundfile.read(tmp_path / f"b{suffix}")[0].any()


def test_a_copy_goes_to_standard_output(affgen, voice, tmp_path, vocoders):
    done = affgen("audio", "copy", voice, "-", "--quiet", "--seed", 1).done()
    affgen("audio", "copy", voice, tmp_path / "a.wav", "--seed", 1).done()
    assert done.out == (tmp_path / "a.wav").read_bytes() and done.err == ""
    assert soundfile.read(io.BytesIO(done.out))[1] == 22_050


# --- many ------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_a_folder_and_the_bad_ones_are_listed(affgen, voice, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "good.wav").write_bytes(VOICE)
    (folder / "sub" / "good.flac").write_bytes(encoded(tone(0.3, 22_050), 22_050, "FLAC"))
    (folder / "text.wav").write_bytes(b"no sound")
    (folder / "notes.txt").write_bytes(b"left alone")
    done = affgen("audio", "features", folder, tmp_path / "out", "--json", "--quiet")
    assert done.code == 3 and done.err.count("\n") == 1 and "text.wav" in done.err
    assert len(done.json["files"]) == 2 and all(set(record) >= KEYS for record in done.json["files"])
    failures = (tmp_path / "out" / "failures.tsv").read_text(encoding="utf-8")
    assert failures.count("\n") == 1 and "text.wav\t" in failures
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npz")}
    assert made == {"good.npz", "sub/good.npz"}
    (folder / "text.wav").unlink()
    before = (tmp_path / "out" / "good.npz").stat().st_mtime_ns
    assert affgen("audio", "features", folder, tmp_path / "out", "--json").done().json["files"] == []
    assert (tmp_path / "out" / "good.npz").stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "failures.tsv").exists()
    affgen("audio", "features", folder, tmp_path / "out", "--overwrite").done()
    assert (tmp_path / "out" / "good.npz").stat().st_mtime_ns > before
    affgen("audio", "features", folder, tmp_path / "out", "--plot", tmp_path / "a.png").refused("--plot")


def test_a_list_may_hold_commands_and_what_fails_does_not_stop_it(affgen, voice, tmp_path):
    lines = (
        f"path {voice}",
        f"pipe cat '{voice}' |",
        "absent /absent/x.wav",
        "failing cat /absent/y.wav |",
        "",
        "odd echo x |",
    )
    (tmp_path / "wav.scp").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = affgen("audio", "features", tmp_path / "wav.scp", tmp_path / "out")
    assert done.code == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"path.npz", "pipe.npz", "failures.tsv"}
    assert (tmp_path / "out" / "path.npz").read_bytes() == (tmp_path / "out" / "pipe.npz").read_bytes()
    failures = (tmp_path / "out" / "failures.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in failures] == ["/absent/x.wav", "cat /absent/y.wav |", "echo x |"]
    assert "exit code 1 (cat: /absent/y.wav: No such file" in failures[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "names no sound"),
        (b"a\n", "line 1: has no path"),
        (b"a x.wav\na y.wav\n", "line 2: 'a' comes twice"),
        (b"a \xff\n", "is not UTF-8"),
    ],
)
def test_lists_that_are_none_are_refused(affgen, tmp_path, text, words):
    (tmp_path / "wav.scp").write_bytes(text)
    affgen("audio", "features", tmp_path / "wav.scp", tmp_path / "out").refused("wav.scp", words)
    assert not (tmp_path / "out").exists()


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from affgen.cli import Parser; from affgen.audio_cli import register\n"
        "register(Parser().add_subparsers())\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'numba', 'numpy', 'soundfile', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_save_that_fails_leaves_nothing(affgen, voice, tmp_path, monkeypatch, vocoders):
    def broken(self, samples):
        raise ZeroDivisionError

    monkeypatch.setattr("soundfile.SoundFile.write", broken)
    assert affgen("audio", "copy", voice, tmp_path / "out.wav").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]
