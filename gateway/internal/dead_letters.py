"""What the command that tries dead letters again asks, some at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from gateway.internal.models import Body
from gateway.internal.peer import Ingest
from gateway.messages.replay import replay
from gateway.parts import Parts
from gateway.policy.names import DEVICE_ID_PATTERN, SITE_ID_PATTERN
from gateway.store.replays import Wanted

router = APIRouter(prefix="/internal/v1/dead-letters", tags=["internal"])


def _text(value: object) -> object:
    """A number is no time here, as it is none in a query."""
    if value is not None and not isinstance(value, str):
        raise ValueError("must be RFC 3339")
    return value


def _in_utc(moment: datetime) -> datetime:
    """The first and the last day of the calendar have hours that UTC has not, and the database neither."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far from now") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_in_utc)]


class ReplayBody(Body):
    """What is left out, or null, does not matter. `after`: the number of the last one that was looked at."""

    site: Annotated[str, Field(pattern=f"^{SITE_ID_PATTERN.pattern}$")] | None = None
    device: Annotated[str, Field(pattern=f"^{DEVICE_ID_PATTERN.pattern}$")] | None = None
    reason: Annotated[str, Field(pattern="^[a-z_]{1,32}$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dry_run: bool


class LeftAnswer(BaseModel):
    """One that stays a dead letter: for what reason now, and why."""

    number: int
    at: str
    topic: str
    reason: str
    why: str


class ReplayAnswer(BaseModel):
    """`stored`: now, or with `dry_run` would be. `known`: stored before. `next` null: that was all."""

    looked: int
    stored: int
    known: int
    left: list[LeftAnswer]
    next: int | None


@router.post("/replay")
async def replay_some(body: ReplayBody, peer: Ingest, parts: Parts) -> ReplayAnswer:
    """Try the next dead letters again: those that are good by now become history, once."""
    wanted = Wanted(body.site, body.device, body.reason, body.since, body.until)
    done = await replay(
        parts.database,
        wanted,
        body.after,
        f"operator by {peer}",
        days=parts.settings.history_days,
        dry=body.dry_run,
    )
    if not body.dry_run:
        parts.metrics.messages.labels("replayed").inc(len(done.stored))
        parts.metrics.history_rows.inc(len(done.stored))
    return ReplayAnswer(
        looked=done.looked,
        stored=len(done.stored),
        known=len(done.known),
        left=[
            LeftAnswer(
                number=letter.n,
                at=_utc(letter.at),
                topic=letter.topic,
                reason=fault.reason.value,
                why=fault.detail,
            )
            for letter, fault in done.left
        ],
        next=done.next,
    )


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
