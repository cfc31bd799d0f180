"""People of the gateway's API as locust runs them: the mobile app, and the support engineer with an owner.

The app keeps its login for days and refreshes it; the engineer asks, the owner consents, the engineer opens
the device, the owner reads what was done and ends it. `callers` has the environment.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

from locust import between, task

from loadtests.scenarios.callers import Caller

OWN_CLIENT = "towline"  # of a login with a password and a refresh token
ASKED_MOST = 25  # an engineer may ask thirty times at once and then once a minute; another one takes over
REASON = "The fan stands still"


class MobileApp(Caller):
    """Opened, looked into, put away: each time with fresh tokens."""

    weight = 3
    wait_time = between(1.0, 3.0)

    def on_start(self) -> None:
        super().on_start()
        self._refresh_token = self._log_in(refresh=True)["refresh_token"]

    @task
    def look_at_a_device(self) -> None:
        self._refresh()
        device = self._some_device()
        self._json("GET", f"/v1/devices/{device}", "read a device", headers=self._bearer)
        self._open(device)
        self._get("/", "page")
        self._get("/style.css", "asset")
        self._leave()

    def _refresh(self) -> None:
        form = {"grant_type": "refresh_token", "client_id": OWN_CLIENT, "refresh_token": self._refresh_token}
        given = self._json("POST", "/v1/oauth/token", "refresh", data=form)
        self._refresh_token = given["refresh_token"]
        self._bearer = {"Authorization": f"Bearer {given['access_token']}"}


class SupportEngineer(Caller):
    """Asks for a device and sees it once its owner (whom the environment names) said yes."""

    weight = 1
    wait_time = between(2.0, 5.0)

    def on_start(self) -> None:
        super().on_start()
        self._log_in()
        self._owner = self._bearer
        self._engineer_id: str | None = None  # until there is an account
        self._take_over()

    def on_stop(self) -> None:
        super().on_stop()
        self._retire()

    @task
    def help_somebody(self) -> None:
        if self._asked_so_often >= ASKED_MOST:
            self._take_over()
        self._asked_so_often += 1
        device = self._device_of_owner()
        asked = self._call("POST", f"/v1/devices/{device}/support-requests", "ask for support", reason=REASON)
        path = f"/v1/support-requests/{asked['id']}"
        self._json("POST", f"{path}/approve", "consent", json={}, headers=self._owner)
        self._open(device)
        self._get("/", "page")
        self._get("/api/downloads", "data")
        self._json("GET", f"{path}/log", "read the log", headers=self._owner)
        ended = self._json("POST", f"{path}/end", "end support", headers=self._owner)
        assert ended["state"] == "ended", ended
        self._session_id = None  # it ended with the consent

    def _call(self, method: str, path: str, name: str, **body: Any) -> Any:
        return self._json(method, path, name, json=body, headers=self._bearer)

    def _device_of_owner(self) -> str:
        """The engineer sees no device before the consent."""
        engineer, self._bearer = self._bearer, self._owner
        try:
            return self._some_device()
        finally:
            self._bearer = engineer

    def _take_over(self) -> None:
        """A new engineer, who has not asked for anything yet."""
        self._retire()
        account = {"username": f"engineer-{secrets.token_hex(6)}", "password": secrets.token_urlsafe(12)}
        body = {**account, "role": "support"}
        made = self._json("POST", "/v1/users", "make an engineer", json=body, headers=self._owner)
        self._engineer_id, self._asked_so_often = made["id"], 0
        self._log_in(**account)

    def _retire(self) -> None:
        """The account of the run is of no use afterwards."""
        if self._engineer_id is None:
            return
        path, self._engineer_id = f"/v1/users/{self._engineer_id}", None
        with self.client.patch(
            path, json={"disabled": True}, name="retire", headers=self._owner, catch_response=True
        ) as answer:
            if answer.status_code != HTTPStatus.OK:
                answer.failure(f"status {answer.status_code}")
