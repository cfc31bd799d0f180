"""Every operation of the document against the running gateway, with data that fits it and data that does not.

No answer is a 5xx, has a status or a body that the document does not know, or takes what it says it refuses.
The seed is printed; TOWLINE_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api.app import documented_routes
from gateway.api.openapi import describe
from gateway.policy.access import Staff
from gateway.store import people, users
from gateway.store.transaction import utc
from runtime.clock import FakeClock
from tests.gateway.world import World, settings_for

SEED = int(os.environ.get("TOWLINE_SEED") or random.randrange(2**32))
DOCUMENT = describe(documented_routes(), "http://gateway.localhost")
EXAMPLES = 3  # of each kind, for each of some seventy operations: under a minute here
EXAMPLES_SOAK = 150
REQUEST_S = 20.0
# They end the login that asks.
ENDING = ("/v1/logout", "/v1/me/logout-everywhere", "/v1/me/logins")


def wrong_field_is_named(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """A 422 that is about a field says which."""
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        told = response.json()
        assert told["code"] != "invalid_field" or told.get("field"), f"names no field: {told}"
    return None


CHECKS: list[CheckFunction] = [
    not_a_server_error,
    wrong_field_is_named,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


class Stage:
    """A gateway, an owner who is an administrator too, and real things to name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = asyncio.get_running_loop()
        self.known: dict[str, str] = {}
        self.owner: UUID

    async def populate(self) -> Stage:
        admin, node = await self.world.person(), self.world.node()
        self.owner = UUID((await admin.get("/v1/me")).json()["id"])
        device = await self.world.enrol(admin)
        await node.connect(device)
        home = (await admin.get("/v1/sites")).json()["items"][0]
        guest = await self.world.add_user("guest")
        self.known = {
            "device_id": device.id,
            "site_id": home["id"],
            "org_id": home["org_id"],
            "place_id": home["id"],
            "user_id": str(guest),
        }
        return self

    async def token(self) -> str:
        """Of a new login of the owner's."""
        parts = self.world.gateway.parts
        async with parts.database.transaction() as tx:
            login = await people.add_login(
                tx, self.owner, secrets.token_bytes(32), "password", utc(tx.now + 3600)
            )
            await users.set_staff(tx, self.owner, Staff.ADMIN)
            return parts.tokens.access(self.owner, login, tx.now, 900)

    def token_now(self) -> str:
        """The same from the thread that plays the client."""
        return asyncio.run_coroutine_threadsafe(self.token(), self.loop).result(REQUEST_S)

    @property
    def url(self) -> str:
        return f"http://{self.world.gateway.public_address}"


@pytest.fixture
async def stage(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[Stage]:
    # Without the general limit, which would answer all of it by 429.
    settings = settings_for(tmp_path, database_url, keys_dir)
    wide = replace(settings, requests_per_login_s=100_000, writes_per_person_s=100_000)
    world = await (await World(wide, clock, tmp_path).start()).prepared()
    yield await Stage(world).populate()
    await world.close()


def play(stage: Stage, mode: GenerationMode, examples: int) -> list[str]:
    """Every operation; what was wrong."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    wrong: list[str] = []
    tried = 0
    token = stage.token_now()
    for found in schema.get_all_operations():
        assert not isinstance(found, Err), found
        operation = found.ok()
        ends = operation.path.startswith(ENDING)
        checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS

        def call(case: Any, real: bool, ends: bool = ends, checks: Any = checks, token: str = token) -> None:
            if real:
                case.path_parameters = {
                    name: stage.known.get(name, value) for name, value in (case.path_parameters or {}).items()
                }
            if case.path == "/v1/events":
                case.query = {**(case.query or {}), "wait_s": "0"}
            bearer = stage.token_now() if ends else token
            case.call_and_validate(
                base_url=stage.url,
                headers={"Authorization": f"Bearer {bearer}"},
                checks=checks,
                timeout=REQUEST_S,
            )

        tried += 1
        try:
            run_examples(operation.as_strategy(generation_mode=mode), call, mode, examples)
        except Unsatisfiable:
            tried -= 1  # it takes nothing that could be wrong
        except (Exception, BaseExceptionGroup) as error:  # told, and the next operation is tried
            wrong.append(f"{operation.label}: {error}")
    assert tried > 60
    return wrong


def run_examples(
    cases: st.SearchStrategy[Any], call: Callable[..., None], mode: GenerationMode, examples: int
) -> None:
    @seed(SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, real=st.booleans() if mode is GenerationMode.POSITIVE else st.just(True))
    def each(case: Any, real: bool) -> None:
        call(case, real)

    each()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_every_operation_keeps_to_the_document(stage: Stage, mode: GenerationMode) -> None:
    print(f"TOWLINE_SEED={SEED}")
    wrong = await asyncio.to_thread(play, stage, mode, EXAMPLES)
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_every_operation_keeps_to_the_document_for_long(stage: Stage, mode: GenerationMode) -> None:
    print(f"TOWLINE_SEED={SEED}")
    wrong = await asyncio.to_thread(play, stage, mode, EXAMPLES_SOAK)
    assert not wrong, "\n\n".join(wrong)
