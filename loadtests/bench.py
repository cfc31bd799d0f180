"""`make bench`: the data plane beside its peers, in one run on one machine.

Rounds are interleaved (every target once a round, then again), so that a noisy neighbour hits all alike;
figures are medians over rounds with the spread beside them. Trust CPU-µs and ratios, not requests a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtests import peers, report
from loadtests.idle_tunnels import idle_tunnel_memory
from loadtests.measure import PacedClient, Target, Transfer, median, percentile, request_cost, transfer
from loadtests.stack import towline_stack

LATENCY_PAUSE_S = 0.001  # low load: one request a millisecond at most


def machine() -> dict[str, Any]:
    """What the figures were taken on: processor, cores, memory, kernel, Python."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit under test, with a plus when the tree holds changes."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def request_costs(
    targets: Sequence[Target], path: str, connections: int, seconds: int, rounds: int
) -> dict[str, Any]:
    """CPU-µs a request of every target at `connections` in flight: median over rounds, spread, parts."""
    runs: dict[str, list[Any]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            runs[target.name].append(request_cost(target, path, connections, seconds))
    return {
        name: {
            "cpu_us": median([run.total_us for run in of]),
            "cpu_us_spread": [min(run.total_us for run in of), max(run.total_us for run in of)],
            "parts_us": {part: median([run.cpu_us[part] for run in of]) for part in of[0].cpu_us},
            "requests_per_s": median([run.requests_per_s for run in of]),
            "requests": sum(run.requests for run in of),
            "errors": sum(run.errors for run in of),
        }
        for name, of in runs.items()
    }


def bulk_rates(targets: Sequence[Target], rounds: int, upload: Path) -> dict[str, Any]:
    """MB/s and CPU-ms a MB, down and up, of every target: medians over rounds, and the spread of the rate."""
    runs: dict[str, dict[str, list[Transfer]]] = {target.name: {"down": [], "up": []} for target in targets}
    for _ in range(rounds):
        for target in targets:
            runs[target.name]["down"].append(transfer(target, "/bulk"))
            runs[target.name]["up"].append(transfer(target, "/upload", upload=upload))
    return {
        name: {
            way: {
                "mb_s": median([run.mb_per_s for run in of]),
                "spread": [min(run.mb_per_s for run in of), max(run.mb_per_s for run in of)],
                "cpu_ms_mb": median([run.total_ms_per_mb for run in of]),
                "parts_ms_mb": {
                    part: median([run.cpu_ms_per_mb[part] for run in of]) for part in of[0].cpu_ms_per_mb
                },
            }
            for way, of in ways.items()
        }
        for name, ways in runs.items()
    }


def added_latency(targets: Sequence[Target], requests: int) -> dict[str, Any]:
    """µs of one request at low load (p50, p99), and what each target adds to the first one."""
    clients = [(target, PacedClient(target, "/1k")) for target in targets]
    taken: dict[str, list[float]] = {target.name: [] for target in targets}
    for _, client in clients:
        for _ in range(50):
            client.exchange_us()
    for _ in range(requests):
        for target, client in clients:
            taken[target.name].append(client.exchange_us())
            time.sleep(LATENCY_PAUSE_S)
    for _, client in clients:
        client.close()
    base = taken[targets[0].name]
    return {
        name: {
            "p50_us": percentile(values, 0.5),
            "p99_us": percentile(values, 0.99),
            "added_p50_us": percentile(values, 0.5) - percentile(base, 0.5),
            "added_p99_us": percentile(values, 0.99) - percentile(base, 0.99),
        }
        for name, values in taken.items()
    }


def run(seconds: int, rounds: int, tunnels: int) -> dict[str, Any]:
    """All figures of one run."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="towline-bench-")))
        root.chmod(0o755)
        up = stack.enter_context(peers.upstream(root))
        proxy = stack.enter_context(peers.nginx_proxy(root, up.port))
        say("starting gateway, tunnel server and agent …")
        towline = stack.enter_context(towline_stack(root, up.port))
        targets = [up.target, proxy, towline.target]
        for target in targets:  # warm up: pools, page cache, JIT of nothing, windows
            request_cost(target, "/1k", 32, 1)
            transfer(target, "/bulk")
        result: dict[str, Any] = {
            "commit": commit(),
            "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": machine(),
            "settings": {
                "seconds": seconds,
                "rounds": rounds,
                "tunnels": tunnels,
                "bulk_bytes": peers.BULK_BYTES,
            },
        }
        say("1 KB at c=32 …")
        result["small_c32"] = request_costs(targets, "/1k", 32, seconds, rounds)
        say("1 KB at c=1 …")
        result["small_c1"] = request_costs(targets, "/1k", 1, seconds, rounds)
        say("64 KB at c=8 …")
        result["large_c8"] = request_costs(targets, "/64k", 8, seconds, rounds)
        say("bulk down and up …")
        result["bulk"] = bulk_rates(targets, rounds, root / "www" / "bulk")
        say("latency at low load …")
        result["latency"] = added_latency(targets, 300 * rounds)
        say(f"{tunnels} idle tunnels …")
        result["idle"] = idle_tunnel_memory(towline, tunnels)
        return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="length of one wrk run (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all targets (default 5)")
    parser.add_argument(
        "--tunnels", type=int, default=300, help="idle tunnels for the memory figure (default 300)"
    )
    parser.add_argument("--no-write", action="store_true", help="print the tables, leave docs/ alone")
    args = parser.parse_args()
    result = run(args.seconds, args.rounds, args.tunnels)
    print(report.tables(result))
    if not args.no_write:
        docs = Path(__file__).resolve().parent.parent / "docs"
        (docs / "performance.json").write_text(json.dumps(result, indent=1) + "\n")
        report.write(docs / "performance.md", result)
    return 0
