"""What a node tells of support sessions: all that passed, nothing of other sessions, nothing secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from typing import Any

import pytest

from runtime.clock import FakeClock
from runtime.metrics import Registry
from runtime.tcp_door import PATH, SUBPROTOCOL
from runtime.websocket_frames import Opcode, frame_head
from tests.tunnel_server.conftest import LABEL, Stage, Visitor
from tests.tunnel_server.doubles import MemoryGateway, Upstream, answering
from tests.tunnel_server.test_upgrade import UPGRADE, switching
from tunnel_protocol import Service
from tunnel_server.control import request_log
from tunnel_server.control.request_log import RequestLog
from tunnel_server.errors import GatewayRefused, GatewayUnavailable
from tunnel_server.metrics import Metrics
from tunnel_server.sessions import SessionFacts

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ENGINEER = str(uuid.UUID(int=7))
SHOWN = ("part", "method", "path", "status", "received", "sent")


async def supporter(stage: Stage, **session: Any) -> tuple[str, Visitor]:
    sid, cookie = stage.gateway.add_session(act=ENGINEER, **session)
    return sid, await stage.visitor(cookie)


async def told(stage: Stage, count: int) -> list[tuple[Any, ...]]:
    """The first entries; they come in under two seconds."""
    async with asyncio.timeout(2):
        await stage.until(lambda: len(stage.gateway.passed) >= count)
    return [tuple(entry[name] for name in SHOWN) for entry in stage.gateway.passed]


async def with_body(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await upstream.head(reader)
    await upstream.body(reader, 4)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")


async def test_a_request_of_support_and_none_of_the_owner(stage: Stage) -> None:
    await stage.serve(answering(OK))
    owner = await stage.visitor()
    owner.get("/private")
    assert (await owner.response())[1] == b"hello"
    sid, visitor = await supporter(stage)
    visitor.get("/status%20page?token=secret")
    assert (await visitor.response())[1] == b"hello"
    assert await told(stage, 1) == [("whole", "GET", "/status%20page", 200, 0, 5)]
    entry = stage.gateway.passed[0]
    assert (entry["sid"], entry["ms"] < 2000) == (sid, True)
    said = json.dumps(stage.gateway.passed)
    assert "secret" not in said
    assert visitor.cookie.decode() not in said


async def test_sizes_are_those_of_bodies(stage: Stage) -> None:
    await stage.serve(with_body)
    _, visitor = await supporter(stage)
    visitor.get("/form", "Content-Length: 4", method="POST")
    visitor.send(b"abcd")
    await visitor.exactly(10)
    assert await told(stage, 1) == [("whole", "POST", "/form", 200, 4, 7)]


async def test_what_never_reached_the_device_is_told_with_its_answer(stage: Stage) -> None:
    """No device is there; a path that wants to be more than one line, and longer than anybody reads."""
    _, visitor = await supporter(stage)
    visitor.get("/" + "x" * 3000 + "?q")
    await visitor.response()
    (entry,) = await told(stage, 1)
    assert (entry[0], entry[3]) == ("whole", 503)
    assert entry[2] == "/" + "x" * (request_log.PATH_MAX - 1)
    assert len(entry[2]) == 1024


async def test_a_long_answer_is_told_while_it_runs_and_where_it_was_cut(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def slow(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"a" * 30)
        await go_on.wait()

    await stage.serve(slow)
    sid, visitor = await supporter(stage)
    visitor.get("/firmware.bin")
    await visitor.head()
    await visitor.exactly(30)
    assert [entry[:3] for entry in await told(stage, 1)] == [("began", "GET", "/firmware.bin")]
    stage.gateway.publish("session", sid)
    assert await visitor.was_cut() == b""
    assert (await told(stage, 2))[1] == ("ended", "GET", "/firmware.bin", 200, 0, 30)
    began, ended = stage.gateway.passed
    assert began["id"] == ended["id"]
    go_on.set()


@pytest.mark.parametrize("who", ["visitor", "session", "device"])
async def test_a_websocket_is_told_at_both_ends(stage: Stage, who: str) -> None:
    await stage.serve(switching(early=b"EARLY"))
    sid, visitor = await supporter(stage)
    visitor.get("/ws?x=1", *UPGRADE)
    await visitor.head()
    visitor.send(b"a" * 1000)
    await visitor.exactly(1005)
    assert await told(stage, 1) == [("began", "GET", "/ws", 101, 1000, 1005)]
    if who == "visitor":
        visitor.close()
    elif who == "session":
        stage.gateway.publish("session", sid)
    else:
        await stage.devices[0].close()
    assert (await told(stage, 2))[1] == ("ended", "GET", "/ws", 101, 1000, 1005)


async def test_a_connection_at_the_tcp_door(stage: Stage) -> None:
    async def shout(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data.upper())

    services = (Service("web", upstream="127.0.0.1:80"), Service("ssh", kind="tcp"))
    await stage.serve(shout, services=services)
    _, bearer = stage.gateway.add_session(act=ENGINEER, service="ssh", kind="tcp")
    visitor = await stage.visitor(b"")
    key = base64.b64encode(os.urandom(16)).decode()
    visitor.get(
        PATH,
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        f"Origin: http://{LABEL}.localhost",
        f"Authorization: Bearer {bearer.decode()}",
    )
    assert b" 101 " in await visitor.head()
    visitor.send(b"\x82\x85" + b"\0" * 4 + b"whoami"[:5])
    assert await visitor.exactly(7) == frame_head(Opcode.BINARY, 5) + b"WHOAM"
    visitor.close()
    assert (await told(stage, 1))[-1][1:] == ("TCP", "ssh", 101, 5, 5)


async def test_entries_wait_for_a_gateway_that_is_away(stage: Stage) -> None:
    await stage.serve(answering(OK))
    _, visitor = await supporter(stage)
    visitor.get("/first")
    await visitor.response()
    await told(stage, 1)
    stage.gateway.down = True
    visitor.get("/second")
    await visitor.response()
    await stage.until(lambda: stage.node.request_log._failures > 0)
    assert len(stage.gateway.passed) == 1
    stage.gateway.down = False
    assert [entry[2] for entry in await told(stage, 2)] == ["/first", "/second"]


async def test_a_node_that_stops_leaves_nothing_behind(stage: Stage) -> None:
    """What waits, and a WebSocket that runs until the end of the drain."""
    await stage.serve(switching())
    _, visitor = await supporter(stage)
    visitor.get("/ws", *UPGRADE)
    await visitor.head()
    stage.stopped = True
    await stage.node.stop()
    last = stage.gateway.passed[-1]
    assert (last["method"], last["path"], last["status"]) == ("GET", "/ws", 101)
    assert last["part"] in ("whole", "ended")


# The queue


class Counting(MemoryGateway):
    """A gateway that can be away, or refuse."""

    refuses = False
    refuses_path: str | None = None

    async def report_requests(self, entries: list[dict[str, Any]]) -> None:
        if self.refuses or self.refuses_path in {entry["path"] for entry in entries}:
            raise GatewayRefused(422, "invalid_field")
        await super().report_requests(entries)


@pytest.fixture
def gateway() -> Counting:
    return Counting()


@pytest.fixture
def log(gateway: Counting) -> RequestLog:
    return RequestLog(gateway, FakeClock(), Metrics(Registry()))


async def test_what_finds_no_room_is_counted_and_said(
    log: RequestLog, gateway: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "MAX_QUEUED", 5)
    gateway.down = True
    for n in range(12):
        log.web("s" if n < 10 else "t", b"GET", b"/%d" % n).end()
    assert not await log.send_once()
    assert len(log) == 5
    gateway.down = False
    await log.flush()
    assert [entry["path"] for entry in gateway.passed if entry["part"] == "whole"] == [
        f"/{n}" for n in range(5)
    ]
    assert {entry["sid"]: entry["lost"] for entry in gateway.passed if entry["part"] == "lost"} == {
        "s": 5,
        "t": 2,
    }
    text = log._metrics.registry.render()
    assert b'towline_request_log_entries_total{outcome="dropped"} 7' in text


async def test_batches_are_bounded_and_in_order(log: RequestLog, gateway: Counting) -> None:
    for n in range(request_log.BATCH + 3):
        log.web("s", b"GET", b"/%d" % n).end()
    assert await log.send_once()
    assert len(gateway.passed) == request_log.BATCH
    await log.flush()
    assert [entry["path"] for entry in gateway.passed] == [f"/{n}" for n in range(request_log.BATCH + 3)]


async def test_what_the_gateway_refuses_is_not_sent_for_ever(
    log: RequestLog, gateway: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.refuses = True
    log.web("s", b"GET", b"/odd").end()
    await log.flush()
    assert len(log) == 0
    assert caplog.text.count("refused an entry") == 2  # and then the note that it is missing


async def test_what_the_gateway_refuses_takes_no_other_out_of_the_log(
    log: RequestLog, gateway: Counting
) -> None:
    gateway.refuses_path = "/odd"
    for n in range(150):
        log.web("s", b"GET", b"/odd" if n == 97 else b"/%d" % n).end()
    await log.flush()
    told = [entry["path"] for entry in gateway.passed if entry["part"] == "whole"]
    assert told == [f"/{n}" for n in range(150) if n != 97]
    assert [(e["sid"], e["lost"]) for e in gateway.passed if e["part"] == "lost"] == [("s", 1)]


def test_an_engineer_is_named_or_the_answer_is_no_answer() -> None:
    told = {
        "sid": ENGINEER,
        "label": LABEL,
        "service": "web",
        "service_kind": "web",
        "device_id": "d",
        "device_name": "D",
        "expires_at": 1,
        "grant": "g",
        "grant_id": "00",
    }
    assert SessionFacts.from_json(told).act is None
    assert SessionFacts.from_json({**told, "act": None}).act is None
    assert SessionFacts.from_json({**told, "act": {"id": ENGINEER, "name": "sue"}}).act == ENGINEER
    for odd in ("sue", {}, {"id": "sue"}, 7):
        with pytest.raises(GatewayUnavailable):
            SessionFacts.from_json({**told, "act": odd})
