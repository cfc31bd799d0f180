"""Where the node goes on reading the revocation feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from runtime import revocation_feed
from runtime.clock import FakeClock
from runtime.revocation_feed import RevocationFeed
from tests.tunnel_server.conftest import settings
from tests.tunnel_server.doubles import MemoryGateway
from tunnel_server.errors import GatewayUnavailable


class ScriptedGateway(MemoryGateway):
    """Each connection to the feed gives the next script's lines and breaks; the last one stays silent."""

    def __init__(self, *scripts: list[dict[str, object]]) -> None:
        super().__init__()
        self.asked_after: list[int] = []
        self.all_asked = asyncio.Event()
        self._scripts = list(scripts)

    async def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        self.asked_after.append(after)
        if not self._scripts:
            self.all_asked.set()
            await asyncio.Event().wait()
        for line in self._scripts.pop(0):
            yield json.dumps(line).encode()
        raise GatewayUnavailable("the stream ended")


class Heard:
    """A RevocationTarget that writes down what it is told."""

    def __init__(self) -> None:
        self.sessions: list[str] = []

    def session_revoked(self, sid: str, device_id: str | None) -> None:
        self.sessions.append(sid)

    def device_revoked(self, device_id: str) -> None:
        raise AssertionError(device_id)

    def device_replaced(self, device_id: str, keep_instance: bytes) -> None:
        raise AssertionError(device_id)

    def control_lost(self) -> None:
        raise AssertionError("the feed was heard")


def ended(number: int, sid: str) -> dict[str, object]:
    return {"n": number, "kind": "session", "id": sid, "exp": 0}


async def read(gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setattr(revocation_feed, "RETRY_S", (0.0, 0.0))
    heard = Heard()
    feed = RevocationFeed(gateway, heard, FakeClock(), settings().gateway)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        following = group.create_task(feed.follow())
        await gateway.all_asked.wait()
        following.cancel()
    return heard


async def test_it_goes_on_behind_the_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ScriptedGateway([{"hello": 1}, ended(7, "a"), {"heartbeat": 9}], [{"hello": 1}, ended(10, "b")])
    heard = await read(gateway, monkeypatch)
    assert gateway.asked_after == [0, 9, 10]
    assert heard.sessions == ["a", "b"]


async def test_after_a_reset_it_goes_on_from_the_new_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ScriptedGateway(
        [{"hello": 1}, ended(100, "a")], [{"hello": 1}, {"reset": True}, ended(40, "b")], [{"hello": 1}]
    )
    heard = await read(gateway, monkeypatch)
    assert gateway.asked_after == [0, 100, 40, 40]
    assert heard.sessions == ["a", "b"]


async def test_an_outage_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runtime.revocation_feed")
    gateway = ScriptedGateway([{"hello": 1}], [], [], [{"hello": 1}, {"heartbeat": 2}], [])
    await read(gateway, monkeypatch)
    assert [record.getMessage() for record in caplog.records] == [
        "revocation feed interrupted",
        "revocation feed heard again",
        "revocation feed interrupted",
    ]
