"""What one node learns holds on the other: links, revocations, the newest instance of a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from testbed.people import Visitor
from testbed.waiting import eventually
from tests.cluster.cluster import NODES, Cluster

EVERYWHERE_S = 2.0


@pytest.fixture
def both(cluster: Cluster) -> Iterator[tuple[Visitor, Visitor]]:
    """One browser that opened its link at node a, and was then led to node b as well."""
    first = cluster.visitor(cluster.device_ids[0], node="a")
    second = cluster.moved(first, "b")
    yield first, second
    first.close()
    second.close()


def test_a_link_opened_at_one_node_is_a_session_at_the_other(both: tuple[Visitor, Visitor]) -> None:
    for visitor in both:
        answer = visitor.http.get("/page")
        assert (answer.status_code, answer.content) == (200, b"the device")


def test_a_link_burnt_at_one_node_opens_nothing_at_the_other(cluster: Cluster) -> None:
    url = cluster.open_session(cluster.device_ids[0])["url"]
    first, second = (Visitor(cluster.at_node(url, node)) for node in NODES)
    assert first.enter().status_code == 303
    answer = second.enter()
    assert answer.status_code == 410
    assert not second.cookie
    first.close()
    second.close()


def test_a_session_ended_at_the_gateway_ends_at_both_nodes(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    session = cluster.open_session(cluster.device_ids[0])
    first = Visitor(cluster.at_node(session["url"], "a"))
    first.enter()
    second = cluster.moved(first, "b")
    assert [one.http.get("/page").status_code for one in (first, second)] == [200, 200]
    ended = time.monotonic()
    cluster.api.delete(f"/v1/sessions/{session['id']}")

    def is_over(visitor: Visitor) -> bool:
        return visitor.http.get("/page").status_code == 410

    for one in (first, second):
        eventually("the session has ended", partial(is_over, one), EVERYWHERE_S)
        one.close()
    assert time.monotonic() - ended < EVERYWHERE_S
    figures("session ended at both nodes after", f"{time.monotonic() - ended:.2f} s")


def test_the_newest_instance_wins_at_every_node(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    """Another machine with the device's identity dials node b alone; the first one's tunnel at a ends."""
    before = cluster.tunnels("a")
    replaced = 'towline_tunnels_closed_total{code="replaced"}'
    cluster.copy_agent("agent-0", "copy", "b")
    try:
        eventually("the copy is at node b", lambda: cluster.metric("b", replaced) >= 1)
        came = time.monotonic()
        eventually("the first one left node a", lambda: cluster.tunnels("a") < before, EVERYWHERE_S)
        figures("replaced at the other node after", f"{time.monotonic() - came:.2f} s")
    finally:
        cluster.stop("copy")
        cluster.stop("agent-0")  # it would stay quiet for half a minute
        cluster.run_agent("agent-0")
        cluster.wait_tunnels()


def test_a_revoked_device_is_gone_from_both_nodes(
    cluster: Cluster, figures: Callable[[str, str], None]
) -> None:
    device = cluster.device_ids.pop()
    try:
        first = cluster.visitor(device, node="a")
        second = cluster.moved(first, "b")
        assert [one.http.get("/page").status_code for one in (first, second)] == [200, 200]
        before = {node: cluster.tunnels(node) for node in NODES}
        revoked = time.monotonic()
        cluster.api.post(f"/v1/devices/{device}/revoke", {})
        for node in NODES:
            eventually(
                "its tunnel has ended",
                lambda node=node: cluster.tunnels(node) < before[node],  # type: ignore[misc]
                EVERYWHERE_S,
            )
        for one in (first, second):
            assert one.http.get("/page").status_code in (403, 410)
            one.close()
        assert time.monotonic() - revoked < EVERYWHERE_S
        figures("device revoked at both nodes after", f"{time.monotonic() - revoked:.2f} s")
    finally:
        cluster.add_agent()
        cluster.wait_tunnels()
