"""A link opens once, for whom it is meant, by a click; looking at it burns nothing (rows K2, N6)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from testbed.people import Visitor
from testbed.up import Stack
from tests.browser.browser import WAIT_MS

DEMO_HEADING = "Greenhouse controller"


def new_link(stack: Stack, binding: str) -> str:
    person = stack.newcomer()
    body = {"service": "web", "binding": binding, "duration_s": 600}
    answer = person.http.post(f"/v1/devices/{person.device()['id']}/sessions", json=body)
    assert answer.status_code == 201, answer.text
    person.close()
    made: dict[str, Any] = answer.json()
    return str(made["url"])


def look_at(url: str) -> None:
    """What previews, scanners and prefetch do."""
    parts = urlsplit(url)
    with httpx.Client(trust_env=False, headers={"Host": parts.netloc}) as scanner:
        address = f"http://127.0.0.1:{parts.port}{parts.path}"
        assert scanner.head(address).status_code == 200
        for _ in range(10):
            assert scanner.get(address).status_code == 200
        assert scanner.get(address, headers={"Sec-Purpose": "prefetch"}).status_code == 200


@pytest.mark.parametrize("binding", ["click", "browser"])
def test_looking_burns_nothing(page: Page, plain: Stack, binding: str) -> None:
    if binding == "browser":
        page.goto(plain.address)
        expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=WAIT_MS)
    url = new_link(plain, binding)
    look_at(url)
    page.goto(url)
    page.get_by_role("button", name="Continue" if binding == "browser" else "Open").click()
    expect(page.get_by_role("heading", name=DEMO_HEADING)).to_be_visible(timeout=WAIT_MS)


def test_the_fragment_leaves_the_address_bar(page: Page, plain: Stack) -> None:
    page.goto(new_link(plain, "click"))
    expect(page.get_by_role("button", name="Open")).to_be_visible(timeout=WAIT_MS)
    assert "#" not in page.url


def test_a_click_link_opens_once(page: Page, browser: Browser, plain: Stack) -> None:
    url = new_link(plain, "click")
    page.goto(url)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name=DEMO_HEADING)).to_be_visible(timeout=WAIT_MS)
    other = browser.new_context()
    late = other.new_page()
    late.goto(url)
    with late.expect_navigation() as navigation:
        late.get_by_role("button", name="Open").click()
    assert navigation.value.status == 410
    expect(late.get_by_role("heading")).to_contain_text("used", ignore_case=True)
    other.close()


def test_the_links_form_names_its_own_origin(page: Page, plain: Stack) -> None:
    """Browsers without Sec-Fetch-Site (Safari before 16.4) are judged by it alone, and `null` is refused."""
    url = new_link(plain, "click")
    page.goto(url)
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name=DEMO_HEADING)).to_be_visible(timeout=WAIT_MS)
    parts = urlsplit(url)
    assert posted.value.all_headers()["origin"] == f"{parts.scheme}://{parts.netloc}"


def test_a_browser_link_is_nothing_without_the_login(page: Page, plain: Stack) -> None:
    """Whoever finds the link in a chat meets the gateway's login, and a scripted POST is refused."""
    url = new_link(plain, "browser")
    page.goto(url)
    page.wait_for_url("**/login**")
    scanner = Visitor(url)
    assert scanner.enter().status_code == 403
    scanner.close()
    page.goto(plain.address)
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=WAIT_MS)
    page.goto(url)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=DEMO_HEADING)).to_be_visible(timeout=WAIT_MS)


def test_a_link_does_not_open_on_another_label(plain: Stack) -> None:
    """The token names its label: a second origin cannot be handed somebody's session."""
    first, second = Visitor(new_link(plain, "click")), Visitor(new_link(plain, "click"))
    stolen = first.http.post("/.towline/open", data={"token": second.token}, headers={"Origin": first.origin})
    assert stolen.status_code in (400, 403, 410)
    assert second.enter().status_code == 303
    first.close()
    second.close()
