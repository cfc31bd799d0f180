"""The memory of an idle tunnel: the server's RSS before and after N devices connected, over N."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from loadtests.measure import rss_kib
from loadtests.stack import TowlineStack

READY_DEADLINE_S = 180.0
SETTLE_S = 3.0  # the handshakes' own buffers are given back
FIRST_SHARE = 10  # a tenth of the tunnels first: pools and code pages are not charged to the tunnels


def _agents(stack: TowlineStack, count: int) -> subprocess.Popen[str]:
    tokens = [
        stack.gateway.post("/v1/registration-tokens", {"name": f"idle {n}", "approve": True})["token"]
        for n in range(count)
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.idle_agents"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"gateway": stack.gateway.address, "tokens": tokens}) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if line != f"ready {count}\n":
        process.kill()
        raise RuntimeError(f"idle agents: {line!r} instead of ready {count}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=READY_DEADLINE_S)


def idle_tunnel_memory(stack: TowlineStack, count: int) -> dict[str, Any]:
    """KiB of server RSS for each of `count` idle tunnels over TLS, beyond the first tenth of them."""
    agent_rss = rss_kib(stack.agent_pid)
    first = _agents(stack, max(1, count // FIRST_SHARE))
    try:
        time.sleep(SETTLE_S)
        before = rss_kib(stack.server_pid)
        rest = _agents(stack, count)
        try:
            time.sleep(SETTLE_S)
            after = rss_kib(stack.server_pid)
        finally:
            _end(rest)
    finally:
        _end(first)
    return {
        "tunnels": count,
        "server_kib_before": before,
        "server_kib_after": after,
        "kib_per_tunnel": (after - before) / count,
        "agent_rss_kib": agent_rss,
    }
