"""A device that nobody can reach, and that reaches port 443 alone, shows its page to a browser (row A4)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from testbed.certificates import spki_hash
from testbed.waiting import eventually
from tests.browser.browser import WAIT_MS, chromium, chromium_path
from tests.networks.topology import DEVICE_SIDE, VISITORS
from tests.networks.traffic import running
from tests.networks.world import DOMAIN, World

REFUSED_S = 2.0  # a dropped SYN is never answered
SSH = 22

_FIREWALL = """
table inet towline_n {
    chain incoming {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
    }
    chain outgoing {
        type filter hook output priority 0; policy drop;
        oif lo accept
        tcp dport 443 accept
    }
    chain through { type filter hook forward priority 0; policy drop; }
}
"""


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    """Chromium in the visitor's network."""
    wrapper = world.folder / "chromium-there"
    inside = shlex.join(world.net.visitor.argv(chromium_path()))
    wrapper.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    wrapper.chmod(0o755)
    trust = spki_hash(Path(world.wildcard.chain))
    with chromium(resolve=f"*.{DOMAIN}", trust=trust, address=VISITORS, executable=str(wrapper)) as started:
        yield started


def test_a_browser_opens_the_page_of_a_device_behind_a_firewall(
    world: World, browser: Browser, seed: int
) -> None:
    world.net.device.nft(_FIREWALL)
    world.kill_9("agent")  # it comes in through the firewall, from nothing
    eventually("the killed agent's tunnels are gone", lambda: world.tunnels() <= 2)
    world.wait_online()
    for port in (SSH, 443, *world.ports.values()):
        with pytest.raises(TimeoutError):
            world.net.cloud.connect(DEVICE_SIDE, port, REFUSED_S)
    with pytest.raises(TimeoutError):
        world.net.device.connect("10.70.0.1", 80, REFUSED_S)  # the device's own way out is as narrow

    host, token = world.link()
    page = browser.new_context().new_page()
    page.goto(f"https://{host}/.towline/open#{token}", timeout=WAIT_MS)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="The device's page")).to_be_visible(timeout=WAIT_MS)
    with running(world, seed):
        pass  # uploads, downloads and WebSocket go the same way
