"""The services' own commands, as an operator types them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.processes import ROOT, START_S

CALL_S = 20.0  # a command that asks the gateway a thing or two


def service_argv(module: str, config: Path) -> list[str]:
    """`module` is `gateway`, `tunnel_server` or `tunnel_agent`."""
    return [sys.executable, "-m", module, "--config", str(config)]


def run_command(
    argv: Sequence[str], environment: Mapping[str, str] | None = None, timeout_s: float = CALL_S
) -> str:
    """What it printed; RuntimeError with all it said when it failed."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout


def issue_node_certificate(gateway_config: Path, name: str, out: Path, names: Sequence[str]) -> Path:
    """`out`, with what the node needs to speak with the gateway and with agents as `names`."""
    issue = [sys.executable, "-m", "gateway", "issue-node-certificate", name, "--out", str(out)]
    run_command([*issue, "--config", str(gateway_config), "--san", *names], timeout_s=START_S)
    return out


def enrol(
    gateway: str,
    token: str,
    config: Path,
    *,
    hardware_id: str,
    name: str | None = None,
    within: Callable[..., list[str]] = lambda *argv: list(argv),
    environment: Mapping[str, str] | None = None,
) -> str:
    """Enrol the device of an agent's file with a registration token; its id.

    `within` makes the command one that runs elsewhere (a network namespace).
    """
    file = config.with_suffix(".token")
    file.write_text(token + "\n")
    file.chmod(0o600)
    argv = [sys.executable, "-m", "tunnel_agent", "enrol", gateway, "--token-file", str(file)]
    argv += ["--config", str(config), "--hardware-id", hardware_id]
    argv += [] if name is None else ["--name", name]
    said = run_command(within(*argv), environment, START_S)
    return said.split("enrolled as ")[1].split(";")[0]
