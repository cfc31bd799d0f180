"""The vectors, broken at random: whatever comes, a message is taken whole or refused, and could be stored."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

import pytest

from device_protocol import bodies
from device_protocol.bodies import Command, Desired, parse_accepted
from device_protocol.envelope import decode, encode
from device_protocol.errors import BadMessageError
from device_protocol.topics import UP, Kind

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "device-v1.json").read_text("utf-8")
)
RUNS: Final = 20_000
LONGEST: Final = 2_000
"""Of a seed: the few long vectors would take most of the time."""
PIECES: Final = (
    *(b"null", b"true", b"-1", b"0", b"1e400", b"1e308", b"9007199254740992", b"NaN", b'""', b"[]", b"{}"),
    *(b'"\\u0000"', b'"\\ud800"', b"\xff", b"\xed\xa0\x80", b'"v":1,', b'"seq":42,', b',"prev":[7,41]'),
    *(b"[1,2]", b"[[[[[[[[[["),
    *(b"\\", b'"', b"{", b"}", b",", b":", b"\xef\xbb\xbf", b"\0", b" ", b"0", b"9" * 400),
)  # fmt: skip


def seeds(which: tuple[str, ...]) -> list[tuple[Kind, bytes]]:
    found = [(Kind(case["kind"]), bytes.fromhex(case["hex"])) for name in which for case in VECTORS[name]]
    return [(kind, raw) for kind, raw in found if len(raw) <= LONGEST]


def broken(raw: bytes, others: list[tuple[Kind, bytes]], chance: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at:at] = chance.choice(PIECES)
            case 2:
                data[at : at + chance.randint(1, 12)] = chance.choice(PIECES)
            case 3:
                data[at : at + chance.randint(1, 30)] = b""
            case _:
                other = chance.choice(others)[1]
                data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)


@pytest.mark.parametrize("lives", range(2))
def test_what_devices_say(lives: int, seed: int) -> None:
    chance = random.Random(f"{seed} up {lives}")
    known = [one for one in [*seeds(("good",)) * 4, *seeds(("bad",))] if one[0] in UP]
    taken = refused = 0
    for _ in range(RUNS):
        kind, raw = chance.choice(known)
        data = broken(raw, known, chance)
        try:
            message = decode(kind, data)
        except BadMessageError as error:
            refused += 1
            standing = error.standing
            if standing is not None:
                assert standing.before < standing.number
                assert standing.floor < standing.number
            continue
        taken += 1
        json.dumps(message.payload, allow_nan=False, ensure_ascii=False).encode("utf-8")
        assert decode(kind, encode(message)) == message
    assert taken > RUNS // 100
    assert refused > RUNS // 2


def test_what_devices_are_told(seed: int) -> None:
    chance = random.Random(f"{seed} down")
    known = seeds(("told",))
    readers = {Kind.ACCEPTED: parse_accepted, Kind.CMD: Command.parse, Kind.CONFIG: Desired.parse}
    taken = 0
    for _ in range(RUNS):
        kind, raw = chance.choice(known)
        read = readers[kind]
        try:
            message = read(broken(raw, known, chance))
        except BadMessageError:
            continue
        taken += 1
        assert isinstance(message, bodies.Refused) or read(message.dump()) == message
    assert taken > RUNS // 100
