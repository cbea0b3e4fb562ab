"""Whole files or none: every output is written to a temporary sibling, flushed to disk and renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from affgen.errors import AffgenError


def require_parent(path: str | Path) -> Path:
    """Return ``path`` as a Path; raise :class:`AffgenError` if its folder does not exist or cannot be written."""
    path = Path(path)
    parent = path.absolute().parent
    if len(path.name.encode(errors="surrogateescape")) > 200:  # a temporary name beside it has to fit as well
        raise AffgenError(f"{path.name[:40]}...: the name of the file is too long; accepted: up to 200 bytes")
    if not parent.is_dir():
        raise AffgenError(f"{path}: the folder {parent} does not exist; make it first or name another output")
    if path.is_dir():
        raise AffgenError(f"{path}: is a folder; name a file")
    if not os.access(parent, os.W_OK):
        raise AffgenError(f"{path}: the folder {parent} cannot be written to")
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` (same suffix); on success fsync and rename it, on any failure remove it.

    Raises :class:`AffgenError` when the folder of ``path`` does not exist or is not writable.
    """
    path = require_parent(path)
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; platforms that cannot open a folder are left to their own habits."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
