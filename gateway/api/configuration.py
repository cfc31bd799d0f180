"""What a device should run with, what it runs with, and whether the two differ."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from device_protocol import strict_json
from device_protocol.bodies import CONFIG_MAX
from gateway.api.credentials import CredentialOf, acts
from gateway.api.devices import find, look
from gateway.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, refuse_other_version, tagged, unless_known
from gateway.api.models import Body, instant, instant_if
from gateway.api.paging import PageQuery
from gateway.errors import Problem
from gateway.parts import Parts
from gateway.policy import configuration as policy
from gateway.policy.access import Action
from gateway.policy.capabilities import BadParameterError, UnsupportedError
from gateway.store import configurations, device_types
from gateway.store.configurations import Report, Version
from gateway.store.devices import Device
from gateway.store.transaction import AuditEvent, Reading, Transaction, unix

router = APIRouter(prefix="/v1/devices/{device_id}/configuration", tags=["configuration"])


class ConfigurationBody(Body):
    """The whole of it: what is left out has the device's own default."""

    body: Annotated[
        dict[str, Any],
        Field(description="As the device's type describes it (`config`); at most 8 KiB of JSON. No secrets."),
    ]


class VersionAnswer(BaseModel):
    """A version that somebody set. `sha256` names the body: equal bodies have one name."""

    version: int
    body: dict[str, Any]
    sha256: str
    author: str
    created_at: str


class ReportAnswer(BaseModel):
    """What the device said. `version` null: it runs with none. `told`: the version that it was told last;
    null: none, or it does not say. `error`: why it does not run with that one. `at`: by its clock.
    """

    version: int | None
    sha256: str | None
    told: int | None
    error: str | None
    at: str
    received_at: str


class ConfigurationAnswer(BaseModel):
    """`desired` null: nobody at its site set one. `reported` null: the device said nothing at this site.

    `drift`: it does not run with what is desired. `sent_at`: when the broker first took the newest version.
    """

    desired: VersionAnswer | None
    reported: ReportAnswer | None
    drift: bool
    sent_at: str | None


class VersionList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[VersionAnswer]
    next_cursor: str | None


@router.get(
    "",
    openapi_extra=acts(Action.CONFIGURATION_READ),
    response_model=ConfigurationAnswer,
    responses=NOT_MODIFIED,
)
async def read_configuration(
    device_id: str,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """The configuration that the device should run with, and the one that it says it runs with."""
    async with parts.database.reading() as tx:
        _, device = await look(tx, parts, credential, device_id, Action.CONFIGURATION_READ)
        newest, answer = await _read(tx, device)
    return unless_known(if_none_match, response, answer, newest)


@router.put("", openapi_extra=acts(Action.CONFIGURATION_WRITE))
async def put_configuration(
    device_id: str,
    body: ConfigurationBody,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> ConfigurationAnswer:
    """Set it: a new version, which the device is told at once or when it is back. The one that is desired
    already stays as it is.

    It is checked against the device's type before anything is kept. The device may refuse it all the same:
    then `reported` says why, and the device goes on with what it has.
    """
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.CONFIGURATION_WRITE)
        head = await configurations.head(tx, device.id)
        refuse_other_version(if_match, 0 if head is None else head.version)
        if device.status != "approved":
            raise Problem(HTTPStatus.CONFLICT, "device_not_approved", f"The device is {device.status}.")
        await _refuse_misfit(tx, device, body.body)
        wanted = await configurations.wanted(tx, device.id, device.site_id)
        if wanted is None or wanted.sha256 != policy.name_of(body.body):
            made = await configurations.put(tx, device.id, device.site_id, body.body, actor.name)
            # Values stay in the row, which goes; the log is for ever.
            detail = {"version": made.version, "sha256": made.sha256}
            who = str(actor.user_id)
            tx.audit(
                AuditEvent("configuration.changed", who, site=device.site_id, device=device.id, detail=detail)
            )
        newest, answer = await _read(tx, device)
    tagged(response, answer, newest)
    return answer


@router.get("/versions", openapi_extra=acts(Action.CONFIGURATION_READ))
async def list_versions(
    device_id: str, credential: CredentialOf, parts: Parts, wanted: Annotated[PageQuery, Query()]
) -> VersionList:
    """What was set while the device was where it is, newest first. The newest 100 of a device are kept."""
    async with parts.database.reading() as tx:
        _, device = await look(tx, parts, credential, device_id, Action.CONFIGURATION_READ)
        before = wanted.after_number("configurations")
        found = await configurations.list_of_device(tx, device.id, device.site_id, before, wanted.asked)
    page, next_cursor = wanted.cut(found, "configurations", lambda one: one.version)
    return VersionList(items=[_version(one) for one in page], next_cursor=next_cursor)


async def _refuse_misfit(tx: Transaction, device: Device, body: dict[str, Any]) -> None:
    if len(strict_json.dumps(body)) > CONFIG_MAX:
        raise _bad("body", f"more than {CONFIG_MAX} bytes")
    asked = await device_types.of_device(tx, device.id)
    try:
        policy.check(asked.type.capabilities, body)
    except UnsupportedError as error:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_configuration", str(error), field="body"
        ) from error
    except BadParameterError as error:
        raise _bad(error.field, str(error)) from error


async def _read(tx: Reading, device: Device) -> tuple[int, ConfigurationAnswer]:
    """With the number that its tag counts: the newest version, wherever it was set."""
    head = await configurations.head(tx, device.id)
    here = head is not None and head.site_id == device.site_id
    wanted = await configurations.wanted(tx, device.id, device.site_id)
    report = await configurations.reported(tx, device.id, device.site_id)
    answer = ConfigurationAnswer(
        desired=None if wanted is None else _version(wanted),
        reported=None if report is None else _report(report),
        drift=policy.drifts(
            None if wanted is None else (wanted.version, wanted.sha256),
            None if report is None else report.reported,
        ),
        sent_at=instant_if(head.sent_at) if head is not None and here else None,
    )
    return 0 if head is None else head.version, answer


def _bad(field: str, why: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_parameter", why, field=field)


def _version(version: Version) -> VersionAnswer:
    return VersionAnswer(
        version=version.version,
        body=version.body,
        sha256=version.sha256,
        author=version.author,
        created_at=instant(version.created_at),
    )


def _report(report: Report) -> ReportAnswer:
    said = report.reported
    return ReportAnswer(
        version=said.version,
        sha256=said.sha256,
        told=said.told,
        error=said.error,
        at=instant(unix(report.at)),
        received_at=instant(unix(report.received_at)),
    )
