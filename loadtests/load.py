"""`make load`: visitors, mobile apps, support engineers (6 to 3 to 1) over many tunnels, devices; by locust.

Without --host it starts its own stack: gateway, tunnel server, message broker, a demo device, and --tunnels
agents in one process that all offer it; --devices send a message a second each meanwhile. With --host the
visitors go to a gateway that runs; its online devices must be demo devices, and --data (or
TOWLINE_LOAD_USERNAME and TOWLINE_LOAD_PASSWORD) says who logs in. Exit code 1: a request failed, or a 95th
percentile is over its bound.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from loadtests import load_report
from loadtests.idle_tunnels import agents_in_one_process
from loadtests.lab import say
from loadtests.messages.embedded import devices_with_passwords, rows_of
from loadtests.seeding import seed_devices
from loadtests.stack import running_product, wait_online
from testbed.programs import running
from testbed.waiting import eventually
from towline.data_folder import DataFolder, default_data
from towline.errors import TowlineError
from towline.gateway_client import Credentials

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ROOT / "loadtests" / "scenarios" / "devices.py"
SCENARIOS = [ROOT / "loadtests" / "scenarios" / name for name in ("visitors.py", "people.py")]
PYTHON_VARIABLE = "TOWLINE_LOAD_PYTHON"
END_S = 120  # locust's own end, beyond the time it was given
MOST_VISITORS = 90  # a person may have 100 sessions, and all visitors are one person


def locust_python() -> str:
    """The interpreter of locust's environment; SystemExit where it is not installed."""
    python = Path(os.environ.get(PYTHON_VARIABLE, ROOT / ".venv-load" / "bin" / "python"))
    if not python.exists():
        raise SystemExit(f"locust is not installed: make load does it, or {PYTHON_VARIABLE} names its python")
    return str(python)


@contextmanager
def own_stack(tunnels: int, devices: int) -> Iterator[tuple[str, Credentials, Path]]:
    """Gateway, server, a demo device and agents that offer it; (the gateway's address, who logs in, the order
    of devices at the broker).
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="towline-load-")))
        say("starting gateway, tunnel server and demo device …")
        product = stack.enter_context(running_product(root))
        port_file = root / "demo-port"
        demo = ["-m", "demo_device", "--data", str(root / "demo"), "--port-file", str(port_file)]
        stack.enter_context(running([sys.executable, *demo], log=root / "demo.log"))
        port = eventually("the demo device", lambda: port_file.exists() and port_file.read_text().strip())
        state = product.enrol_agent("model", {"web": int(port)}).parent / "state"
        say(f"{tunnels} agents …")
        seeded = seed_devices(product.data, tunnels)
        stack.enter_context(agents_in_one_process(state, seeded, f"127.0.0.1:{port}"))
        wait_online(product.gateway, [device.id for device in seeded])
        order = root / "devices.json"
        with closing(rows_of(product)) as rows:
            order.write_text(devices_with_passwords(product, rows, devices).to_json())
        yield product.gateway.address, Credentials.load(product.data.credentials), order


def credentials_of(data: Path | None) -> Credentials:
    """From the environment, or from the data folder of the `towline up` that runs."""
    username, password = (os.environ.get(f"TOWLINE_LOAD_{name}") for name in ("USERNAME", "PASSWORD"))
    if username and password:
        return Credentials("", username, password)
    try:
        return Credentials.load(DataFolder(data or default_data()).credentials)
    except TowlineError as error:
        raise SystemExit(f"who logs in? {error}") from error


def locust(
    host: str, who: Credentials, args: argparse.Namespace, *, own_addresses: bool, order: Path | None
) -> list[Any]:
    """Runs the visitors, and the devices of `order`; what `locust --json` says."""
    scenarios = SCENARIOS if order is None else [*SCENARIOS, DEVICES]
    users = args.users if order is None else args.users + args.devices
    spawn_rate = args.spawn_rate * users / args.users  # devices come first: visitors wait no longer for that
    command = [
        locust_python(), "-m", "locust", "-f", ",".join(map(str, scenarios)), "--headless", "--json",
        "--host", host, "-u", str(users), "-r", str(spawn_rate), "-t", f"{args.time}s",
        "--stop-timeout", "20",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TOWLINE_LOAD_USERNAME": who.username,
        "TOWLINE_LOAD_PASSWORD": who.password,
        "TOWLINE_LOAD_OWN_ADDRESSES": "1" if own_addresses else "0",
        "TOWLINE_LOAD_DEVICES": str(order or ""),
    }
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=None if args.verbose else subprocess.PIPE,
        text=True,
        timeout=args.time + END_S,
        check=False,
    )
    try:
        found: list[Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"locust gave no figures (exit code {done.returncode})\n{done.stderr}") from None
    return found


def option_of(name: str) -> str:
    """`ask for a session` → `--p95-ask-for-a-session`."""
    return "--p95-" + name.partition(":")[0].replace(" ", "-")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m loadtests.load", description=__doc__)
    made.add_argument("--host", help="a gateway that runs, http://host:port; without it: a stack of its own")
    made.add_argument("--data", type=Path, help="with --host: the data folder of its towline up")
    made.add_argument("--users", type=int, default=40, help="visitors at once (default 40)")
    made.add_argument(
        "--spawn-rate", type=float, default=2.0, help="visitors that arrive a second (default 2)"
    )
    made.add_argument("--time", type=int, default=60, metavar="SECONDS", help="how long (default 60)")
    made.add_argument("--tunnels", type=int, default=30, help="devices of its own stack (default 30)")
    made.add_argument("--devices", type=int, default=20, help="devices at its broker (default 20)")
    made.add_argument("--verbose", action="store_true", help="show locust's own log")
    for name, bound in load_report.P95_MS.items():
        text = f"bound of the 95th percentile of '{name}' (default {bound:.0f})"
        made.add_argument(option_of(name), dest=name, type=float, default=bound, metavar="MS", help=text)
    return made


def main() -> int:
    args = parser().parse_args()
    if not 0 < args.users <= MOST_VISITORS:
        raise SystemExit(f"--users is 1 to {MOST_VISITORS}: they are one person, who may have 100 sessions")
    with ExitStack() as stack:
        if args.host is None:
            host, who, order = stack.enter_context(own_stack(args.tunnels, args.devices))
        else:
            host, who, order = args.host, credentials_of(args.data), None
        say(f"{args.users} visitors for {args.time} s at {host} …")
        stats = locust(host, who, args, own_addresses=args.host is None or "//localhost" in host, order=order)
    found = load_report.rows(stats, {name: getattr(args, name) for name in load_report.P95_MS})
    print(load_report.rendered(found))
    return 0 if load_report.passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
