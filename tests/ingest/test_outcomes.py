"""What becomes of a message: what its broker hears, what the log keeps, what its device is told."""

from __future__ import annotations

import json

import pytest

from device_protocol.errors import Reason
from device_protocol.numbers import Number
from device_protocol.topics import Kind
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, DEAD, UP, LogRefusedError, LogUnavailableError
from runtime.tasks import TaskOwner
from tests.ingest.world import DEVICE, Talker, World, until, world

AWAY = LogUnavailableError("away")


async def test_one_in_line_is_confirmed_and_accepted_after_its_append() -> None:
    async with world() as it:
        it.log.open.clear()
        talker = Talker()
        payload = talker.next(trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
        slip = it.offer(talker.topic(), payload)
        await until("asked", lambda: it.log.asked == 1)
        assert (slip.state, it.ears.heard) == ("", []), "nothing is said before the log has it"
        it.log.open.set()
        await it.settled(slip)
        await it.quiet()
        (entry,) = it.log.of(UP)
        assert entry.key == DEVICE.encode()
        assert entry.value == payload, "kept as it came"
        assert entry.headers == ((headers.TOPIC, talker.topic().encode()),), "its trace is in its envelope"
        ((topic, _),) = it.ears.heard
        assert topic == talker.topic(Kind.ACCEPTED)
        assert it.ears.accepted == [(1, 1)]


async def test_many_wait_for_one_append_and_hear_one_word() -> None:
    async with world(every_s=0.05) as it:
        it.log.open.clear()
        talker = Talker()
        slips = [it.offer(talker.topic(), talker.next()) for _ in range(500)]
        it.log.open.set()
        await it.settled(*slips)
        await until("all accepted", lambda: it.ears.accepted[-1:] == [(1, 500)])
        assert len(it.ears.accepted) <= 3
        assert it.log.appends <= 3, "what waited went together"
        assert [json.loads(value)["seq"] for value in it.stored()] == list(range(1, 501))


async def test_a_bad_body_stands_in_line_as_a_dead_letter() -> None:
    """1 bad among 1,000: the line goes on behind it."""
    async with world(bytes_max=8 << 20) as it:
        talker = Talker()
        slips = []
        for n in range(1, 1001):
            changes = {"payload": {"values": {"bad name!": 1}}} if n == 500 else {}
            slips.append(it.offer(talker.topic(), talker.next(**changes)))
        await it.settled(*slips)
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 1000)
        assert it.ears.refused == []
        dead = [entry for entry in it.log.of(UP) if headers.DEAD in dict(entry.headers)]
        assert len(it.log.of(UP)) == 1000
        assert [json.loads(entry.value)["seq"] for entry in dead] == [500]
        assert dict(dead[0].headers)[headers.DEAD] == Reason.BAD_SCHEMA.value.encode()
        assert it.metric('towline_ingest_dead_letters_total{reason="bad_schema"}') == 1


async def test_one_seen_before_is_confirmed_at_once_and_accepted_again() -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(*(it.offer(talker.topic(), talker.next()) for _ in range(3)))
        await it.quiet()
        it.log.open.clear()  # the log is not asked
        slip = it.offer(talker.topic(), talker.again(2))
        assert slip.state == "settled"
        await until("told again", lambda: it.ears.accepted[-2:] == [(1, 3), (1, 3)])
        assert len(it.log.of(UP)) == 3
        assert it.metric("towline_ingest_seen_total") == 1


async def test_one_seen_on_its_way_is_confirmed_with_the_first() -> None:
    async with world() as it:
        it.log.open.clear()
        talker = Talker()
        first = it.offer(talker.topic(), talker.next())
        second = it.offer(talker.topic(), talker.again(1))
        await until("asked", lambda: it.log.asked == 1)
        assert (first.state, second.state) == ("", "")
        it.log.open.set()
        await it.settled(first, second)
        await it.quiet()
        assert len(it.log.of(UP)) == 1
        assert it.ears.accepted == [(1, 1)]


async def test_one_out_of_line_is_left_and_nothing_else() -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(), talker.next()))
        await it.quiet()
        talker.seq = 2
        slip = it.offer(talker.topic(), talker.next())  # 3: 2 is missing
        assert slip.state == "left"
        await it.quiet()
        assert len(it.log.of(UP)) == 1
        assert it.ears.accepted == [(1, 1)]
        assert it.metric("towline_ingest_gaps_total") == 1
        await it.settled(it.offer(talker.topic(), talker.again(2)), it.offer(talker.topic(), talker.again(3)))
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 3)


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.ACK])
async def test_what_has_no_number_goes_to_the_control_topic(kind: Kind) -> None:
    async with world() as it:
        talker = Talker()
        payload = talker.hello()
        if kind is Kind.ACK:
            ack = {"command": json.loads(payload)["id"], "stage": "received", "at": None}
            payload = json.dumps(json.loads(payload) | {"type": "ack", "payload": ack}).encode()
        it.log.open.clear()
        slip = it.offer(talker.topic(kind), payload)
        await until("asked", lambda: it.log.asked == 1)
        assert slip.state == ""
        it.log.open.set()
        await it.settled(slip)
        await it.quiet()
        assert [entry.value for entry in it.log.of(CONTROL)] == [payload]
        assert it.ears.heard == []


async def test_what_cannot_be_read_goes_to_the_dead_topic_and_is_refused() -> None:
    async with world() as it:
        talker = Talker()
        it.log.open.clear()
        slip = it.offer(talker.topic(), b"\xff\xfe")
        await until("asked", lambda: it.log.asked == 1)
        assert (slip.state, it.ears.heard) == ("", [])
        it.log.open.set()
        await it.settled(slip)
        await it.quiet()
        (entry,) = it.log.of(DEAD)
        found = dict(entry.headers)
        assert (found[headers.TOPIC], found[headers.DEAD]) == (talker.topic().encode(), b"bad_utf8")
        assert (entry.key, entry.value) == (DEVICE.encode(), b"\xff\xfe")
        (refused,) = it.ears.refused
        assert (refused.reason, refused.id) == (Reason.BAD_UTF8, None)


async def test_a_refusal_names_the_message_where_that_can_be_read() -> None:
    async with world() as it:
        talker = Talker()
        payload = talker.next(boot="one")
        await it.settled(it.offer(talker.topic(), payload))
        await it.quiet()
        (refused,) = it.ears.refused
        assert (refused.reason, refused.id) == (Reason.BAD_SCHEMA, json.loads(payload)["id"])


async def test_a_device_hears_of_refusals_once_a_second() -> None:
    async with world() as it:
        other = Talker("d_bbbbbbbbbbbbbbbb")
        slips = [it.offer(Talker().topic(), b"{") for _ in range(50)]
        await it.settled(*slips, it.offer(other.topic(), b"{"))
        await it.quiet()
        assert len(it.log.of(DEAD)) == 51
        assert sorted(topic for topic, _ in it.ears.heard) == [
            Talker().topic(Kind.ACCEPTED),
            other.topic(Kind.ACCEPTED),
        ]


async def test_another_devices_topic_is_a_dead_letter_of_which_that_device_hears_nothing() -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(), talker.next(), device="d_bbbbbbbbbbbbbbbb"))
        await it.quiet()
        (entry,) = it.log.of(DEAD)
        assert dict(entry.headers)[headers.DEAD] == b"wrong_device"
        assert it.ears.heard == []
        assert it.stored() == []


@pytest.mark.parametrize("kind", [Kind.CMD, Kind.CONFIG, Kind.ACCEPTED])
async def test_a_kind_that_devices_are_told_is_a_dead_letter(kind: Kind) -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(kind), talker.next()))
        assert dict(it.log.of(DEAD)[0].headers)[headers.DEAD] == b"wrong_kind"


@pytest.mark.parametrize("lands", [False, True])
async def test_an_append_that_failed_is_tried_again_as_it_was(lands: bool) -> None:
    """Nobody knows whether it landed: it may be in the log twice, but nothing behind it is before it."""
    async with world() as it:
        it.log.fault, it.log.lands = AWAY, lands
        talker = Talker()
        slips = [it.offer(talker.topic(), talker.next()) for _ in range(5)]
        await until("tried twice", lambda: it.log.failures >= 2)
        slips += [it.offer(talker.topic(), talker.next()) for _ in range(5)]
        assert {slip.state for slip in slips} == {""}
        assert it.ears.heard == []
        it.log.fault = None
        await it.settled(*slips)
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 10)
        seqs = [json.loads(value)["seq"] for value in it.stored()]
        assert list(dict.fromkeys(seqs)) == list(range(1, 11)), "in the order of their first coming"
        assert (len(seqs) == 10) is not lands
        assert it.metric("towline_ingest_append_failed_total") >= 2


async def test_a_log_that_fails_for_too_long_loses_the_part_and_forgets_its_lines() -> None:
    async with world(append_s=0.3) as it:
        it.log.fault = AWAY
        talker = Talker()
        first = [it.offer(talker.topic(), talker.next()) for _ in range(3)]
        await until("under way", lambda: it.log.failures >= 1)
        behind = it.offer(talker.topic(), talker.next())
        twice = it.offer(talker.topic(), talker.again(2))
        await until("given up", lambda: all(slip.state for slip in [*first, behind, twice]))
        assert {slip.state for slip in [*first, behind, twice]} == {"lost"}
        assert (it.intake.budget.used, len(it.intake.lines)) == (0, 0)
        assert it.metric("towline_ingest_given_up_total") == 5
        it.log.fault = None
        out_of_line = it.offer(talker.topic(), talker.next())  # 5, and its floor is nothing
        assert out_of_line.state == "left"
        assert it.metric("towline_ingest_gaps_total") == 1, "what was given up is missing before it"
        await it.settled(*(it.offer(talker.topic(), talker.again(n)) for n in range(1, 6)))
        await it.quiet()
        assert [json.loads(value)["seq"] for value in it.stored()] == [1, 2, 3, 4, 5]
        assert it.ears.accepted[-1] == (1, 5)


async def test_a_log_that_does_not_answer_counts_as_one_that_fails() -> None:
    async with world(append_s=0.1) as it:
        it.log.open.clear()
        talker = Talker()
        slip = it.offer(talker.topic(), talker.next())
        await until("given up", lambda: slip.state == "lost")


async def test_an_append_that_the_log_refuses_is_not_tried_again() -> None:
    async with world() as it:
        it.log.fault = LogRefusedError("no such topic")
        talker = Talker()
        slip = it.offer(talker.topic(), talker.next())
        await until("given up", lambda: slip.state == "left")
        assert it.log.failures == 1
        assert it.intake.log_fails
        assert it.offer(talker.topic(), talker.again(1)).state == "left", "it rests"
        assert it.log.failures == 1


async def test_other_parts_go_on_beside_one_that_fails() -> None:
    async with world(append_s=0.2) as it:
        talkers = [Talker(f"d_{n:016d}") for n in range(40)]
        await it.settled(*(it.offer(t.topic(), t.next()) for t in talkers))
        it.log.fault = AWAY
        failing = talkers[0]
        lost = it.offer(failing.topic(), failing.next())
        await until("given up", lambda: lost.state == "lost")
        it.log.fault = None
        slips = {t.device: it.offer(t.topic(), t.next()) for t in talkers[1:]}
        await until("all told", lambda: all(slip.state for slip in slips.values()))
        gaps = it.metric("towline_ingest_gaps_total")
        assert 0 < gaps < 15, "only lines of that part were forgotten"
        assert [slip.state for slip in slips.values()].count("left") == gaps
        assert {slip.state for slip in slips.values()} == {"left", "settled"}


async def test_a_floor_above_the_line_is_believed() -> None:
    """Another bridge took them, and the device was told so."""
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(), talker.next()))
        talker.seq, talker.floor = 7, Number(1, 7)
        await it.settled(it.offer(talker.topic(), talker.next()))
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 8)
        assert it.offer(talker.topic(), talker.again(7)).state == "settled"
        assert it.metric("towline_ingest_seen_total") == 1


async def test_a_bridge_that_starts_begins_at_the_floor() -> None:
    async with world() as it:
        talker = Talker()
        talker.seq, talker.floor = 40, Number(1, 39)
        slip = it.offer(talker.topic(), talker.next())  # 41: what is 40 nobody here knows
        assert slip.state == "left"
        assert it.metric("towline_ingest_gaps_total") == 1
        await it.settled(
            it.offer(talker.topic(), talker.again(40)), it.offer(talker.topic(), talker.again(41))
        )
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 41)


async def test_the_start_waits_for_the_log() -> None:
    away = World()
    away.log.fault = AWAY
    tasks = TaskOwner("test")
    starting = tasks.start(away.intake.start(), "start")
    await until("asked", lambda: away.metric("towline_ingest_append_failed_total") >= 1)
    assert not away.intake.started
    away.log.fault = None
    await starting
    assert away.intake.started
    assert not away.intake.log_fails


async def test_an_outage_is_written_once_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ingest")
    async with world(append_s=0.1) as it:
        it.log.fault = AWAY
        talkers = [Talker(f"d_{n:016d}") for n in range(50)]
        for _ in range(3):
            slips = [it.offer(talker.topic(), talker.again(1)) for talker in talkers]
            await until("given up", lambda slips=slips: all(slip.state for slip in slips))  # type: ignore[misc]
        assert it.log.failures > 20
        it.log.fault = None
        await it.settled(*(it.offer(talker.topic(), talker.again(1)) for talker in talkers))
    assert [record.message for record in caplog.records] == [
        "the log does not take appends",
        "the log takes appends again",
    ]
    assert not any("values" in record.getMessage() for record in caplog.records)


async def test_at_the_end_what_was_taken_is_appended_and_nothing_more_is_taken() -> None:
    async with world(bytes_max=1 << 20) as it:
        it.log.open.clear()
        talker = Talker()
        slips = []
        while not it.pressure:
            slips.append(it.offer(talker.topic(), talker.next()))
        tasks = TaskOwner("test")
        draining = tasks.start(it.intake.drain(5.0), "drain")
        await until("asked", lambda: it.log.asked >= 1)
        it.log.open.set()
        await draining
        assert {slip.state for slip in slips} == {"settled"}
        assert len(it.stored()) == len(slips)
        assert it.pressure == [True], "nobody is asked to read on"
        late = it.offer(talker.topic(), talker.next())
        assert (late.state, it.intake.budget.used) == ("", 0)


async def test_a_log_that_is_away_does_not_hold_up_the_end() -> None:
    async with world() as it:
        it.log.open.clear()
        talker = Talker()
        slip = it.offer(talker.topic(), talker.next())
        await it.intake.drain(0.05)
        assert slip.state == "", "never confirmed"
