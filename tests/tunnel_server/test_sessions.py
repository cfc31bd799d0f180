"""Who gets in: cookies, links, the feed, and how access ends."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid

import pytest

from tests.tunnel_server.conftest import DEVICE, LABEL, Stage, running, settings
from tests.tunnel_server.doubles import Upstream, answering, make_session

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OWN = f"http://{LABEL}.localhost"
SHORT_S = 2.0  # of a session that ends meanwhile; a busy machine takes a second to begin with it


async def endless(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An event stream that goes on until it is cut."""
    await upstream.head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    upstream.reached.set()
    await reader.read()


async def post_link(stage: Stage, body: str, *headers: str, cookie: bytes = b"") -> tuple[bytes, bytes]:
    visitor = await stage.visitor(cookie)
    lines = headers or ("Sec-Fetch-Site: same-origin",)
    kind = "Content-Type: application/x-www-form-urlencoded"
    visitor.get("/.towline/open", kind, f"Content-Length: {len(body)}", *lines, method="POST")
    visitor.send(body.encode())
    return await visitor.response()


async def test_without_a_cookie_there_is_a_page_that_says_so(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor(b"")
    visitor.get()
    head, body = await visitor.response()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b"Clear-Site-Data" not in head
    assert b"fresh link" in body
    assert not upstream.received


async def test_a_made_up_cookie_is_asked_about_once(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor(b"madeup")
    for _ in range(5):
        visitor.get()
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 403 ")
    assert stage.gateway.resolved == 1


async def test_a_known_session_is_asked_about_once_even_over_many_connections(stage: Stage) -> None:
    await stage.serve(answering(OK))
    _, cookie = stage.gateway.add_session()
    for _ in range(3):
        visitor = await stage.visitor(cookie)
        visitor.get()
        assert (await visitor.response())[1] == b"hello"
    assert stage.gateway.resolved == 1


async def test_a_cookie_is_good_on_its_own_label_alone(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get()
    await visitor.response()
    upstream.received.clear()
    other = "b" * 26
    visitor.send(
        b"GET / HTTP/1.1\r\nHost: %b.localhost\r\nCookie: towline_session=%b\r\n\r\n"
        % (other.encode(), visitor.cookie)
    )
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 403 ")
    assert not upstream.received


@pytest.mark.parametrize(
    "host", ["localhost", "example.com", f"{LABEL}.evil.example", f"x{LABEL}.localhost", "127.0.0.1"]
)
async def test_a_foreign_host_is_misdirected(stage: Stage, host: str) -> None:
    visitor = await stage.visitor(b"")
    visitor.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 421 ")


async def test_the_link_page_consumes_nothing_and_leaks_nothing(stage: Stage) -> None:
    visitor = await stage.visitor(b"")
    for method in ("GET", "HEAD"):
        visitor.get("/.towline/open", method=method)
        head = await visitor.head()
        if method == "GET":
            body = await visitor.exactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))  # type: ignore[index]
            assert b'data-gateway="http://127.0.0.1:8080"' in body
        assert b"Cache-Control: no-store\r\n" in head
        # Its form must be able to say whose it is; to other hosts it says nothing.
        assert b"Referrer-Policy: same-origin\r\n" in head
        assert b"default-src 'none'" in head
        assert b"frame-ancestors 'none'" in head
        assert b"unsafe" not in head
        assert b"Set-Cookie" not in head
    visitor.get("/.towline/open.js")
    head, body = await visitor.response()
    assert b"text/javascript" in head
    assert b"history.replaceState" in body


async def test_a_link_opens_a_session_once_with_a_fresh_cookie(stage: Stage) -> None:
    await stage.serve(answering(OK))
    stage.gateway.links["header.payload.sig"] = make_session()
    head, _ = await post_link(stage, "token=header.payload.sig", cookie=b"planted")
    assert head.startswith(b"HTTP/1.1 303 ")
    assert b"\r\nLocation: /\r\n" in head
    assert b"Referrer-Policy: no-referrer\r\n" in head  # the device does not hear of the link's page
    cookie = re.search(
        rb"Set-Cookie: towline_session=([\w-]{43}); Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax\r\n", head
    )
    assert cookie is not None
    visitor = await stage.visitor(cookie[1])
    visitor.get()
    assert (await visitor.response())[1] == b"hello"
    assert stage.gateway.resolved == 0
    head, body = await post_link(stage, "token=header.payload.sig")
    assert head.startswith(b"HTTP/1.1 410 ")
    assert b"used already" in body


async def test_a_code_opens_a_session_too(stage: Stage) -> None:
    stage.gateway.links["one-time-code"] = make_session()
    head, _ = await post_link(stage, "code=one-time-code")
    assert head.startswith(b"HTTP/1.1 303 ")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400), ("token=", 400), ("token=a&token=b", 400), ("token=a&code=b", 400), ("token=%00", 400),
        ("token=unknown", 400), ("other=1", 400),
        ("token=" + "a" * 5_000, 400), ("token=" + "a" * 10_000, 413),
    ],
)  # fmt: skip
async def test_a_bad_link_post_gets_a_clear_answer(stage: Stage, body: str, status: int) -> None:
    head, _ = await post_link(stage, body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Set-Cookie" not in head


@pytest.mark.parametrize(
    "header", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil"]
)
async def test_another_page_posts_no_link(stage: Stage, header: str) -> None:
    stage.gateway.links["header.payload.sig"] = make_session()
    head, _ = await post_link(stage, "token=header.payload.sig", header)
    assert head.startswith(b"HTTP/1.1 403 ")
    assert not stage.gateway.used_links


async def test_a_link_of_another_label_is_no_link_here(stage: Stage) -> None:
    stage.gateway.links["header.payload.sig"] = make_session(label="b" * 26)
    head, _ = await post_link(stage, "token=header.payload.sig")
    assert head.startswith(b"HTTP/1.1 400 ")


async def test_closing_removes_cookie_and_site_data(stage: Stage) -> None:
    visitor = await stage.visitor()
    visitor.get("/.towline/end", "Content-Length: 0", method="POST")
    head, _ = await visitor.response()
    assert b"Set-Cookie: towline_session=; Path=/; Max-Age=0" in head
    assert b'Clear-Site-Data: "cache", "cookies", "storage"\r\n' in head


@pytest.mark.parametrize("path", ["/.towline/", "/.towline/tcp/x", "/.towline/open/x", "/.towline/../secret"])
async def test_the_reserved_path_reaches_no_device(stage: Stage, path: str) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get(path)
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 404 ")
    assert not upstream.received


@pytest.mark.parametrize("kind", ["session", "device"])
async def test_a_revocation_cuts_a_live_stream_within_two_seconds(stage: Stage, kind: str) -> None:
    await stage.serve(endless)
    sid, cookie = stage.gateway.add_session()
    visitor = await stage.visitor(cookie)
    visitor.get()
    await visitor.head()
    await visitor.exactly(14)
    started = time.monotonic()
    stage.gateway.publish(kind, sid if kind == "session" else DEVICE)
    assert not (await visitor.was_cut()).endswith(b"0\r\n\r\n")
    assert time.monotonic() - started < 2
    again = await stage.visitor(cookie)
    again.get()
    head, body = await again.response()
    assert head.startswith(b"HTTP/1.1 410 ")
    assert b"Clear-Site-Data" in head
    assert b"session has ended" in body
    device = stage.devices[0]
    if kind == "session":
        await stage.until(lambda: device.revoked)
        assert device.revoked == list(device.grants)
    else:
        async with asyncio.timeout(5):
            lost = await device.ended
        assert lost.code is not None
        assert lost.code.name == "REVOKED"


async def test_an_expired_session_is_cut_and_its_idle_streams_close(stage: Stage) -> None:
    upstream = await stage.serve(endless)
    _, cookie = stage.gateway.add_session(life_s=SHORT_S)
    visitor = await stage.visitor(cookie)
    visitor.get()
    async with asyncio.timeout(5):
        await upstream.reached.wait()
    await visitor.was_cut()
    again = await stage.visitor(cookie)
    again.get("/", "Accept: application/problem+json")
    head, body = await again.response()
    assert head.startswith(b"HTTP/1.1 410 ")
    assert json.loads(body)["code"] == "session_ended"
    await stage.until(lambda: not stage.devices[0].splices)


async def test_a_revocation_overtakes_a_slow_answer_of_the_gateway(stage: Stage) -> None:
    sid, cookie = stage.gateway.add_session()
    stage.gateway.publish("session", sid)
    await stage.until(lambda: stage.node.feed.position.number == 1)
    visitor = await stage.visitor(cookie)
    visitor.get()
    assert (await visitor.response())[0].startswith(b"HTTP/1.1 410 ")


async def test_a_silent_feed_lets_nobody_new_in_and_ends_all_after_the_grace() -> None:
    config = settings(gateway={"feed_silence_s": 0.2, "revocation_grace_s": 0.8})
    async with running(config) as stage:
        upstream = await stage.serve(answering(OK))
        visitor = await stage.visitor()
        visitor.get()
        await visitor.response()
        stage.gateway.silent = True
        await stage.until(lambda: not stage.node.feed.is_fresh())
        assert stage.node.failed_checks() == ["revocation_feed"]
        visitor.get()
        assert (await visitor.response())[1] == b"hello"  # a live session goes on
        newcomer = await stage.visitor()
        newcomer.get()
        assert (await newcomer.response())[0].startswith(b"HTTP/1.1 503 ")
        await stage.until(lambda: not len(stage.node.sessions))
        visitor.get()
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 410 ")
        stage.gateway.silent = False
        await stage.until(stage.node.feed.is_fresh)
        newcomer.get()
        assert (await newcomer.response())[1] == b"hello"
        assert upstream.connections >= 2


async def test_an_evil_page_gets_nothing(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    for headers in (
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
        ["Origin: http://evil.example"],
        ["Origin: null"],
    ):
        visitor.get("/", *headers)
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 403 ")
    assert not upstream.received
    visitor.get("/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert (await visitor.response())[1] == b"hello"


async def test_a_revocation_reaches_every_tunnel_of_the_device(stage: Stage) -> None:
    """Also those that never had the grant: the other end of one of them may be in the wrong hands."""
    _, target = await stage.upstream(endless)
    first = await stage.device(target)
    second = await stage.device(target, instance=first.instance)
    sid, cookie = stage.gateway.add_session()
    visitor = await stage.visitor(cookie)
    visitor.get()
    await visitor.head()
    assert [len(device.grants) for device in (first, second)].count(1) == 1
    stage.gateway.publish("session", sid, device=DEVICE)
    grant_id = uuid.UUID(sid).bytes
    await stage.until(lambda: first.revoked and second.revoked)
    assert first.revoked == second.revoked == [grant_id]


async def test_a_revoked_session_of_another_node_is_told_to_the_device(stage: Stage) -> None:
    device = await stage.device(("127.0.0.1", 1))
    known, unknown = uuid.uuid4(), uuid.uuid4()
    stage.gateway.publish("session", str(unknown))  # an entry of an older gateway names no device
    stage.gateway.publish("session", str(uuid.uuid4()), device="d_bbbbbbbbbbbbbbbb")
    stage.gateway.publish("session", str(known), device=DEVICE)
    await stage.until(lambda: device.revoked)
    assert device.revoked == [known.bytes]


async def test_the_end_by_time_is_told_only_where_the_grant_is(stage: Stage) -> None:
    """The device knows the end itself; its memory of strangers' ids is for those that still could be used."""
    _, target = await stage.upstream(endless)
    first = await stage.device(target)
    second = await stage.device(target, instance=first.instance)
    _, cookie = stage.gateway.add_session(life_s=SHORT_S)
    visitor = await stage.visitor(cookie)
    visitor.get()
    await visitor.was_cut()
    with_grant, without = (first, second) if first.grants else (second, first)
    await stage.until(lambda: with_grant.revoked)
    assert without.revoked == []
