"""Support with consent: an engineer asks, the owner decides, either side ends it, the owner reads it all."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, Field

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permitted, require
from gateway.api.devices import find, look
from gateway.api.idempotency import OnceOf
from gateway.api.limits import SUPPORT_PER_ENGINEER, take
from gateway.api.models import Body, moment, moment_if
from gateway.api.paging import PageQuery
from gateway.errors import Problem, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import RULES, Action, Actor, Resource, may
from gateway.policy.names import clean_name
from gateway.policy.support import CONSENT_MAX_S, CONSENT_MIN_S, REASON_MAX, Move, Part, State, moved
from gateway.store import support
from gateway.store.support import Passed, SupportRequest
from gateway.store.transaction import AuditEvent, Transaction, utc

Duration = Annotated[int, Field(ge=CONSENT_MIN_S, le=CONSENT_MAX_S, description="Seconds.")]

# Somebody has to do something about it, or still can.
OPEN_STATES = frozenset({State.PENDING, State.APPROVED})

router = APIRouter(prefix="/v1", tags=["support"])


class AskBody(Body):
    reason: Annotated[
        str,
        AfterValidator(lambda text: clean_name(text, REASON_MAX)),
        Field(description="What the owner reads before they decide."),
    ]
    duration_s: Duration = 3600


class ConsentBody(Body):
    """`duration_s` left out: as long as was asked for; never longer."""

    duration_s: Duration | None = None


class SupportAnswer(BaseModel):
    """`state`: pending, approved, refused, withdrawn, ended, lapsed (nobody decided) or expired.

    `until`: when the consent runs out. `yours_to_decide`: the person may approve or refuse it, by a login.
    `log_left_out`: requests that the log lacks at its end, since it was full; the consent ended then.
    """

    id: UUID
    device_id: str
    device_name: str
    site: str
    engineer: str
    reason: str
    duration_s: int
    state: State
    created_at: str
    lapses_at: str
    decided_by: str | None
    decided_at: str | None
    until: str | None
    ended_by: str | None
    ended_at: str | None
    log_left_out: int = 0  # an answer that is told again may be of a time that did not count
    yours_to_decide: bool


class SupportList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[SupportAnswer]
    next_cursor: str | None


class PassedAnswer(BaseModel):
    """One request. `status` 0: no answer had begun. `received` and `sent`: bytes of the bodies.

    `n` is its number in the log. One that takes long has two: `part` `began`, then
    `ended` with the same `request` and its sizes. Part `lost`: `lost` requests are missing here.
    """

    n: int
    request: UUID | None
    part: Part
    lost: int
    session_id: UUID
    at: str
    method: str
    path: str
    status: int
    received: int
    sent: int
    ms: float

    @classmethod
    def of(cls, n: int, one: Passed) -> PassedAnswer:
        """The entry of number `n`."""
        return cls(
            n=n,
            request=one.entry,
            part=one.part,
            lost=one.lost,
            session_id=one.session_id,
            at=moment(one.at),
            method=one.method,
            path=one.path,
            status=one.status,
            received=one.received,
            sent=one.sent,
            ms=one.ms,
        )


class PassedList(BaseModel):
    """`next_cursor` null: that was all until now. `left_out`: requests that found no room behind the last."""

    items: list[PassedAnswer]
    next_cursor: str | None
    left_out: int


@router.post(
    "/devices/{device_id}/support-requests",
    status_code=HTTPStatus.CREATED,
    openapi_extra=acts(Action.SUPPORT_ASK),
)
async def ask_for_support(
    device_id: str, body: AskBody, request: Request, credential: CredentialOf, parts: Parts, once: OnceOf
) -> SupportAnswer:
    """Ask the device's owner for access. It is pending for a week at the longest."""
    async with parts.database.transaction() as tx:
        actor, _ = await look(tx, parts, credential, device_id, Action.SUPPORT_ASK)
    await take(parts, request, (SUPPORT_PER_ENGINEER, str(actor.user_id)))
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.SUPPORT_ASK)
        earlier = await once.earlier(tx, actor.user_id, SupportAnswer)
        if earlier is not None:
            return earlier
        if device.status != "approved":
            raise Problem(HTTPStatus.CONFLICT, "device_not_approved", f"The device is {device.status}.")
        try:
            made = await support.add(
                tx,
                device_id=device_id,
                site_id=device.site_id,
                engineer_id=actor.user_id,
                reason=body.reason,
                duration_s=body.duration_s,
            )
        except support.AlreadyAskedError as error:
            raise Problem(
                HTTPStatus.CONFLICT, "already_asked", "You have an open request for this device."
            ) from error
        asked = await _get(tx, made, actor)
        _audit(tx, "support.asked", actor, asked, reason=body.reason, duration_s=body.duration_s)
        return await once.keep(tx, actor.user_id, _answer(asked))


@router.get("/support-requests", openapi_extra=acts(Action.SUPPORT_LIST))
async def list_support_requests(
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[PageQuery, Query()],
) -> SupportList:
    """What the person asked for, and what was asked about sites that they run; newest first."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.SUPPORT_LIST)
        before = wanted.after_number("support-requests")
        found = await support.list_seen(tx, actor.user_id, before, wanted.asked)
    page, next_cursor = wanted.cut(found, "support-requests", lambda one: one.n)
    return SupportList(items=[_answer(one) for one in page], next_cursor=next_cursor)


@router.get("/support-requests/{request_id}", openapi_extra=acts(Action.SUPPORT_READ))
async def read_support_request(request_id: UUID, credential: CredentialOf, parts: Parts) -> SupportAnswer:
    """One request, for who asked it and for those who run the site."""
    async with parts.database.transaction() as tx:
        _, found = await _find(tx, parts, credential, request_id, Action.SUPPORT_READ)
    return _answer(found)


@router.post("/support-requests/{request_id}/approve", openapi_extra=acts(Action.SUPPORT_DECIDE))
async def approve_support(
    request_id: UUID, body: ConsentBody, credential: CredentialOf, parts: Parts
) -> SupportAnswer:
    """The owner's yes: from now on, for as long as was asked or less."""
    async with parts.database.transaction() as tx:
        actor, found = await _find(tx, parts, credential, request_id, Action.SUPPORT_DECIDE, lock=True)
        state = _moved(found, Move.APPROVE)
        duration_s = min(found.duration_s, body.duration_s or found.duration_s)
        await support.decide(tx, request_id, state, actor.user_id, utc(tx.now + duration_s))
        _audit(tx, "support.approved", actor, found, duration_s=duration_s)
        return _answer(await _get(tx, request_id, actor))


@router.post("/support-requests/{request_id}/refuse", openapi_extra=acts(Action.SUPPORT_DECIDE, frees=True))
async def refuse_support(request_id: UUID, credential: CredentialOf, parts: Parts) -> SupportAnswer:
    """The owner's no."""
    async with parts.database.transaction() as tx:
        actor, found = await _find(tx, parts, credential, request_id, Action.SUPPORT_DECIDE, lock=True)
        await support.decide(tx, request_id, _moved(found, Move.REFUSE), actor.user_id, None)
        _audit(tx, "support.refused", actor, found)
        return _answer(await _get(tx, request_id, actor))


@router.post("/support-requests/{request_id}/end", openapi_extra=acts(Action.SUPPORT_END, frees=True))
async def end_support(request_id: UUID, credential: CredentialOf, parts: Parts) -> SupportAnswer:
    """By either side, at any time: every session under the consent ends within two seconds.

    A request that nobody decided yet is withdrawn, by the engineer alone: owners refuse it.
    """
    async with parts.database.transaction() as tx:
        actor, found = await _find(tx, parts, credential, request_id, Action.SUPPORT_END, lock=True)
        if found.state is State.ENDED or found.state is State.EXPIRED:
            return _answer(found)  # ending it again changes nothing
        move = Move.END
        if found.state is State.PENDING:
            if found.engineer_id != actor.user_id:
                raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Who asked takes it back; refuse it.")
            move = Move.WITHDRAW
        state = _moved(found, move)
        ended = await support.end(tx, request_id, state, actor.user_id)
        _audit(tx, f"support.{state}", actor, found, sessions=ended)
        return _answer(await _get(tx, request_id, actor))


@router.get("/support-requests/{request_id}/log", openapi_extra=acts(Action.SUPPORT_LOG_READ))
async def read_support_log(
    request_id: UUID,
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[PageQuery, Query()],
) -> PassedList:
    """What the engineer's sessions asked of the device: method, path without query, sizes; never bodies."""
    async with parts.database.transaction() as tx:
        _, request = await _find(tx, parts, credential, request_id, Action.SUPPORT_LOG_READ)
        after = wanted.after_number("support-log") or 0
        found = await support.list_passed(tx, request_id, after, wanted.asked)
    page, next_cursor = wanted.cut(found, "support-log", lambda one: one[0])
    items = [PassedAnswer.of(n, one) for n, one in page]
    return PassedList(items=items, next_cursor=next_cursor, left_out=request.log_left_out)


async def _find(
    tx: Transaction,
    parts: GatewayParts,
    credential: Credential,
    request_id: UUID,
    action: Action,
    *,
    lock: bool = False,
) -> tuple[Actor, SupportRequest]:
    actor = await logged_in(tx, parts, credential)
    found = await support.get(tx, request_id, actor.user_id, lock=lock)
    seen = None if found is None else support_resource(actor, found)
    return actor, permitted(actor, action, found, seen, "support request")


async def _get(tx: Transaction, request_id: UUID, actor: Actor) -> SupportRequest:
    found = await support.get(tx, request_id, actor.user_id)
    if found is None:
        raise not_found("support request")
    return found


def _moved(found: SupportRequest, move: Move) -> State:
    state = moved(found.state, move)
    if state is None:
        raise Problem(HTTPStatus.CONFLICT, "wrong_state", f"The request is {found.state}.")
    return state


def _audit(tx: Transaction, kind: str, actor: Actor, found: SupportRequest, **detail: object) -> None:
    detail |= {"request": str(found.id), "engineer": str(found.engineer_id)}
    user, site = str(actor.user_id), found.site_id
    tx.audit(AuditEvent(kind, user, site=site, device=found.device_id, detail=detail))


def support_resource(actor: Actor, found: SupportRequest) -> Resource:
    """The request as the person sees it."""
    return Resource(found.role, mine=found.engineer_id == actor.user_id)


def support_row(actor: Actor, found: SupportRequest) -> dict[str, object]:
    """What a page shows of it: the answer, and what the person may do."""
    mine = found.engineer_id == actor.user_id
    ends = found.state is State.APPROVED and may(actor, Action.SUPPORT_END, support_resource(actor, found))
    withdraws = found.state is State.PENDING and mine
    return _answer(found).model_dump() | {"may_end": ends or withdraws, "mine": mine}


def _answer(found: SupportRequest) -> SupportAnswer:
    return SupportAnswer(
        id=found.id,
        device_id=found.device_id,
        device_name=found.device_name,
        site=found.site,
        engineer=found.engineer,
        reason=found.reason,
        duration_s=found.duration_s,
        state=found.state,
        created_at=moment(found.created_at),
        lapses_at=moment(found.lapses_at),
        decided_by=found.decided_by,
        decided_at=moment_if(found.decided_at),
        until=moment_if(found.until),
        ended_by=found.ended_by,
        ended_at=moment_if(found.ended_at),
        log_left_out=found.log_left_out,
        yours_to_decide=found.state is State.PENDING and found.role in RULES[Action.SUPPORT_DECIDE].roles,
    )
