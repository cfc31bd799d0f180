"""The devices of the message figures say what agents say: readers take it, windows are kept."""

from __future__ import annotations

import pytest

from device_protocol.bodies import Accepted
from device_protocol.envelope import Envelope, decode
from device_protocol.ids import UUID7
from device_protocol.numbers import Line, Number, Place
from device_protocol.topics import Kind, parse_topic
from loadtests.messages.wire import WINDOW, Broken, Device

PREFIX = "o_aaaaaaaaaaaaaaaa/s_bbbbbbbbbbbbbbbb/linux/d_cccccccccccccccc"
CONNACK, SUBACK, PUBACK = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\x40\x02\x00\x01"
NOW_US = 1_795_000_000_000_000


def packet(first: int, body: bytes) -> bytes:
    length = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 127 | 128, len(body) >> 7))
    return bytes((first,)) + length + body


def accepted(seq: int, payload: bytes | None = None) -> bytes:
    topic = f"{PREFIX}/accepted".encode()
    body = len(topic).to_bytes(2, "big") + topic + (payload or Accepted(Number(1, seq)).dump())
    return packet(0x30, body)


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Each one's first byte and body."""
    found, at = [], 0
    while at < len(data):
        length, shift, body = 0, 0, at + 1
        while True:
            length |= (data[body] & 127) << shift
            shift, body = shift + 7, body + 1
            if data[body - 1] < 128:
                break
        found.append((data[at], data[body : body + length]))
        at = body + length
    return found


def said(data: bytes) -> list[Envelope]:
    """As a bridge reads it."""
    envelopes = []
    for first, body in packets(data):
        assert first == 0x32  # PUBLISH at QoS 1
        size = int.from_bytes(body[:2], "big")
        topic = parse_topic(body[2 : 2 + size].decode())
        assert (topic.prefix, topic.kind) == (PREFIX, Kind.TELEMETRY)
        assert body[2 + size : 4 + size] != b"\0\0"  # a packet id is not 0
        envelopes.append(decode(topic.kind, body[4 + size :]))
    return envelopes


def ready(number: int = 1) -> Device:
    device = Device("d_cccccccccccccccc", PREFIX, number=number)
    device.connect()
    assert packets(device.receive(CONNACK, NOW_US))[0][0] == 0x82  # SUBSCRIBE
    device.receive(SUBACK, NOW_US)
    assert device.ready
    return device


def test_what_it_says_is_taken_in_line() -> None:
    device, line = ready(), Line()
    for round_ in range(3):
        for _ in range(WINDOW):
            device.make(NOW_US + round_)
        for envelope in said(device.due()):
            standing = envelope.standing
            assert standing is not None
            assert line.offer(standing.number, standing.before, standing.floor).place is Place.TAKE
            assert UUID7.fullmatch(envelope.id)
        device.receive(accepted(device.made), NOW_US + 500)
        assert device.waiting == 0
    assert line.have == Number(1, 3 * WINDOW)
    assert len(device.accept_us) == 3 * WINDOW


def test_no_two_messages_have_one_id() -> None:
    devices = [ready(1), ready(2)]
    ids = set()
    for device in devices:
        for _ in range(10):
            for _ in range(WINDOW):
                device.make(NOW_US)
            ids |= {envelope.id for envelope in said(device.due())}
            device.receive(accepted(device.made), NOW_US)
    assert len(ids) == 2 * 10 * WINDOW


def test_the_window_is_kept_and_again_is_from_the_floor() -> None:
    device = ready()
    for _ in range(WINDOW + 10):
        device.make(NOW_US)
    first = said(device.due())
    assert [one.number.seq for one in first] == list(range(1, WINDOW + 1))
    assert device.due() == b""
    device.receive(accepted(3), NOW_US)
    assert [one.number.seq for one in said(device.due())] == [WINDOW + 1, WINDOW + 2, WINDOW + 3]
    device.again()
    repeated = said(device.due())
    assert [one.number.seq for one in repeated] == list(range(4, WINDOW + 4))
    assert repeated[0].id == first[3].id
    assert device.resent == WINDOW


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    device = ready()
    for _ in range(5):
        device.make(NOW_US)
    device.due()
    stream = PUBACK + accepted(1) + PUBACK * 3 + accepted(4) + PUBACK
    for at in range(0, len(stream), size):
        device.receive(stream[at : at + size], NOW_US)
    assert device.floor == 4
    assert device.waiting == 1


def test_a_broker_that_refuses_ends_the_run() -> None:
    device = Device("d_cccccccccccccccc", PREFIX, "secret")
    assert b"secret" in device.connect()
    with pytest.raises(Broken, match="code 5"):
        device.receive(b"\x20\x02\x00\x05", NOW_US)
    with pytest.raises(Broken, match="does not let it hear"):
        ready().receive(b"\x90\x03\x00\x01\x80", NOW_US)
    with pytest.raises(Broken, match="was told"):
        ready().receive(accepted(1, b'{"v":1,"refused":"bad_schema","id":null}'), NOW_US)
