"""The TCP door: a session's Bearer and nothing else opens it, and bytes, ends and refusals come through."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from runtime.tcp_door import PATH, SUBPROTOCOL, DoorClose
from runtime.websocket_frames import (
    MAX_FRAME,
    FrameEvent,
    FrameReader,
    Opcode,
    Payload,
    Pong,
    close_frame,
    frame,
    frame_head,
)
from tests.tunnel_server.conftest import LABEL, WAIT_S, Limits, Stage, Visitor, running, settings
from tests.tunnel_server.doubles import Script, Upstream, make_session
from tunnel_protocol import RefusedCode, ResetCode, Service
from tunnel_server.edge.tcp_splice import HOLLOW_BURST
from tunnel_server.settings import VisitorLimits

SERVICES = (Service("web", upstream="127.0.0.1:80"), Service("ssh", kind="tcp"))
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x11\x22\x33\x44"


async def shout(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets as sshd does, echoes in capitals, and answers the end with its own."""
    writer.write(b"hello\n")
    while data := await reader.read(65_536):
        upstream.received += data
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"bye\n")
    writer.write_eof()
    upstream.reached.set()


class Door:
    """A client that another library speaks for."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._open: list[ClientConnection] = []

    async def connect(self, bearer: bytes | None, *, label: str = LABEL, **headers: str) -> ClientConnection:
        sent = {} if bearer is None else {"Authorization": f"Bearer {bearer.decode()}"}
        made = await connect(
            f"ws://{label}.localhost{PATH}",
            host="127.0.0.1",
            port=self.stage.node.visitors.address.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Accept": "application/json", **sent, **headers},
            origin=Origin(f"http://{label}.localhost"),
            compression=None,
            proxy=None,
            ping_interval=None,
            max_size=None,
            open_timeout=WAIT_S,
            close_timeout=WAIT_S,
        )
        self._open.append(made)
        return made

    async def refused(self, bearer: bytes | None, **options: Any) -> tuple[int, str]:
        """(status, problem code) of a handshake that is not let in."""
        with pytest.raises(InvalidStatus) as refusal:
            await self.connect(bearer, **options)
        response = refusal.value.response
        return response.status_code, str(json.loads(response.body or b"{}")["code"])

    async def close(self) -> None:
        for one in self._open:
            one.transport.abort()
            await one.wait_closed()


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    made = Door(stage)
    yield made
    await made.close()


async def tcp_device(stage: Stage, script: Script = shout, **options: Any) -> tuple[Upstream, bytes]:
    """A device with a TCP service, and the Bearer of a session for it."""
    upstream = await stage.serve(script, services=SERVICES, **options)
    return upstream, stage.gateway.add_session(service="ssh", kind="tcp")[1]


async def received(connection: ClientConnection, size: int) -> bytes:
    got = b""
    async with asyncio.timeout(WAIT_S):
        while len(got) < size:
            message = await connection.recv()
            assert isinstance(message, bytes)
            got += message
    return got


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """The Close that ends it, whatever comes before."""

    async def drain() -> None:
        while True:
            await connection.recv()

    with pytest.raises(ConnectionClosed) as end:
        await asyncio.wait_for(drain(), WAIT_S)
    close = end.value.rcvd
    assert close is not None, "the connection ended without a Close"
    return close.code, close.reason


async def test_bytes_pass_both_ways_and_each_direction_ends_by_itself(stage: Stage, door: Door) -> None:
    _, bearer = await tcp_device(stage)
    connection = await door.connect(bearer)
    assert connection.subprotocol == SUBPROTOCOL
    assert await received(connection, 6) == b"hello\n"  # the service may speak first
    for size in (1, 125, 126, 65_535, 65_536, 700_000):
        await connection.send(b"a" * size)
        assert await received(connection, size) == b"A" * size
    await connection.send([b"frag", b"", b"mented"])
    assert await received(connection, 10) == b"FRAGMENTED"
    await connection.send(b"")  # our FIN; the answer to it still comes
    assert await received(connection, 4) == b"bye\n"
    assert await received_end(connection)
    assert await closed(connection) == (1000, "")
    assert stage.devices[0].opened[0][1] == "ssh"
    await stage.until(lambda: not stage.devices[0].splices)
    assert stage.node.devices.tunnels()[0].in_use == 0
    assert stage.node.devices.tunnels()[0].live_streams == 0


async def received_end(connection: ClientConnection) -> bool:
    async with asyncio.timeout(WAIT_S):
        return await connection.recv() == b""


async def test_the_far_end_may_end_first(stage: Stage, door: Door) -> None:
    """And what the visitor still sends arrives, whole, before the farewell."""

    async def last_words(
        upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write_eof()
        while data := await reader.read(65_536):
            upstream.received += data
        upstream.reached.set()

    small = Limits(stream_window=4_096, stream_window_max=4_096)  # the last bytes wait for credit
    upstream, bearer = await tcp_device(stage, last_words, limits=small)
    connection = await door.connect(bearer)
    assert await received_end(connection)
    sent = bytes(range(256)) * 200
    await connection.send(sent)
    await connection.send(b"")
    assert await closed(connection) == (1000, "")
    async with asyncio.timeout(WAIT_S):
        await upstream.reached.wait()
    assert bytes(upstream.received) == sent


async def test_a_link_gives_a_bearer_and_only_to_the_door(stage: Stage, door: Door) -> None:
    await tcp_device(stage)
    stage.gateway.links["header.payload.sig"] = make_session(service="ssh", kind="tcp")
    stage.gateway.links["a.page.link"] = make_session()
    page = await post(stage, "/.towline/open", "token=header.payload.sig")
    assert b" 403 " in page[0].split(b"\r\n")[0]
    assert b"Set-Cookie" not in page[0]
    head, body = await post(stage, PATH, "token=a.page.link")
    assert json.loads(body)["code"] == "wrong_kind"
    head, body = await post(stage, PATH, "token=header.payload.sig")  # nothing was burnt
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Cache-Control: no-store\r\n" in head
    assert b"Set-Cookie" not in head
    session_id = json.loads(body)["session_id"].encode()
    assert len(session_id) == 43
    assert await received(await door.connect(session_id), 6) == b"hello\n"
    head, body = await post(stage, PATH, "token=header.payload.sig")
    assert json.loads(body)["code"] == "link_used"


async def test_a_gateway_that_knows_no_kinds_opens_no_other_door(stage: Stage) -> None:
    stage.gateway.knows_kinds = False
    stage.gateway.links["a.tcp.link"] = make_session(service="ssh", kind="tcp")
    stage.gateway.links["a.page.link"] = make_session()
    for path, token in (("/.towline/open", "a.tcp.link"), (PATH, "a.page.link")):
        head, body = await post(stage, path, f"token={token}")
        assert head.startswith(b"HTTP/1.1 410 ")
        assert b"Set-Cookie" not in head
        assert b"session_id" not in body


async def post(stage: Stage, path: str, body: str, *headers: str) -> tuple[bytes, bytes]:
    visitor = await stage.visitor(b"")
    visitor.get(
        path,
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: application/json",
        f"Content-Length: {len(body)}",
        *headers,
        method="POST",
    )
    visitor.send(body.encode())
    return await visitor.response()


async def test_a_link_is_not_given_away_to_another_site(stage: Stage) -> None:
    stage.gateway.links["header.payload.sig"] = make_session(service="ssh", kind="tcp")
    for headers in (("Sec-Fetch-Site: same-site",), ("Origin: http://evil.localhost",)):
        _, body = await post(stage, PATH, "token=header.payload.sig", *headers)
        assert json.loads(body)["code"] == "foreign_origin"
    assert not stage.gateway.used_links


async def test_who_has_no_tcp_session_stays_out(stage: Stage, door: Door) -> None:
    upstream, bearer = await tcp_device(stage)
    _, page = stage.gateway.add_session()
    _, elsewhere = stage.gateway.add_session(label="b" * 26, service="ssh", kind="tcp")
    ended, gone = stage.gateway.add_session(service="ssh", kind="tcp")
    stage.gateway.ended.add(ended)
    _, past = stage.gateway.add_session(service="ssh", kind="tcp", life_s=-1.0)
    assert await door.refused(None) == (401, "bearer_needed")
    assert await door.refused(b"x" * 43) == (403, "no_session")
    assert await door.refused(b"x") == (401, "bearer_needed")
    assert await door.refused(page) == (403, "wrong_kind")
    assert await door.refused(elsewhere) == (403, "no_session")
    assert await door.refused(bearer, label="b" * 26) == (403, "no_session")
    assert await door.refused(gone) == (410, "session_ended")
    assert await door.refused(past) == (410, "session_ended")
    assert await door.refused(None, Cookie=f"towline_session={bearer.decode()}") == (400, "cookie_refused")
    assert await door.refused(bearer, Cookie="a=b") == (400, "cookie_refused")
    basic = {"Authorization": f"Basic {bearer.decode()}"}
    assert await door.refused(None, **basic) == (401, "bearer_needed")
    assert upstream.connections == 0
    assert stage.devices[0].opened == []


async def test_a_tcp_session_opens_no_page(stage: Stage) -> None:
    _, bearer = await tcp_device(stage)
    visitor = await stage.visitor(bearer)
    visitor.get("/", "Accept: application/json")
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert json.loads(body)["code"] == "wrong_kind"
    visitor.get("/", f"Authorization: Bearer {bearer.decode()}", "Accept: application/json")
    assert json.loads((await visitor.response())[1])["code"] == "wrong_kind"
    assert stage.devices[0].opened == []


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
    "Origin": f"http://{LABEL}.localhost",
}


async def raw_door(stage: Stage, bearer: bytes, **changes: str | None) -> Visitor:
    """A handshake in raw bytes; None leaves a header out."""
    visitor = await stage.visitor(b"")
    headers: dict[str, str | None] = {
        "Authorization": f"Bearer {bearer.decode()}",
        "Accept": "application/json",
    }
    headers |= HANDSHAKE
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    visitor.get(PATH, *(f"{name}: {value}" for name, value in headers.items() if value is not None))
    return visitor


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"Sec_WebSocket_Key": None}, 400, "bad_request"),
        ({"Sec_WebSocket_Key": "short"}, 400, "bad_request"),
        ({"Sec_WebSocket_Version": None}, 426, "websocket_version"),
        ({"Sec_WebSocket_Version": "8"}, 426, "websocket_version"),
        ({"Sec_WebSocket_Protocol": None}, 400, "bad_request"),
        ({"Sec_WebSocket_Protocol": "towline.v1"}, 400, "bad_request"),
        ({"Upgrade": None}, 426, "upgrade_needed"),
        ({"Upgrade": "h2c"}, 426, "upgrade_needed"),
        ({"Connection": "keep-alive"}, 426, "upgrade_needed"),
        ({"Connection": "Upgrade, Authorization"}, 401, "bearer_needed"),
        ({"Origin": None}, 403, "foreign_origin"),
        ({"Origin": "http://evil.localhost"}, 403, "foreign_origin"),
        ({"Sec_Fetch_Site": "cross-site"}, 403, "foreign_origin"),
        ({"Authorization": "Bearer"}, 401, "bearer_needed"),
        ({"Authorization": "Bearer a, Bearer b"}, 401, "bearer_needed"),
        ({"Content_Length": "3"}, 400, "bad_request"),
    ],
)
async def test_a_handshake_that_does_not_hold(
    stage: Stage, changes: dict[str, str | None], status: int, code: str
) -> None:
    await tcp_device(stage)
    bearer = stage.gateway.add_session(service="ssh", kind="tcp")[1]
    visitor = await raw_door(stage, bearer, **changes)
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"101" not in head.split(b"\r\n")[0]
    assert json.loads(body)["code"] == code
    assert (status == 401) is (b"\r\nWWW-Authenticate: Bearer\r\n" in head)
    assert (status == 426) is (b"\r\nSec-WebSocket-Version: 13\r\n" in head)
    assert stage.devices[0].opened == []


async def entered(stage: Stage, script: Script = shout) -> tuple[Upstream, Visitor]:
    upstream, bearer = await tcp_device(stage, script)
    visitor = await raw_door(stage, bearer)
    assert (await visitor.head()).startswith(b"HTTP/1.1 101 ")
    assert await visitor.exactly(8) == b"\x82\x06hello\n"
    return upstream, visitor


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (frame(Opcode.TEXT, b"text", MASK), 1003),
        (frame(Opcode.BINARY, b"unmasked"), 1002),
        (b"\xc2\x81" + MASK + b"x", 1002),  # RSV1: compression that nobody agreed to
        (b"\x83\x80" + MASK, 1002),  # an opcode that is reserved
        (b"\x80\x81" + MASK + b"x", 1002),  # a continuation of nothing
        (b"\x02\x81" + MASK + b"x" + frame(Opcode.BINARY, b"y", MASK), 1002),  # a message inside another
        (b"\x09\x80" + MASK, 1002),  # a fragmented ping
        (frame_head(Opcode.PING, 126, MASK), 1002),
        (b"\x82\xfe\x00\x05" + MASK, 1002),  # a length in more bytes than it needs
        (frame_head(Opcode.BINARY, MAX_FRAME + 1, MASK), 1009),
        (b"\x82\xff\x80" + bytes(7) + MASK, 1009),
        (frame(Opcode.CLOSE, b"\x03", MASK), 1002),
        (frame(Opcode.CLOSE, b"\x03\xed", MASK), 1002),  # 1005 is never sent
        (frame(Opcode.CLOSE, b"\x03\xe8\xff", MASK), 1007),
        (frame(Opcode.BINARY, b"", MASK) + frame(Opcode.BINARY, b"more", MASK), 1002),  # behind our own end
        (frame(Opcode.BINARY, b"", MASK) * 2, 1002),  # a second end
        (frame(Opcode.PING, b"", MASK) * (int(HOLLOW_BURST) + 1), 1008),
        (frame(Opcode.PONG, b"", MASK) * (int(HOLLOW_BURST) + 1), 1008),
        (b"\x02\x80" + MASK + (b"\x00\x80" + MASK) * int(HOLLOW_BURST), 1008),  # fragments of nothing
    ],
)
async def test_broken_rules_end_with_their_code(stage: Stage, attack: bytes, code: int) -> None:
    _, visitor = await entered(stage)
    visitor.send(attack)
    rest = await visitor.rest()
    assert close_code(rest) == code, rest
    await stage.until(lambda: not stage.devices[0].splices)
    assert stage.devices[0].resets in ([ResetCode.CANCELLED], [])
    assert stage.node.devices.tunnels()[0].in_use == 0


def close_code(rest: bytes) -> int:
    """Of the last frame."""
    at = rest.rindex(b"\x88")
    assert rest[at + 1] == len(rest) - at - 2
    return int.from_bytes(rest[at + 2 : at + 4], "big")


async def test_frames_may_come_in_any_pieces(stage: Stage) -> None:
    upstream, visitor = await entered(stage)
    ping = frame(Opcode.PING, b"are you there", MASK)
    for byte in frame(Opcode.BINARY, b"slow" * 50, MASK) + ping + frame(Opcode.BINARY, b"ly", MASK):
        visitor.send(bytes([byte]))
        await asyncio.sleep(0)
    frames, events = FrameReader(masked=False), list[FrameEvent]()
    async with asyncio.timeout(WAIT_S):
        while payload(events) != b"SLOW" * 50 + b"LY":
            events += frames.feed(await visitor.reader.read(65_536))
    assert Pong(b"are you there") in events
    assert bytes(upstream.received) == b"slow" * 50 + b"ly"


def payload(events: list[FrameEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Payload))


async def test_the_client_breaks_off(stage: Stage) -> None:
    _, visitor = await entered(stage)
    visitor.send(close_frame(DoorClose.RESET, "", MASK))
    assert close_code(await visitor.rest()) == DoorClose.RESET
    await stage.until(lambda: stage.devices[0].resets == [ResetCode.CANCELLED])


@pytest.mark.parametrize("polite", [True, False])
async def test_the_client_vanishes(stage: Stage, polite: bool) -> None:
    """Its FIN without a Close is no end of bytes that a service could take for one."""
    _, visitor = await entered(stage)
    if polite:
        visitor.writer.write_eof()
    else:
        visitor.close()
    await stage.until(lambda: stage.devices[0].resets == [ResetCode.CANCELLED])
    await stage.until(lambda: stage.node.devices.tunnels()[0].in_use == 0)


async def test_the_client_vanishes_while_the_device_takes_nothing(stage: Stage) -> None:
    """Nothing is read from it then, so its reset is not heard of by reading."""
    _, visitor = await entered(stage)
    (splice,) = stage.devices[0].splices
    splice.data = lambda data: None  # type: ignore[method-assign]  # no credit returns
    (connection,) = stage.node.edge.connections
    visitor.send(frame(Opcode.BINARY, bytes(MAX_FRAME), MASK) * 16)
    await stage.until(lambda: connection.reading_paused)
    raw = visitor.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.writer.transport.abort()
    await stage.until(lambda: not stage.node.edge.connections)
    assert stage.node.devices.tunnels()[0].in_use == 0


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (RefusedCode.UNREACHABLE, 502, "unreachable"),
        (RefusedCode.UNKNOWN_SERVICE, 404, "unknown_service"),
        (RefusedCode.NO_TIME, 503, "no_time"),
        (RefusedCode.TOO_MANY_STREAMS, 503, "device_busy"),
        (RefusedCode.GRANT_REVOKED, 410, "session_ended"),
        (RefusedCode.GRANT_INVALID, 403, "grant_refused"),
        (RefusedCode.INTERNAL, 502, "bad_gateway"),
    ],
)
async def test_the_device_refuses_before_the_handshake_is_over(
    stage: Stage, door: Door, code: RefusedCode, status: int, said: str
) -> None:
    _, bearer = await tcp_device(stage)
    stage.devices[0].refuse_with = code
    assert await door.refused(bearer) == (status, said)
    assert stage.node.devices.tunnels()[0].in_use == 0


async def test_nobody_is_there(stage: Stage, door: Door) -> None:
    bearer = stage.gateway.add_session(service="ssh", kind="tcp")[1]
    assert await door.refused(bearer) == (503, "device_offline")
    await stage.serve(shout)  # it has no such service
    assert await door.refused(bearer) == (404, "unknown_service")
    _, other = stage.gateway.add_session(service="web", kind="tcp")  # the device changed its mind since
    assert await door.refused(other) == (404, "unknown_service")


@pytest.mark.parametrize("kind", ["session", "device"])
async def test_a_revocation_cuts_the_connection_and_says_why(stage: Stage, door: Door, kind: str) -> None:
    _, bearer = await tcp_device(stage)
    connection = await door.connect(bearer)
    await received(connection, 6)
    target = next(iter(stage.node.sessions)).facts.sid if kind == "session" else stage.devices[0].device_id
    stage.gateway.publish(kind, target)
    async with asyncio.timeout(2.0):
        code, reason = await closed(connection)
    assert code == DoorClose.SESSION_ENDED
    assert reason == ("revoked" if kind == "session" else "device_revoked")
    assert await door.refused(bearer) == (410, "session_ended")


async def test_a_session_that_expires_says_so(stage: Stage, door: Door) -> None:
    await stage.serve(shout, services=SERVICES)
    _, bearer = stage.gateway.add_session(service="ssh", kind="tcp", life_s=1.0)
    connection = await door.connect(bearer)
    assert await closed(connection) == (DoorClose.SESSION_ENDED, "expired")


async def test_a_service_that_breaks_and_a_device_that_goes(stage: Stage, door: Door) -> None:
    _, bearer = await tcp_device(stage)
    first = await door.connect(bearer)
    (splice,) = stage.devices[0].splices
    second = await door.connect(bearer)
    splice.stream.reset(ResetCode.UPSTREAM_RESET)
    assert await closed(first) == (DoorClose.RESET, "the service broke the connection")
    assert (await second.recv()) == b"hello\n"
    await stage.devices[0].close()
    assert await closed(second) == (DoorClose.DEVICE_LOST, "the device's tunnel ended")


async def test_live_places_are_shared_with_websockets(door: Door, stage: Stage) -> None:
    _, bearer = await tcp_device(stage, limits=Limits(max_streams=3))
    kept = [await door.connect(bearer) for _ in range(2)]
    assert await door.refused(bearer) == (503, "too_many_live_streams")
    await kept[0].close()
    await stage.until(lambda: stage.node.devices.tunnels()[0].live_streams == 1)
    await received(await door.connect(bearer), 6)


async def test_a_visitor_that_reads_nothing_holds_its_windows_and_no_more(stage: Stage) -> None:
    """The device stops at the stream's credit, whatever it has; a neighbour is not disturbed."""
    sent = 0

    async def pour(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"hello\n")
        while await reader.read(1) == b"g":
            for _ in range(640):  # 40 MiB
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    _, stalled = await entered(stage, pour)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport, says uvloop
    stalled.send(frame(Opcode.BINARY, b"g", MASK))
    connection = next(iter(stage.node.edge.connections))
    looks, last = 0, 0

    def stands_still() -> bool:
        nonlocal looks, last
        looks, last = (looks + 1 if sent and sent == last and connection.write_paused else 0), sent
        return looks > 100

    await stage.until(stands_still)
    assert sent < 24 << 20
    assert connection.transport.get_write_buffer_size() < 8 << 20


async def test_a_visitor_that_reads_slowly_gets_the_last_bytes_too() -> None:
    """Both directions are over long before it has taken what is here for it."""
    size = 1 << 20

    async def give(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()
        writer.write(bytes(size))

    limits = VisitorLimits(resolves_per_s=1000.0, linger_s=0.05)
    async with running(settings(limits=limits, tunnels={"stream_window": size})) as stage:
        _, visitor = await entered(stage, give)
        connection = next(iter(stage.node.edge.connections))
        for end in (connection.transport, visitor.writer.transport):
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 65_536)
        visitor.writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
        visitor.send(frame(Opcode.BINARY, b"", MASK))
        await stage.until(lambda: not stage.devices[0].splices)
        looks = itertools.count()
        await stage.until(lambda: next(looks) > 150)  # several sweeps
        visitor.writer.transport.resume_reading()  # type: ignore[attr-defined]
        rest = await visitor.rest()
    assert close_code(rest) == 1000
    assert len(rest) > size
