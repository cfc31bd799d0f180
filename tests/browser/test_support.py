"""Support with consent as both people see it, in a browser each: by clicking what the pages show."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from testbed.up import Stack
from tests.browser.browser import WAIT_MS

FRESH = itertools.count(1)
LIVE_MS = 2000  # from what support does to its line on the owner's page
REASON = "The fan <script>document.title = 'owned'</script> stands still"


@pytest.fixture
def owner(page: Page, plain: Stack) -> Page:
    page.goto(plain.address)
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=WAIT_MS)
    return page


@pytest.fixture
def engineer(browser: Browser, plain: Stack) -> Iterator[Page]:
    """Somebody of the installation's support, in a browser of their own."""
    name = f"sue-{next(FRESH)}"
    password, admin = secrets.token_urlsafe(16), plain.newcomer()
    admin.call("POST", "/v1/users", {"username": name, "password": password, "role": "support"})
    admin.close()
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(plain.gateway)
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Ask for access")).to_be_visible()
    yield page
    context.close()


def device_of(stack: Stack) -> str:
    person = stack.newcomer()
    try:
        device: str = person.device()["id"]
        return device
    finally:
        person.close()


def test_both_sides_of_a_support_session(
    owner: Page, engineer: Page, plain: Stack, figures: Callable[[str, str], None]
) -> None:
    device = device_of(plain)
    # She asks; nothing opens before the yes.
    engineer.get_by_label("Device id").fill(device)
    engineer.get_by_label("Reason").fill(REASON)
    engineer.get_by_role("button", name="Ask the owner").click()
    expect(engineer.locator("#support .state")).to_have_text("pending")
    assert engineer.request.get(f"{plain.gateway}/devices/{device}").status == 404
    # The owner's page shows it without a reload; hostile text stays text.
    row = owner.locator("[data-support]")
    expect(row).to_contain_text(REASON)
    expect(row).to_contain_text("sue")
    row.get_by_role("button", name="Allow").click()
    expect(row.locator(".state")).to_have_text("approved")
    row.get_by_role("link", name="sue").click()
    expect(owner.get_by_text("Nothing yet.")).to_be_visible()
    assert owner.title() == "Support · Towline"
    # She is told that it is logged, and opens the device.
    engineer.get_by_role("link", name="Open device").click()
    expect(engineer.locator("#banner")).to_contain_text("The owner consented")
    expect(engineer.get_by_role("button", name="Revoke")).to_have_count(0)
    by_click = f"""fetch("/v1/devices/{device}/sessions", {{method: "POST", body: '{{"binding": "click"}}',
        headers: {{"content-type": "application/json"}}}}).then((answer) => answer.json())"""
    clicked = engineer.context.new_page()
    clicked.goto(engineer.evaluate(by_click)["url"])
    expect(clicked.get_by_text("the owner consented")).to_be_visible()
    clicked.close()
    engineer.get_by_role("button", name="Open", exact=True).click()
    engineer.wait_for_url(lambda url: ".localhost" in url and "/.towline/" not in url)
    log = owner.locator("#log")
    expect(log).to_contain_text("GET /style.css")
    # What she does now is on the owner's page while she looks at it.
    began = time.monotonic()
    engineer.evaluate("fetch('/api/request?secret=hidden')")
    expect(log).to_contain_text("GET /api/request", timeout=LIVE_MS)
    figures("a support request to the owner's open page", f"{time.monotonic() - began:.2f} s")
    expect(log).not_to_contain_text("hidden")
    expect(log).to_contain_text("GET /api/live began")
    # The owner ends it, with one click; her page is gone.
    owner.get_by_role("button", name="End").click()
    expect(owner.locator("[data-support] .state")).to_have_text("ended")
    expect(log).to_contain_text("GET /api/live ended")
    engineer.reload()
    expect(engineer.get_by_text("session has ended", exact=False).first).to_be_visible()


def test_a_refused_engineer_sees_that(owner: Page, engineer: Page, plain: Stack) -> None:
    engineer.get_by_label("Device id").fill(device_of(plain))
    engineer.get_by_label("Reason").fill("May I?")
    engineer.get_by_role("button", name="Ask the owner").click()
    owner.locator("[data-support]").get_by_role("button", name="Refuse").click()
    expect(owner.locator("[data-support]")).to_have_count(0)
    expect(engineer.locator("[data-support]")).to_have_count(0)
