"""Whose address counts: the person's, whatever stands in front and whatever the person claims."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from tests.deployment.client import PERSON, TIMEOUT_S, Client
from tests.deployment.site import GATEWAY, Site

Visit = Callable[..., Client]
CLAIMS = {
    "X-Forwarded-For": "203.0.113.99",
    "X-Real-IP": "203.0.113.98",
    "Forwarded": "for=203.0.113.97",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
}


def test_the_device_hears_the_persons_address_and_no_claim(site: Site, front: str, visit: Visit) -> None:
    visitor = visit(front, address="127.0.0.9")
    assert visitor.get("/seen", CLAIMS)[0] == 200
    _, _, seen = site.device.requests[-1]
    assert seen["x-forwarded-for"] == "127.0.0.9"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-host"] == visitor.host
    assert seen["forwarded"] == f'for=127.0.0.9;host="{visitor.host}";proto=https'
    assert "203.0.113" not in str(seen)
    assert "x-real-ip" not in seen


def log_in(client: Client, **headers: str) -> int:
    body = json.dumps({"username": f"nobody-{client.origin}", "password": "wrong"}).encode()
    answer = client.ask("POST", "/v1/login", body, {"Content-Type": "application/json", **headers})
    answer.read()
    return answer.status


def test_logins_are_limited_by_the_persons_address(site: Site, front: str) -> None:
    """One address tries too often, and invents others; its neighbour is let in."""
    number = site_number(front)
    guesser = site.client(front, GATEWAY, address=f"127.0.1.{number}")
    statuses = [log_in(guesser, **{"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(16)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    neighbour = site.client(front, GATEWAY, address=f"127.0.2.{number}")
    assert log_in(neighbour) == 401
    guesser.close()
    neighbour.close()


def site_number(front: str) -> int:
    return 10 + ["nginx", "caddy", "haproxy", "nginx-stream"].index(front)


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 192.0.2.1 10.0.0.1 1 443\r\n"])
def test_a_proxys_header_by_hand_brings_nothing_through_a_front(
    site: Site, front: str, header: bytes
) -> None:
    """To a proxy such bytes are no TLS: nobody speaks for somebody else."""
    with socket.create_connection(("127.0.0.1", site.https[front]), TIMEOUT_S, (PERSON, 0)) as raw:
        raw.sendall(header + b"GET / HTTP/1.1\r\n\r\n")
        received = raw.recv(4096)
        assert b"200 OK" not in received
