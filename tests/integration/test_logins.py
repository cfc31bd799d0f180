"""A program's login that ends, live: what it opened is cut on the real node, and stays cut."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from testbed.people import Person, Visitor
from testbed.up import Stack
from testbed.waiting import eventually
from tests.integration.test_impostors import CUT_S, Chart, Download, Record

Visit = Callable[[dict[str, Any]], Visitor]


class Program:
    """Logged in with the administrator's password, as a script would be."""

    def __init__(self, stack: Stack) -> None:
        self.stranger = Person(json.loads((stack.data / "credentials.json").read_text())["gateway"])
        del self.stranger.http.headers["Origin"]
        known = json.loads((stack.data / "credentials.json").read_text())
        body = {"username": known["username"], "password": known["password"], "refresh": True}
        self.given: dict[str, Any] = self.stranger.call("POST", "/v1/login", body)

    @property
    def person(self) -> Person:
        return self.stranger.bearer(self.given["access_token"])

    def refresh(self, token: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "client_id": "towline", "refresh_token": token}
        return self.stranger.http.post("/v1/oauth/token", data=form)

    def rotate(self) -> str:
        """The token that was used up."""
        used: str = self.given["refresh_token"]
        self.given = self.refresh(used).json()
        return used

    def works(self) -> bool:
        with closing(self.person) as person:
            return person.http.get("/v1/me").status_code == 200

    def sees_the_device(self) -> bool:
        with closing(self.person) as person:
            return bool(person.device()["online"])


@pytest.fixture
def program(shared: Stack) -> Iterator[Program]:
    made = Program(shared)
    yield made
    made.stranger.close()


def cut_by(end: Callable[[], object], opener: Person, visit: Visit) -> float:
    """Seconds from the call's begin until a download and a WebSocket of the opener's session have ended."""
    visitor = visit(opener.open_session(opener.device()["id"]))
    streams: list[Download | Chart] = [Download(visitor), Chart(visitor)]
    assert all(stream.started.wait(10) for stream in streams)
    began = time.monotonic()
    end()
    for stream in streams:
        stream.thread.join(10)
    assert visitor.http.get("/").status_code in {401, 403, 404, 410}
    return max(stream.ended_at for stream in streams) - began


def test_a_used_refresh_token_puts_both_parties_out(
    shared: Stack, program: Program, visit: Visit, record_property: Record
) -> None:
    stolen = program.rotate()
    program.rotate()
    assert program.works()

    def thief() -> None:
        assert program.refresh(stolen).json()["error"] == "invalid_grant"

    with closing(program.person) as person:
        took = cut_by(thief, person, visit)
    record_property("refresh_reuse_to_last_byte_s", round(took, 3))
    assert took < CUT_S
    assert not program.works()
    assert program.refresh(program.given["refresh_token"]).status_code == 400
    # What ended stays ended when the gateway comes back, and who was in stays in.
    other = Program(shared)
    shared.restart_gateway()
    eventually("the gateway again", lambda: other.works(), 30)
    eventually("the device online", other.sees_the_device)
    assert not program.works()
    assert program.refresh(program.given["refresh_token"]).status_code == 400
    other.rotate()
    assert other.works()
    other.stranger.close()


def test_an_api_token_that_is_deleted_cuts_what_it_opened(
    program: Program, visit: Visit, record_property: Record
) -> None:
    wish = {"name": "Script", "scopes": ["devices:read", "sessions"]}
    with closing(program.person) as person:
        made = person.call("POST", "/v1/me/api-tokens", wish)
        with closing(program.stranger.bearer(made["token"])) as script:
            took = cut_by(lambda: person.call("DELETE", f"/v1/me/api-tokens/{made['id']}"), script, visit)
            assert script.http.get("/v1/devices").status_code == 401
    record_property("api_token_end_to_last_byte_s", round(took, 3))
    assert took < CUT_S
