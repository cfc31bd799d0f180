"""The part of JSON Schema (draft 2020-12) that bodies and command parameters are described with.

Every keyword here means what it means there, so published schemas work in any validator; a keyword that is
not here is refused when the schema is made, so none is passed over. Three things are narrower than the draft:
an integer is written without fraction and exponent (1.0 is none), `enum` and `const` hold no lists or
objects, and a `pattern` is anchored and bounded (see Pattern).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from device_protocol.errors import DeviceProtocolError

DEPTH_MAX: Final = 16
"""Schemas in schemas: one that is deeper describes what strict_json would not take."""
KEYWORDS: Final = frozenset(
    {
        "type", "enum", "const", "anyOf",
        "minimum", "maximum",
        "minLength", "maxLength", "pattern",
        "items", "minItems", "maxItems",
        "properties", "required", "additionalProperties", "propertyNames", "maxProperties",
    }
)  # fmt: skip
ANNOTATIONS: Final = frozenset({"$schema", "$id", "title", "description", "default", "examples"})
"""Say nothing about what is valid."""
PATTERN_STEPS_MAX: Final = 65_536
"""Ways in which a pattern's quantifiers may share out a text: what a hostile text may cost. About 1 ms."""
NAMES_KEPT: Final = 1024
"""Members' names that a schema need not look at again; of at most so many characters:"""
NAME_KEPT_MAX: Final = 64

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
_ANOTHER_TYPE: Final = "of another type"
_ANOTHER_FORM: Final = "not of the form it must have"
_SCALARS: Final = (str, int, float, bool, type(None))
# One character or set of them, as Python and ECMA-262 read it alike, and how often it stands.
_ATOM: Final = re.compile(
    r"(?:\[\^?(?:[^\\\[\]]|\\[^a-zA-Z0-9])+\]|\\[^a-zA-Z0-9]|[^\\\[\](){}|*+?^$.])"
    r"(?P<often>\?|\{(?P<least>[0-9]{1,4})(?:,(?P<most>[0-9]{1,4}))?\})?",
    re.DOTALL,
)
_SET_OPERATIONS: Final = ("--", "&&", "||", "~~")  # what Python may come to read as such in a set

Check = Callable[[Any], str | None]


class SchemaError(DeviceProtocolError, ValueError):
    """Not a schema of this kind."""


class Schema:
    """A description of a value, ready to check many: a message's body is checked twice on its way."""

    __slots__ = ("fault", "types")

    def __init__(self, source: object, *, depth: int = 0) -> None:
        """`source`: as JSON has it. SchemaError."""
        if not isinstance(source, dict):
            raise SchemaError("a schema is an object")
        if depth > DEPTH_MAX:
            raise SchemaError(f"schemas more than {DEPTH_MAX} levels deep")
        unknown = set(source) - KEYWORDS - ANNOTATIONS
        if unknown:
            raise SchemaError(f"no such keyword here: {min(unknown)}")
        self.types = _types(source["type"]) if "type" in source else None
        """What a value may be of; None: anything."""
        checks = [
            _values("const", [source["const"]]) if "const" in source else None,
            _values("enum", source["enum"]) if "enum" in source else None,
            _any_of(source["anyOf"], depth) if "anyOf" in source else None,
            _limits(source),
            _lengths(source),
            _list(source, depth),
            _object(source, depth),
        ]
        self.fault: Final = _all_of(self.types, [check for check in checks if check is not None])
        """What is wrong with a value, in the schema's words and never in the value's; None: nothing."""


class Pattern:
    """`^…$` over characters and sets of them, each with at most `?`, `{n}` or `{m,n}`; no groups, `|`, `*`.

    Anchored, since one that was forgotten lets everything pass; bounded, since a backtracking engine may take
    for ever on others, and whoever describes a device type would have the gateway's CPU.
    """

    __slots__ = ("_match",)

    def __init__(self, source: object) -> None:
        if not isinstance(source, str) or not (source.startswith("^") and source.endswith("$")):
            raise SchemaError("pattern: must begin with ^ and end with $")
        inner = source[1:-1]
        at, steps = 0, 1
        while at < len(inner):
            atom = _ATOM.match(inner, at)
            if atom is None or any(operation in atom.group() for operation in _SET_OPERATIONS):
                raise SchemaError("pattern: only characters, sets, ?, {n} and {m,n}")
            steps *= _ways(atom)
            at = atom.end()
        if steps > PATTERN_STEPS_MAX:
            raise SchemaError("pattern: its quantifiers allow too many ways")
        try:
            self._match = re.compile(inner, re.DOTALL).fullmatch
        except re.error:
            raise SchemaError("pattern: cannot be read") from None

    def matches(self, text: str) -> bool:
        """The whole of it."""
        return self._match(text) is not None


def _all_of(types: frozenset[type] | None, checks: Sequence[Check]) -> Check:
    """One function for them, as short as they allow: most schemas have one check or none."""
    if types is None and len(checks) == 1:
        return checks[0]
    first = checks[0] if len(checks) == 1 else None

    def typed(value: Any) -> str | None:
        return None if types is None or type(value) in types else _ANOTHER_TYPE

    def typed_and_one(value: Any) -> str | None:
        if types is not None and type(value) not in types:
            return _ANOTHER_TYPE
        return first(value) if first is not None else None

    def typed_and_more(value: Any) -> str | None:
        if types is not None and type(value) not in types:
            return _ANOTHER_TYPE
        for check in checks:
            fault = check(value)
            if fault is not None:
                return fault
        return None

    if not checks:
        return typed
    return typed_and_more if first is None else typed_and_one


def _ways(atom: re.Match[str]) -> int:
    if atom["often"] == "?":
        return 2
    if atom["most"] is None:
        return 1
    ways = int(atom["most"]) - int(atom["least"]) + 1
    if ways < 1:
        raise SchemaError("pattern: {m,n} with n below m")
    return ways


def _types(source: object) -> frozenset[type]:
    names = source if isinstance(source, list) else [source]
    if not names:
        raise SchemaError("type: none")
    kinds: set[type] = set()
    for name in names:
        if not isinstance(name, str) or name not in _TYPES:
            raise SchemaError("type: no such type")
        kinds.update(_TYPES[name])
    return frozenset(kinds)


def _values(name: str, allowed: object) -> Check:
    """const, enum."""
    if not isinstance(allowed, list) or not all(isinstance(value, _SCALARS) for value in allowed):
        raise SchemaError(f"{name}: only strings, numbers, booleans and null")
    known = frozenset((type(value), value) for value in allowed)  # 1 is not True

    def check(value: Any) -> str | None:
        if isinstance(value, _SCALARS) and (type(value), value) in known:
            return None
        return "none of the values it may be"

    return check


def _any_of(source: object, depth: int) -> Check:
    if not isinstance(source, list) or not source:
        raise SchemaError("anyOf: a list of schemas")
    ways = [Schema(way, depth=depth + 1) for way in source]
    kinds = {kind for some in _TYPES.values() for kind in some}
    of_kind = {kind: [way.fault for way in ways if way.types is None or kind in way.types] for kind in kinds}

    def check(value: Any) -> str | None:
        for fault in of_kind.get(type(value), ()):
            if fault(value) is None:
                return None
        return "none of the forms it may have"

    return check


def _limits(source: Mapping[str, Any]) -> Check | None:
    """minimum, maximum."""
    least, most = (_amount(source, name) for name in ("minimum", "maximum"))
    if least is None and most is None:
        return None

    def check(value: Any) -> str | None:
        if type(value) is not int and type(value) is not float:
            return None
        if least is not None and value < least:
            return f"below {least}"
        if most is not None and value > most:
            return f"above {most}"
        return None

    return check


def _lengths(source: Mapping[str, Any]) -> Check | None:
    """minLength, maxLength, pattern."""
    least, most = _count(source, "minLength"), _count(source, "maxLength")
    pattern = Pattern(source["pattern"]) if "pattern" in source else None
    if least is None and most is None and pattern is None:
        return None

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return None
        fault = _size(len(value), least, most, "characters")
        if fault is None and pattern is not None and not pattern.matches(value):
            return _ANOTHER_FORM
        return fault

    return check


def _list(source: Mapping[str, Any], depth: int) -> Check | None:
    """items, minItems, maxItems."""
    least, most = _count(source, "minItems"), _count(source, "maxItems")
    items = Schema(source["items"], depth=depth + 1) if "items" in source else None
    if least is None and most is None and items is None:
        return None

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return None
        fault = _size(len(value), least, most, "items")
        if fault is not None or items is None:
            return fault
        for item in value:
            fault = items.fault(item)
            if fault is not None:
                return f"an item: {fault}"
        return None

    return check


def _object(source: Mapping[str, Any], depth: int) -> Check | None:
    """properties, required, additionalProperties, propertyNames, maxProperties."""
    most = _count(source, "maxProperties")
    known = _members(source, depth)
    required = _required(source)
    others = _others(source, depth)
    names = Schema(source["propertyNames"], depth=depth + 1) if "propertyNames" in source else None
    if most is None and not known and not required and others is None and names is None:
        return None

    faults = {name: schema.fault for name, schema in known.items()}
    good_names: set[str] = set()  # devices use the same few again and again

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return None
        if most is not None and len(value) > most:
            return f"more than {most} members"
        for name in required:
            if name not in value:
                return f"{name}: missing"
        for name, member in value.items():
            if names is not None and name not in good_names:
                if names.fault(name) is not None:
                    return f"a member's name: {_ANOTHER_FORM}"
                if len(good_names) < NAMES_KEPT and len(name) <= NAME_KEPT_MAX:
                    good_names.add(name)
            check_member = faults.get(name, others)
            fault = None if check_member is None else check_member(member)
            if fault is not None:
                return f"{name if name in faults else 'a member'}: {fault}"
        return None

    return check


def _members(source: Mapping[str, Any], depth: int) -> dict[str, Schema]:
    members = source.get("properties", {})
    if not isinstance(members, dict):
        raise SchemaError("properties: an object of schemas")
    return {name: Schema(member, depth=depth + 1) for name, member in members.items()}


def _required(source: Mapping[str, Any]) -> tuple[str, ...]:
    required = source.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaError("required: a list of names")
    return tuple(required)


def _others(source: Mapping[str, Any], depth: int) -> Check | None:
    others = source.get("additionalProperties", True)
    if others is True:
        return None
    if others is False:
        return lambda _value: "not one that there may be"
    return Schema(others, depth=depth + 1).fault


def _size(size: int, least: int | None, most: int | None, what: str) -> str | None:
    if least is not None and size < least:
        return f"fewer than {least} {what}"
    if most is not None and size > most:
        return f"more than {most} {what}"
    return None


def _count(source: Mapping[str, Any], name: str) -> int | None:
    if name not in source:
        return None
    value = source[name]
    if type(value) is not int or value < 0:
        raise SchemaError(f"{name}: no count")
    return value


def _amount(source: Mapping[str, Any], name: str) -> float | None:
    if name not in source:
        return None
    value: float = source[name]
    if type(value) not in _TYPES["number"]:
        raise SchemaError(f"{name}: no number")
    return value
