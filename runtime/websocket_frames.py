"""WebSocket frames (RFC 6455 section 5) as a byte pipe reads them: payload passes as it comes, unbuffered.

For both ends of the TCP door (docs/protocol/tcp-door.md). No message is ever collected: a reader that wants
bytes has no use for message boundaries, and what is not kept cannot grow.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from struct import Struct
from typing import Final

MAX_FRAME: Final = 1 << 20  # payload bytes of a data frame; senders here use 64 KiB
MAX_CONTROL: Final = 125  # RFC 6455 section 5.5
MASK_BYTES: Final = 4
_LENGTH16, _LENGTH64 = Struct("!H"), Struct("!Q")
_FIN, _RSV, _MASKED = 0x80, 0x70, 0x80

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
NO_STATUS: Final = 1005  # never on the wire: the Close frame carried no code
BAD_TEXT: Final = 1007
POLICY: Final = 1008
TOO_BIG: Final = 1009
# RFC 6455 section 7.4 and the registry: the codes that may stand in a frame.
_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_PRIVATE: Final = range(3000, 5000)


class Opcode(enum.IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class FrameError(Exception):
    """The peer broke RFC 6455 or the door's rules; ``code`` is for the Close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Payload:
    """The next bytes of binary messages."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EmptyMessage:
    """A binary message without a byte."""


@dataclass(frozen=True, slots=True)
class Ping:
    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The last frame of its sender; NO_STATUS when it gave no code."""

    code: int
    reason: str


FrameEvent = Payload | EmptyMessage | Ping | Pong | Close


class FrameReader:
    """Bytes in, events out; what binary frames in a row carry comes together, as one ``Payload``.

    Two things cost the reader work and the sender nearly nothing, so a caller may bound them. ``left``: how
    many frames may still begin; the one beyond is a FrameError (POLICY). ``hollow`` counts those that carried
    no payload for the pipe: pings, pongs and empty ones.
    """

    __slots__ = (
        "_control",
        "_head",
        "_in_message",
        "_key",
        "_last",
        "_left",
        "_message_bytes",
        "_offset",
        "_opcode",
        "_row",
        "_wants_mask",
        "hollow",
        "left",
    )

    def __init__(self, *, masked: bool) -> None:
        """``masked``: the peer is a client, which must mask; a server must not (section 5.1)."""
        self._wants_mask = masked
        self._head = bytearray()  # of a frame whose head is not whole yet
        self._key = b""
        self._offset = 0  # payload bytes of this frame so far: where the mask stands
        self._left = 0  # payload bytes of this frame that are to come
        self._opcode = Opcode.BINARY
        self._last = True  # the frame ends its message
        self._in_message = False  # a message waits for its continuation
        self._message_bytes = 0
        self._control = bytearray()
        self._row: list[bytes] = []  # payload of this feed that is no event yet
        self.left = math.inf
        self.hollow = 0

    def feed(self, data: bytes) -> list[FrameEvent]:
        """FrameError ends it: nothing that follows can be understood."""
        events: list[FrameEvent] = []
        at, size = 0, len(data)
        while at < size:
            if self._left:
                end = min(size, at + self._left)
                self._take(data[at:end], events)
            else:
                end = self._read_head(data, at)
                if not self._head and not self._left:  # a whole head, and no payload behind it
                    self._frame_done(events)
            at = end
        self._end_row(events)
        return events

    def _end_row(self, events: list[FrameEvent]) -> None:
        row = self._row
        if row:
            events.append(Payload(row[0] if len(row) == 1 else b"".join(row)))
            self._row = []

    def _read_head(self, data: bytes, at: int) -> int:
        """Collect the head; returns where it ended, or the end of ``data``."""
        head = self._head
        size = len(data)
        while at < size:
            need = self._head_size()
            taken = data[at : at + need - len(head)]
            head += taken
            at += len(taken)
            if len(head) == self._head_size():
                self._begin_frame()
                return at
        return at

    def _head_size(self) -> int:
        head = self._head
        if len(head) < 2:
            return 2
        length = head[1] & 0x7F
        return (
            2 + (2 if length == 126 else 8 if length == 127 else 0) + (MASK_BYTES if head[1] & _MASKED else 0)
        )

    def _begin_frame(self) -> None:
        if self.left < 1:
            raise FrameError(POLICY, "too many frames for the bytes they carry")
        self.left -= 1
        head = self._head
        first, second = head[0], head[1]
        if first & _RSV:
            raise FrameError(PROTOCOL_ERROR, "reserved bits are set: no extension was agreed")
        if bool(second & _MASKED) is not self._wants_mask:
            raise FrameError(PROTOCOL_ERROR, "a client masks its frames, a server does not")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise FrameError(PROTOCOL_ERROR, "an unknown kind of frame") from None
        length = self._length(second & 0x7F)
        self._check_place(opcode, length, last=bool(first & _FIN))
        self._opcode, self._left, self._offset = opcode, length, 0
        self._key = bytes(head[-MASK_BYTES:]) if self._wants_mask else b""
        if opcode < Opcode.CLOSE:
            self._last = bool(first & _FIN)
            self._in_message = not self._last
            if opcode is not Opcode.CONTINUATION:
                self._message_bytes = 0
        self._head = bytearray()

    def _length(self, short: int) -> int:
        head = self._head
        if short < 126:
            return short
        length: int = (_LENGTH16 if short == 126 else _LENGTH64).unpack_from(head, 2)[0]
        if length < (126 if short == 126 else 1 << 16):
            raise FrameError(PROTOCOL_ERROR, "a length in more bytes than it needs")  # section 5.2
        return length

    def _check_place(self, opcode: Opcode, length: int, *, last: bool) -> None:
        if opcode >= Opcode.CLOSE:
            if not last or length > MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "a control frame is whole and short")
        elif opcode is Opcode.TEXT:
            raise FrameError(UNSUPPORTED, "binary messages alone")
        elif (opcode is Opcode.CONTINUATION) is not self._in_message:
            raise FrameError(PROTOCOL_ERROR, "a continuation without its beginning, or a message inside one")
        elif length > MAX_FRAME:
            raise FrameError(TOO_BIG, f"a frame carries at most {MAX_FRAME} bytes")

    def _take(self, piece: bytes, events: list[FrameEvent]) -> None:
        if self._key:
            turn = self._offset % MASK_BYTES
            data = masked(piece, self._key[turn:] + self._key[:turn])
        else:
            data = piece
        self._offset += len(piece)
        self._left -= len(piece)
        if self._opcode < Opcode.CLOSE:
            self._message_bytes += len(piece)
            self._row.append(data)
        else:
            self._control += data
        if not self._left:
            self._frame_done(events)

    def _frame_done(self, events: list[FrameEvent]) -> None:
        if self._opcode < Opcode.CLOSE:
            self.hollow += not self._offset
            if self._last and not self._message_bytes:
                self._end_row(events)
                events.append(EmptyMessage())
            return
        self._end_row(events)
        self.hollow += 1
        data, self._control = bytes(self._control), bytearray()
        if self._opcode is Opcode.PING:
            events.append(Ping(data))
        elif self._opcode is Opcode.PONG:
            events.append(Pong(data))
        else:
            events.append(_close(data))


def _close(data: bytes) -> Close:
    if not data:
        return Close(NO_STATUS, "")
    if len(data) == 1:
        raise FrameError(PROTOCOL_ERROR, "half a close code")
    code = int(_LENGTH16.unpack_from(data)[0])
    if code not in _SENDABLE and code not in _PRIVATE:
        raise FrameError(PROTOCOL_ERROR, "a close code that nobody may send")
    try:
        return Close(code, data[2:].decode())
    except UnicodeDecodeError:
        raise FrameError(BAD_TEXT, "a close reason that is no UTF-8") from None


def masked(data: bytes, key: bytes) -> bytes:
    """``data`` under the 4-byte ``key`` (section 5.3); once more gives it back.

    As one number: a loop over the bytes would be a hundred times slower.
    """
    size = len(data)
    keys = (key * (size // MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def frame_head(opcode: Opcode, size: int, key: bytes = b"") -> bytes:
    """The head of a whole message in one frame; ``key`` is its mask, of a client."""
    flag = _MASKED if key else 0
    if size < 126:
        return bytes((_FIN | opcode, flag | size)) + key
    if size < 1 << 16:
        return bytes((_FIN | opcode, flag | 126)) + _LENGTH16.pack(size) + key
    return bytes((_FIN | opcode, flag | 127)) + _LENGTH64.pack(size) + key


def frame(opcode: Opcode, payload: bytes, key: bytes = b"") -> bytes:
    """A whole message, or control frame, in one frame."""
    return frame_head(opcode, len(payload), key) + (masked(payload, key) if key else payload)


def close_frame(code: int, reason: str, key: bytes = b"") -> bytes:
    """A Close; the reason is cut to what fits."""
    text = reason.encode()[: MAX_CONTROL - 2].decode(errors="ignore").encode()
    payload = b"" if code == NO_STATUS else _LENGTH16.pack(code) + text
    return frame(Opcode.CLOSE, payload, key)
