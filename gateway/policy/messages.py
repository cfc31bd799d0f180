"""What becomes of what devices said: records and what the store knows in, what to write out. No I/O.

`read` says what a record is, `decide` what numbered ones change, `decide_control` what hello and ack do. Each
may be asked again of the same records and says the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from device_protocol.bodies import CONFIG_TYPE, Ack, Gone, Hello, HelloAnswer, Reported
from device_protocol.envelope import Envelope, decode
from device_protocol.errors import BadMessageError, BadTopicError, Reason, Standing
from device_protocol.numbers import NOTHING, NUMBER_MAX, Line, Number, Place
from device_protocol.topics import TOPIC_MAX, Kind, Topic, parse_topic
from gateway.policy.device_clock import FUTURE_MAX_MS, Boot, Window, boot_of, made_at_ms, moment_of
from gateway.policy.stays import KnownDevice, Making
from runtime.event_log import headers
from runtime.event_log.interface import DEAD, Entry, Record

BODY_MAX: Final = 65_536
"""Bytes that a dead letter keeps: more than any message may have."""
DETAIL_MAX: Final = 300
BOOTS_AHEAD_MAX: Final = 65_536
"""A device's boot may be so far ahead of the last one that was heard of: as of one that starts every ten
seconds for a week without a word. Further is a lie, of a bridge for one: it would mute the device, whose own
numbers are then all behind it, and NUMBER_MAX for good.
"""
FIRST_BOOT_MAX: Final = NUMBER_MAX - BOOTS_AHEAD_MAX
"""Of a device of which nothing is known any boot may be the first one: it may come from another installation,
or its line was forgotten. But behind it there must be boots for it to go on with.
"""
STALE_S: Final = 150.0
"""A device that is up says so each minute: after two and a half without a word it is offline."""
CONFIG_STATE: Final = "config"
"""Under which a reported configuration is kept beside the latest state, which it must not replace."""
_TOPICS_KEPT: Final = 16_384  # of as many devices; some 5 MB

RecordPlace = tuple[str, int, int]
"""Topic, part and offset in the log."""


class Fault(NamedTuple):
    """Why a record becomes a dead letter."""

    reason: Reason
    detail: str


class Arrival(NamedTuple):
    """A record that was read. `fault` None: it is a good message. `standing`: where it stands in its line."""

    record: Record
    topic_text: str
    """As it came, cut and made printable."""
    topic: Topic | None
    envelope: Envelope | None
    standing: Standing | None
    fault: Fault | None

    @property
    def place(self) -> RecordPlace:
        return (self.record.topic, self.record.part, self.record.offset)

    @property
    def received_ms(self) -> int:
        return self.record.entry.at_ms

    @property
    def is_bare(self) -> bool:
        """There is nothing but bytes in it that a letter could be spoilt by."""
        return not self.record.entry.headers


@dataclass(frozen=True, slots=True)
class Connection:
    """A device's connection for messages, as its hellos and heartbeats tell it."""

    online: bool
    since: datetime
    seen_at: datetime
    instance: str | None
    hello: dict[str, Any] | None
    started_at: datetime | None = None
    """When the boot began that said hello: by when the hello came, and how long the device was up."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is asked of the store before deciding. A device that is missing does not exist."""

    devices: Mapping[str, KnownDevice]
    window: Window
    lines: Mapping[str, Number] = field(default_factory=dict)
    boots: Mapping[tuple[str, int], Boot] = field(default_factory=dict)
    connections: Mapping[str, Connection] = field(default_factory=dict)


class HistoryRow(NamedTuple):
    """In the order of `store.messages.HISTORY`."""

    device_id: str
    at: datetime
    boot: int
    seq: int
    id: str
    kind: str
    type: str
    site_id: str
    received_at: datetime
    body: dict[str, Any]

    @property
    def key(self) -> tuple[str, datetime, int, int]:
        return (self.device_id, self.at, self.boot, self.seq)

    @property
    def number(self) -> tuple[str, int, int]:
        return (self.device_id, self.boot, self.seq)

    @property
    def what(self) -> str:
        """Its kind; CONFIG_STATE for a report of the configuration."""
        reported = self.kind == Kind.STATE and self.type == CONFIG_TYPE
        return CONFIG_STATE if reported else self.kind


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter."""

    place: RecordPlace
    received_at: datetime
    reason: Reason
    detail: str
    topic: str
    device_id: str | None
    site_id: str | None
    size: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a device is to be told about itself: the answer to its hello, or a hint that it needs one.

    `hello`: what it said just now; None: it said nothing, but goes by an old place or number.
    """

    device_id: str
    boot: int
    known: Number
    said_at: str
    """Prefix of the topic that it used: there it listens."""
    prefix: str
    """The one that it has now."""
    hello: Hello | None

    def message(self, now_s: float) -> tuple[str, bytes]:
        """Topic and what it is told there."""
        answer = HelloAnswer(self.boot, self.known, int(now_s * 1000), self.prefix)
        return f"{self.said_at}/{Kind.ACCEPTED.value}", answer.dump()


@dataclass(frozen=True, slots=True)
class DeviceAck:
    """An ack with its record's time."""

    device_id: str
    ack: Ack
    received_at: datetime
    trace: str | None
    place: RecordPlace


@dataclass(slots=True)
class Applied:
    """What a batch changes. `passed`: messages that devices know to be accepted and that never came here,
    of devices that were heard of before.
    """

    lines: dict[str, Number] = field(default_factory=dict)
    boots: dict[tuple[str, int], Boot] = field(default_factory=dict)
    history: list[HistoryRow] = field(default_factory=list)
    states: dict[tuple[str, str], HistoryRow] = field(default_factory=dict)
    """Latest of each device and kind."""
    letters: list[Letter] = field(default_factory=list)
    seen: list[tuple[Arrival, HistoryRow]] = field(default_factory=list)
    """Numbers that were taken before: whether by the same message, the store must say (`strangers`)."""
    heard: dict[str, datetime] = field(default_factory=dict)
    """Heartbeats."""
    connections: dict[str, Connection] = field(default_factory=dict)
    acks: list[DeviceAck] = field(default_factory=list)
    greetings: dict[str, Greeting] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    """(device, kind or CONFIG_STATE) that live followers are told of."""
    outcomes: Counter[str] = field(default_factory=Counter)
    passed: int = 0


def bounded(record: Record, now_ms: int) -> Record:
    """The record, received at no time to come: of a bridge whose clock is far ahead, or that lies, now is
    when its messages came. Else a device would be heard, and online, for as long. Nor before 1970: there
    may be no date for that.
    """
    entry = record.entry
    if 0 <= entry.at_ms <= now_ms + FUTURE_MAX_MS:
        return record
    received = Entry(entry.key, entry.value, max(0, min(entry.at_ms, now_ms)), entry.headers)
    return record._replace(entry=received)


def bare(record: Record, at_ms: int, why: str) -> Arrival:
    """What is left of a record that not even a dead letter can be made of: its bytes."""
    left = record._replace(entry=Entry(b"", record.entry.value, at_ms))
    return Arrival(left, "", None, None, None, Fault(Reason.STORE_REFUSED, why))


def read(record: Record) -> Arrival:
    """What the record is."""
    found = dict(record.entry.headers)
    text = _shown(found.get(headers.TOPIC, b""), TOPIC_MAX)
    topic = _topic(text)
    fault = None
    if (dead := found.get(headers.DEAD)) is not None or record.topic == DEAD:
        fault = Fault(_reason(dead), _shown(found.get(headers.DETAIL, b""), DETAIL_MAX))
    if topic is None:
        fault = fault or Fault(Reason.BAD_TOPIC, "no topic of a device")
        return Arrival(record, text, None, None, None, fault)
    if record.topic == DEAD:  # no line was found for it
        return Arrival(record, text, topic, None, None, fault)
    try:
        envelope = decode(topic.kind, record.entry.value)
    except BadMessageError as error:
        return Arrival(record, text, topic, None, error.standing, fault or Fault(error.reason, error.detail))
    return Arrival(record, text, topic, envelope, envelope.standing, fault)


def decide(
    arrivals: Iterable[Arrival], facts: Facts, refused: Mapping[RecordPlace, str] | None = None
) -> Applied:
    """What numbered messages and dead letters change. `refused`: what the store does not take, and why."""
    deciding = _Deciding(facts, refused or {})
    for arrival in arrivals:
        deciding.take(arrival)
    return deciding.applied


def reports(applied: Applied) -> dict[str, Reported]:
    """What devices said last of the configuration that they run with."""
    found = applied.states.items()
    return {device: Reported.parse(row.body) for (device, kind), row in found if kind == CONFIG_STATE}


def running(applied: Applied) -> dict[str, int | None]:
    """The version of the configuration with which each device runs that said hello; None: with none."""
    return {one.device_id: one.hello.config for one in applied.greetings.values() if one.hello is not None}


def strangers(
    applied: Applied, found: Mapping[tuple[str, datetime, int, int], str]
) -> list[tuple[Arrival, HistoryRow]]:
    """Those of `seen` that are no repeats of the rows at their keys; `found`: the ids of those rows."""
    return [(arrival, row) for arrival, row in applied.seen if found.get(row.key) != row.id]


def reused(applied: Applied, stranger: tuple[Arrival, HistoryRow], facts: Facts) -> None:
    """Another message has its number: the device's counter went back. It is kept as a dead letter, and the
    device is told how far it was.
    """
    arrival, row = stranger
    device, fault = facts.devices[row.device_id], Fault(Reason.REUSED_NUMBER, "another message had it")
    applied.letters.append(_letter(arrival, fault, device))
    applied.outcomes["seen"] -= 1
    applied.outcomes["dead"] += 1
    _greet(applied, facts, arrival, device)


class _Deciding:
    """One batch."""

    def __init__(self, facts: Facts, refused: Mapping[RecordPlace, str]) -> None:
        self.applied = Applied()
        self._facts = facts
        self._refused = refused
        self._lines: dict[str, Line] = {}

    def take(self, arrival: Arrival) -> None:
        topic, applied = arrival.topic, self.applied
        device = None if topic is None else self._facts.devices.get(topic.device)
        if topic is None or device is None:
            fault = Fault(Reason.UNKNOWN_DEVICE, "") if topic is not None else None
            self._bury(arrival, arrival.fault or fault or Fault(Reason.BAD_TOPIC, ""), None)
            return
        standing = arrival.standing
        if standing is None:
            self._bury(arrival, arrival.fault or Fault(Reason.WRONG_KIND, "not numbered"), device)
            return
        line = self._line(topic.device)
        known = line.have != NOTHING
        most = line.have.boot + BOOTS_AHEAD_MAX if known else FIRST_BOOT_MAX
        if max(standing.number.boot, standing.floor.boot) > most:
            self._bury(arrival, Fault(Reason.BAD_SCHEMA, "a boot too far ahead of the last one"), device)
            return
        offer = line.offer(standing.number, standing.before, standing.floor)
        applied.passed += offer.passed and known  # what came before the first that is known is not missing
        if line.have != self._facts.lines.get(topic.device, NOTHING):
            applied.lines[topic.device] = line.have
        if offer.place is Place.GAP:
            applied.outcomes["gap"] += 1
        elif offer.place is Place.SEEN:
            applied.outcomes["seen"] += 1
            self._seen(arrival, topic, device)
        else:
            self._take(arrival, topic, device)

    def _line(self, device_id: str) -> Line:
        line = self._lines.get(device_id)
        if line is None:
            line = self._lines[device_id] = Line(self._facts.lines.get(device_id, NOTHING))
        return line

    def _take(self, arrival: Arrival, topic: Topic, device: KnownDevice) -> None:
        envelope, fault = arrival.envelope, self._fault(arrival, topic, device)
        if envelope is None or fault is not None:
            self._bury(arrival, fault or Fault(Reason.BAD_SCHEMA, ""), device)
            if device.goes_by_an_old_place(topic):
                _greet(self.applied, self._facts, arrival, device)
            return
        row = self._row(envelope, arrival, topic, device, learn=True)
        if row is None:
            self._bury(arrival, Fault(Reason.TIME_OUT_OF_RANGE, ""), device)
            return
        applied = self.applied
        applied.outcomes["stored"] += 1
        applied.history.append(row)
        if row.site_id == device.site:  # where it was before nobody follows it any more
            applied.told.add((topic.device, row.what))
        if device.goes_by_an_old_place(topic):
            _greet(applied, self._facts, arrival, device)
        if topic.kind is not Kind.EVENT:
            applied.states[(topic.device, row.what)] = row
        if topic.kind is Kind.HEARTBEAT:
            applied.heard[topic.device] = row.received_at

    def _seen(self, arrival: Arrival, topic: Topic, device: KnownDevice) -> None:
        """A repeat: to be compared with its row, where it can have one."""
        envelope = arrival.envelope
        if envelope is None or self._fault(arrival, topic, device) is not None:
            return
        row = self._row(envelope, arrival, topic, device, learn=False)
        if row is not None:
            self.applied.seen.append((arrival, row))

    def _fault(self, arrival: Arrival, topic: Topic, device: KnownDevice) -> Fault | None:
        if arrival.place in self._refused:
            return Fault(Reason.STORE_REFUSED, self._refused[arrival.place])
        return arrival.fault or _place_fault(topic, device, arrival.received_ms)

    def _row(
        self, envelope: Envelope, arrival: Arrival, topic: Topic, device: KnownDevice, *, learn: bool
    ) -> HistoryRow | None:
        """None: at a time that the history does not take, or that is not known any more."""
        key = (topic.device, envelope.number.boot)
        boot = self.applied.boots.get(key) or self._facts.boots.get(key)
        if boot is None and learn:
            boot = self.applied.boots[key] = boot_of(arrival.received_ms, envelope.up)
        if boot is None:
            return None
        at_ms = made_at_ms(envelope.ts, envelope.up, boot)
        if not self._facts.window.takes(at_ms, arrival.received_ms):
            return None
        return HistoryRow(
            device_id=topic.device,
            at=moment_of(at_ms),
            boot=envelope.number.boot,
            seq=envelope.number.seq,
            id=envelope.id,
            kind=topic.kind.value,
            type=envelope.type,
            site_id=device.site_of(
                topic,
                arrival.received_ms,
                Making(at_ms, envelope.ts is not None, envelope.number.boot, envelope.up),
            ),
            received_at=moment_of(arrival.received_ms),
            body=envelope.payload,
        )

    def _bury(self, arrival: Arrival, fault: Fault, device: KnownDevice | None) -> None:
        self.applied.outcomes["dead"] += 1
        self.applied.letters.append(_letter(arrival, fault, device))


def decide_control(
    arrivals: Sequence[Arrival], facts: Facts, refused: Mapping[RecordPlace, str] | None = None
) -> Applied:
    """What hellos, wills and acks do."""
    applied = Applied()
    for arrival in arrivals:
        topic = arrival.topic
        device = None if topic is None else facts.devices.get(topic.device)
        fault = _control_fault(arrival, device, refused or {})
        if topic is None or device is None or arrival.envelope is None or fault is not None:
            applied.outcomes["dead"] += 1
            applied.letters.append(_letter(arrival, fault or Fault(Reason.BAD_TOPIC, ""), device))
            if topic is not None and device is not None and device.goes_by_an_old_place(topic):
                _greet(applied, facts, arrival, device)
            continue
        applied.outcomes["control"] += 1
        if topic.kind is Kind.HELLO:
            _hello(applied, facts, topic.device, device, arrival)
        else:
            ack = Ack.parse(arrival.envelope.payload)
            at = moment_of(arrival.received_ms)
            applied.acks.append(DeviceAck(topic.device, ack, at, arrival.envelope.trace, arrival.place))
    return applied


def _control_fault(
    arrival: Arrival, device: KnownDevice | None, refused: Mapping[RecordPlace, str]
) -> Fault | None:
    if arrival.fault is not None:
        return arrival.fault
    if device is None or arrival.topic is None:
        return Fault(Reason.UNKNOWN_DEVICE, "")
    if arrival.place in refused:
        return Fault(Reason.STORE_REFUSED, refused[arrival.place])
    if arrival.topic.kind is Kind.HELLO:  # its answer tells the device where it is
        return _status_fault(device)
    if arrival.topic.kind is not Kind.ACK:
        return Fault(Reason.WRONG_KIND, "numbered")
    return _place_fault(arrival.topic, device, arrival.received_ms)


def _hello(applied: Applied, facts: Facts, device_id: str, device: KnownDevice, arrival: Arrival) -> None:
    assert arrival.envelope is not None  # the caller looked
    said, at = Hello.parse(arrival.envelope.payload), moment_of(arrival.received_ms)
    connection = applied.connections.get(device_id) or facts.connections.get(device_id)
    if isinstance(said, Gone):
        # Of an older instance: that one's connection, not the present one.
        if connection is not None and connection.online and connection.instance == said.instance:
            applied.connections[device_id] = replace(connection, online=False, since=at)
            applied.told.add((device_id, "connection"))
        return
    same = connection is not None and connection.online and connection.instance == said.instance
    since = connection.since if connection is not None and same else at
    started = _started(arrival, said, connection)
    hello = arrival.envelope.payload
    applied.connections[device_id] = Connection(True, since, at, said.instance, hello, started)
    applied.told.add((device_id, "connection"))
    _greet(applied, facts, arrival, device, said)


def _started(arrival: Arrival, said: Hello, before: Connection | None) -> datetime | None:
    """When the boot began that says hello: of several hellos of one boot the quickest knows it best."""
    assert arrival.envelope is not None
    started_ms = arrival.received_ms - arrival.envelope.up
    if started_ms < 0:  # no time that it can have been up for
        return None
    started = moment_of(started_ms)
    known = before is not None and before.hello is not None and before.hello.get("boot") == said.boot
    return min(started, before.started_at) if known and before and before.started_at else started


def _greet(
    applied: Applied, facts: Facts, arrival: Arrival, device: KnownDevice, hello: Hello | None = None
) -> None:
    topic, envelope = arrival.topic, arrival.envelope
    if topic is None or envelope is None:
        return
    known = applied.lines.get(topic.device) or facts.lines.get(topic.device, NOTHING)
    prefix = "/".join((*device.place, topic.device))
    applied.greetings[topic.device] = Greeting(
        topic.device, envelope.number.boot, known, topic.prefix, prefix, hello
    )


def _place_fault(topic: Topic, device: KnownDevice, received_ms: int) -> Fault | None:
    """By where the device was, and whether it was anybody's, when its message was accepted."""
    if not device.was_known_at(received_ms):
        return _status_fault(device)
    return None if device.was_ever_at(topic) else Fault(Reason.WRONG_PLACE, "")


def _status_fault(device: KnownDevice) -> Fault | None:
    if device.status == "approved":
        return None
    reason = Reason.UNKNOWN_DEVICE if device.status == "pending" else Reason.DEVICE_REVOKED
    return Fault(reason, device.status)


def _letter(arrival: Arrival, fault: Fault, device: KnownDevice | None) -> Letter:
    topic, value = arrival.topic, arrival.record.entry.value
    size = dict(arrival.record.entry.headers).get(headers.SIZE, b"")
    return Letter(
        place=arrival.place,
        received_at=moment_of(arrival.received_ms),
        reason=fault.reason,
        detail=fault.detail[:DETAIL_MAX],
        topic=arrival.topic_text,
        device_id=None if topic is None or device is None else topic.device,
        site_id=None if device is None or topic is None else device.site_of(topic, arrival.received_ms),
        size=int(size) if size.isdigit() and len(size) < 10 else len(value),
        body=value[:BODY_MAX],
    )


@lru_cache(_TOPICS_KEPT)
def _topic(text: str) -> Topic | None:
    try:
        return parse_topic(text)
    except BadTopicError:
        return None


def _reason(word: bytes | None) -> Reason:
    try:
        return Reason((word or b"").decode("ascii", "replace"))
    except ValueError:  # of a newer bridge
        return Reason.BAD_SCHEMA


def _shown(raw: bytes, most: int) -> str:
    """A text that every column takes."""
    text = raw[: 4 * most].decode("utf-8", "replace")[:most]
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)
