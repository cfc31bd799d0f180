"""The plain pages. Text from people and devices reaches them only through the template's escaping."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from gateway.api.credentials import CredentialOf, at_browser
from gateway.api.models import device_answer, session_answer
from gateway.api.paging import PAGE_MAX
from gateway.errors import Problem, not_found
from gateway.parts import Parts
from gateway.policy.access import Action, Actor, Resource, may
from gateway.policy.return_path import HOME, return_path
from gateway.store import devices, sessions

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
    return page("home.html", actor=actor, devices=[device_answer(d) for d in found])


@router.get("/devices/{device_id}")
async def device_page(device_id: str, request: Request, credential: CredentialOf, parts: Parts) -> Response:
    """One device, with its Open buttons and open sessions."""
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
        if actor is None:
            return _to_login(request)
        device = await devices.get(tx, device_id, actor.user_id)
        if device is None or not may(actor, Action.DEVICE_READ, Resource(device.role)):
            raise not_found("device")
        live = await sessions.list_live(tx, actor.user_id, parts.settings.sessions_per_user)
    return page(
        "device.html",
        actor=actor,
        device=device_answer(device),
        sessions=[session_answer(s) for s in live if s.device_id == device_id],
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
