"""Bodies and answers of the internal API. Times are Unix seconds; binary values hexadecimal or base64."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.policy.links import LABEL_PATTERN, Kind
from gateway.policy.names import DEVICE_ID_PATTERN, NODE_PATTERN, printable
from gateway.policy.support import Part
from gateway.tokens.strict import TOKEN_MAX_BYTES

# A full report names every tunnel of a node; a node holds some thousands.
EVENTS_MAX = 50_000
PATH_MAX = 1024  # longer ones are shown cut
METHOD_MAX = 32
# In one call; nodes say 200. It bounds how long a call holds the log of a consent, and what it holds is read
# into memory: with the longest paths 4 MB.
PASSED_MAX = 1_000
TIME_END = 253_402_300_800  # the year 10000, which no datetime reaches
TEXT_MAX = 256  # reasons and addresses, for people


# What devices and visitors say of themselves is made fit here and not refused: one odd device must not
# cost its node the whole report.
ForeignText = Annotated[str, AfterValidator(lambda text: printable(text, TEXT_MAX))]


Sha256Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
InstanceHex = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Label = Annotated[str, Field(pattern=f"^{LABEL_PATTERN.pattern}$")]
DeviceId = Annotated[str, Field(max_length=64)]


class Body(BaseModel):
    # Other members are ignored: a newer node may say more to an older gateway.
    model_config = ConfigDict(extra="ignore")


class RedeemBody(Body):
    """Exactly one of token and code. `kind`: of the service that the node is about to open."""

    token: Annotated[str, Field(max_length=TOKEN_MAX_BYTES)] | None = None
    code: Annotated[str, Field(max_length=TEXT_MAX)] | None = None
    label: Label
    cookie_sha256: Sha256Hex
    kind: Kind = "web"
    client: ForeignText = ""


class ResolveBody(Body):
    label: Label
    cookie_sha256: Sha256Hex


class EndBody(Body):
    cookie_sha256: Sha256Hex
    client: ForeignText = ""


class UserFacts(BaseModel):
    id: UUID
    name: str


class SessionFacts(BaseModel):
    """`act`: the support engineer who acts for `user`, the owner who consented; null: nobody does.

    With `act` the node reports each request (`/request-log`). `grant_id`: 16 bytes, hex.
    """

    sid: UUID
    label: str
    service: str
    service_kind: str
    device_id: str
    device_name: str
    user: UserFacts
    act: UserFacts | None = None
    expires_at: int
    grant: str
    grant_id: str
    gateway_url: str


class PassedRequest(Body):
    """One request of a support session: path without query, sizes of bodies; `status` 0: no answer came.

    `id` is one for the parts of a request: a part that comes again is not written again. Part `lost`: that
    many entries of the session found no room at the node.
    """

    id: UUID
    part: Part = "whole"
    lost: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sid: UUID
    at: Annotated[float, Field(ge=0, lt=TIME_END, allow_inf_nan=False)]
    # Whatever the visitor called it: refused here, it would take its neighbours out of the log.
    method: Annotated[str, AfterValidator(lambda text: printable(text, METHOD_MAX))]
    path: Annotated[str, AfterValidator(lambda text: printable(text.partition("?")[0], PATH_MAX))]
    status: Annotated[int, Field(ge=0, le=999)]
    received: Annotated[int, Field(ge=0, lt=2**63)]
    sent: Annotated[int, Field(ge=0, lt=2**63)]
    ms: Annotated[float, Field(ge=0, lt=2**40, allow_inf_nan=False)]


class PassedBody(Body):
    """What passed in support sessions at a node since its last call."""

    entries: Annotated[list[PassedRequest], Field(max_length=PASSED_MAX)]


class GrantFacts(BaseModel):
    grant: str


class AuthenticateBody(Body):
    device_id: DeviceId
    key_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class DeviceFacts(BaseModel):
    """`public_key`: SubjectPublicKeyInfo, DER, base64."""

    device_id: str
    name: str
    public_key: str


class ServiceFacts(Body):
    """As the device announced it; what is no proper service is left out of what is stored."""

    name: str
    kind: str = "web"


class PresenceEvent(Body):
    device_id: Annotated[str, Field(pattern=f"^{DEVICE_ID_PATTERN.pattern}$")]
    instance: InstanceHex
    connection: Annotated[int, Field(ge=0, lt=2**63)]
    state: Literal["connected", "disconnected"]
    at: Annotated[float, Field(ge=0, lt=TIME_END, allow_inf_nan=False)]
    software: ForeignText | None = None
    services: list[ServiceFacts] | None = None
    rtt_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    error: ForeignText | None = None


class PresenceBody(Body):
    node: Annotated[str, Field(pattern=f"^{NODE_PATTERN.pattern}$")]
    boot: Annotated[str, Field(pattern="^[!-~]{1,64}$")]
    full: bool
    events: Annotated[list[PresenceEvent], Field(max_length=EVENTS_MAX)]


class PresenceAnswer(BaseModel):
    """`full`: what the node holds is not known here; it is to say all of it now."""

    full: bool


class NodesAnswer(BaseModel):
    nodes: list[str]


class KeysAnswer(BaseModel):
    key_list: str
