"""An export: one JSON object a line, with what proves the rows, and an end that says it was not cut off.

::

    {"export": "towline-audit", "version": 1, "site": "s_…", "at": "…", "head": {"seq": 812, "hash": "…"}}
    {"seq": 17, "record": "{…}", "prev_hash": "…", "hash": "…"}
    {"end": true, "events": 1}

`site` null: the whole log. `head` is the whole log's end when the export began; hashes are hexadecimal, and
`hash` is SHA-256(prev_hash ‖ record).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.audit_chain import Head, Row

NAME = "towline-audit"
VERSION = 1
LINE_MAX = 1024 * 1024  # a record is a few hundred bytes; whoever made a longer line made no export


class NoExportError(Exception):
    """A file that is none of ours, or one that was cut off."""


def first_line(site: str | None, at: str, head: Head) -> bytes:
    end = {"seq": head.seq, "hash": head.hash.hex()}
    return _line({"export": NAME, "version": VERSION, "site": site, "at": at, "head": end})


def row_line(row: Row) -> bytes:
    return _line(
        {"seq": row.seq, "record": row.record, "prev_hash": row.prev_hash.hex(), "hash": row.hash.hex()}
    )


def last_line(events: int) -> bytes:
    return _line({"end": True, "events": events})


@dataclass(slots=True)
class ExportReading:
    """Reads the lines of an export once, bounded; NoExportError in the middle when it is none."""

    lines: Iterator[bytes]
    site: str | None = field(init=False)
    """None: the whole log."""
    head: Head = field(init=False)
    events: int = 0

    def __post_init__(self) -> None:
        first = _object(next(self.lines, b""))
        if first.get("export") != NAME or first.get("version") != VERSION:
            raise NoExportError("its first line is not that of an export")
        self.site = first.get("site")
        try:
            self.head = Head(int(first["head"]["seq"]), bytes.fromhex(first["head"]["hash"]))
        except (KeyError, TypeError, ValueError):
            raise NoExportError("its first line has no head") from None

    def __iter__(self) -> Iterator[Row]:
        for line in self.lines:
            value = _object(line)
            if value.get("end") is True:
                self._ended(value)
                return
            self.events += 1
            yield _row(value, self.events + 1)
        raise NoExportError("it was cut off: the line that ends it is missing")

    def _ended(self, value: dict[str, Any]) -> None:
        if value.get("events") != self.events:
            raise NoExportError(f"it has {self.events} events and says {value.get('events')}")
        if next(self.lines, None) is not None:
            raise NoExportError("something follows its end")


def read_export(file: Iterable[bytes]) -> ExportReading:
    return ExportReading(iter(file))


def _row(value: dict[str, Any], number: int) -> Row:
    try:
        seq, record = value["seq"], value["record"]
        if not isinstance(seq, int) or not isinstance(record, str):
            raise TypeError
        return Row(seq, record, bytes.fromhex(value["prev_hash"]), bytes.fromhex(value["hash"]))
    except (KeyError, TypeError, ValueError):
        raise NoExportError(f"line {number} is no event") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line) if len(line) <= LINE_MAX else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NoExportError("a line is no JSON object")
    return value


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
