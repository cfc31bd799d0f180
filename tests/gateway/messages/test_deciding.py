"""What becomes of records: the pure decision, without a store."""

from __future__ import annotations

from datetime import timedelta

import pytest

from device_protocol.errors import Reason
from device_protocol.numbers import NUMBER_MAX, Number
from device_protocol.topics import Kind
from gateway.policy.device_clock import DAY_MS, FUTURE_MAX_MS, Boot, moment_of, ms_of, window
from gateway.policy.messages import (
    BOOTS_AHEAD_MAX,
    FIRST_BOOT_MAX,
    Applied,
    Facts,
    bounded,
    decide,
    decide_control,
    read,
    reused,
    strangers,
)
from gateway.policy.stays import KnownDevice
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, DEAD, Entry
from tests.gateway.messages.talkers import NOW_MS, Talker, hello, record

DAYS = 30
HOME = KnownDevice("o_a", "s_a", "linux", "approved")
WINDOW = window(NOW_MS / 1000, DAYS)


@pytest.fixture
def pump() -> Talker:
    return Talker("d_pump", HOME)


def facts(**changes: object) -> Facts:
    known = {"devices": {"d_pump": HOME}, "window": WINDOW} | changes
    return Facts(**known)  # type: ignore[arg-type]


def decided(*entries: Entry, **changes: object) -> Applied:
    return decide([read(record(entry, n)) for n, entry in enumerate(entries)], facts(**changes))


def reasons(applied: Applied) -> list[Reason]:
    return [letter.reason for letter in applied.letters]


def test_what_comes_in_line_is_stored_and_the_latest_of_each_kind_is_its_state(pump: Talker) -> None:
    applied = decided(pump.says(), pump.says(Kind.STATE), pump.says(), pump.says(Kind.EVENT, type="door"))
    assert [(row.seq, row.kind, row.type) for row in applied.history] == [
        (1, "telemetry", "telemetry"),
        (2, "state", "state"),
        (3, "telemetry", "telemetry"),
        (4, "event", "door"),
    ]
    assert {kind: row.seq for (_, kind), row in applied.states.items()} == {"telemetry": 3, "state": 2}
    assert applied.lines == {"d_pump": Number(1, 4)}
    assert applied.outcomes == {"stored": 4}
    assert not applied.letters


def test_a_repeat_is_no_second_row(pump: Talker) -> None:
    first, second = pump.says(), pump.says()
    applied = decided(first, second, first, second)
    assert [row.seq for row in applied.history] == [1, 2]
    assert applied.outcomes == {"stored": 2, "seen": 2}
    # The repeats have the keys of their rows, wherever they come.
    assert [row.key for _, row in applied.seen] == [row.key for row in applied.history]


def test_behind_a_gap_nothing_is_taken_until_the_device_sends_again(pump: Talker) -> None:
    first, lost, third = pump.says(), pump.says(), pump.says()
    applied = decided(first, third, lost, third)
    assert [row.seq for row in applied.history] == [1, 2, 3]
    assert applied.outcomes == {"stored": 3, "gap": 1}


def test_what_devices_know_to_be_accepted_and_never_came_is_an_alarm(pump: Talker) -> None:
    pump.says()
    pump.says()
    pump.floor = Number(1, 2)
    applied = decided(pump.says(), lines={"d_pump": Number(1, 1)})
    assert (applied.passed, [row.seq for row in applied.history]) == (1, [3])
    assert decided(pump.says(), lines={"d_pump": Number(1, 3)}).passed == 0


def test_of_a_device_that_is_new_here_nothing_is_missing(pump: Talker) -> None:
    """Its line was forgotten, or it was another installation's: what was accepted before it is no loss."""
    pump.boot, pump.seq = BOOTS_AHEAD_MAX + 4_000, 6
    pump.floor = pump.prev = Number(pump.boot, 6)
    applied = decided(pump.says())
    assert (applied.passed, applied.lines) == (0, {"d_pump": Number(pump.boot, 7)})
    assert not applied.letters
    pump.says()  # from now on it is known
    pump.floor = Number(pump.boot, 8)
    assert decided(pump.says(), lines=applied.lines).passed == 1


def test_the_first_boot_that_is_heard_leaves_room_to_go_on(pump: Talker) -> None:
    """A device cannot begin a boot behind the last that there is."""
    for boot in (NUMBER_MAX, FIRST_BOOT_MAX + 1):
        pump.boot, pump.seq = boot, 0
        applied = decided(pump.says())
        assert (reasons(applied), applied.lines) == ([Reason.BAD_SCHEMA], {})
        pump.prev = Number(0, 0)
    pump.boot, pump.seq = FIRST_BOOT_MAX, 0
    assert decided(pump.says()).lines == {"d_pump": Number(FIRST_BOOT_MAX, 1)}


def test_a_bad_message_with_a_number_is_a_dead_letter_and_the_line_goes_on(pump: Talker) -> None:
    pump.seq += 1
    bad = b'{"id":"x","v":1,"boot":1,"seq":1,"floor":[0,0],"prev":[0,0],"payload":[]}'
    pump.prev = Number(1, 1)
    applied = decided(pump.entry(Kind.TELEMETRY, bad), pump.says())
    assert reasons(applied) == [Reason.BAD_SCHEMA]
    assert applied.letters[0].body == bad
    assert [row.seq for row in applied.history] == [2]
    assert applied.lines == {"d_pump": Number(1, 2)}


def test_what_ingest_marked_dead_is_dead(pump: Talker) -> None:
    said = pump.says()
    marked = Entry(
        said.key,
        said.value,
        said.at_ms,
        (*said.headers, (headers.DEAD, b"too_deep"), (headers.SIZE, b"99999")),
    )
    applied = decided(marked, pump.says())
    assert (reasons(applied), applied.letters[0].size) == ([Reason.TOO_DEEP], 99_999)
    assert [row.seq for row in applied.history] == [2]


def test_what_has_no_line_is_a_dead_letter_with_what_is_known_of_it(pump: Talker) -> None:
    topic = pump.topic(Kind.TELEMETRY)
    found = ((headers.TOPIC, str(topic).encode()), (headers.DEAD, b"bad_json"), (headers.DETAIL, b"not JSON"))
    strange = ((headers.TOPIC, b"a\0b/#"), (headers.DEAD, b"bad_topic"))
    records = [record(Entry(b"", b"{", NOW_MS, one), n, DEAD) for n, one in enumerate((found, strange))]
    applied = decide([read(one) for one in records], facts())
    known, unknown = applied.letters
    assert (known.reason, known.detail, known.device_id, known.site_id) == (
        Reason.BAD_JSON,
        "not JSON",
        "d_pump",
        "s_a",
    )
    assert (unknown.reason, unknown.device_id, unknown.site_id) == (Reason.BAD_TOPIC, None, None)
    assert "\0" not in unknown.topic
    assert not applied.lines


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (None, Reason.UNKNOWN_DEVICE),
        (HOME._replace(status="pending"), Reason.UNKNOWN_DEVICE),
        (HOME._replace(status="revoked"), Reason.DEVICE_REVOKED),
        (HOME._replace(org="o_b"), Reason.WRONG_PLACE),
        (HOME._replace(site="s_b"), Reason.WRONG_PLACE),
        (HOME._replace(type="demo"), Reason.WRONG_PLACE),
    ],
)
def test_only_a_known_device_at_its_place_is_heard(
    pump: Talker, device: KnownDevice | None, reason: Reason
) -> None:
    applied = decided(pump.says(), devices={} if device is None else {"d_pump": device})
    assert (reasons(applied), applied.history, applied.states) == ([reason], [], {})
    assert applied.lines == ({} if device is None else {"d_pump": Number(1, 1)})


def test_a_device_that_was_moved_is_told_where_it_is_now_on_the_topic_where_it_listens(pump: Talker) -> None:
    applied = decided(pump.says(), devices={"d_pump": HOME._replace(site="s_b")})
    topic, told = applied.greetings["d_pump"].message(NOW_MS / 1000)
    assert topic == "o_a/s_a/linux/d_pump/accepted"
    assert b'"prefix":"o_a/s_b/linux/d_pump"' in told


@pytest.mark.parametrize(
    ("ago_ms", "taken"),
    [
        (0, True),
        (-FUTURE_MAX_MS, True),
        (-FUTURE_MAX_MS - 1, False),
        (DAYS * DAY_MS, True),
        (DAYS * DAY_MS + 1, False),
    ],
)
def test_times_that_the_history_does_not_take(pump: Talker, ago_ms: int, taken: bool) -> None:
    applied = decided(pump.says(ts=NOW_MS - ago_ms), pump.says())
    assert len(applied.history) == 1 + taken
    assert reasons(applied) == ([] if taken else [Reason.TIME_OUT_OF_RANGE])


def test_what_waited_in_the_log_for_longer_than_the_retention_is_not_put_where_it_would_be_dropped(
    pump: Talker,
) -> None:
    late = window(NOW_MS / 1000 + (DAYS + 2) * 86_400, DAYS)
    assert reasons(decided(pump.says(), window=late)) == [Reason.TIME_OUT_OF_RANGE]


def test_a_device_without_a_clock_counts_from_its_boot(pump: Talker) -> None:
    applied = decided(pump.says(ts=None, up=5_000), pump.says(ts=None, up=65_000))
    assert [ms_of(row.at) - NOW_MS for row in applied.history] == [0, 60_000]
    assert applied.boots == {("d_pump", 1): Boot(NOW_MS, NOW_MS - 5_000)}
    # The same message later, when the boot is known: the same key.
    again = decided(pump.says(ts=None, up=65_000), boots=applied.boots, lines={"d_pump": Number(1, 2)})
    assert [ms_of(row.at) - NOW_MS for row in again.history] == [60_000]


def test_a_clockless_boot_of_before_1970_takes_the_time_of_its_first_message(pump: Talker) -> None:
    applied = decided(pump.says(ts=None, up=2**52))
    assert [ms_of(row.at) for row in applied.history] == [NOW_MS]


def test_another_message_under_a_taken_number_is_kept_as_a_dead_letter(pump: Talker) -> None:
    first = pump.says()
    pump.seq, pump.prev = 0, Number(0, 0)
    other = pump.says(Kind.STATE)
    applied = decided(first, other)
    [stranger] = strangers(applied, {applied.history[0].key: applied.history[0].id})
    reused(applied, stranger, facts())
    assert reasons(applied) == [Reason.REUSED_NUMBER]
    assert applied.greetings["d_pump"].known == Number(1, 1)
    assert applied.outcomes == {"stored": 1, "seen": 0, "dead": 1}


def test_what_the_store_refused_is_a_dead_letter_and_the_line_goes_on(pump: Talker) -> None:
    arrivals = [read(record(pump.says(), 0))]
    applied = decide(arrivals, facts(), {arrivals[0].place: "DataError"})
    assert (reasons(applied), applied.lines) == ([Reason.STORE_REFUSED], {"d_pump": Number(1, 1)})


def test_a_reported_configuration_does_not_replace_the_state(pump: Talker) -> None:
    report = {"version": 3, "sha256": "0" * 64}
    applied = decided(pump.says(Kind.STATE), pump.says(Kind.STATE, report, type="config"))
    assert {kind: row.seq for (_, kind), row in applied.states.items()} == {"state": 1, "config": 2}


def control(*entries: Entry, **changes: object) -> Applied:
    return decide_control(
        [read(record(entry, n, CONTROL)) for n, entry in enumerate(entries)], facts(**changes)
    )


def test_hello_is_answered_with_what_is_known(pump: Talker) -> None:
    applied = control(pump.says(Kind.HELLO), lines={"d_pump": Number(7, 3)})
    connection = applied.connections["d_pump"]
    assert (connection.online, connection.instance, connection.since) == (
        True,
        "instance-1",
        moment_of(NOW_MS),
    )
    _, told = applied.greetings["d_pump"].message(NOW_MS / 1000)
    assert b'"hello":1,"boot":7,"seq":3' in told


def test_a_will_ends_its_own_instances_link_and_no_other(pump: Talker) -> None:
    def gone(instance: str) -> Entry:
        return pump.says(Kind.HELLO, {"gone": True, "instance": instance})

    first = pump.says(Kind.HELLO)
    assert control(first, gone("instance-1")).connections["d_pump"].online is False
    newer = pump.says(Kind.HELLO, hello(pump, "instance-2"))
    assert control(first, newer, gone("instance-1")).connections["d_pump"].online is True


def test_a_repeated_hello_keeps_the_time_since_when_it_is_online(pump: Talker) -> None:
    before = control(pump.says(Kind.HELLO)).connections
    pump.now_ms += 60_000
    connection = control(pump.says(Kind.HELLO), connections=before).connections["d_pump"]
    assert (connection.since, connection.seen_at - connection.since) == (
        moment_of(NOW_MS),
        timedelta(minutes=1),
    )


def test_a_moved_device_that_says_hello_is_answered_and_its_ack_is_not_taken(pump: Talker) -> None:
    moved = {"d_pump": HOME._replace(site="s_b")}
    said = control(pump.says(Kind.HELLO), devices=moved)
    assert (said.letters, said.greetings["d_pump"].prefix) == ([], "o_a/s_b/linux/d_pump")
    answer = {"command": "01980000-0000-7000-8000-000000000001", "stage": "received"}
    acked = control(pump.says(Kind.ACK, answer), devices=moved)
    assert (reasons(acked), acked.acks) == ([Reason.WRONG_PLACE], [])
    assert [one.ack.command for one in control(pump.says(Kind.ACK, answer)).acks] == [answer["command"]]


def test_a_revoked_device_is_not_greeted(pump: Talker) -> None:
    applied = control(pump.says(Kind.HELLO), devices={"d_pump": HOME._replace(status="revoked")})
    assert (reasons(applied), applied.connections, applied.greetings) == ([Reason.DEVICE_REVOKED], {}, {})


def test_a_number_that_nobody_can_have_come_to_mutes_no_device(pump: Talker) -> None:
    """As a bridge could say it in a device's name."""
    lines = {"d_pump": Number(3, 7)}
    for boot in (NUMBER_MAX, 3 + BOOTS_AHEAD_MAX + 1):
        pump.boot, pump.seq, pump.floor, pump.prev = boot, 0, Number(3, 7), Number(3, 7)
        far = pump.says()
        pump.floor = pump.prev = Number(boot, 1)
        applied = decided(far, pump.says(), lines=lines)
        assert reasons(applied) == [Reason.BAD_SCHEMA] * 2
        assert applied.lines == {}, "it stands where it stood"
    pump.boot, pump.seq, pump.floor, pump.prev = 3 + BOOTS_AHEAD_MAX, 0, Number(3, 7), Number(3, 7)
    assert decided(pump.says(), lines=lines).lines == {"d_pump": Number(3 + BOOTS_AHEAD_MAX, 1)}


def test_a_bridge_whose_clock_is_ahead_is_not_believed(pump: Talker) -> None:
    said = pump.says()
    ahead = record(Entry(said.key, said.value, NOW_MS + 10 * 365 * DAY_MS, said.headers), 7)
    assert bounded(ahead, NOW_MS) == record(Entry(said.key, said.value, NOW_MS, said.headers), 7)
    sound = record(Entry(said.key, said.value, NOW_MS + FUTURE_MAX_MS, said.headers), 7)
    assert bounded(sound, NOW_MS) is sound


@pytest.mark.parametrize("at_ms", [-1, -(10**17)])
def test_a_time_that_there_is_not_is_no_defect(pump: Talker, at_ms: int) -> None:
    said = pump.says()
    before = bounded(record(Entry(said.key, said.value, at_ms, said.headers), 7), NOW_MS)
    assert before.entry.at_ms == 0
    assert reasons(decide([read(before)], facts())) == [Reason.TIME_OUT_OF_RANGE]
