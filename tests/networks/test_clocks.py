"""A clock that is set by an hour or a year: what is open goes on, and a refusal for a wrong clock says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.waiting import eventually
from tests.networks.traffic import running
from tests.networks.world import World

Figures = Callable[[str, str], None]

HOUR, YEAR = 3600, 365 * 24 * 3600
SEEN_S = 2.5  # libfaketime looks at its file each second; then some traffic under the new time
SHORT_S = 600  # a session that is over by the clock of a device that is an hour ahead
WRONG_CLOCK = "The device&#x27;s clock is wrong"


@pytest.fixture
def world(clocks: World) -> World:
    return clocks


def _closed(world: World, since: int) -> list[str]:
    return [str(one) for one in world.log("node")[since:] if one["event"] == "tunnel closed"]


def _new_session(world: World) -> tuple[int, str]:
    """What somebody sees who opens a link now."""
    visitor = world.visitor(duration_s=SHORT_S)
    try:
        status, body = visitor.get("/", {"Accept": "text/html"})
        return status, body.decode()
    finally:
        visitor.close()


def test_a_device_whose_clock_is_wrong_keeps_what_is_open_and_says_why_nobody_new_gets_in(
    world: World, seed: int, figures: Figures
) -> None:
    since = len(world.log("node"))
    with running(world, seed) as traffic:
        for offset_s in (-HOUR, HOUR, YEAR):
            world.set_clock("agent", offset_s)
            traffic.rest(SEEN_S)
            status, text = _new_session(world)
            assert status == 503, text
            assert WRONG_CLOCK in text, text
            world.set_clock("agent", 0)
            eventually("a new session", lambda: _new_session(world)[0] == 200, SEEN_S * 4)
        assert not traffic.errors()
    assert not _closed(world, since)
    figures("traffic", traffic.summary())


@pytest.mark.parametrize("name", ["node", "gateway"])
def test_tunnels_and_live_sessions_outlive_a_wrong_clock_in_the_cloud(
    world: World, seed: int, figures: Figures, name: str
) -> None:
    """Sessions end by monotonic time, at the node and at the device. The owner may have to log in again."""
    since = len(world.log("node"))
    with running(world, seed) as traffic:
        for offset_s in (-HOUR, HOUR, YEAR):
            world.set_clock(name, offset_s)
            traffic.rest(SEEN_S)
            assert not traffic.errors(), f"{name} {offset_s:+d} s"
        world.set_clock(name, 0)
        traffic.rest(SEEN_S)
        assert not traffic.errors()
    assert not _closed(world, since)
    figures("traffic", traffic.summary())
