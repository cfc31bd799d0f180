"""Bodies that come in and answers that go out. Unknown members are refused: a misspelt one must not pass."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.keys.csr import CSR_MAX_BYTES
from gateway.passwords import PASSWORD_MAX
from gateway.policy.names import (
    DEVICE_TYPE_PATTERN,
    HARDWARE_ID_MAX,
    SERVICE_PATTERN,
    SITE_ID_PATTERN,
    TAG_PATTERN,
    TAGS_MAX,
    clean_name,
)
from gateway.store.devices import Device
from gateway.store.sessions import Session
from gateway.tokens.strict import TOKEN_MAX_BYTES

# Lists say the same times again and again, and writing three of them was half of a device's answer; 1 MB.
MOMENTS_KEPT = 8192
SECRET_MAX = 256  # ours have 43 characters
SOFTWARE_MAX = 128  # as in the tunnel's HELLO

DeviceName = Annotated[str, AfterValidator(clean_name)]
HardwareId = Annotated[str, AfterValidator(lambda text: clean_name(text, HARDWARE_ID_MAX))]
Software = Annotated[
    str, Field(max_length=SOFTWARE_MAX), AfterValidator(lambda t: clean_name(t, SOFTWARE_MAX))
]
Secret = Annotated[str, Field(min_length=1, max_length=SECRET_MAX)]
Token = Annotated[str, Field(min_length=1, max_length=TOKEN_MAX_BYTES)]
SiteId = Annotated[str, Field(pattern=f"^{SITE_ID_PATTERN.pattern}$")]
Tag = Annotated[str, Field(pattern=f"^{TAG_PATTERN.pattern}$")]
DeviceType = Annotated[str, Field(pattern=f"^{DEVICE_TYPE_PATTERN.pattern}$")]
Service = Annotated[str, Field(pattern=f"^{SERVICE_PATTERN.pattern}$")]


class Body(BaseModel):
    """What every body of a request is: strict types, no unknown members."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LoginBody(Body):
    username: Annotated[str, AfterValidator(clean_name)]
    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_MAX)]
    refresh: Annotated[bool, Field(description="For programs: a refresh token, no cookie.")] = False


class WelcomeBody(Body):
    secret: Secret


class RegistrationTokenBody(Body):
    """`site_id` left out: the oldest site where the person is admin or owner. `type`: of the device that uses
    it; left out: the usual one.
    """

    site_id: SiteId | None = None
    name: DeviceName | None = None
    approve: bool = False
    type: DeviceType | None = None


class EnrolmentBody(Body):
    token: Secret
    csr: Annotated[str, Field(max_length=CSR_MAX_BYTES)]
    name: DeviceName
    hardware_id: HardwareId
    software: Software


class SessionBody(Body):
    service: Service = "web"
    binding: Literal["browser", "click"] = "browser"
    duration_s: int = 3600


class LinkBody(Body):
    token: Token


class RenewalBody(Body):
    nonce: Secret
    csr: Annotated[str, Field(max_length=CSR_MAX_BYTES)]
    signature: Secret


class AccessAnswer(BaseModel):
    access_token: str
    expires_in: int
    token_type: Literal["Bearer"] = "Bearer"
    refresh_token: Annotated[str | None, Field(description="There when it was asked for.")] = None
    client_id: Annotated[str | None, Field(description="Whose refresh token it is.")] = None


class UserAnswer(BaseModel):
    """`role`: what they are for the whole installation: user, support or admin."""

    id: UUID
    username: str
    role: str


class RegistrationTokenAnswer(BaseModel):
    token: str
    expires_at: str


class EnrolmentAnswer(BaseModel):
    enrolment_id: UUID
    device_id: str
    status: str
    poll_secret: str


class CertificateAnswer(BaseModel):
    """`server_ca` null: the tunnel listeners have publicly trusted certificates."""

    certificate: str
    ca: str
    key_list: str
    tunnel_urls: list[str]
    server_ca: str | None


class EnrolmentStatus(BaseModel):
    """While the status is not `approved` only the first two are there."""

    status: str
    device_id: str
    certificate: str | None = None
    ca: str | None = None
    device_root: str | None = None
    key_list: str | None = None
    tunnel_urls: list[str] | None = None
    server_ca: str | None = None
    gateway_url: str | None = None


class ServiceAnswer(BaseModel):
    name: str
    kind: str


class SiteNamed(BaseModel):
    id: str
    name: str


class DeviceAnswer(BaseModel):
    """`since`: when it came online or went offline; null (since, last_seen): never connected.

    `role`: what the person who asks is at its site. `released_until`: the owner lets go of it until then.
    """

    id: str
    name: str
    type: str
    hardware_id: str
    tags: list[str]
    status: str
    created_at: str
    released_until: str | None
    online: bool
    since: str | None
    last_seen: str | None
    last_error: str | None
    rtt_ms: float | None
    software: str
    services: list[ServiceAnswer]
    site: SiteNamed
    owner: str
    role: str | None


class DeviceChange(Body):
    """What is left out stays. `site_id`: where it goes; one must own it here and run the site there.

    `type`: what it can be asked to do (`GET /v1/device-types`).
    """

    name: DeviceName | None = None
    type: DeviceType | None = None
    tags: Annotated[list[Tag], Field(max_length=TAGS_MAX)] | None = None
    site_id: SiteId | None = None


class DeviceList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[DeviceAnswer]
    next_cursor: str | None


class SessionCreated(BaseModel):
    id: UUID
    url: str
    expires_at: str
    link_expires_at: str


class SessionAnswer(BaseModel):
    """`support_id`: of the consent under which it was opened; null: by the person's own role."""

    id: UUID
    user: str
    support_id: UUID | None
    device_id: str
    device_name: str
    service: str
    created_at: str
    expires_at: str
    redeemed_at: str | None


class SessionList(BaseModel):
    items: list[SessionAnswer]


class SupportNotice(BaseModel):
    """The banner of a support session: who acts, why, and that what passes is written down for the owner."""

    engineer: str
    reason: str
    logged: bool = True


class LinkAnswer(BaseModel):
    """What the landing page shows before the click. `support` null: opened by the person's own role."""

    device: str
    owner: str
    service: str
    expires_at: str
    support: SupportNotice | None


class CodeAnswer(BaseModel):
    """`url` is where the browser takes the code: the session's own origin."""

    code: str
    url: str


class NonceAnswer(BaseModel):
    nonce: str


def moment(unix_s: float) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return _moment(floor(unix_s))


@lru_cache(maxsize=MOMENTS_KEPT)
def _moment(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds: for what happens within a second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant_if(unix_s: float | None) -> str | None:
    """The same; None stays None."""
    return None if unix_s is None else instant(unix_s)


def moment_if(unix_s: float | None) -> str | None:
    """The same; None stays None."""
    return None if unix_s is None else moment(unix_s)


def device_answer(device: Device) -> DeviceAnswer:
    return DeviceAnswer(
        id=device.id,
        name=device.name,
        type=device.type,
        hardware_id=device.hardware_id,
        tags=list(device.tags),
        status=device.status,
        created_at=moment(device.created_at),
        released_until=moment_if(device.released_until),
        online=device.online,
        since=moment_if(device.since),
        last_seen=moment_if(device.last_seen),
        last_error=device.last_error,
        rtt_ms=device.rtt_ms,
        software=device.software,
        services=[ServiceAnswer(name=s["name"], kind=s.get("kind", "web")) for s in device.services],
        site=SiteNamed(id=device.site_id, name=device.site),
        owner=device.owner,
        role=None if device.role is None else device.role.word,
    )


def support_notice(session: Session) -> SupportNotice | None:
    if session.support_id is None:
        return None
    return SupportNotice(engineer=session.username, reason=session.support_reason or "")


def session_answer(session: Session) -> SessionAnswer:
    return SessionAnswer(
        id=session.id,
        user=session.username,
        support_id=session.support_id,
        device_id=session.device_id,
        device_name=session.device_name,
        service=session.service,
        created_at=moment(session.created_at),
        expires_at=moment(session.expires_at),
        redeemed_at=moment_if(session.redeemed_at),
    )
