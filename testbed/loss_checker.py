"""Whether all that a device was told to be kept is kept, once and in order (docs/protocol/device-v1.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from device_protocol.numbers import NOTHING, Number
from testbed.people import Person

PAGE = 200  # the most that the API gives


@dataclass(frozen=True)
class Row:
    """One message of the history."""

    number: Number
    id: str
    received_at: str
    """RFC 3339 in UTC, of one width: as text it is ordered as it is in time."""


def history(person: Person, device: str) -> list[Row]:
    """All that is kept of the device, first to last by its number."""
    rows: list[Row] = []
    cursor = ""
    while True:
        page: dict[str, Any] = person.call("GET", f"/v1/devices/{device}/history?limit={PAGE}{cursor}")
        rows += [Row(Number(one["boot"], one["seq"]), one["id"], one["received_at"]) for one in page["items"]]
        if page["next_cursor"] is None:
            return sorted(rows, key=lambda row: row.number)
        cursor = f"&cursor={page['next_cursor']}"


def faults(rows: Sequence[Row], accepted: Sequence[Number]) -> list[str]:
    """What is wrong; []: nothing. `rows`: by number. `accepted`: what the device was told, at any moments.

    Valid for a device whose outbox never overflowed: each boot's numbers then begin at 1 and have no hole,
    and a later boot's first message is taken only behind the earlier one's last.
    """
    found = [f"{row.number}: twice" for before, row in pairwise(rows) if before.number == row.number]
    ids = [row.id for row in rows]
    found += [f"{id}: under two numbers" for id in {id for id in ids if ids.count(id) > 1}]
    found += [
        f"{row.number}: came before {before.number}"
        for before, row in pairwise(rows)
        if row.received_at < before.received_at
    ]
    last = NOTHING
    for row in rows:
        if row.number not in {last, Number(last.boot, last.seq + 1)} and not (
            row.number.boot > last.boot and row.number.seq == 1
        ):
            found.append(f"lost between {last} and {row.number}")
        last = row.number
    kept = {row.number for row in rows}
    found += [f"{number}: accepted and lost" for number in sorted(set(accepted)) if number not in kept]
    return found
