"""How the device is: told once a minute, and missed when it is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from device_protocol import strict_json
from device_protocol.bodies import SENSORS_MAX, OutboxReport
from tunnel_agent.messages.policy.aggregate import Reading

PROC: Final = Path("/proc")
_RSSI_DBM: Final = range(-200, 51)  # what a report may say; some drivers give 0..100 or 256 less


def report(outbox: OutboxReport, sensors: dict[str, Reading], proc: Path = PROC) -> dict[str, Any]:
    """The payload of a heartbeat. What this machine does not tell is left out."""
    body: dict[str, Any] = {"uptime_s": _uptime_s(proc), "outbox": outbox.dump()}
    memory = _memory(proc)
    if memory:
        body["memory"] = memory
    try:
        body["load"] = round(os.getloadavg()[0], 2)
    except OSError:
        body.pop("load", None)
    rssi = _rssi(proc)
    if rssi is not None:
        body["rssi"] = rssi
    fitting = fit(sensors)
    if fitting:
        body["sensors"] = fitting
    return body


def fit(sensors: dict[str, Reading]) -> dict[str, Reading]:
    """As many of them, in their order, as a report takes."""
    found: dict[str, Reading] = {}
    for name, value in sensors.items():
        more = found | {name: value}
        if len(strict_json.dumps(more)) <= SENSORS_MAX:
            found = more
    return found


def machine_boot(proc: Path = PROC) -> str:
    """Another text after each start of the machine (random(4)); "" where there is none."""
    return _text(proc / "sys/kernel/random/boot_id").strip()[:64]


def _uptime_s(proc: Path) -> float:
    words = _text(proc / "uptime").split()
    return float(words[0]) if words else 0.0


def _memory(proc: Path) -> dict[str, int]:
    """Bytes (proc(5))."""
    found: dict[str, int] = {}
    pages = _text(proc / "self/statm").split()
    if len(pages) > 1:
        found["rss"] = int(pages[1]) * os.sysconf("SC_PAGESIZE")
    for line in _text(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found["total" if name == "MemTotal" else "available"] = int(rest.split()[0]) * 1024
    return found


def _rssi(proc: Path) -> int | None:
    """Of the first wireless interface, dBm; None: there is none."""
    for line in _text(proc / "net/wireless").splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and name.strip() and len(words) > 2:
            level = words[2].rstrip(".")
            if level.lstrip("-").isdigit() and int(level) in _RSSI_DBM:
                return int(level)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
