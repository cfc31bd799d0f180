"""What was revoked outlives the process: bounded, on disk in time, and never in the way of a start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.clock import FakeClock
from tests.tunnel_agent.authority import DEVICE, NOW, Authority, claims, grant_id, token
from tunnel_agent import revocations
from tunnel_agent.identity import MAX_FILE_BYTES, IdentityStore
from tunnel_agent.policy.grants import REVOKED, Grant, GrantBook
from tunnel_agent.policy.revoked import MAX_KNOWN, MAX_SERVERS, MAX_UNSEEN, UNKNOWN_S, Revoked
from tunnel_agent.revocations import RevocationKeeper

AUTHORITY = Authority()
WAIT_S = 5.0
MONO, LATER = 1000.0, 5.0  # a reboot starts the monotonic clock anew
SERVER = "wss://one/tunnel"


def an_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def after_restart(text: bytes, wall: float = NOW) -> Revoked:
    found = Revoked()
    found.restore(text, wall, LATER)
    return found


def test_a_grant_revoked_before_a_restart_stays_revoked() -> None:
    body = claims()
    book = GrantBook(DEVICE, AUTHORITY.key_list(), earliest=0)
    assert isinstance(book.offer(grant_id(body), token(body), NOW, MONO), Grant)
    book.revoke(grant_id(body), MONO, SERVER)
    text = book.revoked.text(NOW, MONO)
    book = GrantBook(DEVICE, AUTHORITY.key_list(), earliest=0)
    book.revoked.restore(text, NOW + 60, LATER)
    assert book.offer(grant_id(body), token(body), NOW + 60, LATER) is REVOKED
    end = book.revoked.text(NOW + 60, LATER)
    assert list(json.loads(end)["known"].values()) == [int(NOW) + 3600 + 30]  # exp and leeway


def test_one_that_never_came_is_remembered_too() -> None:
    before = Revoked()
    assert before.add_unseen(an_id(1), MONO + UNKNOWN_S, SERVER)
    assert not before.add_unseen(an_id(1), MONO + UNKNOWN_S, SERVER)
    assert an_id(1) in after_restart(before.text(NOW, MONO))
    assert an_id(1) not in after_restart(before.text(NOW, MONO), NOW + UNKNOWN_S + 2)


def test_a_clock_far_behind_keeps_no_entry_for_ever() -> None:
    before = Revoked()
    before.add(an_id(1), MONO + 3600)
    found = after_restart(before.text(NOW, MONO), wall=0.0)
    assert an_id(1) in found
    found.expire(LATER + UNKNOWN_S)
    assert len(found) == 0


def test_the_fullest_file_can_be_read_again() -> None:
    """Every server invents as many ids as it can."""
    full = Revoked()
    for n in range(2 * MAX_KNOWN):
        full.add(an_id(n), MONO + UNKNOWN_S)
    for server in range(2 * MAX_SERVERS):
        for n in range(2 * MAX_UNSEEN):
            full.add_unseen(an_id((server << 32) + n), MONO + UNKNOWN_S, f"wss://server-{server}.test/tunnel")
    text = full.text(NOW, MONO)
    assert len(text) < MAX_FILE_BYTES
    assert len(full) == len(after_restart(text)) == MAX_KNOWN + MAX_SERVERS * MAX_UNSEEN


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"known":{},"unseen":[]}',
        b'{"known":{"xx":1},"unseen":{}}',
        b'{"known":{"00":1},"unseen":{}}',
        b'{"known":{},"unseen":{"a":{"00000000000000000000000000000001":"1"}}}',
        b'{"known":null,"unseen":{}}',
    ],
)
def test_a_broken_file_is_told_and_the_agent_starts(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    revoked, store = Revoked(), IdentityStore(tmp_path)
    store.save_revoked(text)
    RevocationKeeper(revoked, store, FakeClock()).load()
    assert len(revoked) == 0
    assert [record.message.partition(":")[0] for record in caplog.records] == ["revocations not read"]


class CountingStore(IdentityStore):
    """A disk that may be full."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.full = False
        self.writes = 0
        self.wrote = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def save_revoked(self, text: bytes) -> None:
        self.writes += 1
        try:
            if self.full:
                raise OSError(28, "No space left on device")
            super().save_revoked(text)
        finally:
            self._loop.call_soon_threadsafe(self.wrote.set)

    async def until_written(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.wrote.wait()
        self.wrote.clear()


class Kept:
    """A keeper that runs."""

    def __init__(self, folder: Path) -> None:
        self.revoked = Revoked()
        self.store = CountingStore(folder)
        self.keeper = RevocationKeeper(self.revoked, self.store, FakeClock())
        self.running = asyncio.get_running_loop().create_task(self.keeper.run())

    def on_disk(self) -> Revoked:
        found, clock = Revoked(), FakeClock()
        text = self.store.load_revoked()
        if text is not None:
            found.restore(text, clock.wall(), clock.monotonic())
        return found

    def revoke(self, n: int, *, urgent: bool = False) -> None:
        self.revoked.add_unseen(an_id(n), FakeClock().monotonic() + UNKNOWN_S, SERVER)
        self.keeper.changed(urgent=urgent)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.running.cancel()


async def test_invented_ids_write_once_and_a_real_one_at_once(kept: Kept) -> None:
    kept.revoke(1)
    await kept.store.until_written()
    for n in range(2, 500):
        kept.revoke(n)
        await asyncio.sleep(0)
    assert kept.store.writes == 1  # the next one is SAVE_EVERY_S away
    kept.revoke(500, urgent=True)
    await kept.store.until_written()
    assert kept.store.writes == 2
    assert len(kept.on_disk()) == 500


async def test_a_full_disk_is_told_once_and_the_write_repeated(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(revocations, "SAVE_EVERY_S", 0.05)
    kept.store.full = True
    kept.revoke(1, urgent=True)
    for _ in range(3):
        await kept.store.until_written()
    assert len(kept.on_disk()) == 0
    kept.store.full = False
    async with asyncio.timeout(WAIT_S):
        while an_id(1) not in kept.on_disk():
            await kept.store.until_written()
        while len(caplog.records) < 2:  # noqa: ASYNC110 - the writer's thread tells the loop, which tells the log
            await asyncio.sleep(0)
    said = [record.message for record in caplog.records]
    assert said == ["revocations not saved, trying again", "revocations saved again"]


async def test_what_waits_is_written_at_the_end(kept: Kept) -> None:
    kept.revoke(1)
    await kept.store.until_written()
    kept.revoke(2)
    await asyncio.sleep(0)
    kept.running.cancel()
    await kept.keeper.close()
    assert an_id(2) in kept.on_disk()
