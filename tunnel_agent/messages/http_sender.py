"""Says over HTTPS what no broker can be told: a network that lets nothing else out, a broker that is away.

The keeper's window and what `accepted` means are the same; a request holds some of it, its answer says what
is kept. Commands and configurations come by the broker alone, which is tried meanwhile as ever, and takes
over as soon as it is there.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from device_protocol import strict_json
from device_protocol.envelope import decode
from device_protocol.errors import BadMessageError, Reason
from device_protocol.numbers import Number
from device_protocol.topics import Kind
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Gauge
from tunnel_agent.errors import AgentError, GatewayRefused
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.messages.connection import ConnectionAnswerError, HttpAddress, read_number
from tunnel_agent.messages.keeper import Keeper
from tunnel_agent.policy.reconnect import Ending, Reconnect

UNAUTHORIZED: Final = 401
MESSAGES_MAX: Final = 64
BODY_MAX: Final = 56 << 10
"""Bytes of one request, of the 64 KiB that the gateway takes; any one message fits."""
PER_MESSAGE: Final = 40
"""Bytes that a message has around it there, at most."""
LOOK_S: Final = 5.0
"""So long may the broker be back and this not know it."""

_log = get_logger("tunnel_agent.messages.http")


class Addresses(Protocol):
    """Asks where to; see `Session.http_address`."""

    def __call__(self, *, fresh: bool) -> Awaitable[HttpAddress | None]: ...


class _Way:
    """What waits to be posted, in the keeper's order; never more than the keeper's window."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Kind, bytes]] = deque()
        self._last: Number | None = None
        self._there = asyncio.Event()

    async def send(self, kind: Kind, payload: bytes) -> None:
        """As `keeper.Way`."""
        number = _number(kind, payload)
        if number is not None:
            if self._last is not None and number <= self._last:
                self._waiting.clear()  # the keeper goes back: all of it comes again
            self._last = number
        self._waiting.append((kind, payload))
        self._there.set()

    async def next(self, wait_s: float) -> bytes | None:
        """A request's body; None: nothing came."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._there.wait()
        messages: list[dict[str, str]] = []
        size = 0
        while self._waiting and len(messages) < MESSAGES_MAX:
            kind, payload = self._waiting[0]
            text = payload.decode()
            size += len(strict_json.dumps(text)) + PER_MESSAGE
            if messages and size > BODY_MAX:
                break
            messages.append({"kind": kind.value, "message": text})
            self._waiting.popleft()
        if not self._waiting:
            self._there.clear()
        return strict_json.dumps({"messages": messages}) if messages else None


class HttpSender:
    """`run` is one task."""

    def __init__(
        self,
        keeper: Keeper,
        address: Addresses,
        ca: Callable[[], str | None],
        clock: Clock,
        in_use: Gauge,
        *,
        after_s: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`ca`: PEM of whom to trust as the gateway; None: the system's roots. `after_s`: with no broker."""
        self._keeper = keeper
        self._address = address
        self._ca = ca
        self._clock = clock
        self._in_use = in_use
        self._after_s = after_s
        self._chance = chance
        self._reconnect = Reconnect()
        self._fresh = False  # the token was refused

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait_away()
            while self._keeper.way is None:
                ending, reason = await self._once()
                if self._keeper.way is None:
                    wait_s = self._reconnect.ended(ending, self._clock.monotonic(), self._chance())
                    _log.info("no way for messages", extra={"reason": reason, "retry_s": round(wait_s, 1)})
                    await asyncio.sleep(wait_s)

    async def _wait_away(self) -> None:
        """Until there was no broker for `after_s`."""
        since = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            if self._keeper.way is not None:
                since = now
            left_s = since + self._after_s - now
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, LOOK_S))

    async def _once(self) -> tuple[Ending, str]:
        """Say what there is, until the broker is back or this ends: why it did."""
        try:
            address = await self._address(fresh=self._fresh)
            self._fresh = False
            if address is None:
                return Ending.REFUSED, "the gateway offers no other way than a broker"
            if self._keeper.way is None:
                await self._serve(address)
        except GatewayRefused as error:
            self._fresh = True
            # Its token is over, perhaps: a new one costs little. Otherwise it is a person's affair.
            return Ending.LOST if error.status == UNAUTHORIZED else Ending.REFUSED, str(error)
        except AgentError as error:
            return Ending.LOST, str(error)
        return Ending.LOST, "the token is over"

    async def _serve(self, address: HttpAddress) -> None:
        """Until the broker is back, or the token is over. AgentError."""
        way, until = _Way(), self._clock.monotonic() + address.lasts_s
        self._keeper.connected(way)
        self._keeper.hello_answered(address.known)
        self._in_use.set(1)
        _log.info("no broker: messages go over HTTPS", extra={"to": address.origin})
        try:
            while self._keeper.way is way and self._clock.monotonic() < until:
                body = await way.next(LOOK_S)
                if body is not None:
                    self._hear(await asyncio.to_thread(self._post, address, body))
                    self._reconnect.opened(self._clock.monotonic())
        finally:
            self._in_use.set(0)
            self._keeper.disconnected(way)

    def _post(self, address: HttpAddress, body: bytes) -> dict[str, Any]:
        return GatewayClient(address.origin, self._ca()).say(address.path, body, bearer=address.token)

    def _hear(self, answer: dict[str, Any]) -> None:
        """What is kept, and what became a dead letter. ConnectionAnswerError."""
        accepted, refused = answer.get("accepted"), answer.get("refused")
        if not isinstance(accepted, dict | None) or not isinstance(refused, list):
            raise ConnectionAnswerError("the gateway does not say what it keeps")
        if accepted is not None:
            self._keeper.accepted(read_number(accepted))
        for one in refused:
            id = one.get("id") if isinstance(one, dict) else None
            if isinstance(id, str):
                self._keeper.refused(_reason(one.get("reason")), id)


def _number(kind: Kind, payload: bytes) -> Number | None:
    """Of what the outbox holds; None: an older release stored what cannot be read now."""
    try:
        return decode(kind, payload).number
    except BadMessageError as error:
        return None if error.standing is None else error.standing.number


def _reason(word: object) -> Reason:
    """One that is not known reads as `bad_schema`, as in `accepted`."""
    try:
        return Reason(str(word))
    except ValueError:
        return Reason.BAD_SCHEMA
