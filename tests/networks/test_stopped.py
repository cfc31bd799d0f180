"""A process that hangs (SIGSTOP) and goes on again, or dies at once (kill -9), under load."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from testbed.processes import START_S
from testbed.waiting import eventually
from tests.networks.traffic import KINDS, PATIENCE_S, running
from tests.networks.world import World, stopped

Figures = Callable[[str, str], None]

# SECURITY, reliability: errors in flight ≤ 10 s; counted from when the process goes on. What a visitor began
# to wait for before ends with its patience, which is the visitor's own.
ERRORS_S = 10.0
WITHOUT_IT_S = 2.0  # of traffic before, so that everything is under way
FDS = 4
WATCHED = ("agent", "node", "gateway")
# Live sessions need the agent, the node and the device alone.
BESIDE = frozenset({"gateway", "postgres", "nginx"})


def _stop(world: World, name: str, seconds: float, seed: int, figures: Figures) -> None:
    before = {one: world.fds(one) for one in WATCHED}
    with running(world, seed) as traffic:
        traffic.rest(WITHOUT_IT_S)
        with stopped(world, name):
            begun = time.monotonic()
            traffic.rest(seconds)
        resumed = time.monotonic()
        if name in BESIDE:
            assert not traffic.errors(begun), f"live sessions noticed {name}"
        eventually("both tunnels", lambda: world.tunnels() == 2, START_S)
        tunnels = time.monotonic() - resumed
        eventually("the gateway says online", world.is_online, START_S)
        traffic.wait_success(PATIENCE_S)
        traffic.rest(1)
        last = traffic.last_error_after_s(resumed)
    for one, count in before.items():
        eventually(f"{one} gave its files back", lambda n=one, c=count: world.fds(n) <= c + FDS)  # type: ignore[misc]
    figures("errors", str(traffic.errors(begun)))
    figures("last error after it went on", f"{last:.1f} s")
    figures("both tunnels after", f"{tunnels:.1f} s")
    figures("traffic", traffic.summary())
    assert last <= ERRORS_S


@pytest.mark.parametrize("name", ["agent", "node"])
def test_a_process_that_stands_still_for_five_seconds(
    world: World, seed: int, figures: Figures, name: str
) -> None:
    _stop(world, name, 5, seed, figures)


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [5, 20, 60])
@pytest.mark.parametrize("name", ["gateway", "node", "agent", "postgres", "device"])
def test_any_process_stands_still(
    world: World, seed: int, figures: Figures, name: str, seconds: float
) -> None:
    _stop(world, name, seconds, seed, figures)


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["gateway", "node", "agent"])
def test_kill_9_under_load(world: World, seed: int, figures: Figures, name: str) -> None:
    worst = 0.0
    with running(world, seed) as traffic:
        for _ in range(3):
            traffic.rest(WITHOUT_IT_S)
            killed = time.monotonic()
            world.kill_9(name)
            eventually("both tunnels", lambda: world.tunnels() == 2, START_S)
            eventually("the gateway says online", world.is_online, START_S)
            traffic.wait_success(PATIENCE_S)
            worst = max(worst, traffic.last_error_after_s(killed))
            assert traffic.last_error_after_s(killed) <= ERRORS_S
            for kind in KINDS if name in BESIDE else ():
                assert not traffic.count(kind, ok=False, since=killed), traffic.errors(killed)
    figures("last error after the kill, worst of three", f"{worst:.1f} s")
    figures("errors", str(traffic.errors()))
    figures("traffic", traffic.summary())
