"""The agent as a process: settings mistakes, memory, imports, signals, the supervisor's socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runtime.settings import SettingsError, from_table
from tests.tunnel_agent.conftest import Bench
from tunnel_agent import cli
from tunnel_agent.memory import clean_code
from tunnel_agent.settings import AgentSettings
from tunnel_agent.supervision import Supervisor

MAX_RSS = 40 << 20  # the bound, with the tunnel alone
GOOD = {"state_dir": "state", "services": {"web": {"address": "127.0.0.1:80"}}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"services": {}}, "services"),
        ({"services": {"Web": {"address": "127.0.0.1:80"}}}, "services"),
        ({"services": {"a=b;host=x": {"address": "127.0.0.1:80"}}}, "services"),
        ({"services": {"web": {"address": "127.0.0.1"}}}, "services.web.address"),
        ({"services": {"web": {"address": "127.0.0.1:0"}}}, "services.web.address"),
        ({"services": {"web": {"address": "127.0.0.1:80", "kind": "udp"}}}, "services.web.kind"),
        ({"services": {"web": {"address": "127.0.0.1:80", "host": "other"}}}, "services.web.host"),
        ({"services": {"web": {"adress": "127.0.0.1:80"}}}, "services.web.adress"),
        ({"server_urls": ["ws://tunnel.example/tunnel"]}, "server_urls"),
        ({"server_urls": ["wss://tunnel.example/tunnel?token=x"]}, "server_urls"),
        ({"server_urls": "wss://tunnel.example/tunnel"}, "server_urls"),
        ({"connections": 0}, "connections"),
        ({"limits": {"max_frame": 100}}, "limits.max_frame"),
        ({"log_level": "loud"}, "log_level"),
        ({"tokn": 1}, "tokn"),
    ],
)
def test_a_mistake_names_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{field}\b"):
        from_table(AgentSettings, GOOD | change, source=Path("agent.toml"))


def test_the_defaults_are_complete() -> None:
    settings = from_table(AgentSettings, GOOD, source=Path("/etc/towline/agent.toml"))
    assert settings.state_dir == Path("/etc/towline/state")
    assert settings.connections == 2


def test_a_device_that_is_not_enrolled_exits_2_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('state_dir = "state"\n[services.web]\naddress = "127.0.0.1:80"\n')
    assert cli.main(["--config", str(config)]) == 2
    assert "state_dir: " in capsys.readouterr().err
    assert cli.main(["--config", str(tmp_path / "none.toml")]) == 2


def _write_config(bench: Bench, url: str) -> Path:
    config = bench.store.directory.parent / "agent.toml"
    config.write_text(
        f'state_dir = "state"\nserver_urls = ["{url}"]\n[services.web]\naddress = "127.0.0.1:80"\n'
    )
    return config


async def test_the_process_is_small_light_and_stops_when_told(bench: Bench) -> None:
    node, url = await bench.node()
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = bench.store.directory.parent / "notify"
    notify.bind(str(path))
    notify.setblocking(False)
    environment = os.environ | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
    environment.pop("WATCHDOG_PID", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tunnel_agent",
        "--config",
        str(_write_config(bench, url)),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await node.until_ready(2)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            states = [(await loop.run_in_executor(None, _receive, notify)) for _ in range(3)]
        assert any(state.startswith("READY=1") for state in states)
        assert "WATCHDOG=1" in states
        assert psutil.Process(process.pid).memory_info().rss <= MAX_RSS
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        notify.close()
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events[0] == "agent started"
    assert events[-1] == "agent stopped"


def _receive(notify: socket.socket) -> str:
    notify.settimeout(5)
    return notify.recv(1000).decode()


def test_no_web_framework_comes_along() -> None:
    code = "import sys, tunnel_agent.app, tunnel_agent.cli; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    modules = set(out.split())
    assert not {"httpx", "fastapi", "requests", "pydantic", "starlette", "h11", "http.client"} & modules


def test_without_a_supervisor_nothing_is_said() -> None:
    supervisor = Supervisor({})
    supervisor.tell("READY=1")
    assert supervisor.watchdog_s is None
    supervisor.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_for_this_process(environment: dict[str, str], expected: float | None) -> None:
    assert Supervisor(environment).watchdog_s == expected


SMAPS = """\
1000-3000 r-xp 00000000 08:01 7                          /lib/clean.so
Rss:                   8 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
3000-4000 r-xp 00000000 08:01 8                          /lib/with relocations.so
Rss:                   4 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
4000-5000 r--p 00000000 08:01 7                          /lib/clean.so
Private_Dirty:         0 kB
5000-6000 r-xp 00000000 00:00 0                          [vdso]
Private_Dirty:         0 kB
6000-7000 r-xp 00000000 00:00 0
Private_Dirty:         0 kB
7000-8000 rwxp 00000000 08:01 9                          /lib/odd.so
Private_Dirty:         0 kB
8000-9000 r-xp 00000000 08:01 9                          /lib/last.so
Private_Dirty:         0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
"""


def test_only_code_that_was_never_written_is_given_back() -> None:
    assert list(clean_code(SMAPS)) == [(0x1000, 0x3000), (0x8000, 0x9000)]
