"""The TCP door: a session's Bearer and nothing else opens it, and bytes, ends and refusals come through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection

from runtime.tcp_door import PATH, SUBPROTOCOL, DoorClose
from tests.tunnel_server.conftest import WAIT_S, Limits, Stage
from tests.tunnel_server.doors import SERVICES, Door, closed, raw_door, received, shout, tcp_device
from tests.tunnel_server.doubles import Upstream, make_session
from tunnel_protocol import RefusedCode, ResetCode

SHORT_S = 2.5  # of a session that ends meanwhile; a busy machine takes a second to begin with it


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    made = Door(stage)
    yield made
    await made.close()


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
    _, bearer = stage.gateway.add_session(service="ssh", kind="tcp", life_s=SHORT_S)
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
