"""What the machine itself costs: µs for each request-like exchange, 1 KB up and 1 KB down, no I/O.

Run: python -m loadtests.micro.protocol_bench [--json]. Figures are CPU time of this process, best of several
runs, divided by two for one side. `batched` is 32 exchanges in each message, as with 32 requests in flight.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from tunnel_protocol import (
    AuthReceived,
    ChallengeReceived,
    Connection,
    Hello,
    Limits,
    Side,
    Stream,
    StreamRequested,
)

PAD = bytes(14)
BATCH = 66_560
KILOBYTE = bytes(1000)
GRANT = b"grant-id-grant-i"
ROUNDS = 5


def ignore(connection: Connection) -> None:
    """The wake-up: the bench moves messages by itself."""


def joined() -> tuple[Connection, Connection]:
    server = Connection(Side.SERVER, Limits(), 0.0, wake=ignore)
    device = Connection(Side.DEVICE, Limits(), 0.0, wake=ignore, hello=Hello())
    server.challenge(bytes(32), "bench.test")
    for _ in range(4):
        for sender, receiver in ((server, device), (device, server)):
            while (message := sender.next_message(BATCH)) is not None:
                for event in receiver.receive(bytes(message), 0.0):
                    if isinstance(event, ChallengeReceived):
                        receiver.authenticate("device", bytes(16), bytes(16), bytes(64))
                    elif isinstance(event, AuthReceived):
                        receiver.admit(Hello())
    return server, device


def open_streams(server: Connection, device: Connection, number: int) -> list[tuple[Stream, Stream]]:
    pairs = []
    for _ in range(number):
        ours = server.open_stream("device", "web", GRANT, None)
        for event in carry(server, device):
            if isinstance(event, StreamRequested):
                event.stream.accept(None)
                pairs.append((ours, event.stream))
        carry(device, server)
    return pairs


def carry(sender: Connection, receiver: Connection) -> list:  # type: ignore[type-arg]
    events = []
    while (message := sender.next_message(BATCH, PAD)) is not None:
        events += receiver.receive(memoryview(message)[14:], 1.0)
    return events


def exchange(streams: int) -> Callable[[int], None]:
    """A function that makes n exchanges, `streams` of them in each message."""
    server, device = joined()
    pairs = open_streams(server, device, streams)

    def run(number: int) -> None:
        for _ in range(number // streams):
            for ours, _ in pairs:
                ours.send(KILOBYTE, 1.0)
            for event in carry(server, device):
                event.stream.consumed(len(event.data), 1.0)
            for _, theirs in pairs:
                theirs.send(KILOBYTE, 1.0)
            for event in carry(device, server):
                event.stream.consumed(len(event.data), 1.0)

    return run


def open_per_request(number: int) -> None:
    """A stream for each request: OPEN, data, FIN both ways."""
    server, device = joined()
    for _ in range(number):
        ours = server.open_stream("device", "web", GRANT, None)
        ours.send(KILOBYTE, 1.0)
        ours.finish()
        stream = None
        for event in carry(server, device):
            if isinstance(event, StreamRequested):
                stream = event.stream
                stream.accept(None)
        assert stream is not None
        device.take_events()
        stream.consumed(1000, 1.0)
        stream.send(KILOBYTE, 1.0)
        stream.finish()
        carry(device, server)


def bulk(number: int) -> None:
    """`number` chunks of 64 KiB down one stream."""
    server, device = joined()
    ours, theirs = open_streams(server, device, 1)[0]
    chunk = bytes(65_000)
    for _ in range(number):
        theirs.send(chunk, 1.0)
        for event in carry(device, server):
            ours.consumed(len(event.data), 1.0)
        carry(server, device)


def microseconds(run: Callable[[int], None], number: int) -> float:
    """CPU µs for one of `number`, the best of ROUNDS runs."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        run(number)
        best = min(best, time.process_time() - begun)
    return best / number * 1e6


def main() -> None:
    figures = {
        "exchange_us_per_side": microseconds(exchange(1), 32_000) / 2,
        "exchange_batched_us_per_side": microseconds(exchange(32), 32_000) / 2,
        "stream_per_request_us_per_side": microseconds(open_per_request, 5_000) / 2,
        "bulk_64k_us_per_side": microseconds(bulk, 5_000) / 2,
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:36}{value:8.2f}")


if __name__ == "__main__":
    main()
