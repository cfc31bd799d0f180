"""Keeps one tunnel up: dials, waits for its end, sleeps as the reconnect rules say, dials again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Final, Protocol
from urllib.parse import urlsplit

from runtime.logs import get_logger
from runtime.tunnel_link import LinkFailed, dial
from tunnel_agent.policy.reconnect import Ending, Reconnect, next_url
from tunnel_agent.tunnel import AgentTunnel, TunnelEnd
from tunnel_protocol import CloseCode

_log = get_logger("tunnel_agent.dialler")

_ADVICE: Final = {
    Ending.REVOKED: "this device was revoked: its owner must enrol it again; it stays quiet meanwhile",
    Ending.REPLACED: "another machine or process uses this device's identity; it stays quiet for a while",
    Ending.REFUSED: "the server refused this device, or is not the one that was dialled",
}


class TunnelMaker(Protocol):
    """What a dialler needs of the agent."""

    def tunnel_urls(self) -> tuple[str, ...]:
        """The servers known now; never empty."""

    def urls_in_use(self) -> frozenset[str]:
        """Those that some tunnel is at, or is being dialled."""

    def trust(self) -> SSLContext:
        """How to verify a server."""

    def make_tunnel(self, url: str, host: str) -> AgentTunnel:
        """A tunnel that is about to be dialled."""

    def tunnel_ended(self, ending: Ending) -> None:
        """A tunnel, or the attempt at one, is over and another one follows."""


class Dialler:
    """One of the agent's connections. `url` is where it is, or goes next."""

    def __init__(
        self,
        agent: TunnelMaker,
        url: str,
        *,
        dial_timeout_s: float,
        max_message: int,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.tunnel: AgentTunnel | None = None  # the newest one, dialled or open
        self._older: AgentTunnel | None = None  # one that drains while its successor is dialled
        self._agent = agent
        self._dial_timeout_s = dial_timeout_s
        self._max_message = max_message
        self._now = now
        self._sleep = sleep
        self._draw = draw
        self._reconnect = Reconnect()

    def __repr__(self) -> str:
        return f"<Dialler {self.url} {self.tunnel!r} failures={self._reconnect.failures}>"

    def opened(self) -> None:
        """The tunnel's handshake is complete."""
        self._reconnect.opened(self._now())

    async def run(self) -> None:
        """For ever, until cancelled."""
        while True:
            tunnel = await self._dial()
            end = await tunnel.ended
            delay = self._reconnect.ended(end.ending, self._now(), self._draw(), end.retry_after_ms)
            self._agent.tunnel_ended(end.ending)
            self._report(end, delay)
            self._keep_draining(tunnel)
            self.url = next_url(self._agent.tunnel_urls(), self.url, self._agent.urls_in_use())
            await self._sleep(delay)

    async def _dial(self) -> AgentTunnel:
        parts = urlsplit(self.url)
        tunnel = self.tunnel = self._agent.make_tunnel(self.url, parts.hostname or "")
        try:
            await dial(
                self.url,
                tunnel,
                ssl=self._agent.trust() if parts.scheme == "wss" else None,
                max_message=self._max_message,
                timeout_s=self._dial_timeout_s,
            )
        except LinkFailed as failure:
            tunnel.failed(str(failure))
        return tunnel

    def _keep_draining(self, tunnel: AgentTunnel) -> None:
        """One drains at a time: a server that says GOAWAY again and again must not collect tunnels.

        A dial that failed takes nobody's place: a node that drains alone refuses them all, for as long as the
        streams on its tunnel may go on.
        """
        if not tunnel.told_to_go:
            return
        if self._older is not None:
            self._older.connection.close(CloseCode.NORMAL, "a newer tunnel drains")
        self._older = tunnel

    def _report(self, end: TunnelEnd, delay: float) -> None:
        extra = {
            "url": self.url,
            "code": end.code.name.lower() if end.code is not None else None,
            "reason": end.reason,
            "retry_s": round(delay, 1),
        }
        advice = _ADVICE.get(end.ending)
        if advice is not None:
            _log.error(advice, extra=extra)
        else:
            _log.warning("tunnel ended", extra=extra)
