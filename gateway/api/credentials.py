"""Who asks: the login cookie or a bearer token, and whether a browser's request comes from our own pages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Depends, Response
from starlette.requests import HTTPConnection

from gateway.api.edge import retry_after
from gateway.api.limits import take, tell, writes_per_person
from gateway.errors import BadTokenError, Problem, login_needed, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import RULES, Action, Actor, Resource, Verdict, judge
from gateway.policy.limits import Taken
from gateway.randomness import digest
from gateway.settings import Settings
from gateway.store import api_tokens, people
from gateway.store.transaction import Reading, Transaction
from gateway.tokens.opaque import API_TOKEN_PREFIX

# Who calls a route that no person does: anybody, or a device with a secret of its own in the request.
ANYBODY: Final = "anybody"
DEVICE: Final = "device"

Thing = TypeVar("Thing")

_COUNTED: Final = "towline.counted"
_FREES: Final = "x-towline-frees"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER = re.compile(r"Bearer ([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the request carries, not verified yet."""

    kind: Literal["none", "cookie", "bearer"]
    value: str = ""
    connection: HTTPConnection | None = field(default=None, repr=False, compare=False)
    """What carried it; None: nothing to count, as for `none`."""


def cookie_name(settings: Settings) -> str:
    """`__Host-` pins the cookie to this host and to TLS; browsers refuse the prefix on plain HTTP."""
    return "__Host-towline_login" if settings.secure else "towline_login"


def credential_of(request: HTTPConnection, parts: Parts) -> Credential:
    """The request's credential. A cookie counts for an unsafe method only from our own pages."""
    header = request.headers.get("authorization")
    if header is not None:
        match = _BEARER.fullmatch(header.strip())
        return Credential("bearer", match[1], request) if match else Credential("none")
    cookie = cookie_of(request, cookie_name(parts.settings))
    if cookie is None:
        return Credential("none")
    if request.scope.get("method", "GET") not in SAFE_METHODS:  # a WebSocket's handshake has none
        refuse_cross_origin(request, parts.settings, strict=True)
    return Credential("cookie", cookie, request)


def acts(access: Action | Literal["anybody", "device"], *, frees: bool = False) -> dict[str, Any]:
    """For a route's `openapi_extra`: what its caller must be allowed. The matrix test reads it.

    `frees`: it only looks, or takes access away, once for each thing that was made: no limit on writes may
    ever keep a person from it.
    """
    return {"x-towline-access": str(access)} | ({_FREES: True} if frees else {})


async def _credential(request: HTTPConnection, parts: Parts) -> Credential:
    """Not a plain function: the framework would ask it in another thread."""
    credential = credential_of(request, parts)
    if credential.kind != "none" and _counts_as_write(request):
        await _count_write(parts, credential, request)
    return credential


def _counts_as_write(connection: HTTPConnection) -> bool:
    method, route = connection.scope.get("method", "GET"), connection.scope.get("route")
    extra = getattr(route, "openapi_extra", None) or {}
    return method not in SAFE_METHODS and method != "DELETE" and _FREES not in extra


async def _count_write(parts: GatewayParts, credential: Credential, connection: HTTPConnection) -> None:
    """429 when the person writes too much. A stranger is not counted as anybody: the route tells them so.

    Before the route's transaction, and in ones of its own: a refused write counts as well, and nobody waits
    for a second connection while they hold one.
    """
    async with parts.database.reading() as tx:
        actor = await actor_of(tx, parts, credential)
    if actor is not None:
        _count(parts, actor, connection)
        await take(parts, connection, (writes_per_person(parts.settings), str(actor.user_id)))


CredentialOf = Annotated[Credential, Depends(_credential)]


def refuse_cross_origin(request: HTTPConnection, settings: Settings, *, strict: bool) -> None:
    """403 unless the request comes from the gateway's own origin.

    `strict` also refuses a request that says nothing about where it comes from (browsers always do on
    unsafe methods); without it programs that send neither header pass.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        allowed = site == "same-origin"
    elif origin is not None:
        allowed = origin == settings.public_url
    else:
        allowed = not strict
    if not allowed:
        raise Problem(
            HTTPStatus.FORBIDDEN, "cross_origin", "This request must come from the gateway's own pages."
        )


async def actor_of(tx: Reading, parts: GatewayParts, credential: Credential) -> Actor | None:
    """The person behind the credential, while the login or the API token lasts."""
    if credential.kind == "cookie":
        return await people.actor_by_cookie(tx, digest(credential.value), parts.settings.login_idle_s)
    if credential.kind == "bearer" and credential.value.startswith(API_TOKEN_PREFIX):
        return await api_tokens.actor(tx, digest(credential.value))
    if credential.kind == "bearer":
        try:
            claims = parts.tokens.read_access(credential.value, tx.now)
        except BadTokenError:
            return None
        actor = await people.actor_by_login(tx, claims.login_id)
        return actor if actor is not None and actor.user_id == claims.user_id else None
    return None


async def still_stands(tx: Reading, actor: Actor) -> bool:
    """Whether what the actor came with still lasts: for answers that go on after their head (event streams).

    An access token's own end does not count: it is the login that was let in.
    """
    if actor.api_token_id is not None:
        return await api_tokens.is_live(tx, actor.api_token_id)
    assert actor.login_id is not None  # it is the one or the other
    return await people.actor_by_login(tx, actor.login_id) is not None


async def hold(tx: Transaction, actor: Actor) -> None:
    """401 unless the actor's login or API token lasts, and until commit: for what outlives the request.

    Ending it meanwhile waits, and then finds and ends what was made.
    """
    if not await people.hold(tx, actor):
        raise login_needed()


async def at_browser(tx: Reading, parts: GatewayParts, credential: Credential) -> Actor | None:
    """The person who sits at this browser: by the cookie alone. Pages are for people, not for tokens.

    429 as for the API: a page costs as much as the calls that it stands for.
    """
    actor = await actor_of(tx, parts, credential) if credential.kind == "cookie" else None
    if actor is not None and credential.connection is not None:
        _count(parts, actor, credential.connection)
    return actor


async def logged_in(tx: Reading, parts: GatewayParts, credential: Credential) -> Actor:
    """The person; 401 when there is none, 429 when they ask too much of this gateway."""
    actor = await actor_of(tx, parts, credential)
    if actor is None:
        raise login_needed()
    if credential.connection is not None:
        _count(parts, actor, credential.connection)
    return actor


def _count(parts: GatewayParts, actor: Actor, connection: HTTPConnection) -> None:
    """Count the request once, however often it asks who is there."""
    state = connection.scope.setdefault("state", {})
    whose = actor.api_token_id or actor.login_id
    if state.get(_COUNTED) or whose is None:
        return
    state[_COUNTED] = True
    stands = parts.general_limit.take(whose)
    tell(connection, Taken((stands,)))
    if not stands.granted:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            "Too many requests. Wait a little.",
            retry_after_s=retry_after(stands.wait_s),
        )


async def require(tx: Reading, parts: GatewayParts, credential: Credential, action: Action) -> Actor:
    """The person, when they may do `action`, which is about no thing of somebody's; 401 or 403 otherwise."""
    actor = await logged_in(tx, parts, credential)
    permit(actor, action)
    return actor


def permit(actor: Actor, action: Action, resource: Resource | None = None, what: str = "thing") -> None:
    """403 when the actor sees the thing and may not do this; 404 when they do not see it or there is none."""
    verdict = judge(actor, action, resource)
    if verdict is Verdict.HIDDEN:
        raise not_found(what)
    if verdict is Verdict.FORBIDDEN:
        raise _refusal(actor, action)


def permitted(actor: Actor, action: Action, thing: Thing | None, seen: Resource | None, what: str) -> Thing:
    """`thing`, when `permit` lets it pass. `seen`: as the actor sees it, None when they do not."""
    permit(actor, action, None if thing is None else seen, what)
    assert thing is not None  # nothing is permitted about what does not exist
    return thing


def _refusal(actor: Actor, action: Action) -> Problem:
    scope = RULES[action].scope
    if actor.scopes is not None and scope is None:
        return Problem(
            HTTPStatus.FORBIDDEN,
            "person_needed",
            "No API token may do this: a person does, logged in by a browser, an app or a program.",
        )
    if actor.scopes is None or scope in actor.scopes:
        return Problem(HTTPStatus.FORBIDDEN, "forbidden", "Your role does not allow this.")
    return Problem(HTTPStatus.FORBIDDEN, "forbidden", f"This API token has no scope {scope}.")


def set_login_cookie(response: Response, settings: Settings, token: str) -> None:
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=settings.login_duration_s,
        path="/",
        secure=settings.secure,
        httponly=True,
        samesite="lax",  # strict would lose the login on the way back from a session's landing page
    )


def clear_login_cookie(response: Response, settings: Settings) -> None:
    response.delete_cookie(
        cookie_name(settings), path="/", secure=settings.secure, httponly=True, samesite="lax"
    )


def cookie_of(request: HTTPConnection, name: str) -> str | None:
    """The cookie as it came, not verified; None without one. With two of our own name somebody planted one:
    neither is believed.
    """
    pairs = (
        pair.strip().partition("=")
        for header in request.headers.getlist("cookie")
        for pair in header.split(";")
    )
    values = [value for key, _, value in pairs if key == name]
    return values[0] if len(values) == 1 else None
