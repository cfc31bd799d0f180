"""What a body must be before anything reads it: JSON in UTF-8, each member once, not endlessly deep.

What JSON is here, and why so little, is device_protocol.strict_json's: what a person sends in a command's
parameters is sent on to a device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from device_protocol import strict_json
from device_protocol.strict_json import Fault, StrictJsonError
from gateway.api.edge import send_problem
from gateway.errors import Problem, wrong_field

JSON_TYPE: Final = "application/json"


class Bodies:
    """ASGI middleware, inside the one that bounds the body's size."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        forms: frozenset[str],
        as_it_is: Mapping[str, re.Pattern[str]] = MappingProxyType({}),
    ) -> None:
        """`forms`: paths that take forms instead. `as_it_is`: of a path, the members whose text no column
        takes as text, so that it may be odd: who is handed it judges it.
        """
        self._app = app
        self._forms = forms
        self._as_it_is = as_it_is

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._forms or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        whole = await _read(receive)
        if whole is None:
            return  # the client is gone
        free = self._as_it_is.get(scope["path"])
        problem = refuse(_header(scope, b"content-type"), whole, free) if whole else None
        if problem is not None:
            await send_problem(send, problem)
            return
        await self._app(scope, _again(whole, receive), send)


def refuse(content_type: str, body: bytes, free: re.Pattern[str] | None = None) -> Problem | None:
    """Why this is no body for a route; None: it is one. `free`: where odd text is the route's own affair."""
    kind, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if kind.strip().lower() != JSON_TYPE or charset not in {"", "charset=utf-8"}:
        return Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be application/json in UTF-8.",
        )
    try:
        strict_json.loads(body, odd_text=free)
    except StrictJsonError as error:
        return _PROBLEMS[error.fault](error)
    return None


def _bad_json(detail: str, field: str | None = None) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad_json", detail, field=field)


def _odd_text(detail: str, field: str | None) -> Problem:
    return wrong_field(field, f"has {detail}") if field else _bad_json(f"The body has {detail}.")


_PROBLEMS: Final[Mapping[Fault, Callable[[StrictJsonError], Problem]]] = {
    Fault.NO_UTF8: lambda _: _bad_json("The body is not JSON: it is not UTF-8."),
    Fault.NO_JSON: lambda error: _bad_json(f"The body is not JSON: {error.detail}."),
    Fault.TWICE: lambda error: _bad_json("A member is in the body twice.", error.member),
    Fault.ODD_TEXT: lambda error: _odd_text(error.detail, error.member),
    Fault.TOO_DEEP: lambda error: _bad_json(f"The body's JSON is {error.detail}."),
}


def _has_body(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return b"transfer-encoding" in names or _header(scope, b"content-length") not in {"", "0"}


def _header(scope: Scope, wanted: bytes) -> str:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
    return ",".join(values)


async def _read(receive: Receive) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(whole: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever the connection says."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": whole, "more_body": False}

    return receive_again
