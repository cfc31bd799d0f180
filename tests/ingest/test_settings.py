"""Settings that cannot work are told at the start, by their names; what can is the operator's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from device_protocol.envelope import MESSAGE_MAX, READ_MAX
from ingest.app import main
from ingest.policy.rates import Rates
from ingest.settings import Settings
from runtime.settings import SettingsError, from_table
from testbed.ops import ask
from testbed.ports import free_ports
from testbed.processes import Processes
from testbed.settings_tables import write_table
from testbed.waiting import eventually

START_S = 30.0
PLAIN = {"url": "mqtt://127.0.0.1:1883"}
KAFKA = {"kind": "kafka", "servers": ["127.0.0.1:9092"]}


def table(**changes: Any) -> dict[str, Any]:
    return {"ops_listen": "127.0.0.1:0", "broker": PLAIN, "log": KAFKA} | changes


def test_what_is_left_out_has_a_reason() -> None:
    settings = from_table(Settings, table(), source=Path("ingest.toml"))
    assert (settings.bridge, settings.bridges) == (0, 1)
    assert settings.bytes_max == 32 << 20
    assert (settings.broker.host, settings.broker.port, settings.broker.encrypted) == (
        "127.0.0.1",
        1883,
        False,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"broker": {"url": "http://127.0.0.1"}}, "broker.url"),
        ({"broker": {"url": "mqtt://broker.example:1883"}}, "broker.url"),
        ({"broker": {"url": "mqtts://broker.example"}}, "ca"),
        ({"broker": {"url": "mqtts://broker.example", "ca": "missing.pem"}}, "broker.ca"),
        ({"broker": PLAIN | {"certificate": __file__}}, "key"),
        ({"broker": PLAIN | {"password_file": __file__}}, "username"),
        ({"broker": PLAIN | {"keepalive_s": 0}}, "broker.keepalive_s"),
        ({"log": {"kind": "files"}}, "log.kind"),
        ({"log": {"kind": "kafka"}}, "servers"),
        ({"log": KAFKA | {"certificate": __file__, "key": __file__}}, "ca"),
        ({"log": {"kind": "gateway"}}, "gateway"),
        ({"bridge": 2, "bridges": 2}, "bridge"),
        ({"bytes_max": 10}, "bytes_max"),
        ({"accept_every_ms": 0}, "accept_every_ms"),
        ({"device_bytes_s": 4096}, "device_bytes_s times device_burst_s"),
        ({"device_bytes_s": 32767, "device_burst_s": 1.0}, "device_bytes_s times device_burst_s"),
        (
            {"embedded_broker": {"listen": "0.0.0.0:1883", "gateway_password_file": __file__}},
            "loopback",
        ),
        ({"embedded_broker": {"listen": "127.0.0.1:1883", "gateway_password_file": __file__}}, "gateway"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_work_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as error:
        from_table(Settings, table(**changes), source=Path("ingest.toml"))
    assert named in str(error.value)


@pytest.mark.parametrize("size", [MESSAGE_MAX, READ_MAX])  # legal, and one that becomes a dead letter
def test_the_least_rate_takes_the_largest_message(size: int) -> None:
    least = table(device_messages_s=1, device_bytes_s=READ_MAX, device_burst_s=1.0)
    config = from_table(Settings, least, source=Path("ingest.toml"))
    rates = Rates(config.device_messages_s, config.device_bytes_s, config.device_burst_s, 10)
    assert rates.takes("d", size, 0.0)
    assert rates.takes("d", size, 1.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"broker": {"url": "mqtts://localhost", "ca": "junk"}}, "broker.ca"),
        ({"log": KAFKA | {"ca": "junk"}}, "log.ca"),
    ],
)
async def test_files_that_are_none_are_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("no certificate\n")
    path = write_table(tmp_path / "ingest.toml", table(**changes))
    with pytest.raises(SettingsError) as error:
        await main(path)
    assert named in str(error.value)


def test_it_runs_while_broker_and_log_are_away_and_says_so(tmp_path: Path) -> None:
    ops, broker, log = free_ports(3)
    changes = {
        "ops_listen": f"127.0.0.1:{ops}",
        "broker": {"url": f"mqtt://127.0.0.1:{broker}"},
        "log": {"kind": "kafka", "servers": [f"127.0.0.1:{log}"]},
    }
    processes = Processes(tmp_path)
    path = write_table(tmp_path / "ingest.toml", table(**changes))
    processes.run("ingest", [sys.executable, "-m", "ingest", "--config", str(path)])
    try:
        answer = eventually("it answers", lambda: ask(ops, "/readyz"), START_S)
        assert (answer.status_code, answer.json()["failed"]) == (503, ["log", "broker"])
        assert ask(ops, "/livez").status_code == 200
        assert "towline_ingest_broker_connected 0" in ask(ops, "/metrics").text
        assert processes.stop("ingest") == 0
    finally:
        processes.close()
