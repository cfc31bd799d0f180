"""The gateway's public API (docs/api.md) for the command line: standard library, one call at a time."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runtime.addresses import is_loopback
from runtime.private_files import write_private
from towline.data_folder import DataFolder
from towline.errors import TowlineError

CALL_TIMEOUT_S = 10.0  # the gateway answers in milliseconds; a database that restarts takes seconds
MAX_ANSWER = 8 << 20  # a list of tens of thousands of devices
_OTHERS = 0o077
_AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
_NO_MORE: Mapping[str, str] = MappingProxyType({})
MAX_PAGES = 200  # of a list; a cursor that never ends is a mistake


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `towline up` leaves for the commands in its data folder."""

    gateway: str
    username: str
    password: str

    def save(self, data: DataFolder) -> None:
        text = json.dumps({"gateway": self.gateway, "username": self.username, "password": self.password})
        write_private(data.credentials, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Credentials:
        """TowlineError where `towline up` never ran."""
        try:
            found = json.loads(path.read_text("utf-8"))
            return cls(found["gateway"], found["username"], found["password"])
        except FileNotFoundError:
            raise TowlineError(
                f"there is no {path}: start `towline up` first, or name its folder with --data"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TowlineError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A personal API token (docs/api.md) for a gateway that may be anywhere."""

    gateway: str
    token: str
    path: Path

    @classmethod
    def load(cls, gateway: str, path: Path) -> ApiToken:
        """From a file of its owner alone: a command line or an environment shows its secrets to others.

        TowlineError when the file cannot serve, or the token would go over a network in plain text.
        """
        parts = urllib.parse.urlsplit(gateway)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise TowlineError(f"the gateway {gateway!r} must be https:// (http:// on this machine alone)")
        try:
            if path.stat().st_mode & _OTHERS:
                raise TowlineError(f"{path}: other users may read it; run chmod 600")
            token = path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise TowlineError(f"{path} cannot be read: {error}") from None
        if not token.isprintable() or " " in token or not token:
            raise TowlineError(f"{path} must hold one API token and nothing else")
        return cls(gateway.rstrip("/"), token, path)


class GatewayAwayError(TowlineError):
    """Nobody answers, or only a proxy, or a gateway without its database: the same call may do later."""


class _LoginNeeded(TowlineError):
    """The access token is not (or no longer) good."""


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """The API sends nobody elsewhere, and the token must not go along if somebody does."""

    def redirect_request(self, *_: Any) -> None:
        return None


class GatewayClient:
    """Calls as the local administrator, or with an API token. Every failure is a TowlineError a person can
    act on.
    """

    def __init__(self, credentials: Credentials | ApiToken, keep_token: Path | None = None) -> None:
        """`keep_token` is a private file for the access token, so that commands in a row log in once."""
        self._credentials = credentials
        self._keep_token = keep_token
        # None until the first call logged in
        self._token = credentials.token if isinstance(credentials, ApiToken) else self._kept_token()
        # No proxy from the environment: it would see calls that are for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirection)

    @property
    def address(self) -> str:
        """The gateway's origin."""
        return self._credentials.gateway

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any], once: str | None = None) -> Any:
        """`once` is an Idempotency-Key: repeated with it, what was done is not done again."""
        return self._call("POST", path, body, {} if once is None else {"Idempotency-Key": once})

    def delete(self, path: str) -> None:
        self._call("DELETE", path, None)

    def items(self, path: str) -> list[dict[str, Any]]:
        """A whole list, over its pages."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            query = "" if cursor is None else "?" + urllib.parse.urlencode({"cursor": cursor})
            page = self.get(path + query)
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found
        raise TowlineError(f"the list {path} does not end")

    def device(self, wanted: str) -> dict[str, Any]:
        """The device with this id, or the only one with this name."""
        devices = self.items("/v1/devices")
        found = [one for one in devices if one["id"] == wanted] or [
            one for one in devices if one["name"] == wanted
        ]
        if not found:
            known = ", ".join(sorted(f"{one['name']} ({one['id']})" for one in devices)) or "none"
            raise TowlineError(f"there is no device {wanted!r}; yours: {known}")
        if len(found) > 1:
            raise TowlineError(f"{len(found)} devices are named {wanted!r}: use an id")
        return found[0]

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        more: Mapping[str, str] = _NO_MORE,
    ) -> Any:
        if self._token is not None:
            try:
                return self._exchange(method, path, body, more)
            except _LoginNeeded:
                self._token = None  # it lives 15 minutes
        self._log_in()
        return self._exchange(method, path, body, more)

    def _log_in(self) -> None:
        if isinstance(self._credentials, ApiToken):
            raise TowlineError(f"the API token of {self._credentials.path} is not good, or not any more")
        # With the password beside it a refresh token would be one secret more, and spare nothing.
        login = {"username": self._credentials.username, "password": self._credentials.password}
        self._token = self._exchange("POST", "/v1/login", login)["access_token"]
        if self._keep_token is not None:
            write_private(self._keep_token, (f"{self._token}\n").encode())

    def _kept_token(self) -> str | None:
        """What an earlier command left; it may have ended meanwhile, which the first call finds out."""
        if self._keep_token is None:
            return None
        try:
            return self._keep_token.read_text("ascii").strip() or None
        except (OSError, ValueError):
            return None

    def _exchange(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        more: Mapping[str, str] = _NO_MORE,
    ) -> Any:
        headers = {"Accept": "application/json", **more}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._credentials.gateway + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=CALL_TIMEOUT_S) as answer:
                raw = answer.read(MAX_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read(MAX_ANSWER)) from None
        except OSError as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise GatewayAwayError(
                f"no gateway answers at {self._credentials.gateway} ({reason}): is `towline up` running?"
            ) from None
        return json.loads(raw) if raw else None


def _refusal(status: int, raw: bytes) -> TowlineError:
    """One line out of a problem+json answer (RFC 9457)."""
    try:
        problem = json.loads(raw)
        code, detail = problem.get("code"), problem.get("detail") or problem.get("title")
        text = f"{detail} ({code or f'HTTP {status}'})"
    except (ValueError, AttributeError):
        code, text = None, f"the gateway answered HTTP {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        return _LoginNeeded(text)
    away = status in _AWAY and code in {None, "store_unavailable"}
    return GatewayAwayError(text) if away else TowlineError(text)
