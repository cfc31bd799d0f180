"""What devices say: the latest of each kind, and the history, newest first or by steps."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.api.credentials import CredentialOf, acts
from gateway.api.devices import look
from gateway.api.etags import NOT_MODIFIED, IfNoneMatch, unless_known
from gateway.api.paging import PageQuery
from gateway.errors import wrong_field
from gateway.parts import Parts
from gateway.policy.access import Action
from gateway.policy.device_clock import FUTURE_MAX_MS, moment_of, ms_of, window
from gateway.policy.messages import Connection
from gateway.store import history, messages
from gateway.store.history import READ_S, Asked, Bucket, Entry, Position, TooWideError
from gateway.store.messages import Latest
from gateway.store.transaction import Transaction

POINTS_MAX: Final = 1000  # more than a screen has columns
STEP_MAX_S: Final = 86_400
KEY_MAX: Final = 64
DEFAULT_RANGE: Final = timedelta(days=1)  # of points, if as many make it: a month of them is slow
_POSITION: Final = re.compile(r"([0-9]{1,15})\.([0-9]{1,16})\.([0-9]{1,16})")

router = APIRouter(prefix="/v1/devices/{device_id}", tags=["messages"])


class MessageAnswer(BaseModel):
    """`at`: by the device's clock, or counted from its boot when it has none; `received_at`: by ours. `boot`
    and `seq` order a device's messages. `type`: the kind's own name, or what an event is called.
    """

    at: str
    received_at: str
    boot: int
    seq: int
    type: str
    body: dict[str, Any]


class ConnectionStateAnswer(BaseModel):
    """The device's connection for messages, which is not its tunnel. `since`: it is online, or offline, since
    then. `seen_at`: it said so last. `commands`: names of what it executes.
    """

    online: bool
    since: str
    seen_at: str
    software: str | None
    commands: list[str]


class StateAnswer(BaseModel):
    """The latest of each kind; null: the device said none at this site."""

    telemetry: MessageAnswer | None
    state: MessageAnswer | None
    heartbeat: MessageAnswer | None
    connection: ConnectionStateAnswer | None


class HistoryItem(MessageAnswer):
    """One message."""

    id: UUID
    kind: str


class Point(BaseModel):
    """A reading over one step that begins at `at`; `n`: samples that it was made of."""

    at: str
    n: int
    min: float
    max: float
    mean: float


class HistoryAnswer(BaseModel):
    """Newest first. `items`: messages; with `step_s` there are `points` instead. `next_cursor` null: that was
    all.
    """

    items: list[HistoryItem]
    points: list[Point]
    next_cursor: str | None


class HistoryQuery(PageQuery):
    """Which part of the history."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kind: Literal["telemetry", "state", "event", "heartbeat"] | None = None
    begin: Annotated[
        AwareDatetime | None,
        Field(
            alias="from", description="RFC 3339; left out: all that is kept (with `step_s`: a day at most)."
        ),
    ] = None
    end: Annotated[
        AwareDatetime | None, Field(alias="to", description="RFC 3339, not included; left out: now.")
    ] = None
    key: Annotated[
        str | None,
        Field(max_length=KEY_MAX, pattern=r"^[^\x00]+$", description="Reading that `step_s` is about."),
    ] = None
    step_s: Annotated[
        int | None,
        Field(ge=1, le=STEP_MAX_S, description="Seconds; the reading's min, max and mean over each."),
    ] = None


@router.get(
    "/state", openapi_extra=acts(Action.DEVICE_READ), response_model=StateAnswer, responses=NOT_MODIFIED
)
async def read_state(
    device_id: str,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """What the device said last: telemetry, state, health, and whether it is connected for messages."""
    async with parts.database.reading() as tx:
        _, device = await look(tx, parts, credential, device_id, Action.DEVICE_READ)
        found = await messages.latest(tx, device.id, device.site_id)
        connection = await messages.connection_of(tx, device.id)
    answer = StateAnswer(
        telemetry=_message(found.get("telemetry")),
        state=_message(found.get("state")),
        heartbeat=_message(found.get("heartbeat")),
        connection=_connection(connection),
    )
    return unless_known(if_none_match, response, answer, device.version)


@router.get("/history", openapi_extra=acts(Action.DEVICE_READ))
async def read_history(
    device_id: str,
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[HistoryQuery, Query()],
) -> HistoryAnswer:
    """What the device said, newest first; with `key` and `step_s` one reading of its telemetry by steps.

    Of a device that was moved you see what it said at sites where you have a role.
    """
    async with parts.database.transaction(statement_s=READ_S) as tx:
        actor, device = await look(tx, parts, credential, device_id, Action.DEVICE_READ)
        begin, end = _range(tx, wanted, parts.settings.history_days)
        asked = Asked(device.id, device.site_id, actor.user_id, wanted.kind, begin, end)
        try:
            if wanted.step_s is None:
                return await _page(tx, asked, wanted)
            return await _points(tx, asked, wanted, wanted.step_s)
        except TooWideError:
            raise wrong_field("from", f"is more than can be read in {READ_S:g} s; ask for less") from None


async def _page(tx: Transaction, asked: Asked, wanted: HistoryQuery) -> HistoryAnswer:
    if wanted.key is not None:
        raise wrong_field("key", "goes with step_s")
    found = await history.page(tx, asked, _before(wanted.after("history")), wanted.asked)
    page, next_cursor = wanted.cut(found, "history", lambda e: f"{ms_of(e.at)}.{e.boot}.{e.seq}")
    return HistoryAnswer(items=[_item(entry) for entry in page], points=[], next_cursor=next_cursor)


async def _points(tx: Transaction, asked: Asked, wanted: HistoryQuery, step_s: int) -> HistoryAnswer:
    if wanted.key is None:
        raise wrong_field("key", "must say which reading the steps are about")
    if wanted.kind not in {None, "telemetry"}:
        raise wrong_field("kind", "must be telemetry, or left out, with step_s")
    if wanted.cursor:
        raise wrong_field("cursor", "goes with messages, not with step_s")
    if (asked.end - asked.begin) / timedelta(seconds=step_s) > POINTS_MAX:
        raise wrong_field("step_s", f"makes more than {POINTS_MAX} points of that range")
    found = await history.buckets(tx, asked, wanted.key, step_s)
    return HistoryAnswer(items=[], points=[_point(bucket) for bucket in found], next_cursor=None)


def _range(tx: Transaction, wanted: HistoryQuery, days: int) -> tuple[datetime, datetime]:
    """What is asked for, within what is kept."""
    oldest = moment_of(window(tx.now, days).kept_from_ms)
    newest = tx.at + timedelta(milliseconds=FUTURE_MAX_MS)  # clocks of devices may be ahead
    end = newest if wanted.end is None else min(max(wanted.end, oldest), newest)
    if wanted.begin is not None:
        begin = max(wanted.begin, oldest)
    else:
        begin = oldest if wanted.step_s is None else max(oldest, end - _default_range(wanted.step_s))
    if wanted.begin is not None and wanted.end is not None and wanted.begin >= wanted.end:
        raise wrong_field("from", "must be before `to`")
    return begin, max(begin, end)


def _default_range(step_s: int) -> timedelta:
    return min(DEFAULT_RANGE, timedelta(seconds=POINTS_MAX * step_s))


def _before(position: str) -> Position | None:
    if not position:
        return None
    found = _POSITION.fullmatch(position)
    if found is None or not position.isascii():
        raise wrong_field("cursor", "is no next_cursor of this list")
    try:
        return moment_of(int(found[1])), int(found[2]), int(found[3])
    except OverflowError:  # a time beyond the calendar's end
        raise wrong_field("cursor", "is no next_cursor of this list") from None


def _message(latest: Latest | None) -> MessageAnswer | None:
    if latest is None:
        return None
    return MessageAnswer(
        at=_instant(latest.at),
        received_at=_instant(latest.received_at),
        boot=latest.boot,
        seq=latest.seq,
        type=latest.type,
        body=latest.body,
    )


def _connection(connection: Connection | None) -> ConnectionStateAnswer | None:
    if connection is None:
        return None
    hello = connection.hello or {}
    return ConnectionStateAnswer(
        online=connection.online,
        since=_instant(connection.since),
        seen_at=_instant(connection.seen_at),
        software=hello.get("software"),
        commands=hello.get("commands", []),
    )


def _item(entry: Entry) -> HistoryItem:
    return HistoryItem(
        at=_instant(entry.at),
        received_at=_instant(entry.received_at),
        boot=entry.boot,
        seq=entry.seq,
        type=entry.type,
        body=entry.body,
        id=entry.id,
        kind=entry.kind,
    )


def _point(bucket: Bucket) -> Point:
    return Point(at=_instant(bucket.at), n=bucket.n, min=bucket.min, max=bucket.max, mean=bucket.mean)


def _instant(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: devices say several things a second."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
