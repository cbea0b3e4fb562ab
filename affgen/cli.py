"""Command-line entry: ``affgen TASK VERB``, and what every command shares: errors, exit codes, flags, JSON.

A task is an entry point of the group ``affgen.tasks`` that names a function ``register(verbs)`` in a light module; it
adds one parser per verb and sets its default ``run`` to a callable ``run(args) -> int | None`` that imports what is
heavy. Only the module of the named task is imported. Exit codes: 0 done, 1 a failure of ours, 2 input that cannot be
used, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from affgen import __version__
from affgen.errors import AffgenError

GROUP = "affgen.tasks"
COMMANDS = ("models", "verify")
MAX_SEED = 2**63 - 1
_DOCSTRING = re.compile(r'\A(?:\s|#.*\n)*[rR]?"""\s*(.+)')


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations whose complaints are :class:`AffgenError`, so one line and exit 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise AffgenError(f"{message}; see '{self.prog} --help'")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if debug:
        arguments.remove("--debug")
    return guard(lambda: _dispatch(arguments), debug=debug)


def guard(call: Callable[[], int | None], *, debug: bool = False) -> int:
    """Call ``call`` and return its exit code (None is 0); report what it raises in one line on standard error.

    :class:`AffgenError` gives 2, an interrupt its ``exit_code`` or 130, a reader that went away 141, anything else 1.
    ``debug`` adds the traceback.
    """
    try:
        code = call()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code or 0
    except AffgenError as error:
        _report(f"error: {error}", debug)
        return 2
    except KeyboardInterrupt as error:
        _report(f"interrupted: {error}" if str(error) else "interrupted", debug)
        return int(getattr(error, "exit_code", 130))
    except BrokenPipeError:
        _discard_output()
        return 141  # 128 + SIGPIPE, what the shell reports for other tools
    except SystemExit as leaving:  # --help and --version
        return leaving.code if isinstance(leaving.code, int) else 0
    except Exception as error:
        hint = "" if debug else "; run again with --debug for a traceback"
        _report(f"internal error: {type(error).__name__}: {error}{hint}", debug)
        return 1


def tasks() -> dict[str, str]:
    """Return {task: "module:function"} of every installed entry point of ``affgen.tasks``, in order of name.

    Reads the ``entry_points.txt`` files that name the group rather than asking ``importlib.metadata``, which parses the
    metadata of every installed distribution. The first on ``sys.path`` wins, as for imports.
    """
    found: dict[str, str] = {}
    for text in _entry_point_files():
        section = ""
        for line in text.splitlines():
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]").strip()
            elif section == GROUP and "=" in line and not line.startswith(("#", ";")):
                name, _, target = line.partition("=")
                found.setdefault(name.strip(), target.strip())
    return dict(sorted(found.items()))


def _entry_point_files() -> Iterator[str]:
    for folder in dict.fromkeys(sys.path):
        try:
            entries = sorted(e.path for e in os.scandir(folder or ".") if e.name.endswith((".dist-info", ".egg-info")))
        except OSError:
            continue  # not a folder: a zip file, or a path that does not exist
        for entry in entries:
            try:
                with open(os.path.join(entry, "entry_points.txt"), encoding="utf-8") as stream:
                    text = stream.read()
            except (OSError, UnicodeDecodeError):
                continue
            if GROUP in text:
                yield text


def _dispatch(arguments: list[str]) -> int | None:
    if not arguments:
        raise AffgenError(f"no task given; accepted: {', '.join([*tasks(), *COMMANDS])}; see 'affgen --help'")
    name = arguments[0]
    if name.startswith("-"):
        _overview().parse_args(arguments)
        raise AffgenError(f"{name}: comes without a task; see 'affgen --help'")
    if name in COMMANDS:
        parser = Parser(prog=f"affgen {name}")
        _COMMAND_FLAGS[name](parser)
    else:
        parser = _task_parser(name)
    args = parser.parse_args(arguments[1:])
    return args.run(args)


def _overview() -> Parser:
    """Return the parser behind ``affgen --help``: one line per task, none of them imported."""
    parser = Parser(prog="affgen", description="Emotion in voices, songs and piano music.")
    parser.add_argument("--version", action="version", version=f"affgen {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    listing = parser.add_subparsers(title="tasks", metavar="TASK")
    for name, target in tasks().items():
        listing.add_parser(name, help=_summary(target))
    for name in COMMANDS:
        listing.add_parser(name, help=_COMMAND_HELP[name])
    return parser


def _task_parser(name: str) -> Parser:
    """Return the parser of one task with its verbs; imports the module of that task alone."""
    known = tasks()
    if name not in known:
        raise AffgenError(f"unknown task {name!r}; accepted: {', '.join([*known, *COMMANDS])}; see 'affgen --help'")
    module, _, function = known[name].partition(":")
    parser = Parser(prog=f"affgen {name}", description=_summary(known[name]))
    getattr(importlib.import_module(module), function)(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def _summary(target: str) -> str:
    """Return the first docstring line of the module in ``"module:function"``, read without importing it."""
    from importlib.util import find_spec

    parts = target.partition(":")[0].split(".")
    spec = find_spec(parts[0])  # of the top level: looking for a module inside a package would import the package
    if spec is None:
        return ""
    stems = [os.path.join(folder, *parts[1:]) for folder in spec.submodule_search_locations or ()]
    for path in [f"{stem}{ending}" for stem in stems for ending in (".py", "/__init__.py")] or [spec.origin or ""]:
        try:
            with open(path, encoding="utf-8") as stream:
                match = _DOCSTRING.match(stream.read(2000))
        except OSError:
            continue
        return match.group(1).split('"""')[0].strip().replace("%", "%%") if match else ""
    return ""


def _package_folders(package: str) -> list[str]:
    """Return where a top-level package lies, without importing it; nothing if it is not installed."""
    from importlib.util import find_spec

    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


def _report(text: str, debug: bool) -> None:
    """Print one line on standard error, whatever characters are in it; before it the traceback when asked for."""
    if debug:
        import traceback

        traceback.print_exc()
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in text), file=sys.stderr)


def _discard_output() -> None:
    """Send what is left of standard output nowhere, so that the interpreter does not complain when it flushes."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # standard output is no file here


# --- what the commands of the generators share ---------------------------------------------------------------------


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every generating verb has; ``--emotion`` and ``--intensity`` stay text for the generator."""
    add = parser.add_argument_group("generation").add_argument
    add("--emotion", metavar="SPEC", help="label, mix, va:V/A or a curve of these: happy:0.6+sad:0.4, Q4@0b,Q1@8b")
    add("--intensity", metavar="I", default="1", help="0 to 1.5 or a curve such as 0.2@0s,1@3s (default: 1)")
    add("--model", metavar="DIR", help="model directory (default: the shipped model)")
    add("--seed", type=seed, default=0, metavar="N", help="same seed, same bytes (default: 0)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute (default: auto)")
    add("--threads", type=positive_int, metavar="N", help="processor threads (default: what the machine has)")
    add("--plot", metavar="OUT.png", help="also draw what was asked and what came out")
    add("--json", action="store_true", help="one JSON object on standard output, nothing else there")
    add("--quiet", action="store_true", help="no progress on standard error")
    add("--overwrite", action="store_true", help="make files again that are already there")


def add_training_flags(parser: argparse.ArgumentParser, data: str, *, many: bool = False) -> None:
    """Add the flags that every ``train`` has; ``data`` says what --data names, ``many``: it may come several times."""
    add = parser.add_argument
    add("--config", metavar="F", help="YAML with what differs from the defaults")
    add("--data", required=True, metavar="DIR", action="append" if many else "store", help=data)
    add("--out", required=True, metavar="EXP", help="folder for states, logs and the model")
    add("--resume", action="store_true", help="go on where an earlier call was stopped")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to train (default: auto)")
    add("--threads", type=positive_int, metavar="N", help="processor threads")
    add("--quiet", action="store_true", help="no progress on standard error")
    add("overrides", nargs="*", metavar="SECTION.KEY=VALUE", help="change single settings")


def device(args: argparse.Namespace) -> str:
    """Set torch's threads to ``args.threads`` and return the device that ``args.device`` means here; imports torch."""
    import torch

    if args.threads:
        if args.threads > 1024:
            raise AffgenError(f"--threads {args.threads}; accepted: 1 to 1024")
        torch.set_num_threads(args.threads)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if args.device == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[args.device]:
        names = ", ".join(name for name, here in available.items() if here)
        raise AffgenError(f"--device {args.device} is not available here; accepted: {names}")
    return str(args.device)


def positive_int(text: str) -> int:
    """Read a whole number from 1 up, for ``type=``."""
    return _whole(text, 1, MAX_SEED, "a whole number from 1")


def seed(text: str) -> int:
    """Read a seed, a whole number from 0 to 2**63 - 1, for ``type=``."""
    return _whole(text, 0, MAX_SEED, "a whole number from 0 to 2**63 - 1")


def finite_float(text: str) -> float:
    """Read a number that is neither NaN nor infinite, for ``type=``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: a finite number")
    return value


def _whole(text: str, low: int, high: int, accepted: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: {accepted}")
    return int(text)


def say(args: argparse.Namespace, text: str) -> None:
    """Print progress for people on standard error, unless ``--quiet``."""
    if not getattr(args, "quiet", False):
        print(text, file=sys.stderr)


def emit_json(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Print ``record`` as one JSON object on standard output if ``--json`` was given; NaN and infinity become null."""
    if getattr(args, "json", False):
        import json

        print(json.dumps(_plain(record), allow_nan=False))


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON types: numpy scalars and arrays, paths and tuples included."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


# --- commands that belong to no task -------------------------------------------------------------------------------


def _models_flags(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the models that the installed packages bring along."
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run_models)


def run_models(args: argparse.Namespace) -> None:
    """Print folder, task, size and licence of every ``pretrained`` model of the packages that bring a task."""
    from affgen.checkpoint import describe

    packages = sorted({target.partition(":")[0].split(".")[0] for target in tasks().values()})
    models = [describe(folder) for package in packages for folder in _pretrained(package)]
    for model in models:
        model["licence"] = model["config"].get("licence") or "see README.md"
    if args.json:
        emit_json(args, {"command": "models", "models": models})
        return
    rows = [("model", "task", "size", "licence")]
    rows += [(m["folder"], m["task"], f"{m['bytes'] / 2**20:.1f} MB", m["licence"]) for m in models]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _pretrained(package: str) -> list[str]:
    """Return the model directories of a package, found without importing it."""
    from glob import escape, glob

    places = (os.path.join(escape(folder), "pretrained", "*", "config.json") for folder in _package_folders(package))
    return sorted(os.path.dirname(path) for place in places for path in glob(place))


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say whether a MIDI file was made by affgen, and how. Exit code 1 if it carries no mark."
    parser.add_argument("file", metavar="FILE", help="a MIDI file, or - for standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """Print the provenance that affgen wrote into a MIDI file as text events; return 1 if there is none."""
    from affgen.score import read_midi

    if args.file != "-":
        try:
            with open(args.file, "rb") as stream:
                start = stream.read(4)
        except OSError as error:
            raise AffgenError(f"{args.file}: cannot be read ({error.strerror}); name a MIDI file") from error
        if start in (b"RIFF", b"fLaC", b"OggS"):
            raise AffgenError(f"{args.file}: this version verifies MIDI files only")
    score = read_midi(sys.stdin.buffer.read() if args.file == "-" else args.file)
    marks = [text for text in score.texts if text.startswith("affgen")]
    if args.json:
        emit_json(args, {"command": "verify", "input": args.file, "made_by_affgen": bool(marks), "provenance": marks})
    else:
        print("\n".join(marks) if marks else f"{args.file}: carries no mark of affgen")
    return 0 if marks else 1


_COMMAND_FLAGS = {"models": _models_flags, "verify": _verify_flags}
_COMMAND_HELP = {"models": "the models that come with the packages", "verify": "whether affgen made a file, and how"}
