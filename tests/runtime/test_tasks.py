from __future__ import annotations

import asyncio
import logging

import pytest

from runtime.tasks import TaskOwner


async def test_closing_cancels_and_awaits_every_task() -> None:
    owner = TaskOwner("link")
    cleaned = asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = owner.start(work(), "reader")
    await started.wait()
    assert task.get_name() == "link.reader"
    assert repr(owner) == "<TaskOwner link open, 1 running>"
    assert await owner.close(1) == []
    assert cleaned.is_set()
    assert task.cancelled()
    assert len(owner) == 0


async def test_a_crash_is_logged_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []
    owner = TaskOwner("link", on_crash=lambda name, error: told.append((name, str(error))))

    async def crash() -> None:
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        task = owner.start(crash(), "writer")
        await asyncio.wait({task})
        await owner.close(1)
    assert told == [("link.writer", "boom")]
    assert [record.message for record in caplog.records] == ["task crashed"]


async def test_a_closed_owner_starts_nothing() -> None:
    owner = TaskOwner("link")
    await owner.close(1)

    async def work() -> None:
        raise AssertionError("must not run")

    with pytest.raises(RuntimeError, match="starts no task 'late'"):
        owner.start(work(), "late")


async def test_a_task_that_does_not_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner("link")
    release = asyncio.Event()
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = owner.start(stubborn(), "stubborn")
    await started.wait()
    with caplog.at_level(logging.ERROR):
        assert await owner.close(0.05) == ["link.stubborn"]
    release.set()
    await task


async def test_a_task_may_close_its_own_owner() -> None:
    owner = TaskOwner("link")

    async def last() -> list[str]:
        return await owner.close(1)

    assert await owner.start(last(), "last") == []
