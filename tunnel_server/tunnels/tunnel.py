"""One device's connection: who it is, what it serves, and the streams this node opens over it."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING, Protocol

from runtime.logs import get_logger
from runtime.tunnel_link import Link, Ticker, TunnelDriver
from tunnel_protocol import (
    AuthReceived,
    ConnectionLost,
    Event,
    GoawayReceived,
    Hello,
    Limits,
    PeerReady,
    Side,
)
from tunnel_protocol.codes import NONCE_SIZE

if TYPE_CHECKING:
    from tunnel_protocol import Auth
    from tunnel_server.sessions import Session
    from tunnel_server.tunnels.registry import DeviceTunnels
    from tunnel_server.tunnels.streams import NewUser, U

_numbers = itertools.count(1)

_log = get_logger("tunnel_server.tunnels")


class TunnelOwner(Protocol):
    """The node as its tunnels see it."""

    def authenticate(self, tunnel: Tunnel, auth: Auth) -> None:
        """Check it, then admit or refuse the tunnel, now or later."""
        ...

    def tunnel_ready(self, tunnel: Tunnel, hello: Hello) -> None: ...

    def tunnel_lost(self, tunnel: Tunnel, event: ConnectionLost) -> None: ...

    def tunnel_drains(self, tunnel: Tunnel) -> None: ...


class Tunnel(TunnelDriver):
    """``device_id`` and ``instance`` are set once the device has proved its key; ``granted`` holds the grants
    sent over this connection, ``key_list_number`` names the list in our HELLO (0: none). ``in_use`` counts
    open streams, ``live_streams`` the long-lived among them.
    """

    __slots__ = (
        "_owner",
        "_server_name",
        "claimed_id",
        "device_id",
        "granted",
        "hello",
        "in_use",
        "instance",
        "key_list_number",
        "live_streams",
        "number",
        "peer_address",
        "ready_at",
    )

    def __init__(self, owner: TunnelOwner, limits: Limits, ticker: Ticker, server_name: str) -> None:
        self._owner = owner
        self._server_name = server_name
        self.number = next(_numbers)
        self.device_id = ""
        self.instance = b""
        self.hello: Hello | None = None  # the device's, once it is ready
        self.ready_at = 0.0  # Unix seconds
        self.claimed_id = ""  # who it says it is, before anything is proved
        self.granted: set[bytes] = set()
        self.key_list_number = 0
        self.in_use = 0
        self.live_streams = 0
        self.peer_address = ""
        super().__init__(Side.SERVER, limits, ticker)

    def on_open(self) -> None:
        self.connection.challenge(secrets.token_bytes(NONCE_SIZE), self._server_name)

    def link_open(self, link: Link) -> None:
        self.peer_address = link.peer_address
        super().link_open(link)

    def on_event(self, event: Event) -> None:
        if isinstance(event, AuthReceived):
            self._owner.authenticate(self, event.auth)
        elif isinstance(event, PeerReady):
            self.hello, self.ready_at = event.hello, time.time()
            self._owner.tunnel_ready(self, event.hello)
        elif isinstance(event, GoawayReceived):
            _log.info(
                "device goes",
                extra={"device": self.device_id, "code": event.code.name.lower(), "reason": event.reason},
            )
            self._owner.tunnel_drains(self)
        elif isinstance(event, ConnectionLost):
            self._owner.tunnel_lost(self, event)

    # Streams

    def open(self, device: DeviceTunnels, session: Session, new_user: NewUser[U]) -> U:
        """The user of a fresh stream to the session's service; StreamLimit or ConnectionDraining: there is
        none."""
        facts = session.facts
        connection = self.connection
        if facts.grant_id not in self.granted:
            self.granted.add(facts.grant_id)
            connection.grant(facts.grant_id, facts.grant)
        user = new_user(device, self, session)
        user.stream = connection.open_stream(facts.device_id, facts.service, facts.grant_id, user, self.now())
        self.in_use += 1
        return user

    def has_grant(self, grant_id: bytes) -> bool:
        """Whether it was sent here and not taken back."""
        return grant_id in self.granted

    def revoke(self, grant_id: bytes) -> None:
        """The grant's session ended: also where it never was sent, so that nobody else brings it."""
        self.granted.discard(grant_id)
        self.connection.revoke(grant_id)

    def forget_grant(self, grant_id: bytes) -> None:
        """The device did not take it: the session's next stream brings its grant anew."""
        self.granted.discard(grant_id)

    def has_room_for_live(self) -> bool:
        """One stream stays free of WebSockets and event streams, so that pages still load beside them."""
        return self.live_streams < self.connection.peer_max_streams - 1
