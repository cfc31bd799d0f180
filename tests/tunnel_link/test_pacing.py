"""On a slow link a keystroke passes an upload: what lies ahead of it follows the link's rate."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from runtime.tunnel_link import Ticker, picows_link
from runtime.tunnel_link.ticker import Ticked
from tests.tunnel_link.sides import DeviceSide, Owner, ServerSide, ready
from tunnel_protocol import CloseCode, Limits, Side
from tunnel_protocol.pacing import FIRST_BATCH, MAX_BATCH, MIN_BATCH, LinkPace

RATE = 64_000  # bytes a second through the slow relay
TURN_S = 0.01


def test_the_batch_follows_the_rate_down_and_up() -> None:
    pace = LinkPace()
    assert pace.batch == FIRST_BATCH
    pace.paused(0.0, 20_000)
    assert pace.resumed(1.0, 4_000)  # 16 kB/s
    assert pace.batch == MIN_BATCH
    for _ in range(8):
        pace.paused(2.0, 20_000)
        pace.resumed(2.001, 4_000)  # 16 MB/s
    assert pace.batch == MAX_BATCH


def test_a_link_that_never_pauses_gets_full_batches() -> None:
    pace = LinkPace()
    while pace.full_batch_left():
        assert pace.batch <= MAX_BATCH
    assert pace.batch == MAX_BATCH


SLOW = 32_000.0  # bytes a second: 256 kbit/s


def slow_pace() -> LinkPace:
    """One that has learnt of a line of SLOW."""
    pace = LinkPace()
    pace.paused(0.0, 16_000)
    pace.resumed(0.5, 0)
    assert pace.rate == SLOW
    return pace


@pytest.mark.parametrize("line_s", [0.0, 0.04, 0.25])
def test_what_is_under_way_on_a_slow_line_is_bounded_by_its_rate(line_s: float) -> None:
    """Also where TCP would send all of it at once: the queue is the line's, and nothing passes it there."""
    pace, needed = slow_pace(), int(SLOW * line_s)
    queued_s = line_s + 0.15
    assert pace.is_full(needed + 7_000, 0, queued_s, line_s)
    assert not pace.is_full(needed + 6_000, 0, queued_s, line_s)
    assert pace.stays_full(needed + 2_500, 0, queued_s, line_s)
    assert not pace.stays_full(needed + 1_200, 0, queued_s, line_s), "the line would run dry"


def test_the_first_burst_on_a_slow_line_is_bounded_before_its_round_trips_say_so() -> None:
    pace = slow_pace()
    assert not pace.is_full(15_000, 0, 0.01, 0.01)
    assert pace.is_full(17_000, 0, 0.01, 0.01)
    assert not pace.full_batch_left(0.01), "TCP took it, the line did not"


def test_a_link_whose_rate_nobody_knows_yet_is_bounded_by_what_the_kernel_cannot_send() -> None:
    pace = LinkPace()
    assert not pace.is_full(1 << 20, FIRST_BATCH, 0.25, 0.25)
    assert pace.is_full(1 << 20, FIRST_BATCH + 1, 0.25, 0.25)
    assert pace.is_full(FIRST_BATCH + 1, 0, 0.4, 0.25), "round trips that grow already"


def test_lumps_do_not_pass_for_a_fast_line() -> None:
    """Nothing for a while, then all at once, as after a loss; a moment in which nothing came is no rate."""
    pace = slow_pace()
    for start in range(1, 30):
        pace.paused(start, 10_000)
        pace.resumed(start + 0.02, 10_000)
        pace.paused(start + 0.1, 10_000)
        pace.resumed(start + 0.34, 1_680)
    assert pace.rate is not None
    assert 0.9 * SLOW < pace.rate < 1.1 * SLOW
    pace.paused(40.0, 50_000)
    pace.resumed(40.001, 0)
    assert pace.rate < 3 * SLOW


def test_a_line_that_becomes_fast_is_known_as_such_within_a_second() -> None:
    pace = slow_pace()
    for look in range(50):  # of 20 ms each
        pace.paused(1.0 + look * 0.02, 8_192)
        pace.resumed(1.005 + look * 0.02, 0)
    assert pace.batch == MAX_BATCH


class SlowRelay:
    """A TCP relay that carries RATE bytes a second upwards and holds little itself."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.carried = 0
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        near, _ = await loop.sock_accept(self.listener)
        far = socket.socket()
        far.setblocking(False)
        await loop.sock_connect(far, ("127.0.0.1", self.target))
        with near, far:
            await asyncio.gather(self._up(near, far), self._down(far, near))

    async def _up(self, near: socket.socket, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        while data := await loop.sock_recv(near, int(RATE * TURN_S)):
            await loop.sock_sendall(far, data)
            self.carried += len(data)
            # A line does not hurry after a moment in which nothing ran here; a turn or two it makes up for.
            free_at = max(free_at, loop.time() - 2 * TURN_S) + len(data) / RATE
            await asyncio.sleep(max(free_at - loop.time(), 0))
        far.shutdown(socket.SHUT_WR)

    async def _down(self, far: socket.socket, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(far, 65_536):
            await loop.sock_sendall(near, data)
        near.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.listener.close()


@pytest.fixture
async def slow() -> AsyncIterator[tuple[ServerSide, DeviceSide, SlowRelay]]:
    ticker = Ticker()
    server = ServerSide(Side.SERVER, Limits(), ticker)
    device = DeviceSide(Limits(), ticker)
    listener = await picows_link.listen("127.0.0.1", 0, lambda _: server, ssl=None, max_message=1 << 20)
    relay = SlowRelay(listener.port)
    await picows_link.dial(
        f"ws://127.0.0.1:{relay.port}/", device, ssl=None, max_message=1 << 20, timeout_s=5
    )
    await ready(server, device)
    yield server, device, relay
    device.connection.close(CloseCode.NORMAL, "done")
    listener.close()
    await relay.close()
    await server.wait_closed()
    await device.wait_closed()


async def test_a_keystroke_passes_an_upload(slow: tuple[ServerSide, DeviceSide, SlowRelay]) -> None:
    """Once the rate is known, less passes ahead of a keystroke than the link carries in half a second."""
    server, device, relay = slow
    upload, keys = Owner(server), Owner(server)
    server.open(upload)
    server.open(keys)
    from_disk, from_keyboard = await device.owner(0), await device.owner(1)
    assert from_disk.stream is not None
    assert from_keyboard.stream is not None
    from_disk.stream.send(bytes(1 << 20), device.now())
    await upload.wait_until(lambda: len(upload.received) > 110_000)  # the first buffers have left by now
    before = relay.carried
    from_keyboard.stream.send(b"k", device.now())
    await keys.wait_until(lambda: bool(keys.received))
    assert relay.carried - before < RATE / 2
    assert device._pace.batch < FIRST_BATCH


class Counted:
    """A Ticked that writes down when it was called."""

    def __init__(self) -> None:
        self.timer_at = 0.0
        self.flushed = 0
        self.ticked = asyncio.Event()

    def flush(self) -> None:
        self.flushed += 1

    def tick(self, now: float) -> None:
        self.timer_at = now
        self.ticked.set()

    def broke(self) -> None:
        raise AssertionError("nothing here breaks")


class Breaking(Counted):
    """Fails at everything, and writes down that it was told so."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = 0

    def flush(self) -> None:
        raise RuntimeError("flush")

    def tick(self, now: float) -> None:
        raise RuntimeError("tick")

    def broke(self) -> None:
        self.broken += 1


async def test_the_ticker_flushes_after_one_more_look_and_forgets_stale_timers() -> None:
    ticker = Ticker()
    first, second = Counted(), Counted()
    drivers: list[Ticked] = [first, second]
    for driver in drivers:
        ticker.mark(driver)
    await asyncio.sleep(0)
    assert (first.flushed, second.flushed) == (0, 0)
    await asyncio.sleep(0)
    assert (first.flushed, second.flushed) == (1, 1)
    ticker.arm(first, ticker.now() + 1000)
    ticker.arm(second, ticker.now() + 500)
    ticker.arm(second, ticker.now() + 0.001)
    async with asyncio.timeout(5):
        await second.ticked.wait()
    assert not first.ticked.is_set()


async def test_a_driver_that_breaks_costs_the_others_neither_their_turn_nor_their_timer() -> None:
    ticker = Ticker()
    broken, sound = Breaking(), Counted()
    drivers: list[Ticked] = [broken, sound]
    for driver in drivers:
        ticker.mark(driver)
        ticker.arm(driver, ticker.now())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sound.flushed == 1
    async with asyncio.timeout(5):
        await sound.ticked.wait()
    assert broken.broken == 2
