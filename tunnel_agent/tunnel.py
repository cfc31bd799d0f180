"""One tunnel of the agent: the handshake's device side, grants, and a splice for every stream that a
grant allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from runtime.addresses import Address
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.tunnel_link import Link, Ticker, TunnelDriver
from tunnel_agent.device_key import DeviceKey
from tunnel_agent.metrics import AgentMetrics
from tunnel_agent.policy.grants import ConnectionGrants, Grant, GrantBook, Refusal
from tunnel_agent.policy.reconnect import Ending
from tunnel_agent.splice import Splice
from tunnel_protocol import (
    WEBSOCKET_STATUS_BASE,
    ChallengeReceived,
    CloseCode,
    ConnectionLost,
    Drained,
    Event,
    GoawayReceived,
    GrantReceived,
    GrantRevoked,
    Hello,
    Limits,
    PeerReady,
    RefusedCode,
    ResetCode,
    Side,
    StreamRequested,
    auth_transcript,
)

_log = get_logger("tunnel_agent.tunnel")

MAX_LOGGED_REFUSALS: Final = 20  # a connection; a hostile server must not fill the device's disk

_ENDINGS: Final = {
    CloseCode.REVOKED: Ending.REVOKED,
    CloseCode.REPLACED: Ending.REPLACED,
    CloseCode.AUTH_FAILED: Ending.REFUSED,
    CloseCode.WRONG_SERVER_NAME: Ending.REFUSED,
    CloseCode.NORMAL: Ending.GOAWAY,
    CloseCode.TRY_LATER: Ending.GOAWAY,
    CloseCode.IDS_EXHAUSTED: Ending.GOAWAY,
}


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """Why a tunnel is no longer good for new streams. `code` None: the link broke without a word."""

    ending: Ending
    code: CloseCode | None
    reason: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Device:
    """What all tunnels of one agent share and never changes while it runs."""

    id: str
    instance: bytes
    key: DeviceKey
    services: Mapping[str, Address]
    limits: Limits
    hello: Hello
    grants: GrantBook
    clock: Clock
    ticker: Ticker
    metrics: AgentMetrics
    connect_timeout_s: float
    closed_to_support: frozenset[str] = frozenset()
    """Services that no grant opens in which somebody acts for another."""


class TunnelKeeper(Protocol):
    """Whom a tunnel tells what concerns the others too."""

    def tunnel_ready(self, tunnel: AgentTunnel) -> None:
        """The handshake is over."""

    def tunnel_gone(self, tunnel: AgentTunnel) -> None:
        """Its streams were told and its link is closed."""

    def key_list_received(self, text: bytes) -> None:
        """A server sent this key list; nothing of it has been checked."""

    def grant_accepted(self, grant: Grant) -> None:
        """A new grant is in force until `grant.ends_at`."""

    def grant_revoked(self, grant_id: bytes, server: str) -> None:
        """To be revoked on all tunnels, says the server of this URL."""

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Own a task."""


class AgentTunnel(TunnelDriver):
    """A connection to one tunnel server. `ended` is done at its GOAWAY or its end, whichever comes first."""

    __slots__ = (
        "_connecting",
        "_device",
        "_goaway",
        "_grants",
        "_host",
        "_keeper",
        "_logged",
        "_splices",
        "ended",
        "url",
    )

    def __init__(self, device: Device, keeper: TunnelKeeper, url: str, host: str) -> None:
        """`host`: the name that is dialled, which the server must call itself by."""
        super().__init__(Side.DEVICE, device.limits, device.ticker, device.hello)
        self.url = url
        self.ended: asyncio.Future[TunnelEnd] = asyncio.get_running_loop().create_future()
        self._device = device
        self._keeper = keeper
        self._host = host
        self._grants = ConnectionGrants(device.grants, device.id)
        self._splices: dict[bytes, set[Splice]] = {}  # by grant id
        self._connecting = 0
        self._logged = 0
        self._goaway: GoawayReceived | None = None

    def __repr__(self) -> str:
        return f"<AgentTunnel {self.url} {self.connection!r}>"

    @property
    def told_to_go(self) -> bool:
        """Whether its server said GOAWAY: no stream begins, those that run may finish."""
        return self._goaway is not None

    def on_event(self, event: Event) -> None:
        match event:
            case StreamRequested():
                self._requested(event)
            case GrantReceived():
                self._granted(event)
            case GrantRevoked():
                self._keeper.grant_revoked(event.grant_id, self.url)
            case ChallengeReceived():
                self._challenged(event)
            case PeerReady():
                self._ready(event)
            case GoawayReceived():
                self._goaway = event
                self._end(TunnelEnd(_ending(event.code), event.code, event.reason, event.retry_after_ms))
            case Drained():
                _log.debug("tunnel drained", extra={"url": self.url})
            case ConnectionLost():
                self._gone(event)

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        super().link_closed(link, status, reason)
        self._keeper.tunnel_gone(self)

    def end_grant(self, grant_id: bytes) -> int:
        """Cut all streams of a grant; how many there were."""
        splices = self._splices.pop(grant_id, set())
        for splice in list(splices):
            splice.cut(ResetCode.GRANT_ENDED)
        return len(splices)

    def splice_left(self, splice: Splice) -> None:
        """A splice is over, or needs its grant no more."""
        splices = self._splices.get(splice.grant_id)
        if splices is not None:
            splices.discard(splice)
            if not splices:
                del self._splices[splice.grant_id]

    # Handshake

    def _challenged(self, event: ChallengeReceived) -> None:
        device = self._device
        if event.server_name.casefold() != self._host.casefold():
            reason = f"the server calls itself {event.server_name!r}, dialled was {self._host!r}"
            # No frame may precede AUTH, so the WebSocket's own status says why.
            assert self.link is not None
            self.link.close(WEBSOCKET_STATUS_BASE + CloseCode.WRONG_SERVER_NAME, reason)
            return
        transcript = auth_transcript(event.nonce, event.server_name, device.id, device.instance)
        self.connection.authenticate(
            device.id, device.instance, device.key.key_id, device.key.sign(transcript)
        )

    def _ready(self, event: PeerReady) -> None:
        _log.info("tunnel open", extra={"url": self.url, "server": event.hello.software})
        self._keeper.tunnel_ready(self)
        if event.hello.key_list is not None:
            self._keeper.key_list_received(event.hello.key_list)

    # Grants and streams

    def _granted(self, event: GrantReceived) -> None:
        clock = self._device.clock
        repeated = event.grant_id in self._grants
        verdict = self._grants.offer(event.grant_id, event.token, clock.wall(), clock.monotonic())
        if isinstance(verdict, Refusal):
            self._device.metrics.grants.labels(verdict.code.name.lower()).inc()
            self._log_refusal("grant refused", verdict, event.grant_id)
            return
        if not repeated:  # a hostile server must not fill the device's disk with one live grant either
            self._device.metrics.grants.labels("accepted").inc()
            extra = {"session": verdict.session, "service": verdict.service, "support": verdict.acting}
            _log.info("grant accepted", extra=extra)
        self._keeper.grant_accepted(verdict)

    def _requested(self, event: StreamRequested) -> None:
        device, clock = self._device, self._device.clock
        grant = self._grants.open(
            event.device, event.service, event.grant_id, clock.wall(), clock.monotonic()
        )
        if isinstance(grant, Refusal):
            self._refuse(event, grant)
            return
        address = device.services.get(grant.service)
        if address is None:
            reason = f"this device has no service {grant.service!r}"
            self._refuse(event, Refusal(RefusedCode.UNKNOWN_SERVICE, reason))
            return
        if grant.acting and grant.service in device.closed_to_support:
            reason = f"support may not reach {grant.service!r} of this device"
            self._refuse(event, Refusal(RefusedCode.UNKNOWN_SERVICE, reason))
            return
        if self._connecting >= device.limits.max_streams:
            # A peer that opens and resets at once frees its stream, but not our half-open local connection.
            self._refuse(event, Refusal(RefusedCode.TOO_MANY_STREAMS, "too many connections are being made"))
            return
        splice = Splice(event.stream, self, grant.id, self.splice_left)
        self._splices.setdefault(grant.id, set()).add(splice)
        self._connecting += 1
        device.metrics.streams_opened.inc()
        self._keeper.start(self._connect(splice, address), f"connect {grant.service}")

    async def _connect(self, splice: Splice, address: Address) -> None:
        try:
            async with asyncio.timeout(self._device.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: splice, address.host, address.port)
        except TimeoutError:
            self._unreachable(splice, f"no answer within {self._device.connect_timeout_s:g} s")
        except (OSError, UnicodeError) as error:  # UnicodeError: a configured name that cannot be a host
            self._unreachable(splice, getattr(error, "strerror", None) or str(error))
        finally:
            self._connecting -= 1

    def _unreachable(self, splice: Splice, reason: str) -> None:
        splice.unreachable(reason)
        self._device.metrics.streams_refused.labels(RefusedCode.UNREACHABLE.name.lower()).inc()

    def _refuse(self, event: StreamRequested, refusal: Refusal) -> None:
        event.stream.refuse(refusal.code, refusal.reason)
        self._device.metrics.streams_refused.labels(refusal.code.name.lower()).inc()
        self._log_refusal("stream refused", refusal, event.grant_id)

    def _log_refusal(self, what: str, refusal: Refusal, grant_id: bytes) -> None:
        self._logged += 1
        if self._logged <= MAX_LOGGED_REFUSALS:
            extra = {"code": refusal.code.name.lower(), "reason": refusal.reason, "grant": grant_id.hex()}
            _log.warning(what, extra=extra)

    # The end

    def _gone(self, event: ConnectionLost) -> None:
        code = event.code
        ending = _ending(code) if code is not None else Ending.LOST
        self._end(TunnelEnd(ending, code, event.reason, 0))
        if self.link is None:  # else the closing handshake is under way, and link_closed follows
            self._keeper.tunnel_gone(self)

    def _end(self, end: TunnelEnd) -> None:
        if not self.ended.done():
            self.ended.set_result(end)


def _ending(code: CloseCode) -> Ending:
    return _ENDINGS.get(code, Ending.LOST)
