"""The decisions, with time as an argument."""

from __future__ import annotations

import itertools
import json
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_protocol.errors import Reason
from device_protocol.numbers import NOTHING, Number, Place
from ingest.policy.budget import Budget, Pressure
from ingest.policy.progress import Lines
from ingest.policy.redial import FIRST_S, MAX_S, STABLE_AFTER_S, Redial
from ingest.policy.sharing import is_ours
from ingest.policy.sorting import DEAD_MAX, entry, sort
from ingest.policy.telling import REFUSED_EVERY_S, Accepted, Refused, Telling
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, DEAD, UP, check_append

DEVICES = st.sampled_from(["d_a", "d_b", "d_c"])


# Telling


@given(st.lists(st.tuples(DEVICES, st.integers(1, 9), st.floats(0, 0.2))), st.floats(0.01, 1))
def test_a_device_hears_the_newest_at_last_and_never_too_often(
    said: list[tuple[str, int, float]], every_s: float
) -> None:
    telling, now = Telling(every_s, 100), 1000.0
    newest: dict[str, Number] = {}
    heard: dict[str, list[tuple[float, Number]]] = {}

    def listen() -> None:
        for one in telling.due(now):
            assert isinstance(one, Accepted)
            heard.setdefault(one.prefix, []).append((now, one.number))

    seq = 0
    for device, more, passes in said:
        seq += more
        newest[device] = Number(1, seq)
        telling.accepted(device, device, newest[device])
        listen()
        now += passes
        timer = telling.next_timer(now)
        assert timer is None or timer >= now
        listen()
    while (timer := telling.next_timer(now)) is not None:
        now = timer
        listen()
    assert len(telling) == 0
    assert {device: words[-1][1] for device, words in heard.items()} == newest
    for words in heard.values():
        assert [number for _, number in words] == sorted({number for _, number in words})
        assert all(b[0] - a[0] >= every_s * 0.999 for a, b in itertools.pairwise(words))


def test_the_first_word_is_not_held_back() -> None:
    telling = Telling(0.05, 100)
    telling.accepted("d_a", "p", Number(1, 1))
    assert telling.next_timer(5.0) == 5.0
    assert telling.due(5.0) == [Accepted("p", Number(1, 1))]
    telling.accepted("d_a", "p", Number(1, 2))
    assert telling.due(5.01) == []
    assert telling.next_timer(5.01) == pytest.approx(5.05)
    telling.accepted("d_a", "p", Number(1, 3))
    assert telling.due(5.051) == [Accepted("p", Number(1, 3))]


def test_a_line_that_begins_again_lower_does_not_take_back() -> None:
    telling = Telling(0.05, 100)
    telling.accepted("d_a", "p", Number(1, 9))
    telling.accepted("d_a", "p", Number(1, 4))
    assert telling.due(5.0) == [Accepted("p", Number(1, 9))]


def test_only_so_many_devices_wait_to_be_told() -> None:
    telling = Telling(0.05, 10)
    for n in range(100):
        telling.accepted(f"d_{n}", f"p{n}", Number(1, 1))
        telling.refused(f"d_{n}", Refused(f"p{n}", Reason.BAD_JSON, None), 5.0)
    assert len(telling) == 20
    told = telling.due(5.0)
    assert Accepted("p99", Number(1, 1)) in told, "the newest are kept"


def test_refusals_come_once_a_second() -> None:
    telling, refused = Telling(0.05, 10), Refused("p", Reason.BAD_JSON, None)
    telling.refused("d_a", refused, 5.0)
    telling.refused("d_a", refused, 5.0)
    assert telling.due(5.0) == [refused]
    telling.refused("d_a", refused, 5.0 + REFUSED_EVERY_S / 2)
    assert telling.due(6.0) == []
    telling.refused("d_a", refused, 5.1 + REFUSED_EVERY_S)
    assert telling.due(6.2) == [refused]


# Budget


@given(st.integers(1, 1000), st.lists(st.integers(1, 500)))
def test_it_pauses_above_the_limit_and_goes_on_below_half(most: int, sizes: list[int]) -> None:
    budget, paused = Budget(most), False
    waiting: list[int] = []
    for size in sizes:
        while paused:
            pressure = budget.remove(waiting.pop(0))
            if budget.used * 2 < most:
                assert pressure is Pressure.RESUME
                paused = False
            else:
                assert pressure is Pressure.SAME
        assert budget.used <= most
        pressure = budget.add(size)
        waiting.append(size)
        assert (pressure is Pressure.PAUSE) == (budget.used > most) == budget.paused
        paused = budget.paused
        assert budget.used == sum(waiting)
    for size in waiting:
        budget.remove(size)
    assert (budget.used, budget.paused) == (0, False)


# Lines


def test_the_lines_used_longest_ago_go_first() -> None:
    lines = Lines(2, 4)
    for device in ("d_a", "d_b", "d_a", "d_c"):
        lines.offer(0, device, Number(1, 5), Number(1, 4), Number(1, 4))
    assert len(lines) == 2
    offer, _ = lines.offer(0, "d_a", Number(1, 5), Number(1, 4), Number(1, 4))
    assert offer.place is Place.SEEN
    offer, _ = lines.offer(0, "d_b", Number(1, 5), Number(1, 4), Number(1, 4))
    assert offer.place is Place.TAKE, "forgotten: it begins again at the floor"


def test_a_part_is_forgotten_alone() -> None:
    lines = Lines(2, 10)
    for part in (0, 1):
        lines.offer(part, f"d_{part}", Number(1, 1), NOTHING, NOTHING)
    lines.forget(0)
    assert lines.offer(0, "d_0", Number(1, 2), Number(1, 1), NOTHING)[0].place is Place.GAP
    assert lines.offer(1, "d_1", Number(1, 2), Number(1, 1), NOTHING)[0].place is Place.TAKE


def test_what_is_done_never_goes_back() -> None:
    _, progress = Lines(1, 10).offer(0, "d_a", Number(1, 5), Number(1, 4), Number(1, 4))
    assert progress.done == Number(1, 4), "the device says that so much is accepted"
    progress.logged(Number(1, 5))
    progress.logged(Number(1, 3))
    assert progress.done == Number(1, 5)


# Several bridges


@given(st.text(), st.integers(1, 8))
def test_each_topic_has_exactly_one_bridge(topic: str, bridges: int) -> None:
    assert [is_ours(topic, bridge, bridges) for bridge in range(bridges)].count(True) == 1


@given(st.from_regex(r"\A[a-z0-9_-]{1,20}\Z"), st.integers(1, 8))
def test_all_kinds_of_a_device_have_the_same_bridge(device: str, bridges: int) -> None:
    topics = [
        f"o_1/s_1/linux/{device}/telemetry",
        f"o_2/s_2/esp32/{device}/hello",
        f"a/b/c/{device}/ack/more",
    ]
    expected = zlib.crc32(device.encode()) % bridges
    assert all(is_ours(topic, expected, bridges) for topic in topics)


def test_devices_are_spread() -> None:
    shares = Counter(
        next(b for b in range(4) if is_ours(f"o/s/t/d_{n:016d}/telemetry", b, 4)) for n in range(4000)
    )
    assert all(800 < count < 1200 for count in shares.values())


# Sorting


@given(st.text(), st.binary())
def test_anything_finds_a_topic_and_can_be_kept(topic: str, payload: bytes) -> None:
    message = sort(topic, payload)
    kept = entry(message, topic, payload, 0)
    check_append([kept])
    assert message.log_topic == DEAD
    assert dict(kept.headers)[headers.DEAD]
    assert dict(kept.headers)[headers.TOPIC].decode().isprintable() or topic == ""


@given(
    st.sampled_from(["telemetry", "hello", "ack", "event", "state", "heartbeat", "cmd"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
)
def test_any_json_on_a_topic_is_sorted(kind: str, value: object) -> None:
    payload = json.dumps(value).encode("utf-8", "surrogatepass")
    message = sort(f"o_1/s_1/linux/d_1/{kind}", payload)
    check_append([entry(message, f"o_1/s_1/linux/d_1/{kind}", payload, 0)])
    assert message.log_topic in (UP, CONTROL, DEAD)
    assert (message.log_topic == UP) == (message.standing is not None)


def test_of_a_dead_letter_so_much_is_kept() -> None:
    payload = b"x" * (DEAD_MAX + 1)
    kept = entry(sort("no topic", payload), "no topic", payload, 7)
    assert len(kept.value) == DEAD_MAX
    assert dict(kept.headers)[headers.SIZE] == str(DEAD_MAX + 1).encode()
    assert kept.at_ms == 7


# Dialling again


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 200))
def test_it_waits_longer_each_time_up_to_a_limit(random: float, failures: int) -> None:
    redial = Redial()
    waits = [redial.ended(1000.0, random) for _ in range(failures)]
    assert waits == sorted(waits)
    assert all(FIRST_S / 2 <= wait <= MAX_S for wait in waits)


def test_a_connection_that_stood_begins_a_new_count() -> None:
    redial = Redial()
    for _ in range(10):
        redial.ended(1000.0, 0.0)
    redial.opened(1000.0)
    assert redial.ended(1000.0 + STABLE_AFTER_S / 2, 0.0) == MAX_S / 2
    redial.opened(2000.0)
    assert redial.ended(2000.0 + STABLE_AFTER_S, 0.0) == FIRST_S / 2
