"""What a body must be before anything reads it: JSON in UTF-8, each member once, not endlessly deep.

Parsers differ in what they make of a member that is there twice, of bytes that are no UTF-8, of NaN. Here
nothing of that gets as far as a parser that would choose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.edge import send_problem
from gateway.errors import Problem

# Bodies here are flat: a list in an object is as deep as it gets.
DEPTH_MAX: Final = 16
JSON_TYPE: Final = "application/json"


class Bodies:
    """ASGI middleware, inside the one that bounds the body's size. `forms`: paths that take forms instead."""

    def __init__(self, app: ASGIApp, *, forms: frozenset[str]) -> None:
        self._app = app
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._forms or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        whole = await _read(receive)
        if whole is None:
            return  # the client is gone
        problem = refuse(_header(scope, b"content-type"), whole) if whole else None
        if problem is not None:
            await send_problem(send, problem)
            return
        await self._app(scope, _again(whole, receive), send)


def refuse(content_type: str, body: bytes) -> Problem | None:
    """Why this is no body for a route; None: it is one."""
    kind, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if kind.strip().lower() != JSON_TYPE or charset not in {"", "charset=utf-8"}:
        return Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be application/json in UTF-8.",
        )
    try:
        text = body.decode("utf-8")
        if _depth(text) > DEPTH_MAX:
            return _bad_json(f"The body's JSON is more than {DEPTH_MAX} levels deep.")
        json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except _TwiceError as error:
        return _bad_json("A member is in the body twice.", field=error.name)
    except (ValueError, RecursionError):
        return _bad_json("The body is not JSON.")
    return None


class _TwiceError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _TwiceError(name)
        made[name] = value
    return made


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _depth(text: str) -> int:
    """At most how deep it nests; brackets in strings are counted too, which only ever says too much."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _bad_json(detail: str, field: str | None = None) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad_json", detail, field=field)


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
