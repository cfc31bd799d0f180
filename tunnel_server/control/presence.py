"""Tells the gateway which devices are connected here: changes at once, a heartbeat otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime.logs import get_logger
from tunnel_server.control.gateway import Gateway
from tunnel_server.errors import GatewayRefused, GatewayUnavailable

BATCH_S = 0.05  # thousands of devices may return in one second: their reports share calls
MAX_EVENTS = 1_000  # in one call; more wait for the next
MAX_QUEUED = 20_000  # past this only a full report makes sense
FIRST_RETRY_S = 0.5  # doubles up to the heartbeat: each retry is a full report
BOOT_BYTES = 8

_log = get_logger("tunnel_server.presence")


class PresenceReporter:
    """Queues events and sends them; a full report replaces them at first, after a failure, and when asked."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        node: str,
        heartbeat_s: float,
        connected: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._gateway = gateway
        self._node = node
        self._heartbeat_s = heartbeat_s
        self._connected = connected
        self._boot = secrets.token_hex(BOOT_BYTES)
        self._events: deque[dict[str, Any]] = deque()
        self._full = True
        self._wake = asyncio.Event()
        self._failures = 0  # in a row
        self.is_known = False  # whether the gateway has heard of this process, and forgot the one before it

    def report(self, event: dict[str, Any]) -> None:
        """Queue one change."""
        if len(self._events) >= MAX_QUEUED:
            self._events.clear()
            self._full = True
        self._events.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self.send_once()
            if self._failures:
                # What happens meanwhile is in the next report, which is full.
                await asyncio.sleep(
                    min(self._heartbeat_s, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16))
                )
            elif not self._events:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s):
                        await self._wake.wait()
            await asyncio.sleep(BATCH_S)

    async def send_once(self) -> None:
        """One report with what is queued; a failure makes the next one full."""
        self._wake.clear()
        full, self._full = self._full, False
        if full:
            self._events.clear()
            events = self._connected()
        else:
            events = [self._events.popleft() for _ in range(min(len(self._events), MAX_EVENTS))]
        report = {"node": self._node, "boot": self._boot, "full": full, "events": events}
        try:
            wants_full = await self._gateway.report_presence(report)
        except (GatewayUnavailable, GatewayRefused) as error:
            self._full = True
            self._failures += 1
            if self._failures == 1:  # said once an outage
                _log.warning("presence was not reported", extra={"error": str(error)})
        else:
            self._failures = 0
            self.is_known = True
            if wants_full and not full:
                self._full = True
                self._wake.set()
