"""The agent as a process with its message side: killed, bounded, and never a danger to the tunnels."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import psutil
import pytest

from device_protocol.topics import Kind
from testbed.mosquitto import Mosquitto
from testbed.processes import ROOT
from tests.tunnel_agent.conftest import Bench
from tests.tunnel_agent.messages.device import Gateway, enrolled
from tests.tunnel_agent.messages.making import opened, told, waiting
from tests.tunnel_agent.messages.pipeline import Pipeline
from tests.tunnel_agent.test_tunnels import echo
from tunnel_agent.messages import side

MAX_RSS = 55 << 20  # the bound, with both sides

# Stores events as fast as the disk takes them and says which are in; starts where the last one ended.
_WRITER = """
import sys
from pathlib import Path
from tests.tunnel_agent.messages.making import begun, event, told, waiting
outbox = begun(Path(sys.argv[1]), 1 << 20)
n = 1 + max([told(entry) for entry in waiting(outbox)], default=0)
while True:
    outbox.store([event(n, 500), event(n + 1, 500)])
    print(n + 1, flush=True)
    n += 2
"""


def test_kill_9_at_any_moment_loses_nothing_that_is_in(tmp_path: Path) -> None:
    random, last = Random(5), 0
    for boot in range(1, 7):
        command = [sys.executable, "-c", _WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            for _ in range(random.randint(1, 25)):
                last = int(process.stdout.readline())
            process.kill()
            last = max(last, *map(int, process.stdout.read().split()), 0)
        entries = waiting(opened(tmp_path, 1 << 20))
        found = [told(entry) for entry in entries]
        # At most what was on its way when it was killed is in beside what was told to be.
        assert found in (list(range(1, last + 1)), list(range(1, last + 3)))
        numbers = [entry.number for entry in entries]
        assert numbers == sorted(set(numbers))
        assert boot <= numbers[-1].boot
        last = found[-1]


@asynccontextmanager
async def agent(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    log = config.with_suffix(".log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunnel_agent", "--config", str(config), stderr=log
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        log.close()


def configured(folder: Path, url: str) -> Path:
    config = folder / "agent.toml"
    values = "import time; print(f'{{\"second\":{int(time.time())}}}')"
    config.write_text(
        f'state_dir = "state"\nserver_urls = ["{url}"]\n[services.web]\naddress = "127.0.0.1:80"\n'
        "[messages]\nenabled = true\nhealth_every_s = 1\n"
        f"[messages.sources.clock]\nexec = ['{sys.executable}', '-c', '''{values}''']\n"
        "sample_s = 0.5\nreport_s = 1\n"
    )
    return config


def _reports(pipeline: Pipeline, boot: int) -> int:
    return sum(envelope.number.boot == boot for envelope in pipeline.of(Kind.TELEMETRY))


async def test_both_sides_in_one_small_process_that_may_be_killed(
    mosquitto: Mosquitto, gateway: Gateway, pipeline: Pipeline, bench: Bench, tmp_path: Path
) -> None:
    identity = enrolled(mosquitto, gateway, tmp_path / "state")
    node, url = await bench.node()
    node.device_key = identity.key._private.public_key()
    config = configured(tmp_path, url)
    for boot in (1, 2, 3):
        async with agent(config) as process:
            await pipeline.until(partial(_reports, pipeline, boot))
            await node.until_ready(1)
            assert (await pipeline.answer(pipeline.send("ping"))).ok
            assert psutil.Process(process.pid).memory_info().rss <= MAX_RSS
            process.send_signal(signal.SIGKILL if boot < 3 else signal.SIGTERM)
            async with asyncio.timeout(10):
                code = await process.wait()
    assert code == 0
    numbers = pipeline.numbers()
    assert {number.boot for number in numbers} == {1, 2, 3}
    for before, after in pairwise(numbers):
        # In line, and within a boot without a gap: nothing that was said went missing.
        assert after == (before.boot, before.seq + 1) or after == (before.boot + 1, 1)
    assert all(b'"second":{"n":' in raw for raw in pipeline.raw if b'"type":"clock"' in raw)


async def test_whatever_breaks_there_tunnels_stay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    async def broken(self: side.MessageSide) -> None:
        runs.append("again")
        raise RuntimeError("as the test wants")

    monkeypatch.setattr(side.MessageSide, "_run_once", broken)
    monkeypatch.setattr(side, "AGAIN_FIRST_S", 0.01)
    _, address = await bench.service(echo)
    node, url = await bench.node()
    made = await bench.agent([url], {"web": address}, messages={"enabled": True})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.until_heard("accepted")
    async with asyncio.timeout(10):
        while len(runs) < 4:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert made.failed_checks() == ["messages stopped: as the test wants"]
    visitor.send(b"still there")
    assert await visitor.until_received(11) == b"still there"
    assert len(node.tunnels) == 1


async def test_two_agents_do_not_share_an_outbox(bench: Bench) -> None:
    node, url = await bench.node()
    first = await bench.agent([url], {"web": "127.0.0.1:80"}, messages={"enabled": True})
    await node.until_ready()
    second = await bench.agent([url], {"web": "127.0.0.1:80"}, messages={"enabled": True})
    async with asyncio.timeout(10):
        while not any("messages" in check for check in second.failed_checks()):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
    assert not any("messages" in check for check in first.failed_checks())


async def test_an_agent_without_it_has_nothing_of_it(bench: Bench) -> None:
    made = await bench.agent(["ws://127.0.0.1:1/tunnel"], {"web": "127.0.0.1:80"})
    assert b"outbox" not in made.registry.render()
    assert not (bench.store.directory / "messages").exists()


def test_the_tunnel_alone_loads_no_mqtt() -> None:
    code = "import sys, tunnel_agent.app, tunnel_agent.cli; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT
    ).stdout
    assert not {"gmqtt", "runtime.mqtt_link", "tunnel_agent.messages.side"} & set(out.split())
