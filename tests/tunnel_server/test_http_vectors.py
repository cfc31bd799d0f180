"""The shared vectors of request heads: this server writes exactly what devices are held to read."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httptools
import pytest

from tunnel_protocol import Service
from tunnel_server.errors import BadRequest
from tunnel_server.policy.hosts import Sites
from tunnel_server.policy.request_head import RULES, RequestHead, names_another_protocol
from tunnel_server.policy.services import ServiceOptions, service_options
from tunnel_server.policy.upstream_head import upstream_head

_PATH = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "http_requests.json"
_VECTORS: dict[str, Any] = json.loads(_PATH.read_text(encoding="utf-8"))
_HOST = b"abcdefghijklmnopqrstuvwxyz.tunnel.test"
_PLAIN = ServiceOptions("ui", "http", None, None, False, ())

_requests = pytest.mark.parametrize("vector", _VECTORS["requests"], ids=lambda one: str(one["name"]))
_bad = pytest.mark.parametrize("vector", _VECTORS["bad"], ids=lambda one: str(one["name"]))


class _Reading:
    """A visitor's head as the edge reads it: by llhttp, header by header."""

    def __init__(self, head: bytes) -> None:
        self.head = RequestHead()
        self.whole = False
        self._parser = httptools.HttpRequestParser(self)
        with suppress(httptools.HttpParserUpgrade):  # nothing of another protocol follows
            self._parser.feed_data(head)
        if names_another_protocol(self.head.method, self.head.target, head):
            raise BadRequest("another protocol")

    def on_url(self, url: bytes) -> None:
        self.head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        rule = RULES.learn(name)
        if rule is None:
            self.head.lines.append(b"%b: %b\r\n" % (name, value))
        else:
            rule(self.head, name, value)

    def on_headers_complete(self) -> None:
        self.head.method = self._parser.get_method()
        self.head.minor = {"1.0": 0, "1.1": 1}[self._parser.get_http_version()]
        self.head.finish()
        self.whole = True


def _passed_on(text: str, service: ServiceOptions, client: str = "192.0.2.7") -> str | None:
    """The head that a device gets; None when the visitor is refused, or has not said all."""
    try:
        reading = _Reading(text.encode("latin-1"))
    except (BadRequest, httptools.HttpParserError):
        return None
    if not reading.whole:
        return None
    site = Sites("tunnel.test", "https").find(_HOST)
    assert site is not None
    head = reading.head
    return upstream_head(head, site, service, cookie=head.cookie, scheme=b"https", client=client).decode(
        "latin-1"
    )


@_requests
def test_a_request_is_written_so(vector: dict[str, Any]) -> None:
    told = vector["service"]
    service = Service(told["name"], told["kind"], told["host"], told["forwarded"], told["upstream"])
    assert _passed_on(vector["visitor"], service_options(service), vector["client"]) == vector["device"]


@_bad
def test_what_a_device_refuses_is_refused_here_or_written_otherwise(vector: dict[str, Any]) -> None:
    passed_on = vector.get("passed_on", {"head": None})["head"]
    assert _passed_on(vector["head"], _PLAIN) == passed_on
    assert passed_on != vector["head"]


def test_there_are_enough() -> None:
    assert len(_VECTORS["requests"]) >= 20
    assert len(_VECTORS["bad"]) >= 60
