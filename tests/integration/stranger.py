"""A device that says what it likes, by its own certificate, at the real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_protocol.bodies import Accepted, HelloAnswer, Refused, parse_accepted
from device_protocol.topics import Kind
from runtime.mqtt_link import MqttLink, MqttMessage, MqttOptions
from testbed.waiting import RECOVERY_TIMEOUT_S
from tests.ingest.test_bad_input import IN_LINE, NUMBERS, UNREADABLE
from tests.ingest.world import Talker
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import IdentityStore
from tunnel_agent.messages.connection import ask
from tunnel_agent.messages.policy.sending import PATIENCE_FIRST_S

FORBIDDEN_BOOT: Final = 10**6
"""Of what the broker lets go no further."""
INSIST_S: Final = 90.0
BROKER_MAX: Final = 32_000
"""Above it the broker ends the connection (infra/mosquitto: max_packet_size)."""


@dataclass(frozen=True, slots=True)
class Said:
    """`reason` of its dead letter; None: it is good and kept; "": the broker lets it go no further."""

    topic: str
    payload: bytes
    reason: str | None = None

    @property
    def id(self) -> str:
        """Of one that is good."""
        id: str = json.loads(self.payload)["id"]
        return id


class Stranger:
    """Enrolled as any device; `state` is its identity."""

    def __init__(self, state: Path) -> None:
        self._state = state
        identity = IdentityStore(state).load()
        self.device = identity.device_id
        broker = ask(identity, GatewayClient(identity.gateway_url, identity.gateway_ca)).broker
        assert broker is not None
        self._address = broker
        self.heard: list[Accepted | HelloAnswer | Refused] = []
        self._came = asyncio.Event()

    def topic(self, kind: Kind = Kind.TELEMETRY) -> str:
        return str(self._address.topic.of(kind))

    async def connect(self, stack: AsyncExitStack) -> MqttLink:
        """Closed with the stack. Each time it may be in another event loop."""
        self._came = asyncio.Event()
        options = MqttOptions(
            host=self._address.host,
            port=self._address.port,
            client_id=self.device,
            tls=await asyncio.to_thread(self._address.context, self._state),
        )
        link = await MqttLink.connect(options, self._hear)
        stack.push_async_callback(link.close)
        await link.subscribe([self.topic(Kind.ACCEPTED)])
        return link

    async def hears_accepted(self, number: tuple[int, int], timeout_s: float = RECOVERY_TIMEOUT_S) -> None:
        """TimeoutError: it was not told so."""
        async with asyncio.timeout(timeout_s):
            while not any(isinstance(one, Accepted) and one.number == number for one in self.heard):
                self._came.clear()
                await self._came.wait()

    def _hear(self, message: MqttMessage) -> None:
        self.heard.append(parse_accepted(message.payload))
        self._came.set()


def now_ms() -> int:
    return int(time.time() * 1000)


def wrongs(stranger: Stranger) -> list[Said]:
    """All that is wrong by itself, in the device's own line, between what is good."""
    talker = Talker(stranger.device)
    topic = stranger.topic()

    def next_one(**changes: Any) -> bytes:
        return talker.next(**{"ts": now_ms(), **changes})

    said = [Said(topic, next_one())]
    said += [
        Said(stranger.topic(Kind.STATE), raw, reason)
        for _, raw, reason in UNREADABLE
        if len(raw) < BROKER_MAX
    ]
    for _, changes in NUMBERS:
        own = {"prev": [1, talker.seq + 1]} if "prev" in changes else changes
        said.append(Said(topic, next_one(**own), "bad_schema"))
        talker.seq -= 1  # it never came to stand in line
    said += [Said(topic, next_one(**changes), reason) for _, changes, reason in IN_LINE]
    said.append(Said(topic, next_one()))
    said += [Said(topic, next_one(ts=ts), "time_out_of_range") for ts in (0, 2**53 - 1)]
    said.append(Said(f"o_other/s_other/linux/{stranger.device}/telemetry", next_one(), "wrong_place"))
    said.append(Said(topic, next_one()))
    return said


def forbidden(stranger: Stranger, victim: str) -> list[Said]:
    """Topics that the broker keeps from it, with messages that would be good there."""
    payload = Talker(victim, boot=FORBIDDEN_BOOT).next(ts=now_ms())
    own = stranger.topic()
    topics = [own.replace(stranger.device, victim), f"{own}/more", stranger.topic(Kind.CMD), "telemetry"]
    return [Said(topic, payload, "") for topic in topics]


async def say(stranger: Stranger, said: Sequence[Said]) -> None:
    """One after the other, each once the one before it has the broker's word; until the last is accepted."""
    good = [json.loads(one.payload) for one in said if one.reason is None]
    stranger.heard.clear()
    async with AsyncExitStack() as stack:
        link = await stranger.connect(stack)
        for one in said:
            await link.publish(one.topic, one.payload)
        await stranger.hears_accepted(max((one["boot"], one["seq"]) for one in good))


async def insist(stranger: Stranger, window: Sequence[bytes], last: int) -> None:
    """Says these states again and again, as a device does, until number `last` of boot 1 is accepted."""
    async with asyncio.timeout(INSIST_S), AsyncExitStack() as stack:
        link = await stranger.connect(stack)
        while True:
            for payload in window:
                await link.send(stranger.topic(Kind.STATE), payload)
            with suppress(TimeoutError):
                return await stranger.hears_accepted((1, last), PATIENCE_FIRST_S)


async def is_cut_off(stranger: Stranger, payload: bytes) -> None:
    """Its connection is ended for this message; TimeoutError when it is not."""
    async with AsyncExitStack() as stack:
        link = await stranger.connect(stack)
        await link.send(stranger.topic(), payload)
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            await link.closed.wait()
