"""OctoPrint with a virtual printer behind the tunnel: login, WebSocket, upload, Range, logout (row K10)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.browser import WAIT_MS
from tests.device_uis import walks
from tests.device_uis.programs import Program
from tests.device_uis.sessions import Desk

_LINES = 150_000  # about 4 MB of G-code, as a print of some hours


def test_the_printer_answers(page: Page, desk: Desk) -> None:
    desk.enter(page, "octoprint")
    walks.octoprint(page)
    page.locator("#term_link a").click()
    page.locator("#terminal-command").fill("M115")
    page.locator("#terminal-command").press("Enter")
    expect(page.locator("#terminal-output, #terminal-output-lowfi").first).to_contain_text(
        "FIRMWARE_NAME:Virtual Marlin", timeout=WAIT_MS
    )
    page.reload()
    expect(page.locator("#state")).to_contain_text("Operational", timeout=WAIT_MS)
    page.locator("#navbar_login > a").click()
    page.locator("#logout_button").click()
    expect(page.locator("#login-user")).to_be_visible(timeout=WAIT_MS)


def test_an_upload_and_a_part_of_it(
    page: Page, desk: Desk, programs: dict[str, Program], tmp_path: Path
) -> None:
    content = "".join(f"G1 X{n % 200} Y{n // 200} E{n}\n" for n in range(_LINES)).encode()
    (tmp_path / "bracket.gcode").write_bytes(content)
    desk.enter(page, "octoprint")
    walks.octoprint(page)
    page.locator("#gcode_upload").set_input_files(tmp_path / "bracket.gcode")
    expect(page.locator("#files .entry").get_by_text("bracket.gcode").first).to_be_visible(timeout=WAIT_MS)
    stored = (programs["octoprint"].folder / "base" / "uploads" / "bracket.gcode").read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
    status, told, got = page.evaluate(
        """async () => {
            const headers = { Range: 'bytes=-500' };
            const answer = await fetch('/downloads/files/local/bracket.gcode', { headers });
            return [answer.status, answer.headers.get('content-range'), await answer.text()];
        }"""
    )
    size = len(content)
    assert (status, told) == (206, f"bytes {size - 500}-{size - 1}/{size}")
    assert got.encode() == content[-500:]


def test_its_redirect_stays_on_the_sessions_origin(page: Page, desk: Desk) -> None:
    origin = desk.enter(page, "octoprint")
    expect(page.locator("#login-user")).to_be_visible(timeout=WAIT_MS)
    assert page.url.startswith(origin + "/login/")
