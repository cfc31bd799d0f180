"""Commands to devices: sent, looked at, waited for."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.credentials import Credential, CredentialOf, acts, hold, logged_in, permit, permitted
from gateway.api.devices import device_seen, find_for, look
from gateway.api.idempotency import OnceOf
from gateway.api.models import Body, instant, instant_if
from gateway.api.paging import PageQuery
from gateway.commands.sending import Person, Sender, Wanted, send
from gateway.commands.waiting import WAIT_MAX_S
from gateway.errors import StoreUnavailableError, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, Resource, may
from gateway.policy.commands import FINAL, TIMEOUT_MAX_S, TTL_DEFAULT_S, TTL_MAX_S, TTL_NOW_S, State
from gateway.store import commands, devices, places, support
from gateway.store.commands import Command, Order
from gateway.store.devices import Device
from gateway.store.transaction import Transaction

NAME_MAX = 64  # a token of the devices' protocol

router = APIRouter(prefix="/v1", tags=["commands"])


class CommandBody(Body):
    """What the device is to do, once."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX, pattern="^[a-z0-9_-]+$")]
    params: Annotated[dict[str, Any], Field(description="As the device's type describes them.")] = Field(
        default={}
    )
    ttl_s: Annotated[
        int, Field(ge=1, le=TTL_MAX_S, description="Seconds in which the device must have received it.")
    ] = TTL_DEFAULT_S
    timeout_s: Annotated[
        int | None,
        Field(
            ge=1,
            le=TIMEOUT_MAX_S,
            description="Seconds from its receipt in which it must have ended; left out: as the type says.",
        ),
    ] = None
    queue: Annotated[
        bool,
        Field(
            description="false: refuse it (503 `device_away`) while the device is not connected. One that"
            f" finds nobody then fails (`device_away`), and `ttl_s` is {TTL_NOW_S} at most."
        ),
    ] = True


class WaitQuery(BaseModel):
    """How long to wait for the end."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[
        int,
        Field(
            ge=0, le=WAIT_MAX_S, description="Answer when the command has ended, or after so many seconds."
        ),
    ] = 0


class HopAnswer(BaseModel):
    """One step of a command's way. `at` null: it was not reached, or the device has no clock. `clock`: whose
    time that is. `place`: of `logged`, where in the log the device's last answer stands.
    """

    hop: Literal["stored", "published", "received", "done", "logged", "finished"]
    at: str | None
    clock: Literal["gateway", "device", "ingest"]
    place: str | None = None


TraceParent = Annotated[
    str | None,
    Header(
        description="W3C Trace Context: the command goes by this trace. One that cannot be read is as none."
    ),
]


class CommandAnswer(BaseModel):
    """A command with the time of each state that it reached; null: it did not.

    `state`: queued, sent (the broker took it; that proves nothing about the device), delivered (the device
    has stored it), and one of the ends: succeeded, failed (`error` says why; `device_revoked`,
    `device_moved`, `device_retyped`, `device_away` and `sender_not_allowed` are the gateway's), timed_out
    (delivered, and no end in time), expired (nobody received it in time). `late`: what the device said after
    the end. `publishes`: how often it was sent on its way. `hops`: stored here, published to the broker,
    received and done by the device, its answer logged, and finished here. `trace`: by it the logs of all of
    them name the command.
    """

    id: UUID
    device_id: str
    name: str
    params: dict[str, Any]
    state: State
    author: str
    origin: str
    created_at: str
    expires_at: str
    timeout_s: int
    queue: bool
    sent_at: str | None
    delivered_at: str | None
    finished_at: str | None
    result: Any
    error: str | None
    late_at: str | None
    late: dict[str, Any] | None
    publishes: int
    trace: str | None
    hops: list[HopAnswer]


class CommandList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[CommandAnswer]
    next_cursor: str | None


@router.post(
    "/devices/{device_id}/commands",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=acts(Action.COMMAND_SEND),
    responses={200: {"model": CommandAnswer, "description": "It has ended."}},
)
async def send_command(
    device_id: str,
    body: CommandBody,
    wanted: Annotated[WaitQuery, Query()],
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    once: OnceOf,
    traceparent: TraceParent = None,
) -> CommandAnswer:
    """Ask the device to do something once. 202 while that has not ended, 200 when it has within `wait`.

    It is checked against what the device's type and the device itself say it can do before anything is kept.
    While the device is away the command waits for it, `ttl_s` at the longest, and no longer than you may ask
    for it: when your role, your login or API token, or the consent ends before the device has it, it fails
    (`sender_not_allowed`). Sent again with its Idempotency-Key it is the same command, as it is by then.
    """
    order = None
    async with parts.database.transaction() as tx:
        actor = await logged_in(tx, parts, credential)
        await hold(tx, actor)
        device = await find_for(tx, actor, device_id, Action.COMMAND_SEND)
        earlier = await once.earlier(tx, actor.user_id, CommandAnswer)
        if earlier is None:
            order = await _send(tx, parts, actor, device, body, traceparent)
            command = order.command
            await once.keep(tx, actor.user_id, command_answer(command))
        else:
            found = await commands.get(tx, earlier.id)
            if found is None:
                raise not_found("command")
            command = found
    if order is not None:
        parts.commands.publish_now(order)
    command = await _waited(parts, credential, actor, command, wanted.wait)
    if command.state in FINAL:
        response.status_code = HTTPStatus.OK
    return command_answer(command)


@router.get("/devices/{device_id}/commands", openapi_extra=acts(Action.COMMAND_READ))
async def list_commands(
    device_id: str, credential: CredentialOf, parts: Parts, wanted: Annotated[PageQuery, Query()]
) -> CommandList:
    """What was asked of the device while it was where it is, newest first. Kept for 90 days."""
    async with parts.database.reading() as tx:
        _, device = await look(tx, parts, credential, device_id, Action.COMMAND_READ)
        before = wanted.after_number("commands")
        found = await commands.list_of_device(tx, device_id, device.site_id, before, wanted.asked)
    page, next_cursor = wanted.cut(found, "commands", lambda one: one.n)
    return CommandList(items=[command_answer(one) for one in page], next_cursor=next_cursor)


@router.get("/commands/{command_id}", openapi_extra=acts(Action.COMMAND_READ))
async def read_command(
    command_id: UUID,
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[WaitQuery, Query()],
) -> CommandAnswer:
    """One command; with `wait` when it has ended, or after so many seconds."""
    actor, command = await _seen(parts, credential, command_id)
    return command_answer(await _waited(parts, credential, actor, command, wanted.wait))


async def _seen(parts: GatewayParts, credential: Credential, command_id: UUID) -> tuple[Actor, Command]:
    """Who asks, and the command as it is now, where they may see it now."""
    async with parts.database.reading() as tx:
        actor = await logged_in(tx, parts, credential)
        found = await commands.get(tx, command_id)
        device = None if found is None else await devices.get(tx, found.device_id, actor.user_id)
        if found is not None and device is not None and device.site_id != found.site_id:
            device = None  # it went elsewhere since: the command is the former place's
        seen = await device_seen(tx, actor, Action.COMMAND_READ, device)
        return actor, permitted(actor, Action.COMMAND_READ, found, seen, "command")


async def _waited(
    parts: GatewayParts, credential: Credential, actor: Actor, command: Command, wait_s: float
) -> Command:
    """The command after the wait, for who may see it still: no wait outlives the right to its answer."""
    if not wait_s:
        return command
    await parts.waits.wait_ended(command, wait_s, actor.user_id)
    try:
        _, later = await _seen(parts, credential, command.id)
    except StoreUnavailableError:
        return command  # as it was when they might see it: it is made, whatever the answer says of its state
    return later


async def _send(
    tx: Transaction, parts: GatewayParts, actor: Actor, device: Device, body: CommandBody, trace: str | None
) -> Order:
    # Held, as for a session: what carries the command cannot end unseen between this look and the next one.
    role = await places.hold_role(tx, actor.user_id, device.site_id)
    by_role = may(actor, Action.COMMAND_SEND, Resource(role))
    consent = None if by_role else await support.consent_for(tx, device.id, actor.user_id)
    permit(actor, Action.COMMAND_SEND, Resource(role, consented=consent is not None), "device")
    ends = [end for end in (actor.until, None if consent is None else consent.until) if end is not None]
    sender = Sender(
        actor=str(actor.user_id),
        author=actor.name,
        origin="api",
        person=Person(
            actor.user_id,
            Resource(role, consented=consent is not None),
            actor.login_id,
            actor.api_token_id,
            None if consent is None else consent.id,
        ),
        until=min(ends, default=None),
    )
    wanted = Wanted(body.name, body.params, body.ttl_s, body.timeout_s, body.queue, trace)
    return await send(tx, device, sender, wanted, parts.commands.lease_s)


def command_answer(command: Command) -> CommandAnswer:
    return CommandAnswer(
        id=command.id,
        device_id=command.device_id,
        name=command.name,
        params=command.params,
        state=command.state,
        author=command.author,
        origin=command.origin,
        created_at=instant(command.created_at),
        expires_at=instant(command.expires_at),
        timeout_s=command.timeout_s,
        queue=command.queue,
        sent_at=instant_if(command.sent_at),
        delivered_at=instant_if(command.delivered_at),
        finished_at=instant_if(command.finished_at),
        result=command.result,
        error=command.error,
        late_at=instant_if(command.late_at),
        late=command.late,
        publishes=command.publishes,
        trace=command.trace,
        hops=_hops(command),
    )


def _hops(command: Command) -> list[HopAnswer]:
    return [
        HopAnswer(hop="stored", at=instant(command.created_at), clock="gateway"),
        HopAnswer(hop="published", at=instant_if(command.sent_at), clock="gateway"),
        HopAnswer(hop="received", at=instant_if(command.took_at), clock="device"),
        HopAnswer(hop="done", at=instant_if(command.done_at), clock="device"),
        HopAnswer(hop="logged", at=instant_if(command.logged_at), clock="ingest", place=command.log_place),
        HopAnswer(hop="finished", at=instant_if(command.finished_at), clock="gateway"),
    ]
