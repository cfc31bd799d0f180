"""The vectors in docs/protocol/vectors/device-v1.json: the same file that firmware's tests read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from device_protocol import bodies
from device_protocol.bodies import (
    Accepted,
    Ack,
    Command,
    Desired,
    Gone,
    Hello,
    HelloAnswer,
    OutboxReport,
    Refused,
    Reported,
    Stage,
    parse_accepted,
)
from device_protocol.envelope import decode, decode_stored, encode, renumbered, sent
from device_protocol.errors import BadMessageError, BadTopicError, Reason, Standing
from device_protocol.numbers import Line, Number, Place
from device_protocol.topics import NUMBERED, Kind, parse_subject, parse_topic
from tests.device_protocol.model import boot_after

FILE = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "device-v1.json"
VECTORS: dict[str, list[dict[str, Any]]] = {
    name: cases for name, cases in json.loads(FILE.read_text("utf-8")).items() if name != "about"
}


def named(which: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[which], ids=lambda case: case["name"])


def number(pair: list[int] | None) -> Number | None:
    return None if pair is None else Number(*pair)


def some(pair: list[int]) -> Number:
    return Number(*pair)


@pytest.mark.parametrize("case", VECTORS["topics"], ids=lambda case: repr(case["text"][:40]))
def test_topics(case: dict[str, Any]) -> None:
    if case["tokens"] is None:
        with pytest.raises(BadTopicError):
            parse_topic(case["text"])
        with pytest.raises(BadTopicError):
            parse_subject(case["text"].replace(".", "\0").replace("/", "."))
        return
    topic = parse_topic(case["text"])
    assert [topic.org, topic.site, topic.type, topic.device, topic.kind] == case["tokens"]
    assert (str(topic), topic.subject) == (case["text"], case["subject"])
    assert parse_subject(case["subject"]) == topic


@named("good")
def test_good_messages(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["hex"])
    message = decode(Kind(case["kind"]), raw)
    assert (message.id, message.type, message.ts, message.up, message.trace) == (
        case["id"],
        case["type"],
        case["ts"],
        case["up"],
        case["trace"],
    )
    assert message.number == number(case["number"])
    assert message.payload == case["payload"]
    standing = message.standing
    if case["floor"] is None:
        assert standing is None
    else:
        assert standing == Standing(some(case["number"]), some(case["before"]), some(case["floor"]))
    assert decode(message.kind, encode(message)) == message


@named("sending")
def test_what_is_added_when_an_entry_is_sent(case: dict[str, Any]) -> None:
    stored = bytes.fromhex(case["stored"])
    entry = decode_stored(Kind.STATE, stored)
    assert encode(entry) == stored
    whole = sent(stored, floor=some(case["floor"]), prev=number(case["prev"]))
    assert whole.hex() == case["sent"]
    assert decode(Kind.STATE, whole).payload == entry.payload
    anew = decode_stored(Kind.STATE, renumbered(Kind.STATE, stored, Number(99, 1)))
    assert (anew.number, anew.id, anew.payload) == (Number(99, 1), entry.id, entry.payload)


@named("bad")
def test_bad_messages_have_their_reason(case: dict[str, Any]) -> None:
    with pytest.raises(BadMessageError) as refused:
        decode(Kind(case["kind"]), bytes.fromhex(case["hex"]))
    error = refused.value
    assert error.reason == Reason(case["reason"])
    assert (None if error.standing is None else error.standing.number) == number(case["number"])
    assert str(error).isascii()
    assert str(error).isprintable()  # what a device says goes into no log by this way


def heard(kind: str, raw: bytes) -> tuple[str, dict[str, Any]]:
    """What a device makes of what it is told, as the vectors write it."""
    message: object
    match kind:
        case "cmd":
            message = Command.parse(raw)
        case "config":
            message = Desired.parse(raw)
        case _:
            message = parse_accepted(raw)
    match message:
        case Command():
            return "command", asdict(message)
        case Desired():
            return "desired", asdict(message)
        case Accepted():
            return "accepted", {"number": list(message.number)}
        case HelloAnswer():
            return "answer", {**asdict(message), "known": list(message.known)}
        case Refused():
            return "refused", asdict(message)
    raise AssertionError(message)


@named("told")
def test_what_a_device_is_told(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["hex"])
    if case["what"] is None:
        with pytest.raises(BadMessageError):
            heard(case["kind"], raw)
    else:
        assert heard(case["kind"], raw) == (case["what"], case["fields"])


def body_of(case: dict[str, Any]) -> Hello | Gone | Ack | Reported:
    fields = dict(case["fields"])
    if case["kind"] == "ack":
        return Ack(**{**fields, "stage": Stage(fields["stage"])})
    if case["kind"] == "state":
        return Reported(**fields)
    if "gone" in fields:
        return Gone(fields["gone"])
    outbox = fields.pop("outbox")
    return Hello(
        **{**fields, "commands": tuple(fields["commands"])},
        outbox=None if outbox is None else OutboxReport(*outbox),
    )


@named("bodies")
def test_bodies_are_written_and_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    made = body_of(case)
    raw = bytes.fromhex(case["hex"])
    assert json.dumps(made.dump(), separators=(",", ":")).encode() == raw
    body = json.loads(raw)
    match made:
        case Ack():
            assert Ack.parse(body) == made
        case Reported():
            assert Reported.parse(body) == made
        case _:
            assert Hello.parse(body) == made


@pytest.mark.parametrize(
    "message",
    [
        Accepted(Number(7, 42)),
        HelloAnswer(7, Number(6, 99), 1_763_000_000_000, "o/s/t/d"),
        Refused(Reason.NO_SPACE, None),
        Command("019a7afd-1e00-7001-8203-040506070809", "ping", {"x": 1}, 5, 6, 7),
        Desired(4, {"a": 1}, "ab" * 32),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_told_is_heard(message: Accepted | HelloAnswer | Refused | Command | Desired) -> None:
    raw = message.dump()
    match message:
        case Command():
            assert Command.parse(raw) == message
        case Desired():
            assert Desired.parse(raw) == message
        case _:
            assert parse_accepted(raw) == message


@named("lines")
def test_lines(case: dict[str, Any]) -> None:
    line = Line(some(case["have"]))
    for at, step in enumerate(case["steps"]):
        offer = line.offer(some(step["number"]), some(step["before"]), some(step["floor"]))
        assert (offer.place, offer.passed) == (Place(step["place"]), step["passed"]), at
        assert line.have == some(step["have"]), at


@named("counters")
def test_counters_that_went_back(case: dict[str, Any]) -> None:
    boot = boot_after(some(case["told"]), some(case["highest"]))
    assert (boot is not None, boot) == (case["went_back"], case["next_boot"])


def test_the_vectors_cover_the_protocol() -> None:
    """Every kind is read, every reason that a message alone can have is shown, each outcome of a line too."""
    assert {case["kind"] for case in VECTORS["good"]} == {
        kind.value for kind in NUMBERED | {Kind.HELLO, Kind.ACK}
    }
    assert {case["reason"] for case in VECTORS["bad"]} == {
        *("bad_utf8", "bad_json", "too_deep", "too_large", "bad_schema", "wrong_version", "wrong_kind")
    }
    assert {step["place"] for case in VECTORS["lines"] for step in case["steps"]} == {p.value for p in Place}
    assert {case["what"] for case in VECTORS["told"]} == {
        *("accepted", "answer", "refused", "command", "desired", None)
    }
    assert bodies.CONFIG_TYPE in {case["type"] for case in VECTORS["good"]}
