"""Nothing accepted is lost, nothing doubled, nothing reordered, whatever fails on the way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_protocol.numbers import Line, Number, Offer, Place
from tests.device_protocol.model import Way

BRIDGES = st.integers(0, 1)
SOME = st.integers(1, 6)
ANYWHERE = st.integers(0, 1 << 16)


class Pipeline(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.way = Way()

    @precondition(lambda self: not self.way.device.waiting)
    @rule(count=SOME)
    def a_device_makes(self, count: int) -> None:
        for _ in range(count):
            self.way.device.make()

    @rule()
    def a_device_starts_anew(self) -> None:
        self.way.device.start()

    @precondition(lambda self: len(self.way.device.outbox) > 2)
    @rule()
    def an_outbox_overflows(self) -> None:
        self.way.device.overflow()

    @rule(count=SOME)
    def a_device_sends(self, count: int) -> None:
        for _ in range(count):
            self.way.send()

    @rule()
    def a_device_goes_back(self) -> None:
        self.way.device.cursor = 0

    @rule(bridge=BRIDGES)
    def the_other_bridge_serves(self, bridge: int) -> None:
        self.way.current = bridge

    @rule(bridge=BRIDGES)
    def a_bridge_is_killed(self, bridge: int) -> None:
        self.way.bridges[bridge].forget()

    @precondition(lambda self: self.way.wire)
    @rule(at=ANYWHERE)
    def the_broker_loses(self, at: int) -> None:
        del self.way.wire[at % len(self.way.wire)]

    @precondition(lambda self: self.way.wire)
    @rule(at=ANYWHERE)
    def the_broker_doubles(self, at: int) -> None:
        self.way.wire.append(self.way.wire[at % len(self.way.wire)])

    @precondition(lambda self: self.way.wire)
    @rule(count=SOME)
    def the_broker_delivers(self, count: int) -> None:
        for _ in range(min(count, len(self.way.wire))):
            self.way.arrive(0)

    @precondition(lambda self: self.way.wire)
    @rule(at=ANYWHERE)
    def the_broker_delivers_one_too_early(self, at: int) -> None:
        self.way.arrive(at % len(self.way.wire))

    @rule(bridge=BRIDGES, count=SOME)
    def an_append_succeeds(self, bridge: int, count: int) -> None:
        self.way.append(bridge, count)

    @rule(bridge=BRIDGES, count=SOME, logged=st.booleans(), later=st.booleans())
    def an_append_fails(self, bridge: int, count: int, logged: bool, later: bool) -> None:
        self.way.bridges[bridge].fail(self.way.log, count, logged=logged, later_logged=later)

    @precondition(lambda self: self.way.down)
    @rule(at=ANYWHERE, heard=st.booleans())
    def accepted_arrives(self, at: int, heard: bool) -> None:
        number = self.way.down.pop(at % len(self.way.down))
        if heard:
            self.way.device.hear(number)

    @rule()
    def hello_is_answered(self) -> None:
        self.way.device.answered(self.way.consumer.line.have)

    @rule(count=SOME)
    def the_consumer_reads(self, count: int) -> None:
        self.way.consumer.read(self.way.log, count)

    @rule()
    def a_copy_is_made_of_the_storage(self) -> None:
        self.way.copy = self.way.device.copy_of_storage()

    @rule()
    def the_copy_is_put_back(self) -> None:
        self.way.restore()

    @invariant()
    def holds(self) -> None:
        self.way.check()

    def teardown(self) -> None:
        self.way.settle()
        self.way.check_settled()


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


def run(way: Way, chance: random.Random, steps: int) -> None:
    """A long life with many small failures: the machine above looks for short ones, and rarely has it."""
    moves = [move for move, _ in MOVES]
    weights = [weight for _, weight in MOVES]
    for move in chance.choices(moves, weights, k=steps):
        move(way, chance)


def make(way: Way, chance: random.Random) -> None:
    if chance.random() < 0.06:
        way.device.start()
    if not way.device.waiting:
        way.device.make()


def copy_or_restore(way: Way, chance: random.Random) -> None:
    if chance.random() < 0.7:
        way.copy = way.device.copy_of_storage()
    else:
        way.restore()


def answer(way: Way, _chance: random.Random) -> None:
    way.device.answered(way.consumer.line.have)


def overflow(way: Way, _chance: random.Random) -> None:
    if len(way.device.outbox) > 8:
        way.device.overflow()


def go_back(way: Way, _chance: random.Random) -> None:
    way.device.cursor = 0


def change_bridge(way: Way, chance: random.Random) -> None:
    way.current = chance.randrange(2)


def kill_bridge(way: Way, chance: random.Random) -> None:
    way.bridges[chance.randrange(2)].forget()


def lose(way: Way, chance: random.Random) -> None:
    way.wire = [one for one in way.wire if chance.random() < 0.5]


def deliver(way: Way, chance: random.Random) -> None:
    for _ in range(min(2, len(way.wire))):
        way.arrive(0 if chance.random() < 0.95 else chance.randrange(len(way.wire)))


def accept(way: Way, chance: random.Random) -> None:
    if way.down:
        number = way.down.pop(chance.randrange(len(way.down)))
        if chance.random() < 0.8:
            way.device.hear(number)


def flush(way: Way, chance: random.Random) -> None:
    for at, bridge in enumerate(way.bridges):
        most = chance.randint(1, max(1, len(bridge.pending)))
        if chance.random() < 0.2:
            bridge.fail(way.log, most, logged=chance.random() < 0.5, later_logged=chance.random() < 0.5)
        else:
            way.append(at, most)


def read(way: Way, chance: random.Random) -> None:
    way.consumer.read(way.log, chance.randint(1, 40))


MOVES: list[tuple[Callable[[Way, random.Random], None], int]] = [
    (make, 25),
    (overflow, 3),
    (lambda way, _chance: way.send(), 32),
    (go_back, 4),
    (change_bridge, 3),
    (kill_bridge, 2),
    (lose, 2),
    (deliver, 17),
    (flush, 5),
    (accept, 3),
    (read, 4),
    (copy_or_restore, 1),
    (answer, 2),
]
"""What happens, and how often beside the others."""


@pytest.mark.parametrize("lives", range(4))
def test_long_lives(lives: int, seed: int) -> None:
    rows = 0
    for life in range(100):
        way = Way()
        run(way, random.Random(f"{seed} {lives} {life}"), 900)
        way.settle()
        way.check_settled()
        rows += len(way.consumer.rows)
    assert rows > 100 * 100  # it was a life


class Watermark(Line):
    """What a consumer without the rule does: takes whatever is above the last."""

    __slots__ = ()

    def offer(self, number: Number, before: Number, floor: Number) -> Offer:
        if number <= self.have:
            return Offer(Place.SEEN)
        self.have = number
        return Offer(Place.TAKE)


def test_a_storage_that_forgot_gives_no_number_twice() -> None:
    way = Way()
    device = way.device
    way.copy = device.copy_of_storage()
    for _ in range(3):
        device.make()
        way.send()
    way.settle()
    assert [number for number, _ in way.consumer.rows] == [Number(1, 1), Number(1, 2), Number(1, 3)]
    way.restore()
    assert device.waiting
    way.device.answered(way.consumer.line.have)
    device.make()
    way.settle()
    way.check_settled()
    assert way.consumer.rows[3:] == [(Number(2, 1), 3)]


def test_a_plain_watermark_would_lose_what_was_accepted() -> None:
    """The model is able to see a loss: with the wrong rule at the consumer it does."""

    def lost(life: int) -> bool:
        way = Way(Watermark())
        run(way, random.Random(f"wrong {life}"), 900)
        way.settle()
        return not way.device.told_kept - way.device.gone <= {id for _, id in way.consumer.rows}

    assert any(lost(life) for life in range(300))


def test_a_failed_append_before_one_that_was_logged() -> None:
    """The shortest way to that loss: 2 was not logged, 3 was, and then both came again."""
    right, wrong = Line(), Watermark()
    log = [(1, 0), (3, 2), (2, 1), (3, 2)]
    taken: dict[type[Line], list[int]] = {Line: [], Watermark: []}
    for line in (right, wrong):
        for seq, before in log:
            offer = line.offer(Number(1, seq), Number(1 if before else 0, before), Number(0, 0))
            if offer.place is Place.TAKE:
                taken[type(line)].append(seq)
    assert taken == {Line: [1, 2, 3], Watermark: [1, 3]}
