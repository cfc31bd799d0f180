"""The same request directly and through the tunnel: equal but in what is documented."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from testbed.people import Visitor
from tests.device_uis.plain_device import PlainDevice
from tests.device_uis.programs import Program
from tests.device_uis.sessions import Desk

# Hop by hop (the edge frames anew), or new at each answer (times, counters, random cookies).
_DIFFER = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "date",
    "server-timing",
    "set-cookie",
}
# docs/device-uis.md: what a device may not say to a browser.
_DROPPED = {"access-control-allow-credentials", "alt-svc", "clear-site-data"}
REQUESTS = {
    "node-red": ["/", "/auth/login", "/flows", "/red/red.min.js", "/static", "/missing", "/favicon.ico"],
    "octoprint": [
        "/",
        "/login/",
        "/api/version",
        "/static/webassets/packed_core.js",
        "/missing",
        "/api/files",
    ],
    "notebook": ["/", "/login", "/api/status", "/static/base/js/main.min.js", "/missing", "/tree"],
    "dashboard": ["/", "/_stcore/health", "/missing.js", "/favicon.png"],
    "web": ["/", "/strict", "/gzip", "/basic", "/moved", "/moved-relative", "/moved-away", "/missing"],
}
_UNPACKED = {"Accept-Encoding": "identity"}
_RANDOM_BODY = {("octoprint", "/login/"), ("notebook", "/login")}  # hold a token of their own


def told(answer: httpx.Response, dropped: set[str]) -> dict[str, str]:
    return {
        name.lower(): value for name, value in answer.headers.items() if name.lower() not in _DIFFER | dropped
    }


def cookie_names(answer: httpx.Response) -> list[str]:
    """Without the port at their end, which OctoPrint takes from the address it is asked by."""
    return [line.partition("=")[0].partition("_P")[0] for line in answer.headers.get_list("set-cookie")]


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_the_same(
    desk: Desk,
    programs: dict[str, Program],
    plain_device: PlainDevice,
    visit: Callable[[str], Visitor],
    name: str,
) -> None:
    visitor = visit(name)
    base = plain_device.url if name == "web" else programs[name].url
    with httpx.Client(base_url=base, trust_env=False) as directly:  # keeps cookies, as the visitor does
        for path in REQUESTS[name]:
            for headers in ({}, _UNPACKED, _UNPACKED | {"Range": "bytes=10-19"}):
                what = (path, headers)
                direct, through = directly.get(path, headers=headers), visitor.http.get(path, headers=headers)
                random = {"etag"} if (name, path) in _RANDOM_BODY else set()
                assert through.status_code == direct.status_code, what
                expected = told(direct, _DROPPED | random)
                if expected.get("location", "").startswith(base):
                    expected["location"] = visitor.origin + expected["location"].removeprefix(base)
                assert told(through, random) == expected, what
                assert cookie_names(through) == cookie_names(direct), what
                assert random or through.content == direct.content, what
