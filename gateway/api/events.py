"""What changes, as it happens: server-sent events, and the same over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, WebSocket
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from gateway.api.credentials import (
    Credential,
    CredentialOf,
    acts,
    credential_of,
    refuse_cross_origin,
    require,
)
from gateway.api.edge import note, problem_headers, to_problem
from gateway.api.models import moment
from gateway.connection import ABORT
from gateway.errors import Problem, StoreUnavailableError, wrong_field
from gateway.event_watch import EventWatch, Follower
from gateway.parts import GatewayParts, Parts, parts_of
from gateway.policy.access import Action
from gateway.policy.live import LiveEvent
from runtime.tasks import TaskOwner

# Under the minute after which proxies cut a silent connection.
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 2000  # what an EventSource waits before it comes back
# A farewell that nobody reads is given up, and the connection is cut.
FAREWELL_S: Final = 1.0
# Of a stream that is asked to end; a day later a client may as well ask anew.
WAIT_MAX_S: Final = 86_400
_MAX_N: Final = 2**63 - 1
_POLICY: Final = 1008  # RFC 6455, 7.4.1
# Nothing that the client did: it is to come back. 1013 is IANA's "try again later".
_COME_BACK: Final = {"closing": 1001, "store_unavailable": 1013}
_TASKS_END_S: Final = 2.0

router = APIRouter(prefix="/v1/events", tags=["events"])


class EventsQuery(BaseModel):
    """From where, and for how long."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        int | None,
        Field(
            ge=0, le=_MAX_N, description="Number of the last event that one has; `Last-Event-ID` says it too."
        ),
    ] = None
    wait_s: Annotated[
        int | None,
        Field(
            ge=0,
            le=WAIT_MAX_S,
            description="End after so many seconds; 0: tell what there is. Left out: never.",
        ),
    ] = None


LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="As EventSource sends it: where to go on.")
]


class EventStream(Response):
    """An endless answer that can be ended also while its reader does not read."""

    media_type = "text/event-stream"

    def __init__(self, stream: _Stream, wait_s: float | None) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(text: str, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        async with self._stream as stream:
            await send(head)
            await write(f"retry: {RETRY_MS}\n\n")
            code = await stream.run(write, _sse, _gone(receive, "http.disconnect"), self._wait_s)
            if code != "gone" and not await _in_time(_farewell(write, code)):
                # It does not read; what the connection still holds for it would keep the place taken.
                scope[ABORT]()
                await _in_time(_gone(receive, "http.disconnect"))


@router.get(
    "", status_code=HTTPStatus.OK, openapi_extra=acts(Action.EVENTS_FOLLOW), response_class=EventStream
)
async def follow_events(
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[EventsQuery, Query()],
    last_event_id: LastEventId = None,
) -> Response:
    """Server-sent events of the places that the person sees: `id`, `event` (the kind) and `data` (JSON).

    `data` is `{id, kind, at, org_id, site_id, device_id, user_id, ref}`; it names what changed, which is then
    read as always. Kinds: `device.enrolled`, `device.changed`, `device.added`, `device.removed`,
    `device.online`, `device.offline`, `device.state`, `device.message`, `command.changed`,
    `configuration.changed`, `session.begun`, `session.ended`, `support.asked`, `support.decided`,
    `support.ended`, `member.changed`, `site.changed`, `org.changed`; `ref` is the id of the command, session
    or support request. `ready` comes first and says where the stream stands; `reset`: the number is too old
    or unknown, read everything anew; `end`, with a `code`: the stream ends (`login_ended`, `too_slow`,
    `closing`, `store_unavailable`). Numbers grow and nothing is left out behind the one given, for a day.
    """
    after = _after(wanted.after, last_event_id)
    return EventStream(await _joined(parts, credential, after), wanted.wait_s)


@router.get(
    "/ws",
    openapi_extra=acts(Action.EVENTS_FOLLOW),
    status_code=HTTPStatus.SWITCHING_PROTOCOLS,
    response_class=Response,
)
async def events_without_upgrade(
    request: Request,
    credential: CredentialOf,
    parts: Parts,
    after: Annotated[int | None, Query(ge=0, le=_MAX_N)] = None,
) -> Response:
    """The same events over a WebSocket: each message is the JSON of one; `after` says where to go on.

    From a browser it must come from the gateway's own pages. The stream ends by a close frame whose reason is
    the code: `login_ended`, `too_slow` (1008), `closing` (1001), `store_unavailable` (1013); come back after
    the last two. A plain GET answers 426.
    """
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.EVENTS_FOLLOW)
    note(request, "upgrade", "websocket")
    raise Problem(HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", "This address speaks WebSocket alone.")


@router.websocket("/ws")
async def follow_by_websocket(websocket: WebSocket) -> None:
    """The WebSocket itself. What is refused is refused before the upgrade, as problem+json."""
    parts = parts_of(websocket)
    try:
        stream = await _open(websocket, parts)
    except (Problem, StoreUnavailableError) as error:
        problem = to_problem(error)
        body = json.dumps(problem.body())
        await websocket.send_denial_response(Response(body, int(problem.status), problem_headers(problem)))
        return
    async with stream:
        await websocket.accept()

        async def write(text: str) -> None:
            await websocket.send_text(text)

        code = await stream.run(write, _message, _closed(websocket), None)
        number = _COME_BACK.get(code, _POLICY)
        if code != "gone" and not await _in_time(websocket.close(number, code)):
            websocket.scope[ABORT]()


async def _open(websocket: WebSocket, parts: GatewayParts) -> _Stream:
    credential = credential_of(websocket, parts)
    if credential.kind == "cookie":
        # Browsers let any page open a WebSocket to anywhere, with cookies: the Origin is all there is.
        refuse_cross_origin(websocket, parts.settings, strict=True)
    given = websocket.query_params.getlist("after")
    if set(websocket.query_params) - {"after"} or len(given) > 1:
        raise wrong_field("after", "is the only parameter, once")
    after = _after(None, given[0]) if given else None
    return await _joined(parts, credential, after)


async def _joined(parts: GatewayParts, credential: Credential, after: int | None) -> _Stream:
    """The stream, to be left by its block. It holds no place when the transaction fails behind `join`."""
    follower: Follower | None = None
    try:
        async with parts.database.transaction() as tx:
            actor = await require(tx, parts, credential, Action.EVENTS_FOLLOW)
            follower, reset = await parts.events.join(tx, actor, after)
    except BaseException:
        if follower is not None:
            parts.events.leave(follower)
        raise
    return _Stream(parts.events, follower, reset=reset)


class _Stream:
    """One follower's items, written until it ends; leaving the block ends its place."""

    def __init__(self, watch: EventWatch, follower: Follower, *, reset: bool) -> None:
        self._watch = watch
        self._follower = follower
        self._reset = reset

    async def __aenter__(self) -> _Stream:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._watch.leave(self._follower)

    async def run(
        self,
        write: Callable[[str], Awaitable[None]],
        form: Callable[[dict[str, Any] | None, int], str],
        gone: Awaitable[None],
        wait_s: float | None,
    ) -> str:
        """Write until it ends, also when `write` waits for a reader that does not read. The code of the end:
        the follower's, `gone` (the client left) or `done` (`wait_s` is over).
        """
        owner = TaskOwner("gateway.events")
        writing = owner.start(self._write(write, form, wait_s), "write")
        left = owner.start(_awaited(gone), "gone")
        ended = owner.start(self._follower.ended.wait(), "ended")
        try:
            await asyncio.wait({writing, left, ended}, return_when=asyncio.FIRST_COMPLETED)
            failed = writing.exception() if writing.done() else None
            if isinstance(failed, StoreUnavailableError):
                return "store_unavailable"
            if left.done() or failed is not None:
                return "gone"
            return self._follower.code or "done"
        finally:
            await owner.close(_TASKS_END_S)

    async def _write(
        self,
        write: Callable[[str], Awaitable[None]],
        form: Callable[[dict[str, Any] | None, int], str],
        wait_s: float | None,
    ) -> None:
        deadline = None if wait_s is None else asyncio.get_running_loop().time() + wait_s
        async for item in self._items(deadline):
            await write(form(item, self._follower.position))

    async def _items(self, deadline: float | None) -> AsyncIterator[dict[str, Any] | None]:
        """What is told, in order; None: nothing happened for a while."""
        follower = self._follower
        yield {"id": follower.position, "kind": "reset" if self._reset else "ready"}
        while missed := await self._watch.missed(follower):
            for event in missed:
                yield shown(event)
        while True:
            left = None if deadline is None else deadline - asyncio.get_running_loop().time()
            taken = await follower.take(HEARTBEAT_S if left is None else max(0.0, min(left, HEARTBEAT_S)))
            for new in taken:
                follower.position = self._watch.position or 0 if new is None else new.n
                yield {"id": follower.position, "kind": "reset"} if new is None else shown(new)
            if not taken:
                follower.caught_up(self._watch.position)
                if left is not None and left <= HEARTBEAT_S:
                    return
                yield None


def shown(event: LiveEvent) -> dict[str, Any]:
    """The event as clients read it."""
    change = event.change
    return {
        "id": event.n,
        "kind": change.kind,
        "at": moment(event.at),
        "org_id": change.org_id,
        "site_id": change.site_id,
        "device_id": change.device_id,
        "user_id": None if change.user_id is None else str(change.user_id),
        "ref": change.ref,
    }


def _sse(item: dict[str, Any] | None, position: int) -> str:
    """As WHATWG HTML, 9.2, has it. A heartbeat is an id without data: no event, but the reader comes back to
    there, also when nothing of the last days was for it.
    """
    if item is None:
        return f": heartbeat\nid: {position}\n\n"
    return f"id: {item['id']}\nevent: {item['kind']}\ndata: {_json(item)}\n\n"


def _message(item: dict[str, Any] | None, position: int) -> str:
    return _json({"id": position, "kind": "heartbeat"} if item is None else item)


def _json(item: dict[str, Any]) -> str:
    return json.dumps(item, separators=(",", ":"))


async def _farewell(write: Callable[..., Awaitable[None]], code: str) -> None:
    if code != "done":
        await write(f"event: end\ndata: {_json({'kind': 'end', 'code': code})}\n\n")
    await write("", more=False)


async def _in_time(work: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(FAREWELL_S):
            await work
    except (TimeoutError, WebSocketDisconnect):
        return False
    return True


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _gone(receive: Receive, kind: str) -> None:
    while (await receive())["type"] != kind:
        continue


async def _closed(websocket: WebSocket) -> None:
    """Until the client closes. It has nothing to say: what it sends is read and dropped."""
    await _gone(websocket.receive, "websocket.disconnect")


def _after(query: int | None, header: str | None) -> int | None:
    """The number to go on from. A header that EventSource sends again is newer than the address's query."""
    if header is None or header == "":
        return query
    if not (header.isascii() and header.isdecimal() and len(header) <= 18):
        raise wrong_field("Last-Event-ID", "is a number of an event")
    return int(header)
