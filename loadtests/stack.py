"""The product as a newcomer has it: `towline up --no-demo`, one enrolled agent, one open session.

The agent holds one tunnel instead of two, so that "one tunnel" in a figure is one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.figures import TOWLINE
from loadtests.measure import Target
from testbed.people import Link, redeem, session_wish
from testbed.processes import started
from testbed.programs import running
from testbed.services import enrol
from testbed.settings_tables import agent_table, write_table
from testbed.up import Stack
from testbed.waiting import eventually
from towline.data_folder import DataFolder
from towline.gateway_client import GatewayClient

ONLINE_DEADLINE_S = 60.0
SESSION_S = 3600
AGENT_CONNECTIONS = 1


@dataclass(frozen=True, slots=True)
class TowlineStack:
    """A running product: the session as a benchmark target, and what the memory figure needs."""

    target: Target
    gateway: GatewayClient
    data: DataFolder
    agent_state: Path  # of the enrolled agent
    server_pid: int
    agent_pid: int
    gateway_pid: int
    postgres_pid: int  # of its first process


@dataclass(frozen=True, slots=True)
class Product:
    """A running `towline up`."""

    root: Path
    stack: Stack
    gateway: GatewayClient

    @property
    def data(self) -> DataFolder:
        return DataFolder(self.stack.data)

    def enrol_agent(self, name: str, services: dict[str, int], **more: Any) -> Path:
        """Enrols a new device over the public API, as on a real one; returns its configuration file, which
        has `more` too.
        """
        folder = self.root / name
        folder.mkdir()
        table = agent_table("state", services, connections=AGENT_CONNECTIONS, **more)
        config = write_table(folder / "agent.toml", table)
        token = self.gateway.post("/v1/registration-tokens", {"approve": True, "name": name})["token"]
        enrol(self.gateway.address, token, config, name=name, hardware_id=f"bench-{name}-{os.getpid()}")
        return config


def agent_argv(config: Path) -> list[str]:
    """The command of a real agent."""
    return [sys.executable, "-m", "towline", "agent", "--config", str(config)]


def open_session(gateway: GatewayClient, device_id: str) -> tuple[str, int, str]:
    """(Host header, port, Cookie header) of a new session to the device's web service."""
    path = f"/v1/devices/{device_id}/sessions"
    url: str = gateway.post(path, session_wish("web", SESSION_S))["url"]
    host, cookie = redeem(url)
    return host, Link.parse(url).port, cookie


def wait_online(gateway: GatewayClient, device_ids: Iterable[str]) -> None:
    """Until the gateway has heard of a tunnel of each device."""
    wanted = set(device_ids)

    def online() -> bool:
        return wanted <= {one["id"] for one in gateway.items("/v1/devices") if one["online"]}

    eventually(f"{len(wanted)} devices are online", online, ONLINE_DEADLINE_S)


@contextmanager
def running_product(root: Path) -> Iterator[Product]:
    """`towline up` without its demo device, on a folder below `root` and ports of its own."""
    with started(Stack(root / "data", "--no-demo")) as stack:
        yield Product(root, stack, stack.api())


@contextmanager
def towline_stack(root: Path, upstream_port: int) -> Iterator[TowlineStack]:
    """Starts everything, enrols one agent for the upstream, opens a session, and ends it all afterwards."""
    with running_product(root) as product:
        config = product.enrol_agent("bench", {"web": upstream_port})
        with running(agent_argv(config), log=root / "agent.log") as agent:
            device = product.gateway.device("bench")["id"]
            wait_online(product.gateway, [device])
            host, port, cookie = open_session(product.gateway, device)
            server = product.stack.pid("tunnel_server")
            target = Target(
                TOWLINE, "127.0.0.1", port, (("Host", host), ("Cookie", cookie)),
                {"server": (server,), "agent": (agent.pid,)},
                (("Origin", f"http://{host}"),),
            )  # fmt: skip
            state = config.parent / "state"
            gateway, postgres = product.stack.pid("gateway"), product.stack.pid("postgres")
            yield TowlineStack(
                target, product.gateway, product.data, state, server, agent.pid, gateway, postgres
            )
