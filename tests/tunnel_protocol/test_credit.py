"""Windows: when they grow, what they may cost, how idle ones give back (section 8)."""

from __future__ import annotations

import pytest

from tests.tunnel_protocol.pair import Pair
from tunnel_protocol import ConnectionLost, DataReceived, Limits, Stream
from tunnel_protocol.codes import FrameType
from tunnel_protocol.credit import grown_window
from tunnel_protocol.frames import frame

KIB = 1024


@pytest.mark.parametrize(
    ("window", "drained_in_s", "rtt_s", "after"),
    [
        (64, 0.019, 0.010, 128),
        (64, 0.021, 0.010, 64),  # not quick
        (64, 0.0039, 0.0001, 128),  # short link: the floor counts
        (64, 0.0041, 0.0001, 64),
        (64, 0.001, None, 64),  # no round trip known
        (192, 0.001, 0.010, 256),  # up to the maximum
        (256, 0.001, 0.010, 256),
    ],
)
def test_growth(window: int, drained_in_s: float, rtt_s: float | None, after: int) -> None:
    assert grown_window(window, 256, drained_in_s, rtt_s) == after


def pour(pair: Pair, ours: Stream, theirs: Stream, size: int, *, step_s: float = 0.001) -> None:
    """Sends `size` bytes down to the server's end, which takes them at once."""
    taken = len(pair.server.data(ours.id))
    theirs.send(bytes(size), pair.now)
    pair.settle()
    while (heard := len(pair.server.data(ours.id))) > taken:
        pair.now += step_s
        ours.consumed(heard - taken, pair.now)
        taken = heard
        pair.settle()


def measured(pair: Pair, rtt_s: float = 0.010) -> Pair:
    connection = pair.server.connection
    connection.liveness._epoch_rtt = None
    ping = connection.liveness.ping(0.0)
    connection.receive(frame(FrameType.PONG, ping), rtt_s)
    return pair


def test_a_fast_stream_grows_to_the_maximum_and_a_slow_one_does_not() -> None:
    pair = measured(Pair.open())
    fast, slow = pair.stream(), pair.stream()
    pour(pair, *fast, 12 << 20)
    pour(pair, *slow, 1 << 20, step_s=0.5)
    assert fast[0].window == 4 << 20
    assert slow[0].window == 64 * KIB


def test_growth_stays_within_the_budget_and_comes_back_with_the_stream() -> None:
    limits = Limits(window_budget=300 * KIB)
    pair = measured(Pair.open(server=limits))
    first, second = pair.stream(), pair.stream()
    pour(pair, *first, 2 << 20)
    pour(pair, *second, 2 << 20)
    budget = pair.server.connection.budget
    assert first[0].window + second[0].window - 128 * KIB == budget.used
    assert budget.used <= 300 * KIB
    first[0].finish()
    first[1].finish()
    pair.settle()
    assert budget.used == second[0].window - 64 * KIB
    second[0].finish()
    second[1].finish()
    pair.settle()
    assert (budget.used, budget.parked) == (0, 0)


def test_an_idle_stream_gives_its_window_back_when_another_needs_it() -> None:
    limits = Limits(window_budget=200 * KIB)
    pair = measured(Pair.open(server=limits))
    idle, busy = pair.stream(), pair.stream()
    pour(pair, *idle, 1 << 20)
    assert idle[0].window == 256 * KIB
    promised = idle[0].receive_limit - idle[0].consumed_bytes
    pair.now += 0.3
    pour(pair, *busy, 1 << 20)
    assert busy[0].window == 256 * KIB
    assert idle[0].window == 64 * KIB
    assert pair.server.connection.budget.parked == 192 * KIB
    assert idle[0].receive_limit - idle[0].consumed_bytes == promised  # what was given stays given
    pour(pair, *idle, 1 << 20, step_s=0.5)
    assert pair.server.connection.budget.parked == 0


def test_parked_promises_are_bounded_too() -> None:
    """A peer that makes streams grow one after the other cannot collect more than twice the budget."""
    limits = Limits(window_budget=200 * KIB)
    pair = measured(Pair.open(server=limits))
    streams = [pair.stream() for _ in range(12)]
    for stream in streams:
        pour(pair, *stream, 1 << 20)
        pair.now += 0.3
    promised = sum(ours.receive_limit - ours.consumed_bytes for ours, _ in streams)
    assert promised <= 12 * 64 * KIB + 2 * 200 * KIB


def test_a_window_idle_for_a_keepalive_is_given_back() -> None:
    pair = measured(Pair.open())
    ours, theirs = pair.stream()
    pour(pair, ours, theirs, 1 << 20)
    assert ours.window > 64 * KIB
    for _ in range(12):
        pair.timers(pair.now + 1.0)
        pair.settle()
    assert ours.window == 64 * KIB
    assert pair.server.connection.budget.used == 0


def test_a_stalled_reader_holds_its_window_and_stops_nobody() -> None:
    pair = Pair.open()
    stalled = [pair.stream() for _ in range(20)]
    for _, theirs in stalled:
        theirs.send(bytes(10 << 20), 0.0)
    ours, theirs = pair.stream()
    theirs.send(b"quick", 0.0)
    pair.settle()
    assert pair.server.data(ours.id) == b"quick"
    for stuck, _ in stalled:
        assert len(pair.server.data(stuck.id)) == 64 * KIB


def test_streams_share_the_link_in_turns() -> None:
    pair = Pair.open()
    streams = [pair.stream()[1] for _ in range(4)]
    pair.device.connection.blocked = True
    for stream in streams:
        stream.send(bytes(60_000), 0.0)
    pair.device.connection.blocked = False
    order = []
    while (message := pair.device.connection.next_message(20_000)) is not None:
        for event in pair.server.connection.receive(bytes(message), 0.0):
            assert isinstance(event, DataReceived)
            order.append((event.stream.id, len(event.data)))
    assert [stream for stream, _ in order[:8]] == [1, 3, 5, 7, 1, 3, 5, 7][: len(order[:8])]
    assert max(size for _, size in order[:8]) <= 16_384


def test_a_small_stream_passes_a_bulk_one_on_a_slow_link() -> None:
    """The driver asks for 2 KiB at a time: a keystroke waits for one such message, not for the upload."""
    pair = Pair.open()
    bulk, keys = pair.stream()[1], pair.stream()[1]
    pair.device.connection.blocked = True
    bulk.send(bytes(60_000), 0.0)
    keys.send(b"k", 0.0)
    pair.device.connection.blocked = False
    messages = [bytes(pair.device.connection.next_message(2048) or b"") for _ in range(2)]
    assert any(b"k" in message for message in messages)
    assert all(len(message) <= 2048 for message in messages)


def test_a_message_never_passes_what_the_peer_accepts() -> None:
    pair = Pair.open(server=Limits(max_frame=300, max_message=2048))
    stream = pair.stream()[1]
    for _ in range(100):
        stream.send(b"x" * 290, 0.0)
    stream.send(b"y" * 5000, 0.0)
    pair.device.leave(1 << 20)
    assert max(len(message) for message in pair.device.in_flight) <= 2048
    pair.settle()
    assert not pair.server.of(ConnectionLost)
    assert pair.server.data(1) == b"x" * 29_000 + b"y" * 5000


@pytest.mark.parametrize(
    ("rtt_s", "in_flight"), [(0.005, 512 * KIB), (0.006, 1024 * KIB), (None, 1024 * KIB)]
)
def test_less_is_in_flight_to_a_near_peer_since_everybody_waits_behind_it(
    rtt_s: float | None, in_flight: int
) -> None:
    pair = Pair.open()
    if rtt_s is None:
        pair.server.connection.liveness._epoch_rtt = None
    else:
        measured(pair, rtt_s)
    server, sender = pair.server.connection, pair.device.connection.outbox
    ours, theirs = pair.stream()
    promised, least, largest = [sender.send_limit], 1 << 30, 0
    for _ in range(200):
        theirs.send(bytes(32 * KIB), pair.now)
        pair.settle()
        ours.consumed(32 * KIB, pair.now)
        pair.settle()
        if sender.sent > 2048 * KIB:
            promised.append(sender.send_limit)
            left = sender.send_limit - sender.sent
            least, largest = min(least, left), max(largest, left)
    assert promised == sorted(promised)
    assert server.state.name == "OPEN"
    assert largest == in_flight
    assert least >= in_flight // 2
