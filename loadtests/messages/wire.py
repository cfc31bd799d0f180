"""A device that says telemetry, in bytes: as little work a message as there can be. No I/O, no clock.

The load shares the machine with what it measures, so this writes the few MQTT 3.1.1 packets that a device
sends, and reads the few that it gets, without the product's own client. What it says is what an agent says:
numbered envelopes at QoS 1, a window of them beyond the floor, again from the floor when nothing moves.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import Final, NamedTuple

from device_protocol.topics import Kind

WINDOW: Final = 64
"""Messages under way beyond the floor (docs/protocol/device-v1.md, section 4)."""
KEEPALIVE_S: Final = 300  # the most that brokers allow: these devices are never silent
BOOT: Final = 1
_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 0x20, 0x30, 0x40, 0x90
_PACKET_IDS: Final = 65_535
_SEQ: Final = re.compile(rb'^\{"v":1,"boot":1,"seq":(\d+)\}$')
# An aggregate, three plain readings, and when it was made: from which the way to its row is counted.
_ENVELOPE: Final = (
    b'{"id":"%08x-%04x-7%03x-8%03x-%012x","v":1,"type":"telemetry","ts":%d,"up":%d,"boot":1,"seq":%d,'
    b'"payload":{"values":{"temperature":{"n":5,"min":20.9,"max":21.8,"mean":21.42,"last":21.5},'
    b'"humidity":48.5,"battery":3.71,"open":false,"sent_us":%d}},"floor":[%d,%d]%s}'
)


class Kept(NamedTuple):
    """A message in the outbox: its number and when it was made (Unix µs)."""

    seq: int
    made_us: int


class Broken(Exception):
    """The broker said what a device cannot go on after."""


class Device:
    """One device's connection and outbox. `ready`: it is connected and hears what is accepted."""

    def __init__(self, device_id: str, prefix: str, password: str | None = None, *, number: int = 0) -> None:
        """`number`: another one for each device of a run: the ids of its messages come from it."""
        self.id = device_id
        self.ready = False
        self.floor = 0
        self.made = 0
        self.resent = 0
        self.accept_us: list[int] = []
        """From when each message was made until it was accepted."""
        self._topic = _text(f"{prefix}/{Kind.TELEMETRY.value}")
        self._accepted = f"{prefix}/{Kind.ACCEPTED.value}"
        self._password = password
        self._number = number
        self._outbox: deque[Kept] = deque()
        self._sent = 0  # the highest seq on this connection
        self._packet_id = 0
        self._unread = b""

    @property
    def waiting(self) -> int:
        """Messages that are not accepted."""
        return len(self._outbox)

    @property
    def room(self) -> int:
        """Messages that the window has room for, beside those that wait."""
        return max(0, WINDOW - len(self._outbox))

    def connect(self) -> bytes:
        """What a new connection begins with; what is not accepted will be sent on it again."""
        self.ready, self._unread, self._sent = False, b"", self.floor
        flags = 0x02 if self._password is None else 0xC2
        body = b"\x00\x04MQTT\x04" + bytes([flags]) + struct.pack("!H", KEEPALIVE_S) + _text(self.id)
        if self._password is not None:
            body += _text(self.id) + _text(self._password)
        return b"\x10" + _length(len(body)) + body

    def make(self, now_us: int) -> None:
        """One more message into the outbox."""
        self.made += 1
        self._outbox.append(Kept(self.made, now_us))

    def due(self) -> bytes:
        """What may leave now: of the outbox so much as the window has room for."""
        if not self.ready or not self._outbox:
            return b""
        begin = self._sent - self._outbox[0].seq + 1
        end = min(len(self._outbox), self.floor + WINDOW - self._outbox[0].seq + 1)
        if begin >= end:
            return b""
        packets = [self._packet(self._outbox[at]) for at in range(begin, end)]
        self._sent = self._outbox[end - 1].seq
        return b"".join(packets)

    def again(self) -> None:
        """Nothing moved for too long: everything from the floor on."""
        self.resent += self._sent - self.floor
        self._sent = self.floor

    def receive(self, data: bytes, now_us: int) -> bytes:
        """What is answered to it; Broken."""
        if self._unread:
            data = self._unread + data
        at, size, answer = 0, len(data), b""
        while size - at >= 2:
            length, body = data[at + 1], at + 2
            if (
                length > 127
            ):  # the longest that a device is told here is `accepted`, of two such bytes at most
                if size - at < 3:
                    break
                length, body = (length & 127) | data[at + 2] << 7, at + 3
            if size < body + length:
                break
            kind = data[at] & 0xF0
            if kind == _PUBLISH:
                self._told(data[body : body + length], now_us)
            elif kind != _PUBACK:
                answer += self._control(kind, data[body : body + length])
            at = body + length
        self._unread = data[at:]
        return answer

    def _control(self, kind: int, body: bytes) -> bytes:
        if kind == _CONNACK:
            if body[1] != 0:
                raise Broken(f"the broker refused with code {body[1]}")
            asked = b"\x00\x01" + _text(self._accepted) + b"\x00"
            return b"\x82" + _length(len(asked)) + asked
        if kind == _SUBACK:
            if body[2] > 1:
                raise Broken("the broker does not let it hear what is accepted")
            self.ready = True
        return b""

    def _told(self, body: bytes, now_us: int) -> None:
        found = _SEQ.match(body[2 + int.from_bytes(body[:2], "big") :])
        if found is None:
            raise Broken(f"the device was told {body!r}")
        seq, outbox = int(found[1]), self._outbox
        while outbox and outbox[0].seq <= seq:
            self.accept_us.append(now_us - outbox.popleft().made_us)
        self.floor = max(self.floor, seq)

    def _packet(self, kept: Kept) -> bytes:
        ms, seq = kept.made_us // 1000, kept.seq
        self._packet_id = self._packet_id % _PACKET_IDS + 1
        envelope = _ENVELOPE % (
            *(ms >> 16, ms & 0xFFFF, seq >> 12 & 0xFFF, seq & 0xFFF, self._number),
            *(ms, ms % 1_000_000_000, seq, kept.made_us),
            *((BOOT, self.floor, b"") if self.floor else (0, 0, b',"prev":[0,0]' if seq == 1 else b"")),
        )
        body = b"%b%b%b" % (self._topic, self._packet_id.to_bytes(2, "big"), envelope)
        return b"\x32" + _length(len(body)) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _length(size: int) -> bytes:
    """MQTT's remaining length (section 2.2.3)."""
    if size < 128:
        return bytes((size,))
    return bytes((size & 127 | 128,)) + _length(size >> 7)
