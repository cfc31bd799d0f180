"""What is said in one turn of the loop leaves as one write."""

from __future__ import annotations

import asyncio

from runtime.clock import SYSTEM_CLOCK
from runtime.mqtt_link import GATHER_MAX, _Wire


class Line(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


async def wire() -> tuple[_Wire, Line]:
    made, line = _Wire(4, SYSTEM_CLOCK, lambda package: None, lambda error: None), Line()
    made.connection_made(line)
    return made, line


async def test_one_turn_is_one_write_in_order() -> None:
    made, line = await wire()
    for data in (b"one ", b"two ", b"three"):
        made.write_data(data)
    assert line.writes == []
    await asyncio.sleep(0)
    assert line.writes == [b"one two three"]
    made.write_data(b"four")
    await asyncio.sleep(0)
    assert line.writes == [b"one two three", b"four"]
    made.connection_lost(None)


async def test_much_waits_for_no_end_of_the_turn() -> None:
    """Else who writes on and on would never hear that the line is full."""
    made, line = await wire()
    half = b"x" * (GATHER_MAX // 2)
    made.write_data(half)
    made.write_data(half)
    assert line.writes == [half + half]
    made.connection_lost(None)


async def test_what_was_said_before_the_goodbye_leaves_before_it() -> None:
    made, line = await wire()
    made.write_data(b"last words")
    made.say_goodbye()
    assert line.writes == [b"last words" + b"\xe0\x00"]  # DISCONNECT (section 3.14)
    assert line.closed
    made.connection_lost(None)
