"""One node after the other is restarted under load, and nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.cluster.cluster import DRAIN_S, NODES, Cluster
from tests.cluster.load import Load

IDLE_STOP_S = 2.0


def visitors(cluster: Cluster, *, lasting: bool = False) -> Load:
    """Some of each kind at each node."""
    return Load(cluster.front, cluster.spread("web", 1), cluster.spread("echo", 2), lasting=lasting)


async def test_a_rolling_restart_fails_no_request_and_breaks_no_websocket(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    await restart_under_load(cluster, 1, figures)


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(900)
async def test_ten_rolling_restarts_fail_no_request(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    await restart_under_load(cluster, 10, figures)


async def restart_under_load(cluster: Cluster, rounds: int, figures: Callable[[str, str], None]) -> None:
    load = await asyncio.to_thread(visitors, cluster)
    async with load.running() as tally:
        await until_each_kind(tally.done)
        for node in NODES * rounds:
            took = await asyncio.to_thread(cluster.stop, f"node-{node}")
            cluster.again(f"node-{node}")
            await asyncio.to_thread(cluster.wait_ready, node)
            assert took < DRAIN_S, f"{node} was cut at its drain's end"
            figures(f"drain of {node}", f"{took:.1f} s")
            await asyncio.to_thread(cluster.wait_visitors, node)
            await until_each_kind(tally.done)
    assert tally.failed == [], tally
    assert tally.wrong == []
    figures("requests, WebSockets", f"{sum(tally.done.values()) - tally.done['message']}")
    figures("failed", "0")


async def until_each_kind(done: dict[str, int]) -> None:
    """Until each kind of visitor has ended something again."""
    before = dict(done)
    kinds = ("get", "post", "download", "upload", "websocket")
    async with asyncio.timeout(DRAIN_S):
        while any(done[kind] <= before.get(kind, 0) for kind in kinds):  # noqa: ASYNC110 - counted by others
            await asyncio.sleep(0.05)


def test_an_idle_node_is_gone_within_two_seconds(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    waiting = cluster.visitor(cluster.device_ids[0], node="a")
    assert waiting.http.get("/page").status_code == 200  # its connection stays open
    took = cluster.restart("a")
    waiting.close()
    assert took < IDLE_STOP_S
    figures("idle stop", f"{took:.2f} s")
