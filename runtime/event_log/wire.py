"""An append as JSON, for the way from ingest to the gateway. Both ends use this module."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

from runtime.event_log.interface import APPEND_MAX, Entry, LogRefusedError

BODY_MAX: Final = APPEND_MAX * 4 // 3 + 64 * 1024
"""Bytes of the largest body: base64 of all. The signs around an entry are fewer than its overhead."""


def to_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """`{"entries": [[key, value, at_ms, [[name, value], …]], …]}`, bytes in base64."""
    return {
        "entries": [
            [_text(one.key), _text(one.value), one.at_ms, [[name, _text(v)] for name, v in one.headers]]
            for one in entries
        ]
    }


def from_json(raw: Any) -> list[Entry]:
    """LogRefusedError for what `to_json` does not make."""
    try:
        return [_entry(*one) for one in raw["entries"]]
    except (TypeError, KeyError, ValueError) as error:
        raise LogRefusedError(f"no append: {error}") from error


def _entry(key: str, value: str, at_ms: int, headers: list[list[str]]) -> Entry:
    if type(at_ms) is not int or not isinstance(headers, list):
        raise ValueError("a time is a whole number, headers are a list")
    return Entry(_bytes(key), _bytes(value), at_ms, tuple(_header(*one) for one in headers))


def _header(name: str, value: str) -> tuple[str, bytes]:
    if not isinstance(name, str):
        raise ValueError("a header's name is text")
    return name, _bytes(value)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
