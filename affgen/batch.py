"""One file or many: a command's input may be a file, a folder or a Kaldi ``scp`` list; then its output is a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from affgen.errors import AffgenError
from affgen.files import atomic_write

FAILED = 3
"""Exit code of a batch in which some inputs could not be used."""


def sources(path: str | Path, suffixes: tuple[str, ...]) -> dict[str, Path] | None:
    """Inputs by output name (``sub/name`` without suffix) of a folder or ``.scp`` list; None if ``path`` is a
    single input.

    Raises :class:`AffgenError` for a folder or list without usable files, and for commands in a list, which are
    not run.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        pairs = [(file.relative_to(path).with_suffix("").as_posix(), file) for file in found]
    elif path.suffix == ".scp" and path.is_file():
        pairs = []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise AffgenError(f"{path}: is not UTF-8 text; accepted: lines of a name and a path") from None
        for line in lines:
            key, _, value = line.strip().partition(" ")
            if value.strip().endswith("|"):
                raise AffgenError(f"{path}: {key} is a command; only paths are accepted here")
            if key:
                pairs.append((key.replace("/", "_"), Path(value.strip())))
    else:
        return None
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise AffgenError(f"{path}: {twice!r} comes twice; its outputs would be one file")
    if not named:
        raise AffgenError(f"{path}: holds no {' or '.join(suffixes)} file")
    return named


def run(
    inputs: Mapping[str, Path], out: str | Path, suffix: str, work: Callable[[Path, Path], object], *, overwrite: bool
) -> int:
    """Call ``work(input, output)`` for each input whose output is not there yet; 0, or 3 with ``OUT/failures.tsv``.

    The folder ``out`` is made; its parent must exist. One input that cannot be used does not stop the others.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise AffgenError(f"{out}: is a file; the output of several inputs must be a folder")
    if not out.absolute().parent.is_dir():
        raise AffgenError(f"{out}: the folder {out.absolute().parent} does not exist; make it first")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise AffgenError(f"{out}: cannot be made ({error.strerror}); name another folder") from error
    if not os.access(out, os.W_OK):
        raise AffgenError(f"{out}: cannot be written to; name another folder")
    failures = []
    for name, source in inputs.items():
        target = out / f"{name}{suffix}"
        if target.exists() and not overwrite:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            work(source, target)
        except AffgenError as error:
            failures.append("\t".join(_one_line(text) for text in (source, error)) + "\n")
            print(f"error: {_one_line(error)}", file=sys.stderr)
    report = out / "failures.tsv"
    if failures:
        atomic_write(report, "".join(failures))
        return FAILED
    report.unlink(missing_ok=True)
    return 0


def _one_line(text: object) -> str:
    """The text with control characters (a file name may hold any) made visible."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
