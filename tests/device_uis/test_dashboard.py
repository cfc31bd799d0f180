"""A Streamlit dashboard, whose WebSocket wants an Origin that equals Host: input, upload and download."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.browser import WAIT_MS
from tests.device_uis import walks
from tests.device_uis.sessions import Desk


def test_the_dashboard_works(page: Page, desk: Desk, tmp_path: Path) -> None:
    desk.enter(page, "dashboard")
    walks.dashboard(page)
    page.get_by_label("Target").fill("60")
    page.get_by_label("Target").press("Enter")
    expect(page.get_by_text("Flow temperature 75 °C")).to_be_visible(timeout=WAIT_MS)
    content = os.urandom(3_000_000)
    (tmp_path / "firmware.bin").write_bytes(content)
    page.locator("input[type=file]").set_input_files(tmp_path / "firmware.bin")
    expect(page.get_by_text(hashlib.sha256(content).hexdigest())).to_be_visible(timeout=WAIT_MS)
    with page.expect_download() as started:
        page.get_by_role("button", name="Save").click()
    assert started.value.suggested_filename == "readings.csv"
    assert Path(started.value.path()).read_bytes() == b"0123456789" * 100
