"""`make bench`: the data plane beside its peers, in one run on one machine.

Figures are medians over interleaved rounds with the spread beside them. Trust CPU-µs and ratios, not requests
a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from loadtests import report
from loadtests.figures import FORMAT, Figures, figures_of, figures_to_json, find, rounded
from loadtests.lab import ALL_PATHS, Options, lab, say
from loadtests.peers.snitun import peers_python
from loadtests.sections import MEASUREMENTS
from testbed import kafka
from testbed.programs import program

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "uvloop",
    "picows",
    "aiofastnet",
    "httptools",
    "cryptography",
    "gmqtt",
    "aiokafka",
    "asyncpg",
    "amqtt",
)
_VERSIONS = {
    "nginx": (["nginx", "-v"], "nginx-light"),
    "haproxy": (["haproxy", "-v"], "haproxy"),
    "openssh": (["ssh", "-V"], "openssh-client"),
    "wrk": (["wrk", "-v"], "wrk"),
    "curl": (["curl", "--version"], "curl"),
    "mosquitto": (["mosquitto", "-h"], "mosquitto"),
}
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")


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
        "load_before": rounded(os.getloadavg()[0]),
    }


def versions() -> dict[str, str]:
    """Of the programs and packages that took part; those that are not installed are left out."""
    found = {"kafka": kafka.VERSION}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name, (argv, package) in _VERSIONS.items():
        try:
            done = subprocess.run(
                [program(argv[0], package), *argv[1:]], capture_output=True, text=True, check=False
            )
        except RuntimeError:
            continue
        match = _VERSION.search(done.stdout + done.stderr)
        if match is not None:
            found[name] = match[0]
    try:
        command = [peers_python(), "-c", "import importlib.metadata as m; print(m.version('snitun'))"]
        found["snitun"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (RuntimeError, subprocess.CalledProcessError):
        return found
    return found


def commit() -> str:
    """The commit under test, with a plus when the code holds changes."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        dirty = _git("status", "--porcelain", "--", ".", ":!docs", ":!README.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty.strip() else "")


def _git(*argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def measure(options: Options, wanted: Sequence[str]) -> dict[str, Any]:
    """One run as JSON (see `figures`)."""
    figures: Figures = {}
    started = time.monotonic()
    with lab(options) as running:
        taken = {"commit": commit(), "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
        box = {**machine(), "versions": versions()}
        for name in MEASUREMENTS:
            if name in wanted:
                say(f"{name} …")
                begun = time.monotonic()
                figures |= MEASUREMENTS[name](running)
                say(f"  {time.monotonic() - begun:.0f} s")
    parameters = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "idle_tunnels": options.idle,
        "connected_tunnels": options.connected,
        "took_s": round(time.monotonic() - started),
    }
    return {
        "format": FORMAT,
        **taken,
        "machine": box,
        "parameters": parameters,
        "figures": figures_to_json(figures),
    }


def failed_requests(figures: Figures) -> int:
    """Over all sections and paths: a figure beside failed requests is worth nothing."""
    found = (find(figures, section, path, "errors") for section, paths in figures.items() for path in paths)
    return int(sum(figure.high for figure in found if figure is not None))


def options_parser(prog: str, text: str | None) -> argparse.ArgumentParser:
    """What `make bench` and `make bench-compare` both take."""
    parser = argparse.ArgumentParser(prog=prog, description=text)
    default = Options()
    parser.add_argument(
        "--only", default="", metavar="A,B", help=f"these measurements only: {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument(
        "--paths", default="", metavar="A,B", help=f"these paths only: {', '.join(ALL_PATHS)}"
    )
    parser.add_argument("--seconds", type=int, default=default.seconds, help="length of one wrk run")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="rounds over all paths")
    parser.add_argument("--idle", type=int, default=default.idle, help="idle tunnels for the memory figure")
    parser.add_argument(
        "--connected", type=int, default=default.connected, help="tunnels beside which requests are measured"
    )
    return parser


def _chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def measured_as_asked(args: argparse.Namespace) -> dict[str, Any]:
    """A run with the options of `options_parser`."""
    paths = frozenset(_chosen(args.paths, ALL_PATHS, "path"))
    wanted = _chosen(args.only, list(MEASUREMENTS), "measurement")
    return measure(Options(args.seconds, args.rounds, args.idle, args.connected, paths), wanted)


def main() -> int:
    parser = options_parser("python -m loadtests", __doc__)
    parser.add_argument("--out", type=Path, help="write the run's JSON here")
    parser.add_argument(
        "--no-write", action="store_true", help="print the tables, leave docs/ and README.md alone"
    )
    args = parser.parse_args()
    run = measured_as_asked(args)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(run, indent=1) + "\n")
    print(report.tables(run))
    if not args.no_write and not args.only and not args.paths:
        report.publish(ROOT, run)
    failed = failed_requests(figures_of(run))
    if failed:
        say(f"{failed} requests failed: see the tables")
    return 1 if failed else 0
