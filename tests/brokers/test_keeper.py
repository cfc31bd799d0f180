"""Who the feed says is revoked leaves the broker within two seconds, and does not come in behind it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from ingest import keeper as module
from ingest.brokers.embedded import EmbeddedBroker
from ingest.keeper import Doors, Keeper
from runtime.clock import SYSTEM_CLOCK
from runtime.internal_http import GatewayUnavailable
from runtime.mqtt_link import MqttRefusedError
from testbed.waiting import eventually
from tests.brokers.embedded import SECRETS
from tests.mqtt_link.clients import WAIT_S, Clients, topic

GOAL_S = 2.0


class Feed:
    """A gateway's feed: what is put into it comes out; `broken` ends the stream that is being read."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._number = 0
        self.asked_after: list[int] = []

    def revoke(self, device: str) -> None:
        self._number += 1
        self._lines.put_nowait({"n": self._number, "kind": "device", "id": device})

    def put(self, entry: dict[str, object]) -> None:
        self._number += 1
        self._lines.put_nowait({"n": self._number, **entry})

    def broken(self) -> None:
        self._lines.put_nowait(None)

    async def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        self.asked_after.append(after)
        while (entry := await self._lines.get()) is not None:
            yield json.dumps(entry).encode()
        raise GatewayUnavailable("the stream ended")


@asynccontextmanager
async def _keeping(feed: Feed, doors: Doors) -> AsyncIterator[Keeper]:
    keeper = Keeper(feed, doors, SYSTEM_CLOCK)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_revoked_device_leaves_and_the_others_stay(embedded: EmbeddedBroker) -> None:
    feed = Feed()
    async with _keeping(feed, embedded), Clients(embedded) as clients:
        revoked, other = await clients.device("d_a"), await clients.device("d_b")
        feed.put({"kind": "session", "id": "s", "device": "d_b"})
        feed.put({"kind": "replaced", "id": "d_b", "keep": "00"})
        feed.revoke("d_a")
        assert await asyncio.wait_for(revoked.link.wait_closed(), GOAL_S)
        feed.broken()
        again = await clients.device("d_a")  # this test's passwords are never taken back
        feed.revoke("d_a")
        assert await asyncio.wait_for(again.link.wait_closed(), WAIT_S)
        assert await other.link.publish(topic("d_b"), b"x") == 0
    assert feed.asked_after == [0, 3]


async def test_a_login_that_was_being_checked_does_not_come_in_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway said yes before it revoked; its answer arrives after the kick."""
    monkeypatch.setattr(module, "AGAIN_S", (3.0,))  # the login goes on before, also on a busy machine
    asked, answer, allowed = asyncio.Event(), asyncio.Event(), True

    async def slow(_device: str, _password: str) -> bool:
        said = allowed
        asked.set()
        await answer.wait()
        return said

    broker = EmbeddedBroker(slow, SECRETS)
    await broker.start()
    feed = Feed()
    try:
        async with _keeping(feed, broker) as keeper, Clients(broker) as clients:
            coming = asyncio.create_task(clients.device("d_a"))
            await asyncio.wait_for(asked.wait(), WAIT_S)
            allowed = False
            feed.revoke("d_a")
            await _until(lambda: "1 to shut out" in repr(keeper))
            answer.set()
            device = await coming
            assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S)
            with pytest.raises(MqttRefusedError):
                await clients.device("d_a")
            await _until(lambda: "0 to shut out" in repr(keeper))
    finally:
        await broker.close()


async def test_a_broker_that_is_away_is_asked_until_it_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    monkeypatch.setattr(module, "AGAIN_S", ())
    monkeypatch.setattr(module, "AT_ONCE", 2)

    class Away:
        def __init__(self) -> None:
            self.asked: list[tuple[str, ...]] = []

        async def shut_out(self, devices: Sequence[str]) -> Sequence[str]:
            self.asked.append(tuple(devices))
            if len(self.asked) < 4:
                raise ConnectionRefusedError("away")
            return ()

    doors, feed = Away(), Feed()
    for device in ("d_a", "d_b", "d_c"):
        feed.revoke(device)
    async with _keeping(feed, doors) as keeper:
        await _until(lambda: len(doors.asked) >= 5 and "0 to shut out" in repr(keeper))
        assert keeper.is_fresh
    assert doors.asked[-2:] == [("d_a", "d_b"), ("d_c",)]
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "revoked devices are not shut out"
    ]


async def _until(check: Callable[[], bool]) -> None:
    await asyncio.to_thread(eventually, "it is so", check, WAIT_S)


async def test_one_device_with_which_it_fails_keeps_no_other_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.05)
    monkeypatch.setattr(module, "AGAIN_S", ())

    class Odd:
        def __init__(self) -> None:
            self.asked: Counter[str] = Counter()
            self.well = False

        async def shut_out(self, devices: Sequence[str]) -> Sequence[str]:
            self.asked.update(devices)
            return [device for device in devices if device == "d_odd" and not self.well]

    doors, feed, counted = Odd(), Feed(), Counter[str]()
    for device in ("d_a", "d_odd", "d_b"):
        feed.revoke(device)
    async with _keeping(feed, doors) as keeper:
        keeper.counted = lambda outcome, count: counted.update({outcome: count})
        await _until(lambda: doors.asked["d_odd"] >= 4)
        assert (doors.asked["d_a"], doors.asked["d_b"]) == (1, 1), "they were done at once"
        assert (keeper.waiting, keeper.is_fresh) == (1, False)
        feed.revoke("d_c")
        await _until(lambda: doors.asked["d_c"] == 1)
        doors.well = True
        await _until(lambda: keeper.waiting == 0)
        assert keeper.is_fresh
    assert counted["failed"] >= 4
    assert counted["done"] >= 2
