"""`towline up --device simulator`: the firmware of a small device, by a session link and on its own LAN."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from testbed.people import Person, Visitor, entered
from testbed.processes import short_folder, started
from testbed.up import Stack
from testbed.waiting import eventually
from tests.browser.browser import WAIT_MS, chromium
from towline.launcher.simulator import NAME

pytestmark = pytest.mark.xdist_group("simulator")

STREAMS = 4  # of a device of this size
REVOKED_WITHIN_S = 2.0  # REQUIREMENTS K4
BACK_S = 30.0  # a device that was cut off is back: its first dials come within seconds
OURS = {"X-Towline": "1"}


@pytest.fixture(scope="module")
def stack(simulator: Path) -> Iterator[Stack]:
    """With the simulator as its demo device; it was built before."""
    assert (simulator / "port" / "towline-device").exists()
    with short_folder("sim-") as folder, started(Stack(folder / "data", "--device", "simulator")) as one:
        yield one


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Iterator[Person]:
    with closing(stack.newcomer()) as one:
        eventually("the simulator is online", lambda: one.device(NAME)["online"])
        yield one


@pytest.fixture
def visitor(owner: Person) -> Iterator[Visitor]:
    """In a session of his own."""
    session = owner.open_session(owner.device(NAME)["id"])
    with closing(entered(session["url"])) as one:
        yield one
    owner.http.delete(f"/v1/sessions/{session['id']}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(resolve="*.localhost", trust="") as one:
        yield one


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


def lan(stack: Stack) -> str:
    """Where the device's page is on its own network."""
    return f"http://127.0.0.1:{stack.ports['demo']}"


def answers(visitor: Visitor) -> bool:
    return visitor.http.get("/api/status").status_code == HTTPStatus.OK


def first_event(lines: Iterator[str]) -> str:
    return next(line for line in lines if line.startswith("data:"))


def test_one_click_opens_the_page(page: Page, stack: Stack) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(stack.address)
    page.get_by_role("button", name="Open", exact=True).click()
    page.wait_for_url("**.localhost:*/")
    expect(page.locator("#state")).to_have_text("Live", timeout=WAIT_MS)
    values = page.locator("#sensors b")
    expect(values).to_have_count(3, timeout=WAIT_MS)
    before = values.all_inner_texts()
    eventually("measured values move", lambda: values.all_inner_texts() != before)
    assert faults == []


def test_the_same_page_on_its_own_network(stack: Stack, visitor: Visitor) -> None:
    through, here = visitor.http.get("/"), httpx.get(lan(stack))
    assert through.status_code == here.status_code == HTTPStatus.OK
    assert through.content == here.content
    assert through.headers["etag"] == here.headers["etag"]
    again = visitor.http.get("/", headers={"If-None-Match": through.headers["etag"]})
    assert (again.status_code, again.content) == (HTTPStatus.NOT_MODIFIED, b"")


def test_on_its_own_network_the_session_counts_for_nothing(stack: Stack, visitor: Visitor) -> None:
    assert visitor.http.get("/api/status").json()["by_tunnel"] is True
    assert httpx.get(lan(stack) + "/api/status").status_code == HTTPStatus.UNAUTHORIZED
    stranger = httpx.get(lan(stack), headers={"Host": "rebound.example"})
    assert stranger.status_code == HTTPStatus.MISDIRECTED_REQUEST
    pins = re.findall(
        r"PIN of the page on this network: (\d{8})", (stack.data / "logs" / "simulator.log").read_text()
    )
    with httpx.Client(base_url=lan(stack), headers=OURS) as client:
        assert client.post("/api/login", json={"pin": pins[-1]}).status_code == HTTPStatus.NO_CONTENT
        assert client.get("/api/status").json()["by_tunnel"] is False


def test_settings_through_a_session(visitor: Visitor) -> None:
    origin = {"Origin": f"http://{visitor.http.headers['host']}"}
    changed = visitor.http.post("/api/settings", json={"name": "Attic"}, headers=OURS | origin)
    assert changed.status_code == HTTPStatus.NO_CONTENT, changed.text
    assert visitor.http.get("/api/settings").json()["name"] == "Attic"
    assert (
        visitor.http.post("/api/settings", json={"name": "x"}, headers=origin).status_code
        == HTTPStatus.FORBIDDEN
    )


def test_more_live_pages_than_streams(visitor: Visitor) -> None:
    """Each live page holds a stream; one stream stays for requests, and who is beyond is told to poll."""
    with ExitStack() as pages:
        looked_at = []
        for _ in range(STREAMS - 1):
            live = pages.enter_context(visitor.http.stream("GET", "/api/live"))
            assert live.status_code == HTTPStatus.OK
            looked_at.append(live.iter_lines())  # one that is let go ends its answer
            first_event(looked_at[-1])
        assert visitor.http.get("/api/live").status_code == HTTPStatus.SERVICE_UNAVAILABLE
        for _ in range(10):
            assert answers(visitor)
    eventually(
        "the streams are free again", lambda: visitor.http.get("/api/status").json()["streams"] < STREAMS
    )


def test_many_at_once_all_get_their_page(visitor: Visitor) -> None:
    """Sixteen requests at once on four streams: the others wait at the server."""
    got: list[int] = []

    def fetch() -> None:
        got.append(visitor.http.get("/").status_code)

    threads = [threading.Thread(target=fetch) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [HTTPStatus.OK] * 16


def test_a_revoked_session_ends_while_somebody_looks(owner: Person) -> None:
    session = owner.open_session(owner.device(NAME)["id"])
    with closing(entered(session["url"])) as one, one.http.stream("GET", "/api/live") as live:
        lines = live.iter_lines()
        first_event(lines)
        began = time.monotonic()
        assert owner.http.delete(f"/v1/sessions/{session['id']}").status_code == HTTPStatus.NO_CONTENT
        with pytest.raises(httpx.HTTPError):
            list(lines)
        assert time.monotonic() - began < REVOKED_WITHIN_S


def test_a_command_is_done_once(stack: Stack) -> None:
    ping = stack.cli("command", NAME, "ping")
    assert ping.returncode == 0, ping.stderr + stack.logs()
    assert "succeeded" in ping.stdout


def test_back_after_kill_9(stack: Stack, visitor: Visitor) -> None:
    before = visitor.http.get("/api/status").json()["uptime_s"]
    stack.kill_process("simulator")
    eventually("the device is back", lambda: answers(visitor), BACK_S)
    after = visitor.http.get("/api/status").json()
    assert after["uptime_s"] <= before + BACK_S
    assert after["reset"] == "power"


def test_back_after_the_servers_kill_9(stack: Stack, visitor: Visitor) -> None:
    stack.kill_process("tunnel_server")
    eventually("the device has a tunnel again", lambda: answers(visitor), BACK_S)


def test_a_restart_by_the_page(visitor: Visitor) -> None:
    origin = {"Origin": f"http://{visitor.http.headers['host']}"}
    assert visitor.http.post("/api/restart", headers=OURS | origin).status_code == HTTPStatus.ACCEPTED

    def restarted() -> bool:
        answer = visitor.http.get("/api/status")
        return answer.status_code == HTTPStatus.OK and answer.json()["reset"] == "asked"

    eventually("the device started anew", restarted, BACK_S)
