"""The only place that wires a tunnel server node together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from runtime import logs, settings
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.internal_http import InternalHttp
from runtime.metrics import Registry
from runtime.ops_server import OpsServer
from runtime.process import EXIT_CRASH, EXIT_OK, Shutdown
from runtime.revocation_feed import RevocationFeed
from runtime.tasks import TaskOwner
from runtime.tunnel_link import Ticker
from tunnel_server.control.arrivals import Arrivals
from tunnel_server.control.gateway import Gateway, HttpGateway
from tunnel_server.control.presence import PresenceReporter
from tunnel_server.control.request_log import RequestLog
from tunnel_server.edge.context import Edge
from tunnel_server.edge.listener import VisitorListener
from tunnel_server.errors import GatewayRefused, GatewayUnavailable
from tunnel_server.metrics import Metrics
from tunnel_server.sessions import EndReason, Session, SessionTable
from tunnel_server.settings import Settings
from tunnel_server.tunnels.node import TunnelNode
from tunnel_server.tunnels.registry import TunnelRegistry

KEY_LIST_S = 60.0  # a new key signs a day after it was listed
KEY_LIST_RETRY_S = 1.0  # at first, when the gateway may still be starting
FLUSH_S = 5.0  # the log of support sessions is for its reader: worth a moment more than presence
CLOSE_S = 1.0  # for owned tasks and last frames; an idle exit stays under 2 s

_log = logs.get_logger("tunnel_server")


class Node:
    """One tunnel server. ``start`` listens, ``stop`` drains."""

    def __init__(
        self,
        config: Settings,
        gateway: Gateway,
        *,
        gateway_context: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_crash`: a task that must run for ever has failed, and the process is of no use any more."""
        self._config = config
        self._on_crash = on_crash
        self.crashed = False
        self._gateway = gateway
        self._gateway_context = gateway_context
        self._clock = clock
        self.registry = Registry()
        self.metrics = Metrics(self.registry)
        self.tasks = TaskOwner("tunnel_server")
        self._lasting = TaskOwner("node", on_crash=self._task_crashed)
        ticker = Ticker()
        self.sessions = SessionTable(
            clock, idle_streams=config.devices.idle_streams, on_end=self._session_ended
        )
        self.devices = TunnelRegistry(
            config.devices,
            sessions=self.sessions,
            metrics=self.metrics,
            monotonic=ticker.now,
            report=lambda tunnel, state: self.tunnels.report(tunnel, state),
        )
        self.presence = PresenceReporter(
            gateway,
            node=config.node,
            heartbeat_s=config.gateway.presence_s,
            connected=lambda: self.tunnels.all_present(),
        )
        self.request_log = RequestLog(gateway, clock, self.metrics)
        self.tunnels = TunnelNode(
            config.tunnels,
            gateway=gateway,
            registry=self.devices,
            presence=self.presence,
            metrics=self.metrics,
            ticker=ticker,
            tasks=self.tasks,
        )
        self.feed = RevocationFeed(gateway, self, clock, config.gateway)
        self.edge = Edge(
            config.visitors,
            config.devices,
            gateway=gateway,
            gateway_url=config.gateway.public_url,
            gateway_call_s=config.gateway.call_s,
            sessions=self.sessions,
            registry=self.devices,
            request_log=self.request_log,
            metrics=self.metrics,
            clock=clock,
            tasks=self.tasks,
            accepts_sessions=self.feed.is_fresh,
        )
        self.visitors = VisitorListener(self.edge)
        self.arrivals = Arrivals(gateway, wait_s=config.arrivals_s, is_known=lambda: self.presence.is_known)
        self.certificates = CertificateWatch(self.registry, wall=clock.wall)
        self.ops = OpsServer(config.ops_listen, self.registry, self.failed_checks)
        self._watch()

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("towline_sessions", "Live sessions on this node.", lambda: len(self.sessions))
        watch("towline_tunnels", "Open tunnels.", lambda: len(self.devices))
        watch("towline_visitor_connections", "Open visitor connections.", lambda: len(self.edge.connections))
        watch("towline_draining", "1 from SIGTERM to the end.", lambda: int(self.edge.draining))
        watch(
            "towline_devices_awaited",
            "Devices of other nodes that a node just started waits for, before it takes visitors.",
            lambda: self.arrivals.awaited or 0,
        )
        watch("towline_feed_number", "Highest revocation handled.", lambda: self.feed.position.number)
        watch(
            "towline_request_log_queued",
            "Entries of the log of support sessions that wait for the gateway.",
            lambda: len(self.request_log),
        )
        watch(
            "towline_feed_fresh", "1 while the revocation feed is heard.", lambda: int(self.feed.is_fresh())
        )

    async def start(self) -> None:
        """Listen; OSError when an address is taken."""
        await self.ops.start()
        self._lasting.start(self.feed.follow(), "revocations")
        self._lasting.start(self._watch_grace(), "grace")
        self._lasting.start(self._fetch_key_list(), "key_list")
        self._lasting.start(self.tunnels.key_lists.renew(), "renew")
        await self.tunnels.start()
        await self.visitors.bind()
        self._watch_certificates()
        await self.presence.send_once()
        self._lasting.start(self.presence.run(), "presence")
        self._lasting.start(self.request_log.run(), "request_log")
        self._lasting.start(self.visitors.sweep(), "sweep")
        if await self.arrivals.ask():
            await self.visitors.open()
        else:
            self._lasting.start(self.arrivals.wait(self.visitors.open), "arrivals")
        _log.info(
            "node started",
            extra={
                "node": self._config.node,
                "visitors": str(self.visitors.address),
                "devices": str(self.tunnels.address),
                "ops": str(self.ops.address),
            },
        )

    def _watch_certificates(self) -> None:
        """They are renewed while the node runs: on SIGHUP, and each minute, the files are read again."""
        visitors, tunnels = self._config.visitors, self._config.tunnels
        for name, context, part in (
            ("visitors", self.visitors.context, visitors),
            ("devices", self.tunnels.context, tunnels),
            ("gateway", self._gateway_context, self._config.gateway),
        ):
            if context is not None and part.certificate is not None and part.key is not None:
                self.certificates.add(name, context, part.certificate, part.key)
        self._lasting.start(self.certificates.run(), "certificates")

    async def stop(self) -> None:
        """Finish what is in flight within ``drain_s``, then cut.

        Visitors first: as long as one of them may send a request, it needs a stream, and a tunnel that was
        told GOAWAY opens none.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_s):
                await self.visitors.drain()
                self.tunnels.drain()
                await self.edge.wait_empty()
                await self.tunnels.wait_empty()
        self._cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):  # a gateway that is down too must not hold up the exit
                await self.presence.send_once()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self.request_log.flush()
        await self._lasting.close(CLOSE_S)
        await self.tasks.close(CLOSE_S)
        await self.ops.close()
        _log.info("node stopped", extra={"node": self._config.node})

    def _task_crashed(self, name: str, error: BaseException) -> None:
        self.crashed = True
        self._on_crash()

    def _cut(self) -> None:
        """Cut every connection that is left."""
        left = len(self.edge.connections)
        if left:
            _log.warning("visitors were cut at the end of the drain", extra={"connections": left})
        self.visitors.close()
        self.tunnels.drain()
        self.tunnels.close()

    def failed_checks(self) -> list[str]:
        """Readiness: the names of what fails."""
        failed = []
        if not self.feed.is_fresh():
            failed.append("revocation_feed")
        if not self.arrivals.over:
            failed.append("devices_arriving")
        if self.edge.draining:
            failed.append("draining")
        return failed

    # RevocationTarget

    def session_revoked(self, sid: str, device_id: str | None) -> None:
        if not self.sessions.revoke(sid) and device_id is not None:
            # Its visitor is at another node, which may be a hostile one that tells the device nothing.
            self.devices.revoke_grant(device_id, UUID(sid).bytes)  # one id for both (decision 0002)

    def device_revoked(self, device_id: str) -> None:
        self.sessions.revoke_device(device_id)
        self.tunnels.revoke(device_id)

    def device_replaced(self, device_id: str, keep_instance: bytes) -> None:
        self.devices.keep_instance(device_id, keep_instance)

    def control_lost(self) -> None:
        self.sessions.end_all("control_lost")

    def _session_ended(self, session: Session, reason: EndReason) -> None:
        self.metrics.sessions_ended.labels(reason).inc()
        self.devices.session_ended(session, revoked=reason == "revoked")

    async def _watch_grace(self) -> None:
        while True:
            await asyncio.sleep(self._config.gateway.feed_silence_s / 5)
            self.feed.check_grace(self._clock.monotonic())

    async def _fetch_key_list(self) -> None:
        while True:
            key_lists = self.tunnels.key_lists
            try:
                key_lists.take(await self._gateway.key_list())
            except (GatewayUnavailable, GatewayRefused) as error:
                _log.warning("key list was not renewed", extra={"error": str(error)})
            await asyncio.sleep(KEY_LIST_S if key_lists.current is not None else KEY_LIST_RETRY_S)


async def main(path: Path) -> int:
    """Run a node until SIGTERM; SettingsError for a bad file. The exit code."""
    config = settings.load(Settings, path)
    logs.configure("tunnel_server", config.log_level)
    shutdown = Shutdown().install()
    http = InternalHttp(
        config.gateway,
        calls_waiting=config.gateway.calls_waiting,
        answer_bytes=config.gateway.answer_bytes,
    )
    node = Node(config, HttpGateway(http), gateway_context=http.context, on_crash=shutdown.request)
    # Before the start, which may take a while: unheard, the signal would end the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.certificates.reload)
    try:
        await node.start()
        await shutdown.requested.wait()
    finally:
        await node.stop()
        http.close()
    return EXIT_CRASH if node.crashed else EXIT_OK
