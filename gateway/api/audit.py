"""What was done at a site, for those who run it, and what concerns one's own account; exports as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field
from starlette.types import Message, Receive, Scope, Send

from gateway.api.credentials import CredentialOf, acts, require
from gateway.api.paging import PageQuery
from gateway.api.places import find_place
from gateway.audit import export
from gateway.connection import ABORT
from gateway.errors import Problem, StoreUnavailableError
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor
from gateway.policy.audit_chain import Head
from gateway.store import audit
from gateway.store.audit import Line, Wanted
from gateway.store.transaction import Transaction
from runtime.logs import get_logger

NDJSON = "application/x-ndjson"
DEVICE_PREFIX = "d_"
# At a time, at one gateway. Each holds up to a megabyte for a reader who does not read, and reads on for as
# long as the log is.
EXPORTS_PER_PERSON: Final = 2
# For one batch, about a megabyte: a line of 256 kbit/s needs half a minute. Whoever reads nothing for longer
# must not keep the place, least of all one who came with a stolen token that is ended by now.
STALL_S: Final = 120.0

StillMay = Callable[[Transaction], Awaitable[None]]
"""Raises once the reader may not any more."""

log = get_logger("gateway.api")
router = APIRouter(prefix="/v1", tags=["audit"])


def _utc(moment: datetime) -> str:
    """As the records write times."""
    try:
        return moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except OverflowError:
        raise ValueError("is too far from now") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]


class AuditQuery(PageQuery):
    """Which lines, and in which order."""

    kind: Annotated[
        str | None,
        Field(
            pattern="^[a-z0-9_.]{1,64}$", description="What the kind begins with: `device.` for all of those."
        ),
    ] = None
    device: Annotated[str | None, Field(pattern="^[a-z0-9_]{1,64}$", description="A device's id.")] = None
    actor: Annotated[
        str | None, Field(pattern="^[A-Za-z0-9_-]{1,64}$", description="The id of who did it.")
    ] = None
    since: Annotated[
        Moment | None, Field(alias="from", description="The earliest time, inclusive, with its offset (`Z`).")
    ] = None
    until: Annotated[
        Moment | None, Field(alias="to", description="The latest time, exclusive, with its offset (`Z`).")
    ] = None
    order: Annotated[Literal["newest", "oldest"], Field(description="Which lines come first.")] = "newest"

    @property
    def list_name(self) -> str:
        """A cursor goes in one direction."""
        return f"audit-{self.order}"

    def wanted(self, *, site: str | None = None, owner: UUID | None = None) -> Wanted:
        since, until = (None if moment is None else str(moment) for moment in (self.since, self.until))
        return Wanted(site, owner, self.kind, self.device, self.actor, since, until)


class AuditActor(BaseModel):
    """Who did it. `system`: the gateway, its settings, or nobody who was known (`anonymous`). `name` null:
    they have none, or none that is told here.
    """

    kind: Literal["person", "device", "system"]
    id: str
    name: str | None


class AuditDevice(BaseModel):
    """`name` null: the device is not at this site any more."""

    id: str
    name: str | None


class AuditLine(BaseModel):
    """One thing that was done. `number` counts all events of the installation: a site's have gaps."""

    number: int
    at: str
    kind: str
    actor: AuditActor
    device: AuditDevice | None
    detail: dict[str, Any]


class AuditList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[AuditLine]
    next_cursor: str | None


@router.get("/sites/{site_id}/audit", openapi_extra=acts(Action.AUDIT_READ))
async def list_site_audit(
    site_id: str, credential: CredentialOf, parts: Parts, query: Annotated[AuditQuery, Query()]
) -> AuditList:
    """What was done at a site: for its owners and admins, and nobody else (administrators of the installation
    have no role there, and read nothing).
    """
    async with parts.database.transaction() as tx:
        await find_place(tx, parts, credential, "site", site_id, Action.AUDIT_READ)
        return await _page(tx, query, query.wanted(site=site_id))


@router.get("/me/audit", openapi_extra=acts(Action.AUDIT_LIST))
async def list_own_audit(
    credential: CredentialOf, parts: Parts, query: Annotated[AuditQuery, Query()]
) -> AuditList:
    """What concerns one's own account: logins, also failed ones, API tokens, memberships."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.AUDIT_LIST)
        return await _page(tx, query, query.wanted(owner=actor.user_id))


@router.get(
    "/sites/{site_id}/audit/export",
    openapi_extra=acts(Action.AUDIT_READ),
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {}}, "description": "One JSON object a line."}},
)
async def export_site_audit(site_id: str, credential: CredentialOf, parts: Parts) -> StreamingResponse:
    """All of a site's lines, oldest first, with what proves them: each one's record as it was written, and
    the hashes that chain it into the log. The last line says that nothing was cut off; `towline audit verify
    --export` reads it.
    """
    async with parts.database.transaction() as tx:
        actor, _ = await find_place(tx, parts, credential, "site", site_id, Action.AUDIT_READ)
        head = await audit.head(tx)
        first = export.first_line(site_id, tx.at.isoformat(timespec="milliseconds"), head)
    # Nothing waits between here and where it is counted.
    if parts.exporting[actor.user_id] >= EXPORTS_PER_PERSON:
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_exports", "Let another export end first.")

    async def still_may(tx: Transaction) -> None:
        await find_place(tx, parts, credential, "site", site_id, Action.AUDIT_READ)

    async def lines() -> AsyncIterator[bytes]:
        yield first
        try:
            async for part in _exported(parts, site_id, head, still_may):
                yield part
        except (Problem, StoreUnavailableError) as error:
            # The head is long out: what is missing is the line that ends an export.
            log.info("an export was cut off", extra={"site": site_id, "reason": str(error)})

    name = f"audit-{site_id}.jsonl"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return _Export(parts, actor, lines(), headers)


class _Export(StreamingResponse):
    """Counted from its begin to its end, whoever ends it; cut off when its reader does not read."""

    media_type = NDJSON

    def __init__(
        self, parts: GatewayParts, actor: Actor, lines: AsyncIterator[bytes], headers: dict[str, str]
    ) -> None:
        super().__init__(lines, headers=headers)
        self._exporting = parts.exporting
        self._user_id = actor.user_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STALL_S):
                    await send(message)
            except TimeoutError:
                # The answer ends as when its reader goes away; to close it decently would wait for them.
                scope[ABORT]()

        self._exporting[self._user_id] += 1
        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._exporting[self._user_id] -= 1
            if not self._exporting[self._user_id]:
                del self._exporting[self._user_id]


async def _exported(parts: GatewayParts, site: str, head: Head, still_may: StillMay) -> AsyncIterator[bytes]:
    """A batch at a time, each in a transaction of its own: who reads slowly holds no connection. Asked again
    each time, since roles and logins end meanwhile.
    """
    events, after = 0, 0
    while True:
        async with parts.database.transaction() as tx:
            await still_may(tx)
            rows = await audit.rows_of(tx, Wanted(site=site), after, head.seq)
        if not rows:
            break
        yield b"".join(export.row_line(row) for row in rows)
        events, after = events + len(rows), rows[-1].seq
    yield export.last_line(events)


async def _page(tx: Transaction, query: AuditQuery, wanted: Wanted) -> AuditList:
    newest = query.order == "newest"
    cursor = query.after_number(query.list_name)
    found = await audit.lines(tx, wanted, cursor, query.asked, newest_first=newest)
    page, next_cursor = query.cut(found, query.list_name, lambda line: line.seq)
    people = await audit.person_names(tx, (line.actor for line in page))
    devices = await audit.device_names(
        tx, wanted.site or "", (id_ for line in page for id_ in (line.device, line.actor) if id_ is not None)
    )
    return AuditList(items=[_line(line, people, devices) for line in page], next_cursor=next_cursor)


def _line(line: Line, people: dict[str, str], devices: dict[str, str]) -> AuditLine:
    device = None if line.device is None else AuditDevice(id=line.device, name=devices.get(line.device))
    if line.actor in people:
        actor = AuditActor(kind="person", id=line.actor, name=people[line.actor])
    elif line.actor.startswith(DEVICE_PREFIX):
        actor = AuditActor(kind="device", id=line.actor, name=devices.get(line.actor))
    else:
        actor = AuditActor(kind="system", id=line.actor, name=None)
    return AuditLine(
        number=line.seq, at=line.at, kind=line.kind, actor=actor, device=device, detail=line.detail
    )
