"""The plain pages. Text from people and devices reaches them only through the template's escaping."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import jinja2
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from gateway.api.credentials import CredentialOf, at_browser
from gateway.api.device_view import COMMANDS_SHOWN, health, offered, readings, shown_command
from gateway.api.models import device_answer, instant, session_answer
from gateway.api.paging import PAGE_MAX
from gateway.api.support import OPEN_STATES, PassedAnswer, support_resource, support_row
from gateway.errors import Problem, not_found
from gateway.parts import Parts
from gateway.policy.access import Action, Actor, Resource, may
from gateway.policy.return_path import HOME, return_path
from gateway.store import commands, device_types, devices, messages, sessions, support
from gateway.store.devices import Device
from gateway.store.transaction import Transaction, unix

STATIC = Path(__file__).parent / "static"
# Small files under a fixed name: a new version must show soon.
STATIC_MAX_AGE_S = 300

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ASSETS = {
    path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in STATIC.iterdir() if path.suffix in _TYPES
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home(request: Request, credential: CredentialOf, parts: Parts) -> Response:
    """The person's devices."""
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
        if actor is None:
            return _to_login(request)
        found = await devices.list_seen(tx, actor.user_id, "", PAGE_MAX)
        asked = await support.list_seen(tx, actor.user_id, None, PAGE_MAX)
    may_ask = may(actor, Action.SUPPORT_ASK, Resource())
    shown = [support_row(actor, one) for one in asked if one.state in OPEN_STATES]
    return page(
        "home.html", actor=actor, devices=[device_answer(d) for d in found], requests=shown, may_ask=may_ask
    )


@router.get("/devices/{device_id}")
async def device_page(device_id: str, request: Request, credential: CredentialOf, parts: Parts) -> Response:
    """One device, with its Open buttons, what it says, its commands and open sessions."""
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
        if actor is None:
            return _to_login(request)
        device = await devices.get(tx, device_id, actor.user_id)
        consent = await support.consent_for(tx, device_id, actor.user_id)
        seen = None if device is None else Resource(device.role, consented=consent is not None)
        if device is None or not may(actor, Action.DEVICE_READ, seen):
            raise not_found("device")
        said = await _said(tx, actor, device, seen)
        live = await sessions.list_live(tx, actor.user_id, parts.settings.sessions_per_user)
        asked = await support.list_seen(tx, actor.user_id, None, PAGE_MAX)
    runs = may(actor, Action.DEVICE_REVOKE, seen)
    by_role = may(actor, Action.SESSION_CREATE, Resource(device.role))
    return page(
        "device.html",
        actor=actor,
        device=device_answer(device),
        sessions=[session_answer(s) for s in live if s.device_id == device_id],
        requests=[support_row(actor, one) for one in asked if one.device_id == device_id],
        may_revoke=runs,
        consent=None if consent is None or by_role else support_row(actor, consent),
        **said,
    )


async def _said(tx: Transaction, actor: Actor, device: Device, seen: Resource | None) -> dict[str, Any]:
    """What the page shows of the device's messages, and of what it was asked to do."""
    latest = await messages.latest(tx, device.id, device.site_id)
    connection = await messages.connection_of(tx, device.id)
    newest = await commands.list_of_device(tx, device.id, device.site_id, None, COMMANDS_SHOWN)
    telemetry = latest.get("telemetry")
    sends = seen is not None and may(actor, Action.COMMAND_SEND, seen)
    asked = await device_types.of_device(tx, device.id)
    return {
        "connection": None
        if connection is None
        else {"online": connection.online, "since": instant(unix(connection.since))},
        "readings": readings(telemetry),
        "read_at": None if telemetry is None else instant(unix(telemetry.at)),
        "health": health(latest.get("heartbeat")),
        "announced": asked.announced is not None,
        "offered": offered(asked, seen) if sends and seen else [],
        "commands": [shown_command(one) for one in newest],
    }


@router.get("/support/{request_id}")
async def support_page(
    request_id: UUID, request: Request, credential: CredentialOf, parts: Parts
) -> Response:
    """One request for support: what is asked, who decides, and for the owner's side what was done."""
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
        if actor is None:
            return _to_login(request)
        found = await support.get(tx, request_id, actor.user_id)
        seen = None if found is None else support_resource(actor, found)
        if found is None or not may(actor, Action.SUPPORT_READ, seen):
            raise not_found("support request")
        reads = may(actor, Action.SUPPORT_LOG_READ, seen)
        entries = await support.list_newest(tx, request_id, PAGE_MAX) if reads else []
    return page(
        "support.html",
        actor=actor,
        request=support_row(actor, found),
        reads=reads,
        entries=[PassedAnswer.of(n, one) for n, one in entries],
        most=PAGE_MAX,
    )


@router.get("/login")
async def login_page(request: Request, parts: Parts) -> Response:
    """The form for passwords, and a button for each provider."""
    wanted = return_path(request.query_params.get("next"))
    query = "" if wanted == HOME else f"?next={quote(wanted, safe='')}"
    providers = [{"name": one.name, "url": f"/login/with/{one.id}{query}"} for one in parts.providers.all()]
    return page("login.html", actor=None, providers=providers)


@router.get("/welcome")
async def welcome_page() -> Response:
    """Its script takes the secret from the fragment, which no log has seen."""
    return page("welcome.html", actor=None)


@router.get("/open")
async def open_page() -> Response:
    """Where a session's landing page sends the browser: shows what the link opens, asks for the click."""
    return page("open.html", actor=None)


@router.get("/static/{name}")
async def asset(name: str) -> Response:
    """One of the few files of the pages."""
    found = _ASSETS.get(name)
    if found is None:
        raise not_found("file")
    headers = {"cache-control": f"public, max-age={STATIC_MAX_AGE_S}"}
    return Response(found[0], media_type=found[1], headers=headers)


def page(template: str, *, status: int = 200, actor: Actor | None, **values: Any) -> HTMLResponse:
    """A rendered template."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(actor=actor, **values), status)


def problem_page(problem: Problem) -> HTMLResponse:
    """A problem for people."""
    headers = {} if problem.retry_after_s is None else {"retry-after": str(problem.retry_after_s)}
    answer = page("problem.html", status=int(problem.status), actor=None, problem=problem)
    answer.headers.update(headers)
    return answer


def _to_login(request: Request) -> RedirectResponse:
    return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
