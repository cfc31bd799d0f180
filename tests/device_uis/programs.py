"""Real device UIs as processes: installed by scripts/device_uis.sh, each with a port and a folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx

from testbed.ports import free_ports
from testbed.processes import LOG_END, ROOT
from testbed.waiting import eventually

READY_S = 60.0  # the first start compiles what it imports; later ones take two seconds
STOP_S = 10.0


def installed(name: str) -> Path:
    """The folder of an installed UI; AssertionError with the way to get it where there is none."""
    folder = ROOT / "build" / "device-uis" / name
    assert (folder / ".installed").exists(), f"{name} is not installed: sh scripts/device_uis.sh"
    return folder


def node_path() -> str:
    """Node.js; AssertionError with the way to get it where there is none."""
    found = shutil.which("node")
    assert found is not None, "node is missing: apt-get install nodejs npm"
    return found


class Program:
    """One running UI. ``url`` is how a browser on the device itself would address it."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir()
        self.name = name
        self.folder = folder
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, argv: list[str], **environment: str) -> None:
        """Start it; `wait_ready` waits. Its home is its folder, so that it finds nobody's settings."""
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            **environment,
        }
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                cwd=self.folder,
                env=surroundings,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> Program:
        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            return httpx.get(self.url, trust_env=False, timeout=STOP_S).status_code < 500

        eventually(f"{self.name} answers", answers, READY_S)
        return self

    def logs(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-LOG_END:]

    def close(self) -> None:
        """End it and what it started (a terminal's shell)."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_S)
