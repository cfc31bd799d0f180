"""The headers that every answer of the public listener carries, to the letter, whatever the answer is."""

from __future__ import annotations

import pytest

from tests.gateway.world import World

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/login", 200),
        ("GET", "/v1/me", 401),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/me", 405),
        ("POST", "/v1/login", 415),
    ],
)
async def test_every_answer_is_as_strict(world: World, method: str, path: str, status: int) -> None:
    answer = await world.browser().request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
    assert {part.strip() for part in answer.headers["content-security-policy"].split(";")} == POLICY
    assert answer.headers["cache-control"] == "no-store"
