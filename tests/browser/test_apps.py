"""An app logs a person in through the browser: our login, our question, a click, and back to the app."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from testbed.gateways import Gateways
from testbed.processes import started
from testbed.settings_tables import ADMIN, PASSWORD
from tests.browser.browser import WAIT_MS
from tests.gateway.test_native_apps import App

APP = "<b>Pump</b> & friends"  # what operators type is text, not markup


class Desk:
    """An app that listens on a loopback port, as RFC 8252 has it."""

    def __init__(self) -> None:
        self.answers: Queue[dict[str, str]] = Queue()
        self.page = b"done"
        app, answers = self, self.answers

        class Back(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/back":
                    answers.put({name: value for name, [value] in parse_qs(parts.query).items()})
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(app.page)))
                self.end_headers()
                self.wfile.write(app.page)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Back)
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_port}/back"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module", autouse=True)  # before the browser: its loop would be in the way
def gateways(folder: Path) -> Iterator[Gateways]:
    clients = {"desk": {"name": APP, "redirect_uris": ["http://127.0.0.1/back"]}}
    (folder / "apps").mkdir()
    with started(Gateways(folder / "apps", settings={"native_clients": clients})) as running:
        yield running


@pytest.fixture
def desk() -> Iterator[Desk]:
    app = Desk()
    yield app
    app.close()


def asked(page: Page, gateways: Gateways, desk: Desk) -> App:
    """The app opened the browser, the person logged in and reads our question."""
    app = App("desk", desk.redirect_uri)
    page.goto(f"{gateways.url}/v1/oauth/authorize?{app.query}")
    page.wait_for_url("**/login?next=*")
    page.locator("input[name=username]").fill(ADMIN)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=f"Let {APP} in?")).to_be_visible(timeout=WAIT_MS)
    return app


def test_a_yes_brings_a_code_that_is_a_login(page: Page, gateways: Gateways, desk: Desk) -> None:
    app = asked(page, gateways, desk)
    assert desk.answers.empty()  # nothing without the click
    page.get_by_role("button", name="Allow", exact=True).click()
    page.wait_for_url(f"{desk.redirect_uri}?*")
    answer = desk.answers.get(timeout=10)
    assert (answer["state"], answer["iss"]) == (app.fields["state"], gateways.url)
    form = {
        "grant_type": "authorization_code",
        "client_id": "desk",
        "redirect_uri": desk.redirect_uri,
        "code": answer["code"],
        "code_verifier": app.verifier,
    }
    given = httpx.post(f"{gateways.url}/v1/oauth/token", data=form, trust_env=False)
    assert given.status_code == 200, given.text
    bearer = {"Authorization": f"Bearer {given.json()['access_token']}"}
    me = httpx.get(f"{gateways.url}/v1/me", headers=bearer, trust_env=False)
    assert me.json()["username"] == ADMIN
    # The code is worthless now, so what the browser's history keeps opens nothing.
    again = httpx.post(f"{gateways.url}/v1/oauth/token", data=form, trust_env=False)
    assert again.json()["error"] == "invalid_grant"


def test_a_no_is_told_to_the_app(page: Page, gateways: Gateways, desk: Desk) -> None:
    asked(page, gateways, desk)
    page.get_by_role("button", name="Do not allow").click()
    page.wait_for_url(f"{desk.redirect_uri}?*")
    assert desk.answers.get(timeout=10)["error"] == "access_denied"


def test_the_question_shows_in_no_frame(page: Page, gateways: Gateways, desk: Desk) -> None:
    app = asked(page, gateways, desk)
    question = f"{gateways.url}/v1/oauth/authorize?{app.query}"
    desk.page = f'<iframe src="{question}"></iframe>'.encode()
    page.goto(desk.redirect_uri.removesuffix("back"))
    page.wait_for_load_state("networkidle")
    [frame] = [one for one in page.frames if one is not page.main_frame]
    assert frame.url.startswith("chrome-error://")
