"""A server's and a device's side with nothing behind them, and owners that write down what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.tunnel_link import Link, Ticker, TunnelDriver
from tunnel_protocol import (
    AuthReceived,
    ChallengeReceived,
    ConnectionLost,
    Event,
    Hello,
    Limits,
    PeerReady,
    RefusedCode,
    ResetCode,
    Side,
    Stream,
    StreamRequested,
)

GRANT = b"g" * 16
WAIT_S = 10.0


class Owner:
    """A StreamOwner that keeps everything and, unless told otherwise, takes the data at once."""

    def __init__(self, driver: TunnelDriver, *, takes: bool = True) -> None:
        self.driver = driver
        self.takes = takes
        self.stream: Stream | None = None
        self.received = bytearray()
        self.heard: list[str] = []
        self.changed = asyncio.Event()
        self.on_writable: Callable[[], None] | None = None

    def _note(self, word: str) -> None:
        self.heard.append(word)
        self.changed.set()

    def accepted(self) -> None:
        self._note("accepted")

    def refused(self, code: RefusedCode, message: str) -> None:
        self._note(f"refused {code.name} {message}")

    def data(self, data: memoryview) -> None:
        self.received += data
        self.changed.set()
        if self.takes and self.stream is not None:
            self.stream.consumed(len(data), self.driver.now())

    def finished(self) -> None:
        self._note("finished")

    def reset(self, code: ResetCode) -> None:
        self._note(f"reset {code.name}")

    def writable(self) -> None:
        self._note("writable")
        if self.on_writable is not None:
            self.on_writable()

    def lost(self, reason: str) -> None:
        self._note(f"lost {reason}")

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class _Recording(TunnelDriver):
    def __init__(self, side: Side, limits: Limits, ticker: Ticker, hello: Hello | None = None) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.closed = asyncio.Event()
        super().__init__(side, limits, ticker, hello)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        super().link_closed(link, status, reason)
        self.closed.set()

    async def wait_closed(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.closed.wait()

    async def wait_for(self, kind: type[Event]) -> Event:
        async with asyncio.timeout(WAIT_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                self.changed.clear()
                await self.changed.wait()

    @property
    def lost(self) -> list[ConnectionLost]:
        return [event for event in self.events if isinstance(event, ConnectionLost)]


class ServerSide(_Recording):
    def on_open(self) -> None:
        self.connection.challenge(b"n" * 32, "tunnel.test")

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if isinstance(event, AuthReceived):
            self.connection.admit(Hello(software="server"))

    def open(self, owner: Owner, service: str = "web") -> Stream:
        owner.stream = self.connection.open_stream("device", service, GRANT, owner)
        return owner.stream


class DeviceSide(_Recording):
    """Accepts every stream with a new Owner, found in `owners`."""

    def __init__(self, limits: Limits, ticker: Ticker, *, takes: bool = True) -> None:
        super().__init__(Side.DEVICE, limits, ticker, Hello(software="device"))
        self.owners: list[Owner] = []
        self.takes = takes

    def on_event(self, event: Event) -> None:
        if isinstance(event, ChallengeReceived):
            self.connection.authenticate("device", b"i" * 16, b"k" * 16, b"s" * 64)
        elif isinstance(event, StreamRequested):
            owner = Owner(self, takes=self.takes)
            owner.stream = event.stream
            self.owners.append(owner)
            event.stream.accept(owner)
        super().on_event(event)

    async def owner(self, number: int = 0) -> Owner:
        async with asyncio.timeout(WAIT_S):
            while len(self.owners) <= number:
                self.changed.clear()
                await self.changed.wait()
        return self.owners[number]


async def ready(*sides: _Recording) -> None:
    for side in sides:
        await side.wait_for(PeerReady)
