"""Everything bad that devices may send: each message finds its place, and nothing stays behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from device_protocol.topics import Kind
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, DEAD, UP
from tests.ingest.world import Talker, new_id, world


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def with_payload(text: str) -> bytes:
    """A numbered message whose payload is this text, whatever it is."""
    return b"".join(
        (
            b'{"id":"' + new_id().encode() + b'","v":1,"type":"state","ts":1,"up":1,"boot":1,"seq":1,',
            b'"floor":[0,0],"prev":[0,0],"payload":' + text.encode("utf-8", "surrogatepass") + b"}",
        )
    )


# Name, payload, reason. What cannot be read has no number either: devices send it again, then give it up.
UNREADABLE: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "bad_json"),
    ("no UTF-8", b'{"id":"\xff"}', "bad_utf8"),
    ("UTF-16", '{"v":1}'.encode("utf-16"), "bad_utf8"),
    ("no JSON", b"hello?", "bad_json"),
    ("two values", with_payload("{}") + b"{}", "bad_json"),
    ("NaN", with_payload('{"t":NaN}'), "bad_json"),
    ("Infinity", with_payload('{"t":-Infinity}'), "bad_json"),
    ("1e400", with_payload('{"t":1e400}'), "bad_json"),
    ("a long integer", with_payload('{"t":' + "9" * 5000 + "}"), "bad_json"),
    ("NUL in text", with_payload('{"t":"\\u0000"}'), "bad_json"),
    ("NUL byte", with_payload('{"t":"\x00"}'), "bad_json"),
    ("half a surrogate", with_payload('{"t":"\\ud800"}'), "bad_json"),
    ("a member twice", with_payload('{"t":1,"t":2}'), "bad_json"),
    ("the number twice", with_payload("{}").replace(b'"seq":1', b'"seq":1,"seq":2'), "bad_json"),
    ("deep", with_payload(deep(100)), "too_deep"),
    ("very deep", with_payload(deep(10_000)), "too_deep"),
    ("huge", with_payload('{"t":"' + "x" * 40_000 + '"}'), "too_large"),
    ("a list", b"[1,2,3]", "bad_schema"),
]
NUMBERS: list[tuple[str, dict[str, Any]]] = [
    ("no boot", {"boot": None}),
    ("boot 0", {"boot": 0}),
    ("a negative seq", {"seq": -1}),
    ("a seq that floats", {"seq": 1.0}),
    ("a seq that is true", {"seq": True}),
    ("a seq beyond 2^53", {"seq": 2**53}),
    ("a floor above", {"floor": [9, 9]}),
    ("no floor", {"floor": None}),
    ("a floor of three", {"floor": [0, 0, 0]}),
    ("prev of itself", {"prev": [1, 1]}),
]
# Their number can be read: they stand in line, so that the device's next message is taken.
IN_LINE: list[tuple[str, dict[str, Any], str]] = [
    ("another version", {"v": 2}, "wrong_version"),
    ("a version of text", {"v": "1"}, "wrong_version"),
    ("no id", {"id": None}, "bad_schema"),
    ("an id of another kind", {"id": "5f0c9f3e-0000-4000-8000-000000000000"}, "bad_schema"),
    ("no type", {"type": 7}, "bad_schema"),
    ("a time of text", {"ts": "now"}, "bad_schema"),
    ("no payload", {"payload": None}, "bad_schema"),
    ("a payload of its own", {"payload": {"values": {"a b": 1}}}, "bad_schema"),
    ("large", {"payload": {"values": {"t": "x" * 26_000}}}, "too_large"),
]


@pytest.mark.parametrize(
    ("payload", "reason"), [case[1:] for case in UNREADABLE], ids=[c[0] for c in UNREADABLE]
)
async def test_what_cannot_be_read_is_a_dead_letter(payload: bytes, reason: str) -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(Kind.STATE), payload), it.offer(talker.topic(), talker.next()))
        await it.quiet()
        (entry,) = it.log.of(DEAD)
        assert dict(entry.headers)[headers.DEAD] == reason.encode()
        assert entry.value == payload
        assert [refused.reason.value for refused in it.ears.refused] == [reason]
        assert it.ears.accepted == [(1, 1)], "what follows is taken"
        assert len(it.log.of(UP)) == 1, "no row of the bad one"


@pytest.mark.parametrize("changes", [case[1] for case in NUMBERS], ids=[case[0] for case in NUMBERS])
async def test_a_number_that_is_none_is_a_dead_letter(changes: dict[str, Any]) -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(it.offer(talker.topic(), talker.next(**changes)))
        await it.quiet()
        assert dict(it.log.of(DEAD)[0].headers)[headers.DEAD] == b"bad_schema"
        assert it.stored() == []
        assert it.ears.refused[0].id is not None


@pytest.mark.parametrize(
    ("changes", "reason"), [case[1:] for case in IN_LINE], ids=[case[0] for case in IN_LINE]
)
async def test_what_is_bad_but_numbered_does_not_end_the_line(changes: dict[str, Any], reason: str) -> None:
    async with world() as it:
        talker = Talker()
        await it.settled(
            it.offer(talker.topic(), talker.next(**changes)), it.offer(talker.topic(), talker.next())
        )
        await it.quiet()
        assert it.ears.accepted[-1] == (1, 2)
        assert it.ears.refused == []
        assert [dict(entry.headers).get(headers.DEAD) for entry in it.log.of(UP)] == [reason.encode(), None]
        assert it.log.of(DEAD) == []


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "telemetry",
        "o_one/s_one/linux/d_aaaaaaaaaaaaaaaa",
        "o_one/s_one/linux/d_aaaaaaaaaaaaaaaa/telemetry/more",
        "o_one/s_one/linux/d_aaaaaaaaaaaaaaaa/nonsense",
        "o_one//linux/d_aaaaaaaaaaaaaaaa/telemetry",
        "o_one/s_one/linux/D_A/telemetry",
        "o_one/s_one/linux/d_ä/telemetry",
        "o_one/s_one/linux/d_\x00/telemetry",
        "o_one/s_one/linux/d_\udcff/telemetry",
        "o_one.s_one.linux.d_a.telemetry",
        "$SYS/broker/version",
        "a" * 5000,
    ],
)
async def test_what_is_no_topic_is_a_dead_letter_that_nobody_hears_of(topic: str) -> None:
    async with world() as it:
        await it.settled(it.offer(topic, Talker().next()))
        await it.quiet()
        (entry,) = it.log.of(DEAD)
        assert dict(entry.headers)[headers.DEAD] == b"bad_topic"
        shown = dict(entry.headers)[headers.TOPIC].decode("ascii")
        assert "\x00" not in shown
        assert len(shown) < 400
        assert it.ears.heard == []
        assert it.metric('towline_ingest_messages_total{kind="none"') == 1


async def test_a_replayed_capture_changes_nothing() -> None:
    """The device's own messages once more, from the first to the last, then in any order."""
    async with world() as it:
        talker = Talker()
        capture = [talker.next() for _ in range(30)]
        await it.settled(*(it.offer(talker.topic(), raw) for raw in capture))
        await it.quiet()
        for again in (capture, capture[::-1], capture[::3]):
            await it.settled(*(it.offer(talker.topic(), raw) for raw in again))
        await it.quiet()
        assert it.stored() == capture, "no row more"
        assert it.log.of(DEAD) == it.log.of(CONTROL) == []
        assert it.metric("towline_ingest_seen_total") == 70


async def test_times_are_the_consumers_to_judge() -> None:
    """What is too far from now is known where the retention is; here it must only keep its place."""
    async with world() as it:
        talker = Talker()
        await it.settled(
            it.offer(talker.topic(), talker.next(ts=0)),
            it.offer(talker.topic(), talker.next(ts=2**53 - 1)),
            it.offer(talker.topic(), talker.next()),
        )
        await it.quiet()
        assert [json.loads(value)["ts"] for value in it.stored()][:2] == [0, 2**53 - 1]
        assert it.ears.accepted[-1] == (1, 3)
