"""A session for a TCP service: made at the gateway, redeemed at its own host, ended at the gateway."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from runtime.tcp_door import PATH
from towline.connect.door import Door, open_door, refusal
from towline.connect.site import Site
from towline.errors import TowlineError
from towline.gateway_client import GatewayClient

KIND = "tcp"


@dataclass(frozen=True, slots=True)
class TcpSession:
    """``secret`` is the Bearer: it goes into a header of the site's connections, and nowhere else."""

    id: str
    device: str
    service: str
    expires_at: str
    site: Site
    secret: str = field(repr=False)

    async def open(self) -> Door:
        """One more connection."""
        return await open_door(self.site, self.secret)


async def open_session(
    gateway: GatewayClient, device: str, service: str, *, duration_s: int, ca: str | None
) -> TcpSession:
    """TowlineError says why not; nothing is left open at the gateway then."""
    found = await asyncio.to_thread(gateway.device, device)
    _check_kind(found, service)
    body = {"service": service, "binding": "click", "duration_s": duration_s}
    made = await asyncio.to_thread(gateway.post, f"/v1/devices/{found['id']}/sessions", body)
    try:
        site, token = Site.of_link(made["url"], ca)
        secret = await _redeem(site, token)
    except BaseException:
        await end_session(gateway, made["id"])
        raise
    name = f"{found['name']} ({found['id']})"
    return TcpSession(made["id"], name, service, made["expires_at"], site, secret)


async def end_session(gateway: GatewayClient, session: str) -> None:
    """End it on every node; TowlineError when the gateway cannot be told."""
    await asyncio.to_thread(gateway.delete, f"/v1/sessions/{session}")


def _check_kind(device: dict[str, Any], service: str) -> None:
    """What is a page is told before anything is opened; all else is the gateway's to say."""
    kinds = {one["name"]: one.get("kind", "web") for one in device.get("services") or ()}
    if kinds and service not in kinds:
        fitting = ", ".join(sorted(name for name, kind in kinds.items() if kind == KIND)) or "none"
        raise TowlineError(
            f"{device['name']} has no service {service!r}; its services of kind tcp: {fitting}"
        )
    if kinds.get(service, KIND) != KIND:
        how = f"towline link {device['id']} --service {service}"
        raise TowlineError(f"{service} of {device['name']} is a web page: `{how}` opens it")


async def _redeem(site: Site, token: str) -> str:
    """The session id for the link."""
    channel = await site.open()
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Connection": "close"}
        answer = await channel.ask("POST", PATH, headers, urlencode({"token": token}).encode())
    finally:
        channel.abort()
    if answer.status != 200:
        raise refusal(answer)
    secret = answer.json().get("session_id")
    if (
        not isinstance(secret, str)
        or not secret.isascii()
        or not secret.replace("-", "").replace("_", "").isalnum()
    ):
        raise TowlineError("the tunnel server's answer holds no session id: is it an older one?")
    return secret
