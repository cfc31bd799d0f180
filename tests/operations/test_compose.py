"""The production parts of infra/compose.yaml, from their own files: each starts, and finds the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings as GatewaySettings
from ingest.settings import Settings as IngestSettings
from runtime.settings import from_table
from testbed.processes import ROOT, short_folder, started
from testbed.programs import program
from testbed.waiting import eventually
from tests.operations.one_machine import COMPOSE, INFRA, OneMachine, compose
from tunnel_server.settings import Settings as NodeSettings

# Eleven processes begin, one of them a virtual machine for Java: on a loaded machine that takes its time.
pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.database, pytest.mark.timeout(300)]

READY = {"gateway": 8084, "consumer": 8085, "node-a": 8086, "ingest-0": 8087, "ingest-1": 8088}
SETTINGS: dict[str, type[Any]] = {
    "gateway": GatewaySettings,
    "node-a": NodeSettings,
    "ingest-0": IngestSettings,
    "ingest-1": IngestSettings,
}
KEPT = (
    "gateway/admin-password",
    "gateway/database-url",
    "gateway/keys/device_ca.crt",
    "mosquitto/devices-ca.pem",
)


@pytest.fixture(scope="module")
def machine() -> Iterator[OneMachine]:
    with short_folder("compose-") as folder, started(OneMachine(folder)) as running:
        yield running


# Where an image has a folder of its own user's: a named volume gets its owner and rights from there. At a
# place that the image does not have it would be root's, and the service could not write.
OF_THE_IMAGES = {
    "postgres": "/var/lib/postgresql/data",
    "kafka": "/var/lib/kafka/data",  # apache/kafka
    "prometheus": "/prometheus",  # prom/prometheus
}


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((INFRA / f"compose/{name}.toml").read_text())


def with_files(value: Any, file: str) -> Any:
    """Files must be there when settings are read: any is."""
    if isinstance(value, dict):
        return {name: with_files(inner, file) for name, inner in value.items()}
    return file if isinstance(value, str) and value.startswith("/srv/towline/site/") else value


def test_compose_itself_takes_the_file() -> None:
    argv = [program("docker-compose", "docker-compose"), "-f", str(COMPOSE), "config", "-q"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_volumes_are_where_the_images_let_their_users_write() -> None:
    found = {
        name: place.split(":")
        for name, service in compose()["services"].items()
        for place in service.get("volumes", ())
        if not place.startswith((".", "/"))
    }
    assert found == {name: [name, folder] for name, folder in OF_THE_IMAGES.items()}
    properties = (INFRA / "kafka/server.properties").read_text()
    assert f"\nlog.dirs={OF_THE_IMAGES['kafka']}/" in properties
    assert (
        f"--storage.tsdb.path={OF_THE_IMAGES['prometheus']}" in compose()["services"]["prometheus"]["command"]
    )


def test_no_service_ends_with_another_ones_container() -> None:
    for name, service in compose()["services"].items():
        shared = [str(service.get(kind, "")) for kind in ("pid", "ipc", "network_mode")]
        assert not any(value.startswith(("service:", "container:")) for value in shared), name


@pytest.mark.parametrize("name", SETTINGS)
def test_each_services_settings_are_read_by_the_service(name: str) -> None:
    settings = from_table(SETTINGS[name], with_files(table(name), __file__), source=COMPOSE)
    assert isinstance(settings, SETTINGS[name])


def test_the_image_has_every_package_that_its_commands_need(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (\w+) \1$", (INFRA / "Containerfile").read_text(), re.MULTILINE)
    for package in copied:
        (tmp_path / package).symlink_to(ROOT / package)
    commands = [service.get("command", []) for service in compose()["services"].values()]
    modules = {command[2] for command in commands if command[:2] == ["python", "-m"]}
    assert modules == {"gateway", "ingest", "tunnel_server"}
    # `import a.__main__` runs nothing, and needs all that the command does.
    script = "; ".join(f"import {module}.__main__" for module in sorted(modules))
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; import gateway.consume, runtime; print(runtime.__file__)"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    ignored = (INFRA / "Containerfile.dockerignore").read_text().splitlines()
    assert {f"!{package}" for package in copied} == {line for line in ignored if re.fullmatch(r"!\w+", line)}


def test_all_parts_find_each_other(machine: OneMachine) -> None:
    for name, port in READY.items():
        machine.wait_ready(name, port)

    def targets() -> dict[str, str]:
        _, text = machine.get("prometheus", 9090, "/api/v1/targets")
        found = json.loads(text)["data"]["activeTargets"] if text else []
        return {target["labels"]["instance"]: target["health"] for target in found}

    wanted = {f"{name}:{port}": "up" for name, port in READY.items()}
    eventually("Prometheus scrapes all", lambda: targets() == wanted, 60)
    _, text = machine.get("prometheus", 9090, "/api/v1/rules")
    assert sum(len(group["rules"]) for group in json.loads(text)["data"]["groups"]) > 20
    for name in ("ingest-0", "ingest-1"):
        assert "towline_ingest_broker_connected 1" in machine.get(name, READY[name], "/metrics")[1]
    assert "towline_gateway_downlink_connected 1" in machine.get("gateway", READY["gateway"], "/metrics")[1]
    assert "towline_gateway_log_away 0" in machine.get("consumer", READY["consumer"], "/metrics")[1]


def test_the_runbooks_commands_are_in_the_containers(machine: OneMachine) -> None:
    """As they stand there; but for what names a device, or changes keys."""
    commands = re.findall(
        r"`docker compose exec (\S+) (python [^`]+)`", (ROOT / "docs/runbook.md").read_text()
    )
    assert len(commands) == 4
    for service, line in commands:
        words = line.split()
        if "DEVICE" in words or "rotate-keys" in words:
            words = [*words[:4], "--help"]
        assert machine.inside(service, words)
    machine.once("migrate")


def test_a_second_prepare_keeps_what_devices_and_people_know(machine: OneMachine) -> None:
    before = [(machine.folder / "site" / name).read_bytes() for name in KEPT]
    certificate = (machine.folder / "site/node-a/node.crt").read_bytes()
    machine.prepare()
    assert [(machine.folder / "site" / name).read_bytes() for name in KEPT] == before
    assert (machine.folder / "site/node-a/node.crt").read_bytes() != certificate
    parts = list((machine.folder / "site").iterdir())
    assert [path.name for path in parts if path.stat().st_mode & 0o077] == []
