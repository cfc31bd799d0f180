"""Whether all that a device was told to be kept is kept, once and in order (docs/protocol/device-v1.md)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
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
    stored_in: int = 0
    """The transaction that wrote it, where that is known: later ones have higher numbers."""
    token: int | None = None
    """What it says, where `message_devices` made it."""


@dataclass
class Journal:
    """What a device of `message_devices` wrote down before it did it."""

    offered: dict[str, int] = field(default_factory=dict)
    """Id and token of what it had to say."""
    sent: set[tuple[Number, str]] = field(default_factory=set)
    """Number and id of what left its outbox for the broker, perhaps in vain."""
    told: list[Number] = field(default_factory=list)
    """What it was told to be kept."""

    @classmethod
    def read(cls, path: Path) -> Journal:
        """A last line that its writer's end cut off is left out."""
        journal = cls()
        text = path.read_text("ascii") if path.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            match json.loads(line):
                case ["offered", str(id), int(token)]:
                    journal.offered[id] = token
                case ["sent", int(boot), int(seq), str(id)]:
                    journal.sent.add((Number(boot, seq), id))
                case ["told", int(boot), int(seq)]:
                    journal.told.append(Number(boot, seq))
                case other:
                    raise ValueError(f"no line of a journal: {other}")
        return journal


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


def faults(rows: Sequence[Row], accepted: Collection[Number]) -> list[str]:
    """What is wrong; []: nothing. `rows`: by number. `accepted`: what the device was told, at any moments.

    Valid for a device whose outbox never overflowed: each boot's numbers then begin at 1 and have no hole,
    and a later boot's first message is taken only behind the earlier one's last.
    """
    found = [f"{row.number}: twice" for before, row in pairwise(rows) if before.number == row.number]
    ids = Counter(row.id for row in rows)
    found += [f"{id}: under two numbers" for id, count in ids.items() if count > 1]
    found += _order(rows)
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


def journal_faults(rows: Sequence[Row], journal: Journal) -> list[str]:
    """The same of a device that kept a journal and whose outbox is empty by now: accepted ⊆ stored ⊆ sent.

    Stronger than `faults`: everything up to each number that it was told must be there, with its own id, and
    nothing that never left the device.
    """
    found = faults(rows, journal.told)
    stored = {(row.number, row.id) for row in rows}
    until = max(journal.told, default=NOTHING)
    found += [
        f"{number} {id}: {'accepted and lost' if number <= until else 'sent, never accepted, and not kept'}"
        for number, id in sorted(journal.sent - stored)
    ]
    found += [f"{number} {id}: stored, never sent" for number, id in sorted(stored - journal.sent)]
    for row in rows:
        if row.token != journal.offered.get(row.id):
            found.append(f"{row.number} {row.id}: says {row.token}, was {journal.offered.get(row.id)}")
    return found


def command_faults(commands: Mapping[str, str], executed: Sequence[str]) -> list[str]:
    """Commands by id with their states, and the ids as they were executed: what is wrong."""
    counts = Counter(executed)
    found = [f"command {id}: executed {count} times" for id, count in counts.items() if count > 1]
    found += [f"command {id}: executed, never given" for id in counts if id not in commands]
    for id, state in commands.items():
        if state not in {"succeeded", "failed", "timed_out", "expired"}:
            found.append(f"command {id}: left {state}")
        if state == "succeeded" and not counts[id]:
            found.append(f"command {id}: succeeded, never executed")
    return found


def _order(rows: Sequence[Row]) -> list[str]:
    found = []
    for before, row in pairwise(rows):
        if row.received_at < before.received_at:
            found.append(f"{row.number}: came before {before.number}")
        if row.stored_in < before.stored_in:
            found.append(f"{row.number}: stored before {before.number}")
    return found
