"""What of a site's messages could not be taken, for those who run the site. Bodies are shown to nobody."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.api.credentials import CredentialOf, acts
from gateway.api.models import SiteId, instant, instant_if
from gateway.api.paging import PageQuery
from gateway.api.places import find_place
from gateway.parts import Parts
from gateway.policy.access import Action
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.store import replays
from gateway.store.replays import Listed, Wanted
from gateway.store.transaction import unix

_LIST: Final = "dead-letters"

router = APIRouter(prefix="/v1", tags=["messages"])


class DeadLetterQuery(PageQuery):
    """Which of them."""

    site_id: Annotated[SiteId, Field(description="The site where their devices are, or were then.")]
    device_id: Annotated[
        str | None, Field(pattern=f"^{DEVICE_ID_PATTERN.pattern}$", description="Of one device alone.")
    ] = None
    reason: Annotated[
        str | None,
        Field(pattern="^[a-z_]{1,32}$", description="One of section 9 of the device protocol."),
    ] = None


class DeadLetter(BaseModel):
    """`at`: when it came. `size`: of the message, bytes. `replayed_at`: it was tried again then, and what it
    says is stored; null: it is not. `left_out`: of reason `no_space`, for how many without room it stands.
    """

    number: int
    at: str
    reason: str
    detail: str
    topic: str
    device_id: str | None
    size: int
    replayed_at: str | None
    left_out: int


class DeadLetterList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[DeadLetter]
    next_cursor: str | None


@router.get("/dead-letters", openapi_extra=acts(Action.DEAD_LETTER_READ))
async def list_dead_letters(
    credential: CredentialOf, parts: Parts, query: Annotated[DeadLetterQuery, Query()]
) -> DeadLetterList:
    """What a site's devices said and could not be taken, with the reason, newest first. Who runs the
    installation tries them again with `towline ingest replay`, once what was wrong is mended.
    """
    async with parts.database.transaction() as tx:
        await find_place(tx, parts, credential, "site", query.site_id, Action.DEAD_LETTER_READ)
        wanted = Wanted(query.site_id, query.device_id, query.reason)
        found = await replays.page(tx, wanted, query.after_number(_LIST), query.asked)
    page, next_cursor = query.cut(found, _LIST, lambda letter: letter.n)
    return DeadLetterList(items=[_letter(one) for one in page], next_cursor=next_cursor)


def _letter(found: Listed) -> DeadLetter:
    return DeadLetter(
        number=found.n,
        at=instant(unix(found.at)),
        reason=found.reason,
        detail=found.detail,
        topic=found.topic,
        device_id=found.device_id,
        size=found.size,
        replayed_at=instant_if(None if found.replayed_at is None else unix(found.replayed_at)),
        left_out=found.left_out,
    )
