"""The four tokens that the gateway signs. Each use has its own `typ` and `aud`; none passes for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from gateway.errors import BadTokenError
from gateway.keys.keyring import Keyring
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.tokens import strict

ACCESS_TYP = "at+jwt"  # RFC 9068
LINK_TYP = "link+jwt"
GRANT_TYP = "grant+jwt"
DEVICE_TYP = "device+jwt"
ACCESS_AUDIENCE = "towline-gateway"
LINK_AUDIENCE = "towline-tunnel"
DEVICE_AUDIENCE = "towline-telemetry"
# What the protocol lets a GRANT frame carry (section 7).
GRANT_MAX_BYTES = 1536


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says, after verification. Whether the login still lasts is the store's to say."""

    user_id: UUID
    login_id: UUID


@dataclass(frozen=True, slots=True)
class LinkClaims:
    """What a link token says, after verification."""

    jti: UUID
    sid: UUID
    label: str
    bind: str


class Tokens:
    """Mints and verifies with one keyring and one issuer (the gateway's public URL)."""

    def __init__(self, keyring: Keyring, issuer: str) -> None:
        self._keyring = keyring
        self._issuer = issuer

    def access(self, user_id: UUID, login_id: UUID, now: float, ttl_s: int) -> str:
        """Bearer for the API. `lid` ties it to the login: ending that ends this."""
        claims = {
            "sub": str(user_id),
            "lid": str(login_id),
            "jti": str(uuid4()),  # RFC 9068; nobody looks it up
            "aud": ACCESS_AUDIENCE,
        }
        return self._keyring.login.sign(ACCESS_TYP, claims | self._times(now, int(now) + ttl_s), now)

    def read_access(self, token: str, now: float) -> AccessClaims:
        """BadTokenError for anything but one of our access tokens."""
        claims = self._verify(token, ACCESS_TYP, ACCESS_AUDIENCE, now)
        _uuid(claims, "jti")
        return AccessClaims(_uuid(claims, "sub"), _uuid(claims, "lid"))

    def link(
        self,
        jti: UUID,
        sid: UUID,
        label: str,
        bind: Literal["browser", "click"],
        now: float,
        expires_at: int,
        *,
        support: bool = False,
    ) -> str:
        """All that a URL ever holds; it opens nothing by itself. `support`: its page is to say so."""
        claims = {"aud": LINK_AUDIENCE, "sid": str(sid), "jti": str(jti), "label": label, "bind": bind}
        if support:
            claims["support"] = "logged"
        return self._keyring.login.sign(LINK_TYP, claims | self._times(now, expires_at), now)

    def read_link(self, token: str, now: float) -> LinkClaims:
        """BadTokenError for anything but one of our links. Use and exact expiry are the store's to judge."""
        claims = self._verify(token, LINK_TYP, LINK_AUDIENCE, now)
        return LinkClaims(
            _uuid(claims, "jti"), _uuid(claims, "sid"), str(claims.get("label")), str(claims.get("bind"))
        )

    def grant(
        self,
        grant_id: UUID,
        sid: UUID,
        user_id: UUID,
        device_id: str,
        service: str,
        now: float,
        expires_at: int,
        *,
        act: UUID | None = None,
    ) -> str:
        """What the device verifies (protocol, section 7), signed by the grant keys.

        `act`: who acts for `user_id` (RFC 8693, 4.1): the support engineer for the owner who consented.
        """
        claims: dict[str, Any] = {
            "aud": device_id,
            "sub": str(user_id),
            "sid": str(sid),
            "svc": service,
            "jti": str(grant_id),
        }
        if act is not None:
            claims["act"] = {"sub": str(act)}
        token = self._keyring.grant.sign(GRANT_TYP, claims | self._times(now, expires_at), now)
        assert len(token) <= GRANT_MAX_BYTES, "no device would take it: the gateway's public_url is too long"
        return token

    def device(self, device_id: str, now: float, ttl_s: int) -> str:
        """By which a device says its messages over HTTPS, and does nothing else. Whether it still may is the
        store's to say.
        """
        claims = {"sub": device_id, "jti": str(uuid4()), "aud": DEVICE_AUDIENCE}
        return self._keyring.login.sign(DEVICE_TYP, claims | self._times(now, int(now) + ttl_s), now)

    def read_device(self, token: str, now: float) -> str:
        """The device's id. BadTokenError for anything but one of our device tokens."""
        subject = self._verify(token, DEVICE_TYP, DEVICE_AUDIENCE, now).get("sub")
        if not isinstance(subject, str) or DEVICE_ID_PATTERN.fullmatch(subject) is None:
            raise BadTokenError("sub")
        return subject

    def jwks(self) -> dict[str, Any]:
        """The JWK set of the login keys. Devices do not use it: grant keys come in the signed key list."""
        return {"keys": self._keyring.login.jwks()}

    def _times(self, now: float, expires_at: int) -> dict[str, Any]:
        return {"iss": self._issuer, "iat": int(now), "exp": expires_at}

    def _verify(self, token: str, typ: str, audience: str, now: float) -> dict[str, Any]:
        return strict.verify(
            token,
            self._keyring.login.public_keys(),
            typ=typ,
            audience=audience,
            issuer=self._issuer,
            now=now,
        )


def _uuid(claims: dict[str, Any], name: str) -> UUID:
    try:
        return UUID(claims[name])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadTokenError(name) from error
