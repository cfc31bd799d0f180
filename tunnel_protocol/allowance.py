"""How many control frames a peer may send (section 9): what is moved earns them, a little comes with time.

An honest peer never comes near it. One that repeats frames which say nothing (CREDIT that raises nothing,
PING upon PING, FIN for streams long over) would otherwise keep this side busy for the price of its uplink.
"""

from __future__ import annotations

from typing import Final

from tunnel_protocol.codes import CloseCode
from tunnel_protocol.errors import ProtocolViolation

# Frames that may come at once without having been earned; as many as a control queue holds.
BURST: Final = 4_096
PER_SECOND: Final = 500  # keepalives and refusals; 500 frames cost a server some 2 ms
PER_STREAM: Final = 8  # OPENED or REFUSED, FIN, RESET, and CREDITs for its first bytes
# One CREDIT for so many bytes that went out, or for each half of a smaller window.
BYTES_PER_CREDIT: Final = 256


class ControlAllowance:
    """A bucket of BURST frames, filled only when it is empty: a frame costs one comparison.

    `left` is taken from by the connection itself, which calls fill when it is 0.
    """

    __slots__ = ("_at", "_bytes", "_came", "_ids", "_sent", "left")

    def __init__(self, now: float) -> None:
        self.left = BURST
        self._at = now  # of the last filling, as are the next two
        self._ids = 0
        self._sent = 0
        self._came = 0  # streams that the peer opened since
        self._bytes = BYTES_PER_CREDIT

    def open(self, stream_window: int, connection_window: int) -> None:
        """The peer's HELLO came: it returns credit at half of these windows."""
        self._bytes = max(min(stream_window // 2, connection_window // 2, BYTES_PER_CREDIT), 1)

    def stream_came(self) -> None:
        """The peer opened a stream that it was allowed to open."""
        self._came += 1

    def fill(self, now: float, next_id: int, sent: int) -> None:
        """One frame came and `left` is 0. `next_id`: the next stream id of this side; `sent`: DATA bytes that
        left so far.

        ProtocolViolation(OVERFLOW) when nothing was earned since the last time.
        """
        streams = self._came + (next_id - self._ids) // 2  # ids of one side are two apart
        credits = 2 * (sent - self._sent) // self._bytes  # the stream's and the connection's
        earned = int((now - self._at) * PER_SECOND) + streams * PER_STREAM + credits
        if earned < 1:
            raise ProtocolViolation("more control frames than anything was moved for", CloseCode.OVERFLOW)
        self.left = min(earned, BURST) - 1
        self._at, self._ids, self._sent, self._came = now, next_id, sent, 0
