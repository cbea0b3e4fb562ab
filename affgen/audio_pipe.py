"""Commands of a ``wav.scp`` (``sph2pipe -f wav a.sph |``): run without a shell, with limits, their output a file."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

from affgen.audio_read import spooled
from affgen.errors import AffgenError

TIMEOUT_S = 300.0
OPERATORS = frozenset("();<>|&")


@contextmanager
def piped(value: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[tuple[IO[bytes], str]]:
    """Yield what the command ``value`` (programs joined and ended by ``|``) writes, as a file, and its name in errors.

    The programs are started as they stand, words split and quotes removed as in a shell, but no shell sees them: no
    variables, wildcards or redirections. Raises :class:`AffgenError` with the exit code and the last line of standard
    error of the first program that fails, and for one that takes longer than ``timeout_s``, writes more than
    :data:`affgen.audio_read.MAX_BYTES` or no sound.
    """
    name = value if len(value) <= 120 else f"{value[:117]}..."
    with ExitStack() as stack:
        programs = _started(_split(value, name), name, stack)
        late = threading.Event()
        timer = threading.Timer(timeout_s, _end, (late, programs))
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        output = programs[-1].process.stdout
        file = stack.enter_context(spooled(lambda: output.read(1 << 16) if output else b"", name))
        codes = [program.process.wait() for program in programs]
        if late.is_set():
            raise AffgenError(f"{name}: took longer than {timeout_s:g} s; accepted: a command that ends sooner")
        _check(codes, programs, name)
        if not file.seek(0, os.SEEK_END):
            raise AffgenError(f"{name}: wrote nothing; accepted: a command that writes a sound file")
        yield file, name


class _Program(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


def _split(value: str, name: str) -> list[list[str]]:
    lexer = shlex.shlex(value.strip(), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise AffgenError(f"{name}: cannot be split into words ({error}); accepted: 'program argument ... |'") from None
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        elif word and set(word) <= OPERATORS:
            raise AffgenError(f"{name}: uses {word!r} of the shell; accepted: programs and arguments joined by |")
        else:
            commands[-1].append(word)
    if commands.pop() or not commands or not all(commands):
        raise AffgenError(f"{name}: is no command; accepted: 'program argument ... |'")
    return commands


def _started(commands: list[list[str]], name: str, stack: ExitStack) -> list[_Program]:
    """Start every program with the output of the one before as its input; ``stack`` ends them, whatever happens."""
    programs: list[_Program] = []
    stack.callback(_reap, programs)
    for words in commands:
        before = programs[-1].process.stdout if programs else None
        errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115, the stack closes it
        try:
            process = subprocess.Popen(
                words,
                stdin=before or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AffgenError(f"{name}: {words[0]!r} cannot be started ({reason}); install it") from None
        programs.append(_Program(words[0], process, errors))
        if before:
            before.close()  # only the next program reads it, and is told when nobody does
    return programs


def _check(codes: list[int], programs: list[_Program], name: str) -> None:
    """Raise for the first program that failed; one whose reader had enough (``SIGPIPE``) has not."""
    for index, (code, program) in enumerate(zip(codes, programs, strict=True)):
        if code == 0 or (code == -signal.SIGPIPE and index + 1 < len(codes)):
            continue
        program.errors.seek(max(0, program.errors.seek(0, os.SEEK_END) - 4096))
        lines = program.errors.read().decode(errors="replace").split("\n")
        last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "nothing on standard error")
        raise AffgenError(f"{name}: {program.name!r} failed with exit code {code} ({last[:200]}); run it by hand")


def _end(late: threading.Event, programs: list[_Program]) -> None:
    late.set()
    _kill(programs)


def _kill(programs: list[_Program]) -> None:
    for program in programs:
        if program.process.poll() is None:
            try:
                os.killpg(program.process.pid, signal.SIGKILL)  # the process leads its own session
            except (ProcessLookupError, PermissionError):
                continue


def _reap(programs: list[_Program]) -> None:
    _kill(programs)
    for program in programs:
        program.process.wait()
        if program.process.stdout:
            program.process.stdout.close()
