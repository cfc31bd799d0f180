"""Two devices on sibling origins cannot reach each other (rows K3, F4, N7).

On TLS below a name outside the Public Suffix List the siblings are same-site, so that only the product's own
rules keep them apart; on `*.localhost` these tests would pass by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from testbed.up import Stack
from tests.browser.browser import WAIT_MS
from tests.browser.conftest import DOMAIN
from tests.browser.devices import device

_PAGE = b"<!doctype html><title>hostile</title><h1>Hostile device</h1>"
_WORKER = b"self.addEventListener('fetch', (event) => event.respondWith(new Response('taken over')));"


class _HostileDevice(BaseHTTPRequestHandler):
    """A device that tries to reach beyond its origin by every header it has."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        worker = self.path == "/worker.js"
        body = _WORKER if worker else _PAGE
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if worker else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", f"tossed=1; Domain={DOMAIN}; Path=/")
        self.send_header("Set-Cookie", "__Host-towline=fixed; Secure; Path=/")
        self.send_header("Set-Cookie", "own=kept; Path=/")
        self.send_header("Clear-Site-Data", '"*"')
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Alt-Svc", 'h2="evil.example:443"')
        self.send_header("Service-Worker-Allowed", "/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def hostile_port() -> Iterator[int]:
    _HostileDevice.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _HostileDevice)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield server.server_address[1]
    server.shutdown()
    serving.join(WAIT_MS / 1000)
    server.server_close()


@pytest.fixture(scope="module")
def hostile(with_tls: Stack, folder: Path, hostile_port: int) -> Iterator[str]:
    with device(with_tls, folder / "hostile", "hostile", port=hostile_port) as identity:
        yield identity


def enter(page: Page, stack: Stack, device_id: str) -> str:
    """Opens a session to the device in the page; the session's origin."""
    person = stack.newcomer()
    page.goto(str(person.open_session(device_id)["url"]))
    page.get_by_role("button", name="Open").click()
    page.wait_for_url(f"**.{DOMAIN}:*/")
    person.close()
    return str(page.evaluate("location.origin"))


@pytest.fixture
def two(page: Page, with_tls: Stack, hostile: str) -> tuple[Page, str, Page, str]:
    """(victim's page, its origin, hostile page, its origin) in one browser profile."""
    person = with_tls.newcomer()
    victim_id = person.device()["id"]
    person.close()
    victim_origin = enter(page, with_tls, victim_id)
    expect(page.get_by_role("heading", name="Greenhouse controller")).to_be_visible(timeout=WAIT_MS)
    evil = page.context.new_page()
    evil_origin = enter(evil, with_tls, hostile)
    expect(evil.get_by_role("heading", name="Hostile device")).to_be_visible(timeout=WAIT_MS)
    return page, victim_origin, evil, evil_origin


def cookies_for(context: BrowserContext, origin: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in context.cookies(origin)}


def test_each_session_has_its_own_origin(two: tuple[Page, str, Page, str]) -> None:
    _, victim_origin, _, evil_origin = two
    assert victim_origin != evil_origin
    assert victim_origin.startswith("https://")


def test_cookies_do_not_cross(two: tuple[Page, str, Page, str]) -> None:
    victim, victim_origin, evil, evil_origin = two
    before = cookies_for(victim.context, victim_origin)
    evil.reload()
    evil.evaluate(f"document.cookie = 'bomb=1; Domain={DOMAIN}; Path=/; Secure'")
    assert "tossed" not in cookies_for(victim.context, victim_origin)
    assert before["__Host-towline"] != "fixed"
    assert cookies_for(victim.context, victim_origin)["__Host-towline"] == before["__Host-towline"]
    assert cookies_for(evil.context, evil_origin)["own"] == "kept"
    assert cookies_for(evil.context, evil_origin)["__Host-towline"] != before["__Host-towline"]


def test_the_session_cookie_is_out_of_reach_of_pages_and_devices(two: tuple[Page, str, Page, str]) -> None:
    victim, _, evil, _ = two
    assert "towline" not in victim.evaluate("document.cookie")
    evil.reload()
    assert _HostileDevice.seen
    assert all("towline" not in one.get("cookie", "") for one in _HostileDevice.seen)


def test_storage_does_not_cross(two: tuple[Page, str, Page, str]) -> None:
    victim, _, evil, _ = two
    victim.evaluate("localStorage.setItem('secret', 'greenhouse')")
    assert evil.evaluate("localStorage.getItem('secret')") is None
    evil.evaluate("localStorage.setItem('secret', 'hostile')")
    assert victim.evaluate("localStorage.getItem('secret')") == "greenhouse"


def test_a_service_worker_stays_at_home(two: tuple[Page, str, Page, str]) -> None:
    victim, _, evil, _ = two
    evil.evaluate("async () => { await navigator.serviceWorker.register('/worker.js', { scope: '/' }); await"
                  " navigator.serviceWorker.ready; }")  # fmt: skip
    assert victim.evaluate("async () => (await navigator.serviceWorker.getRegistrations()).length") == 0
    victim.reload()
    expect(victim.get_by_role("heading", name="Greenhouse controller")).to_be_visible(timeout=WAIT_MS)


def test_a_sibling_can_neither_read_nor_write(two: tuple[Page, str, Page, str]) -> None:
    """Same-site, so SameSite lets the cookie through: Sec-Fetch-Site and Origin must stop it."""
    _, victim_origin, evil, _ = two
    attempt = """async ([url, method]) => {
        try {
            const answer = await fetch(url, { method, credentials: "include", mode: "no-cors" });
            return answer.type;
        } catch (error) { return "refused"; }
    }"""
    read = """async (url) => {
        try {
            return (await fetch(url, { credentials: "include" })).status;
        } catch (error) { return "refused"; }
    }"""
    assert evil.evaluate(read, f"{victim_origin}/api/uploads") == "refused"
    with evil.expect_response(f"{victim_origin}/settings/unit") as answered:
        evil.evaluate(attempt, [f"{victim_origin}/settings/unit", "POST"])
    assert answered.value.status == 403


def test_a_sibling_cannot_open_a_websocket(two: tuple[Page, str, Page, str]) -> None:
    _, victim_origin, evil, _ = two
    address = victim_origin.replace("https://", "wss://") + "/api/live"
    opened = evil.evaluate(
        """(address) => new Promise((resolve) => {
            const socket = new WebSocket(address);
            socket.onopen = () => resolve(true);
            socket.onerror = () => resolve(false);
        })""",
        address,
    )
    assert opened is False


def test_the_end_of_a_session_takes_its_data_along(two: tuple[Page, str, Page, str], with_tls: Stack) -> None:
    victim, victim_origin, _, _ = two
    victim.evaluate("localStorage.setItem('left', 'behind')")
    person = with_tls.newcomer()
    for session in person.http.get("/v1/sessions").json()["items"]:
        person.http.delete(f"/v1/sessions/{session['id']}")
    person.close()
    expect(victim.locator("#status")).not_to_have_text("live", timeout=WAIT_MS)
    answer = victim.goto(victim_origin + "/")
    assert answer is not None
    assert "storage" in answer.all_headers()["clear-site-data"]
    assert victim.evaluate("localStorage.getItem('left')") is None
