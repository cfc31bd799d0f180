"""The firmware's mux joined with the server's machine: two languages, one protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.firmware.core_pipe import LINK_BUFFER, CorePipe, Told
from tests.tunnel_protocol.pair import GRANT, NONCE, End
from tunnel_protocol import (
    ConnectionDraining,
    ConnectionLost,
    DataReceived,
    Event,
    Hello,
    Limits,
    ResetCode,
    Side,
    Stream,
    StreamFinished,
    StreamLimit,
    StreamRefused,
    StreamReset,
    Writable,
)

# No keepalive falls due in a conversation: what it does is in test_mux.c and its vectors.
SERVER_LIMITS: Final = st.builds(
    Limits,
    max_frame=st.sampled_from([256, 1000, 65_535]),
    max_message=st.just(65_600),
    stream_window=st.sampled_from([1, 300, 4096, 65_536]),
    connection_window=st.sampled_from([1, 500, 8192, 1 << 20]),
    keepalive_ms=st.just(300_000),
    stream_window_max=st.just(1 << 20),
    send_queue_high=st.just(5000),
    send_queue_low=st.just(1000),
)
DEVICE_LIMITS: Final = st.builds(
    Limits,
    max_frame=st.sampled_from([256, 1000, 2040]),
    max_message=st.just(LINK_BUFFER),
    stream_window=st.sampled_from([1, 300, 4096]),
    connection_window=st.sampled_from([1, 500, 16_384]),
    max_streams=st.integers(1, 4),
    keepalive_ms=st.just(300_000),
    stream_window_max=st.just(4096),
)
_FAST: Final = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def pipe(asan: Path) -> Iterator[CorePipe]:
    """One process for all conversations of the file; the sanitizers look on until it ends."""
    with CorePipe(asan / "tests" / "core-pipe") as joined:
        yield joined


class Talk:
    """What the server's owner and the device's know of one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.down = bytearray()  # what the server sent
        self.up = bytearray()  # what the device sent
        self.taken = bytearray()  # by the device
        self.heard = bytearray()  # by the server
        self.asked = False  # the device knows of it
        self.accepted = False
        self.cut = False  # by REFUSED or RESET of either side
        self.over = False  # at the device
        self.finished_up = False
        self.finished_down = False
        self.ended_up = False  # the server had the FIN
        self.ended_down = False  # the device had it, or the stream's end
        self.may_send = True


class Conversation(RuleBasedStateMachine):
    """Random calls at both ends; messages travel one at a time, in order."""

    pipe: CorePipe

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0
        self.now = 0.0
        self.talks: dict[int, Talk] = {}
        self.up: deque[bytes] = deque()  # messages from the device
        self.draining = False
        self.server_lost = self.device_lost = False

    @initialize(server=SERVER_LIMITS, device=DEVICE_LIMITS)
    def join(self, server: Limits, device: Limits) -> None:
        self.server = End(Side.SERVER, server)
        self.pipe.begin(device)
        self.server.connection.challenge(NONCE, "tunnel.test")
        self.settle()
        self.server.connection.admit(Hello(software="server"))
        self.settle()
        assert self.server.connection.live
        for choice in range(device.max_streams):
            self.open()
            self.turn()
            self.answer(choice, True)

    # What the owners do

    @rule()
    def open(self) -> None:
        try:
            stream = self.server.connection.open_stream("device", "web", GRANT, None)
        except (StreamLimit, ConnectionDraining):
            return
        self.talks[stream.id] = Talk(stream)

    @rule(choice=st.integers(0, 9), accept=st.booleans())
    def answer(self, choice: int, accept: bool) -> None:
        asked = [i for i, talk in self.talks.items() if talk.asked and not talk.accepted and not talk.over]
        if not asked:
            return
        talk = self.talks[asked[choice % len(asked)]]
        if accept:
            talk.accepted = True
            self.hear_device(self.pipe.accept(talk.stream.id))
        else:
            talk.cut = talk.over = True
            self.hear_device(self.pipe.refuse(talk.stream.id))

    @rule(choice=st.integers(0, 9), size=st.sampled_from([1, 7, 300, 5000]))
    def send_down(self, choice: int, size: int) -> None:
        talk = self.pick(choice)
        if talk is None or talk.finished_down or not talk.may_send or talk.stream.over:
            return
        data = self.fresh(size)
        talk.down += data
        talk.may_send = talk.stream.send(data, self.now)

    @rule(choice=st.integers(0, 9), size=st.sampled_from([1, 7, 300, 5000, 20_000]))
    def send_up(self, choice: int, size: int) -> None:
        talk = self.pick_at_device(choice)
        if talk is not None and not talk.finished_up:
            data = self.fresh(size)
            talk.up += data
            self.hear_device(self.pipe.send(talk.stream.id, data))

    @rule(choice=st.integers(0, 9))
    def finish_down(self, choice: int) -> None:
        talk = self.pick(choice)
        if talk is not None:
            talk.finished_down = True
            talk.stream.finish()

    @rule(choice=st.integers(0, 9))
    def finish_up(self, choice: int) -> None:
        talk = self.pick_at_device(choice)
        if talk is not None:
            talk.finished_up = True
            self.hear_device(self.pipe.finish(talk.stream.id))

    @rule(choice=st.integers(0, 9), by_server=st.booleans(), sure=st.integers(0, 3))
    def reset(self, choice: int, by_server: bool, sure: int) -> None:
        talk = self.pick(choice) if by_server else self.pick_at_device(choice)
        if talk is None or sure > 0:
            return
        talk.cut = True
        if by_server:
            talk.stream.reset(ResetCode.CANCELLED)
        else:
            talk.over = True
            self.hear_device(self.pipe.reset(talk.stream.id))

    @rule(choice=st.integers(0, 9), most=st.sampled_from([1, 100, 2500, 5000]))
    def take_down(self, choice: int, most: int) -> None:
        talk = self.pick_at_device(choice)
        if talk is not None:
            self.hear_device(self.pipe.take(talk.stream.id, most))

    @rule(choice=st.integers(0, 9), share=st.integers(1, 3))
    def take_up(self, choice: int, share: int) -> None:
        talk = self.pick(choice)
        if talk is not None:
            talk.stream.consumed((len(talk.heard) - talk.stream.consumed_bytes) // share, self.now)

    @rule(sure=st.integers(0, 19), by_server=st.booleans())
    def drain(self, sure: int, by_server: bool) -> None:
        if sure > 0 or self.draining:
            return
        self.draining = True
        if by_server:
            self.server.connection.drain(0, "drain")
        else:
            self.hear_device(self.pipe.drain())

    # What the network and the clock do

    @rule(max_bytes=st.sampled_from([64, LINK_BUFFER]), number=st.integers(1, 4))
    def leave_server(self, max_bytes: int, number: int) -> None:
        for _ in range(number):
            message = self.server.connection.next_message(max_bytes)
            if message is None:
                break
            self.server.in_flight.append(bytes(message))
        self.hear_server(self.server.connection.take_events())

    @rule(number=st.integers(1, 4))
    def leave_device(self, number: int) -> None:
        messages, told = self.pipe.leave(number)
        assert all(len(message) <= LINK_BUFFER for message in messages)
        self.up += messages
        self.hear_device(told)

    @rule()
    def arrive_at_device(self) -> None:
        if self.server.in_flight:
            self.hear_device(self.pipe.receive(self.server.in_flight.popleft()))

    @rule(times=st.integers(1, 3))
    def much_arrives(self, times: int) -> None:
        for _ in range(times):
            self.turn()

    @rule()
    def arrive_at_server(self) -> None:
        if self.up:
            self.hear_server(self.server.connection.receive(self.up.popleft(), self.now))

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.5]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.hear_device(self.pipe.set_time(self.now))

    # What is true at any time

    def hear_server(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case DataReceived():
                    talk = self.talks[event.stream.id]
                    assert talk.accepted
                    assert not talk.ended_up
                    talk.heard += event.data
                    assert talk.up.startswith(talk.heard)
                case StreamFinished():
                    talk = self.talks[event.stream.id]
                    assert talk.heard == talk.up
                    assert talk.finished_up
                    talk.ended_up = True
                case StreamRefused() | StreamReset():
                    self.talks[event.stream.id].cut = True
                case Writable():
                    self.talks[event.stream.id].may_send = True
                case ConnectionLost():
                    assert self.draining, event
                    self.server_lost = True

    def hear_device(self, told: list[Told]) -> None:
        for one in told:
            talk = self.talks.get(one.stream)
            match one.kind:
                case "requested":
                    assert talk is not None
                    assert not talk.asked
                    talk.asked = True
                case "taken":
                    assert talk is not None
                    assert talk.accepted
                    talk.taken += one.payload
                    assert talk.down.startswith(talk.taken)
                case "data":
                    assert talk is not None
                    assert talk.accepted
                    assert not talk.ended_down
                case "finished":
                    assert talk is not None
                    assert talk.finished_down
                    assert not talk.ended_down
                    talk.ended_down = True
                case "over":
                    assert talk is not None
                    assert not talk.over
                    talk.over = True
                    if one.number == 0:
                        assert talk.finished_down
                        assert talk.finished_up
                        assert talk.taken == talk.down
                        talk.ended_down = True
                    else:
                        assert talk.cut or self.draining
                case "lost":
                    assert self.draining, one
                    assert not self.device_lost
                    self.device_lost = True

    def fresh(self, size: int) -> bytes:
        self.serial += 1
        return (self.serial.to_bytes(4, "big") * (size // 4 + 1))[:size]

    def pick(self, choice: int) -> Talk | None:
        talks = list(self.talks.values())
        return talks[choice % len(talks)] if talks else None

    def pick_at_device(self, choice: int) -> Talk | None:
        talks = [talk for talk in self.talks.values() if talk.accepted and not talk.over]
        return talks[choice % len(talks)] if talks else None

    def settle(self) -> None:
        while self.turn():
            pass

    def turn(self) -> bool:
        """Everything that waits arrives; whether there was something."""
        moved = False
        while (message := self.server.connection.next_message(LINK_BUFFER)) is not None:
            self.server.in_flight.append(bytes(message))
        self.hear_server(self.server.connection.take_events())
        self.leave_device(100)
        while self.server.in_flight:
            moved = True
            self.arrive_at_device()
        while self.up:
            moved = True
            self.arrive_at_server()
        return moved

    def teardown(self) -> None:
        """Let everybody answer, take and finish: all that was sent arrives, and both sides come to rest."""
        if not hasattr(self, "server"):
            return
        for _ in range(100_000):
            if not self.ending_turn():
                break
        else:
            raise AssertionError("the two never come to rest")
        assert self.server_lost == self.device_lost == self.draining
        for talk in self.talks.values():
            assert talk.stream.over
            assert talk.over or not talk.asked
            if not talk.cut:
                assert (talk.taken, talk.heard) == (talk.down, talk.up)
                assert talk.ended_up
                assert talk.ended_down

    def ending_turn(self) -> bool:
        for stream_id, talk in self.talks.items():
            if not talk.finished_down:
                talk.finished_down = True
                talk.stream.finish()
            talk.stream.consumed(len(talk.heard) - talk.stream.consumed_bytes, self.now)
            if not talk.asked or talk.over:
                continue
            if not talk.accepted:
                talk.accepted = True
                self.hear_device(self.pipe.accept(stream_id))
            if not talk.finished_up:
                talk.finished_up = True
                self.hear_device(self.pipe.finish(stream_id))
        return self.turn()


def test_no_byte_is_lost_moved_or_made_up(pipe: CorePipe) -> None:
    """Nor does either side pass a window: the other one would end the connection."""
    joined = type("JoinedConversation", (Conversation,), {"pipe": pipe})
    run_state_machine_as_test(joined, settings=settings(_FAST, max_examples=120, stateful_step_count=50))
