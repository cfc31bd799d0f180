"""The grant key list that HELLO carries, and bringing a newer one to the tunnels that are open.

A device learns a list from HELLO alone, so each tunnel with an older one is told to go and comes back. The
gateway signs with a new key long after (its ``grant_key_wait_s``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from runtime.logs import get_logger
from tunnel_protocol import ConnectionState
from tunnel_server.policy.key_list import NumberedKeyList, UnusableKeyList, numbered
from tunnel_server.tunnels.registry import DeviceTunnels, TunnelRegistry
from tunnel_server.tunnels.tunnel import Tunnel

TICK_S = 1.0  # how finely the tunnels are spread
# A device that lost one tunnel to this gets so long to come back before its last one goes too: it may hold
# its other tunnel at another node, or have but one.
RETURN_S = 60.0
# Requests wait so long for the only tunnel of a device: its retry_after, a dial and a handshake. An agent has
# one tunnel at each node, and they would be told that it is offline.
BACK_WITHIN_S = 5.0
RETRY_AFTER_MS = 200  # the tunnels are spread already; a device with one tunnel should be back soon

_log = get_logger("tunnel_server.tunnels")


class KeyLists:
    """Holds the newest list; ``renew`` brings it to open tunnels within about ``spread_s`` seconds."""

    def __init__(
        self,
        registry: TunnelRegistry,
        *,
        software: str,
        spread_s: float,
        monotonic: Callable[[], float],
        drains: Callable[[Tunnel], None],
    ) -> None:
        self._registry = registry
        self._software = software
        self._spread_s = spread_s
        self._monotonic = monotonic
        self._drains = drains
        self._left: dict[str, float] = {}  # device → when its latest tunnel was told to go
        self._due: dict[Tunnel, float] = {}
        self._outdated = asyncio.Event()  # some open tunnel may have an older list
        self.current: NumberedKeyList | None = None

    def take(self, text: bytes) -> None:
        """The gateway's list of now. One that HELLO cannot carry is logged, and the older one stays."""
        try:
            new = numbered(text, self._software)
        except UnusableKeyList as error:
            _log.error("the gateway's key list is not used", extra={"error": str(error)})
            return
        number = self.number
        self.current = new
        if new.number > number:
            _log.info("key list is new", extra={"number": new.number})
            self._outdated.set()

    @property
    def number(self) -> int:
        """Of the newest list; 0: none has come."""
        return 0 if self.current is None else self.current.number

    def tunnel_ready(self, tunnel: Tunnel) -> None:
        """Its HELLO may have left before the newest list came."""
        if tunnel.key_list_number < self.number:
            self._outdated.set()

    async def renew(self) -> None:
        """Until cancelled."""
        while True:
            await self._outdated.wait()
            self.renew_due(self._monotonic())
            await asyncio.sleep(TICK_S)

    def renew_due(self, now: float) -> None:
        """Send away the tunnels whose turn it is at ``now`` (monotonic seconds): at most one of a device."""
        outdated = [tunnel for tunnel in self._registry.tunnels() if self._is_outdated(tunnel)]
        self._due = {
            tunnel: self._due.get(tunnel, now + random.uniform(0, self._spread_s)) for tunnel in outdated
        }
        self._left = {device: at for device, at in self._left.items() if now - at < RETURN_S}
        for tunnel, due in self._due.items():
            device = self._registry.find(tunnel.device_id)
            if due <= now and device is not None and self._may_lose_one(device):
                self._left[tunnel.device_id] = now
                device.returns_by = now + BACK_WITHIN_S
                tunnel.connection.drain(RETRY_AFTER_MS, "the key list is new")
                self._drains(tunnel)
        if not outdated:
            self._outdated.clear()

    def _is_outdated(self, tunnel: Tunnel) -> bool:
        return tunnel.key_list_number < self.number and tunnel.connection.state is ConnectionState.OPEN

    def _may_lose_one(self, device: DeviceTunnels) -> bool:
        """It keeps another open tunnel, or had time enough to come back since it lost the last one."""
        still_open = [one for one in device.tunnels if one.connection.state is ConnectionState.OPEN]
        return len(still_open) > 1 or device.device_id not in self._left
