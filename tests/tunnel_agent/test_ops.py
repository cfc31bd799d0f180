"""What an operator sees of an agent."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from uuid import uuid4

import psutil

from tests.tunnel_agent.conftest import Bench
from tests.tunnel_agent.node import WAIT_S
from tests.tunnel_agent.test_process import MAX_RSS
from tests.tunnel_agent.test_tunnels import echo
from tunnel_agent.app import Agent
from tunnel_protocol import CloseCode


def sample(agent: Agent, name: str) -> float:
    """The value of one sample, labels included in the name."""
    lines = agent.registry.render().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


async def test_grants_and_streams_are_counted_by_what_became_of_them(bench: Bench) -> None:
    _, address = await bench.service(echo)
    node, url = await bench.node()
    agent = await bench.agent([url], {"web": address, "dead": "127.0.0.1:1"})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.until_heard("accepted")
    await tunnel.open(bench.grant(tunnel, svc="dead"), "dead").until_heard("refused UNREACHABLE")
    await tunnel.open(uuid4().bytes).until_heard("refused NO_GRANT")
    expired = bench.grant(tunnel, iat=1, exp=2)
    await tunnel.open(expired).until_heard("refused GRANT_EXPIRED")
    assert sample(agent, "towline_agent_tunnels") == 1
    assert sample(agent, "towline_agent_tunnels_opened_total") == 1
    assert sample(agent, "towline_agent_streams") == 1
    assert sample(agent, "towline_agent_streams_opened_total") == 2
    assert sample(agent, "towline_agent_grants") == 2
    assert sample(agent, 'towline_agent_grants_total{result="accepted"}') == 2
    assert sample(agent, 'towline_agent_grants_total{result="grant_expired"}') == 1
    for code in ("unreachable", "no_grant", "grant_expired"):
        assert sample(agent, f'towline_agent_streams_refused_total{{code="{code}"}}') == 1


async def test_ends_of_tunnels_are_counted(bench: Bench) -> None:
    node, url = await bench.node()
    agent = await bench.agent([url], {"web": "127.0.0.1:80"})
    (await node.until_ready())[0].connection.close(CloseCode.TRY_LATER, "as the test wants", 1)
    await node.until(lambda: len(node.tunnels) == 2)
    await node.until_ready()
    assert sample(agent, 'towline_agent_tunnels_ended_total{ending="goaway"}') == 1
    assert sample(agent, "towline_agent_tunnels_opened_total") == 2


async def test_it_is_ready_while_somebody_can_reach_the_device(bench: Bench) -> None:
    node, url = await bench.node()
    node.turn_away = 503
    agent = await bench.agent([url], {"web": "127.0.0.1:80"})
    assert agent.failed_checks() == ["no tunnel is open"]
    node.turn_away = None
    await node.until_ready()
    assert agent.failed_checks() == []
    expired = replace(agent.identity.certificate, not_after=1)
    agent.identity = replace(agent.identity, certificate=expired)
    assert agent.failed_checks() == ["the device's certificate has expired"]


async def test_the_process_answers_operators_where_they_asked_for_it(bench: Bench) -> None:
    node, url = await bench.node()
    config = bench.store.directory.parent / "agent.toml"
    config.write_text(
        f'state_dir = "state"\nserver_urls = ["{url}"]\nops_listen = "127.0.0.1:0"\n'
        '[services.web]\naddress = "127.0.0.1:80"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunnel_agent", "--config", str(config), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(WAIT_S):
            opened = json.loads(await process.stderr.readline())
            await node.until_ready(2)
            assert (await _get(opened["address"], "/livez")).startswith(b"HTTP/1.1 200")
            assert (await _get(opened["address"], "/readyz")).startswith(b"HTTP/1.1 200")
            assert b"\ntowline_agent_tunnels 2\n" in await _get(opened["address"], "/metrics")
        assert psutil.Process(process.pid).memory_info().rss <= MAX_RSS
        process.terminate()
        async with asyncio.timeout(WAIT_S):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0


async def _get(address: str, path: str) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
