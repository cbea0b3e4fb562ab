"""Configurations: frozen dataclasses, to and from YAML, with ``SECTION.KEY=VALUE`` changes from the command line.

A configuration is a dataclass whose fields are numbers, text, booleans, ``Literal``, ``Optional``, tuples of these, or
further such dataclasses (not tuples of dataclasses). YAML is data here: no tags, no aliases, no interpolation. What a
file leaves out keeps its default; what it names must exist and have the right type. Files first, overrides second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from affgen.errors import AffgenError
from affgen.files import atomic_write

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
ConfigT = TypeVar("ConfigT")


def load(cls: type[ConfigT], path: str | Path | None = None, overrides: Sequence[str] = ()) -> ConfigT:
    """Return ``cls`` with its defaults, changed by the YAML file ``path`` and then by ``SECTION.KEY=VALUE`` strings.

    Raises :class:`AffgenError` with the place and, for a key that does not exist, the nearest one that does.
    """
    config = from_dict(cls, {} if path is None else _read(Path(path)), where="" if path is None else str(path))
    for override in overrides:
        config = _merge(cls, to_dict(config), _parse_override(override), where=override)
    return config


def load_one(
    classes: Mapping[str, type[Any]], key: str, path: str | Path | None = None, overrides: Sequence[str] = ()
) -> Any:
    """Return that of ``classes`` which the top-level ``key`` names, the first where it is not set, as :func:`load`.

    Raises :class:`AffgenError` for another name, and as :func:`load`.
    """
    values = {} if path is None else _read(Path(path))
    for override in overrides:
        values |= {name: value for name, value in _parse_override(override).items() if name == key}
    name = str(values.get(key, next(iter(classes))))
    if name not in classes:
        raise AffgenError(f"{_at(str(path or ''))}{key}: {name[:40]!r}; accepted: {', '.join(classes)}")
    return load(classes[name], path, overrides)


def save(config: Any, path: str | Path) -> None:
    """Write every field of ``config`` to ``path`` as YAML, whole or not at all; :func:`load` gives an equal object."""
    from omegaconf import OmegaConf

    values = to_dict(config)
    _refuse_interpolation(values, str(path))
    atomic_write(path, OmegaConf.to_yaml(OmegaConf.create(values)))


def to_dict(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration as plain dictionaries and lists, as JSON and YAML have them."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{type(config).__name__} is not a configuration dataclass")
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], where: str = "") -> ConfigT:
    """Return ``cls`` with the fields in ``values`` and defaults for the rest; the inverse of :func:`to_dict`.

    ``where`` (a file name) begins the message of the :class:`AffgenError` that unknown keys, wrong types and values
    with ``${`` raise.
    """
    return _merge(cls, {}, values, where)


def _merge(cls: type[ConfigT], base: Mapping[str, Any], values: Any, where: str) -> ConfigT:
    """Return ``cls`` made of its defaults, ``base`` and ``values``, checked against its fields."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(values, Mapping):
        raise AffgenError(f"{_at(where)}is a {type(values).__name__}; accepted: KEY: VALUE lines")
    _refuse_interpolation(values, where)
    schema = OmegaConf.merge(OmegaConf.structured(cls), dict(base))
    try:
        made: Any = OmegaConf.to_object(OmegaConf.merge(schema, dict(values)))
    except (OmegaConfBaseException, TypeError) as error:
        raise AffgenError(f"{_at(where)}{_explain(schema, values, error)}") from error
    except AffgenError as error:  # the dataclass itself refused a value
        raise AffgenError(f"{_at(where)}{error}") from error
    return made


def _explain(schema: Any, values: Mapping[str, Any], error: Exception) -> str:
    """Return one line that names the key to blame: the first leaf of ``values`` that cannot be merged alone."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    for keys, value in _leaves(values):
        nested = value
        for key in reversed(keys):
            nested = {key: nested}
        name = ".".join(map(str, keys))
        try:
            OmegaConf.to_object(OmegaConf.merge(schema, nested))
        except ConfigKeyError as blamed:
            hint = str(blamed).splitlines()[0].partition("Did you mean: ")[2]
            owner = OmegaConf.select(schema, ".".join(map(str, keys[:-1]))) if len(keys) > 1 else schema
            known = ", ".join(map(str, owner)) if isinstance(owner, Mapping) or hasattr(owner, "keys") else ""
            return f"unknown key {name!r}; " + (f"did you mean {hint.strip('?')}?" if hint else f"accepted: {known}")
        except (OmegaConfBaseException, TypeError) as blamed:
            reason = str(blamed).splitlines()[0].replace("Value '$VALUE' of type '$VALUE_TYPE'", "a value")
            return f"{name} = {str(value)[:60]!r}: {reason[:200]}"
    return str(error).splitlines()[0]


def _leaves(values: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _read(path: Path) -> dict[Any, Any]:
    """Return what a YAML file holds as plain values."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AffgenError(f"{path}: {path.stat().st_size} bytes; accepted: configurations up to {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AffgenError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
    except UnicodeDecodeError as error:
        raise AffgenError(f"{path}: is not UTF-8 text; name a YAML file") from error
    return _parse(text, str(path), lambda: _create(text, str(path)))


def _create(text: str, where: str) -> Any:
    """Return a YAML document as an OmegaConf mapping."""
    import yaml
    from omegaconf import OmegaConf

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise AffgenError(f"{where}: holds a {node.id}; accepted: KEY: VALUE lines")
    return OmegaConf.create(text)


def _parse_override(text: str) -> dict[Any, Any]:
    """Return ``SECTION.KEY=VALUE`` as nested dictionaries; VALUE is read as YAML."""
    from omegaconf import OmegaConf

    name, equals, value = text.partition("=")
    if not equals or not all(name.strip().split(".")):
        raise AffgenError(f"{text[:60]!r}: is no setting; accepted: SECTION.KEY=VALUE, such as train.steps=2000")
    return _parse(value, text[:60], lambda: OmegaConf.from_dotlist([f"{name.strip()}={value.strip()}"]))


def _parse(text: str, where: str, build: Callable[[], Any]) -> dict[Any, Any]:
    """Return what ``build`` makes of YAML ``text`` after the text was found harmless, as plain values."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            _refuse_event(event, depth, where)
        values = OmegaConf.to_container(build(), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise AffgenError(f"{where}: is not usable YAML ({' '.join(str(error).split())[:160]})") from error
    return values if isinstance(values, dict) else {}


def _refuse_event(event: Any, depth: int, where: str) -> None:
    """Refuse what a configuration never needs and an attack does: aliases, tags, deep nesting."""
    import yaml

    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise AffgenError(f"{where}: line {line} has a YAML anchor or alias (& or *); write the value out")
    if "${" in getattr(event, "value", ""):
        raise AffgenError(f"{where}: line {line} refers elsewhere ({event.value[:60]!r}); write the value itself")
    if getattr(event, "tag", None):
        raise AffgenError(f"{where}: line {line} has the YAML tag {event.tag[:60]!r}; accepted: plain values")
    if depth > MAX_DEPTH:
        raise AffgenError(f"{where}: line {line} is nested more than {MAX_DEPTH} deep")


def _refuse_interpolation(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_interpolation(key, where)
            _refuse_interpolation(item, where)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_interpolation(item, where)
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise AffgenError(f"{_at(where)}the value {value[:60]!r} refers elsewhere; write the value itself")


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
