"""A notebook server that checks Host: its web terminal echoes, login and logout keep to the origin."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.browser import WAIT_MS
from tests.device_uis import walks
from tests.device_uis.sessions import Desk


def test_the_terminal_echoes(page: Page, desk: Desk) -> None:
    origin = desk.enter(page, "notebook")
    assert page.url.startswith(origin + "/login")  # two redirects away from /
    walks.notebook(page)
    with page.expect_websocket() as opened:
        page.goto(origin + "/terminals/1")
    page.locator(".terminal").click()
    # The screen is a canvas, so that the text is read where it arrives.
    with opened.value.expect_event("framereceived", lambda frame: "42-answered" in str(frame)):
        page.keyboard.type("echo $((6*7))-answered\n")
    page.goto(origin + "/logout")
    page.goto(origin + "/tree")
    expect(page.locator("#password_input")).to_be_visible(timeout=WAIT_MS)
