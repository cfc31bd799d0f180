"""More devices beside the one of `towline up`: enrolled as a real one is, each with its own agent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.stack import CALL_TIMEOUT_S, ROOT, STOP_TIMEOUT_S, Stack, eventually


@contextmanager
def _running(argv: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _port_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


@dataclass(frozen=True, slots=True)
class Local:
    """A local service: where it listens, and further lines of its table in the agent's file."""

    port: int
    options: tuple[str, ...] = ()


def write_config(folder: Path, services: Mapping[str, Local]) -> None:
    """The agent's file in `folder`."""
    lines = ['state_dir = "state"']
    for name, service in services.items():
        lines += [f"[services.{name}]", f'address = "127.0.0.1:{service.port}"', *service.options]
    (folder / "agent.toml").write_text("\n".join(lines) + "\n")


def enrol(stack: Stack, folder: Path, name: str) -> None:
    """Enrol and approve the device whose agent's file lies in `folder`."""
    token = folder / "token"
    made = stack.cli("token", "--approve", "--name", name)
    assert made.returncode == 0, made.stderr
    token.write_text(made.stdout)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "towline", "agent", "enrol", stack.gateway, "--token-file", str(token)),
            *("--config", str(folder / "agent.toml"), "--name", name, "--hardware-id", f"test-{name}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=CALL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
        with _running([*demo, "--port-file", str(port_file)], folder / "demo.log"):
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
    with _running(argv, folder / "agent.log"):

        def online() -> str:
            rows = [line.split() for line in stack.cli("devices").stdout.splitlines()]
            return next((row[0] for row in rows if name in row and "online" in row), "")

        yield eventually(f"{name} is online", online)
