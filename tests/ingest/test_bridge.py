"""Bridges between a real broker (Mosquitto by TLS, the embedded one) and a log."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter

from device_protocol.errors import Reason
from device_protocol.topics import Kind
from ingest.app import Ingest
from ingest.policy.sharing import is_ours
from runtime.event_log.interface import CONTROL, DEAD, UP, LogUnavailableError
from runtime.tasks import TaskOwner
from testbed.ops import sum_of
from tests.ingest.conftest import Site
from tests.ingest.devices import LiveDevice
from tests.ingest.test_no_loss import SharedLog
from tests.ingest.world import MemoryLog, until


def metric(ingest: Ingest, start: str) -> float:
    return sum_of(ingest.registry.render().decode(), start)


def seqs(log: MemoryLog, device: str) -> list[int]:
    return [json.loads(e.value)["seq"] for e in log.of(UP) if e.key == device.encode()]


async def test_what_devices_say_is_in_the_log_and_they_hear_so(site: Site) -> None:
    log = MemoryLog()
    async with site.bridge(log) as ingest:
        devices = [LiveDevice(site.clients, f"d_{n:016d}") for n in range(5)]
        await asyncio.gather(*(device.say(100) for device in devices))
        await devices[0].publish(devices[0].hello(), Kind.HELLO)
        await devices[0].publish(b"nonsense")
        await until("control and dead", lambda: len(log.of(CONTROL)) == len(log.of(DEAD)) == 1)
        await until("refused", lambda: bool(devices[0].heard() and devices[0].refused))
        assert [refused.reason for refused in devices[0].refused] == [Reason.BAD_JSON]
        for device in devices:
            assert seqs(log, device.device) == list(range(1, 101))
        assert metric(ingest, "towline_ingest_gaps_total") == 0
        assert metric(ingest, 'towline_ingest_messages_total{kind="hello"') == 1
        assert metric(ingest, "towline_ingest_pending_bytes ") == 0
        assert metric(ingest, "towline_ingest_broker_connected") == 1


async def test_two_bridges_share_the_devices_and_keep_their_order(site: Site) -> None:
    log = SharedLog()
    async with (
        site.bridge(log, bridge=0, bridges=2) as first,
        site.bridge(log, bridge=1, bridges=2) as second,
    ):
        devices = [LiveDevice(site.clients, f"d_{n:016d}") for n in range(12)]
        await asyncio.gather(*(device.say(30) for device in devices))
        for device in devices:
            assert seqs(log, device.device) == list(range(1, 31)), "nothing twice, nothing late"
        shares = Counter(next(b for b in (0, 1) if is_ours(device.topic(), b, 2)) for device in devices)
        assert min(shares.values()) >= 2
        for bridge, ingest in enumerate((first, second)):
            assert metric(ingest, "towline_ingest_lines ") == shares[bridge], "its own devices alone"
            assert metric(ingest, "towline_ingest_gaps_total") == 0


async def test_a_bridge_that_is_replaced_loses_nothing(site: Site) -> None:
    log = SharedLog()
    device = LiveDevice(site.clients, "d_aaaaaaaaaaaaaaaa")
    async with site.bridge(log):
        await device.say(20)
    async with site.bridge(log):
        await device.say(20)
    assert seqs(log, device.device) == list(range(1, 41))


async def test_a_log_that_is_away_costs_the_connection_and_devices_catch_up(site: Site) -> None:
    log = MemoryLog()
    async with site.bridge(log, append_s=0.5) as ingest:
        device = LiveDevice(site.clients, "d_aaaaaaaaaaaaaaaa")
        await device.say(10)
        log.fault = LogUnavailableError("away")
        saying = TaskOwner("test").start(device.say(200), "say")
        await until("dropped", lambda: metric(ingest, "towline_ingest_broker_connections_lost_total") >= 1)
        assert "log" in ingest.failed_checks()
        log.fault = None
        await saying
        assert seqs(log, device.device) == list(range(1, 211))
        assert metric(ingest, "towline_ingest_given_up_total") > 0
        await until("ready again", lambda: ingest.failed_checks() == [])


async def test_while_the_log_is_away_bytes_are_bounded_and_reading_rests(site: Site) -> None:
    log = MemoryLog()
    async with site.bridge(log, bytes_max=1 << 20, append_s=60.0) as ingest:
        devices = [LiveDevice(site.clients, f"d_{n:016d}", large=True) for n in range(8)]
        for device in devices:
            await device.connect()
        log.open.clear()
        tasks = TaskOwner("test")
        saying = [tasks.start(device.say(64), device.device) for device in devices]
        await until("it rests", lambda: metric(ingest, "towline_ingest_paused") == 1)
        turns = itertools.count()
        used = []

        def look() -> bool:
            used.append(ingest.intake.budget.used)
            return next(turns) > 100

        await until("looked at for a while", look)
        assert 1 << 20 < max(used) < 2 << 20, "only what was read already comes on top, of 8 MB that are said"
        assert [len(kept) for kept in log.kept.values()] == []
        log.open.set()
        await asyncio.gather(*saying)
        for device in devices:
            assert seqs(log, device.device) == list(range(1, 65))
        await until("it reads", lambda: metric(ingest, "towline_ingest_paused") == 0)
