"""Many devices in one process that say telemetry to one broker; the load of the message figures.

Started by `loadtests.messages.load`, with an order of one line on standard input (see `Order`). It connects
all, answers `{"ready": N}`, and then takes a line a task, each answered by one line:

``{"flood": SECONDS}``                every window is full all the time
``{"pace": RATE, "seconds": SECONDS}``   so many messages a second in all, the devices one after the other

A task ends when all that was made is accepted: `{"made", "resent", "begun_us", "ended_us", "accept_us": [p50,
p99]}`, times in Unix µs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from loadtests.figures import percentile
from loadtests.messages.wire import Broken, Device
from runtime import open_files
from runtime.process import loop_factory

CONNECTS_AT_ONCE: Final = 32
CONNECT_S: Final = 60.0
STUCK_S: Final = 5.0  # no progress of a device: all again from its floor, as an agent does
LOOK_S: Final = 0.5
TICK_S: Final = 0.01  # of a paced load
DRAIN_S: Final = 300.0  # what was made is accepted by then, or the run has failed


@dataclass(frozen=True, slots=True)
class Login:
    """A device, its topics' prefix, and what it shows: certificate and key in a file (PEM), or a password."""

    id: str
    prefix: str
    certificate_file: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """Who connects where. `ca`: PEM that the broker's certificate leads to; None: it is plain."""

    host: str
    port: int
    ca: str | None
    logins: Sequence[Login]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Order:
        raw = json.loads(line)
        return cls(raw["host"], raw["port"], raw["ca"], [Login(**one) for one in raw["logins"]])


class Talker(asyncio.Protocol):
    """One device's connection. `moved` is called after something was accepted."""

    def __init__(self, device: Device, moved: Callable[[Talker], None]) -> None:
        self.device = device
        self.moved_at = time.monotonic()
        self.lost: str | None = None
        self.ready = asyncio.Event()
        self._moved = moved
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport by its type
        self._write(self.device.connect())

    def data_received(self, data: bytes) -> None:
        floor = self.device.floor
        try:
            self._write(self.device.receive(data, now_us()))
        except Broken as error:
            self.lost = str(error)
            self.close()
            return
        if self.device.ready:
            self.ready.set()
        if self.device.floor != floor:
            self.moved_at = time.monotonic()
            self._moved(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or f"the connection ended: {exc}"
        self.ready.set()

    def send(self) -> None:
        """What is due."""
        self._write(self.device.due())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)


class Talkers:
    """All of them, and the task they are at."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._flooding = False
        self.all = [
            Talker(Device(one.id, one.prefix, one.password, number=number), self._moved)
            for number, one in enumerate(order.logins, 1)
        ]

    async def connect(self) -> None:
        slots = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def one(talker: Talker, login: Login) -> None:
            async with slots, asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: talker, self._order.host, self._order.port, ssl=self._context(login)
                )
                await talker.ready.wait()

        await asyncio.gather(*map(one, self.all, self._order.logins))
        self._check()

    async def do(self, task: dict[str, Any]) -> dict[str, Any]:
        """One task, until all that was made is accepted."""
        devices = [talker.device for talker in self.all]
        made, resent = (sum(getattr(one, name) for one in devices) for name in ("made", "resent"))
        for device in devices:
            device.accept_us.clear()
        begun = now_us()
        looking = asyncio.create_task(self._look())
        try:
            if "flood" in task:
                await self._flood(float(task["flood"]))
            else:
                await self._pace(float(task["pace"]), float(task["seconds"]))
            async with asyncio.timeout(DRAIN_S):
                while any(device.waiting for device in devices):
                    self._check()
                    await asyncio.sleep(TICK_S)
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
        took = [value for device in devices for value in device.accept_us]
        return {
            "made": sum(device.made for device in devices) - made,
            "resent": sum(device.resent for device in devices) - resent,
            "begun_us": begun,
            "ended_us": now_us(),
            "accept_us": [percentile(took, 0.5), percentile(took, 0.99)],
        }

    async def _flood(self, seconds: float) -> None:
        self._flooding = True
        for talker in self.all:
            self._moved(talker)
        await asyncio.sleep(seconds)
        self._flooding = False

    async def _pace(self, rate: float, seconds: float) -> None:
        begun, made, most = time.monotonic(), 0, int(rate * seconds)
        while made < most:
            due = min(most, int((time.monotonic() - begun) * rate))
            for number in range(made, due):
                talker = self.all[number % len(self.all)]
                talker.device.make(now_us())
                talker.send()
            made = due
            await asyncio.sleep(TICK_S)

    def _moved(self, talker: Talker) -> None:
        if self._flooding:
            now = now_us()
            for _ in range(talker.device.room):
                talker.device.make(now)
        talker.send()

    async def _look(self) -> None:
        """Again from the floor, where nothing moves."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            for talker in self.all:
                if not talker.device.waiting:
                    talker.moved_at = now
                elif now - talker.moved_at > STUCK_S:
                    talker.moved_at = now
                    talker.device.again()
                    talker.send()

    def _check(self) -> None:
        """RuntimeError when a connection ended: then the figures are worth nothing."""
        lost = next((talker.lost for talker in self.all if talker.lost is not None), None)
        if lost is not None:
            raise RuntimeError(lost)

    def _context(self, login: Login) -> ssl.SSLContext | None:
        if self._order.ca is None:
            return None
        context = ssl.create_default_context(cadata=self._order.ca)
        if login.certificate_file is not None:
            context.load_cert_chain(login.certificate_file)
        return context


def now_us() -> int:
    return time.time_ns() // 1000


async def main() -> None:
    open_files.raise_limit()
    talkers = Talkers(Order.from_json(await asyncio.to_thread(sys.stdin.readline)))
    await talkers.connect()
    print(json.dumps({"ready": len(talkers.all)}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await talkers.do(json.loads(line))), flush=True)
    for talker in talkers.all:
        talker.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
