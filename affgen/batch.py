"""One file or many: a command's input may be a file, a folder or a Kaldi ``scp`` list; then its output is a folder."""

from __future__ import annotations

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
        named = {file.relative_to(path).with_suffix("").as_posix(): file for file in found}
    elif path.suffix == ".scp" and path.is_file():
        named = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.strip().partition(" ")
            if value.strip().endswith("|"):
                raise AffgenError(f"{path}: {key} is a command; only paths are accepted here")
            if key:
                named[key.replace("/", "_")] = Path(value.strip())
    else:
        return None
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
    out.mkdir(exist_ok=True)
    failures = []
    for name, source in inputs.items():
        target = out / f"{name}{suffix}"
        if target.exists() and not overwrite:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            work(source, target)
        except AffgenError as error:
            failures.append(f"{source}\t{error}\n")
            print(f"error: {error}", file=sys.stderr)
    report = out / "failures.tsv"
    if failures:
        atomic_write(report, "".join(failures))
        return FAILED
    report.unlink(missing_ok=True)
    return 0
