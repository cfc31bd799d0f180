"""kill -9 of one of two nodes, and a gateway that is away."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable

import pytest

from testbed.waiting import eventually
from tests.cluster.cluster import Cluster
from tests.cluster.load import Tally
from tests.cluster.test_rolling_restart import until_each_kind, visitors

# What was in flight, or reached the dead node before nginx knew, fails within this; afterwards nothing may.
IN_FLIGHT_S = 2.0
BACK_P99_S = 5.0
PRESENCE_WRONG_S = 15.0


async def test_kill_9_of_a_node_costs_what_was_in_flight_alone(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    await asyncio.to_thread(both_are_used, cluster)
    load = await asyncio.to_thread(visitors, cluster, lasting=True)
    async with load.running() as tally:
        await until_messages(tally)
        killed_at = time.monotonic()
        await asyncio.to_thread(cluster.kill, "node-a")
        await until_back(tally)
        cluster.again("node-a")
        restarted_at = time.monotonic()
        await asyncio.to_thread(cluster.wait_tunnels, "a")
        agents_back_s = time.monotonic() - restarted_at
        await asyncio.to_thread(cluster.wait_ready, "a")
        await asyncio.to_thread(cluster.wait_visitors, "a")
        await until_messages(tally)
    assert tally.wrong == []
    late = [one for one in tally.failed if one[0] > killed_at + IN_FLIGHT_S]
    assert late == [], tally
    assert tally.gaps_s, "the node that died had none of the WebSockets"
    assert max(tally.gaps_s) <= BACK_P99_S
    figures(
        "WebSockets back after", f"{statistics.median(tally.gaps_s):.2f} s, at most {max(tally.gaps_s):.2f} s"
    )
    figures("failed in flight", f"{len(tally.failed)} of {sum(tally.done.values()) - tally.done['message']}")
    figures("agents at the restarted node after", f"{agents_back_s:.1f} s")


def both_are_used(cluster: Cluster) -> None:
    """nginx takes a node that refused back after fail_timeout, with the next visitor."""

    def used() -> bool:
        one = cluster.visitor(cluster.device_ids[0])
        try:
            assert one.http.get("/page").status_code == 200
            return all(cluster.metric(node, "towline_visitor_connections") for node in cluster.nodes)
        finally:
            one.close()

    eventually("visitors at both nodes", used)


async def until_messages(tally: Tally) -> None:
    before = tally.done["message"]
    async with asyncio.timeout(IN_FLIGHT_S * 5):
        while tally.done["message"] < before + 200:  # noqa: ASYNC110 - counted by others
            await asyncio.sleep(0.05)


async def until_back(tally: Tally) -> None:
    """Every WebSocket that broke speaks again."""
    async with asyncio.timeout(BACK_P99_S * 2):
        while len(tally.gaps_s) < 1:  # noqa: ASYNC110 - counted by others
            await asyncio.sleep(0.05)
    await until_messages(tally)


async def test_live_sessions_go_on_while_the_gateway_is_away(cluster: Cluster) -> None:
    await asyncio.to_thread(both_are_used, cluster)
    load = await asyncio.to_thread(visitors, cluster)
    async with load.running() as tally:
        await until_each_kind(tally.done)
        await asyncio.to_thread(cluster.kill, "gateway")
        for _ in range(2):
            await until_each_kind(tally.done)
        cluster.again("gateway")
        await asyncio.to_thread(cluster.wait_ops, "gateway", cluster.gateway_ops)
        await until_each_kind(tally.done)
    assert tally.failed == [], tally
    assert tally.wrong == []
    for node in cluster.nodes:
        await asyncio.to_thread(cluster.wait_ready, node)
    # A gateway that was away for longer than a node may be silent hears of the devices within a heartbeat.
    await asyncio.to_thread(cluster.wait_online, PRESENCE_WRONG_S)


@pytest.mark.soak
def test_a_device_stays_online_by_the_other_node_and_goes_offline_with_its_agent(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    device = cluster.device_ids[0]
    cluster.kill("node-a")
    went = time.monotonic()
    pause = threading.Event()
    while time.monotonic() < went + PRESENCE_WRONG_S:  # all of the time in which node a may count as living
        assert cluster.is_online(device)
        pause.wait(0.2)
    cluster.again("node-a")
    cluster.wait_ready("a")
    cluster.wait_tunnels("a")

    cluster.kill("node-a")
    cluster.kill("agent-0")
    went = time.monotonic()
    eventually("the device is offline", lambda: not cluster.is_online(device), PRESENCE_WRONG_S)
    figures("offline, its node and its agent dead", f"after {time.monotonic() - went:.1f} s")
    cluster.again("node-a")
    cluster.again("agent-0")
    cluster.wait_ready("a")
    cluster.wait_tunnels()
