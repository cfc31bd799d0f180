"""Settings, the command line, starting and stopping a real process, and the API page."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.__main__ import start
from gateway.api.app import ROUTERS, documented_routes
from gateway.internal.app import ROUTERS as INTERNAL_ROUTERS
from gateway.settings import Settings
from runtime.clock import FakeClock
from runtime.settings import SettingsError, describe, load
from testbed.ports import free_port
from tests.gateway.world import ADMIN_PASSWORD, World, settings_for

ROOT = Path(__file__).parents[2]
PROCESS_TIMEOUT_S = 30

GOOD = """
public_url = "http://localhost:8080"
public_listen = "127.0.0.1:0"
internal_listen = "127.0.0.1:0"
ops_listen = "127.0.0.1:0"
keys_dir = "keys"
agent_tunnel_urls = ["wss://localhost:8082/tunnel"]
tunnel_scheme = "http"
tunnel_port = 8081
database_url = "postgresql://nobody@127.0.0.1:1/none"
"""


@pytest.fixture(autouse=True)
def _kept_logging() -> Iterator[None]:
    """A process configures logging for itself; in here it must not outlive the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def changed(line: str) -> str:
    """GOOD with one setting replaced or added."""
    name = line.partition("=")[0].strip()
    kept = [old for old in GOOD.splitlines() if old.partition("=")[0].strip() != name]
    return "\n".join([*kept, line])


def test_good_settings(tmp_path: Path) -> None:
    settings = load(Settings, write(tmp_path, GOOD))
    assert settings.keys_dir == tmp_path / "keys"
    assert settings.session_url("x") == "http://x.localhost:8081/.towline/open"
    assert not settings.secure


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('public_url = "http://gateway.example.com"', "public_url"),
        ('public_url = "https://gateway.example.com/path"', "public_url"),
        ('public_url = "gateway"', "public_url"),
        ('public_url = "https://Gateway.example.com"', "public_url"),
        ('public_listen = "8080"', "public_listen"),
        ('device_mqtt_url = "mqtt://broker.example.com:1883"', "device_mqtt_url"),
        ('device_mqtt_url = "mqtts://broker.example.com/here"', "device_mqtt_url"),
        ('device_mqtt_url = "mqtts://me@broker.example.com:8883"', "device_mqtt_url"),
        ("session_duration_max_s = 999999", "session_duration_max_s"),
        ("link_ttl_s = 61", "link_ttl_s"),
        ('tunnel_domain = "tunnel.example.com"', "tunnel_scheme"),
        ('tunnel_domain = "a..b"', "tunnel_domain"),
        ("tunnel_port = 0", "tunnel_port"),
        ("agent_tunnel_urls = []", "agent_tunnel_urls"),
        ('agent_tunnel_urls = ["ws://tunnel.example.com/tunnel"]', "agent_tunnel_urls"),
        ('trusted_proxies = ["proxy"]', "trusted_proxies"),
        ('database_url_file = "db"', "database_url"),
        ("internal_names = []", "internal_names"),
        ("surplus = 1", "surplus"),
    ],
)
def test_a_wrong_setting_is_named_and_exits_2(
    tmp_path: Path, line: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, changed(line))
    with pytest.raises(SettingsError, match=named):
        load(Settings, path)
    assert start(["--config", str(path)]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ['public_url = "https://gateway.example.com"', 'public_listen = "0.0.0.0:8080"']
)
def test_the_welcome_login_is_for_loopback_alone(tmp_path: Path, line: str) -> None:
    text = changed(line) + '\nwelcome_secret_file = "w"'
    with pytest.raises(SettingsError, match="welcome_secret_file"):
        load(Settings, write(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('admin_password_file = "missing"', "admin_password_file"),
        ('welcome_secret_file = "empty"', "welcome_secret_file"),
        ('database_url = "mysql://x"', "database_url"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named(
    tmp_path: Path, line: str, named: str, capsys: pytest.CaptureFixture[str], keys_dir: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    assert start(["--config", str(write(tmp_path, changed(line)))]) == 2
    assert named in capsys.readouterr().err


def test_open_keys_are_refused(tmp_path: Path, keys_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (keys_dir / "device_root.pem").chmod(0o644)
    assert start(["--config", str(write(tmp_path, GOOD))]) == 2
    assert "device_root.pem" in capsys.readouterr().err


def test_every_setting_is_described() -> None:
    assert all(len(field.doc) > 10 for field in describe(Settings))


def test_node_certificates_by_command(tmp_path: Path, keys_dir: Path) -> None:
    config, out = write(tmp_path, GOOD), tmp_path / "node"
    arguments = ["issue-node-certificate", "node-a", "--config", str(config), "--out", str(out)]
    assert start([*arguments, "--san", "tunnel.example.com", "192.0.2.7"]) == 0
    assert {"node.crt", "node.key", "agents.crt", "agents.key", "server_ca.crt", "internal_ca.crt"} <= {
        path.name for path in out.iterdir()
    }
    arguments[1] = "Not A Name"
    assert start([*arguments, "--san", "x"]) == 2


def test_a_process_serves_and_ends_on_sigterm(tmp_path: Path, database_url: str, keys_dir: Path) -> None:
    (tmp_path / "db").write_text(database_url)
    (tmp_path / "admin").write_text(ADMIN_PASSWORD)
    text = re.sub(r"database_url = .*", 'database_url_file = "db"\nadmin_password_file = "admin"', GOOD)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "--config", str(write(tmp_path, text))],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"listening"' in line:
                break
        found = re.search(r'"public": "([\d.:]+)"', lines[-1])
        assert found is not None
        assert urllib.request.urlopen(f"http://{found[1]}/livez", timeout=PROCESS_TIMEOUT_S).status == 200
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=PROCESS_TIMEOUT_S)[1]
        assert process.returncode == 0, "".join(lines) + rest
    finally:
        process.kill()
        process.communicate()
    log = "".join(lines) + rest
    assert ADMIN_PASSWORD not in log
    assert database_url not in log
    assert all(line.startswith("{") for line in log.splitlines()), log


def test_every_page_and_every_internal_route_is_documented() -> None:
    """The other public routes are in the generated reference: tests/gateway/contract."""
    page = (ROOT / "docs/internal-api.md").read_text()
    existing = {
        (method, route.path)
        for router in (*ROUTERS, *(router for router, _ in INTERNAL_ROUTERS))
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    documented = set(re.findall(r"^### `(GET|POST|DELETE|PUT|PATCH) (/\S*)`", page, re.MULTILINE))
    public = {(method, route.path) for route in documented_routes() for method in route.methods or ()}
    assert len(existing - public) > 15
    assert existing - public - documented == set()
    # The operators' listener's.
    assert documented - existing == {("GET", "/metrics")}
    for section in page.split("\n### ")[1:]:
        assert "curl" in section or "Page:" in section, section.splitlines()[0]


@pytest.mark.parametrize("command", [[], ["audit", "verify"]])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:se/cret@localhost:1/db", "no URL like postgresql://"),
        ("postgresql://u:secret@[::1/db", "no URL like postgresql://"),
        ("postgresql://u:secret@a:1,b:x/db", "no URL like postgresql://"),
        ("postgresql://u:secret@localhost:1/db?sslmode=sometimes", "`sslmode` parameter must be one of"),
        ("mysql://u:secret@localhost/db", "must hold a postgresql:// URL"),
    ],
)
def test_a_database_url_that_cannot_be_read_is_one_line_and_exit_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], url: str, said: str, command: list[str]
) -> None:
    (tmp_path / "url").write_text(url + "\n")
    text = GOOD.replace('database_url = "postgresql://nobody@127.0.0.1:1/none"', 'database_url_file = "url"')
    assert start([*command, "--config", str(write(tmp_path, text))]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    assert lines[0].partition(": ")[2].startswith("database_url_file: ")
    assert said in lines[0]
    assert "cret" not in lines[0]


async def test_nobody_is_told_that_it_is_ready_before_people_are_let_in(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may be prepared long before the public listener is: on a machine that is busy."""
    ops = f"127.0.0.1:{free_port()}"
    world = World(settings_for(tmp_path, database_url, keys_dir, ops_listen=ops), clock, tmp_path)
    listen = world.gateway._public.start
    held = asyncio.Event()

    async def late() -> None:
        await world.prepared()
        held.set()
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://{ops}/readyz")
        await listen()

    monkeypatch.setattr(world.gateway._public, "start", late)
    try:
        await world.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://{ops}/livez")).status_code == 200
    finally:
        await world.close()
    assert held.is_set()
