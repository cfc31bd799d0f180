"""What changes while people are there: a node goes and comes back, certificates are renewed."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from testbed.waiting import eventually
from tests.deployment.client import Client
from tests.deployment.site import DOMAIN, NODES, Site

Visit = Callable[..., Client]


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_the_other_node_serves_while_one_is_away(site: Site, front: str, visit: Visit) -> None:
    """Each node in its turn, so that whichever a session was on has been away."""
    visitor = visit(front)
    for node in ("a", "b"):
        before = len(site.device.requests)
        with site.away(node):
            for number in range(5):
                assert visitor.get(f"/away/{number}") == (200, b"the device")
            answer = visitor.ask("POST", "/upload", b"once")
            answer.read()
            assert answer.status == 200
        paths = [path for _, path, _ in site.device.requests[before:]]
        assert paths.count("/upload") == 1


def serial(site: Site, front: str, host: str) -> str:
    with site.client(front, host).connection() as connection:
        certificate = connection.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_a_renewed_certificate_is_shown_after_sighup_and_streams_go_on(site: Site, visit: Visit) -> None:
    """Node c ends TLS itself, behind haproxy: visitors' and devices' certificates."""
    label = f"{'f' * 26}.{DOMAIN}"
    with visit("haproxy", "echo").websocket() as live:
        first = [serial(site, "haproxy", host) for host in (label, NODES[0])]
        site.authority.issue("wildcard", f"*.{DOMAIN}", days=2)
        site.authority.issue("nodes", *NODES, days=2)
        site.signal("node-c", signal.SIGHUP)
        eventually("the new ones are shown", lambda: serial(site, "haproxy", label) != first[0])
        assert serial(site, "haproxy", NODES[0]) != first[1]
        live.send("still here")
        assert live.recv(20) == "still here"
    left = site.metric("c", 'towline_certificate_expires_in_seconds{listener="visitors"}')
    assert 170_000 < left <= 172_800


def test_a_bad_certificate_changes_nothing_and_is_told_once(site: Site) -> None:
    label = f"{'f' * 26}.{DOMAIN}"
    shown, good = serial(site, "haproxy", label), site.wildcard.key.read_bytes()
    refused = 'towline_certificate_reloads_total{listener="visitors",outcome="refused"}'
    before = site.metric("c", refused)
    site.wildcard.key.write_text("garbage")
    try:
        site.signal("node-c", signal.SIGHUP)
        eventually("it was refused", lambda: site.metric("c", refused) == before + 1)
    finally:
        site.wildcard.key.write_bytes(good)
    assert serial(site, "haproxy", label) == shown
    told = (site.folder / "node-c.log").read_text().count("certificate not loaded, the old one stays")
    assert told == 1


def test_devices_stay_through_every_front(site: Site) -> None:
    """Two devices, each with a tunnel to every node; quiet ones are kept by the tunnel's own pings."""
    for node in site.nodes:
        assert site.tunnels(node) == 2
