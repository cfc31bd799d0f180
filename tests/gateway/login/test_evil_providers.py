"""Logins that must not happen because of what a provider says: about whom, for whom, signed by whom."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from runtime.clock import FakeClock
from tests.gateway.login.conftest import StartWorld, provider_settings
from tests.gateway.login.free_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    KEY,
    OTHER_KEY,
    FreeProvider,
    unsigned,
)
from tests.gateway.login.visitor import NEXT_TRY_S, PERSON, Visitor, code_of, refused
from tests.gateway.world import ADMIN_PASSWORD, World


async def test_a_code_works_once(login_world: World, provider: FreeProvider) -> None:
    victim, thief = Visitor(login_world), Visitor(login_world)
    await victim.begin()
    code = provider.agree(victim.asked, **PERSON)
    assert (await victim.come_back(code=code)).status_code == 303
    await thief.begin()
    await refused(thief, await thief.come_back(code=code), 502, "provider_refused")


async def test_a_stolen_code_is_worth_nothing_in_another_login(
    login_world: World, provider: FreeProvider
) -> None:
    """Code injection: PKCE stops it at the provider, and where that checks none, the nonce here."""
    victim, thief = Visitor(login_world), Visitor(login_world)
    await victim.begin()
    code = provider.agree(victim.asked, **PERSON)
    await thief.begin()
    await refused(thief, await thief.come_back(code=code), 502, "provider_refused")
    lax = provider.agree(victim.asked, **PERSON)
    await thief.begin()
    provider.codes[lax].asked["code_challenge"] = thief.asked["code_challenge"]
    await refused(thief, await thief.come_back(code=lax), 502, "provider_refused")


def sealed(**changes: Any) -> Callable[[FreeProvider, dict[str, Any]], str]:
    """The honest signature over changed claims; a change to None leaves the claim out."""

    def seal(provider: FreeProvider, claims: dict[str, Any]) -> str:
        changed = {
            name: value(provider) if callable(value) else value for name, value in (claims | changes).items()
        }
        return provider.sign({name: value for name, value in changed.items() if value is not None})

    return seal


def _hs256_with(secret: bytes) -> Callable[[FreeProvider, dict[str, Any]], str]:
    def seal(provider: FreeProvider, claims: dict[str, Any]) -> str:
        head = unsigned({"alg": "HS256", "kid": KEY.kid}, claims).rstrip(".")
        signature = hmac.new(secret, head.encode(), sha256).digest()
        return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    return seal


def _with_key(key: RSAKey, **header: Any) -> Callable[[FreeProvider, dict[str, Any]], str]:
    def seal(provider: FreeProvider, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": KEY.kid, **header}, claims, key)

    return seal


def _cut(provider: FreeProvider, claims: dict[str, Any]) -> str:
    return provider.sign(claims).rpartition(".")[0] + "."


def _changed_after_signing(provider: FreeProvider, claims: dict[str, Any]) -> str:
    head, _, signature = provider.sign(claims).split(".")
    body = json.dumps(claims | {"sub": "subject-of-somebody-else"}).encode()
    return f"{head}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{signature}"


EVIL_TOKENS: dict[str, Callable[[FreeProvider, dict[str, Any]], Any]] = {
    "wrong nonce": sealed(nonce="another"),
    "no nonce": sealed(nonce=None),
    "nonce of the wrong type": sealed(nonce=["x"]),
    "wrong aud": sealed(aud="another-client"),
    "no aud": sealed(aud=None),
    "several aud, no azp": sealed(aud=[CLIENT_ID, "another-client"]),
    "azp of another": sealed(aud=[CLIENT_ID, "another-client"], azp="another-client"),
    "azp of another, one aud": sealed(azp="another-client"),
    "wrong aud, azp is us": sealed(aud="another-client", azp=CLIENT_ID),
    "aud that only contains us": sealed(aud=f"{CLIENT_ID}-2"),
    "wrong iss": sealed(iss="https://accounts.example"),
    "iss with a slash more": sealed(iss=lambda provider: provider.issuer + "/"),
    "no iss": sealed(iss=None),
    "expired": sealed(exp=lambda provider: int(provider.now()) - 31),
    "no exp": sealed(exp=None),
    "exp is text": sealed(exp="9999999999"),
    "exp is true": sealed(exp=True),
    "from the future": sealed(iat=lambda provider: int(provider.now()) + 120),
    "not yet": sealed(nbf=lambda provider: int(provider.now()) + 120),
    "no iat": sealed(iat=None),
    "no sub": sealed(sub=None),
    "sub is a number": sealed(sub=7),
    "sub is empty": sealed(sub=""),
    "sub is long": sealed(sub="s" * 256),
    "sub with NUL": sealed(sub="a\x00b"),
    "at_hash of another token": sealed(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "alg none": lambda provider, claims: unsigned({"alg": "none"}, claims),
    "alg none with our kid": lambda provider, claims: unsigned({"alg": "none", "kid": KEY.kid}, claims),
    "alg nOnE": lambda provider, claims: unsigned({"alg": "nOnE", "kid": KEY.kid}, claims, "AAAA"),
    "signature cut off": _cut,
    "changed after signing": _changed_after_signing,
    "HS256 with the client secret": _hs256_with(CLIENT_SECRET.encode()),
    "HS256 with the public key": _hs256_with(KEY.as_pem(private=False)),
    "another key under our kid": _with_key(OTHER_KEY),
    "another key in the header": _with_key(
        OTHER_KEY, jwk=OTHER_KEY.as_dict(private=False), kid=OTHER_KEY.kid
    ),
    "unknown kid": _with_key(KEY, kid="nobody"),
    "critical extension": _with_key(KEY, crit=["b64"], b64=False),
    "no token": lambda provider, claims: None,
    "a list": lambda provider, claims: ["x"],
    "not a token": lambda provider, claims: "x.y",
    "encrypted": lambda provider, claims: "a.b.c.d.e",
    "huge": sealed(picture="x" * 20_000),
    "nested": lambda provider, claims: provider.sign(claims | {"amr": {"a": "b"}}),
    "not UTF-8": lambda provider, claims: "\xff.\xff.\xff",
}


async def test_id_tokens_that_lie(login_world: World, provider: FreeProvider, clock: FakeClock) -> None:
    """Each is one change away from the token that logs in."""
    for name, seal in EVIL_TOKENS.items():
        provider.seal = lambda claims, seal=seal: seal(provider, claims)  # type: ignore[misc]
        visitor = Visitor(login_world)
        answer = await visitor.log_in(provider)
        assert (answer.status_code, code_of(answer)) == (502, "provider_refused"), name
        assert visitor.cookie is None, name
        clock.advance(2 * NEXT_TRY_S)
    assert provider.asked("/token") == len(EVIL_TOKENS)
    provider.seal = provider.sign
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    async with login_world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM identities") == 1


async def test_hs256_is_refused_also_when_the_provider_offers_it(
    login_world: World, provider: FreeProvider
) -> None:
    secret = OctKey.import_key(CLIENT_SECRET)
    provider.metadata_changes["id_token_signing_alg_values_supported"] = ["HS256", "none", "RS256"]
    provider.seal = lambda claims: jwt.encode({"alg": "HS256"}, claims, secret, algorithms=["HS256"])
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")


async def test_a_provider_without_a_safe_signature(login_world: World, provider: FreeProvider) -> None:
    provider.metadata_changes["id_token_signing_alg_values_supported"] = ["HS256", "none"]
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.begin(), 502, "provider_refused")


async def test_short_keys_and_private_keys_do_not_count(login_world: World, provider: FreeProvider) -> None:
    with pytest.warns(match="2048"):
        short = RSAKey.generate_key(1024, {"kid": "short", "use": "sig"})
    provider.signing_key, provider.keys = short, [short]
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")
    sets: list[list[dict[str, Any]]] = [
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "short"}],
        [KEY.as_dict(private=False) | {"use": "enc"}],
        [KEY.as_dict(private=False) | {"key_ops": ["sign"]}],
        [KEY.as_dict(private=True)],
        [],
        [{"kty": "RSA", "kid": "first", "n": "AQAB", "e": "AQAB"}],
        [{"kty": "RSA", "kid": "first"}],
    ]
    provider.signing_key = KEY
    for keys in sets:
        provider.replies["/keys"] = lambda received, keys=keys: (200, {"keys": keys})  # type: ignore[misc]
        visitor = Visitor(login_world)
        await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")


# Mix-up


async def test_a_code_of_one_provider_is_never_shown_to_another(
    start_world: StartWorld, provider: FreeProvider, second: FreeProvider, tmp_path: Path
) -> None:
    world = await start_world(
        {
            "free": provider_settings(tmp_path, provider.url),
            "evil": provider_settings(tmp_path, second.url),
        }
    )
    visitor = Visitor(world)
    await visitor.begin("free")
    code = provider.agree(visitor.asked, **PERSON)
    answer = await visitor.come_back("evil", code=code)  # the evil one sent the browser on to the honest one
    await refused(visitor, answer, 400, "login_not_open")
    assert second.asked("/token") == 0


async def test_the_answers_issuer_is_checked(
    start_world: StartWorld, provider: FreeProvider, second: FreeProvider, tmp_path: Path
) -> None:
    """RFC 9207: where it is sent it must be right, where the provider promises it, it must be there."""
    second.metadata_changes["authorization_response_iss_parameter_supported"] = True
    world = await start_world(
        {"free": provider_settings(tmp_path, provider.url), "says": provider_settings(tmp_path, second.url)}
    )
    cases: list[tuple[str, FreeProvider, dict[str, str], int]] = [
        ("free", provider, {"iss": second.issuer}, 502),
        ("free", provider, {"iss": ""}, 502),
        ("free", provider, {"iss": provider.issuer}, 303),
        ("free", provider, {}, 303),
        ("says", second, {}, 502),
        ("says", second, {"iss": provider.issuer}, 502),
        ("says", second, {"iss": second.issuer}, 303),
    ]
    for provider_id, asked, extra, expected in cases:
        visitor = Visitor(world)
        await visitor.begin(provider_id)
        answer = await visitor.come_back(provider_id, code=asked.agree(visitor.asked, **PERSON), **extra)
        assert answer.status_code == expected, (provider_id, extra)
    assert provider.asked("/token") == 2


async def test_metadata_for_another_issuer(
    start_world: StartWorld, provider: FreeProvider, second: FreeProvider, tmp_path: Path
) -> None:
    """A provider that claims to be another would log in as anybody there."""
    second.metadata_changes["issuer"] = provider.issuer
    world = await start_world({"evil": provider_settings(tmp_path, second.url)})
    visitor = Visitor(world)
    await refused(visitor, await visitor.begin("evil"), 502, "provider_refused")


# Who one is


async def test_an_email_address_gives_nothing(
    start_world: StartWorld, provider: FreeProvider, second: FreeProvider, tmp_path: Path
) -> None:
    """Neither unverified nor verified does an address that equals somebody's open their account."""
    world = await start_world(
        {
            "free": provider_settings(tmp_path, provider.url),
            "other": provider_settings(tmp_path, second.url),
        }
    )
    owner = Visitor(world)
    await owner.log_in(provider)
    mine = await owner.me()
    assert mine is not None
    for number, verified in enumerate((False, True, "true", None)):
        thief = Visitor(world)
        await thief.log_in(provider, sub=f"thief-{number}", email_verified=verified)
        other = await thief.me()
        assert other is not None
        assert other["id"] != mine["id"]
        (identity,) = (await thief.http.get("/v1/me/identities")).json()["items"]
        assert identity["email_verified"] is (verified is True)
    # The same subject at another issuer is somebody else, too.
    stranger = Visitor(world)
    await stranger.log_in(second, "other")
    theirs = await stranger.me()
    assert theirs is not None
    assert theirs["id"] != mine["id"]


async def test_a_name_that_becomes_the_administrators_later(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever signed up under it first keeps what they are, and gets no password either."""
    providers = {"free": provider_settings(tmp_path, provider.url)}
    early = Visitor(await start_world(providers))
    await early.log_in(provider, preferred_username="operator")
    later = await start_world(providers, admin_username="operator")
    assert "admin_username" in caplog.text
    visitor = Visitor(later)
    await visitor.log_in(provider)
    me = await visitor.me()
    assert me is not None
    assert (me["username"], me["role"]) == ("operator", "user")
    body = {"username": "operator", "password": ADMIN_PASSWORD}
    assert (await later.program().post("/v1/login", json=body)).status_code == 401


async def test_nobody_becomes_the_administrator(login_world: World, provider: FreeProvider) -> None:
    for number, name in enumerate(("admin", "ADMIN", "admin ", "ádmin", "admin@example.com", "root")):
        visitor = Visitor(login_world)
        await visitor.log_in(provider, sub=f"p-{number}", preferred_username=name, email=None)
        me = await visitor.me()
        assert me is not None
        assert me["role"] == "user"
        assert me["username"].startswith("user-")
