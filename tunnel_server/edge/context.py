"""What every visitor connection of this process shares; wired once in app.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.client_address import TrustedProxies, group_of
from runtime.clock import Clock
from runtime.tasks import TaskOwner
from tunnel_server.control.gateway import Gateway
from tunnel_server.control.request_log import RequestLog
from tunnel_server.metrics import Metrics
from tunnel_server.policy.cookies import LOOPBACK_NAME, SECURE_NAME
from tunnel_server.policy.hosts import Sites
from tunnel_server.policy.negative_cache import NegativeCache
from tunnel_server.policy.rates import TokenBucket, TokenBuckets
from tunnel_server.sessions import SessionTable
from tunnel_server.settings import DeviceLimits, VisitorSettings
from tunnel_server.tunnels.registry import TunnelRegistry

if TYPE_CHECKING:
    from tunnel_server.edge.visitor import VisitorConnection

# One read of any visitor: larger reads make glibc give back and re-fault pages (PERFORMANCE), and one frame
# of the tunnel is 64 KiB.
READ_BYTES = 65_536
# Addresses whose rate of unknown cookies is remembered; about 200 bytes each.
RATED_ADDRESSES = 10_000
RESOLVE_BURST_S = 4.0  # a page's first load after a restart comes over several connections at once


class Edge:
    """Shared state of the visitors' side. ``accepts_sessions`` tells whether the revocation feed is fresh."""

    def __init__(
        self,
        settings: VisitorSettings,
        device_limits: DeviceLimits,
        *,
        gateway: Gateway,
        gateway_url: str,
        gateway_call_s: float,
        sessions: SessionTable,
        registry: TunnelRegistry,
        request_log: RequestLog,
        metrics: Metrics,
        clock: Clock,
        tasks: TaskOwner,
        accepts_sessions: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.device_limits = device_limits
        self.gateway = gateway
        self.gateway_url = gateway_url.rstrip("/")
        self.gateway_call_s = gateway_call_s
        self.sessions = sessions
        self.registry = registry
        self.request_log = request_log
        self.metrics = metrics
        self.tasks = tasks
        self.accepts_sessions = accepts_sessions
        self.monotonic = clock.monotonic
        self.wall = clock.wall
        self.sites = Sites(settings.domain, settings.scheme)
        self.scheme = settings.scheme.encode()
        self.cookie_name = SECURE_NAME if settings.scheme == "https" else LOOPBACK_NAME
        self.unknown_cookies = NegativeCache()
        self.connections: set[VisitorConnection] = set()
        # By the group of their address; those in a TLS handshake are apart: they are no connections yet.
        self.per_address: dict[str, int] = {}
        self.handshakes: dict[str, int] = {}
        self.in_handshake = 0
        self.draining = False  # the process ends: every answer is its connection's last
        self.idle_until = float("inf")  # monotonic: from then on no connection waits for a request
        self.emptied = asyncio.Event()  # set whenever the last connection closes
        # Only ever used between get_buffer and buffer_updated of one read, so one buffer serves all.
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        limits, now = settings.limits, clock.monotonic()
        self._resolves = TokenBucket(
            limits.resolves_per_s_total, limits.resolves_per_s_total * RESOLVE_BURST_S, now
        )
        self._resolves_by_address = TokenBuckets(
            limits.resolves_per_s, limits.resolves_per_s * RESOLVE_BURST_S, RATED_ADDRESSES
        )
        self.proxies = TrustedProxies(settings.trusted_proxies)

    async def wait_empty(self) -> None:
        """Until no visitor is connected."""
        while self.connections:
            self.emptied.clear()
            await self.emptied.wait()

    @contextmanager
    def handshake(self, address: str) -> Iterator[bool]:
        """While a visitor of ``address`` is in a TLS handshake; False: it is one too many."""
        group, limits = group_of(address), self.limits
        own = self.handshakes.get(group, 0)
        known = self.per_address.get(group, 0) + own < limits.connections_per_address
        room = len(self.connections) + self.in_handshake < limits.connections
        if not room or not (known or self.proxies.trusts(address)):
            yield False
            return
        self.handshakes[group] = own + 1
        self.in_handshake += 1
        try:
            yield True
        finally:
            self.in_handshake -= 1
            self.handshakes[group] -= 1
            if not self.handshakes[group]:
                del self.handshakes[group]

    def may_ask_gateway(self, address: str) -> bool:
        """Whether one more question about an unknown cookie or link is within the rates."""
        now = self.monotonic()
        return self._resolves_by_address.take(group_of(address), now) and self._resolves.take(now)

    def client_address(self, peer: str, forwarded_for: bytes | None) -> str:
        """The visitor's own address, behind proxies too; ``peer`` is who connected, or whom a PROXY header
        named."""
        if forwarded_for is None:
            return peer
        return self.proxies.client(peer, forwarded_for.decode("latin-1"))
