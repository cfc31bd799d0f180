"""Wiring of the agent, and what its tunnels share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final

from runtime.addresses import parse_address
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.logs import configure, get_logger
from runtime.metrics import Registry
from runtime.process import EXIT_CRASH, EXIT_OK, Shutdown
from runtime.settings import SettingsError, load
from runtime.tasks import TaskOwner
from runtime.tunnel_link import Ticker
from tunnel_agent.dialler import Dialler
from tunnel_agent.errors import IdentityError
from tunnel_agent.gateway_client import trust
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.memory import release_startup_memory
from tunnel_agent.metrics import agent_metrics, watch_agent
from tunnel_agent.policy.grants import Grant, GrantBook, Revocation
from tunnel_agent.policy.jws import TokenRefused
from tunnel_agent.policy.key_list import may_replace, verify_key_list
from tunnel_agent.policy.reconnect import MAX_CONNECTIONS, Ending, first_urls
from tunnel_agent.renewal import keep_renewed
from tunnel_agent.revocations import SAVE_EVERY_S, RevocationKeeper
from tunnel_agent.settings import AgentSettings, LimitSettings, ServiceSettings
from tunnel_agent.supervision import Supervisor
from tunnel_agent.tunnel import AgentTunnel, Device
from tunnel_agent.version import SOFTWARE
from tunnel_protocol import CloseCode, ConnectionState, Hello, Limits, Service

if TYPE_CHECKING:
    from runtime.ops_server import OpsServer
    from tunnel_agent.messages.side import MessageSide

_log = get_logger("tunnel_agent")

HANDSHAKE_TIMEOUT_S: Final = 10.0  # specification, section 3; counted from the link's opening
CLOSE_TIMEOUT_S: Final = 1.5  # for tasks and links to end after the drain; a link gives its peer 1 s


class Agent:
    """Keeps the tunnels up; shares grants, keys and the identity between them."""

    def __init__(
        self,
        settings: AgentSettings,
        identity: Identity,
        store: IdentityStore,
        *,
        clock: Clock = SYSTEM_CLOCK,
        on_crash: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Must be made while the event loop runs. `on_crash`: a task that must run for ever has failed.
        `sleep`: between two dials.
        """
        self.identity = identity
        self.crashed = False
        self._settings = settings
        self._store = store
        self._clock = clock
        self._on_crash = on_crash
        self._sleep = sleep
        self._lasting = TaskOwner("agent", on_crash=self._task_crashed)
        self._work = TaskOwner("agent work")  # each ends by itself
        self._side = TaskOwner("messages")  # apart: no crash there is one of the agent
        # Those that are open, and those that drain.
        self._tunnels: set[AgentTunnel] = set()
        self._all_gone = asyncio.Event()
        self._was_ready = False
        self._diallers: list[Dialler] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._trust: tuple[str | None, SSLContext] | None = None
        self.grants = GrantBook(
            identity.device_id,
            identity.key_list,
            earliest=identity.certificate.not_before,
        )
        self._revocations = RevocationKeeper(self.grants.revoked, store, clock)
        self._revocations.load()
        self.registry = Registry()
        self._metrics = agent_metrics(self.registry)
        watch_agent(
            self.registry,
            tunnels=lambda: len(self._open_tunnels()),
            streams=lambda: sum(len(tunnel.connection.streams()) for tunnel in self._tunnels),
            grants=lambda: len(self.grants),
            certificate_until=lambda: self.identity.certificate.not_after,
        )
        self._messages = self._message_side()
        self._device = Device(
            id=identity.device_id,
            instance=secrets.token_bytes(16),
            key=identity.key,
            services={name: parse_address(s.address) for name, s in settings.services.items()},
            limits=limits(settings.limits, settings.dial_timeout_s),
            hello=Hello(software=SOFTWARE, services=services(settings.services)),
            grants=self.grants,
            clock=clock,
            ticker=Ticker(),
            metrics=self._metrics,
            connect_timeout_s=settings.connect_timeout_s,
            closed_to_support=frozenset(name for name, s in settings.services.items() if not s.support),
        )

    def __repr__(self) -> str:
        return f"<Agent {self._device.id} {len(self._tunnels)} tunnels, {len(self.grants)} grants>"

    def run(self) -> None:
        """Start dialling and renewing; returns at once."""
        for url in first_urls(self.tunnel_urls(), self._settings.connections):
            self._dial(url)
        renewing = keep_renewed(lambda: self.identity, self._store, self._clock, self._renewed)
        self._lasting.start(renewing, "renewal")
        self._lasting.start(self._revocations.run(), "revocations")
        if self._messages is not None:
            self._side.start(self._messages.run(), "run")

    def _message_side(self) -> MessageSide | None:
        if not self._settings.messages.enabled:
            return None
        from tunnel_agent.messages.side import MessageSide  # 6 MiB that a device without it keeps free

        return MessageSide(
            self._settings.messages,
            self._store.directory,
            lambda: self.identity,
            self._clock,
            self.registry,
        )

    def _dial(self, url: str) -> None:
        dialler = Dialler(
            self,
            url,
            dial_timeout_s=self._settings.dial_timeout_s,
            max_message=self._device.limits.max_message,
            now=self._clock.monotonic,
            sleep=self._sleep,
        )
        self._diallers.append(dialler)
        self._lasting.start(dialler.run(), f"dialler {len(self._diallers)}")

    def _dial_new_nodes(self) -> None:
        """After a renewal. A tunnel to a node that it withdrew stays until that node ends it."""
        in_use = self.urls_in_use()
        for url in self.tunnel_urls():
            if url not in in_use and len(self._diallers) < MAX_CONNECTIONS:
                self._dial(url)

    async def close(self, drain_s: float) -> None:
        """Let streams finish for up to `drain_s` seconds, then end everything."""
        await self._lasting.close(CLOSE_TIMEOUT_S)
        await self._side.close(CLOSE_TIMEOUT_S)
        for tunnel in list(self._tunnels):
            tunnel.connection.drain(0, "the agent stops")
        await self._wait_gone(drain_s)
        for tunnel in list(self._tunnels):
            tunnel.connection.close(CloseCode.NORMAL, "the agent stops")
        await self._wait_gone(CLOSE_TIMEOUT_S)
        await self._work.close(CLOSE_TIMEOUT_S)
        await self._revocations.close()
        if self._expiry is not None:
            self._expiry.cancel()

    def _task_crashed(self, name: str, error: BaseException) -> None:
        self.crashed = True
        self._on_crash()

    async def _wait_gone(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._tunnels:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            _log.info("streams were cut", extra={"tunnels": len(self._tunnels)})

    def failed_checks(self) -> list[str]:
        """Why nobody can reach the device now, or its messages nobody; empty when all is well."""
        failed = [] if self._open_tunnels() else ["no tunnel is open"]
        if self._clock.wall() >= self.identity.certificate.not_after:
            failed.append("the device's certificate has expired")
        if self._messages is not None and self._messages.problem is not None:
            failed.append(self._messages.problem)
        return failed

    def _open_tunnels(self) -> list[AgentTunnel]:
        return [tunnel for tunnel in self._tunnels if tunnel.connection.state is ConnectionState.OPEN]

    # For diallers

    def tunnel_urls(self) -> tuple[str, ...]:
        return self._settings.server_urls or self.identity.tunnel_urls

    def urls_in_use(self) -> frozenset[str]:
        return frozenset(dialler.url for dialler in self._diallers)

    def trust(self) -> SSLContext:
        pem = self.identity.server_ca
        if self._trust is None or self._trust[0] != pem:
            self._trust = (pem, trust(pem))
        return self._trust[1]

    def make_tunnel(self, url: str, host: str) -> AgentTunnel:
        tunnel = AgentTunnel(self._device, self, url, host)
        self._tunnels.add(tunnel)
        return tunnel

    def tunnel_ended(self, ending: Ending) -> None:
        self._metrics.tunnels_ended.labels(ending.value).inc()

    # For tunnels

    def tunnel_ready(self, tunnel: AgentTunnel) -> None:
        self._metrics.tunnels_opened.inc()
        if not self._was_ready:
            self._was_ready = True
            release_startup_memory()
        for dialler in self._diallers:
            if dialler.tunnel is tunnel:
                dialler.opened()

    def tunnel_gone(self, tunnel: AgentTunnel) -> None:
        self._tunnels.discard(tunnel)
        if not self._tunnels:
            self._all_gone.set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._work.start(work, name)

    def key_list_received(self, text: bytes) -> None:
        if text == self.identity.key_list.text:
            return
        try:
            offered = verify_key_list(text, self.identity.device_root)
        except TokenRefused as refused:
            _log.error("a server sent a forged key list", extra={"reason": str(refused)})
            return
        known = self.identity.key_list
        if not may_replace(offered, known):
            _log.warning(
                "a server sent an old key list", extra={"sent": offered.number, "known": known.number}
            )
            return
        self.identity = replace(self.identity, key_list=offered)
        self._end_grants(self.grants.replace_keys(offered), "its key was withdrawn")
        _log.info("key list taken", extra={"number": offered.number, "keys": len(offered.keys)})
        self._work.start(self._save_key_list(), "save key list")

    def grant_accepted(self, grant: Grant) -> None:
        self._schedule_expiry()

    def grant_revoked(self, grant_id: bytes, server: str) -> None:
        found = self.grants.revoke(grant_id, self._clock.monotonic(), server)
        if found is not Revocation.KNOWN:
            self._revocations.changed(urgent=found is Revocation.ENDED)
        # Ids that were never granted pass quietly: a hostile server must not fill the log.
        if found is Revocation.ENDED:
            self._end_grants([grant_id], "it was revoked")

    def _end_grants(self, grant_ids: list[bytes], why: str) -> None:
        for grant_id in grant_ids:
            cut = sum(tunnel.end_grant(grant_id) for tunnel in list(self._tunnels))
            _log.info("grant ended", extra={"grant": grant_id.hex(), "reason": why, "streams_cut": cut})

    def _schedule_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        at = self.grants.next_expiry()
        if at is not None:
            delay = max(0.0, at - self._clock.monotonic())
            self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._end_grants(self.grants.expire(self._clock.monotonic()), "its time is over")
        self._schedule_expiry()

    # The identity on disk

    async def _save_key_list(self) -> None:
        """Until it is on disk: it is in force all the same, but a restart would take an older one for new."""
        failed = False
        while True:
            try:
                await asyncio.to_thread(self._store.save_key_list, self.identity.key_list)
            except OSError as error:
                if not failed:
                    _log.error("key list not saved, trying again", extra={"reason": str(error)})
                failed = True
                await asyncio.sleep(SAVE_EVERY_S)
            else:
                if failed:
                    _log.info("key list saved again")
                return

    def _renewed(self, identity: Identity) -> None:
        known = self.identity.key_list
        if may_replace(identity.key_list, known):
            self.identity = identity
            self._end_grants(self.grants.replace_keys(identity.key_list), "its key was withdrawn")
        else:  # a HELLO may have brought a newer one while the gateway was asked
            self.identity = replace(identity, key_list=known)
            self._work.start(self._save_key_list(), "save key list")
        self._dial_new_nodes()
        if self._messages is not None:
            self._messages.identity_renewed()


def limits(settings: LimitSettings, dial_timeout_s: float) -> Limits:
    """The machine's limits; its handshake clock runs from the start of dialling."""
    return Limits(
        max_frame=settings.max_frame,
        max_message=settings.max_message,
        stream_window=settings.stream_window,
        connection_window=settings.connection_window,
        max_streams=settings.max_streams,
        keepalive_ms=settings.keepalive_ms,
        stream_window_max=max(settings.stream_window, settings.stream_window_max),
        window_budget=settings.window_budget,
        handshake_timeout_s=dial_timeout_s + HANDSHAKE_TIMEOUT_S,
    )


def services(settings: dict[str, ServiceSettings]) -> tuple[Service, ...]:
    """What HELLO says of the services: enough for the server to write Host, Origin and forwarding headers."""
    return tuple(
        Service(name, s.kind, s.host, s.forwarded_headers, upstream=s.address if s.kind == "web" else "")
        for name, s in settings.items()
    )


async def run_agent(config: Path) -> int:
    """The process: read, connect, serve until SIGTERM. SettingsError for a mistake of whoever wrote the
    file.
    """
    settings = load(AgentSettings, config)
    configure("tunnel_agent", settings.log_level)
    store = IdentityStore(settings.state_dir)
    try:
        identity = store.load()
    except IdentityError as error:
        raise SettingsError(f"state_dir: {error} (file {config})") from error
    if not (settings.server_urls or identity.tunnel_urls):
        raise SettingsError(f"server_urls: empty, and enrolment gave none (file {config})")
    shutdown, supervisor = Shutdown().install(), Supervisor()
    agent = Agent(settings, identity, store, on_crash=shutdown.request)
    ops = await _start_ops(settings.ops_listen, agent)
    agent.run()
    watchdog = TaskOwner("supervision")
    watchdog.start(supervisor.feed_watchdog(), "watchdog")
    supervisor.tell(f"READY=1\nSTATUS={identity.device_id}")
    _log.info("agent started", extra={"device": identity.device_id, "services": sorted(settings.services)})
    await shutdown.requested.wait()
    supervisor.tell("STOPPING=1")
    await agent.close(settings.drain_timeout_s)
    if ops is not None:
        await ops.close()
    await watchdog.close(CLOSE_TIMEOUT_S)
    supervisor.close()
    _log.info("agent stopped")
    return EXIT_CRASH if agent.crashed else EXIT_OK


async def _start_ops(listen: str | None, agent: Agent) -> OpsServer | None:
    """The operators' listener, where one is wanted; OSError when its address is taken."""
    if listen is None:
        return None
    from runtime.ops_server import OpsServer  # most devices have none, and little memory

    ops = OpsServer(listen, agent.registry, agent.failed_checks)
    await ops.start()
    _log.info("operators' listener open", extra={"address": str(ops.address)})
    return ops
