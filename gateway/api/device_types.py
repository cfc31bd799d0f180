"""Types of devices: what each can be asked to do. Everybody reads them; the installation's staff writes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field

from gateway.api.credentials import CredentialOf, acts, require
from gateway.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, refuse_other_version, tagged, unless_known
from gateway.api.models import Body, moment
from gateway.api.paging import PageQuery
from gateway.errors import Problem, not_found, wrong_field
from gateway.parts import Parts
from gateway.policy import capabilities
from gateway.policy.access import Action
from gateway.policy.capabilities import BadCapabilitiesError
from gateway.policy.names import DEVICE_TYPE_PATTERN, clean_name
from gateway.store import device_types
from gateway.store.device_types import DeviceType
from gateway.store.transaction import AuditEvent, Reading

# An installation has a few products; a list of thousands is a script's mistake that nobody can take back.
TYPES_MAX = 500

TypeId = Annotated[str, Path(pattern=f"^{DEVICE_TYPE_PATTERN.pattern}$")]

router = APIRouter(prefix="/v1/device-types", tags=["device types"])


class DeviceTypeBody(Body):
    """The whole of it: what is left out is gone."""

    name: Annotated[str, AfterValidator(clean_name)]
    capabilities: Annotated[
        dict[str, Any],
        Field(
            description="`commands`: by name, each with `params` (a schema in the part of JSON Schema that"
            " docs/protocol/device-v1.md names), `timeout_s`, `role` (member, admin or owner), `support`"
            " (whether the owner's consent is enough); and `config`, a schema."
        ),
    ]


class DeviceTypeAnswer(BaseModel):
    """`version` counts its changes."""

    id: str
    name: str
    capabilities: dict[str, Any]
    version: int
    changed_at: str


class DeviceTypeList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[DeviceTypeAnswer]
    next_cursor: str | None


@router.get("", openapi_extra=acts(Action.DEVICE_TYPE_LIST))
async def list_device_types(
    credential: CredentialOf, parts: Parts, wanted: Annotated[PageQuery, Query()]
) -> DeviceTypeList:
    """Every type, by id."""
    async with parts.database.reading() as tx:
        await require(tx, parts, credential, Action.DEVICE_TYPE_LIST)
        found = await device_types.list_all(tx, wanted.after("device-types"), wanted.asked)
    page, next_cursor = wanted.cut(found, "device-types", lambda one: one.id)
    return DeviceTypeList(items=[_answer(one) for one in page], next_cursor=next_cursor)


@router.get(
    "/{type_id}",
    openapi_extra=acts(Action.DEVICE_TYPE_LIST),
    response_model=DeviceTypeAnswer,
    responses=NOT_MODIFIED,
)
async def read_device_type(
    type_id: TypeId,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """One type: its name, and what devices of it can do."""
    async with parts.database.reading() as tx:
        await require(tx, parts, credential, Action.DEVICE_TYPE_LIST)
        found = await device_types.get(tx, type_id)
    if found is None:
        raise not_found("device type")
    return unless_known(if_none_match, response, _answer(found), found.version)


@router.put("/{type_id}", openapi_extra=acts(Action.DEVICE_TYPE_CHANGE))
async def put_device_type(
    type_id: TypeId,
    body: DeviceTypeBody,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> DeviceTypeAnswer:
    """Make a type, or write over one. What its devices can be asked changes at once, for what comes then."""
    try:
        capabilities.read(body.capabilities)
    except BadCapabilitiesError as error:
        raise wrong_field("capabilities", str(error)) from error
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.DEVICE_TYPE_CHANGE)
        await tx.take_turns("device_types")
        found = await device_types.hold(tx, type_id)
        refuse_other_version(if_match, 0 if found is None else found.version)
        if found is None and await device_types.count(tx) >= TYPES_MAX:
            raise Problem(
                HTTPStatus.CONFLICT, "too_many_device_types", f"There are {TYPES_MAX} types already."
            )
        if found is None or (found.name, found.capabilities) != (body.name, body.capabilities):
            found = await device_types.put(tx, type_id, body.name, body.capabilities)
            detail = {"type": type_id, "name": body.name, "commands": sorted(body.capabilities["commands"])}
            tx.audit(AuditEvent("device_type.changed", str(actor.user_id), detail=detail))
        answer = _answer(found)
    tagged(response, answer, found.version)
    return answer


async def refuse_unknown_type(tx: Reading, type_id: str) -> None:
    """For whoever says of what type a device is."""
    if await device_types.get(tx, type_id) is None:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown_device_type",
            "There is no such type of devices.",
            field="type",
        )


def _answer(found: DeviceType) -> DeviceTypeAnswer:
    return DeviceTypeAnswer(
        id=found.id,
        name=found.name,
        capabilities=found.capabilities,
        version=found.version,
        changed_at=moment(found.changed_at),
    )
