"""Bodies that a route must refuse, made from the model that it declares."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi.routing import APIRoute
from pydantic import TypeAdapter

# One of each of JSON's kinds.
KINDS: Final[Mapping[str, Any]] = {
    "string": "x",
    "integer": 7,
    "number": 7.5,
    "boolean": True,
    "null": None,
    "array": [],
    "object": {},
}
DEEP: Final = b'{"name":' + b"[" * 40 + b"]" * 40 + b"}"
LATIN_1: Final = '{"name": "ü"}'.encode("latin-1")
TWICE: Final = b'{"name": "x", "name": "y"}'


@dataclass(frozen=True)
class Spoilt:
    """One body that is wrong in one way. `field`: what the answer must name; None: it need name none."""

    what: str
    body: Any
    field: str | None = None

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode()


Schema = dict[str, Any]


def schema_of(route: APIRoute) -> Schema | None:
    """Of the route's body, with its `$defs`; None: it declares no body."""
    if route.body_field is None:
        return None
    declared: Any = route.body_field.field_info.annotation
    return TypeAdapter(declared).json_schema()


NOBODYS_UUID = "00000000-0000-4000-8000-000000000000"


def fitting(schema: Schema) -> Any:
    """The least that the schema takes. Patterns are not followed: who needs one gives a body of their own."""
    return _least(schema, schema.get("$defs", {}))


def spoilt(schema: Schema, fits: Any, *, strict: bool = True) -> Iterator[Spoilt]:
    """`fits` spoilt in each way that the schema forbids. `strict`: no kind is taken for another, and members
    that the schema does not know are refused.
    """
    defs = schema.get("$defs", {})
    kinds = _kinds(schema, defs)
    for kind, value in KINDS.items():
        if kind != "object" and kind not in kinds:
            yield Spoilt(f"{kind} as the body", value, "body")
    if strict:
        yield Spoilt("an unknown member", {**fits, "nmae": "x"}, "nmae")
    for path, body in _members(schema, fits, defs):
        yield from _spoilt_member(fits, path, body, defs, strict=strict)


def _spoilt_member(
    fits: Any, path: tuple[str | int, ...], schema: Schema, defs: Schema, *, strict: bool
) -> Iterator[Spoilt]:
    field, kinds = ".".join(str(part) for part in path), _kinds(schema, defs)
    for kind, value in KINDS.items():
        numeric = not strict and kind == "boolean" and kinds & {"integer", "number"}
        if kind not in kinds and not numeric and not (kind == "integer" and "number" in kinds):
            yield Spoilt(f"{field}: {kind}", _put(fits, path, value), field)
    if "string" in kinds:
        # Where it is a secret it is one that nobody has: refused, but not as a wrong field.
        yield Spoilt(f"{field}: NUL", _put(fits, path, "a\x00b"))
        yield Spoilt(f"{field}: half a character", _put(fits, path, "\ud800"))


def missing(schema: Schema, fits: Any) -> Iterator[Spoilt]:
    """`fits` without each member that must be there."""
    for path in _required(schema, fits, schema.get("$defs", {})):
        less = copy.deepcopy(fits)
        inner = less
        for part in path[:-1]:
            inner = inner[part]
        del inner[path[-1]]
        yield Spoilt(f"without {path}", less, ".".join(str(part) for part in path))


def _resolved(node: Schema, defs: Schema) -> list[Schema]:
    """The plain schemas that `node` may be."""
    if "$ref" in node:
        return _resolved(defs[node["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in node:
        return [one for part in node["anyOf"] for one in _resolved(part, defs)]
    return [node]


def _kinds(node: Schema, defs: Schema) -> set[str]:
    return {str(one.get("type", "string")) for one in _resolved(node, defs)}


def _object(node: Schema, defs: Schema) -> Schema | None:
    return next((one for one in _resolved(node, defs) if one.get("type") == "object"), None)


def _least(node: Schema, defs: Schema) -> Any:
    first = _resolved(node, defs)[0]
    if "const" in first or "enum" in first:
        return first.get("const", first.get("enum", [None])[0])
    kind = first["type"]
    if kind == "object":
        return {name: _least(first["properties"][name], defs) for name in first.get("required", ())}
    if kind == "array":
        return [_least(first["items"], defs)] * first.get("minItems", 0)
    if first.get("format") == "uuid":
        return NOBODYS_UUID
    return "x" * max(1, first.get("minLength", 1)) if kind == "string" else KINDS[kind]


def _members(
    node: Schema, value: Any, defs: Schema, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Schema]]:
    """Every member of the schema, also in the first item of each list that `value` has."""
    for one in _resolved(node, defs):
        if one.get("type") == "object":
            for name, inner in one.get("properties", {}).items():
                there = (*path, name)
                yield there, inner
                if isinstance(value, dict) and value.get(name):
                    yield from _members(inner, value[name], defs, there)
        elif one.get("type") == "array" and isinstance(value, list) and value:
            there = (*path, 0)
            yield there, one["items"]
            yield from _members(one["items"], value[0], defs, there)


def _required(
    node: Schema, value: Any, defs: Schema, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    whole = _object(node, defs)
    if whole is not None:
        yield from ((*path, name) for name in whole.get("required", ()))
    for there, inner in _members(node, value, defs, path):
        found = _object(inner, defs)
        if found is not None and len(there) > len(path):
            yield from ((*there, name) for name in found.get("required", ()))


def _put(fits: Any, path: tuple[str | int, ...], value: Any) -> Any:
    made = copy.deepcopy(fits)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return made
