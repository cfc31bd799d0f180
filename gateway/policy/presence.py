"""Which devices are online, which instance of a device is the living one, and when two of them fight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.policy.names import SERVICE_PATTERN

# Nodes report at least every 5 s; two lost reports and a slow one still fit. With the 9 s that a node
# needs to see a half-open device this keeps a wrong "online" under 15 s only because a node that lives
# reports the loss at once: the two waits never add up.
NODE_SILENT_S = 12.0
# A report leaves a node at most 5 s after the event; a clock further off than this is not believed.
EVENT_AGE_MAX_S = 15.0
# More replacements than this within the window is two machines with one key, not a restart.
FLAP_REPLACEMENTS = 3
FLAP_WINDOW_S = 600.0
SERVICES_MAX = 64  # the tunnel protocol's own limit
SERVICE_KINDS = frozenset({"web", "tcp"})


@dataclass(frozen=True, slots=True)
class TunnelKey:
    """One tunnel: a connection of one instance of a device, held by one node."""

    node: str
    device_id: str
    instance: bytes
    connection: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel that is believed to be open. `connected_at` in Unix seconds."""

    key: TunnelKey
    connected_at: float
    rtt_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One event of a node's report, times in Unix seconds by the node's clock."""

    device_id: str
    instance: bytes
    connection: int
    state: Literal["connected", "disconnected"]
    at: float
    software: str | None = None
    services: tuple[Mapping[str, str], ...] | None = None
    rtt_ms: float | None = None
    error: str | None = None


@dataclass(slots=True)
class DevicePresence:
    """What the store knows of a device before the report is applied, and what it must write after."""

    device_id: str
    instance: bytes | None
    """None: no instance has ever connected."""
    instance_at: float
    since: float | None
    """When the state (online, offline) that the device is in began; None: never connected."""
    tunnels: dict[TunnelKey, Tunnel]
    recent_replacements: int
    untold: set[TunnelKey] = field(default_factory=set)
    """Tunnels of nodes that fell silent: people were told that these have gone."""
    was_online: bool = False
    """As people were last told."""
    software: str | None = None
    services: tuple[Mapping[str, str], ...] | None = None
    """None (software, services, last_error, rtt_ms): the report says nothing of it, keep what is stored."""
    last_error: str | None = None
    rtt_ms: float | None = None


@dataclass(slots=True)
class PresenceChanges:
    """What the store has to do. `replaced` maps a device to the instance that stays."""

    opened: dict[TunnelKey, Tunnel] = field(default_factory=dict)
    closed: set[TunnelKey] = field(default_factory=set)
    touched: dict[str, DevicePresence] = field(default_factory=dict)
    replaced: dict[str, bytes] = field(default_factory=dict)
    flapping: set[str] = field(default_factory=set)


def is_online(device: DevicePresence) -> bool:
    """Whether a tunnel is left whose node is heard."""
    return any(key not in device.untold for key in device.tunnels)


def proper_services(announced: Iterable[tuple[str, str]]) -> tuple[Mapping[str, str], ...]:
    """The announced (name, kind) pairs that are services: token names, known kinds, each name once."""
    found: dict[str, str] = {}
    for name, kind in announced:
        if len(found) < SERVICES_MAX and SERVICE_PATTERN.fullmatch(name) and kind in SERVICE_KINDS:
            found.setdefault(name, kind)
    return tuple({"name": name, "kind": kind} for name, kind in found.items())


def apply_reports(
    node: str, devices: Mapping[str, DevicePresence], reports: Iterable[Report], *, full: bool, now: float
) -> PresenceChanges:
    """Fold a node's report into `devices` (which it updates) and say what changed.

    `full` says that the report is everything the node holds: what it does not name is gone.
    Unknown devices (not in `devices`: revoked, pending, never enrolled) are ignored.
    """
    changes = PresenceChanges()
    named: set[TunnelKey] = set()
    for report in reports:
        device = devices.get(report.device_id)
        if device is None:
            continue
        key = TunnelKey(node, report.device_id, report.instance, report.connection)
        changes.touched[device.device_id] = device
        if report.state == "connected":
            named.add(key)
            _connected(device, key, report, _believed(report.at, now, full=full), changes)
        else:
            _disconnected(device, key, report, now, changes)
    if full:
        _drop_unnamed(node, devices, named, now, changes)
    return changes


def _believed(at: float, now: float, *, full: bool) -> float:
    # A whole picture legitimately names old events; a single one is fresh, whatever the node's clock says.
    return min(now, at if full else max(at, now - EVENT_AGE_MAX_S))


def _connected(
    device: DevicePresence, key: TunnelKey, report: Report, at: float, changes: PresenceChanges
) -> None:
    others = [k for k in device.tunnels if k.instance != key.instance]
    if device.instance != key.instance:
        if others and at < device.instance_at:
            # The newest instance wins on every node, also when the older one is reported last.
            assert device.instance is not None
            _replace(device, device.instance, changes)
            return
        device.instance, device.instance_at = key.instance, at
        if others:
            _replace(device, key.instance, changes)
            for other in others:
                del device.tunnels[other]
                changes.opened.pop(other, None)
                changes.closed.add(other)
    if not device.tunnels:
        device.since = at
    known = device.tunnels.get(key)
    tunnel = Tunnel(key, known.connected_at if known else at, report.rtt_ms)
    device.tunnels[key] = changes.opened[key] = tunnel
    changes.closed.discard(key)
    _remember(device, report)


def _disconnected(
    device: DevicePresence, key: TunnelKey, report: Report, now: float, changes: PresenceChanges
) -> None:
    known = device.tunnels.pop(key, None)
    if report.error is not None:
        device.last_error = report.error
    if known is None:
        return
    changes.opened.pop(key, None)
    changes.closed.add(key)
    if not device.tunnels:
        device.since = now


def _drop_unnamed(
    node: str,
    devices: Mapping[str, DevicePresence],
    named: set[TunnelKey],
    now: float,
    changes: PresenceChanges,
) -> None:
    for device in devices.values():
        for key in [k for k in device.tunnels if k.node == node and k not in named]:
            del device.tunnels[key]
            changes.closed.add(key)
            changes.touched[device.device_id] = device
            if not device.tunnels:
                device.since = now


def _replace(device: DevicePresence, keep: bytes, changes: PresenceChanges) -> None:
    changes.replaced[device.device_id] = keep
    device.recent_replacements += 1
    if device.recent_replacements > FLAP_REPLACEMENTS:
        changes.flapping.add(device.device_id)


def _remember(device: DevicePresence, report: Report) -> None:
    if report.software is not None:
        device.software = report.software
    if report.services is not None:
        device.services = report.services
    if report.rtt_ms is not None:
        device.rtt_ms = report.rtt_ms
