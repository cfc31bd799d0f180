"""What a person does first in each UI: log in and see it live; the same directly and through the tunnel."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.browser import WAIT_MS
from tests.device_uis.device_programs import PASSWORD, USER


def node_red(page: Page) -> None:
    page.locator("#node-dialog-login-username").fill(USER)
    page.locator("#node-dialog-login-password").fill(PASSWORD)
    page.locator("#node-dialog-login-submit").click()
    expect(page.locator("#red-ui-header-button-deploy")).to_be_visible(timeout=WAIT_MS)
    page.wait_for_function("() => RED.workspaces.active()", timeout=WAIT_MS)  # its flows are there


def octoprint(page: Page) -> None:
    page.locator("#login-user").fill(USER)
    page.locator("#login-password").fill(PASSWORD)
    page.locator("#login-button").click()
    expect(page.locator("#state")).to_contain_text("Operational", timeout=WAIT_MS)  # comes by WebSocket


def notebook(page: Page) -> None:
    page.locator("#password_input").fill(PASSWORD)
    page.locator("#login_submit").click()
    expect(page.locator("#notebook_list")).to_be_visible(timeout=WAIT_MS)


def dashboard(page: Page) -> None:
    expect(page.get_by_role("heading", name="Boiler")).to_be_visible(timeout=WAIT_MS)  # comes by WebSocket
    expect(page.get_by_text("Flow temperature 55 °C")).to_be_visible(timeout=WAIT_MS)


WALKS: dict[str, Callable[[Page], None]] = {
    "node-red": node_red,
    "octoprint": octoprint,
    "notebook": notebook,
    "dashboard": dashboard,
}
