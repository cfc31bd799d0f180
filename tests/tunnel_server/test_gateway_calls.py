"""What a visitor's request asks the gateway, and that it always gets an answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging

import pytest

from tests.tunnel_server.conftest import LABEL, Stage, running, settings
from tests.tunnel_server.doubles import MemoryGateway, Upstream, answering
from tunnel_protocol import RefusedCode

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
FORM = "Content-Type: application/x-www-form-urlencoded"


async def with_body(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a POST of four bytes."""
    await upstream.head(reader)
    await upstream.body(reader, 4)
    writer.write(OK)


# A grant that the device refuses


async def test_a_refused_grant_is_fetched_again_once_for_all_requests(stage: Stage) -> None:
    await stage.serve(answering(OK))
    stage.devices[0].accepts_grant = stage.gateway.new_grant
    _, cookie = stage.gateway.add_session()
    visitors = [await stage.visitor(cookie) for _ in range(5)]
    for visitor in visitors:
        visitor.get()
    for visitor in visitors:
        assert (await visitor.response())[1] == b"hello"
    assert stage.gateway.grants_asked == 1


@pytest.mark.parametrize("code", [RefusedCode.NO_GRANT, RefusedCode.GRANT_INVALID, RefusedCode.GRANT_EXPIRED])
async def test_a_device_that_refuses_the_new_grant_too_is_not_asked_for_ever(
    stage: Stage, code: RefusedCode
) -> None:
    await stage.serve(answering(OK))
    device = stage.devices[0]
    device.refuse_with = code
    visitor = await stage.visitor()
    for tries in (2, 3):
        visitor.get()
        head, _ = await visitor.response()
        assert head.startswith(b"HTTP/1.1 503" if code is RefusedCode.GRANT_EXPIRED else b"HTTP/1.1 4")
        assert len(device.opened) == tries
    assert stage.gateway.grants_asked == 1
    assert list(device.grants.values()) == [stage.gateway.new_grant]


async def test_a_request_whose_body_is_gone_is_not_sent_again(stage: Stage) -> None:
    upstream = await stage.serve(with_body)
    device = stage.devices[0]
    device.accepts_grant = stage.gateway.new_grant
    visitor = await stage.visitor()
    visitor.get("/", "Content-Length: 4", method="POST")
    await stage.until(lambda: stage.gateway.grants_asked == 1)
    visitor.send(b"late")
    assert (await visitor.response())[1] == b"hello"  # its body came after the refusal, and is there
    assert upstream.received.endswith(b"late")
    other = await stage.visitor()
    device.accepts_grant = b"none"
    other.send(
        b"POST / HTTP/1.1\r\nHost: %b.localhost\r\nCookie: towline_session=%b\r\n"
        b"Sec-Fetch-Site: same-origin\r\nContent-Length: 4\r\n\r\nbody" % (LABEL.encode(), other.cookie)
    )
    assert (await other.response())[0].startswith(b"HTTP/1.1 403 ")


async def test_a_refused_grant_of_an_ended_session_ends_it(stage: Stage) -> None:
    await stage.serve(answering(OK))
    stage.devices[0].accepts_grant = stage.gateway.new_grant
    sid, cookie = stage.gateway.add_session()
    visitor = await stage.visitor(cookie)
    stage.devices[0].accepts_grant = None
    visitor.get()
    await visitor.response()
    stage.gateway.ended.add(sid)
    stage.devices[0].refuse_with = RefusedCode.GRANT_INVALID
    visitor.get("/", "Content-Length: 0", method="POST")  # not over the pooled stream
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 410 ")
    assert len(stage.node.sessions) == 0


async def test_a_refused_grant_without_a_gateway_is_the_devices_refusal(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    stage.gateway.down = True
    stage.devices[0].refuse_with = RefusedCode.GRANT_INVALID
    visitor.get("/", "Content-Length: 0", method="POST")
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 403 ")
    assert len(stage.node.sessions) == 1


# Faults


async def crash(*args: object, **named: object) -> None:
    raise RuntimeError("a fault of ours")


async def hang(*args: object, **named: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("call", ["resolve", "redeem"])
async def test_a_crash_while_asking_is_answered(
    stage: Stage, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage.gateway, call, crash)
    visitor = await stage.visitor()
    with caplog.at_level(logging.ERROR):
        if call == "resolve":
            visitor.get()
        else:
            visitor.get("/.towline/open", FORM, "Content-Length: 7", method="POST")
            visitor.send(b"token=x")
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 503 ")
    assert "task crashed" in caplog.text


@pytest.mark.parametrize("call", ["resolve", "redeem"])
async def test_a_call_that_never_ends_is_answered(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_server.edge.gateway_calls.GRACE_S", 0.1)
    async with running(settings(gateway={"call_s": 0.1})) as stage:
        monkeypatch.setattr(stage.gateway, call, hang)
        visitor = await stage.visitor()
        if call == "resolve":
            visitor.get()
        else:
            visitor.get("/.towline/open", FORM, "Content-Length: 7", method="POST")
            visitor.send(b"token=x")
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 503 ")


# Ends


async def test_a_node_that_restarted_tells_the_visitor_that_the_session_has_ended(stage: Stage) -> None:
    sid, cookie = stage.gateway.add_session()
    stage.gateway.ended.add(sid)
    visitor = await stage.visitor(cookie)
    for _ in range(2):
        visitor.get()
        head, _ = await visitor.response()
        assert head.startswith(b"HTTP/1.1 410 ")
        assert b"Clear-Site-Data" in head
    assert stage.gateway.resolved == 1


@pytest.mark.parametrize("known", [True, False])
async def test_closing_ends_the_session_everywhere(stage: Stage, known: bool) -> None:
    await stage.serve(answering(OK))
    sid, cookie = stage.gateway.add_session()
    visitor = await stage.visitor(cookie)
    if known:
        visitor.get()
        await visitor.response()
    visitor.get("/.towline/end", "Content-Length: 0", method="POST")
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 200 ")
    assert stage.gateway.ended == {sid}
    assert len(stage.node.sessions) == 0
    visitor.get()
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 410 ")


async def test_closing_without_a_gateway_ends_it_here_and_says_the_same(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    stage.gateway.down = True
    visitor.get("/.towline/end", "Content-Length: 0", method="POST")
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 200 ")
    assert len(stage.node.sessions) == 0


@pytest.mark.parametrize("cookie", [b"", b"madeup"])
async def test_closing_with_no_session_ends_nothing(stage: Stage, cookie: bytes) -> None:
    gateway: MemoryGateway = stage.gateway
    sid, good = gateway.add_session()
    visitor = await stage.visitor(cookie)
    for _ in range(3):
        visitor.get("/.towline/end", "Content-Length: 0", method="POST")
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 200 ")
    assert gateway.ended == set()
    assert gateway.resolved == (1 if cookie else 0)
    assert gateway.sessions[LABEL, hashlib.sha256(good).digest()].sid == sid
