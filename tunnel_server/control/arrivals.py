"""A node that has just started keeps visitors waiting for its devices, if other nodes serve them meanwhile.

Devices keep a tunnel to every node, and come back to a restarted one within seconds, spread on purpose. A
visitor who is led here sooner is told that the device is offline, while another node holds it. So the node
listens for visitors, and says that it is ready, once it holds what the other nodes hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runtime.logs import get_logger
from tunnel_server.control.gateway import Elsewhere, Gateway
from tunnel_server.errors import GatewayRefused, GatewayUnavailable

ASK_S = 0.5  # one cheap question; the devices take seconds
MISSING_SHARE = 0.02  # of thousands some are always on their way, or can hold one tunnel only

_log = get_logger("tunnel_server.arrivals")


def are_here(elsewhere: Elsewhere) -> bool:
    """Whether enough of the others' devices are here; of a few devices all."""
    return elsewhere.missing <= elsewhere.devices * MISSING_SHARE


class Arrivals:
    """``awaited``: how many devices are missing still; 0 once visitors may come, None: not known yet."""

    def __init__(self, gateway: Gateway, *, wait_s: float, is_known: Callable[[], bool]) -> None:
        """`is_known`: whether the gateway has heard that this process holds no device yet. Until then it
        counts what the one before held.
        """
        self._gateway = gateway
        self._is_known = is_known
        self._wait_s = wait_s
        self.over = False
        self.awaited: int | None = None

    async def ask(self) -> bool:
        """Whether visitors may come. A gateway that does not answer knows no session of theirs either."""
        if not self._is_known():
            return False
        try:
            elsewhere = await self._gateway.devices_elsewhere()
        except GatewayUnavailable:
            return False
        except GatewayRefused:  # an older gateway, which does not know the question
            self.awaited, self.over = 0, True
            return True
        self.over = are_here(elsewhere)
        self.awaited = 0 if self.over else elsewhere.missing
        return self.over

    async def wait(self, then: Callable[[], Awaitable[None]]) -> None:
        """Ask until they are here, at most ``wait_s``; then do ``then``."""
        try:
            async with asyncio.timeout(self._wait_s):
                while not await self.ask():  # noqa: ASYNC110 - the gateway counts, and nobody tells
                    await asyncio.sleep(ASK_S)
        except TimeoutError:
            _log.warning("visitors come before all devices", extra={"missing": self.awaited})
            self.over = True
        await then()
