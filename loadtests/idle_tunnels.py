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
FIRST_SHARE = 5  # a fifth of the tunnels first: pools and code pages are not charged to the tunnels
TUNNELS_PER_DEVICE = 4  # of one instance; the server takes no more


def _agents(stack: TowlineStack, devices: int) -> subprocess.Popen[str]:
    tokens = [
        stack.gateway.post("/v1/registration-tokens", {"name": f"idle {n}", "approve": True})["token"]
        for n in range(devices)
    ]
    count = devices * TUNNELS_PER_DEVICE
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.idle_agents"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = {"gateway": stack.gateway.address, "tokens": tokens, "tunnels": TUNNELS_PER_DEVICE}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if line != f"ready {count}\n":
        process.kill()
        raise RuntimeError(f"idle agents: {line!r} instead of ready {count}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=READY_DEADLINE_S)


def idle_tunnel_memory(stack: TowlineStack, count: int) -> dict[str, Any]:
    """KiB of server RSS for each of `count` idle tunnels over TLS, beyond the first fifth of them."""
    agent_rss = rss_kib(stack.agent_pid)
    devices = max(1, count // TUNNELS_PER_DEVICE)
    count = devices * TUNNELS_PER_DEVICE
    first = _agents(stack, max(1, devices // FIRST_SHARE))
    try:
        time.sleep(SETTLE_S)
        before = rss_kib(stack.server_pid)
        rest = _agents(stack, devices)
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
