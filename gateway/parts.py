"""What every request needs, put together once by app.py and found by routes on the application's state."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from gateway.commands.dispatcher import Dispatcher
from gateway.commands.waiting import Waits
from gateway.event_watch import EventWatch
from gateway.feed_watch import FeedWatch
from gateway.general_limit import GeneralLimit
from gateway.guard import Guard
from gateway.handing_over import HandingOver
from gateway.keys.keyring import Keyring
from gateway.login.providers import Providers
from gateway.metrics import GatewayMetrics
from gateway.passwords import Passwords
from gateway.refused_logins import RefusedLogins
from gateway.settings import Settings
from gateway.shortlived.interface import ShortLived
from gateway.store.database import Database
from gateway.tokens.mint import Tokens
from runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """One gateway. `welcome_sha256` is None while the welcome login is off."""

    settings: Settings
    clock: Clock
    database: Database
    keyring: Keyring
    tokens: Tokens
    shortlived: ShortLived
    guards: tuple[Guard, ...]
    """The stores that this gateway cannot do without."""
    passwords: Passwords
    providers: Providers
    refused_logins: RefusedLogins
    feed: FeedWatch
    events: EventWatch
    commands: Dispatcher
    waits: Waits
    handing_over: HandingOver
    general_limit: GeneralLimit
    metrics: GatewayMetrics
    welcome_sha256: bytes | None
    administered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the administrator of the settings is there: until then nobody gets in by a password."""
    exporting: Counter[UUID] = field(default_factory=Counter)
    """Exports under way at this gateway, by person."""


def parts_of(request: HTTPConnection) -> GatewayParts:
    return cast(GatewayParts, request.app.state.parts)


async def _parts(request: HTTPConnection) -> GatewayParts:
    """Not a plain function: the framework sends those to another thread and back, for each request."""
    return parts_of(request)


Parts = Annotated[GatewayParts, Depends(_parts)]
