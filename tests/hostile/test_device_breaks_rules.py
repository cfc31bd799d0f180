"""A device that breaks one rule: its tunnel ends with the code that the page names, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.raw_tunnel import (
    CHALLENGE,
    CREDIT,
    DATA,
    FIN,
    GOAWAY,
    GRANT,
    HELLO,
    MAX_MESSAGE,
    OPEN,
    OPENED,
    PING,
    PONG,
    REFUSED,
    RESET,
    REVOKE,
    TEXT,
    U32_MAX,
    RawTunnel,
    credit,
    field,
    frame,
    goaway,
    hello,
    number,
    open_frame,
    websocket_frame,
)
from tests.hostile.scene import HOSTILE, Bounds, Scene

PROTOCOL_ERROR, FLOW_CONTROL, OVERFLOW = 1, 7, 8
VECTORS = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "bad_frames.json"
# A tunnel's read buffer (256 KiB, twice while it grows), its two windows, and what the allocator keeps.
GROWTH_MB = 6.0
LINES = 12  # open and close of each tunnel, of a refused stream; never a line a frame
OWN = 2**29  # ids that this tunnel never comes to

GRANT_ID = bytes(16)
ONE_MESSAGE: dict[str, tuple[bytes, int]] = {
    "empty message": (b"", PROTOCOL_ERROR),
    "half a header": (bytes(7), PROTOCOL_ERROR),
    "type 0": (frame(0), PROTOCOL_ERROR),
    "type 255": (frame(255), PROTOCOL_ERROR),
    "flags": (frame(PING, bytes(8), flags=1), PROTOCOL_ERROR),
    "longer than its message": (frame(PING, bytes(8), length=9), PROTOCOL_ERROR),
    "shorter than its message": (frame(PING, bytes(8), length=7), PROTOCOL_ERROR),
    "length 65,535 of nothing": (frame(DATA, b"", 1, length=65_535), PROTOCOL_ERROR),
    "a good frame and a bad one": (frame(PONG, bytes(8)) + frame(0), PROTOCOL_ERROR),
    "HELLO twice": (hello(), PROTOCOL_ERROR),
    "CHALLENGE to a server": (frame(CHALLENGE, bytes(40)), PROTOCOL_ERROR),
    "GRANT from a device": (frame(GRANT, GRANT_ID + b"a.b.c"), PROTOCOL_ERROR),
    "REVOKE from a device": (frame(REVOKE, GRANT_ID), PROTOCOL_ERROR),
    "OPEN with an odd id": (open_frame(3), PROTOCOL_ERROR),
    "OPEN with id 2^30": (open_frame(2**30), PROTOCOL_ERROR),
    "OPEN backwards": (open_frame(4) + open_frame(2), PROTOCOL_ERROR),
    "OPEN twice": (open_frame(2) + open_frame(2), PROTOCOL_ERROR),
    "OPEN of an address": (open_frame(2, service=b"127.0.0.1:22"), PROTOCOL_ERROR),
    "OPEN on stream 0": (open_frame(0), PROTOCOL_ERROR),
    "OPENED for what was not opened": (frame(OPENED, b"", OWN + 1), PROTOCOL_ERROR),
    "REFUSED for what was not opened": (frame(REFUSED, bytes(2), OWN + 1), PROTOCOL_ERROR),
    "DATA for what was not opened": (frame(DATA, b"x", OWN + 1), PROTOCOL_ERROR),
    "FIN for what was not opened": (frame(FIN, b"", OWN + 1), PROTOCOL_ERROR),
    "RESET for what was not opened": (frame(RESET, bytes(2), OWN + 1), PROTOCOL_ERROR),
    "CREDIT for what was not opened": (credit(OWN + 1, 1), PROTOCOL_ERROR),
    "DATA on an own id that was not opened": (frame(DATA, b"x", OWN), PROTOCOL_ERROR),
    "DATA on stream 0": (frame(DATA, b"x"), PROTOCOL_ERROR),
    "DATA of nothing": (frame(DATA, b"", 1), PROTOCOL_ERROR),
    "CREDIT of 7 bytes": (frame(CREDIT, bytes(7)), PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, bytes(8), 1), PROTOCOL_ERROR),
    "GOAWAY with a reason of 257 bytes": (goaway(reason=b"x" * 257), PROTOCOL_ERROR),
    "GOAWAY with a reason that is no UTF-8": (goaway(reason=b"\xff"), PROTOCOL_ERROR),
    "a message full of PINGs": (frame(PING, bytes(8)) * (MAX_MESSAGE // 16), OVERFLOW),
    "a message full of OPENs": (
        b"".join(open_frame(n, b"d", b"w") for n in range(2, 16_000, 2)),
        OVERFLOW,
    ),
    "a message full of FINs for nobody": (frame(FIN, b"", OWN + 1) * (MAX_MESSAGE // 8), PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_MESSAGE)
async def test_a_message_against_the_rules_ends_its_tunnel_alone(scene: Scene, name: str) -> None:
    message, code = ONE_MESSAGE[name]
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    await tunnel.send(message)
    await tunnel.until_ended()
    assert (tunnel.goaway_code, tunnel.status) == (code, 4000 + code)
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


STREAM = 1  # the first that the node opens on a fresh tunnel
ON_A_STREAM: dict[str, tuple[list[bytes], int]] = {
    "OPENED twice": ([frame(OPENED, b"", STREAM), frame(OPENED, b"", STREAM)], PROTOCOL_ERROR),
    "REFUSED after OPENED": ([frame(OPENED, b"", STREAM), frame(REFUSED, bytes(2), STREAM)], PROTOCOL_ERROR),
    "DATA before OPENED": ([frame(DATA, b"x", STREAM)], PROTOCOL_ERROR),
    "FIN before OPENED": ([frame(FIN, b"", STREAM)], PROTOCOL_ERROR),
    "FIN twice": ([frame(OPENED, b"", STREAM), frame(FIN, b"", STREAM) * 2], PROTOCOL_ERROR),
    "DATA after FIN": (
        [frame(OPENED, b"", STREAM) + frame(FIN, b"", STREAM) + frame(DATA, b"x", STREAM)],
        PROTOCOL_ERROR,
    ),
    "OPEN with the node's id": ([open_frame(STREAM)], PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", ON_A_STREAM)
async def test_a_stream_against_the_rules_ends_its_tunnel_alone(scene: Scene, name: str) -> None:
    messages, code = ON_A_STREAM[name]
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    await scene.visit()
    assert (await tunnel.until_heard(OPEN))[0][0] == STREAM
    for message in messages:
        await tunnel.send(message)
    await tunnel.until_ended()
    assert (tunnel.goaway_code, tunnel.status) == (code, 4000 + code)
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_more_data_than_the_streams_credit_is_flow_control(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    await scene.visit(slowly=True)
    await tunnel.until_heard(OPEN)
    await tunnel.send(frame(OPENED, b"", STREAM))
    await tunnel.send(b"".join(frame(DATA, bytes(60_000), STREAM) for _ in range(2)))
    await tunnel.until_ended()
    assert tunnel.goaway_code == FLOW_CONTROL
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


NONSENSE_HELLO: dict[str, bytes] = {
    "max_frame 0": hello(number(1, 0)),
    "max_frame 255": hello(number(1, 255)),
    "max_frame 65,536": hello(number(1, 65_536)),
    "max_frame of three bytes": hello(field(1, bytes(3))),
    "max_message 0": hello(number(2, 0)),
    "max_message 2,047": hello(number(2, 2_047)),
    "stream_window 0": hello(number(3, 0)),
    "connection_window 0": hello(number(4, 0)),
    "keepalive 0": hello(number(6, 0)),
    "keepalive 2^32-1": hello(number(6, U32_MAX)),
    "max_frame twice": hello(number(1, 4_096), number(1, 4_096)),
    "features of 1,025 bytes": hello(field(7, b"x" * 1_025)),
    "software of 129 bytes": hello(field(8, b"x" * 129)),
    "software that is no UTF-8": hello(field(8, b"\xff\xfe")),
    "65 services": hello(*(field(9, b"s%d" % n) for n in range(65))),
    "a service of 513 bytes": hello(field(9, b"web;x=" + b"x" * 507)),
    "a service twice": hello(field(9, b"web"), field(9, b"web")),
    "a service with a header in its upstream": hello(field(9, b"web;upstream=a\r\nX: y")),
    "1,025 children": hello(*(field(11, b"c%d" % n) for n in range(1_025))),
    "a child of capitals": hello(field(11, b"CHILD")),
    "a key list": hello(field(10, b"a.b.c")),
    "a field cut short": frame(HELLO, b"\x01\x00\x04\x00"),
    "16,385 bytes": frame(HELLO, field(99, bytes(16_382))),
}


@pytest.mark.parametrize("name", NONSENSE_HELLO)
async def test_a_hello_of_nonsense_is_a_protocol_error(scene: Scene, name: str) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.connect()
    await tunnel.say_hello(scene.key, HOSTILE, hello_frame=NONSENSE_HELLO[name])
    await tunnel.until_ended()
    assert tunnel.goaway_code == PROTOCOL_ERROR
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


ODD_WEBSOCKETS: dict[str, tuple[bytes, set[int]]] = {
    # What RFC 6455 itself forbids may be closed with its own codes before the tunnel is asked.
    "a text message": (websocket_frame(b"hello", TEXT), {4001}),
    "a fragment": (websocket_frame(frame(PONG, bytes(8)), fin=False), {4001}),
    "a continuation of nothing": (websocket_frame(b"x", 0), {4001, 1002}),
    "a compressed message": (websocket_frame(frame(PONG, bytes(8)), rsv=4), {4001, 1002}),
    "RSV2 and RSV3": (websocket_frame(frame(PONG, bytes(8)), rsv=3), {4001, 1002}),
    "an unknown opcode": (websocket_frame(b"x", 0x3), {4001, 1002}),
    "a message over the limit": (websocket_frame(bytes(MAX_MESSAGE + 1)), {4001, 1009}),
    "a length of 2^63 - 1": (websocket_frame(b"", claimed=2**63 - 1), {4001, 1009}),
    "a length of 2^64 - 1": (websocket_frame(b"", claimed=2**64 - 1), {4001, 1002, 1009}),
    "65 WebSocket pings": (websocket_frame(b"", 0x9) * 65, {4001}),
    "a ping of 126 bytes": (websocket_frame(bytes(126), 0x9), {4001, 1002}),
    "no mask": (b"\x82\x10" + frame(PONG, bytes(8)), {4001, 1002}),
}


@pytest.mark.parametrize("name", ODD_WEBSOCKETS)
async def test_what_is_no_tunnel_message_closes_the_websocket(scene: Scene, name: str) -> None:
    data, statuses = ODD_WEBSOCKETS[name]
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    await tunnel.send_raw(data)
    await tunnel.until_ended()
    assert tunnel.status in statuses
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


def server_vectors() -> list[dict[str, Any]]:
    cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
    return [case for case in cases if case["side"] == "server"]


async def taken_to(scene: Scene, state: str) -> tuple[RawTunnel, bytes]:
    """The tunnel, and what must stand right before the next message."""
    if state == "open":
        return await scene.tunnel(), b""
    tunnel = await scene.connect()
    _, challenge = (await tunnel.until_heard(CHALLENGE))[0]
    auth = scene.auth(challenge)
    if state == "awaiting_hello":
        await tunnel.send(auth)
        await tunnel.until_heard(HELLO)
    # One write carries both: the node is still verifying when it reads the second message.
    return tunnel, websocket_frame(auth) if state == "verifying" else b""


@pytest.mark.parametrize("case", server_vectors(), ids=lambda case: case["name"])
async def test_the_bad_frames_of_the_vectors_live(scene: Scene, case: dict[str, Any]) -> None:
    assert not case["before"]
    tunnel, before = await taken_to(scene, case["state"])
    await tunnel.send_raw(before + websocket_frame(bytes.fromhex(case["hex"])))
    await tunnel.until_ended()
    assert tunnel.goaway_code == case["close_code"]
    assert tunnel.status == 4000 + case["close_code"]
    assert GOAWAY in [kind for kind, _, _ in tunnel.heard]
