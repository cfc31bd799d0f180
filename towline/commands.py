"""The commands that talk to a running gateway: link, devices, sessions, revoke, approve, token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from towline.errors import TowlineError
from towline.gateway_client import GatewayClient

MAX_CELL = 40  # wider values would break the table on a common terminal


def link(gateway: GatewayClient, device: str, service: str, duration_s: int) -> str:
    """Open a session and return its link: whoever clicks it within its short life is in."""
    found = gateway.device(device)
    if any(one["name"] == service and one.get("kind") == "tcp" for one in found.get("services") or ()):
        how = f"towline connect {found['id']} {service}"
        raise TowlineError(f"{service} of {found['name']} is no web page: `{how}` opens it")
    body = {"service": service, "binding": "click", "duration_s": duration_s}
    session = gateway.post(f"/v1/devices/{found['id']}/sessions", body)
    url: str = session["url"]
    return url


def devices(gateway: GatewayClient) -> str:
    """A table of the devices."""
    rows = [
        (
            one["id"],
            one["name"],
            one["status"],
            "online" if one["online"] else "offline",
            " ".join(service["name"] for service in one.get("services") or ()),
            one.get("software") or "",
        )
        for one in gateway.items("/v1/devices")
    ]
    return table(("ID", "NAME", "STATUS", "TUNNEL", "SERVICES", "SOFTWARE"), rows)


def sessions(gateway: GatewayClient) -> str:
    """A table of the sessions."""
    rows = [
        (
            _text(one, "id"),
            _text(one, "device_name") or _text(one, "device_id"),
            _text(one, "service"),
            _text(one, "redeemed_at") or "not yet",
            _text(one, "expires_at"),
        )
        for one in gateway.items("/v1/sessions")
    ]
    return table(("ID", "DEVICE", "SERVICE", "OPENED", "EXPIRES"), rows)


def revoke_session(gateway: GatewayClient, session: str) -> str:
    """End a session everywhere."""
    gateway.delete(f"/v1/sessions/{session}")
    return f"session {session} is ended"


def revoke_device(gateway: GatewayClient, device: str) -> str:
    """Revoke a device for good: its tunnel closes, its certificate is refused."""
    found = gateway.device(device)
    gateway.post(f"/v1/devices/{found['id']}/revoke", {})
    return f"device {found['name']} ({found['id']}) is revoked"


def approve(gateway: GatewayClient, device: str) -> str:
    """Let an enrolled device in."""
    found = gateway.device(device)
    gateway.post(f"/v1/devices/{found['id']}/approve", {})
    return f"device {found['name']} ({found['id']}) is approved"


def token(gateway: GatewayClient, name: str | None, *, pre_approved: bool) -> str:
    """A registration token for one new device."""
    body: dict[str, Any] = {"approve": pre_approved}
    if name is not None:
        body["name"] = name
    made = gateway.post("/v1/registration-tokens", body)
    text: str = made["token"]
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; "none" where there is no row."""
    if not rows:
        return "none"
    cells = [
        [cell if len(cell) <= MAX_CELL else cell[: MAX_CELL - 1] + "…" for cell in row]
        for row in (head, *rows)
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _text(one: dict[str, Any], key: str) -> str:
    value = one.get(key)
    return "" if value is None else str(value)
