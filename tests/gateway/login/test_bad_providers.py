"""Providers that are down, slow, or answer garbage: a page at once, and nobody else suffers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.login.provider import DEADLINE_S
from gateway.login.remote import BODY_MAX
from runtime.clock import FakeClock
from tests.gateway.login.free_provider import (
    CLIENT_SECRET,
    WELL_KNOWN,
    FreeProvider,
    Received,
    Reply,
    hanging,
)
from tests.gateway.login.visitor import NEXT_TRY_S, PERSON, Visitor, refused
from tests.gateway.world import ADMIN_PASSWORD, World


async def test_a_provider_that_is_down(login_world: World, provider: FreeProvider) -> None:
    provider.close()
    visitor = Visitor(login_world)
    answer = await visitor.begin()
    await refused(visitor, answer, 503, "provider_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "log in another way" in answer.text
    assert (await visitor.http.get("/login")).status_code == 200
    local = await visitor.from_own_page().post(
        "/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD}
    )
    assert local.status_code == 200  # needs no network


async def test_a_provider_that_hangs_holds_one_person_for_a_moment(
    login_world: World, provider: FreeProvider
) -> None:
    provider.replies[WELL_KNOWN] = hanging(provider)
    visitors = [Visitor(login_world) for _ in range(5)]
    began = time.monotonic()
    answers = await asyncio.gather(*(visitor.begin() for visitor in visitors))
    waited_s = time.monotonic() - began
    for visitor, answer in zip(visitors, answers, strict=True):
        await refused(visitor, answer, 503, "provider_unavailable")
    assert waited_s < DEADLINE_S + 2.0  # together, not one after the other
    began = time.monotonic()
    await refused(visitors[0], await visitors[0].begin(), 503, "provider_unavailable")
    assert time.monotonic() - began < 1.0


async def test_a_token_endpoint_that_hangs(login_world: World, provider: FreeProvider) -> None:
    provider.replies["/token"] = hanging(provider)
    visitor = Visitor(login_world)
    began = time.monotonic()
    await refused(visitor, await visitor.log_in(provider), 503, "provider_unavailable")
    assert time.monotonic() - began < DEADLINE_S + 2.0


async def test_a_provider_comes_back(login_world: World, provider: FreeProvider, clock: FakeClock) -> None:
    """Found within a few seconds, unaided."""
    provider.replies[WELL_KNOWN] = lambda received: None  # cuts the connection
    for _ in range(4):
        assert (await Visitor(login_world).begin()).status_code == 503
    del provider.replies[WELL_KNOWN]
    deadline = time.monotonic() + 10.0
    while (answer := await Visitor(login_world).begin()).status_code == 503:
        assert time.monotonic() < deadline
        clock.advance(NEXT_TRY_S)
    assert answer.status_code == 303


BAD_METADATA: list[tuple[Reply, int]] = [
    ((200, b"<html>"), 502),
    ((200, []), 502),
    ((200, {}), 502),
    ((200, b"\xff\xfe{"), 502),
    ((200, b"[" * 100_000), 502),
    ((200, {"issuer": 7}), 502),
    ((302, (b"{}", {"location": "http://127.0.0.1:1/"})), 503),
    ((500, {}), 503),
]


async def test_garbage_for_metadata(login_world: World, provider: FreeProvider, clock: FakeClock) -> None:
    for reply, expected in BAD_METADATA:
        provider.replies[WELL_KNOWN] = lambda received, reply=reply: reply  # type: ignore[misc]
        visitor = Visitor(login_world)
        code = "provider_unavailable" if expected == 503 else "provider_refused"
        await refused(visitor, await visitor.begin(), expected, code)
        clock.advance(2 * NEXT_TRY_S)
    provider.replies.clear()
    assert (await Visitor(login_world).log_in(provider)).status_code == 303


NOT_TO_BE_FOLLOWED: list[dict[str, Any]] = [
    {"authorization_endpoint": "javascript:alert(1)"},
    {"authorization_endpoint": "http://evil.example/authorize"},
    {"token_endpoint": "http://192.0.2.1/token"},
    {"token_endpoint": "file:///etc/passwd"},
    {"token_endpoint": "https://user:pw@provider.example/"},
    {"token_endpoint": ["https://provider.example/"]},
    {"token_endpoint": "https://[bad/"},
    {"jwks_uri": "https://provider.example/\r\nx: y"},
    {"jwks_uri": None},
    {"jwks_uri": "https://provider.example/" + "x" * 3000},
    {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
    {"id_token_signing_alg_values_supported": "RS256"},
    {"issuer": 7},
    {"userinfo_endpoint": "ftp://provider.example/"},
]


async def test_metadata_that_must_not_be_followed(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    for changes in NOT_TO_BE_FOLLOWED:
        provider.metadata_changes = changes
        visitor = Visitor(login_world)
        await refused(visitor, await visitor.begin(), 502, "provider_refused")
        clock.advance(2 * NEXT_TRY_S)


async def test_huge_answers_are_not_read(login_world: World, provider: FreeProvider) -> None:
    """Each is right and would log in, but for its size."""
    filler = {"filler": "x" * 4 * BODY_MAX}
    keys = {"keys": [key.as_dict(private=False) for key in provider.keys]}
    right: dict[str, Callable[[Received], Any]] = {
        WELL_KNOWN: lambda received: provider.metadata(),
        "/keys": lambda received: keys,
        "/token": lambda received: provider.token(received)[1],
    }
    for path, answer in right.items():
        provider.replies = {path: lambda received, answer=answer: (200, answer(received) | filler)}  # type: ignore[misc]
        visitor = Visitor(login_world)
        last = await visitor.begin()
        if last.status_code == 303:
            last = await visitor.come_back(code=provider.agree(visitor.asked, **PERSON))
        await refused(visitor, last, 502, "provider_refused")


async def test_packed_answers_are_not_unpacked(login_world: World, provider: FreeProvider) -> None:
    """A bomb: 40 KB that would become 40 MB."""

    def bomb(received: Received) -> Reply:
        assert received.headers["accept-encoding"] == "identity"
        return 200, (b"\x1f\x8b" + b"x" * 40_000, {"content-encoding": "gzip"})

    provider.replies[WELL_KNOWN] = bomb
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.begin(), 502, "provider_refused")


BAD_TOKENS: list[Reply] = [
    (200, b"garbage"),
    (200, {}),
    (200, []),
    (200, {"id_token": None, "access_token": "x", "token_type": "Bearer"}),
    (200, {"error": {"an": "object"}}),
    (200, {"error": "x" * 5000}),
    (400, {"error": "invalid_grant", "error_description": CLIENT_SECRET}),
    (400, b"<html>"),
    (429, {"error": "slow_down"}),
    (500, b"oops"),
    (302, (b"", {"location": "/elsewhere"})),
]


async def test_garbage_for_tokens(
    login_world: World, provider: FreeProvider, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for reply in BAD_TOKENS:
        provider.replies["/token"] = lambda received, reply=reply: reply  # type: ignore[misc]
        visitor = Visitor(login_world)
        answer = await visitor.log_in(provider)
        assert answer.status_code in {502, 503}, reply
        assert visitor.cookie is None, reply
        assert CLIENT_SECRET not in answer.text
        clock.advance(2 * NEXT_TRY_S)
    records = [vars(record) for record in caplog.records if record.name == "gateway.login"]
    assert len(records) == len(BAD_TOKENS)
    assert all(len(str(record["reason"])) < 200 for record in records)
    assert CLIENT_SECRET not in str(records)
    provider.replies.clear()
    assert (await Visitor(login_world).log_in(provider)).status_code == 303  # nobody else is kept out
