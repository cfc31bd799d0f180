"""From the printed address to the device's page, as a newcomer clicks."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from testbed.people import Person
from testbed.up import Stack
from tests.browser.browser import WAIT_MS

CUT_WITHIN_S = 2.0  # REQUIREMENTS K4
# The page notes the moment, Unix seconds: whoever looks at it from outside looks once a second.
CUT_AT = """() => {
  const status = document.getElementById("status");
  const look = () => { if (status.textContent !== "live") window.cutAt ??= Date.now() / 1000; };
  new MutationObserver(look).observe(status, {childList: true, characterData: true, subtree: true});
}"""


def open_demo(page: Page, stack: Stack) -> None:
    """The printed address, one click, the device's page."""
    page.goto(stack.address)
    page.get_by_role("button", name="Open", exact=True).click()
    page.wait_for_url("**.localhost:*/")
    expect(page.get_by_role("heading", name="Greenhouse controller")).to_be_visible(timeout=WAIT_MS)


def end_all_sessions(person: Person) -> None:
    for session in person.http.get("/v1/sessions").json()["items"]:
        assert person.http.delete(f"/v1/sessions/{session['id']}").status_code == 204


def test_one_click_opens_the_device(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    assert "towline" not in page.url


def test_the_chart_moves(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    expect(page.locator("#status")).to_have_text("live", timeout=WAIT_MS)
    before = page.locator("#chart").evaluate("(canvas) => canvas.toDataURL()")
    seen = int(page.locator("#chart").get_attribute("data-readings") or 0)
    page.wait_for_function(
        "(seen) => Number(document.getElementById('chart').dataset.readings) > seen + 3", arg=seen
    )
    assert page.locator("#chart").evaluate("(canvas) => canvas.toDataURL()") != before


def test_the_log_fills(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    expect(page.locator("#log li").first).to_be_visible(timeout=WAIT_MS)


def test_an_upload_arrives(page: Page, plain: Stack, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8_000
    file = tmp_path / "notes.bin"
    file.write_bytes(content)
    open_demo(page, plain)
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Upload", exact=True).click()
    digest = hashlib.sha256(content).hexdigest()
    expect(page.locator("#upload-result")).to_contain_text(digest, timeout=WAIT_MS)
    with page.expect_download() as started:
        page.get_by_role("link", name="notes.bin").click()
    assert Path(started.value.path()).read_bytes() == content


def test_the_large_download_is_whole(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    with page.expect_download() as started:
        page.get_by_role("link", name="100MB.bin", exact=True).click()
    got = Path(started.value.path())
    wanted = page.evaluate("async () => (await fetch('/download/100MB.bin.sha256')).text()")
    assert hashlib.sha256(got.read_bytes()).hexdigest() == wanted.strip()


def test_a_preference_and_its_redirect_stay_on_the_origin(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    origin = page.evaluate("location.origin")
    page.locator("#unit-f").click()
    expect(page.locator("#temperature")).to_contain_text("°F", timeout=WAIT_MS)
    assert page.evaluate("location.origin") == origin


def test_ending_the_session_cuts_the_page(page: Page, plain: Stack) -> None:
    open_demo(page, plain)
    expect(page.locator("#status")).to_have_text("live", timeout=WAIT_MS)
    page.evaluate(CUT_AT)
    person = plain.newcomer()
    end_all_sessions(person)
    ended_at = time.time()
    expect(page.locator("#status")).not_to_have_text("live", timeout=WAIT_MS)
    assert page.evaluate("cutAt") - ended_at < CUT_WITHIN_S
    answer = page.reload()
    assert answer is not None
    assert answer.status in (401, 403, 410)
    expect(page.get_by_role("heading")).to_contain_text("ended", ignore_case=True)
    person.close()


def test_the_device_page_of_the_gateway_opens_it_too(page: Page, plain: Stack) -> None:
    page.goto(plain.address)
    page.get_by_role("link", name="Demo device").click()
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.get_by_role("heading", name="Greenhouse controller")).to_be_visible(timeout=WAIT_MS)
