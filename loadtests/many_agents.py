"""Many real agents in one process, one tunnel each: the devices' side of the many-tunnels figure.

Reads `{"state", "service", "devices": [{"id", "key"}]}` from standard input: the state folder of one enrolled
agent (what it trusts), the address of the web service, the devices. Prints `ready N` when all tunnels are
open and stays until standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from loadtests.seeding import SeededDevice
from runtime.logs import configure
from runtime.process import loop_factory
from tunnel_agent.app import Agent
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.settings import AgentSettings, ServiceSettings

READY_DEADLINE_S = 60.0
POLL_S = 0.05
CLOSE_S = 1.0


def identity_of(known: Identity, device: SeededDevice) -> Identity:
    """What the device would hold after an enrolment like `known`'s; its certificate is not its own."""
    return replace(known, device_id=device.id, key=device.key)


def settings(state: Path, service: str) -> AgentSettings:
    return AgentSettings(state_dir=state, services={"web": ServiceSettings(address=service)}, connections=1)


async def main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    configure("many_agents", "warning")
    store = IdentityStore(Path(order["state"]))
    known, chosen = store.load(), settings(store.directory, order["service"])
    crashed = asyncio.Event()
    agents = [
        Agent(chosen, identity_of(known, SeededDevice.from_json(device)), store, on_crash=crashed.set)
        for device in order["devices"]
    ]
    for agent in agents:
        agent.run()
    async with asyncio.timeout(READY_DEADLINE_S):
        while any(agent.failed_checks() for agent in agents):  # noqa: ASYNC110 - agents have no event for it
            await asyncio.sleep(POLL_S)
    print(f"ready {len(agents)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    if crashed.is_set():
        raise RuntimeError("a task of an agent failed")
    await asyncio.gather(*(agent.close(CLOSE_S) for agent in agents))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
