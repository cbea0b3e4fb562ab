"""The command line: discovery of tasks, one line per error, exit codes, light imports, shared flags."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from affgen import cli
from affgen.errors import AffgenError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = "torch librosa gradio numba scipy matplotlib"

TOY = '''"""Toy sounds for a test.

More text.
"""
def register(verbs):
    make = verbs.add_parser("make", help="make one")
    make.add_argument("what")
    make.add_argument("--count", type=int, default=1)
    make.set_defaults(run=run)

def run(args):
    from affgen.errors import AffgenError
    if args.what == "refused":
        raise AffgenError("x.wav: is empty; accepted: sound")
    if args.what == "multiline":
        raise AffgenError("x\\ny\\x1b[31m.wav: bad")
    if args.what == "broken":
        raise ZeroDivisionError("division\\nby zero")
    if args.what == "interrupted":
        raise KeyboardInterrupt
    if args.what == "terminated":
        error = KeyboardInterrupt("stopped after step 3")
        error.exit_code = 143
        raise error
    if args.what == "pipe":
        raise BrokenPipeError
    print(args.what * args.count)
    return 3 if args.what == "partly" else None
'''


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Tasks ``toy`` (a package of its own) and this project's ``data`` and ``emotion``, as an installer leaves them."""
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported although nobody asked for it')\n")
    (package / "broken_cli.py").write_text('"""Never imported."""\n')
    (tmp_path / "toy_cli.py").write_text(TOY)
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(
        "[console_scripts]\ntoy = toy_cli:main\n\n[affgen.tasks]\ntoy = toy_cli:register\n# comment = x\n"
        "lazy = toy_package.broken_cli:register\ndata = affgen.data_cli:register\n"
        "emotion=affgen.emotion.cli:register\n\n[other.group]\nnot_a_task = toy_cli:register\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("toy_cli", None)


def run(capfd, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    out, err = capfd.readouterr()
    return code, out, err


def fresh(plugins: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run in a new interpreter."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, **options
    )


# --- discovery ---


def test_tasks_come_from_the_group_alone(plugins):
    tasks = cli.tasks()
    assert tasks["toy"] == "toy_cli:register"
    assert tasks["emotion"] == "affgen.emotion.cli:register"
    assert not {"not_a_task", "# comment", "affgen"} & set(tasks)
    assert list(tasks) == sorted(tasks)


def test_help_lists_tasks_with_their_first_line_and_imports_none(plugins, capfd):
    code, out, err = run(capfd, "--help")
    assert (code, err) == (0, "")
    assert "toy       Toy sounds for a test." in out
    assert "Never imported." in out
    assert "models" in out
    assert "verify" in out
    assert "toy_cli" not in sys.modules


def test_one_task_imports_no_other(plugins, capfd):
    assert run(capfd, "toy", "make", "x", "--count", "2") == (0, "xx\n", "")
    assert "toy_package" not in sys.modules


def test_version(capfd):
    assert run(capfd, "--version") == (0, "affgen 0.1.0\n", "")


# --- errors and exit codes ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no task given; accepted: "),
        (["nothing"], "unknown task 'nothing'; accepted: "),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["toy"], "the following arguments are required: VERB"),
        (["toy", "nothing"], "invalid choice: 'nothing'"),
        (["toy", "make"], "the following arguments are required: what"),
        (["toy", "make", "x", "--coun", "2"], "unrecognized arguments: --coun 2"),
        (["toy", "make", "x", "--count", "many"], "argument --count: invalid int value: 'many'"),
        (["toy", "make", "refused"], "x.wav: is empty; accepted: sound"),
        (["toy", "make", "multiline"], "x\\ny\\x1b[31m.wav: bad"),
        (["emotion", "show", "joyful!"], "unknown emotion 'joyful!'; accepted: neutral"),
        (["emotion", "show", "happy", "--intensity", "2"], "intensity 2; accepted: 0 to 1.5"),
        (["data", "validate", "/none"], "/none: is not a folder"),
        (["verify", "/none.mid"], "/none.mid: cannot be read (No such file or directory)"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_2(plugins, capfd, arguments, expected):
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_our_failures_are_one_line_and_exit_1(plugins, capfd):
    code, out, err = run(capfd, "toy", "make", "broken")
    assert (code, out) == (1, "")
    line = "internal error: ZeroDivisionError: division\\nby zero; run again with --debug for a traceback\n"
    assert err == line


@pytest.mark.parametrize("arguments", [["--debug", "toy", "make", "broken"], ["toy", "make", "broken", "--debug"]])
def test_debug_shows_the_traceback(plugins, capfd, arguments):
    code, _, err = run(capfd, *arguments)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("\ninternal error: ZeroDivisionError: division\\nby zero\n")


def test_debug_after_two_dashes_is_an_argument(plugins, capfd):
    assert run(capfd, "toy", "make", "--", "--debug") == (0, "--debug\n", "")


@pytest.mark.parametrize(
    ("what", "code", "err"),
    [
        ("interrupted", 130, "interrupted\n"),
        ("terminated", 143, "interrupted: stopped after step 3\n"),
        ("partly", 3, ""),
    ],
)
def test_interrupts_and_codes_of_verbs(plugins, capfd, what, code, err):
    got, _, said = run(capfd, "toy", "make", what)
    assert (got, said) == (code, err)


def test_a_reader_that_goes_away_is_no_error(plugins):
    script = "import sys; from affgen.cli import main; sys.exit(main(['toy', 'make', 'x' * 1000, '--count', '2000']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


# --- light ---


def test_help_and_the_light_packages_load_nothing_heavy(plugins):
    script = (
        "import sys, affgen, affgen.cli, affgen.emotion\n"
        "for arguments in (['--help'], ['toy', '--help'], ['emotion', 'show', 'Q1@0b,va:0/1@8b'], ['models']):\n"
        "    assert affgen.cli.main(arguments) == 0, arguments\n"
        f"print('heavy:', [name for name in '{HEAVY}'.split() if name in sys.modules])\n"
    )
    done = fresh(plugins, "-c", script)
    assert done.stderr == ""
    assert done.stdout.endswith("heavy: []\n")


def test_python_m_affgen_is_the_command_and_helps_fast(plugins):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = fresh(plugins, "-m", "affgen", "--help")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert done.stdout.startswith("usage: affgen ")
    assert min(times) < 0.5  # about 0.05 s on an idle machine


# --- what generators share ---


def generation(*arguments: str) -> argparse.Namespace:
    parser = cli.Parser(prog="test")
    cli.add_generation_flags(parser)
    return parser.parse_args(list(arguments))


def test_generation_flags_and_their_defaults():
    args = generation()
    assert vars(args) == {
        **{
            "emotion": None,
            "intensity": "1",
            "model": None,
            "seed": 0,
            "device": "auto",
            "threads": None,
            "plot": None,
        },
        **{"json": False, "quiet": False, "overwrite": False},
    }
    assert generation("--seed", str(2**63 - 1), "--threads", "2", "--emotion", "sad").seed == 2**63 - 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--seed", value) for value in ("-1", "1.5", str(2**63), "\u0663", "", "nan")),
        *(("--threads", "0"), ("--threads", "nan"), ("--device", "gpu")),
    ],
)
def test_generation_flags_refuse_in_one_line(arguments):
    with pytest.raises(
        AffgenError, match=r"^argument --(seed|threads|device).*(accepted|choose from|expected)"
    ) as caught:
        generation(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "x", "", "1e999"])
def test_numbers_must_be_finite(text):
    with pytest.raises(argparse.ArgumentTypeError, match="accepted: a "):
        cli.finite_float(text)


def test_numbers_are_read():
    assert cli.finite_float("-2") == -2
    assert cli.positive_int("7") == 7


def test_json_is_one_line_of_plain_values(capsys):
    record = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": float("nan"), "e": (1, True, None, "é\n")}
    cli.emit_json(argparse.Namespace(json=False), record)
    assert capsys.readouterr().out == ""
    cli.emit_json(argparse.Namespace(json=True), record)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": 0.5, "b": [0, 1], "c": "x", "d": None, "e": [1, True, None, "é\n"]}


def test_quiet_is_quiet(capsys):
    cli.say(argparse.Namespace(quiet=True), "working")
    cli.say(argparse.Namespace(quiet=False), "working")
    assert capsys.readouterr() == ("", "working\n")


# --- commands ---


def test_emotion_show(plugins, capfd):
    code, out, _ = run(capfd, "emotion", "show", "neutral@0s,anger:3+Q3@3s", "--intensity", "0.2@0s,1@3s")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["time", "labels", "valence", "arousal", "quadrant"],
        ["0s", "100%", "neutral", "+0.00", "+0.00", "-"],
        ["3s", "75%", "angry", "+", "25%", "Q3", "-0.56", "+0.27", "Q2"],
        [],
        ["time", "intensity"],
        ["0s", "0.2"],
        ["3s", "1"],
    ]


def test_emotion_show_json(plugins, capfd):
    code, out, err = run(capfd, "emotion", "show", "va:0.4/-0.2", "--json", "--intensity", "0.5")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "command": "emotion show",
        "emotion": "va:0.4/-0.2",
        "points": [{"time": "start", "weights": {}, "valence": 0.4, "arousal": -0.2, "quadrant": "Q4"}],
        "intensity": "0.5",
        "intensity_points": [{"time": "start", "intensity": 0.5}],
    }


def test_data_commands(plugins, capfd, tmp_path):
    source, out = tmp_path / "EMOPIA", tmp_path / "data"
    (source / "midis").mkdir(parents=True)
    for name in ("Q1_song_0.mid", "Q3_song_1.mid"):
        (source / "midis" / name).write_bytes(b"MThd")
    code, text, err = run(capfd, "data", "prepare", "emopia", str(source), str(out))
    assert (code, err) == (0, "")
    assert text.startswith("emopia: CC BY-NC-SA 4.0")
    assert text.endswith(f"{out}/train: 2 utterances\n")
    assert run(capfd, "data", "validate", f"{out}/train") == (
        0,
        "utterances 2, speakers 1, commands 0, Q1 1, Q3 1\n",
        "",
    )
    (source / "midis" / "Q1_song_0.mid").unlink()
    code, text, err = run(capfd, "data", "validate", f"{out}/train")
    assert code == 2
    assert "Q1_song_0: its file" in text
    assert err == f"error: {out}/train: 1 problem; run 'affgen data fix {out}/train'\n"
    code, text, _ = run(capfd, "data", "fix", f"{out}/train")
    assert code == 0
    assert "dropped Q1_song_0: its file" in text
    assert run(capfd, "data", "validate", f"{out}/train")[0] == 0


def test_verify(capfd, tmp_path):
    from affgen.score import Note, Score, write_midi

    notes = (Note(0.0, 1.0, 60),)
    write_midi(Score(notes, texts=("affgen music compose seed=3", "someone else")), tmp_path / "ours.mid")
    write_midi(Score(notes), tmp_path / "other.mid")
    (tmp_path / "sound.mid").write_bytes(b"RIFF----WAVE")
    assert run(capfd, "verify", str(tmp_path / "ours.mid")) == (0, "affgen music compose seed=3\n", "")
    code, out, err = run(capfd, "verify", str(tmp_path / "other.mid"))
    assert (code, err) == (1, "")
    assert "carries no mark of affgen" in out
    code, out, err = run(capfd, "verify", str(tmp_path / "sound.mid"))
    assert (code, out) == (2, "")
    assert "verifies MIDI files only" in err
    code, out, _ = run(capfd, "verify", "--json", str(tmp_path / "ours.mid"))
    assert json.loads(out)["provenance"] == ["affgen music compose seed=3"]


def test_models_are_listed_without_importing_their_package(plugins, capfd):
    torch = pytest.importorskip("torch")
    from affgen.checkpoint import save_model

    (plugins / "toy_package" / "pretrained").mkdir()
    folder = plugins / "toy_package" / "pretrained" / "tiny"
    save_model(folder, task="toy", config={"licence": "CC0-1.0"}, tensors={"w": torch.zeros(4)}, card="# Tiny\n")
    code, out, err = run(capfd, "models")
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if str(folder) in line)
    assert row.split()[1:] == ["toy", "0.0", "MB", "CC0-1.0"]
    code, out, _ = run(capfd, "models", "--json")
    assert "CC0-1.0" in [model["licence"] for model in json.loads(out)["models"]]
    assert "toy_package" not in sys.modules
