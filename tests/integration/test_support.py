"""Support with consent, live: real gateway, node, agent and device, seen from both sides."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import asyncpg
import pytest

from testbed import ops
from testbed.people import CALL_TIMEOUT_S, Person, Visitor, entered
from testbed.processes import short_folder, started
from testbed.small_site import NODE, SmallSite
from testbed.waiting import eventually
from tests.integration.test_impostors import CUT_S, Chart, Download

LIVE_S = 2.0  # from the request to its line in what the owner reads
SHORT_S = 8  # a consent that runs out while the test looks on; half of it is for who opens a session first
FRESH = itertools.count(1)
Figures = Callable[[str, str], None]


class Desk:
    """An owner with a device, and engineers who come and ask."""

    def __init__(self, site: SmallSite, leaving: ExitStack) -> None:
        """`leaving` closes everybody's connections."""
        self.site, self._leaving = site, leaving
        self.owner = site.gateways.owner()
        self.device = site.add_device("greenhouse", self.owner)

    def engineer(self) -> Person:
        number = next(FRESH)
        name, password = f"sue-{number}", secrets.token_urlsafe(16)
        self.owner.call("POST", "/v1/users", {"username": name, "password": password, "role": "support"})
        person = self.site.gateways.person(address=f"127.78.0.{number}")
        person.log_in(name, password)
        return person

    def ask(self, engineer: Person) -> str:
        """The path of a request that waits for the owner."""
        wish = {"reason": "The fan stands still", "duration_s": 900}
        asked = engineer.call("POST", f"/v1/devices/{self.device}/support-requests", wish)
        return f"/v1/support-requests/{asked['id']}"

    def consented(self, engineer: Person) -> str:
        request = self.ask(engineer)
        self.owner.call("POST", f"{request}/approve", {})
        return request

    def visit(self, person: Person) -> Visitor:
        return self._leaving.enter_context(closing(entered(person.open_here(self.device)["url"])))

    def log(self, request: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.owner.call("GET", f"{request}/log")["items"]
        return items

    def logged(self, request: str, path: str, part: str = "whole") -> dict[str, Any]:
        """The entry, as soon as the owner can read it."""

        def found() -> dict[str, Any] | None:
            entries = [one for one in self.log(request) if (one["path"], one["part"]) == (path, part)]
            return entries[0] if entries else None

        entry = eventually(f"{part} {path} in the log", found, LIVE_S)
        assert entry is not None
        return entry


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with (
        short_folder("sup-") as folder,
        started(SmallSite(folder)) as site,
        ExitStack() as leaving,
    ):
        yield Desk(site, leaving)


def test_the_owner_reads_what_support_does_while_it_happens(desk: Desk, figures: Figures) -> None:
    engineer = desk.engineer()
    request = desk.ask(engineer)
    path = f"/v1/devices/{desk.device}/sessions"
    assert engineer.http.post(path, json={}).status_code == 404
    desk.owner.call("POST", f"{request}/approve", {})
    visitor, own = desk.visit(engineer), desk.visit(desk.owner)
    assert own.http.get("/api/preferences").status_code == 200
    assert visitor.http.get("/").status_code == 200
    desk.logged(request, "/")
    took: list[float] = []
    for number in range(5):
        began = time.monotonic()
        answer = visitor.http.get("/api/request", params={"secret": f"hidden-{number}"})
        assert answer.status_code == 200
        eventually("its line", lambda: len(desk.log(request)) > len(took) + 1, LIVE_S)
        took.append(time.monotonic() - began)
    figures("a support request to its line in the owner's log, worst of 5", f"{max(took):.2f} s")
    assert max(took) < LIVE_S
    entry = desk.log(request)[-1]
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/api/request", 200)
    assert entry["sent"] == len(answer.content)
    text = json.dumps(desk.log(request))
    assert "hidden" not in text
    assert "/api/preferences" not in text  # the owner's own
    assert visitor.cookie.split("=", 1)[1] not in text
    assert engineer.http.get(f"{request}/log").status_code == 403


@pytest.mark.parametrize("who", ["owner", "engineer"])
def test_either_side_cuts_what_runs(desk: Desk, who: str, figures: Figures) -> None:
    engineer = desk.engineer()
    request = desk.consented(engineer)
    visitor = desk.visit(engineer)
    download, chart = Download(visitor), Chart(visitor)
    for one in (download, chart):
        assert one.started.wait(CALL_TIMEOUT_S)
    for path in ("/download/100MB.bin", "/api/live"):  # the owner sees it while it runs
        began = desk.logged(request, path, "began")
        assert began["ms"] < LIVE_S * 1000
    at = time.monotonic()
    (desk.owner if who == "owner" else engineer).call("POST", f"{request}/end")
    for one in (download, chart):
        one.thread.join(CALL_TIMEOUT_S)
        assert not one.thread.is_alive()
    took = max(download.ended_at, chart.ended_at) - at
    figures(f"support ended by its {who} to the last byte", f"{took:.2f} s")
    assert took < CUT_S
    assert not download.complete
    assert 0 < desk.logged(request, "/download/100MB.bin", "ended")["sent"] < 100_000_000
    assert desk.logged(request, "/api/live", "ended")["sent"] > 0
    assert engineer.http.post(f"/v1/devices/{desk.device}/sessions", json={}).status_code == 404


async def shorten(desk: Desk, request: str) -> None:
    """As if the consent had been given for a few seconds: the API gives none so short."""
    connection = await asyncpg.connect((desk.site.folder / "database").read_text().strip())
    try:
        await connection.execute(
            "UPDATE support_requests SET until = now() + $2 * interval '1 second' WHERE id = $1::uuid",
            request.rpartition("/")[2],
            SHORT_S,
        )
    finally:
        await connection.close()


async def test_a_consent_that_runs_out_cuts_what_runs(desk: Desk) -> None:
    engineer = desk.engineer()
    request = desk.consented(engineer)
    await shorten(desk, request)
    began = time.monotonic()
    download = Download(desk.visit(engineer))
    assert download.started.wait(CALL_TIMEOUT_S)
    download.thread.join(CALL_TIMEOUT_S)
    took = download.ended_at - began
    assert not download.complete
    assert took < SHORT_S + CUT_S
    # A session ends at a whole second, up to one before its consent.
    eventually("expired", lambda: desk.owner.call("GET", request)["state"] == "expired", LIVE_S)
    desk.logged(request, "/download/100MB.bin", "ended")


def test_entries_wait_while_the_gateway_is_away(desk: Desk) -> None:
    engineer = desk.engineer()
    request = desk.consented(engineer)
    visitor = desk.visit(engineer)
    desk.site.processes.kill("gateway-0")
    try:
        for number in range(3):
            assert visitor.http.get("/style.css", params={"n": number}).status_code == 200
    finally:
        desk.site.start_gateway()
        desk.site.wait_online(desk.device, desk.owner)
    eventually("all three", lambda: len(desk.log(request)) == 3)
    assert {one["path"] for one in desk.log(request)} == {"/style.css"}


def test_a_node_that_stops_leaves_its_log_behind(desk: Desk) -> None:
    engineer = desk.engineer()
    request = desk.consented(engineer)
    visitor = desk.visit(engineer)
    for _ in range(20):
        assert visitor.http.get("/style.css").status_code == 200
    visitor.close()
    assert desk.site.processes.stop(NODE) == 0
    assert len(desk.log(request)) == 20
    desk.site.processes.again(NODE)
    desk.site.processes.wait_ready(NODE, lambda: ops.is_ready(desk.site.node.ops))
