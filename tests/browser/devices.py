"""More devices beside the one of `towline up`: enrolled as a real one is, each with its own agent."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.processes import ROOT
from testbed.programs import running
from testbed.services import enrol as enrol_device
from testbed.settings_tables import agent_table, write_table
from testbed.up import Stack
from testbed.waiting import eventually


def _port_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


@dataclass(frozen=True, slots=True)
class Local:
    """A local service: where it listens, and further lines of its table in the agent's file."""

    port: int
    options: tuple[str, ...] = ()


def write_config(folder: Path, services: Mapping[str, Local]) -> None:
    """The agent's file in `folder`."""
    tables = {
        name: {"address": f"127.0.0.1:{service.port}"} | tomllib.loads("\n".join(service.options))
        for name, service in services.items()
    }
    write_table(folder / "agent.toml", agent_table("state", tables))


def enrol(stack: Stack, folder: Path, name: str) -> None:
    """Enrol and approve the device whose agent's file lies in `folder`."""
    made = stack.cli("token", "--approve", "--name", name)
    assert made.returncode == 0, made.stderr
    config, hardware = folder / "agent.toml", f"test-{name}"
    enrol_device(stack.gateway, made.stdout.strip(), config, name=name, hardware_id=hardware)


@contextmanager
def device(stack: Stack, folder: Path, name: str, *, port: int | None = None) -> Iterator[str]:
    """A running device; its id. Its web service is at `port`, else a demo page of its own."""
    folder.mkdir()
    if port is None:
        port_file = folder / "port"
        demo = [
            sys.executable,
            "-m",
            "demo_device",
            "--listen",
            "127.0.0.1:0",
            "--data",
            str(folder / "files"),
        ]
        with running([*demo, "--port-file", str(port_file)], log=folder / "demo.log", cwd=ROOT):
            own = eventually("the demo page listens", lambda: _port_in(port_file))
            with device_at(stack, folder, name, own) as identity:
                yield identity
    else:
        with device_at(stack, folder, name, port) as identity:
            yield identity


@contextmanager
def device_at(
    stack: Stack, folder: Path, name: str, port: int, more: Mapping[str, Local] | None = None
) -> Iterator[str]:
    """A device in `folder` whose web service is at `port`, with `more` services beside it; its id."""
    write_config(folder, {"web": Local(port), **(more or {})})
    enrol(stack, folder, name)
    with agent(stack, folder, name) as identity:
        yield identity


@contextmanager
def agent(stack: Stack, folder: Path, name: str) -> Iterator[str]:
    """The agent of the device that was enrolled in `folder`, once it is online; the device's id."""
    argv = [sys.executable, "-m", "towline", "agent", "--config", str(folder / "agent.toml")]
    with running(argv, log=folder / "agent.log", cwd=ROOT):

        def online() -> str:
            rows = [line.split() for line in stack.cli("devices").stdout.splitlines()]
            return next((row[0] for row in rows if name in row and "online" in row), "")

        yield eventually(f"{name} is online", online)
