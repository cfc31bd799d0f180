"""What all of locust's people do alike: log in, open a session, click its link, end it.

Started by `loadtests.load`, which sets the environment below; `locust -f` works as well. The devices are demo
devices.

TOWLINE_LOAD_USERNAME, TOWLINE_LOAD_PASSWORD   who logs in
TOWLINE_LOAD_OWN_ADDRESSES                     1: everybody comes from a loopback address of their own
"""

from __future__ import annotations

import os
import random
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from locust import HttpUser
from locust.exception import StopUser
from requests.adapters import HTTPAdapter

from loadtests.scenarios.addresses import loopback_address, visitor_numbers

DURATION_S = 600


class OwnAddress(HTTPAdapter):
    """Connections from one source address."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


class Caller(HttpUser):
    """Somebody with an address, at most one open session at a time, and an access token once logged in."""

    abstract = True

    def on_start(self) -> None:
        self._session_id: str | None = None  # until the gateway gave one
        self._source = "127.0.0.1"
        if os.environ.get("TOWLINE_LOAD_OWN_ADDRESSES") == "1":
            self._source = loopback_address(next(visitor_numbers))
            self.client.mount("http://", OwnAddress(self._source))

    def on_stop(self) -> None:
        self._leave()

    # At the gateway

    def _log_in(self, **more: Any) -> Any:
        """As the one whom the environment names; what the gateway gave. `more` goes into the body."""
        login = {
            "username": os.environ["TOWLINE_LOAD_USERNAME"],
            "password": os.environ["TOWLINE_LOAD_PASSWORD"],
            **more,
        }
        given = self._json("POST", "/v1/login", "login", json=login)
        self.client.cookies.clear()  # a browser that logs in again ends the login before
        self._bearer = {"Authorization": f"Bearer {given['access_token']}"}
        return given

    def _some_device(self) -> str:
        """One of those that are online."""
        page = self._json("GET", "/v1/devices?limit=200&online=true", "list devices", headers=self._bearer)
        device: str = random.choice(page["items"])["id"]
        return device

    def _open(self, device: str) -> None:
        body = {"service": "web", "binding": "click", "duration_s": DURATION_S}
        path = f"/v1/devices/{device}/sessions"
        made = self._json("POST", path, "ask for a session", json=body, headers=self._bearer)
        self._session_id = made["id"]
        self._click(made["url"])

    def _click(self, link: str) -> None:
        url = urlsplit(link)
        self._origin = f"{url.scheme}://{url.netloc}"
        self._site = self._origin
        if (url.hostname or "").endswith(".localhost"):  # this machine (RFC 6761), whatever the resolver says
            self._site = f"{url.scheme}://127.0.0.1:{url.port}"
        self._headers = {"Host": url.netloc}
        self.client.cookies.clear()
        self._get("/.towline/open", "landing page")
        with self._asked(
            "POST",
            "/.towline/open",
            "click the link",
            data={"token": url.fragment},
            headers={"Origin": self._origin},
            allow_redirects=False,
        ) as answer:
            if answer.status_code != HTTPStatus.SEE_OTHER:
                answer.failure(f"status {answer.status_code}")
                raise StopUser
        self._cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def _leave(self) -> None:
        """Ends the session at the gateway, where there is one."""
        if self._session_id is None:
            return
        path = f"/v1/sessions/{self._session_id}"
        self._session_id = None
        with self.client.delete(
            path, name="end the session", headers=self._bearer, catch_response=True
        ) as answer:
            if answer.status_code != HTTPStatus.NO_CONTENT:
                answer.failure(f"status {answer.status_code}")

    # Requests

    def _get(self, path: str, name: str) -> Any:
        with self._asked("GET", path, name) as answer:
            if answer.status_code != HTTPStatus.OK:
                answer.failure(f"status {answer.status_code}")
        return answer

    def _asked(self, method: str, path: str, name: str, *, headers: Any = None, **more: Any) -> Any:
        """A request to the session's own origin."""
        all_headers = {**self._headers, **(headers or {})}
        return self.client.request(
            method, self._site + path, name=name, headers=all_headers, catch_response=True, **more
        )

    def _json(self, method: str, path: str, name: str, **more: Any) -> Any:
        """A call of the gateway's API; without its answer the visitor cannot go on."""
        with self.client.request(method, path, name=name, catch_response=True, **more) as answer:
            if not answer.ok:
                answer.failure(f"status {answer.status_code}: {answer.text[:200]}")
                raise StopUser
            return answer.json()
