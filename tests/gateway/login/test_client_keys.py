"""A gateway that proves who it is by its own key (`private_key_jwt`), and ID tokens signed by Ed25519."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.login.client_key import ASSERTION_S, ASSERTION_TYPE, read_client_key
from gateway.login.settings import ProviderSettings
from gateway.login.signatures import Signatures
from runtime.clock import FakeClock
from runtime.settings import SettingsError, from_table
from testbed.processes import short_folder
from tests.device_uis.programs import Program
from tests.gateway.login.conftest import StartWorld, provider_settings
from tests.gateway.login.free_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    KEY,
    WELL_KNOWN,
    FreeProvider,
    Received,
    Reply,
)
from tests.gateway.login.real_providers import Browser, npm_provider
from tests.gateway.login.test_real_providers import answered
from tests.gateway.login.visitor import NEXT_TRY_S, PERSON, Visitor, refused
from tests.gateway.world import ORIGIN, World

Key = RSAKey | ECKey | OKPKey

KEYS: dict[str, Key] = {
    "rsa": RSAKey.generate_key(2048),
    "p256": ECKey.generate_key("P-256"),
    "ed25519": OKPKey.generate_key("Ed25519"),
}
SIGNS = {"rsa": "RS256", "p256": "ES256", "ed25519": "EdDSA"}
ED_KEY = OKPKey.generate_key("Ed25519", {"kid": "edwards", "use": "sig"})
OFFERS_KEYS = {
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
    "token_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "RS256"],
}


def key_settings(folder: Path, url: str, name: str, **changes: Any) -> ProviderSettings:
    """Of a provider that knows the public half of KEYS[name]."""
    file = folder / f"{name}.pem"
    file.write_bytes(KEYS[name].as_pem(private=True))
    return provider_settings(folder, url, client_secret_file=None, client_key_file=file, **changes)


# npm's provider


@pytest.fixture(scope="module")
def npm() -> Iterator[Program]:
    """A client for each of our keys; it signs ID tokens by Ed25519."""
    clients = [
        {
            "client_id": f"client-{name}",
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": SIGNS[name],
            "jwks": {"keys": [key.as_dict(private=False)]},
            "id_token_signed_response_alg": "EdDSA",
            "redirect_uris": [f"{ORIGIN}/login/from/{name}"],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
        }
        for name, key in KEYS.items()
    ]
    jwks = {"keys": [key.as_dict(private=True) for key in (KEY, ED_KEY)]}
    with (
        short_folder() as folder,
        closing(
            npm_provider(folder / "npm", [f"{ORIGIN}/login/from/secret"], clients=clients, jwks=jwks)
        ) as one,
    ):
        yield one


@pytest.fixture
async def npm_world(start_world: StartWorld, tmp_path: Path, npm: Program) -> World:
    url = npm.url + WELL_KNOWN
    return await start_world(
        {name: key_settings(tmp_path, url, name, client_id=f"client-{name}") for name in KEYS}
    )


@pytest.mark.parametrize("name", KEYS)
async def test_login_at_npms_by_a_key(npm_world: World, npm: Program, name: str) -> None:
    visitor = Visitor(npm_world)
    with closing(Browser()) as browser:
        answer = await answered(visitor, browser, name, login="grace", password="any")
    ended = await visitor.come_back(name, **answer)
    assert ended.status_code == 303, ended.text
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert (identity["issuer"], identity["email"]) == (npm.url, "grace@example.com")


# One that looks at what it gets


class KeyedProvider(FreeProvider):
    """Knows the client by the public half of `client_key`; each assertion counts once."""

    client_key: Key = KEYS["ed25519"]

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.metadata_changes |= OFFERS_KEYS
        self.used: set[str] = set()

    def knows_client(self, received: Received) -> bool:
        form = received.form
        assert "authorization" not in received.headers
        assert "client_secret" not in form
        assert (form["client_assertion_type"], form["client_id"]) == (ASSERTION_TYPE, CLIENT_ID)
        public = type(self.client_key).import_key(self.client_key.as_dict(private=False))
        try:
            read = jwt.decode(form["client_assertion"], public, registry=Signatures(algorithms=["EdDSA"]))
        except JoseError:
            return False
        claims, now = read.claims, self.now()
        assert set(claims) == {"iss", "sub", "aud", "jti", "iat", "exp"}
        assert (claims["iss"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, self.issuer)
        assert set(read.header) == {"alg", "typ"}
        assert now < claims["exp"] <= now + ASSERTION_S
        fresh = claims["jti"] not in self.used
        self.used.add(claims["jti"])
        return fresh


@pytest.fixture
def keyed(clock: FakeClock) -> Iterator[KeyedProvider]:
    with closing(KeyedProvider(clock.wall)) as running:
        yield running


@pytest.fixture
async def keyed_world(start_world: StartWorld, tmp_path: Path, keyed: KeyedProvider) -> World:
    return await start_world({"free": key_settings(tmp_path, keyed.url, "ed25519")})


async def test_each_request_is_signed_for_this_provider_alone(
    keyed_world: World, keyed: KeyedProvider
) -> None:
    for _ in range(3):
        assert (await Visitor(keyed_world).log_in(keyed)).status_code == 303
    assert len(keyed.used) == 3


async def test_another_key_is_nobodys(keyed_world: World, keyed: KeyedProvider) -> None:
    keyed.client_key = OKPKey.generate_key("Ed25519")
    visitor = Visitor(keyed_world)
    await refused(visitor, await visitor.log_in(keyed), 502, "provider_refused")


@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"]},
        {"token_endpoint_auth_methods_supported": None},
        {"token_endpoint_auth_signing_alg_values_supported": ["RS256", "HS256"]},
        {"token_endpoint_auth_signing_alg_values_supported": []},
    ],
    ids=str,
)
async def test_a_provider_that_takes_no_such_signature_gets_no_other(
    keyed_world: World, keyed: KeyedProvider, changes: dict[str, Any]
) -> None:
    """Never the way down to a method that shows something reusable."""
    keyed.metadata_changes |= changes
    visitor = Visitor(keyed_world)
    began = await visitor.begin()
    if began.status_code == 303:
        began = await visitor.come_back(code=keyed.agree(visitor.asked, **PERSON))
    await refused(visitor, began, 502, "provider_refused")
    assert keyed.asked("/token") == 0


# ID tokens


def half_hash(access_token: str) -> str:
    """`at_hash` of Ed25519: the left half of SHA-512."""
    digest = hashlib.sha512(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[:32]).rstrip(b"=").decode()


def signs_by(provider: FreeProvider, name: str, key: OKPKey, **claims: Any) -> None:
    provider.keys, provider.signing_key, provider.algorithm = [key], key, name
    provider.metadata_changes["id_token_signing_alg_values_supported"] = ["RS256", "EdDSA", "Ed25519"]
    signatures = Signatures(algorithms=["EdDSA", "Ed25519"])
    header = {"alg": name, "kid": key.kid}
    provider.seal = lambda made: jwt.encode(header, made | claims, key, registry=signatures)


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
async def test_id_tokens_by_ed25519(
    login_world: World, provider: FreeProvider, clock: FakeClock, name: str
) -> None:
    signs_by(provider, name, ED_KEY)
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    for at_hash in (half_hash("another token"), "AAAAAAAAAAAAAAAAAAAAAA"):
        clock.advance(2 * NEXT_TRY_S)
        signs_by(provider, name, ED_KEY, at_hash=at_hash)
        visitor = Visitor(login_world)
        await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")
    clock.advance(2 * NEXT_TRY_S)
    signs_by(provider, name, ED_KEY)
    honest = provider.seal
    provider.seal = lambda claims: _changed(honest(claims))
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
async def test_the_hash_of_the_access_token_is_known_by_both_names(
    login_world: World, provider: FreeProvider, name: str
) -> None:
    signs_by(provider, name, ED_KEY)
    sign, made = provider.seal, []
    provider.seal = lambda claims: made.append(claims) or ""  # type: ignore[func-returns-value]

    def token(received: Received) -> Reply:
        status, given = provider.token(received)
        return status, given | {"id_token": sign(made[-1] | {"at_hash": half_hash(given["access_token"])})}

    provider.replies["/token"] = token
    assert (await Visitor(login_world).log_in(provider)).status_code == 303


def _changed(token: str) -> str:
    """With another signature of the same length."""
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"


@pytest.mark.parametrize("offered", [["RS256"], ["RS256", "Ed25519"]])
async def test_a_signature_that_was_not_announced(
    login_world: World, provider: FreeProvider, offered: list[str]
) -> None:
    signs_by(provider, "EdDSA", ED_KEY)
    provider.metadata_changes["id_token_signing_alg_values_supported"] = offered
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")


async def test_only_public_ed25519_keys_count(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    signs_by(provider, "EdDSA", ED_KEY)
    public = ED_KEY.as_dict(private=False)
    for wrong in (
        OKPKey.generate_key("X25519").as_dict(private=False) | {"kid": "edwards"},
        OKPKey.generate_key("Ed448").as_dict(private=False) | {"kid": "edwards"},
        ED_KEY.as_dict(private=True),
        public | {"use": "enc"},
        public | {"crv": "X25519"},
        public | {"x": "AAAA"},
    ):
        provider.replies["/keys"] = lambda received, wrong=wrong: (200, {"keys": [wrong]})  # type: ignore[misc]
        visitor = Visitor(login_world)
        await refused(visitor, await visitor.log_in(provider), 502, "provider_refused")
        clock.advance(3601)


# Settings


def test_the_keys_that_may_be_used(tmp_path: Path) -> None:
    for name, key in KEYS.items():
        file = tmp_path / f"{name}.pem"
        file.write_bytes(key.as_pem(private=True))
        assertion = read_client_key(file, "x").assertion("us", "https://id.example", None, 1e9)
        read = jwt.decode(assertion, key, registry=Signatures(algorithms=[SIGNS[name]]))
        assert read.header["alg"] == SIGNS[name]
    with pytest.warns(match="2048"):
        short = RSAKey.generate_key(1024)
    wrong = {
        "short": short.as_pem(private=True),
        "public": KEYS["rsa"].as_pem(private=False),
        "ed448": OKPKey.generate_key("Ed448").as_pem(private=True),
        "x25519": OKPKey.generate_key("X25519").as_pem(private=True),
        "secp256k1": ECKey.generate_key("secp256k1").as_pem(private=True),
        "garbage": CLIENT_SECRET.encode(),
        "empty": b"",
        "password": KEYS["rsa"].as_pem(private=True, password="x"),
    }
    for name, content in wrong.items():
        file = tmp_path / f"{name}.pem"
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"login_providers\.a\.client_key_file") as refusal:
            read_client_key(file, "login_providers.a.client_key_file")
        assert CLIENT_SECRET not in str(refusal.value)
    with pytest.raises(SettingsError, match="No such file"):
        read_client_key(tmp_path / "absent", "x")


PROVIDER = {"client_id": "towline", "metadata_url": f"https://id.example{WELL_KNOWN}"}


@pytest.mark.parametrize("given", [(), ("client_secret_file", "client_key_file")], ids=len)
def test_a_secret_or_a_key(tmp_path: Path, given: tuple[str, ...]) -> None:
    table = PROVIDER | dict.fromkeys(given, "file")
    with pytest.raises(SettingsError, match="set either client_secret_file or client_key_file"):
        from_table(ProviderSettings, table, source=tmp_path / "gateway.toml")


ENTRA = "https://login.microsoftonline.com"


@pytest.mark.parametrize("door", ["common/v2.0", "organizations/v2.0", "consumers/v2.0", "common"])
def test_a_door_of_many_tenants_is_refused_at_the_start(tmp_path: Path, door: str) -> None:
    table = PROVIDER | {"client_secret_file": "file", "metadata_url": f"{ENTRA}/{door}{WELL_KNOWN}"}
    with pytest.raises(SettingsError, match="one tenant's own"):
        from_table(ProviderSettings, table, source=tmp_path / "gateway.toml")


def test_one_tenants_door_is_not(tmp_path: Path) -> None:
    tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
    table = PROVIDER | {"client_secret_file": "file", "metadata_url": f"{ENTRA}/{tenant}/v2.0{WELL_KNOWN}"}
    assert from_table(ProviderSettings, table, source=tmp_path / "gateway.toml").metadata.startswith(ENTRA)


async def test_metadata_with_a_pattern_for_an_issuer(login_world: World, provider: FreeProvider) -> None:
    """At whatever address it stands."""
    provider.metadata_changes["issuer"] = "https://login.microsoftonline.com/{tenantid}/v2.0"
    visitor = Visitor(login_world)
    await refused(visitor, await visitor.begin(), 502, "provider_refused")
