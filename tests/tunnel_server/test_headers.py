"""What the device sees of a request, and the visitor of an answer."""

from __future__ import annotations

import pytest

from tests.tunnel_server.conftest import LABEL, Stage, running, settings
from tests.tunnel_server.doubles import answering
from tunnel_protocol import Service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OWN = f"http://{LABEL}.localhost"


async def seen_by_device(stage: Stage, *headers: str, method: str = "GET", **options: object) -> list[str]:
    upstream = await stage.serve(answering(OK), **options)
    visitor = await stage.visitor()
    visitor.get("/", *headers, method=method)
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 200"), head
    return bytes(upstream.received).decode("latin-1").split("\r\n")[1:-2]


async def test_host_origin_and_referer_become_the_services_own(stage: Stage) -> None:
    seen = await seen_by_device(
        stage, f"Origin: {OWN}", f"Referer: {OWN}/a?b", services=(Service("web", upstream="127.0.0.1:8123"),)
    )
    assert seen == [
        "Host: 127.0.0.1:8123",
        "Origin: http://127.0.0.1:8123",
        "Referer: http://127.0.0.1:8123/a?b",
    ]


async def test_preserve_keeps_the_public_host_and_origin(stage: Stage) -> None:
    services = (Service("web", host="preserve", upstream="127.0.0.1:8123"),)
    seen = await seen_by_device(stage, f"Origin: {OWN}", services=services)
    assert seen == [f"Host: {LABEL}.localhost", f"Origin: {OWN}"]


async def test_hop_by_hop_headers_end_here_with_those_that_connection_names(stage: Stage) -> None:
    seen = await seen_by_device(
        stage,
        "Connection: keep-alive, X-Secret, X-Forwarded-For",
        "X-Secret: 1",
        "Keep-Alive: 5",
        "TE: trailers",
        "Proxy-Authorization: x",
        "Proxy-Connection: x",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "X-Kept: 2",
        services=(Service("web", upstream="127.0.0.1:80", forwarded=True),),
    )
    assert seen == [
        "Host: 127.0.0.1",
        "X-Kept: 2",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        f"X-Forwarded-Host: {LABEL}.localhost",
        f'Forwarded: for=127.0.0.1;host="{LABEL}.localhost";proto=http',
    ]


async def test_a_clients_word_about_itself_is_dropped_with_its_underscore_twins(stage: Stage) -> None:
    seen = await seen_by_device(
        stage,
        "X-Forwarded-For: 1.2.3.4",
        "X_Forwarded_For: 1.2.3.4",
        "X-Forwarded-Host: evil",
        "Forwarded: for=evil",
        "X-Real-IP: 1.2.3.4",
        "x_real_ip: 1.2.3.4",
        "Content_Length: 5",
        "X-Original-URL: /admin",
        "My_Header: kept",
    )
    assert seen == ["Host: 127.0.0.1", "My_Header: kept"]


async def test_a_trusted_proxys_word_about_the_client_is_believed() -> None:
    async with running(settings(visitors={"trusted_proxies": ("127.0.0.0/8",)})) as stage:
        seen = await seen_by_device(
            stage,
            "X-Forwarded-For: 6.6.6.6, 9.9.9.9, 127.0.0.7",
            services=(Service("web", upstream="127.0.0.1:80", forwarded=True),),
        )
    assert "X-Forwarded-For: 9.9.9.9" in seen


async def test_the_session_cookie_never_reaches_the_device(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    cookie = visitor.cookie
    visitor.cookie = b""
    visitor.get("/", f"Cookie: a=1; towline_session={cookie.decode()}; b=2; __Host-towline=x")
    await visitor.response()
    assert b"\r\nCookie: a=1; b=2\r\n" in upstream.received
    assert cookie not in upstream.received


async def test_our_cookie_twice_is_refused(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get("/", "Cookie: towline_session=planted")
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert not upstream.received


async def answer_seen(stage: Stage, *headers: str, **options: object) -> str:
    lines = "".join(f"{line}\r\n" for line in headers)
    await stage.serve(answering(f"HTTP/1.1 200 Fine\r\n{lines}Content-Length: 0\r\n\r\n".encode()), **options)
    visitor = await stage.visitor()
    visitor.get()
    head, _ = await visitor.response()
    return head.decode("latin-1")


async def test_a_device_has_no_say_over_the_browsers_state_or_our_cookie(stage: Stage) -> None:
    head = await answer_seen(
        stage,
        "Alt-Svc: h2",
        'Clear-Site-Data: "*"',
        "Access-Control-Allow-Credentials: true",
        "X-Accel-Redirect: /etc/passwd",
        "Connection: X-Gone",
        "X-Gone: 1",
        "Keep-Alive: timeout=5",
        "Set-Cookie: sid=1; Path=/; Domain=localhost; HttpOnly",
        "Set-Cookie: towline_session=evil",
        "Set-Cookie: __HOST-towline=evil; Secure",
        "Set-Cookie: =towline_session=evil",
        "X-Kept: 1",
    )
    assert head == (
        "HTTP/1.1 200 OK\r\nSet-Cookie: sid=1; Path=/; HttpOnly\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/login", "/login"),
        ("http://127.0.0.1/login?a#b", f"{OWN}/login?a#b"),
        ("http://127.0.0.1:80", f"{OWN}/"),
        ("HTTPS://127.0.0.1/x", f"{OWN}/x"),
        ("//127.0.0.1/x", f"{OWN}/x"),
        ("http://127.0.0.1//evil.example", f"{OWN}//evil.example"),
        (f"https://{LABEL}.localhost/x", f"{OWN}/x"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
        ("http://127.0.0.1@evil.example/", "http://127.0.0.1@evil.example/"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ],
)
async def test_a_redirect_to_the_devices_own_origin_stays_at_the_visitors(
    stage: Stage, location: str, seen: str
) -> None:
    assert f"\r\nLocation: {seen}\r\n" in await answer_seen(stage, f"Location: {location}")
