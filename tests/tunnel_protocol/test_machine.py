"""Properties: whatever two joined machines do, no byte is lost, moved or made up, and no window is passed."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.tunnel_protocol.pair import GRANT, End, Pair
from tunnel_protocol import (
    ConnectionLost,
    DataReceived,
    Event,
    Limits,
    RefusedCode,
    ResetCode,
    Stream,
    StreamFinished,
    StreamLimit,
    StreamRefused,
    StreamRequested,
    StreamReset,
    Writable,
)

LIMITS = st.builds(
    Limits,
    max_frame=st.sampled_from([256, 1000, 65_535]),
    max_message=st.just(65_600),
    stream_window=st.sampled_from([1, 300, 4096, 65_536]),
    connection_window=st.sampled_from([1, 500, 8192, 1 << 20]),
    max_streams=st.integers(1, 4),
    stream_window_max=st.just(1 << 20),
    window_budget=st.sampled_from([0, 100_000, 12 << 20]),
    send_queue_high=st.just(5000),
    send_queue_low=st.just(1000),
)


class Half:
    """What one end's owner knows of one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.sent = bytearray()
        self.heard = bytearray()
        self.finished = False  # by us
        self.ended = False  # by a FIN of the peer
        self.cut = False  # by REFUSED or RESET of either side
        self.accepted = True
        self.may_send = True


class JoinedMachines(RuleBasedStateMachine):
    """Random calls on both ends; messages travel one at a time, in order, as on a WebSocket."""

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0

    @initialize(server=LIMITS, device=LIMITS)
    def join(self, server: Limits, device: Limits) -> None:
        self.pair = Pair.open(server, device)
        self.halves: list[dict[int, Half]] = [{}, {}]
        self.requests: list[list[Stream]] = [[], []]
        self.lost = False
        self.draining = False

    def ends(self) -> tuple[End, End]:
        return self.pair.server, self.pair.device

    # What the owners do

    @rule(who=st.integers(0, 1))
    def open(self, who: int) -> None:
        end = self.ends()[who]
        if self.draining:
            return
        try:
            stream = end.connection.open_stream("device", "web", GRANT, None)
        except StreamLimit:
            return
        self.halves[who][stream.id] = Half(stream)

    @rule(who=st.integers(0, 1), choice=st.integers(0, 9), accept=st.booleans())
    def answer(self, who: int, choice: int, accept: bool) -> None:
        if not self.requests[who]:
            return
        stream = self.requests[who].pop(choice % len(self.requests[who]))
        half = self.halves[who][stream.id]
        if accept:
            half.accepted = stream.accept(None)
        else:
            stream.refuse(RefusedCode.UNREACHABLE, "no")
            half.cut = True

    @rule(
        who=st.integers(0, 1),
        choice=st.integers(0, 9),
        size=st.sampled_from([1, 7, 300, 5000, 70_000]),
        kind=st.sampled_from([bytes, bytearray, memoryview]),
    )
    def send(self, who: int, choice: int, size: int, kind: type) -> None:
        half = self.pick(who, choice)
        if half is None or half.finished or not half.may_send or half.stream.over:
            return
        self.serial += 1
        data = (self.serial.to_bytes(4, "big") * (size // 4 + 1))[:size]
        half.sent += data
        half.may_send = half.stream.send(kind(data), self.pair.now)

    @rule(who=st.integers(0, 1), choice=st.integers(0, 9))
    def ask_room(self, who: int, choice: int) -> None:
        half = self.pick(who, choice)
        if half is not None:
            half.stream.send_room()

    @rule(who=st.integers(0, 1), choice=st.integers(0, 9))
    def finish(self, who: int, choice: int) -> None:
        half = self.pick(who, choice)
        if half is not None:
            half.finished = True
            half.stream.finish()

    @rule(who=st.integers(0, 1), choice=st.integers(0, 9))
    def reset(self, who: int, choice: int) -> None:
        half = self.pick(who, choice)
        if half is not None:
            half.cut = half.cut or not half.stream.over
            half.stream.reset(ResetCode.CANCELLED)

    @rule(who=st.integers(0, 1), choice=st.integers(0, 9), share=st.integers(1, 3))
    def take(self, who: int, choice: int, share: int) -> None:
        half = self.pick(who, choice)
        if half is not None:
            waiting = len(half.heard) - half.stream.consumed_bytes
            half.stream.consumed(max(waiting, 0) // share, self.pair.now)

    @rule(who=st.integers(0, 1))
    def block(self, who: int) -> None:
        connection = self.ends()[who].connection
        connection.blocked = not connection.blocked
        connection.keep_borrowed()

    @precondition(lambda self: not self.draining)
    @rule(who=st.integers(0, 1), sure=st.integers(0, 9))
    def drain(self, who: int, sure: int) -> None:
        if sure == 0:
            self.draining = True
            self.ends()[who].connection.drain(0, "drain")

    # What the network and the clock do

    @rule(who=st.integers(0, 1), max_bytes=st.sampled_from([64, 2000, 66_000]), number=st.integers(1, 4))
    def leave(self, who: int, max_bytes: int, number: int) -> None:
        end = self.ends()[who]
        for _ in range(number):
            message = end.connection.next_message(max_bytes, b"pad")
            if message is None:
                break
            assert message[:3] == b"pad"
            end.in_flight.append(bytes(message[3:]))
        self.hear(who, end.connection.take_events())

    @rule(who=st.integers(0, 1))
    def arrive(self, who: int) -> None:
        sender, receiver = self.ends()[1 - who], self.ends()[who]
        if sender.in_flight:
            self.hear(who, receiver.connection.receive(sender.in_flight.popleft(), self.pair.now))

    @rule(seconds=st.sampled_from([0.0001, 0.01, 0.5]))
    def time_passes(self, seconds: float) -> None:
        self.pair.now += seconds

    # What is true at any time

    def hear(self, who: int, events: list[Event]) -> None:
        halves = self.halves[who]
        for event in events:
            match event:
                case StreamRequested():
                    halves[event.stream.id] = Half(event.stream)
                    halves[event.stream.id].accepted = False
                    self.requests[who].append(event.stream)
                case DataReceived():
                    half = halves[event.stream.id]
                    assert half.accepted
                    assert not half.ended
                    half.heard += event.data
                    self.check_prefix(who, half)
                case StreamFinished():
                    half = halves[event.stream.id]
                    assert not half.ended
                    half.ended = True
                    assert half.heard == self.halves[1 - who][event.stream.id].sent
                case StreamRefused() | StreamReset():
                    halves[event.stream.id].cut = True
                case Writable():
                    halves[event.stream.id].may_send = True
                case ConnectionLost():
                    assert self.draining, event
                    assert not self.lost or event.code is not None
                    self.lost = True

    def check_prefix(self, who: int, half: Half) -> None:
        sent = self.halves[1 - who][half.stream.id].sent
        assert sent.startswith(half.heard)

    def pick(self, who: int, choice: int) -> Half | None:
        accepted = [half for half in self.halves[who].values() if half.accepted]
        return accepted[choice % len(accepted)] if accepted else None

    @invariant()
    def within_windows(self) -> None:
        if not hasattr(self, "pair"):
            return
        for end in self.ends():
            connection = end.connection
            limits = connection.limits
            assert connection._received <= connection._receive_limit
            for stream in connection.streams():
                assert stream.received <= stream.receive_limit
                assert stream.consumed_bytes <= stream.received
                assert stream.window <= limits.stream_window_max
            grown = sum(stream.window - limits.stream_window for stream in connection.streams())
            assert connection.live is False or connection.budget.used == grown
            assert 0 <= connection.budget.used <= limits.window_budget
            assert 0 <= connection.budget.parked <= limits.window_budget

    def teardown(self) -> None:
        """Let everybody answer, take and finish: all data arrives, and both sides come to rest."""
        if not hasattr(self, "pair"):
            return
        for end in self.ends():
            end.connection.blocked = False
        for _ in range(100_000):
            if not self.turn():
                break
        else:
            raise AssertionError("the two machines never come to rest")
        for who in (0, 1):
            for half in self.halves[who].values():
                other = self.halves[1 - who].get(half.stream.id)
                if not half.cut and other is not None and not other.cut:
                    assert half.heard == other.sent
                    assert half.ended
                assert half.stream.over
        for end in self.ends():
            assert not end.connection.outbox.queued
            assert end.connection.budget.used == 0 or not end.connection.live
            assert end.connection.next_message(66_000) is None

    def turn(self) -> bool:
        moved = False
        for who, end in enumerate(self.ends()):
            for stream in self.requests[who]:
                self.halves[who][stream.id].accepted = stream.accept(None)
            self.requests[who].clear()
            for half in list(self.halves[who].values()):
                if half.accepted and not half.finished:
                    half.finished = True
                    half.stream.finish()
                half.stream.consumed(max(len(half.heard) - half.stream.consumed_bytes, 0), self.pair.now)
            while (message := end.connection.next_message(66_000)) is not None:
                moved = True
                end.in_flight.append(bytes(message))
            self.hear(who, end.connection.take_events())
            while end.in_flight:
                moved = True
                other = self.ends()[1 - who].connection
                self.hear(1 - who, other.receive(end.in_flight.popleft(), self.pair.now))
        return moved


JoinedMachines.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestJoinedMachines = JoinedMachines.TestCase
