"""Messages and outboxes for tests."""

from __future__ import annotations

import secrets
from pathlib import Path

from device_protocol.envelope import Envelope, decode_stored
from device_protocol.ids import RANDOM_BYTES, uuid7
from device_protocol.numbers import NOTHING, NUMBER_MAX, Number
from device_protocol.topics import Kind
from tunnel_agent.messages.outbox import KINDS, Outbox
from tunnel_agent.messages.policy.sending import Waiting

MANY = 1 << 30  # bytes
ALL = 1 << 20  # messages


def event(n: int, room: int = 0) -> Envelope:
    """The n-th thing that happened, with `room` characters more to it."""
    payload = {"n": n, "room": "x" * room}
    return Envelope(
        kind=Kind.EVENT,
        id=uuid7(n, secrets.token_bytes(RANDOM_BYTES)),
        type="tick",
        ts=n,
        up=n,
        number=NOTHING,
        payload=payload,
    )


def opened(directory: Path, most_bytes: int = 64 << 20) -> Outbox:
    outbox = Outbox(directory, most_bytes)
    outbox.open()
    outbox.said = Number(NUMBER_MAX, NUMBER_MAX)  # all of it, unless a test says otherwise
    return outbox


def begun(directory: Path, most_bytes: int = 64 << 20) -> Outbox:
    """One that may number."""
    outbox = opened(directory, most_bytes)
    outbox.begin()
    return outbox


def waiting(outbox: Outbox) -> list[Waiting]:
    return outbox.read(NOTHING, ALL, MANY)


def told(entry: Waiting) -> int:
    """Which `event` it is."""
    n = decode_stored(KINDS[entry.kind], entry.body).payload["n"]
    assert isinstance(n, int)
    return n


def ids(entries: list[Waiting]) -> list[str]:
    return [decode_stored(KINDS[entry.kind], entry.body).id for entry in entries]


def numbers(entries: list[Waiting]) -> list[Number]:
    return [entry.number for entry in entries]
