"""Which devices are connected here, and who gets their next stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from runtime.logs import get_logger
from tunnel_protocol import CloseCode, ConnectionDraining, ConnectionState, ResetCode, StreamLimit
from tunnel_server.metrics import Metrics
from tunnel_server.policy.admission import FairQueue
from tunnel_server.policy.services import ServiceOptions
from tunnel_server.settings import DeviceLimits

if TYPE_CHECKING:
    from tunnel_server.sessions import Session, SessionTable
    from tunnel_server.tunnels.streams import NewUser, U, Waiter
    from tunnel_server.tunnels.tunnel import Tunnel

# An agent keeps two; a half-open one may still stand beside its successor until the keepalive finds it.
MAX_TUNNELS = 4

_log = get_logger("tunnel_server.tunnels")


class DeviceTunnels:
    """One connected device: its tunnels (all of one instance) and the requests that wait for a stream."""

    def __init__(self, device_id: str, registry: TunnelRegistry) -> None:
        self.device_id = device_id
        self.limits = registry.limits
        self.metrics = registry.metrics
        self.monotonic = registry.monotonic
        self.services: dict[str, ServiceOptions] = {}
        self.tunnels: list[Tunnel] = []
        # Monotonic seconds until which requests wait for a device that this node sent away for a moment.
        self.returns_by = 0.0
        self._sessions = registry.sessions
        self._queue: FairQueue[Waiter] = FairQueue(registry.limits.queue_length)

    def __repr__(self) -> str:
        return f"<DeviceTunnels {self.device_id}, {len(self.tunnels)} tunnels, {len(self._queue)} waiting>"

    def is_open(self) -> bool:
        """Whether any tunnel still opens streams."""
        return any(tunnel.connection.state is ConnectionState.OPEN for tunnel in self.tunnels)

    def may_wait(self) -> bool:
        """Whether a request may wait for a stream: a tunnel is open, or comes back at once."""
        return self.is_open() or self.monotonic() < self.returns_by

    def open(self, session: Session, new_user: NewUser[U]) -> U | None:
        """The user of a fresh stream, at the cost of an idle one if need be; None: there is none to be had
        now."""
        user = self._try_open(session, new_user)
        while user is None and self._close_oldest_idle():
            user = self._try_open(session, new_user)
        return user

    def _try_open(self, session: Session, new_user: NewUser[U]) -> U | None:
        tunnels = self.tunnels
        if len(tunnels) > 1:
            tunnels = sorted(tunnels, key=lambda tunnel: tunnel.in_use)
        for tunnel in tunnels:
            try:
                return tunnel.open(self, session, new_user)
            except (StreamLimit, ConnectionDraining):
                continue
        return None

    def _close_oldest_idle(self) -> bool:
        owners = [session for session in self._sessions.of_device(self.device_id) if len(session.idle)]
        if not owners:
            return False
        oldest = min(owners, key=lambda session: session.idle.oldest() or 0.0).idle.take_oldest()
        assert oldest is not None
        oldest.close_idle()
        return True

    def may_idle(self, session: Session, tunnel: Tunnel) -> bool:
        """Whether a stream that finished its answer may wait for the session's next request."""
        return not len(self._queue) and session.live and tunnel.connection.state is ConnectionState.OPEN

    def enqueue(self, waiter: Waiter, session: Session) -> bool:
        """Wait for a stream, at most ``queue_s``; False when too many wait."""
        self.metrics.queued.inc()
        waiter.queue_deadline = self.monotonic() + self.limits.queue_s
        return self._queue.put(session.facts.sid, waiter, waiter.queue_deadline)

    def forget(self, waiter: Waiter) -> None:
        """Its visitor went away, or its session ended."""
        self._queue.discard(waiter)

    def stream_ended(self) -> None:
        """A stream came free: whoever waits gets it as soon as the loop turns."""
        if len(self._queue):
            asyncio.get_running_loop().call_soon(self.serve_queue)

    def serve_queue(self) -> None:
        """Open streams for those that wait, in their order, as long as there are any."""
        while len(self._queue):
            waiter = self._queue.take()
            if waiter is None or waiter.done or waiter.session is None:
                continue
            if not waiter.take_stream(self):
                self._queue.put_back(waiter.session.facts.sid, waiter, waiter.queue_deadline)
                return

    def sweep(self, now: float) -> None:
        """End what waited or idled too long."""
        if len(self._queue):
            for waiter in self._queue.take_expired(now):
                waiter.queue_expired()
            self.serve_queue()

    def forget_grant(self, grant_id: bytes) -> None:
        """Every tunnel sends it anew before the session's next stream."""
        for tunnel in self.tunnels:
            tunnel.forget_grant(grant_id)

    # Long-lived streams: WebSockets and event streams may not take the last stream of a tunnel.

    def has_room_for_live(self) -> bool:
        """Whether one more long-lived stream fits."""
        return any(tunnel.has_room_for_live() for tunnel in self.tunnels)

    def live_began(self, tunnel: Tunnel) -> bool:
        """Count one; False when the tunnel has no room for it."""
        if not tunnel.has_room_for_live():
            return False
        tunnel.live_streams += 1
        return True

    def live_ended(self, tunnel: Tunnel) -> None:
        """It is over."""
        tunnel.live_streams -= 1

    def close_idle_of(self, tunnel: Tunnel) -> None:
        """The tunnel drains: streams that only wait in a pool would hold it open."""
        for session in self._sessions.of_device(self.device_id):
            for upstream in session.idle.take_all():
                if upstream.tunnel is tunnel or not session.idle.put(upstream, self.monotonic()):
                    upstream.close_idle()

    def all_gone(self) -> None:
        """The last tunnel closed."""
        for waiter in self._queue.take_all():
            waiter.device_lost()


class TunnelRegistry:
    """All connected devices. ``report`` is told each connect and disconnect (presence)."""

    def __init__(
        self,
        limits: DeviceLimits,
        *,
        sessions: SessionTable,
        metrics: Metrics,
        monotonic: Callable[[], float],
        report: Callable[[Tunnel, str], None],
    ) -> None:
        self.limits = limits
        self.sessions = sessions
        self.metrics = metrics
        self.monotonic = monotonic
        self._report = report
        self._devices: dict[str, DeviceTunnels] = {}
        self._unmeasured: set[Tunnel] = set()  # reported before their first round trip was known

    def __len__(self) -> int:
        return sum(len(device.tunnels) for device in self._devices.values())

    def find(self, device_id: str) -> DeviceTunnels | None:
        """The device, when it is connected here."""
        return self._devices.get(device_id)

    def tunnels(self) -> list[Tunnel]:
        """Every open tunnel."""
        return [tunnel for device in self._devices.values() for tunnel in device.tunnels]

    def add(self, tunnel: Tunnel, services: Iterable[ServiceOptions]) -> None:
        """A handshake ended well. The newest instance of a device wins.

        The gateway hears of it before it hears that the older one went: two instances at once are what it
        counts as a replacement, and what raises its alarm about a clone.
        """
        device = self._devices.get(tunnel.device_id)
        if device is None:
            device = self._devices[tunnel.device_id] = DeviceTunnels(tunnel.device_id, self)
        device.tunnels.append(tunnel)
        device.returns_by = 0.0
        device.services = {service.name: service for service in services}
        self._report(tunnel, "connected")
        self.keep_instance(tunnel.device_id, tunnel.instance)
        for surplus in device.tunnels[:-MAX_TUNNELS]:
            surplus.connection.close(CloseCode.NORMAL, "too many connections of one device")
        self._unmeasured.add(tunnel)
        device.serve_queue()

    def remove(self, tunnel: Tunnel) -> None:
        """It closed."""
        device = self._devices.get(tunnel.device_id)
        if device is None or tunnel not in device.tunnels:
            return
        device.tunnels.remove(tunnel)
        self._unmeasured.discard(tunnel)
        self._forget_if_gone(device)
        self._report(tunnel, "disconnected")

    def _forget_if_gone(self, device: DeviceTunnels) -> None:
        if not device.tunnels and not device.may_wait():
            del self._devices[device.device_id]
            device.all_gone()

    def keep_instance(self, device_id: str, instance: bytes) -> None:
        """Close the tunnels of every other instance of the device (section 4 of the protocol)."""
        device = self._devices.get(device_id)
        for tunnel in list(device.tunnels) if device is not None else ():
            if tunnel.instance != instance:
                _log.warning("device instance replaced", extra={"device": device_id})
                tunnel.connection.close(CloseCode.REPLACED, "another instance of this device connected")
                self.remove(tunnel)

    def revoke(self, device_id: str) -> None:
        """The device may connect no more."""
        device = self._devices.get(device_id)
        for tunnel in list(device.tunnels) if device is not None else ():
            tunnel.connection.close(CloseCode.REVOKED, "the device was revoked")
            self.remove(tunnel)
        if device is not None and device_id in self._devices:
            device.returns_by = 0.0
            self._forget_if_gone(device)

    def session_ended(self, session: Session, *, revoked: bool) -> None:
        """No stream of the session is left open, and the device forgets its grant."""
        for upstream in session.idle.take_all():
            upstream.abandon(ResetCode.GRANT_ENDED)
        facts = session.facts
        device = self._devices.get(facts.device_id)
        for tunnel in device.tunnels if device is not None else ():
            if revoked or tunnel.has_grant(facts.grant_id):
                tunnel.revoke(facts.grant_id)

    def revoke_grant(self, device_id: str, grant_id: bytes) -> None:
        """Tell the device over each of its tunnels, at most MAX_TUNNELS, granted here or not: whoever else
        holds the grant opens nothing with it any more.
        """
        device = self._devices.get(device_id)
        for tunnel in device.tunnels if device is not None else ():
            tunnel.revoke(grant_id)

    def sweep(self, now: float) -> None:
        """Called every fraction of a second: queues and idle streams have ends."""
        for device in list(self._devices.values()):
            device.sweep(now)
            self._forget_if_gone(device)
        for tunnel in [one for one in self._unmeasured if one.connection.last_rtt_s is not None]:
            self._unmeasured.discard(tunnel)
            self._report(tunnel, "connected")
        idle_before = now - self.limits.idle_stream_s
        for session in self.sessions:
            for upstream in session.idle.take_idle_since(idle_before) if len(session.idle) else ():
                upstream.close_idle()

    def presence_events(self, describe: Callable[[Tunnel, str], dict[str, Any]]) -> list[dict[str, Any]]:
        """All tunnels as presence events, for a full report."""
        return [describe(tunnel, "connected") for tunnel in self.tunnels()]
