"""Thousands of devices in one process, each with the agent's own dialler, tunnel and reconnect rules.

Started by `loadtests.fleet`; reads `{"devices": [{"id", "key"}], "urls", "state"}` from standard input (the
state folder of one enrolled agent says what all of them trust), dials, and writes a line `{"open", "at"}`
whenever that changed: how many tunnels are open, and the monotonic time. It stays until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from ssl import SSLContext
from typing import Any

from loadtests.seeding import SeededDevice
from runtime import logs, open_files
from runtime.clock import SYSTEM_CLOCK
from runtime.metrics import Registry
from runtime.process import loop_factory
from runtime.tasks import TaskOwner
from runtime.tunnel_link import Ticker
from tunnel_agent.dialler import Dialler
from tunnel_agent.gateway_client import trust
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.metrics import AgentMetrics, agent_metrics
from tunnel_agent.policy.grants import Grant, GrantBook
from tunnel_agent.policy.reconnect import Ending
from tunnel_agent.tunnel import AgentTunnel, Device
from tunnel_protocol import ConnectionState, Hello, Limits, Service

DIAL_S = 15.0  # an agent's own default
TELL_S = 0.1
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all devices of the process share."""

    urls: tuple[str, ...]
    identity: Identity
    context: SSLContext
    ticker: Ticker
    metrics: AgentMetrics
    tasks: TaskOwner


class FleetDevice:
    """One device: what an agent is to its diallers and tunnels, without renewal and files."""

    def __init__(self, fleet: Fleet, device: SeededDevice) -> None:
        self._fleet = fleet
        self._device = Device(
            id=device.id,
            instance=token_bytes(16),
            key=device.key,
            services={},
            limits=Limits(handshake_timeout_s=DIAL_S + 10.0),
            hello=Hello(software="fleet", services=(Service("web"),)),
            grants=GrantBook(device.id, fleet.identity.key_list, earliest=0.0),
            clock=SYSTEM_CLOCK,
            ticker=fleet.ticker,
            metrics=fleet.metrics,
            connect_timeout_s=1.0,
        )
        self._diallers = [
            Dialler(
                self, url, dial_timeout_s=DIAL_S, max_message=Limits().max_message,
                now=SYSTEM_CLOCK.monotonic, sleep=asyncio.sleep,
            )
            for url in fleet.urls
        ]  # fmt: skip

    def run(self) -> None:
        for dialler in self._diallers:
            self._fleet.tasks.start(dialler.run(), "dialler")

    @property
    def open(self) -> int:
        return sum(
            one.tunnel is not None and one.tunnel.connection.state is ConnectionState.OPEN
            for one in self._diallers
        )

    # For diallers

    def tunnel_urls(self) -> tuple[str, ...]:
        return self._fleet.urls

    def urls_in_use(self) -> frozenset[str]:
        return frozenset(self._fleet.urls)

    def trust(self) -> SSLContext:
        return self._fleet.context

    def make_tunnel(self, url: str, host: str) -> AgentTunnel:
        return AgentTunnel(self._device, self, url, host)

    def tunnel_ended(self, ending: Ending) -> None:
        self._fleet.metrics.tunnels_ended.labels(ending.value).inc()

    # For tunnels

    def tunnel_ready(self, tunnel: AgentTunnel) -> None:
        for dialler in self._diallers:
            if dialler.tunnel is tunnel:
                dialler.opened()

    def tunnel_gone(self, tunnel: AgentTunnel) -> None:
        """The dialler knows."""

    def key_list_received(self, text: bytes) -> None:
        """It is the one that the state folder holds."""

    def grant_accepted(self, grant: Grant) -> None:
        """Nobody visits this fleet."""

    def grant_revoked(self, grant_id: bytes, server: str = "") -> None:
        """Nobody visits this fleet."""

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._fleet.tasks.start(work, name)


async def _tell(devices: list[FleetDevice]) -> None:
    told = -1
    while True:
        now = sum(device.open for device in devices)
        if now != told:
            told = now
            print(json.dumps({"open": now, "at": time.monotonic()}), flush=True)
        await asyncio.sleep(TELL_S)


async def main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    logs.configure("fleet", "error")
    open_files.raise_limit()
    identity = IdentityStore(Path(order["state"])).load()
    tasks = TaskOwner("fleet")
    fleet = Fleet(
        tuple(order["urls"]), identity, trust(identity.server_ca), Ticker(), agent_metrics(Registry()), tasks
    )
    devices = [FleetDevice(fleet, SeededDevice.from_json(one)) for one in order["devices"]]
    for device in devices:
        device.run()
    tasks.start(_tell(devices), "tell")
    await asyncio.to_thread(sys.stdin.read)
    await tasks.close(CLOSE_S)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
