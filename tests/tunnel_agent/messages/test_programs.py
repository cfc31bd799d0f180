"""Programs end with whoever wanted them, at whatever moment that is."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tunnel_agent.messages import programs


@pytest.mark.parametrize("turns", range(12))
async def test_nothing_is_left_of_a_program_that_was_cut_off(turns: int) -> None:
    """Also while it was being started: a child that nobody knows would run on."""
    running = asyncio.create_task(programs.run(["/bin/sleep", "60"], timeout_s=60, most=1))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [child for child in psutil.Process().children() if child.name() == "sleep"] == []
