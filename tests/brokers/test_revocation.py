"""A revoked certificate at a real Mosquitto: its connection ends in two seconds, and none comes in again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingest.brokers.mosquitto import ListError, MosquittoDoors
from ingest.settings import Settings
from runtime.clock import SYSTEM_CLOCK
from runtime.internal_http import GatewayUnavailable
from runtime.mqtt_link import MqttGoneError, MqttLink, MqttOptions
from runtime.settings import SettingsError, from_table
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.brokers.test_keeper import GOAL_S, Feed, _keeping
from tests.mqtt_link.clients import WAIT_S, Clients, topic


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """One of each test's own: its list changes."""
    with short_folder("revoked") as folder, started(Mosquitto(folder)) as server:
        yield server


@pytest.fixture
async def clients(mosquitto: Mosquitto) -> AsyncIterator[Clients]:
    async with Clients(mosquitto) as made:
        yield made


@dataclass
class Lists:
    """In the gateway's place: signs what is revoked, or gives something else instead."""

    mosquitto: Mosquitto
    revoked: list[int] = field(default_factory=list)
    instead: bytes | None = None

    async def fetch(self) -> bytes:
        return self.mosquitto.revocations(*self.revoked) if self.instead is None else self.instead


def doors(mosquitto: Mosquitto, lists: Lists, *, told: bool = True) -> MosquittoDoors:
    tls = mosquitto.service("keeper")
    return MosquittoDoors(
        lists.fetch,
        crl_file=mosquitto.crl,
        pid_file=mosquitto.pid_file if told else None,
        options=lambda: MqttOptions("127.0.0.1", mosquitto.internal_port, "keeper", tls=tls),
        clock=SYSTEM_CLOCK,
    )


async def _refused(options: MqttOptions) -> None:
    """Mosquitto reads its list a moment after the signal."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await (await MqttLink.connect(options, print)).close()
            except MqttGoneError:
                return


@pytest.mark.parametrize("version", [4, 5])
async def test_a_revoked_device_leaves_within_two_seconds_and_stays_out(
    mosquitto: Mosquitto, clients: Clients, version: int
) -> None:
    lists, feed = Lists(mosquitto), Feed()
    issued = mosquitto.issue_device("d_a")
    options = MqttOptions(
        "127.0.0.1", mosquitto.port, "d_a", tls=mosquitto.context(issued), version=4 if version == 4 else 5
    )
    device, other = await clients.connect(options), await clients.device("d_b")
    bridge = await clients.bridge()
    async with _keeping(feed, doors(mosquitto, lists)):
        lists.revoked.append(issued.certificate.serial_number)
        feed.revoke("d_a")
        assert await asyncio.wait_for(device.link.wait_closed(), GOAL_S)
        await _refused(options)
    assert await other.link.publish(topic("d_b"), b"still here") == 0
    await bridge.wait_count(1)
    again = await clients.device("d_b")  # and others come in as before
    assert again.link.reason == ""
    fresh = await clients.device("d_a")  # another certificate of the same device is not on the list
    assert fresh.link.reason == ""


async def test_one_device_that_the_broker_knows_not_keeps_no_other_in(
    mosquitto: Mosquitto, clients: Clients
) -> None:
    """A client id beyond what Mosquitto takes, as of an id that is none."""
    odd = "d_" + "x" * 65_000
    device = await clients.device("d_a")
    shut = doors(mosquitto, Lists(mosquitto))
    assert await shut.shut_out([odd, "d_a"]) == [odd]
    assert await asyncio.wait_for(device.link.wait_closed(), WAIT_S)


@pytest.mark.parametrize("broken", [b"", b"no list", b"expired", b"soon"])
async def test_a_list_that_would_open_or_shut_everything_is_not_put_in_place(
    mosquitto: Mosquitto, clients: Clients, broken: bytes
) -> None:
    lists = Lists(mosquitto)
    issued = mosquitto.issue_device("d_a")
    options = MqttOptions("127.0.0.1", mosquitto.port, "d_a", tls=mosquitto.context(issued))
    lists.revoked.append(issued.certificate.serial_number)
    shut = doors(mosquitto, lists)
    await shut.shut_out(["d_a"])
    await _refused(options)
    before = mosquitto.crl.read_bytes()
    lists.instead = {
        b"expired": mosquitto.revocations(next_update_s=-60),
        b"soon": mosquitto.revocations(next_update_s=3600),
    }.get(broken, broken)
    with pytest.raises(ListError):
        await shut.refresh()
    assert mosquitto.crl.read_bytes() == before
    assert [path.name for path in mosquitto.folder.glob(".*")] == []
    await _refused(options)
    assert (await clients.device("d_b")).link.reason == ""


async def test_what_a_broken_list_would_do(mosquitto: Mosquitto) -> None:
    """Why the list is read before Mosquitto reads it; this fails when a newer one shuts instead."""
    lists = Lists(mosquitto)
    issued = mosquitto.issue_device("d_a")
    options = MqttOptions("127.0.0.1", mosquitto.port, "d_a", tls=mosquitto.context(issued))
    lists.revoked.append(issued.certificate.serial_number)
    shut = doors(mosquitto, lists)
    await shut.refresh()
    await _refused(options)
    mosquitto.crl.write_bytes(b"")
    shut._tell_broker()
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await (await MqttLink.connect(options, print)).close()
                break
            except MqttGoneError:
                continue


async def test_a_broker_that_follows_its_list_need_not_be_told() -> None:
    """The keeper is in another container: two seconds all the same, also for who comes again at once."""
    with short_folder("follows") as folder, started(Mosquitto(folder, follows=True)) as broker:
        async with Clients(broker) as clients:
            lists, feed = Lists(broker), Feed()
            issued = broker.issue_device("d_a")
            options = MqttOptions("127.0.0.1", broker.port, "d_a", tls=broker.context(issued))
            device, other = await clients.connect(options), await clients.device("d_b")
            async with _keeping(feed, doors(broker, lists, told=False)), asyncio.timeout(GOAL_S):
                lists.revoked.append(issued.certificate.serial_number)
                feed.revoke("d_a")
                assert await device.link.wait_closed()
                await _refused(options)
            assert other.link.reason == ""


def test_a_broker_whose_list_nobody_watches_ends() -> None:
    """Else revoked devices stay, and after a week nobody comes in."""
    with short_folder("follows") as folder, started(Mosquitto(folder, follows=True)) as broker:
        own = Path(f"/proc/{broker.pid}")
        assert (own / "comm").read_text() == "mosquitto\n", "signals of a supervisor reach it"
        (watching,) = (own / f"task/{broker.pid}/children").read_text().split()
        os.kill(int(watching), signal.SIGTERM)
        eventually("it ended", lambda: (own / "stat").read_text().split()[2] == "Z")


async def test_a_broker_that_cannot_be_told_is_an_error(mosquitto: Mosquitto, tmp_path: Path) -> None:
    lists = Lists(mosquitto)
    shut = doors(mosquitto, lists)
    for text in ("", "0", "-1", "nobody", str(2**22 + 1)):
        mosquitto.pid_file.write_text(text)
        with pytest.raises(ListError):
            await shut.refresh()
    mosquitto.pid_file.unlink()
    with pytest.raises(ListError):
        await shut.shut_out(["d_a"])
    assert shut.refreshed_at is None


async def test_the_list_is_kept_fresh_also_when_the_gateway_was_away(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.brokers.mosquitto.RETRY_S", 0.01)
    monkeypatch.setattr("ingest.brokers.mosquitto.RENEW_S", 0.01)
    lists, enough = Lists(mosquitto), asyncio.Event()
    calls = 0

    async def fetch() -> bytes:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise GatewayUnavailable("away")
        if calls > 5:
            enough.set()
        return await lists.fetch()

    shut = doors(mosquitto, lists)
    shut._fetch = fetch
    task = asyncio.create_task(shut.run())
    await asyncio.wait_for(enough.wait(), WAIT_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert shut.refreshed_at is not None


@pytest.mark.parametrize("beside", [{}, {"embedded_broker": True, "gateway": True}])
def test_a_keeper_is_for_a_mosquitto_and_asks_the_gateway(tmp_path: Path, beside: dict[str, bool]) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    tables = {
        "embedded_broker": {"listen": "127.0.0.1:1883", "gateway_password_file": str(file)},
        "gateway": dict.fromkeys(("ca", "certificate", "key"), str(file)) | {"internal_url": "https://x"},
    }
    table = {
        "ops_listen": "127.0.0.1:0",
        "broker": {"url": "mqtt://127.0.0.1:1883"},
        "log": {"kind": "kafka", "servers": ["127.0.0.1:9092"]},
        "keeper": {"crl_file": str(file), "pid_file": str(file)},
    }
    with pytest.raises(SettingsError, match="keeper is for a Mosquitto"):
        from_table(Settings, table | {name: tables[name] for name in beside}, source=Path("ingest.toml"))
