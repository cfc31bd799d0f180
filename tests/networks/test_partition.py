"""The line breaks without a word: half-open connections, and partitions of seconds to minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from testbed.waiting import eventually
from tests.networks.traffic import Traffic, running
from tests.networks.world import World, seconds_until

Figures = Callable[[str, str], None]

FOUND_S = 10.0  # SECURITY, reliability: half-open found
WRONG_ONLINE_S = 15.0  # … and "online" wrong no longer than this
MACHINE_S = 2.0  # what this machine, which others use too, may add to a bound of the product
MAX_BACKOFF_S = 60.0  # tunnel_agent.policy.reconnect
DIAL_S = 15.0  # a dial that began in the dark is given up after dial_timeout_s
FDS = 4  # a lingering connection, a kept one to the gateway

_SILENCE = """
table inet towline_n {
    chain incoming { type filter hook input priority 0; policy drop; iif lo accept; }
    chain outgoing { type filter hook output priority 0; policy drop; oif lo accept; }
}
"""


def files(world: World) -> dict[str, int]:
    """How many each process has open; taken without traffic, whose pooled streams come and go."""
    return {name: world.fds(name) for name in ("agent", "node", "gateway")}


def wait_given_back(world: World, before: dict[str, int]) -> None:
    for name, count in before.items():
        eventually(f"{name} gave its files back", lambda n=name, c=count: world.fds(n) <= c + FDS)  # type: ignore[misc]


def test_a_half_open_tunnel_is_found_by_both_sides_and_replaced(
    world: World, figures: Figures, seed: int
) -> None:
    before = files(world)
    with running(world, seed) as traffic:
        world.net.device.nft(_SILENCE)  # no RST, no FIN: both ends believe for a while
        started = time.monotonic()
        at_node = seconds_until(lambda: world.tunnels() == 0, FOUND_S + MACHINE_S, "the node found out")
        left = FOUND_S + MACHINE_S - (time.monotonic() - started)
        eventually("the agent found out", lambda: world.agent_sockets() == 0, max(left, 0.5))
        at_agent = time.monotonic() - started
        seconds_until(lambda: not world.is_online(), WRONG_ONLINE_S - at_agent, "offline at the gateway")
        offline = time.monotonic() - started
        traffic.wait_for_page("offline", FOUND_S)
        world.net.device.nft("")
        back = seconds_until(lambda: world.tunnels() == 2, MAX_BACKOFF_S, "two tunnels again")
        traffic.wait_success(FOUND_S)
    wait_given_back(world, before)
    figures("found by the node after", f"{at_node:.1f} s")
    figures("by both after", f"{at_agent:.1f} s")
    figures("offline at the gateway after", f"{offline:.1f} s")
    figures("both tunnels back after", f"{back:.1f} s")
    figures("traffic", traffic.summary())


def _partition(world: World, traffic: Traffic, seconds: float, figures: Figures) -> None:
    with world.net.line.partition():
        cut = time.monotonic()
        if seconds > WRONG_ONLINE_S:
            eventually("offline at the gateway", lambda: not world.is_online(), WRONG_ONLINE_S)
            traffic.wait_for_page("offline", WRONG_ONLINE_S)
        traffic.rest(seconds - (time.monotonic() - cut))
    healed = time.monotonic()
    back = seconds_until(lambda: world.tunnels() == 2, MAX_BACKOFF_S + DIAL_S, "two tunnels again")
    traffic.wait_success(FOUND_S)
    errors = traffic.last_error_after_s(healed)
    figures("both tunnels back after", f"{back:.1f} s")
    figures("last error after the heal", f"{errors:.1f} s")


def test_a_partition_of_five_seconds(world: World, figures: Figures, seed: int) -> None:
    before = files(world)
    with running(world, seed) as traffic:
        _partition(world, traffic, 5.0, figures)
    wait_given_back(world, before)
    figures("traffic", traffic.summary())


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [60.0, 600.0])
def test_a_long_partition(world: World, figures: Figures, seed: int, seconds: float) -> None:
    before = files(world)
    with running(world, seed) as traffic:
        _partition(world, traffic, seconds, figures)
    wait_given_back(world, before)
    figures("traffic", traffic.summary())
