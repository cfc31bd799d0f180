"""Two machines joined by lists of messages, with a clock that stands still until a test moves it."""

from __future__ import annotations

from collections import deque

from tunnel_protocol import (
    AuthReceived,
    ChallengeReceived,
    Connection,
    DataReceived,
    Event,
    Hello,
    Limits,
    PeerReady,
    Side,
    Stream,
    StreamRequested,
)

NONCE = bytes(range(32))
INSTANCE = b"instance-instanc"
KEY_ID = b"key-id--key-id--"
SIGNATURE = b"s" * 64
GRANT = b"grant-id-grant-i"
SMALL = Limits(max_frame=256, max_message=2048, stream_window=1024, connection_window=4096, max_streams=4)


class End:
    """One machine, what it has heard, and its messages on the way to the other one."""

    def __init__(self, side: Side, limits: Limits, hello: Hello | None = None) -> None:
        self.woken = 0
        self.heard: list[Event] = []
        self.in_flight: deque[bytes] = deque()
        self.connection = Connection(side, limits, 0.0, wake=self._wake, hello=hello)

    def _wake(self, connection: Connection) -> None:
        self.woken += 1

    def hear(self, events: list[Event]) -> list[Event]:
        """Keeps what the events say; borrowed data is copied, as an owner would."""
        for event in events:
            if isinstance(event, DataReceived):
                event.data = memoryview(bytes(event.data))
        self.heard += events
        return events

    def leave(self, max_bytes: int = 65_536) -> None:
        while (message := self.connection.next_message(max_bytes)) is not None:
            self.in_flight.append(bytes(message))

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.heard if isinstance(event, kind)]

    def data(self, stream_id: int) -> bytes:
        pieces = [
            bytes(e.data) for e in self.heard if isinstance(e, DataReceived) and e.stream.id == stream_id
        ]
        return b"".join(pieces)


class Pair:
    """`server` and `device`; after open() the handshake is over and both have forgotten its events."""

    def __init__(
        self, server: Limits | None = None, device: Limits | None = None, hello: Hello | None = None
    ) -> None:
        self.now = 0.0
        self.server = End(Side.SERVER, server or Limits())
        self.device = End(Side.DEVICE, device or Limits(), hello)

    @classmethod
    def open(cls, server: Limits | None = None, device: Limits | None = None) -> Pair:
        pair = cls(server, device)
        pair.shake_hands()
        pair.server.heard.clear()
        pair.device.heard.clear()
        return pair

    def shake_hands(self) -> None:
        self.server.connection.challenge(NONCE, "tunnel.test")
        self.settle()
        assert isinstance(self.device.heard[-1], ChallengeReceived)
        self.device.connection.authenticate("device", INSTANCE, KEY_ID, SIGNATURE)
        self.settle()
        assert isinstance(self.server.heard[-1], AuthReceived)
        self.server.connection.admit(Hello(software="server"))
        self.settle()
        assert self.server.of(PeerReady)
        assert self.device.of(PeerReady)

    def settle(self, max_bytes: int = 65_536) -> None:
        """Carries messages both ways until nobody has anything more to say."""
        moved = True
        while moved:
            moved = False
            for sender, receiver in ((self.server, self.device), (self.device, self.server)):
                sender.leave(max_bytes)
                while sender.in_flight:
                    moved = True
                    receiver.hear(receiver.connection.receive(sender.in_flight.popleft(), self.now))
        for end in (self.server, self.device):
            end.hear(end.connection.take_events())

    def timers(self, now: float) -> None:
        """Moves the clock and fires what is due."""
        self.now = now
        for end in (self.server, self.device):
            if now >= end.connection.next_timer():
                end.hear(end.connection.handle_timer(now))

    def stream(self, service: str = "web") -> tuple[Stream, Stream]:
        """An open stream: the server's end and the device's."""
        ours = self.server.connection.open_stream("device", service, GRANT, "visitor")
        self.settle()
        request = self.device.of(StreamRequested)[-1]
        assert isinstance(request, StreamRequested)
        request.stream.accept("local")
        self.settle()
        return ours, request.stream
