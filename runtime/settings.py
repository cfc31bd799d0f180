"""A TOML file to one frozen dataclass, checked whole before anything starts.

A service declares its settings once::

    @dataclass(frozen=True)
    class Settings:
        listen: str = setting("Address of the public listener, host:port.", check=is_address)
        max_streams: int = setting("Streams of one tunnel.", default=256, check=between(1, 4096))

Types: str, int, float, bool, Path (relative paths start at the file's folder), Literal, tuple[T, ...],
dict[str, T], nested dataclasses, and X | None. Every mistake is a SettingsError that
names the field and the file.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

T = TypeVar("T")
# Returns what is required ("must be 1..4096") when the value is wrong, None when it is right.
Check = Callable[[Any], str | None]

_SCALARS: dict[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class SettingsError(Exception):
    """A settings file that cannot be used; the text names the field, what is wrong, and the file."""


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """One setting for the documents: dotted name, type and default as text (default None: required)."""

    name: str
    type: str
    default: str | None
    doc: str


def setting(
    doc: str, *, default: Any = MISSING, default_factory: Any = MISSING, check: Check | None = None
) -> Any:
    """Declare one field of a settings dataclass; ``check`` returns the requirement a wrong value breaks."""
    metadata = {"doc": doc, "check": check}
    if default is not MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(metadata=metadata)


def between(low: float, high: float) -> Check:
    """Check: a number from ``low`` to ``high``, both included."""
    return lambda value: None if low <= value <= high else f"must be {low}..{high}"


def not_empty(value: Any) -> str | None:
    """Check: a text, list or table that holds something."""
    return None if value else "must not be empty"


def readable_file(value: Path) -> str | None:
    """Check: a file that this process can read now."""
    return None if value.is_file() and os.access(value, os.R_OK) else "must be a readable file"


def load(cls: type[T], path: Path, *, section: str | None = None) -> T:
    """Read ``path`` (or its table ``section``) into ``cls``; SettingsError for any mistake."""
    try:
        table: Any = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"cannot read settings: {reason} (file {path})") from error
    if section is not None:
        table = table.get(section, {})
    return _Reader(path).dataclass_from(cls, table, section or "")


def read_secret(path: Path, name: str) -> str:
    """The file's one line; SettingsError names the setting (never the content)."""
    try:
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise SettingsError(f"{name}: {path}: {reason}") from error
    if not secret:
        raise SettingsError(f"{name}: {path}: is empty")
    return secret


def from_table(cls: type[T], table: Mapping[str, Any], *, source: Path) -> T:
    """Like ``load`` for a table in memory; ``source`` is named in errors and starts relative paths."""
    return _Reader(source).dataclass_from(cls, table, "")


def describe(cls: type, prefix: str = "") -> list[FieldDoc]:
    """Every setting of ``cls`` and of its nested tables, in the order they are declared."""
    found: list[FieldDoc] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        kind = hints[field.name]
        found.append(
            FieldDoc(name, _type_text(kind), _default_text(field, kind), field.metadata.get("doc", ""))
        )
        nested, inner_prefix = _nested_dataclass(kind, name)
        if nested is not None:
            found.extend(describe(nested, inner_prefix))
    return found


class _Reader:
    """Turns TOML values into typed ones; knows the file for paths and errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrong(self, name: str, problem: str) -> SettingsError:
        return SettingsError(f"{name}: {problem} (file {self._path})")

    def dataclass_from(self, cls: type[T], table: Any, name: str) -> T:
        if not isinstance(table, Mapping):
            raise self.wrong(name, f"must be a table, not {_shown(table)}")
        prefix = f"{name}." if name else ""
        fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
        for key in table:
            if key not in fields:
                raise self.wrong(f"{prefix}{key}", "unknown setting")
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in table:
                values[key] = self.value(
                    hints[key], table[key], f"{prefix}{key}", field.metadata.get("check")
                )
            elif field.default is MISSING and field.default_factory is MISSING:
                # A nested table that is left out may still be complete by its own defaults.
                if not dataclasses.is_dataclass(hints[key]):
                    raise self.wrong(f"{prefix}{key}", "missing")
                values[key] = self.value(hints[key], {}, f"{prefix}{key}", None)
        try:
            return cls(**values)
        except ValueError as error:  # a dataclass's own rule over several fields
            raise self.wrong(name or "settings", str(error)) from error

    def value(self, kind: Any, raw: Any, name: str, check: Check | None) -> Any:
        value = self._typed(kind, raw, name)
        problem = check(value) if check is not None and value is not None else None
        if problem is not None:
            raise self.wrong(name, f"{problem}, not {_shown(raw)}")
        return value

    def _typed(self, kind: Any, raw: Any, name: str) -> Any:
        origin = typing.get_origin(kind)
        if origin in (Union, types.UnionType):
            return self._typed(_without_none(kind), raw, name)
        if origin is Literal:
            return self._literal(kind, raw, name)
        if origin is tuple:
            if not isinstance(raw, list):
                raise self.wrong(name, f"must be a list, not {_shown(raw)}")
            item = typing.get_args(kind)[0]
            return tuple(self._typed(item, entry, f"{name}[{index}]") for index, entry in enumerate(raw))
        if origin is dict:
            if not isinstance(raw, Mapping):
                raise self.wrong(name, f"must be a table, not {_shown(raw)}")
            item = typing.get_args(kind)[1]
            return {key: self._typed(item, entry, f"{name}.{key}") for key, entry in raw.items()}
        if dataclasses.is_dataclass(kind):
            return self.dataclass_from(cast("type[Any]", kind), raw, name)
        if kind is Path:
            return self._path.parent / self._scalar(str, raw, name)
        return self._scalar(kind, raw, name)

    def _literal(self, kind: Any, raw: Any, name: str) -> Any:
        allowed = typing.get_args(kind)
        if raw not in allowed:
            raise self.wrong(name, f"must be one of {', '.join(map(str, allowed))}, not {_shown(raw)}")
        return raw

    def _scalar(self, kind: Any, raw: Any, name: str) -> Any:
        if kind not in _SCALARS:
            raise TypeError(f"settings field {name} has the unsupported type {kind}")
        if kind is float and type(raw) is int:
            return float(raw)
        if type(raw) is not kind:  # exact: TOML's true is no number
            raise self.wrong(name, f"must be {_SCALARS[kind]}, not {_shown(raw)}")
        return raw


def _without_none(kind: Any) -> Any:
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    if len(members) != 1:
        raise TypeError(f"settings support X | None only, not {kind}")
    return members[0]


def _shown(raw: Any, limit: int = 80) -> str:
    text = repr(raw)
    return text if len(text) <= limit else text[:limit] + "…"


def _type_text(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return f"{_type_text(_without_none(kind))}, optional"
    if origin is Literal:
        return " or ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if origin is tuple:
        return f"list of {_type_text(typing.get_args(kind)[0])}"
    if origin is dict:
        return f"table of {_type_text(typing.get_args(kind)[1])}"
    if dataclasses.is_dataclass(kind):
        return "table"
    return (
        "path" if kind is Path else {str: "text", int: "integer", float: "number", bool: "true/false"}[kind]
    )


def _default_text(field: dataclasses.Field[Any], kind: Any) -> str | None:
    nested, _ = _nested_dataclass(kind, "")
    if nested is not None:
        return "see below"
    if field.default is not MISSING:
        return _toml_text(field.default)
    if field.default_factory is not MISSING:
        return _toml_text(field.default_factory())
    return None


def _toml_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_text(item) for item in value) + "]"
    if isinstance(value, str | Path):
        return f'"{value}"'
    return str(value)


def _nested_dataclass(kind: Any, name: str) -> tuple[type | None, str]:
    """The dataclass inside ``kind`` and the prefix of its fields' names, or (None, "")."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _nested_dataclass(_without_none(kind), name)
    if dataclasses.is_dataclass(kind):
        return cast(type, kind), f"{name}."
    if origin is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]):
        return cast(type, typing.get_args(kind)[1]), f"{name}.NAME."
    if origin is tuple and dataclasses.is_dataclass(typing.get_args(kind)[0]):
        return cast(type, typing.get_args(kind)[0]), f"{name}[]."
    return None, ""
