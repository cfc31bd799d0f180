"""The calls of the gateway's internal API that this node makes, typed."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.internal_http import InternalHttp
from tunnel_server.errors import GatewayUnavailable
from tunnel_server.sessions import SessionFacts


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device that may connect; ``public_key`` is its SubjectPublicKeyInfo in DER."""

    device_id: str
    name: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How many devices other living nodes hold, and how many of those this node does not hold."""

    devices: int
    missing: int


class Gateway(Protocol):
    """The control plane as the data plane needs it. Every call may raise GatewayUnavailable."""

    async def redeem(
        self, *, token: str | None, code: str | None, label: str, cookie_hash: bytes, client: str, kind: str
    ) -> SessionFacts:
        """Burn a link to a service of ``kind``; GatewayRefused 410, 403 or 400 with the reason's code."""
        ...

    async def resolve(self, *, label: str, cookie_hash: bytes) -> SessionFacts:
        """The session of a cookie this node does not know; GatewayRefused 404, 410 when it has ended."""
        ...

    async def grant(self, *, sid: str) -> bytes:
        """The session's grant, signed anew; GatewayRefused 404 or 410 when it has ended."""
        ...

    async def end_session(self, *, sid: str, cookie_hash: bytes, client: str) -> None:
        """End it everywhere, as its visitor wants; GatewayRefused 404."""
        ...

    async def authenticate(self, *, device_id: str, key_id: bytes) -> DeviceFacts:
        """The device's key; GatewayRefused 404 (unknown) or 403 (revoked, pending)."""
        ...

    async def report_presence(self, report: dict[str, Any]) -> bool:
        """Tell which devices are connected here; True when the gateway asks for a full report."""
        ...

    async def report_requests(self, entries: list[dict[str, Any]]) -> None:
        """What passed in support sessions. An entry that was told before is not written again."""
        ...

    async def devices_elsewhere(self) -> Elsewhere:
        """The devices that other living nodes hold."""
        ...

    async def key_list(self) -> bytes:
        """The root-signed grant key list (compact JWS)."""
        ...

    def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        """The feed's lines after number ``after``."""
        ...


class HttpGateway:
    """The real one."""

    def __init__(self, http: InternalHttp) -> None:
        self._http = http

    async def redeem(
        self, *, token: str | None, code: str | None, label: str, cookie_hash: bytes, client: str, kind: str
    ) -> SessionFacts:
        body = {"label": label, "cookie_sha256": cookie_hash.hex(), "client": client, "kind": kind}
        if token is not None:
            body["token"] = token
        if code is not None:
            body["code"] = code
        return SessionFacts.from_json(
            await self._http.call("POST", "/internal/v1/links/redeem", body, fresh=True)
        )

    async def resolve(self, *, label: str, cookie_hash: bytes) -> SessionFacts:
        body = {"label": label, "cookie_sha256": cookie_hash.hex()}
        return SessionFacts.from_json(await self._http.call("POST", "/internal/v1/sessions/resolve", body))

    async def grant(self, *, sid: str) -> bytes:
        data = await self._http.call("GET", f"/internal/v1/sessions/{sid}/grant")
        try:
            return str(data["grant"]).encode("ascii")
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed grant: {error!r}") from error

    async def end_session(self, *, sid: str, cookie_hash: bytes, client: str) -> None:
        body = {"cookie_sha256": cookie_hash.hex(), "client": client}
        await self._http.call("POST", f"/internal/v1/sessions/{sid}/end", body)

    async def authenticate(self, *, device_id: str, key_id: bytes) -> DeviceFacts:
        body = {"device_id": device_id, "key_id": key_id.hex()}
        data = await self._http.call("POST", "/internal/v1/devices/authenticate", body)
        try:
            return DeviceFacts(
                str(data["device_id"]), str(data["name"]), base64.b64decode(data["public_key"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed device: {error!r}") from error

    async def report_presence(self, report: dict[str, Any]) -> bool:
        answer = await self._http.call("POST", "/internal/v1/presence", report)
        return isinstance(answer, dict) and answer.get("full") is True

    async def report_requests(self, entries: list[dict[str, Any]]) -> None:
        await self._http.call("POST", "/internal/v1/request-log", {"entries": entries})

    async def devices_elsewhere(self) -> Elsewhere:
        data = await self._http.call("GET", "/internal/v1/presence/elsewhere")
        try:
            return Elsewhere(int(data["devices"]), int(data["missing"]))
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed count: {error!r}") from error

    async def key_list(self) -> bytes:
        data = await self._http.call("GET", "/internal/v1/keys")
        try:
            return str(data["key_list"]).encode("ascii")
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed key list: {error!r}") from error

    def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        return self._http.lines(f"/internal/v1/revocations?after={after}", silence_s)
