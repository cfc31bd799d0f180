"""What the agent tells systemd (sd_notify(3)): ready, alive, stopping. Without NOTIFY_SOCKET it says
nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

from runtime.logs import get_logger

_log = get_logger("tunnel_agent.supervision")


class Supervisor:
    """A datagram socket to the service supervisor, or nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.watchdog_s = _watchdog_s(environment)

    def tell(self, state: str) -> None:
        """Send one state, such as `READY=1`; a supervisor that does not listen is none of our trouble."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(state.encode(), self._address)
        except OSError as error:
            _log.debug("supervisor not reached", extra={"reason": str(error)})

    async def feed_watchdog(self) -> None:
        """Report life at half the asked interval, from the event loop: a loop that hangs is restarted."""
        if self._socket is None or self.watchdog_s is None:
            return
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    text = environment.get("WATCHDOG_USEC", "")
    if not text.isdigit() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 1e6 or None
