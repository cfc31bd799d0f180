"""Devices that number what they say, and records of it as ingest makes them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from device_protocol.envelope import Envelope, encode
from device_protocol.ids import uuid7
from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import NUMBERED, Kind, Topic
from gateway.policy.stays import KnownDevice
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, PARTS, UP, Entry, Record, part_of

NOW_MS = 1_760_000_000_000


@dataclass
class Talker:
    """One device. `prev`: the number of what it said last."""

    id: str
    known: KnownDevice
    boot: int = 1
    seq: int = 0
    floor: Number = NOTHING
    prev: Number = NOTHING
    now_ms: int = NOW_MS
    offsets: dict[str, int] = field(default_factory=dict)

    def topic(self, kind: Kind, **other: str) -> Topic:
        place = {"org": self.known.org, "site": self.known.site, "type": self.known.type} | other
        return Topic(place["org"], place["site"], place["type"], self.id, kind)

    def reboot(self) -> None:
        self.boot, self.seq = self.boot + 1, 0

    def says(
        self,
        kind: Kind = Kind.TELEMETRY,
        payload: dict[str, Any] | None = None,
        *,
        type: str | None = None,
        ts: int | None = 0,
        up: int = 1000,
        topic: Topic | None = None,
    ) -> Entry:
        """Its next message; `ts` 0: now."""
        if kind in NUMBERED:
            self.seq += 1
        number = Number(self.boot, self.seq if kind in NUMBERED else 0)
        envelope = Envelope(
            kind=kind,
            id=uuid7(self.now_ms, secrets.token_bytes(10)),
            type=type or kind.value,
            ts=self.now_ms if ts == 0 else ts,
            up=up,
            number=number,
            payload=_payload(self, kind) if payload is None else payload,
            floor=self.floor if kind in NUMBERED else None,
            prev=self.prev if kind in NUMBERED else None,
        )
        if kind in NUMBERED:
            self.prev = number
        return self.entry(kind, encode(envelope), topic)

    def entry(self, kind: Kind, raw: bytes, topic: Topic | None = None, **more: bytes) -> Entry:
        """As ingest appends it."""
        found = {headers.TOPIC: str(topic or self.topic(kind)).encode(), **more}
        return Entry(self.id.encode(), raw, self.now_ms, tuple(found.items()))


def record(entry: Entry, offset: int, topic: str = UP) -> Record:
    return Record(topic, part_of(entry.key, PARTS[topic]), offset, entry)


def log_topic(kind: Kind) -> str:
    return UP if kind in NUMBERED else CONTROL


def _payload(talker: Talker, kind: Kind) -> dict[str, Any]:
    if kind is Kind.TELEMETRY:
        return {"values": {"n": talker.seq, "temperature": 20 + talker.seq % 10}}
    if kind is Kind.HELLO:
        return hello(talker)
    if kind is Kind.HEARTBEAT:
        return {"uptime_s": 1, "outbox": {"entries": 0, "bytes": 0, "dropped": 0, "refused": 0}}
    return {"n": talker.seq}


def hello(talker: Talker, instance: str = "instance-1") -> dict[str, Any]:
    return {
        "boot": talker.boot,
        "instance": instance,
        "software": "agent 1.0",
        "type": talker.known.type,
        "commands": ["ping"],
        "config": None,
    }


def ack(command: UUID, stage: str = "received", **more: Any) -> dict[str, Any]:
    return {"command": str(command), "stage": stage, "at": None, **more}
