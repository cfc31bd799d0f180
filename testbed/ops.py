"""What operators see: a service's readiness and metrics."""

from __future__ import annotations

from pathlib import Path

import httpx

ASK_S = 5.0


def ask(port: int, path: str) -> httpx.Response:
    """A GET at the operators' listener on loopback."""
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=ASK_S, trust_env=False)


def is_ready(port: int) -> bool:
    return ask(port, "/readyz").status_code == 200


def metric(port: int, start: str) -> float:
    """`sum_of` what the service counts now."""
    return sum_of(ask(port, "/metrics").text, start)


def sum_of(text: str, start: str) -> float:
    """The sum of samples that begin with ``start`` ("name " or 'name{label="…'); 0 where there is none."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))


def feeds_heard(log: Path) -> int:
    """How often the node of this log has heard the gateway again that was away: revocations reach it then."""
    return log.read_text().count("revocation feed heard again")
