"""Live events in a real browser: its own EventSource and WebSocket, through nginx to two gateways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from testbed.gateways import Gateways
from testbed.people import Person
from testbed.processes import short_folder, started
from testbed.settings_tables import ADMIN, PASSWORD
from testbed.waiting import eventually
from tests.browser.browser import WAIT_MS, chromium
from tests.browser.certificates import WildcardCertificate
from tests.browser.conftest import DOMAIN

CONNECTING, CLOSED = 0, 2  # EventSource.readyState (WHATWG HTML, 9.2.2)

# What a page of ours would do. `told` has each event with the id that the browser keeps.
FOLLOW = """address => {
  window.told = [];
  const source = window.source = new EventSource(address);
  for (const kind of ["ready", "reset", "end", "site.changed"]) {
    source.addEventListener(kind, event => {
      told.push({kind, at: performance.now(), last: event.lastEventId, data: JSON.parse(event.data)});
    });
  }
}"""
FOLLOW_BY_SOCKET = """address => {
  window.told = [];
  const socket = new WebSocket(address);
  socket.onmessage = message => told.push(JSON.parse(message.data));
  socket.onclose = event => told.push({kind: "closed", code: event.code, reason: event.reason});
}"""


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    with short_folder() as folder, started(Gateways(folder, replicas=2)) as running:
        yield running


@pytest.fixture(scope="module")
def browser(gateways: Gateways, certificate: WildcardCertificate) -> Iterator[Browser]:
    """Behind the gateways, whose start has a loop of its own: Playwright's then runs until the end."""
    with chromium(resolve=f"*.{DOMAIN}", trust=certificate.spki_hash) as running:
        yield running


@pytest.fixture
def page(browser: Browser, gateways: Gateways) -> Iterator[Page]:
    """Somebody logged in, on a document of the gateway's without a script: a page of the console goes to the
    login by itself once it is refused, and takes the test's EventSource with it.
    """
    with closing(browser.new_context()) as context:
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(f"{gateways.url}/login")
        page.locator("input[name=username]").fill(ADMIN)
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{gateways.url}/")
        page.goto(f"{gateways.url}/static/towline.css")
        yield page


@pytest.fixture(scope="module")
def owner(gateways: Gateways) -> Person:
    """The same person at another machine, by whom things happen; not through nginx."""
    return gateways.owner("gateway-0")


def rename(owner: Person, name: str) -> None:
    site = owner.call("GET", "/v1/sites")["items"][0]["id"]
    owner.call("PATCH", f"/v1/sites/{site}", {"name": name})


def wait_told(page: Page, kind: str, times: int) -> list[dict[str, Any]]:
    """What the page was told, once that many of a kind are among it."""
    page.wait_for_function(
        "([kind, times]) => told.filter(one => one.kind === kind).length >= times", arg=[kind, times]
    )
    found: list[dict[str, Any]] = page.evaluate("told")
    assert sum(one["kind"] == kind for one in found) == times, found
    return found


def wait_state(page: Page, state: int) -> None:
    page.wait_for_function("state => source.readyState === state", arg=state)


def follows(page: Page, address: str) -> bool:
    """Whether a new EventSource is let in."""
    page.evaluate(FOLLOW, address)
    page.wait_for_function("state => source.readyState !== state", arg=CONNECTING)
    return bool(page.evaluate("state => source.readyState !== state", CLOSED))


@contextmanager
def away(gateways: Gateways) -> Iterator[None]:
    """All killed, and back at the end."""
    for name in gateways.names:
        gateways.processes.kill(name)
    try:
        yield
    finally:
        for name in gateways.names:
            gateways.processes.again(name)
            gateways.wait_ready(name)


def test_events_arrive_one_by_one(page: Page, owner: Person) -> None:
    page.evaluate(FOLLOW, "/v1/events")
    wait_told(page, "ready", 1)
    for number in range(1, 4):
        rename(owner, f"Works {number}")
        found = wait_told(page, "site.changed", number)  # before the next one happens
        assert found[-1]["last"] == str(found[-1]["data"]["id"])
    page.evaluate("source.close()")


def test_it_comes_back_by_itself_and_misses_nothing(page: Page, owner: Person, gateways: Gateways) -> None:
    """The gateways are killed and started again, and things happen before the browser is let in."""
    page.evaluate(FOLLOW, "/v1/events")
    wait_told(page, "ready", 1)
    rename(owner, "Before")
    wait_told(page, "site.changed", 1)
    assert gateways.processes.stop("nginx") == 0
    try:
        wait_state(page, CONNECTING)
        with away(gateways):
            pass
        for number in range(3):
            rename(owner, f"Meanwhile {number}")
        assert len(page.evaluate("told")) == 2
    finally:
        gateways.processes.again("nginx")
    wait_told(page, "site.changed", 4)
    rename(owner, "Afterwards")
    told = wait_told(page, "site.changed", 5)
    numbers = [one["data"]["id"] for one in told if one["kind"] == "site.changed"]
    assert numbers == sorted(set(numbers))
    assert [one["kind"] for one in told if one["kind"] != "site.changed"] == ["ready", "ready"]
    page.evaluate("source.close()")


def test_a_proxys_502_ends_it_and_the_page_goes_on_from_its_number(
    page: Page, owner: Person, gateways: Gateways
) -> None:
    """An EventSource comes back from a lost connection, never from an answer that is an error: this the page
    must do, as the API guide says.
    """
    page.evaluate(FOLLOW, "/v1/events")
    last = wait_told(page, "ready", 1)[-1]["last"]
    with away(gateways):
        wait_state(page, CLOSED)
    rename(owner, "Meanwhile")
    # The proxy believes for some seconds that they are away: each try is an EventSource of its own.
    eventually("the page follows again", lambda: follows(page, f"/v1/events?after={last}"))
    told = wait_told(page, "site.changed", 1)
    assert [one["kind"] for one in told] == ["ready", "site.changed"]
    page.evaluate("source.close()")


def test_it_ends_with_the_login_and_stays_ended(page: Page) -> None:
    page.evaluate(FOLLOW, "/v1/events")
    wait_told(page, "ready", 1)
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if "/v1/events" in answer.url else None)
    with page.expect_response("**/v1/events"):  # Playwright tells of it a moment later than the page
        page.evaluate("fetch('/v1/logout', {method: 'POST'})")
        (end,) = wait_told(page, "end", 1)[-1:]
        assert end["data"]["code"] == "login_ended"
        wait_state(page, CLOSED)  # it came once more, as the standard has it, and was refused
    assert answers == [401]


def test_a_websocket_of_the_page(page: Page, owner: Person, gateways: Gateways) -> None:
    page.evaluate(FOLLOW_BY_SOCKET, f"{gateways.url.replace('http', 'ws')}/v1/events/ws")
    wait_told(page, "ready", 1)
    rename(owner, "By socket")
    wait_told(page, "site.changed", 1)
    page.evaluate("fetch('/v1/logout', {method: 'POST'})")
    (closed,) = wait_told(page, "closed", 1)[-1:]
    assert (closed["code"], closed["reason"]) == (1008, "login_ended")
