"""Model directories and saved tensors: safetensors and JSON only, whole files or none, checked before use.

A model directory holds::

    config.json          {"format": 1, "task", "affgen", "config": {...}, "files": {"model.safetensors": SHA-256}}
    model.safetensors    the weights; key "affgen" of its header is the same JSON without "files"
    README.md            the model card

Nothing here unpickles: a file that is not safetensors is refused from its first bytes. torch is imported inside the
functions that need it, so that :func:`describe` stays light.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from affgen import __version__
from affgen.config import ConfigT, from_dict
from affgen.errors import AffgenError, ModelError
from affgen.files import atomic_path, atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
MODEL_FILES = ("config.json", "model.safetensors", "README.md")
_CONFIG_LIMIT = 1 << 20  # bytes of config.json
_HEADER_LIMIT = 8 << 20  # bytes of a safetensors header, about 80,000 tensors
_WEIGHTS_LIMIT = 16 << 30  # bytes of any weight file
_DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]

logger = logging.getLogger(__name__)


def save_model(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str, *, task: str
) -> None:
    """Write a model directory whole or not at all; an earlier model in ``folder`` is replaced.

    ``config`` is plain JSON data, ``tensors`` are saved in the dtype they have, ``card`` is the text of README.md.
    Raises :class:`AffgenError` when ``folder`` holds anything but a model or cannot be written, and
    :class:`ModelError` for a tensor that is not finite (float16 ends at 65504).
    """
    folder = Path(folder).absolute()
    _refuse_foreign(folder)
    about = {"format": FORMAT, "task": task, "affgen": __version__, "config": dict(config)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        fresh = workshop / "new"
        fresh.mkdir()
        weights = fresh / "model.safetensors"
        write_tensors(weights, tensors, about)
        atomic_write(fresh / "README.md", card)
        about["files"] = {weights.name: _sha256(weights)}
        atomic_write(fresh / "config.json", json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        _swap(fresh, folder, workshop / "old")
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def load_model(folder: str | Path, *, task: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the tensors (on the CPU) of a model directory made for ``task``.

    Raises :class:`ModelError`, one line that names the file, for anything missing, damaged, hostile or of another
    kind: every listed file must lie inside the folder, have its listed SHA-256 and hold finite numbers.
    """
    folder = Path(folder)
    about = _read_about(folder)
    if about["task"] != task:
        raise ModelError(f"{folder / 'config.json'}: is a model for {about['task']!r}; one for {task!r} is needed")
    for name, digest in about["files"].items():
        path = _inside(folder, name)
        if _sha256(path) != digest:
            raise ModelError(f"{path}: SHA-256 differs from config.json; the file is damaged or was exchanged")
    _, tensors = read_tensors(folder / "model.safetensors")
    return about["config"], tensors


def load_configured(folder: str | Path, cls: type[ConfigT], *, task: str) -> tuple[ConfigT, dict[str, Tensor]]:
    """Like :func:`load_model`, with the config as the dataclass ``cls``; what does not fit it is a ModelError too."""
    values, tensors = load_model(folder, task=task)
    where = Path(folder) / "config.json"
    try:
        return from_dict(cls, values), tensors
    except AffgenError as error:
        raise ModelError(f"{where}: {error}") from error
    except ValueError as error:
        raise ModelError(f"{where}: {error}; the configuration does not describe a model") from error


def halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with floating-point numbers as float16, the dtype of shipped weights."""
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def describe(folder: str | Path) -> dict[str, Any]:
    """Say what a model directory holds without reading its weights, for ``affgen models``.

    Keys: ``folder``, ``task``, ``affgen`` (version that wrote it), ``config``, ``title`` (first heading of the card),
    ``parameters`` (numbers in all tensors) and ``bytes``. Raises :class:`ModelError` like :func:`load_model`.
    """
    folder = Path(folder)
    about = _read_about(folder)
    weights = _inside(folder, "model.safetensors")
    header = _read_header(weights)
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    card = _read(_inside(folder, "README.md")).decode(errors="replace")
    return {
        "folder": str(folder),
        "task": about["task"],
        "affgen": about.get("affgen", ""),
        "config": about["config"],
        "title": next((line.lstrip("# ") for line in card.splitlines() if line.startswith("# ")), ""),
        "parameters": sum(_product(shape) for shape in shapes),
        "bytes": weights.stat().st_size,
    }


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy ``tensors`` into the state of ``module``, cast to its dtypes; names and shapes must match exactly.

    Raises :class:`ModelError` that begins with ``where`` and names the first key that is missing, of another shape
    or not expected.
    """
    import torch

    state = module.state_dict()
    check_match({name: value.shape for name, value in state.items()}, tensors, where)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[name])


def check_match(shapes: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise :class:`ModelError` unless ``tensors`` has exactly the names and shapes of ``shapes``."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelError(f"{where}: tensor {name!r} {tuple(shape)} is missing; the file is of another model")
        if tuple(tensors[name].shape) != tuple(shape):
            got = tuple(tensors[name].shape)
            raise ModelError(f"{where}: tensor {name!r} has shape {got}, but the model expects {tuple(shape)}")
    for name in tensors:
        if name not in shapes:
            raise ModelError(f"{where}: tensor {name!r} is not one of the {len(shapes)} that the model expects")


# ---------------------------------------------------------------------------------------------- training state


def save_state(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``tensors`` and JSON ``meta`` to ``path``; the file that was there stays as ``NAME.previous``.

    At every moment one of the two is whole, whatever kills the process. Raises like :func:`write_tensors`.
    """
    write_tensors(path, tensors, meta, keep=previous(Path(path)))


def load_state(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return meta and tensors of :func:`save_state`; a missing or damaged file gives way to ``NAME.previous``.

    The fallback is logged as a warning and takes the place of the damaged file, so that the next save cannot push
    the good copy out. Raises :class:`ModelError` when neither can be read.
    """
    path = Path(path)
    try:
        return read_tensors(path)
    except ModelError as error:
        older = previous(path)
        if not older.exists():
            raise
        content = read_tensors(older)
        logger.warning("%s; going on from the previous state %s", error, older)
        os.replace(older, path)
        return content


def previous(path: Path) -> Path:
    """Return where :func:`save_state` keeps the file before ``path``."""
    return path.with_name(path.name + ".previous")


# ------------------------------------------------------------------------------------------- files of tensors


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, keep: Path | None = None
) -> None:
    """Write a safetensors file with ``meta`` as JSON under the header key "affgen"; equal input gives equal bytes.

    With ``keep`` the file that was at ``path`` moves there once the new one is written in full. Raises
    :class:`ModelError` for a tensor that is not finite, :class:`AffgenError` when the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # A copy of each: safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    _require_finite(copies, path)
    header = {"affgen": json.dumps(meta, allow_nan=False, separators=(",", ":"))}
    try:
        with atomic_path(path) as temporary:
            save_file(copies, temporary, metadata=header)
            if keep is not None and Path(path).exists():
                os.replace(path, keep)
    except (OSError, SafetensorError) as error:
        raise AffgenError(f"{path}: cannot be written: {_line(error)}") from error


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return meta and tensors (on the CPU) of a file of :func:`write_tensors`; :class:`ModelError` if damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    metadata = _read_header(path).get("__metadata__", {})
    meta = _json_object(str(metadata.get("affgen", "{}")), f"{path}: its header")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path}: is damaged or not a safetensors file: {_line(error)}") from error
    _require_finite(tensors, path)
    return meta, tensors


def _require_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"{path}: tensor {name!r} holds values that are not finite")


def _read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file, its form checked before any library sees the file."""
    try:
        size = _regular(path).stat().st_size
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if length <= min(size, _HEADER_LIMIT) else b""
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {_line(error)}") from error
    if size > _WEIGHTS_LIMIT:
        raise ModelError(f"{path}: {size} bytes; at most {_WEIGHTS_LIMIT} are accepted")
    if not text.startswith(b"{"):
        raise ModelError(f"{path}: is not a safetensors file, is cut short or has a header over {_HEADER_LIMIT} bytes")
    header = _json_object(text, f"{path}: its header")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(entry, f"{path}: tensor {name!r}")
    if not isinstance(header.get("__metadata__", {}), dict):
        raise ModelError(f"{path}: its header's __metadata__ is not a JSON object")
    return header


def _check_entry(entry: Any, where: str) -> None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ModelError(f"{where} has no valid shape in the header")
    if entry.get("dtype") not in _DTYPES:
        raise ModelError(f"{where} has dtype {str(entry.get('dtype'))[:20]!r}; accepted: {' '.join(_DTYPES)}")


# ------------------------------------------------------------------------------------------ the model directory


def _read_about(folder: Path) -> dict[str, Any]:
    """Return config.json, its form checked: format, task, config and a list of files that may be opened."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: is not a folder; a model directory holds {', '.join(MODEL_FILES)}")
    path = _inside(folder, "config.json")
    if path.stat().st_size > _CONFIG_LIMIT:
        raise ModelError(f"{path}: {path.stat().st_size} bytes; at most {_CONFIG_LIMIT} are accepted")
    about = _json_object(_read(path), str(path))
    if about.get("format") != FORMAT:
        raise ModelError(f'{path}: "format" is {str(about.get("format"))[:20]!r}; this version reads {FORMAT}')
    if not isinstance(about.get("task"), str) or not isinstance(about.get("config"), dict):
        raise ModelError(f'{path}: needs "task" (text) and "config" (an object)')
    files = about.get("files")
    if not isinstance(files, dict) or "model.safetensors" not in files or len(files) > 64:
        raise ModelError(f'{path}: "files" must list model.safetensors and its SHA-256, and at most 64 files')
    for name, digest in files.items():
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ModelError(f'{path}: "files" gives no SHA-256 for {name[:80]!r}')
        _inside(folder, name)
    return about


def _inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``: an existing regular file whose real place is in the folder; ModelError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        raise ModelError(f"{folder / 'config.json'}: {name[:80]!r} is no file name; letters, digits, '_', '-', '.' are")
    path = folder / name
    try:
        if path.is_symlink() and path.resolve(strict=True).parent != folder.resolve():
            raise ModelError(f"{path}: is a link that leads out of the model directory")
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: is a link that leads nowhere") from error
    return _regular(path)


def _regular(path: Path) -> Path:
    if not path.exists():
        raise ModelError(f"{path}: does not exist")
    if not path.is_file():  # a folder, a device or a pipe that would never end
        raise ModelError(f"{path}: is not a regular file")
    return path


def _refuse_foreign(folder: Path) -> None:
    """Raise :class:`AffgenError` if replacing ``folder`` would delete something that is not a model."""
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in MODEL_FILES)
        if foreign:
            raise AffgenError(
                f"{folder}: holds {foreign[0]!r}, which is no part of a model; name a new or empty folder"
            )
    elif folder.exists():
        raise AffgenError(f"{folder}: is a file; a model is saved to a folder")


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``folder``, which moves to ``old`` and comes back if that fails."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    os.rename(folder, old)
    try:
        os.rename(fresh, folder)
    except OSError:
        os.rename(old, folder)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {_line(error)}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {_line(error)}") from error
    return digest.hexdigest()


def _json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse strict JSON (no NaN, no endless nesting) that must be an object."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: is not valid JSON: {_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{where}: is a JSON {type(value).__name__}; an object is needed")
    return value


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _line(error: BaseException) -> str:
    """Return the message of ``error`` as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
