"""Thousands of idle tunnels on the running server, and what it cost to dial them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.many_agents import identity_of
from loadtests.measure import cpu_ns
from loadtests.seeding import SeededDevice
from loadtests.stack import TowlineStack
from tunnel_agent.identity import IdentityStore

END_DEADLINE_S = 60.0
TUNNELS_PER_DEVICE = 4  # of one instance; the server takes no more


@dataclass(frozen=True, slots=True)
class Dialled:
    """`tunnels` handshakes in `seconds`, and the CPU-ms each cost by process."""

    tunnels: int
    seconds: float
    cpu_ms: dict[str, float]


def _order(stack: TowlineStack, devices: list[SeededDevice]) -> str:
    identity = IdentityStore(stack.agent_state).load()
    return json.dumps(
        {
            "devices": [one.to_json() for one in devices],
            "url": identity.tunnel_urls[0],
            "server_ca": identity.server_ca,
            "tunnels": TUNNELS_PER_DEVICE,
        }
    )


@contextmanager
def ordered(module: str, order: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of ours that reads an order, says a line when it is ready, and ends with its input."""
    argv = [sys.executable, "-m", module]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order + "\n")
        process.stdin.flush()
        yield process, process.stdout.readline()
    finally:
        try:
            process.communicate(timeout=END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_DEADLINE_S)
            raise


@contextmanager
def idle_tunnels(stack: TowlineStack, devices: list[SeededDevice]) -> Iterator[Dialled]:
    """TUNNELS_PER_DEVICE idle tunnels for each device, until the block ends."""
    pids = {"server": (stack.server_pid,), "gateway": (stack.gateway_pid,)}
    before = {part: cpu_ns(of) for part, of in pids.items()}
    with ordered("loadtests.idle_agents", _order(stack, devices)) as (_, line):
        spent = {part: cpu_ns(of) - before[part] for part, of in pids.items()}
        words = line.split()
        count = len(devices) * TUNNELS_PER_DEVICE
        if words[:2] != ["ready", str(count)]:
            raise RuntimeError(f"idle agents: {line!r} instead of ready {count}")
        yield Dialled(count, float(words[2]), {part: ns / 1e6 / count for part, ns in spent.items()})


@contextmanager
def agents_in_one_process(
    state: Path, devices: list[SeededDevice], service: str
) -> Iterator[tuple[int, ...]]:
    """The devices' real agents, all in one process; its pid. `state` is the folder of an enrolled agent."""
    order = {
        "state": str(state),
        "service": service,
        "devices": [one.to_json() for one in devices],
    }
    with ordered("loadtests.many_agents", json.dumps(order)) as (process, line):
        if line != f"ready {len(devices)}\n":
            raise RuntimeError(f"many agents: {line!r} instead of ready {len(devices)}")
        yield (process.pid,)


def write_agent(stack: TowlineStack, device: SeededDevice, service: str, folder: Path) -> Path:
    """The files of a real agent for the device; its configuration file."""
    IdentityStore(folder / "state").save(identity_of(IdentityStore(stack.agent_state).load(), device))
    config = folder / "agent.toml"
    config.write_text(f'state_dir = "state"\nconnections = 1\n[services.web]\naddress = "{service}"\n')
    return config
