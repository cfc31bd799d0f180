"""What one side allows the other, and where its own queues end."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel_protocol.codes import HEADER_SIZE, MAX_KEEPALIVE_MS, MIN_KEEPALIVE_MS
from tunnel_protocol.errors import Misuse


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes. The first group is told to the peer in HELLO; the second is ours alone."""

    max_frame: int = 65_535  # largest DATA payload accepted
    # Largest message accepted. Senders have no use for over 64 KiB; a stranger may make us buffer this much.
    max_message: int = 1 << 18
    stream_window: int = 65_536  # first credit of every stream towards us
    connection_window: int = 1 << 20  # first credit of the connection; bounds what is in flight
    max_streams: int = 256  # streams that the peer may have open at once
    keepalive_ms: int = 4_000  # silence after which we ask; 2.25 times that and the peer is dead

    stream_window_max: int = 4 << 20  # a stream's window grows up to here
    # What a connection's windows may grow by; as much again may lie parked. With it eight readers of large
    # files who stopped reading cost a server 8 to 10 MB.
    window_budget: int = 6 << 20
    handshake_timeout_s: float = 10.0
    send_queue_high: int = 65_536  # Stream.send says False above this many queued bytes
    send_queue_low: int = 16_384  # and Writable follows at or below this many

    def __post_init__(self) -> None:
        _check("max_frame", self.max_frame, 256, 65_535)
        _check("max_message", self.max_message, 2_048, 2**32 - 1)
        _check("stream_window", self.stream_window, 1, 2**32 - 1)
        _check("connection_window", self.connection_window, 1, 2**32 - 1)
        _check("max_streams", self.max_streams, 0, 2**32 - 1)
        _check("keepalive_ms", self.keepalive_ms, MIN_KEEPALIVE_MS, MAX_KEEPALIVE_MS)
        _check("stream_window_max", self.stream_window_max, self.stream_window, 2**32 - 1)
        _check("send_queue_low", self.send_queue_low, 0, self.send_queue_high)
        if self.max_frame + HEADER_SIZE > self.max_message:
            raise Misuse("max_frame: a whole frame must fit into max_message")


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Misuse(f"{name}: must be {low}..{high}, not {value}")
