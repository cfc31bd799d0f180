"""What flows: events one by one, pictures without an end, WebSockets, and bodies that break off."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import pytest

from tests.deployment.client import TIMEOUT_S, Client
from tests.deployment.site import Site

Visit = Callable[..., Client]


def test_an_event_arrives_before_the_next_one_is_made(site: Site, front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", "/events", headers={"Accept": "text/event-stream"})
    assert answer.headers["Content-Type"] == "text/event-stream"
    for number in range(3):
        assert answer.readline() == b"data: %d\n" % number  # the device waits for us meanwhile
        assert answer.readline() == b"\n"
        site.device.steps.go()
    assert answer.read() == b""


def test_a_cameras_pictures_arrive_one_by_one(site: Site, front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", "/camera")
    for _ in range(3):
        picture = b"".join(answer.readline() for _ in range(5))
        assert picture.endswith(b"\xff\xd8picture\r\n")
        site.device.steps.go()
    assert answer.read() == b""


def test_pieces_of_a_body_with_a_length_are_not_held_back(site: Site, front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", "/drip")
    for piece in (b"ab", b"cd", b"ef"):
        assert answer.read(2) == piece
        site.device.steps.go()


def upload_head(visitor: Client, path: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {visitor.host}\r\nOrigin: {visitor.origin}\r\n"
        f"Cookie: {visitor.cookie}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def test_an_upload_reaches_the_device_while_it_is_sent(site: Site, front: str, visit: Visit) -> None:
    """The device must have one piece before the next is sent: nothing collects the body."""
    visitor = visit(front)
    with visitor.connection() as connection:
        connection.sendall(upload_head(visitor, "/arriving") + b"5\r\nfirst\r\n")
        assert site.device.arrived.get(timeout=TIMEOUT_S) == b"first"
        connection.sendall(b"6\r\nsecond\r\n")
        assert site.device.arrived.get(timeout=TIMEOUT_S) == b"second"
        connection.sendall(b"0\r\n\r\n")
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        assert answer.read() == b"all of it"


@pytest.mark.parametrize("front", ["nginx", "haproxy", "nginx-stream"])
def test_a_device_may_answer_while_it_is_told(front: str, visit: Visit) -> None:
    """Not through Caddy 2.6, whose HTTP/1.1 reads a request to its end before it lets an answer out."""
    visitor = visit(front)
    with visitor.connection() as connection:
        connection.sendall(upload_head(visitor, "/conversation") + b"5\r\nfirst\r\n")
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        assert answer.read(5) == b"first"
        connection.sendall(b"6\r\nsecond\r\n")
        assert answer.read(6) == b"second"
        connection.sendall(b"0\r\n\r\n")
        assert answer.read() == b""


def test_a_websocket_echoes(front: str, visit: Visit) -> None:
    with visit(front, "echo").websocket() as socket:
        for message in ("hello", b"\x00\xff" * 70_000, "again"):
            socket.send(message)
            assert socket.recv(20) == message


def test_who_leaves_a_quiet_stream_frees_it_at_the_device(site: Site, front: str, visit: Visit) -> None:
    site.device.steps.gone.clear()
    visitor = visit(front)
    answer = visitor.ask("GET", "/quiet")
    assert answer.readline() == b": hello\n"
    answer.close()
    visitor.close()
    assert site.device.steps.gone.wait(15)


def test_a_body_shorter_than_it_said_is_seen(front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", "/cut/length")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()


@pytest.mark.parametrize("front", ["nginx", "haproxy", "nginx-stream"])
def test_a_body_without_a_length_that_was_cut_never_looks_whole(front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", "/cut/chunked")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()


def test_caddy_2_6_ends_such_a_body_as_if_it_were_whole(visit: Visit) -> None:
    """What the runbook warns of. When a newer Caddy fails this, caddy joins the test above."""
    assert visit("caddy").ask("GET", "/cut/chunked").read() == b"x" * 50_000


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_a_device_commands_no_proxy(site: Site, front: str, visit: Visit) -> None:
    """X-Accel-Redirect and its kin are words for nginx; from a device they are words like others."""
    answer = visit(front).ask("GET", "/accel")
    assert answer.read() == b"my own page"
    assert [path for _, path, _ in site.device.requests].count("/accelerated") == 0
