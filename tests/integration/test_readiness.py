"""Alive and ready are two things (row J19): without what it needs a service lives, names it, and recovers.

The gateway without its database: tests/gateway/test_store.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed import ops
from testbed.ports import LOOPBACK, free_port
from testbed.processes import short_folder, started
from testbed.settings_tables import agent_table, write_table
from testbed.small_site import NODE, SmallSite
from testbed.waiting import eventually

NAME = "greenhouse"
AGENT = f"agent-{NAME}"


class Ports:
    """Where operators look."""

    def __init__(self, site: SmallSite, agent: int) -> None:
        self.gateway, self.node, self.agent = site.gateways.ports[0].ops, site.node.ops, agent


@pytest.fixture(scope="module")
def site() -> Iterator[SmallSite]:
    with short_folder("rdy-") as folder, started(SmallSite(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def ports(site: SmallSite) -> Ports:
    agent = free_port()
    site.add_device(NAME, site.gateways.owner())
    site.processes.stop(AGENT)  # and once more, with a listener for operators
    table = agent_table(site.folder / f"{NAME}-state", {"web": 9}, ops_listen=f"{LOOPBACK}:{agent}")
    write_table(site.folder / f"{NAME}.toml", table)
    site.processes.again(AGENT)
    found = Ports(site, agent)
    for port in (found.gateway, found.node, found.agent):
        eventually("all of them are ready", lambda port=port: ready(port) == (200, []))  # type: ignore[misc]
    return found


def ready(port: int) -> tuple[int, list[str]]:
    """Its status and what it says is missing; (0, []) while nobody listens."""
    try:
        answer = ops.ask(port, "/readyz")
    except OSError:
        return 0, []
    return answer.status_code, answer.json()["failed"]


def test_a_node_without_its_gateway(site: SmallSite, ports: Ports) -> None:
    site.processes.kill("gateway-0")
    try:
        eventually("it is not ready", lambda: ready(ports.node) == (503, ["revocation_feed"]))
        assert ops.ask(ports.node, "/livez").status_code == 200
    finally:
        site.processes.again("gateway-0")
    eventually("it is ready again", lambda: ready(ports.node) == (200, []))


def test_an_agent_without_a_node(site: SmallSite, ports: Ports) -> None:
    site.processes.kill(NODE)
    try:
        eventually("it is not ready", lambda: ready(ports.agent) == (503, ["no tunnel is open"]))
        assert ops.ask(ports.agent, "/livez").status_code == 200
    finally:
        site.processes.again(NODE)
    eventually("it is ready again", lambda: ready(ports.agent) == (200, []))
