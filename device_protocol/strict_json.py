"""JSON of which all parsers make the same, and every database row can be made: RFC 8259 and no more.

Parsers differ in what they make of a member that is there twice, of bytes that are no UTF-8, of NaN, 1e400, a
NUL or half a surrogate pair. Here nothing of that gets as far as a parser that would choose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

DEPTH_MAX: Final = 16
"""Levels of lists and objects: bodies here are flat, and a deep one costs its readers their stack."""

# A string runs to the end of the text when it is not closed: each character is looked at once.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_DOUBLE_DIGITS: Final = 308  # an integer of more may be beyond the largest double
_SURROGATES_FROM, _SURROGATES_TO = "\ud800", "\udfff"


class Fault(Enum):
    """What is wrong with the text."""

    NO_UTF8 = "no_utf8"
    NO_JSON = "no_json"
    TWICE = "twice"
    """A member is in its object twice."""
    TOO_DEEP = "too_deep"
    ODD_TEXT = "odd_text"
    """A string holds what no text column takes."""


class StrictJsonError(ValueError):
    """Not JSON of this kind. `member`: the name that is there twice, or where the odd text is: `a.0.b`."""

    def __init__(self, fault: Fault, detail: str, member: str | None = None) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.member = member


def loads(raw: bytes, *, odd_text: re.Pattern[str] | None = None) -> Any:
    """The value; StrictJsonError. `odd_text`: members (`a.0.b`) whose text may be odd."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise StrictJsonError(Fault.NO_UTF8, "not UTF-8") from None
    if text.count("{") + text.count("[") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise StrictJsonError(Fault.TOO_DEEP, f"more than {DEPTH_MAX} levels deep")
    try:
        value = _decoded(text)
    except StrictJsonError:
        raise
    except ValueError:
        raise StrictJsonError(Fault.NO_JSON, "it cannot be parsed") from None
    if "\\u" in text:
        _no_odd_text(value, odd_text)
    return value


def dumps(value: Any) -> bytes:
    """Compact, in UTF-8, members in the order given. ValueError for NaN, infinity, half a surrogate pair."""
    return _ENCODER.encode(value).encode("utf-8")


def _decoded(text: str) -> Any:
    """As the decoder's own `decode`, which looks twice for white space that is hardly ever there."""
    try:
        value, end = _SCAN(text, 0)
    except StopIteration:  # it does not begin with a value
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise StrictJsonError(Fault.TWICE, "a member is there twice", twice)
    return made


def _no_constant(word: str) -> None:
    raise StrictJsonError(Fault.NO_JSON, f"{word} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value - value == 0.0:
        return value
    # Infinite: what 1e400 is read as.
    raise StrictJsonError(Fault.NO_JSON, "a number beyond the largest double")


def _integer(digits: str) -> int:
    if len(digits) > _DOUBLE_DIGITS:
        raise StrictJsonError(Fault.NO_JSON, "a number beyond the largest double")
    return int(digits)


# strict=True: no raw control characters in strings.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_each_once,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_integer,
    strict=True,
)
_SCAN: Final[Callable[[str, int], tuple[Any, int]]] = vars(_DECODER)["scan_once"]  # not in its stubs
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _depth(text: str) -> int:
    """How deep it nests, brackets in strings apart."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        character = found.group()[0]
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_odd_text(value: Any, free: re.Pattern[str] | None) -> None:
    """Escapes can write what no text column takes: NUL, and halves of surrogate pairs."""
    for text, where in _texts(value, ()):
        if free is not None and free.fullmatch(".".join(where)) is not None:
            continue
        if "\0" in text:
            raise StrictJsonError(Fault.ODD_TEXT, "a NUL in a string", ".".join(where))
        if not text.isascii() and any(_SURROGATES_FROM <= c <= _SURROGATES_TO for c in text):
            raise StrictJsonError(Fault.ODD_TEXT, "half a surrogate pair in a string", ".".join(where))


def _texts(value: Any, where: tuple[str, ...]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each with its place; a member's name with that of its object."""
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name, where
            yield from _texts(member, (*where, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, (*where, str(number)))
