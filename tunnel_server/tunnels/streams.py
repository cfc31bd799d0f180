"""What tunnels know of those who use them: streams they opened, and requests that wait for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tunnel_protocol import Stream
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels
    from tunnel_server.tunnels.tunnel import Tunnel


class StreamUser(Protocol):
    """Uses one stream of a session, and is told of its events by the machine (its owner there)."""

    stream: Stream
    """Set by the tunnel right after the OPEN."""


U = TypeVar("U", bound=StreamUser)
NewUser = Callable[["DeviceTunnels", "Tunnel", "Session"], U]


class Waiter(Protocol):
    """A request that waits for a stream. ``queue_deadline`` is monotonic seconds."""

    session: Session | None
    done: bool
    queue_deadline: float

    def take_stream(self, device: DeviceTunnels) -> bool:
        """Its turn has come: open a stream and go on; False when the device has none after all."""
        ...

    def queue_expired(self) -> None:
        """No stream came free in time."""
        ...

    def device_lost(self) -> None:
        """The device went away."""
        ...
