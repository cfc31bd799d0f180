"""What the embedded broker's door reads before anything else does: whole packets, and who asks to come in.

Sections are of MQTT 3.1.1.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Final

CONNECT: Final = 1
PUBLISH: Final = 3
PUBACK: Final = 4
SUBSCRIBE: Final = 8
UNSUBSCRIBE: Final = 10
PINGREQ: Final = 12
DISCONNECT: Final = 14
AFTER_CONNECT: Final = frozenset({PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT})
"""Of the packets that clients send (section 2.2.1), without those of QoS 2."""
RETAIN: Final = 0b0001
QOS_2: Final = 0b0100

REFUSED_VERSION: Final = 1
REFUSED_CLIENT_ID: Final = 2
UNAVAILABLE: Final = 3
NOT_ALLOWED: Final = 5
"""Codes of CONNACK (section 3.2.2.3)."""

_LEVEL: Final = 4  # section 3.1.2.2
_CLEAN, _WILL, _WILL_RETAIN, _WILL_QOS_2, _PASSWORD, _USERNAME = 0x02, 0x04, 0x20, 0x10, 0x40, 0x80
_FIXED: Final = struct.Struct("!6sBBH")  # name, level, flags, keepalive (sections 3.1.2.1 to 3.1.2.10)


class BadPacketError(Exception):
    """No packet that may be sent here; the text says why, without its words."""


class RefusedError(Exception):
    """A CONNECT that gets a CONNACK with this code, and no more."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole packet. `flags`: the lower half of its first byte; `start`: where its body begins."""

    raw: bytes
    start: int

    @property
    def type(self) -> int:
        return self.raw[0] >> 4

    @property
    def flags(self) -> int:
        return self.raw[0] & 0x0F

    @property
    def body(self) -> bytes:
        return self.raw[self.start :]


@dataclass(frozen=True, slots=True)
class Connect:
    """Who asks, and what the broker shall be told of it."""

    client_id: str
    username: str
    password: str
    will_topic: str | None
    keepalive_s: int
    """0: none was promised."""
    passed_on: bytes
    """The packet with a clean session (none outlives its connection here) and without keepalive, which the
    door watches."""


async def read_packet(stream: asyncio.StreamReader, longest: int) -> Packet:
    """The next one. BadPacketError above `longest` bytes; asyncio.IncompleteReadError at the end."""
    raw = bytearray(await stream.readexactly(1))
    length = 0
    for shift in (0, 7, 14, 21):  # section 2.2.3
        raw += await stream.readexactly(1)
        length |= (raw[-1] & 0x7F) << shift
        if raw[-1] < 0x80:
            break
    else:
        raise BadPacketError("a length of five bytes")
    if length > longest:
        raise BadPacketError(f"more than {longest} bytes")
    start = len(raw)
    return Packet(bytes(raw + await stream.readexactly(length)), start)


def parse_connect(packet: Packet) -> Connect:
    """BadPacketError for what is none, RefusedError for one that nobody here answers with yes."""
    if packet.type != CONNECT:
        raise BadPacketError("the first packet is no CONNECT")
    body = packet.body
    try:
        name, level, flags, keepalive = _FIXED.unpack_from(body)
        if name != b"\0\4MQTT":
            raise BadPacketError("not MQTT 3.1.1")
        if level != _LEVEL:
            raise RefusedError(REFUSED_VERSION, "another version of MQTT")
        if flags & 1 or flags & _WILL_QOS_2 or flags & _WILL_RETAIN:
            raise BadPacketError("a retained will, one of QoS 2, or a reserved flag")
        fields = _Fields(body, _FIXED.size)
        client_id = fields.text()
        will_topic = None
        if flags & _WILL:
            will_topic = fields.text()
            fields.data()
        if not (flags & _USERNAME and flags & _PASSWORD):
            raise RefusedError(NOT_ALLOWED, "no username and password")
        username, password = fields.text(), fields.text()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadPacketError("a CONNECT cut short, or no UTF-8") from error
    if not client_id:
        raise RefusedError(REFUSED_CLIENT_ID, "no client id")
    passed = bytearray(packet.raw)
    _FIXED.pack_into(passed, packet.start, name, level, flags | _CLEAN, 0)
    return Connect(client_id, username, password, will_topic, keepalive, bytes(passed))


def connack(code: int) -> bytes:
    """Section 3.2, without a session."""
    return bytes((0x20, 2, 0, code))


class _Fields:
    """Fields with two bytes of length before each (section 1.5.3)."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    def data(self) -> bytes:
        (length,) = struct.unpack_from("!H", self._body, self._at)
        field: tuple[bytes] = struct.unpack_from(f"{length}s", self._body, self._at + 2)
        self._at += 2 + length
        return field[0]

    def text(self) -> str:
        return self.data().decode()
