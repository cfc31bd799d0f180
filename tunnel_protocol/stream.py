"""One byte stream to a service of a device (sections 6 and 8)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from tunnel_protocol.codes import HEADER_SIZE, FrameType, RefusedCode, ResetCode
from tunnel_protocol.errors import Misuse
from tunnel_protocol.events import DataReceived, StreamFinished, Writable
from tunnel_protocol.frames import HEADER, credit_frame, refused_frame, reset_frame
from tunnel_protocol.scheduler import Outbox, Piece
from tunnel_protocol.states import STREAM, Call, StreamState, Trigger

if TYPE_CHECKING:
    from tunnel_protocol.connection import Connection

_DATA: Final = int(FrameType.DATA)
# A view up to this size is copied at once: the copy costs less than an early flush of a small batch.
COPY_BELOW: Final = 4_096


class Stream:
    """A stream as its owner uses it. After its end every method does nothing, and send says True.

    `owner` is the caller's own object, given to open_stream or accept; the machine never looks at it.
    """

    __slots__ = (
        "_connection",
        "_direct",
        "_early",
        "_fin_wanted",
        "_offset",
        "_outbox",
        "_queue",
        "_return_at",
        "_send_limit",
        "_sent",
        "_tell_end",
        "_wants_writable",
        "consumed_bytes",
        "enlisted",
        "flowing",
        "id",
        "last_taken",
        "owner",
        "parked",
        "queued",
        "receive_limit",
        "received",
        "returned_at",
        "stalled_since",
        "state",
        "swept_bytes",
        "window",
    )

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        stream_id: int,
        state: StreamState,
        send_limit: int,
        window: int,
        now: float,
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self.id = stream_id
        self.state = state
        self.owner: Any = None
        # Sending. Offsets count DATA payload bytes since the stream began.
        self._sent = 0
        self._send_limit = send_limit
        self._queue: deque[Piece] | None = None  # None until the stream first has to wait
        self._offset = 0  # bytes of the queue's first piece that have left
        self.queued = 0
        self.last_taken = 0
        self.enlisted = False  # stands in Outbox.ready
        self._direct = state is StreamState.OPENING  # may send, and nothing is queued
        self._fin_wanted = False
        self._wants_writable = False
        self._tell_end = False
        self.stalled_since: float | None = None  # since when data has been queued; None while none is
        # Receiving.
        self.flowing = False  # DATA goes straight to the owner
        # DATA before accept. One buffer: a list of crumbs would cost fifty times what the credit allows.
        self._early: bytearray | None = bytearray() if state is StreamState.REQUESTED else None
        self.received = 0
        self.receive_limit = window
        self.window = window
        self.consumed_bytes = 0
        self._return_at = max(window // 2, 1)
        self.returned_at = now
        self.parked = 0  # promised bytes beyond the window, counted in the budget's `parked`
        self.swept_bytes = 0  # consumed_bytes at the last look for idle streams

    def __repr__(self) -> str:
        return (
            f"<Stream {self.id} {self.state.name} sent={self._sent}/{self._send_limit} queued={self.queued} "
            f"received={self.received}/{self.receive_limit} consumed={self.consumed_bytes} "
            f"window={self.window}>"
        )

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def over(self) -> bool:
        return self.state is StreamState.OVER

    @property
    def peer_finished(self) -> bool:
        """Whether its FIN came: no more DATA follows, and no credit is due."""
        return self.state in _NO_MORE_DATA

    @property
    def waits_for_accept(self) -> bool:
        return self._early is not None

    # Sending

    def send(self, data: Piece | bytearray, now: float) -> bool:
        """Sends bytes. False: more than send_queue_high bytes wait; stop until Writable.

        `bytes` are kept, not copied. A large memoryview that can leave at once is borrowed: then
        Connection.borrowed is True and the driver must flush before the buffer changes. Else it is copied.
        """
        outbox = self._outbox
        size = len(data)
        if (
            self._direct
            and type(data) is bytes
            and 0 < size <= outbox.max_frame
            and self._sent + size <= self._send_limit
            and outbox.sent + size <= outbox.send_limit
            and outbox.batch_bytes + size + HEADER_SIZE <= outbox.batch_limit
            and not outbox.ready
            and not outbox.blocked
        ):
            self._sent += size
            outbox.sent += size
            if outbox.tail_stream == self.id and outbox.grow_tail(data, size):
                return True
            outbox.tail_stream = self.id
            outbox.batch_bytes += size + HEADER_SIZE
            batch = outbox.batch
            batch.append(HEADER.pack(_DATA, 0, size, self.id))
            batch.append(data)
            outbox.kick()
            return True
        return self._send_any(data, size, now)

    def _send_any(self, data: Piece | bytearray, size: int, now: float) -> bool:
        if self.state is StreamState.OVER or not size:
            return True
        if self._fin_wanted or self._early is not None:
            raise Misuse("send: " + ("after finish" if self._fin_wanted else "before accept"))
        if isinstance(data, bytearray) or (size < COPY_BELOW and isinstance(data, memoryview)):
            data = bytes(data)
        if self._direct:
            fits = min(size, self._outbox.room(), self._send_limit - self._sent)
            if fits > 0:
                self._sent += fits
                self._outbox.borrowed |= isinstance(data, memoryview)
                self._outbox.commit(self.id, data if fits == size else memoryview(data)[:fits], fits)
                if fits == size:
                    return True
                data, size = memoryview(data)[fits:], size - fits
        self._enqueue(bytes(data), size, now)
        if self.queued <= self._connection.limits.send_queue_high:
            return True
        self._wants_writable = True
        self._connection.wait_for_room(self)
        return False

    def _enqueue(self, data: bytes, size: int, now: float) -> None:
        if self._queue is None:
            self._queue = deque()
        if self.stalled_since is None:
            self.stalled_since = now
        last = self._queue[-1] if self._queue else None
        if size < COPY_BELOW and type(last) is bytes and len(last) < COPY_BELOW:
            # Crumbs that wait shall cost what they carry, not an object each.
            self._queue[-1] = last + data
        else:
            self._queue.append(data)
        self.queued += size
        self._outbox.queued += size
        self._direct = False
        if not self.enlisted and self._sent < self._send_limit:
            self.enlisted = True
            self._outbox.enlist(self)

    def send_room(self) -> int:
        """Bytes that both credits allow now, minus what is queued. After a 0, Writable tells of new room."""
        if self.state is StreamState.OVER:
            return 0
        room = self._room()
        if room <= 0:
            self._wants_writable = True
            self._connection.wait_for_room(self)
        return max(room, 0)

    def _room(self) -> int:
        outbox = self._outbox
        credit = min(
            self._send_limit - self._sent,
            outbox.send_limit - outbox.sent,
            self._connection.limits.send_queue_high,
        )
        return credit - self.queued

    def finish(self, *, tell: bool = False) -> None:
        """FIN after everything sent so far; the other direction goes on.

        `tell`: where bytes wait before it, and the peer has finished, Writable says that they have left and
        the stream is over.
        """
        if self._fin_wanted or self.state is StreamState.OVER:
            return
        self._tell_end = tell
        if self._early is not None:
            raise Misuse("finish: before accept")
        self._fin_wanted = True
        self._direct = False
        if not self.queued:
            self._outbox.add_fin(self.id)
            self._fin_left(in_batch=True)

    def _fin_left(self, *, in_batch: bool) -> None:
        self.state = STREAM[self.state, Call.FIN_LEFT]
        if self.state is StreamState.OVER:
            self._connection.stream_over(self, fin_in_batch=in_batch)
            if self._tell_end and not in_batch:
                self._connection.emit(Writable(self))

    def reset(self, code: ResetCode) -> None:
        """Cuts both directions; what is queued does not leave. The owner is let go: it hears no more."""
        if self.state is not StreamState.OVER:
            self.owner = None
            self._end_by(Call.RESET)
            self._outbox.add_control(reset_frame(self.id, code))

    # Receiving

    def consumed(self, size: int, now: float) -> None:
        """The visitor or the local service took `size` bytes: each half window gives the peer new credit."""
        self.consumed_bytes += size
        if self.consumed_bytes >= self._return_at:
            self._return_credit(now)

    def _return_credit(self, now: float) -> None:
        if self.consumed_bytes > self.received:
            raise Misuse(f"consumed: {self.consumed_bytes} bytes of {self.received} received")
        if self.peer_finished:
            self._return_at = 1 << 63
            return
        self._connection.adapt_window(self, now)
        self.returned_at = now
        self._return_at = self.consumed_bytes + max(self.window // 2, 1)
        offset = self.consumed_bytes + self.window
        if offset > self.receive_limit:
            self.receive_limit = offset
            self._outbox.add_control(credit_frame(self.id, offset))

    def accept(self, owner: object) -> bool:
        """Answers OPENED. False: the stream has ended meanwhile. Data that came early follows as events."""
        if self.state is StreamState.OVER:
            return False
        self.state = self._next(Call.ACCEPT)
        self.owner = owner
        early, self._early = self._early, None
        self._direct = True
        self.flowing = self.state is StreamState.OPEN
        self._outbox.add_control(HEADER.pack(FrameType.OPENED, 0, 0, self.id))
        if early:
            self._connection.emit(DataReceived(self, memoryview(early)))
        if self.state is StreamState.FINISHED_THERE:
            self._connection.emit(StreamFinished(self))
        return True

    def refuse(self, code: RefusedCode, message: str = "") -> None:
        """Answers REFUSED: the stream is over."""
        if self.state is not StreamState.OVER:
            self._end_by(Call.REFUSE)
            self._outbox.add_control(refused_frame(self.id, code, message))

    def statistics(self) -> dict[str, int]:
        return {
            "id": self.id,
            "sent": self._sent,
            "queued": self.queued,
            "received": self.received,
            "consumed": self.consumed_bytes,
            "window": self.window,
        }

    # For the connection and the scheduler

    def is_idle(self, now: float, since_s: float) -> bool:
        """Everything that came is consumed, and no credit was due for `since_s`."""
        return self.received == self.consumed_bytes and now - self.returned_at > since_s

    def _next(self, call: Call) -> StreamState:
        try:
            return STREAM[self.state, call]
        except KeyError:
            raise Misuse(f"{call.value}: not in state {self.state.name}") from None

    def _end_by(self, call: Call) -> None:
        self._next(call)
        self._connection.cut(self)

    def advance(self, trigger: Trigger) -> bool:
        """Follows the table for a frame that came; False: the frame is not allowed now."""
        state = STREAM.get((self.state, trigger))
        if state is None:
            return False
        self.state = state
        self.flowing = state is StreamState.OPEN or state is StreamState.FINISHED_HERE
        return True

    def mark_over(self) -> None:
        self.state = StreamState.OVER
        self.flowing = self._direct = self.enlisted = False
        self._queue = self._early = None
        self.queued = 0
        self.stalled_since = None
        self._return_at = 1 << 63

    def keep_early(self, data: memoryview) -> None:
        if self._early is not None:
            self._early += data

    def credited(self, offset: int) -> None:
        """The peer's CREDIT for this stream."""
        if offset > self._send_limit:
            self._send_limit = offset
            if self.queued and not self.enlisted:
                self.enlisted = True
                self._outbox.enlist(self)

    def take_frame(self, parts: list[Piece], most: int) -> int:
        """Moves up to `most` queued bytes, as one frame, into `parts`; a FIN behind the last of them.

        Returns the frames' size. Clears `enlisted` when nothing more of this stream may leave now.
        """
        size = self.last_taken = min(self.queued, self._send_limit - self._sent, most)
        parts.append(HEADER.pack(_DATA, 0, size, self.id))
        self._take(parts, size)
        self._sent += size
        self.queued -= size
        self._outbox.queued -= size
        taken = HEADER_SIZE + size
        self.enlisted = self.queued > 0 and self._sent < self._send_limit
        if not self.queued:
            self.stalled_since = None
            if self._fin_wanted:
                parts.append(HEADER.pack(FrameType.FIN, 0, 0, self.id))
                self._fin_left(in_batch=False)
                return taken + HEADER_SIZE
            self._direct = True
        if self._wants_writable:
            self.tell_room()
        return taken

    def _take(self, parts: list[Piece], size: int) -> None:
        queue = self._queue
        while size and queue:
            piece, start = queue[0], self._offset
            end = min(len(piece), start + size)
            parts.append(piece if not start and end == len(piece) else memoryview(piece)[start:end])
            size -= end - start
            if end == len(piece):
                queue.popleft()
                self._offset = 0
            else:
                self._offset = end

    def tell_room(self) -> bool:
        """Emits Writable when it is wanted and there is room; whether it was emitted or is wanted no more."""
        if not self._wants_writable:
            return True
        if self.queued > self._connection.limits.send_queue_low or self._room() <= 0:
            return False
        self._wants_writable = False
        self._connection.emit(Writable(self))
        return True


_NO_MORE_DATA: Final = frozenset(
    {StreamState.FINISHED_THERE, StreamState.REQUESTED_FINISHED_THERE, StreamState.OVER}
)
