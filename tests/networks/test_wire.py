"""The bad line itself: what it says it does to packets, it does; and nothing of a dead run stays."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from testbed.waiting import eventually
from tests.networks.topology import CLOUD_SIDE, DEVICE_SIDE, PREFIX, Topology, remove_leftovers, run

PACKETS = 200  # a socket takes as many of them unread
ROUNDS = 5  # of what goes by chance: in 1,000 packets it is a seventh of its deviation from what is asserted
TRIES = 5  # of what goes by time: the machine delays one of them, the line each
WAIT_S = 20.0


def _pair(bare: Topology) -> tuple[socket.socket, socket.socket]:
    """A UDP socket on each end."""
    ends = [one.inside(lambda: socket.socket(type=socket.SOCK_DGRAM)) for one in (bare.cloud, bare.device)]
    for end, address in zip(ends, (CLOUD_SIDE, DEVICE_SIDE), strict=True):
        end.bind((address, 0))
        end.settimeout(WAIT_S)
    ends[0].connect(ends[1].getsockname())
    return ends[0], ends[1]


def _arrived(receiver: socket.socket) -> list[int]:
    numbers = []
    receiver.settimeout(0.2)
    try:
        while True:
            numbers.append(int(receiver.recv(100)))
    except TimeoutError:
        return numbers


def _send(bare: Topology) -> list[int]:
    sender, receiver = _pair(bare)
    before = bare.line.set()["to_b"]["came"]

    def delivered() -> bool:
        counts = bare.line.set()
        return counts["to_b"]["came"] >= before + PACKETS and not counts["queued"]

    with sender, receiver:
        for number in range(PACKETS):
            sender.send(b"%d" % number)
        eventually("the line has done with them", delivered, WAIT_S)
        return _arrived(receiver)


def test_a_good_line_changes_nothing(bare: Topology) -> None:
    bare.line.clear()
    assert _send(bare) == list(range(PACKETS))


def test_delay(bare: Topology) -> None:
    bare.line.clear()
    bare.line.set(to="b", delay_ms=200)
    sender, receiver = _pair(bare)
    with sender, receiver:
        took = []
        for _ in range(TRIES):
            started = time.monotonic()
            sender.send(b"1")
            receiver.recv(10)
            took.append(time.monotonic() - started)
    assert 0.2 <= min(took) < 1.0


def test_loss_and_duplicates_are_as_many_as_asked_for(bare: Topology) -> None:
    sent = PACKETS * ROUNDS
    before = bare.line.clear()["to_b"]
    bare.line.set(to="b", loss=30)
    arrived = sum(len(_send(bare)) for _ in range(ROUNDS))
    counts = bare.line.set(to="b", loss=0, duplicate=20)["to_b"]
    assert arrived == sent - (counts["lost"] - before["lost"])
    assert 0.2 * sent < sent - arrived < 0.4 * sent
    arrived = sum(len(_send(bare)) for _ in range(ROUNDS))
    after = bare.line.clear()["to_b"]
    assert arrived == sent + after["duplicated"] - counts["duplicated"]
    assert 1.1 * sent < arrived < 1.3 * sent


def test_jitter_and_reorder_change_the_order_and_lose_nothing(bare: Topology) -> None:
    bare.line.clear()
    bare.line.set(delay_ms=30, jitter_ms=20, reorder=5)
    arrived = _send(bare)
    assert sorted(arrived) == list(range(PACKETS))
    assert arrived != sorted(arrived)


def test_a_partition_lets_nothing_through_and_ends(bare: Topology) -> None:
    bare.line.clear()
    with bare.line.partition():
        assert _send(bare) == []
    assert _send(bare) == list(range(PACKETS))


def test_what_a_dead_run_left_is_removed_and_what_a_living_one_has_is_not(bare: Topology) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = f"{PREFIX}{dead.pid}-x-cloud"
    run("ip", "netns", "add", name)
    remove_leftovers()
    names = run("ip", "netns", "list")
    assert name not in names
    assert bare.cloud.name in names
