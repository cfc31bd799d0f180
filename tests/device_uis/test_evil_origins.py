"""Four kinds of Origin against every UI: a page that is not the session's own gets 403."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page

from testbed.people import Visitor
from tests.device_uis.plain_device import PlainDevice
from tests.device_uis.programs import Program
from tests.device_uis.sessions import DOMAIN, Desk

# Where each UI's own page opens its WebSocket. The notebook wants a login first, the plain device has none.
SOCKETS = {
    "node-red": "/comms",
    "octoprint": "/sockjs/000/aaaaaaaa/websocket",
    "notebook": "/terminals/websocket/1",
    "dashboard": "/_stcore/stream",
    "web": "/none",
}
OPEN_SOCKETS = ("node-red", "octoprint", "dashboard")
METHODS = ("POST", "PUT", "PATCH", "DELETE")
STOP_S = 10.0


def evil_origins(own: str) -> dict[str, str]:
    port = own.rpartition(":")[2]
    return {
        "sibling": f"https://{'b' * 26}.{DOMAIN}:{port}",
        "foreign": "https://evil.example",
        "opaque": "null",
    }


def is_ours(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and "does not belong to this device" in answer.text


def upgrade(client: httpx.Client, path: str, headers: dict[str, str]) -> httpx.Response:
    """The answer to a WebSocket's handshake (RFC 6455 section 4.1); what it opens is closed again."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with client.stream("GET", path, headers=handshake | headers) as answer:
        if answer.status_code != 101:
            answer.read()
        return answer


@pytest.mark.parametrize("name", SOCKETS)
def test_an_evil_origin_gets_403(visit: Callable[[str], Visitor], name: str) -> None:
    """With the session's cookie, as a browser that SameSite does not stop would send it."""
    visitor = visit(name)
    # What a browser adds, none (older ones), and what an older one that knows no fetch metadata sends.
    for kind, origin in evil_origins(visitor.origin).items():
        for site in ("same-site", "cross-site", None):
            headers = {"Origin": origin} | ({"Sec-Fetch-Site": site} if site else {})
            for method in METHODS:
                assert is_ours(visitor.http.request(method, "/", headers=headers)), (kind, site, method)
            assert is_ours(upgrade(visitor.http, SOCKETS[name], headers)), (kind, site)


@pytest.mark.parametrize("name", SOCKETS)
def test_the_pages_own_origin_passes(visit: Callable[[str], Visitor], name: str) -> None:
    """The control of the test above: the same requests with the right Origin reach the UI."""
    visitor = visit(name)
    for site in ("same-origin", None):
        headers = {"Origin": visitor.origin} | ({"Sec-Fetch-Site": site} if site else {})
        for method in METHODS:
            assert not is_ours(visitor.http.request(method, "/", headers=headers)), (site, method)
        if name in OPEN_SOCKETS:
            assert upgrade(visitor.http, SOCKETS[name], headers).status_code == 101


def test_some_uis_let_anybody_in_by_themselves(programs: dict[str, Program], desk: Desk) -> None:
    """Why the tunnel must check: Node-RED takes a WebSocket of any page."""
    with httpx.Client(base_url=programs["node-red"].url, trust_env=False) as anybody:
        assert upgrade(anybody, "/comms", {"Origin": "https://evil.example"}).status_code == 101


_TRY = """async ([http, socket]) => {
    const posted = await fetch(http, { method: 'POST', credentials: 'include', mode: 'no-cors' })
        .then((answer) => answer.type, () => 'refused');
    const read = await fetch(http, { credentials: 'include' }).then(() => 'read', () => 'refused');
    const opened = await new Promise((resolve) => {
        const one = new WebSocket(socket);
        one.onopen = () => resolve(true);
        one.onerror = () => resolve(false);
    });
    return [posted, read, opened];
}"""


class _EvilPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><h1>evil</h1>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def foreign(context: BrowserContext) -> Page:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _EvilPage)
    serving = Thread(target=server.serve_forever, daemon=True)
    serving.start()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    server.shutdown()
    serving.join(STOP_S)
    server.server_close()
    return page


@pytest.mark.parametrize("name", SOCKETS)
def test_evil_pages_in_the_same_browser(
    context: BrowserContext, page: Page, foreign: Page, desk: Desk, plain_device: PlainDevice, name: str
) -> None:
    """A sibling's page, a foreign site and a sandboxed frame, in the profile that holds the session."""
    origin = desk.enter(page, name)
    sibling = context.new_page()
    desk.enter(sibling, "web")
    frame_element = foreign.evaluate_handle(
        """() => { const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';
        frame.srcdoc = 'opaque'; document.body.append(frame); return frame; }"""
    ).as_element()
    assert frame_element is not None
    opaque = frame_element.content_frame()
    assert opaque is not None
    socket = origin.replace("https:", "wss:") + SOCKETS[name]
    plain_device.posted.clear()
    for where in (sibling, foreign, opaque):
        posted, read, opened = where.evaluate(_TRY, [origin + "/settings", socket])
        assert posted in ("opaque", "refused")  # its status is hidden from the evil page, not from us
        assert (read, opened) == ("refused", False)
    assert plain_device.posted == []
    # The control: the page itself may.
    posted, read, opened = page.evaluate(_TRY, [origin + "/settings", socket])
    assert (posted, read) == ("basic", "read")
    assert opened or name not in OPEN_SOCKETS
    if name == "web":
        assert [path for path, _ in plain_device.posted] == ["/settings"]
