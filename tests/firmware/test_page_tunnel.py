"""The device's page through a session link: `towline up --device simulator` and real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from testbed.processes import short_folder, started
from testbed.up import Stack
from testbed.waiting import eventually
from tests.browser.browser import WAIT_MS, chromium
from tests.browser.test_first_visit import end_all_sessions

pytestmark = pytest.mark.xdist_group("firmware-page")

PHONE_WIDTH, PHONE_HEIGHT = 360, 640


@pytest.fixture(scope="module")
def stack(simulator: Path) -> Iterator[Stack]:
    with short_folder("page-") as folder, started(Stack(folder / "up", "--device", "simulator")) as one:
        yield one


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Iterator[Browser]:
    with chromium(resolve="*.tunnel.test", trust="") as one:
        yield one


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A phone, from the address that `towline up` printed to the device's page."""
    options = browser.new_context(
        viewport={"width": PHONE_WIDTH, "height": PHONE_HEIGHT}, is_mobile=True, has_touch=True
    )
    with closing(options) as context:
        context.set_default_timeout(WAIT_MS)
        one = context.new_page()
        one.goto(stack.address)
        one.get_by_role("button", name="Open", exact=True).click()
        one.wait_for_url("**.localhost:*/")
        expect(one.locator("#state")).to_have_text("Live", timeout=WAIT_MS)
        yield one


def open_tab(page: Page, tab: str) -> None:
    page.locator(f"nav a[href='#{tab}']").click()
    expect(page.locator(f"#{tab}")).to_be_visible(timeout=WAIT_MS)


def test_live_on_a_phone_without_a_pin(page: Page) -> None:
    expect(page.locator("#where")).to_have_text("Through the tunnel", timeout=WAIT_MS)
    expect(page.locator("#connections")).to_contain_text("Connected", timeout=WAIT_MS)
    values = page.locator("#sensors b")
    expect(values.first).to_be_visible(timeout=WAIT_MS)
    before = values.all_inner_texts()
    eventually("measured values move", lambda: values.all_inner_texts() != before)
    assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE_WIDTH


def test_settings_and_logs(page: Page) -> None:
    open_tab(page, "settings")
    expect(page.get_by_text("You come through the tunnel")).to_be_visible(timeout=WAIT_MS)
    page.get_by_label("Name").fill("Pump 7")
    form = page.locator("form", has=page.get_by_role("heading", name="Device"))
    form.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("Pump 7", timeout=WAIT_MS)
    open_tab(page, "logs")
    expect(page.locator("#lines")).to_contain_text("started", timeout=WAIT_MS)
    assert "PIN" not in page.locator("#lines").inner_text()


def test_a_large_image_is_refused_on_its_way(page: Page, tmp_path: Path) -> None:
    """Its head is wrong: the device says so long before the last byte, through 4 KiB of window."""
    open_tab(page, "system")
    image = tmp_path / "image.twf"
    image.write_bytes(bytes(3_000_000))
    page.get_by_label("New image").set_input_files(image)
    page.get_by_role("button", name="Upload").click()
    page.locator("#sure").click()
    expect(page.locator("#wrong")).to_have_text("It is no firmware image.", timeout=WAIT_MS)
    expect(page.locator("#state")).to_have_text("Live", timeout=WAIT_MS)


def test_the_end_of_the_session_is_no_login(page: Page, stack: Stack) -> None:
    person = stack.newcomer()
    with closing(person):
        end_all_sessions(person)
    expect(page.locator("#lost")).to_contain_text("session is over", timeout=WAIT_MS)
    assert page.locator("#login").is_hidden()
