"""From a registration token to an identity: key, request, a person's approval, certificate, pinned root.

Runs before there is an event loop, so it blocks; time is passed in as `sleep` and `monotonic` to keep
its waits testable.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunnel_agent import p256
from tunnel_agent.certificate import read_certificate
from tunnel_agent.device_key import DeviceKey
from tunnel_agent.errors import (
    EnrolmentError,
    EnrolmentPending,
    GatewayRefused,
    GatewayUnreachable,
    IdentityError,
)
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.policy.jws import TokenRefused
from tunnel_agent.policy.key_list import KeyList, may_replace, verify_key_list
from tunnel_agent.urls import gateway_url_problem, tunnel_url_problem

# The first looks are quick, since a token may be approved beforehand; then a person has to find a button.
POLL_DELAYS_S = (0.2, 0.5, 1.0, 2.0)
POLL_S = 3.0
REMINDER_S = 60.0  # a line that says it is still waiting
MAX_TUNNEL_URLS = 64

_PENDING_FIELDS = frozenset({"enrolment_id", "device_id", "poll_secret"})
_MACHINE_ID = Path("/etc/machine-id")

_ADVICE = {
    "hardware_id_conflict": "revoke the old device first, or give another --hardware-id;"
    " if a stranger's device has it, the gateway's administrator can free it",
    "registration_token_used": "make a new registration token: each works once",
    "registration_token_expired": "make a new registration token: they live 15 minutes",
}


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What the command line gave. `token` is None when an enrolment that waits is to be resumed."""

    gateway: str
    token: str | None
    name: str
    hardware_id: str | None
    software: str
    gateway_ca: str | None
    wait_s: float


class Enrolment:
    """One run of `enrol`."""

    def __init__(
        self,
        store: IdentityStore,
        request: EnrolmentRequest,
        *,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._request = request
        self._client = GatewayClient(request.gateway, request.gateway_ca)
        self._say = say
        self._sleep = sleep
        self._monotonic = monotonic

    def run(self) -> Identity:
        """Enrol, or go on with an enrolment that waits; raises an AgentError that says what to do."""
        key = self._store.device_key()
        pending = self._store.pending()
        if pending.get("gateway") != self._client.url or not pending.keys() >= _PENDING_FIELDS:
            pending = self._begin(key)
        answer = self._wait_decided(pending)
        identity = identity_from_answer(answer, key, self._request)
        self._store.save(identity)
        return identity

    def _begin(self, key: DeviceKey) -> dict[str, str]:
        if self._request.token is None:
            raise EnrolmentError("no enrolment waits here: --token-file is needed")
        body = {
            "token": self._request.token,
            "csr": key.signing_request(),
            "name": self._request.name,
            "hardware_id": self._request.hardware_id or default_hardware_id(_MACHINE_ID),
            "software": self._request.software,
        }
        try:
            answer = self._client.post("/v1/enrolments", body)
        except GatewayUnreachable as error:  # it may have taken the request: then it knows our key again
            raise GatewayUnreachable(f"{error}; run the command again, the token still works") from error
        except GatewayRefused as refused:
            advice = _ADVICE.get(refused.code)
            raise EnrolmentError(f"{refused}; {advice}" if advice else str(refused)) from refused
        pending = {"gateway": self._client.url}
        for name in sorted(_PENDING_FIELDS):
            pending[name] = _text(answer, name)
        self._store.save_pending(pending)
        self._say(f"asked {self._client.url} to take this device as {pending['device_id']}")
        return pending

    def _wait_decided(self, pending: dict[str, str]) -> dict[str, object]:
        deadline = self._monotonic() + self._request.wait_s
        remind_at = self._monotonic()
        for attempt in range(1_000_000):
            answer = self._look(pending)
            if answer is not None:
                return answer
            now = self._monotonic()
            if now >= deadline:
                raise EnrolmentPending(
                    f"{pending['device_id']} still waits for approval; run the command again"
                )
            if attempt and now >= remind_at:
                self._say(f"waiting for the owner to approve {pending['device_id']} at {self._client.url}")
                remind_at = now + REMINDER_S
            self._sleep(POLL_DELAYS_S[attempt] if attempt < len(POLL_DELAYS_S) else POLL_S)
        raise EnrolmentPending(f"{pending['device_id']} still waits for approval; run the command again")

    def _look(self, pending: dict[str, str]) -> dict[str, object] | None:
        """The approved answer, or None while it is open."""
        try:
            answer = self._client.get(
                f"/v1/enrolments/{pending['enrolment_id']}", bearer=pending["poll_secret"]
            )
        except GatewayUnreachable as error:
            self._say(f"{error}; trying again")
            return None
        except GatewayRefused as refused:
            if refused.status == 429:
                return None
            self._store.remove_pending()
            raise EnrolmentError(
                f"the enrolment is no more: {refused}; make a new registration token"
            ) from refused
        status = answer.get("status")
        if status == "pending":
            return None
        if status == "approved":
            return answer
        self._store.remove_pending()
        if status == "rejected":
            raise EnrolmentError(f"the owner rejected {pending['device_id']}")
        raise EnrolmentError(f"the enrolment ended: {str(status)[:40]}; make a new registration token")


def identity_from_answer(answer: dict[str, object], key: DeviceKey, request: EnrolmentRequest) -> Identity:
    """Check an approval as a whole before anything of it is stored; raises EnrolmentError."""
    try:
        root = p256.public_from_pem(_text(answer, "device_root").encode())
        key_list = verify_key_list(_text(answer, "key_list").encode(), root)
        certificate = read_certificate(_text(answer, "certificate"), key)
    except (TokenRefused, IdentityError) as error:
        raise EnrolmentError(f"the gateway's answer cannot be used: {error}") from error
    gateway_url = answer.get("gateway_url")
    if not isinstance(gateway_url, str) or gateway_url_problem(gateway_url):
        gateway_url = request.gateway
    return Identity(
        device_id=_text(answer, "device_id"),
        gateway_url=gateway_url.rstrip("/"),
        tunnel_urls=tunnel_urls(answer),
        key=key,
        certificate=certificate,
        device_ca=_text(answer, "ca"),
        device_root=root,
        key_list=key_list,
        server_ca=_optional_text(answer, "server_ca"),
        gateway_ca=request.gateway_ca,
    )


def tunnel_urls(answer: dict[str, object]) -> tuple[str, ...]:
    """The tunnel servers an answer names; raises EnrolmentError unless all of them may be dialled."""
    urls = answer.get("tunnel_urls")
    if not isinstance(urls, list) or not 0 < len(urls) <= MAX_TUNNEL_URLS:
        raise EnrolmentError("the gateway's answer names no tunnel server")
    for url in urls:
        problem = tunnel_url_problem(url) if isinstance(url, str) else "must be text"
        if problem:
            raise EnrolmentError(f"the gateway's answer holds a tunnel address that {problem}")
    return tuple(dict.fromkeys(urls))


def newer_key_list(answer: dict[str, object], identity: Identity) -> KeyList:
    """The list in a renewal's answer when its number rose, else the known one; raises EnrolmentError for
    a forged one.
    """
    text = answer.get("key_list")
    if not isinstance(text, str):
        return identity.key_list
    try:
        offered = verify_key_list(text.encode(), identity.device_root)
    except (TokenRefused, UnicodeEncodeError) as error:
        raise EnrolmentError(f"the gateway's key list cannot be used: {error}") from error
    return offered if may_replace(offered, identity.key_list) else identity.key_list


def default_hardware_id(machine_id: Path) -> str:
    """A stable name of this machine that does not give its machine-id away (machine-id(5)); random where
    there is none.
    """
    try:
        seed = machine_id.read_bytes().strip()
    except OSError:
        seed = b""
    if not seed:
        return "random-" + secrets.token_hex(16)
    return "machine-" + hashlib.sha256(b"towline-hardware-v1" + seed).hexdigest()[:32]


def _text(answer: dict[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise EnrolmentError(f"the gateway's answer has no {name}")
    return value


def _optional_text(answer: dict[str, object], name: str) -> str | None:
    value = answer.get(name)
    return value if isinstance(value, str) and value else None
