"""The devices' listener: accepts links, authenticates who dials, and keeps the registry true."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

from runtime.addresses import Address, parse_address
from runtime.client_address import TrustedProxies, group_of
from runtime.logs import get_logger
from runtime.tasks import TaskOwner
from runtime.tls_files import load_pair
from runtime.tunnel_link import Door, Front, Listener, Ticker, UpgradeRequest, listen
from tunnel_protocol import Auth, CloseCode, ConnectionLost, Hello, Limits
from tunnel_server.control.gateway import Gateway
from tunnel_server.control.presence import PresenceReporter
from tunnel_server.metrics import Metrics
from tunnel_server.policy.rates import TokenBucket, TokenBuckets
from tunnel_server.policy.services import service_options
from tunnel_server.settings import TunnelSettings
from tunnel_server.tunnels.authentication import Refusal, check_device
from tunnel_server.tunnels.key_lists import KeyLists
from tunnel_server.tunnels.registry import TunnelRegistry
from tunnel_server.tunnels.tunnel import Tunnel

PATH = "/tunnel"
# For a place at the door; an agent waits 15 s for its link, TLS included.
DOOR_WAIT_S = 8.0
RETURN_LATER_MS = 30_000  # for a device that comes and goes without an end
DEVICES_REMEMBERED = 20_000  # as many as may be connected
# Lines about peers that have proved nothing: anybody can cause them, so they must not fill the log. The
# metrics count all of them.
STRANGER_LINES = 30
STRANGER_LINES_PER_S = 0.5
SOFTWARE = "towline-server/1"

_log = get_logger("tunnel_server.tunnels")


class TunnelNode:
    """Owns the listener and every tunnel from its first byte. ``key_lists`` is fed by the app."""

    def __init__(
        self,
        settings: TunnelSettings,
        *,
        gateway: Gateway,
        registry: TunnelRegistry,
        presence: PresenceReporter,
        metrics: Metrics,
        ticker: Ticker,
        tasks: TaskOwner,
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._registry = registry
        self._presence = presence
        self._metrics = metrics
        self._ticker = ticker
        self._tasks = tasks
        self._listener: Listener | None = None
        self.context: ssl.SSLContext | None = None  # the TLS in use, once it listens
        self._address = parse_address(settings.listen)
        self._names = {name.lower() for name in settings.server_names}
        self._limits = tunnel_limits(settings)
        self._tunnels: set[Tunnel] = set()
        self._handshakes: set[Tunnel] = set()  # those of _tunnels that are not ready yet
        self._handshakes_of: dict[str, int] = {}  # by the group of their address
        self._door = Door(
            at_once=settings.handshakes,
            of_one=settings.handshakes_per_address,
            may_wait=settings.waiting_per_address,
            wait_s=DOOR_WAIT_S,
            turned=lambda why: metrics.devices_refused.labels(why).inc(),
        )
        per_minute = settings.connects_per_device
        self._connects = TokenBuckets(per_minute / 60, per_minute, DEVICES_REMEMBERED)
        self._stranger_lines = TokenBucket(STRANGER_LINES_PER_S, STRANGER_LINES, ticker.now())
        self._unlogged = 0  # lines about strangers since the last one that was written
        metrics.watch("towline_device_handshakes", "Device handshakes under way.", lambda: self._door.inside)
        metrics.watch(
            "towline_device_handshakes_waiting",
            "Device connections that wait for their turn.",
            lambda: self._door.waiting,
        )
        self._draining = False
        self._emptied = asyncio.Event()  # set whenever the last connection closes
        self.key_lists = KeyLists(
            registry,
            software=SOFTWARE,
            spread_s=settings.key_list_spread_s,
            monotonic=ticker.now,
            drains=self.tunnel_drains,
        )

    async def start(self) -> None:
        """Start to listen; OSError when the address is taken."""
        self.context = server_context(self._settings)
        refused = self._metrics.proxies_refused
        self._listener = await listen(
            self._address.host,
            self._address.port,
            self._on_request,
            ssl=self.context,
            max_message=self._limits.max_message,
            front=Front(
                TrustedProxies(self._settings.trusted_proxies),
                self._settings.proxy_protocol,
                lambda why: refused.labels("devices", why).inc(),
            ),
            door=self._door,
        )

    @property
    def address(self) -> Address:
        """Where it listens, with the port the kernel chose for port 0."""
        return self._address if self._listener is None else Address(self._address.host, self._listener.port)

    def drain(self) -> None:
        """Take no more devices; those here are told to go, and leave as their streams end. Again: nothing."""
        if self._draining:
            return
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        for tunnel in list(self._tunnels):
            tunnel.connection.drain(self._settings.reconnect_spread_ms, "the node shuts down")
            self.tunnel_drains(tunnel)

    async def wait_empty(self) -> None:
        """Until no device is connected."""
        while self._tunnels:
            self._emptied.clear()
            await self._emptied.wait()

    def close(self) -> None:
        """Cut what is left."""
        for tunnel in list(self._tunnels):
            tunnel.connection.close(
                CloseCode.NORMAL, "the node shuts down", self._settings.reconnect_spread_ms
            )

    def _on_request(self, request: UpgradeRequest) -> Tunnel | int:
        if request.path.partition("?")[0] != PATH:
            return 404
        why = self._refuses(request.peer)
        if why is not None:
            self._metrics.devices_refused.labels(why).inc()
            return 503
        tunnel = Tunnel(self, self._limits, self._ticker, self._server_name(request.host))
        tunnel.peer_address = request.peer
        self._tunnels.add(tunnel)
        self._handshake_begins(tunnel)
        return tunnel

    def _refuses(self, peer: str) -> str | None:
        """Why nobody can be let in now. Addresses count here for those who came through a proxy that ended
        TLS; all others have waited for their turn at the door."""
        settings = self._settings
        if self._draining:
            return "draining"
        if len(self._tunnels) >= settings.connections or len(self._handshakes) >= settings.handshakes:
            return "node_full"
        of_one = self._handshakes_of.get(group_of(peer), 0)
        return "address_full" if of_one >= settings.handshakes_per_address else None

    def _handshake_begins(self, tunnel: Tunnel) -> None:
        self._handshakes.add(tunnel)
        group = group_of(tunnel.peer_address)
        self._handshakes_of[group] = self._handshakes_of.get(group, 0) + 1

    def _handshake_ended(self, tunnel: Tunnel) -> None:
        if tunnel not in self._handshakes:
            return
        self._handshakes.discard(tunnel)
        group = group_of(tunnel.peer_address)
        left = self._handshakes_of[group] - 1
        if left:
            self._handshakes_of[group] = left
        else:
            del self._handshakes_of[group]

    def _server_name(self, host: str) -> str:
        """The dialled name when it is one of ours (section 4 of the protocol)."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        return name if name in self._names else self._settings.server_names[0]

    def revoke(self, device_id: str) -> None:
        """The device may connect no more; nor may who was let in by an older answer of the gateway."""
        self._registry.revoke(device_id)
        for tunnel in [tunnel for tunnel in self._handshakes if tunnel.claimed_id == device_id]:
            tunnel.connection.close(CloseCode.REVOKED, "the device was revoked")

    # TunnelOwner

    def authenticate(self, tunnel: Tunnel, auth: Auth) -> None:
        tunnel.claimed_id = auth.device
        transcript = tunnel.connection.transcript(auth)
        self._tasks.start(self._authenticate(tunnel, auth, transcript), "authenticate")

    async def _authenticate(self, tunnel: Tunnel, auth: Auth, transcript: bytes) -> None:
        outcome = await check_device(self._gateway, auth, transcript)
        if not isinstance(outcome, Refusal) and not self._connects.take(auth.device, self._ticker.now()):
            outcome = Refusal(CloseCode.TRY_LATER, "the device connects too often", RETURN_LATER_MS)
        if isinstance(outcome, Refusal):
            self._metrics.handshakes.labels(outcome.code.name.lower()).inc()
            tunnel.connection.refuse_peer(outcome.code, outcome.reason, outcome.retry_after_ms)
            return
        tunnel.device_id, tunnel.instance = auth.device, auth.instance
        key_list = self.key_lists.current
        tunnel.key_list_number = self.key_lists.number
        tunnel.connection.admit(
            Hello(software=SOFTWARE, key_list=None if key_list is None else key_list.text)
        )

    def tunnel_ready(self, tunnel: Tunnel, hello: Hello) -> None:
        self._handshake_ended(tunnel)
        if tunnel.link is not None:
            tunnel.link.settled()
        self._metrics.handshakes.labels("ready").inc()
        if self._draining:
            tunnel.connection.drain(self._settings.reconnect_spread_ms, "the node shuts down")
            return
        _log.info(
            "tunnel open",
            extra={"device": tunnel.device_id, "software": hello.software, "address": tunnel.peer_address},
        )
        self._registry.add(tunnel, [service_options(service) for service in hello.services])
        self.key_lists.tunnel_ready(tunnel)

    def tunnel_lost(self, tunnel: Tunnel, event: ConnectionLost) -> None:
        self._tunnels.discard(tunnel)
        if not self._tunnels:
            self._emptied.set()
        code = "none" if event.code is None else event.code.name.lower()
        self._metrics.tunnels_closed.labels(code).inc()
        self._handshake_ended(tunnel)
        about = {
            "address": tunnel.peer_address,
            "fault": event.fault,
            "code": code,
            "reason": event.reason,
        }
        if tunnel.device_id:
            _log.info("tunnel closed", extra={"device": tunnel.device_id, **about})
        else:
            self._log_stranger({"claims": tunnel.claimed_id, **about})
        self._registry.remove(tunnel)

    def _log_stranger(self, about: dict[str, Any]) -> None:
        """Somebody went who had not proved to be a device of ours."""
        if not self._stranger_lines.take(self._ticker.now()):
            self._unlogged += 1
            return
        unlogged, self._unlogged = self._unlogged, 0
        _log.info("device refused", extra=about | ({"unlogged": unlogged} if unlogged else {}))

    def tunnel_drains(self, tunnel: Tunnel) -> None:
        device = self._registry.find(tunnel.device_id)
        if device is not None:
            device.close_idle_of(tunnel)

    # Presence

    def report(self, tunnel: Tunnel, state: str) -> None:
        """Queue a presence event."""
        self._presence.report(describe(tunnel, state))

    def all_present(self) -> list[dict[str, Any]]:
        """Every connected device, for a full report."""
        return self._registry.presence_events(describe)


def describe(tunnel: Tunnel, state: str) -> dict[str, Any]:
    """A presence event of the internal API."""
    hello = tunnel.hello or Hello()
    rtt_s = tunnel.connection.last_rtt_s
    return {
        "device_id": tunnel.device_id,
        "instance": tunnel.instance.hex(),
        "connection": tunnel.number,
        "state": state,
        # Of two instances the gateway keeps the one that came last, whenever it is told.
        "at": tunnel.ready_at if state == "connected" else time.time(),
        "software": hello.software,
        "services": [{"name": service.name, "kind": service.kind} for service in hello.services],
        "rtt_ms": None if rtt_s is None else round(rtt_s * 1000, 1),
        "error": None,
    }


def tunnel_limits(settings: TunnelSettings) -> Limits:
    """The machine's limits from the settings."""
    return Limits(
        max_streams=0,  # devices open no streams: any OPEN of theirs is refused
        keepalive_ms=settings.keepalive_ms,
        stream_window=settings.stream_window,
        stream_window_max=settings.stream_window_max,
        window_budget=settings.window_budget,
        connection_window=settings.connection_window,
        handshake_timeout_s=settings.handshake_s,
    )


def server_context(settings: TunnelSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the node's certificate; None on plain loopback."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_pair(context, settings.certificate, settings.key, "tunnels")
    return context
