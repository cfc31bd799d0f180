"""What people meet in a browser: large files, the browser's own logins, workers, policies, ended sessions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.browser import WAIT_MS
from tests.device_uis.plain_device import PASSWORD, USER, PlainDevice, large_sha256
from tests.device_uis.sessions import Desk

UPLOAD_BYTES = 50 << 20


def test_two_tabs_on_two_services(context: BrowserContext, desk: Desk) -> None:
    """Each keeps its own page, and the one's cookies are not the other's."""
    first, second = context.new_page(), context.new_page()
    desk.enter(first, "web")
    desk.enter(second, "octoprint")
    expect(second.locator("#login-user")).to_be_visible(timeout=WAIT_MS)
    first.reload()
    expect(first.get_by_role("heading", name="Plain device")).to_be_visible(timeout=WAIT_MS)
    assert "csrf_token" not in first.evaluate("document.cookie")
    assert "csrf_token" in second.evaluate("document.cookie")


def test_a_large_download_keeps_its_name(page: Page, desk: Desk) -> None:
    desk.enter(page, "web")
    with page.expect_download() as started:
        page.locator("#large").click()
    assert started.value.suggested_filename == "Betriebsdaten ü.bin"
    with Path(started.value.path()).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == large_sha256()


def test_a_form_uploads_50_megabytes(page: Page, desk: Desk, tmp_path: Path) -> None:
    content = hashlib.sha256(b"upload").digest() * (UPLOAD_BYTES // 32)
    (tmp_path / "backup.tar").write_bytes(content)
    desk.enter(page, "web")
    page.locator("input[type=file]").set_input_files(tmp_path / "backup.tar")
    page.get_by_role("button", name="Send").click()
    digest = hashlib.sha256(content).hexdigest()
    expect(page.get_by_role("heading")).to_have_text(f"{UPLOAD_BYTES} {digest}", timeout=WAIT_MS)


def test_a_service_worker_of_the_device(page: Page, desk: Desk) -> None:
    desk.enter(page, "web")
    page.evaluate(
        """async () => {
            await navigator.serviceWorker.register('/worker.js');
            await navigator.serviceWorker.ready;
            if (!navigator.serviceWorker.controller)
                await new Promise((resolve) => { navigator.serviceWorker.oncontrollerchange = resolve; });
        }"""
    )
    assert page.evaluate("async () => (await fetch('/from-worker')).text()") == "worker"
    page.reload()
    assert page.evaluate("async () => (await fetch('/from-worker')).text()") == "worker"


def test_the_devices_own_policies_hold(page: Page, desk: Desk) -> None:
    """CSP stops the script without the nonce; X-Frame-Options decides about frames."""
    origin = desk.enter(page, "web")
    page.goto(origin + "/strict")
    assert page.title() == "ran"
    page.goto(origin + "/")
    for path, text in (("/framed", "framed"), ("/unframed", "")):
        page.evaluate(
            """(path) => new Promise((resolve) => {
                const frame = document.createElement('iframe');
                frame.onload = resolve;
                frame.name = path;
                frame.src = path;
                document.body.append(frame);
            })""",
            path,
        )
        shown = page.evaluate(
            "(path) => document.getElementsByName(path)[0].contentDocument?.body.innerText ?? ''", path
        )
        assert shown.strip() == text


def test_packed_answers_are_unpacked_once(page: Page, desk: Desk) -> None:
    desk.enter(page, "web")
    assert page.evaluate("async () => (await (await fetch('/gzip')).json()).packed.length") == 5000


@pytest.mark.parametrize("path", ["/basic", "/digest"])
def test_the_browsers_own_login(browser: Browser, desk: Desk, path: str) -> None:
    for password, heading in ((PASSWORD, "inside"), ("wrong", "who are you?")):
        context = browser.new_context(http_credentials={"username": USER, "password": password})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        origin = desk.enter(page, "web")
        page.goto(origin + path)
        expect(page.get_by_role("heading")).to_have_text(heading, timeout=WAIT_MS)
        context.close()


def test_a_last_word_of_a_closing_page_arrives(page: Page, desk: Desk, plain_device: PlainDevice) -> None:
    """`fetch` with keepalive and `sendBeacon` outlive the page."""
    desk.enter(page, "web")
    plain_device.posted.clear()
    page.evaluate(
        """() => addEventListener('pagehide', () => {
            fetch('/last-fetch', { method: 'POST', body: 'bye', keepalive: true });
            navigator.sendBeacon('/last-beacon', 'bye');
        })"""
    )
    page.close(run_before_unload=True)
    expected = {("/last-fetch", b"bye"), ("/last-beacon", b"bye")}
    for _ in range(len(expected)):
        if expected <= set(plain_device.posted):
            break
        plain_device.heard.clear()
        assert expected <= set(plain_device.posted) or plain_device.heard.wait(WAIT_MS / 1000)
    assert expected <= set(plain_device.posted)


def test_back_and_forward(page: Page, desk: Desk) -> None:
    origin = desk.enter(page, "web")
    page.locator("#note").fill("half written")
    page.locator("#other").click()
    expect(page.get_by_role("heading", name="Other")).to_be_visible(timeout=WAIT_MS)
    page.go_back()
    expect(page.get_by_role("heading", name="Plain device")).to_be_visible(timeout=WAIT_MS)
    assert page.locator("#note").input_value() == "half written"
    page.go_forward()
    assert page.url == origin + "/other"
    expect(page.get_by_role("heading", name="Other")).to_be_visible(timeout=WAIT_MS)


def test_the_session_ends_while_the_page_is_open(page: Page, desk: Desk, plain_device: PlainDevice) -> None:
    """The live stream ends; a reload says why in words, and nothing of the device stays in the browser."""
    origin = desk.enter(page, "web")
    page.evaluate(
        """() => { localStorage.setItem('left', 'behind'); document.cookie = 'own=1';
            window.source = new EventSource('/events'); }"""
    )
    assert plain_device.wait_live("/events", 1, WAIT_MS / 1000)
    desk.end_all()
    assert plain_device.wait_live("/events", 0, WAIT_MS / 1000)
    answer = page.goto(origin + "/")
    assert answer is not None
    assert answer.status in (403, 410)
    expect(page.get_by_role("heading")).to_have_text("The session has ended", timeout=WAIT_MS)
    assert "storage" in answer.all_headers()["clear-site-data"]
    assert page.evaluate("localStorage.getItem('left')") is None
    assert page.evaluate("document.cookie") == ""
