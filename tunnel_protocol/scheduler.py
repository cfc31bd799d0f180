"""What leaves next: control frames in order, then framed data, then queued data round robin (section 9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tunnel_protocol.codes import (
    HEADER_SIZE,
    MAX_CONTROL_FRAMES,
    MAX_MESSAGE_BEFORE_HELLO,
    MAX_QUEUED_PONGS,
    QUANTUM,
    FrameType,
)
from tunnel_protocol.frames import HEADER
from tunnel_protocol.pacing import MAX_BATCH

if TYPE_CHECKING:
    from tunnel_protocol.stream import Stream

Piece = bytes | memoryview

_DATA: Final = int(FrameType.DATA)
# Queued data starts no frame in less room than this: crumbs at a message's end cost more than they carry.
_LEAST_ROOM: Final = HEADER_SIZE + 512
# A frame in the batch grows up to this many bytes: beyond, a copy costs more than a header of its own.
TAIL_MOST: Final = 4_096


class Outbox:
    """The sending half of a connection.

    `batch` holds data frames that wait for the next message only; their credit is already spent. `ready` has
    the streams with queued data and stream credit; it is None until a stream first has to wait.
    """

    __slots__ = (
        "_control",
        "_control_bytes",
        "_on_overflow",
        "_pongs",
        "_wake",
        "_woken",
        "batch",
        "batch_bytes",
        "batch_limit",
        "blocked",
        "borrowed",
        "max_frame",
        "max_message",
        "queued",
        "ready",
        "send_limit",
        "sent",
        "tail_stream",
        "unsent_ends",
    )

    def __init__(self, wake: Callable[[], None], on_overflow: Callable[[], None]) -> None:
        self._wake = wake
        self._on_overflow = on_overflow
        self._woken = False  # wake was called and nothing has emptied the outbox since
        self._control: list[bytes] = []
        self._control_bytes = 0
        self._pongs = 0
        self.batch: list[Piece] = []
        self.batch_bytes = 0
        self.batch_limit = MAX_BATCH  # the driver lowers it on slow links
        self.ready: deque[Stream] | None = None
        self.queued = 0  # bytes in all streams' queues
        self.sent = 0  # DATA payload bytes put into batches or messages so far
        self.send_limit = 0  # the peer's connection credit
        self.max_frame = 0  # the peer's, set with its HELLO; 0: no data may leave
        self.max_message = MAX_MESSAGE_BEFORE_HELLO
        self.blocked = False  # set by the driver while the transport is paused
        self.borrowed = False  # the batch refers to a buffer of the caller
        self.unsent_ends = 0  # streams of ours that are over but for a FIN in the batch
        self.tail_stream = 0  # whose frame stands last in `batch` and may grow; 0: none

    def open(self, max_frame: int, max_message: int, connection_window: int) -> None:
        """The peer's HELLO came."""
        self.max_message = max_message
        self.max_frame = min(max_frame, max_message - HEADER_SIZE)
        self.send_limit = connection_window

    @property
    def has_output(self) -> bool:
        return bool(self._control or self.batch or (self.ready and self.sent < self.send_limit))

    @property
    def control_frames(self) -> int:
        return len(self._control)

    def kick(self) -> None:
        """Something may leave now: wakes the driver unless it was woken already."""
        if not self._woken:
            self._woken = True
            self._wake()

    def add_control(self, frame: bytes) -> None:
        if len(self._control) >= MAX_CONTROL_FRAMES:
            self._on_overflow()
            return
        self._control.append(frame)
        self._control_bytes += len(frame)
        if not self._woken:
            self._woken = True
            self._wake()

    def add_pong(self, frame: bytes) -> None:
        self._pongs += 1
        if self._pongs > MAX_QUEUED_PONGS:
            self._on_overflow()
            return
        self.add_control(frame)

    def add_fin(self, stream_id: int) -> None:
        """A FIN whose data is all in the batch or gone."""
        self.batch.append(HEADER.pack(FrameType.FIN, 0, 0, stream_id))
        self.batch_bytes += HEADER_SIZE
        self.tail_stream = 0
        self.kick()

    def commit(self, stream_id: int, data: Piece, size: int) -> None:
        """Frames `data` into the batch. The caller has checked credit and room."""
        position = 0
        while position < size:
            end = min(position + self.max_frame, size)
            self.batch.append(HEADER.pack(_DATA, 0, end - position, stream_id))
            self.batch.append(data if end - position == size else data[position:end])
            self.batch_bytes += HEADER_SIZE + end - position
            position = end
        self.sent += size
        self.tail_stream = 0
        self.kick()

    def grow_tail(self, data: bytes, size: int) -> bool:
        """Puts `data` behind what `tail_stream` sent just before, into one frame; False: too much for one.

        Many services write head and body of a small answer one after the other. One frame is one look into
        the tables, one event and one write to the visitor's socket at the other end. The caller has checked
        credit and room.
        """
        whole = len(self.batch[-1]) + size
        if whole > TAIL_MOST or whole > self.max_frame:
            return False
        self.batch[-1] = b"".join((self.batch[-1], data))
        self.batch[-2] = HEADER.pack(_DATA, 0, whole, self.tail_stream)
        self.batch_bytes += size
        return True

    def room(self) -> int:
        """DATA payload bytes that may still join the batch."""
        if self.blocked or self.ready or not self.max_frame:
            return 0
        batch_limit = min(self.batch_limit, self.max_message)
        free = batch_limit - self.batch_bytes
        free -= HEADER_SIZE * (1 + free // (self.max_frame + HEADER_SIZE))
        return min(free, self.send_limit - self.sent)

    def enlist(self, stream: Stream) -> None:
        """The stream has queued data and stream credit."""
        if self.ready is None:
            self.ready = deque()
        self.ready.append(stream)
        if self.sent < self.send_limit:
            self.kick()

    def forget(self, stream: Stream) -> None:
        """The stream is over: its queued data will not leave."""
        self.queued -= stream.queued
        if stream.enlisted and self.ready:
            self.ready.remove(stream)

    def next_message(self, max_bytes: int, reserve: bytes) -> bytearray | None:
        """The next message: at most the peer's max_message and, unless one frame is larger, `max_bytes`."""
        limit = max_bytes if max_bytes < self.max_message else self.max_message
        total = self._control_bytes + self.batch_bytes
        if total > limit or self.ready:
            return self._assemble(limit, reserve)
        self._woken = False
        if not total:
            return None
        if self._control:
            message = bytearray().join((reserve, *self._control, *self.batch))
            self._control = []
            self._control_bytes = self._pongs = 0
        else:
            message = bytearray().join((reserve, *self.batch))
        if self.batch:
            self._batch_left()
        return message

    def _batch_left(self) -> None:
        self.batch = []
        self.batch_bytes = 0
        self.tail_stream = 0
        self.borrowed = False
        self.unsent_ends = 0

    def _assemble(self, limit: int, reserve: bytes) -> bytearray | None:
        parts: list[Piece] = [reserve]
        room = self._take_control(parts, limit)
        if not self._control:
            room = self._take_batch(parts, room)
            if not self.batch:
                self._take_queues(parts, room)
        if len(parts) == 1:
            self._woken = False  # streams wait, but for the connection's credit: its CREDIT will kick
            return None
        return bytearray().join(parts)

    def _take_control(self, parts: list[Piece], room: int) -> int:
        taken = 0
        for frame in self._control:
            if len(frame) > room and len(parts) > 1:
                break
            parts.append(frame)
            room -= len(frame)
            taken += 1
            self._control_bytes -= len(frame)
        del self._control[:taken]
        if not self._control:
            self._pongs = 0
        return room

    def _take_batch(self, parts: list[Piece], room: int) -> int:
        taken = 0
        while taken < len(self.batch):
            header = self.batch[taken]
            length = HEADER.unpack(header)[2]
            if HEADER_SIZE + length > room and len(parts) > 1:
                del self.batch[:taken]
                return 0
            parts.append(header)
            if length:
                parts.append(self.batch[taken + 1])
            taken += 2 if length else 1
            room -= HEADER_SIZE + length
            self.batch_bytes -= HEADER_SIZE + length
        self._batch_left()
        return room

    def _take_queues(self, parts: list[Piece], room: int) -> None:
        ready = self.ready
        while ready and self.sent < self.send_limit:
            if room < _LEAST_ROOM and len(parts) > 1:
                return
            stream = ready.popleft()
            most = min(
                QUANTUM if ready else room,
                max(room - 2 * HEADER_SIZE, 1),  # a FIN may follow
                self.max_frame,
                self.send_limit - self.sent,
            )
            room -= stream.take_frame(parts, most)
            self.sent += stream.last_taken
            if stream.enlisted:
                ready.append(stream)

    def keep_borrowed(self) -> None:
        """Copies what the batch has borrowed: it cannot leave before the caller's buffer is used again."""
        if self.borrowed:
            self.batch = [bytes(piece) if isinstance(piece, memoryview) else piece for piece in self.batch]
            self.borrowed = False

    def purge(self, *, control: bool) -> None:
        """Drops what will not leave any more."""
        self._batch_left()
        self.ready = None
        self.queued = 0
        if control:
            self._control = []
            self._control_bytes = self._pongs = 0
