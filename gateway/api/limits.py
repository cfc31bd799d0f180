"""The rate limits of the public API, each with its reason, and the one way to take from them."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import Request
from starlette.requests import HTTPConnection

from gateway.api.edge import note, retry_after
from gateway.errors import Problem
from gateway.parts import GatewayParts
from gateway.policy.limits import MICROS_PER_S, Limit, Taken
from gateway.randomness import digest
from gateway.settings import Settings
from runtime.client_address import group_of

# A person mistypes a few times; a thousand tries in a minute get under twenty checked.
LOGIN_PER_ADDRESS = Limit("login_address", burst=15, refill_s=10.0, durable=True)
# Of one account from one address.
LOGIN_PER_ACCOUNT = Limit("login_address_account", burst=10, refill_s=30.0, durable=True)
# Guessing from many addresses. No stranger may lock an account, so one address cannot empty this: the limiter
# asks in the order of the names, and whoever the ones above stop takes nothing from here.
LOGIN_PER_ACCOUNT_ALL = Limit("login_all_of_account", burst=500, refill_s=5.0, durable=True)
# The secrets behind these have 256 bits: the limits only bound the work.
WELCOME_PER_ADDRESS = Limit("welcome_address", burst=60, refill_s=1.0)
ENROL_PER_ADDRESS = Limit("enrol_address", burst=60, refill_s=1.0)  # a bench full of devices behind one NAT
RENEW_PER_ADDRESS = Limit("renew_address", burst=120, refill_s=0.5)
# A device asks for a nonce when it renews, once in weeks, and for its connection: at each start, and over
# HTTPS each quarter of an hour. One that is started anew each ten seconds still gets them; whoever asks for
# more is not the device. Of one device from one address: no stranger who knows its id may keep it from
# renewing.
RENEW_PER_DEVICE = Limit("renew_device", burst=30, refill_s=10.0)
# Logins by a provider. Its button writes a row, its answer may cost calls to the provider. A company's people
# come at nine from one address, and the provider makes each of them look at a page in between.
PROVIDER_BEGIN_PER_ADDRESS = Limit("provider_begin_address", burst=20, refill_s=3.0)
PROVIDER_ANSWER_PER_ADDRESS = Limit("provider_answer_address", burst=20, refill_s=3.0, durable=True)
# What a device says over HTTPS. Each try takes up to 64 messages: the outbox of a day is told in minutes.
TELEMETRY_PER_DEVICE = Limit("telemetry_device", burst=120, refill_s=0.5)
# People answer these: whoever asks more often than they can read is a nuisance.
SUPPORT_PER_ENGINEER = Limit("support_engineer", burst=30, refill_s=60.0)
TOKENS_PER_USER = Limit("token_user", burst=100, refill_s=10.0)
# Of one person's writes: a script that lets a fleet in does not wait for the first hundreds.
WRITES_BURST_S = 600

_TOLD = "towline.standings"


def writes_per_person(settings: Settings) -> Limit:
    """Durable: it guards Postgres, which the write needs anyway, and needs no Redis."""
    per_s = settings.writes_per_person_s
    return Limit("writes", burst=per_s * WRITES_BURST_S, refill_s=1.0 / per_s, durable=True)


def address_of(request: HTTPConnection) -> str:
    """The client's address as the edge found it."""
    return str(request.scope["client_address"])


async def take_login(parts: GatewayParts, request: Request, username: str) -> None:
    """Take one try to log in as `username`, kept as a digest: people type passwords there."""
    account = digest(username).hex()
    own = f"{group_of(address_of(request))} {account}"
    wanted = ((LOGIN_PER_ADDRESS, None), (LOGIN_PER_ACCOUNT, own), (LOGIN_PER_ACCOUNT_ALL, account))
    await take(parts, request, *wanted)


async def take(parts: GatewayParts, request: HTTPConnection, *wanted: tuple[Limit, str | None]) -> None:
    """Take one try from each bucket (None: the client's address); 429 with Retry-After when one is empty."""
    whose = group_of(address_of(request))
    taken = await parts.shortlived.take(
        [(limit, name if name is not None else whose) for limit, name in wanted]
    )
    tell(request, taken)
    if taken.refused is not None:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            "Too many tries. Wait a little.",
            retry_after_s=retry_after(taken.refused.wait_s),
        )


def tell(request: HTTPConnection, taken: Taken) -> None:
    """Say how the tightest of the request's buckets stands, as draft-ietf-httpapi-ratelimit-headers has it
    since version 8: `RateLimit-Policy` (`q` tries in `w` seconds), `RateLimit` (`r` left, all again in `t`).
    """
    told = request.scope.setdefault("state", {}).setdefault(_TOLD, [])
    told += taken.standings
    one = Taken(tuple(told)).tightest
    if one is not None:
        limit = one.limit
        note(
            request,
            "ratelimit-policy",
            f'"{limit.name}";q={limit.burst};w={math.ceil(limit.span / MICROS_PER_S)}',
        )
        note(request, "ratelimit", f'"{limit.name}";r={one.remaining};t={math.ceil(one.reset_s)}')
