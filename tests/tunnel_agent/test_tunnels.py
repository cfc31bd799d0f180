"""The agent against tunnel servers: handshake, grants in force, several connections, reconnecting,
stopping.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from runtime.tunnel_link import PAD
from tests.tunnel_agent.authority import DEVICE, KEY, OTHER_KEY, Authority, claims, grant_id, token
from tests.tunnel_agent.conftest import Bench
from tests.tunnel_agent.node import NodeTunnel
from tunnel_agent.policy.grants import LEEWAY_S
from tunnel_agent.policy.key_list import KeyList
from tunnel_protocol import CloseCode, ConnectionState, RefusedCode, Service


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


# Handshake


async def test_hello_tells_the_services_with_their_options(bench: Bench) -> None:
    node, url = await bench.node()
    services = {
        "web": {"address": "127.0.0.1:80"},
        "panel": {"address": "127.0.0.1:81", "host": "preserve", "forwarded_headers": True},
        "ssh": {"address": "127.0.0.1:22", "kind": "tcp"},
    }
    await bench.agent([url], services)
    hello = (await node.until_ready())[0].hello
    assert hello is not None
    assert hello.software.startswith("towline-agent/")
    assert hello.services == (
        Service("web", "web", "rewrite", False, "127.0.0.1:80"),
        Service("panel", "web", "preserve", True, "127.0.0.1:81"),
        Service("ssh", "tcp", "rewrite", False, ""),
    )


async def test_a_server_by_another_name_is_left(bench: Bench) -> None:
    node, url = await bench.node()
    node.name = "evil.example"
    await bench.agent([url], {"web": "127.0.0.1:80"})
    await node.until(lambda: node.tunnels and node.tunnels[0].lost)
    lost = node.tunnels[0].lost
    assert lost is not None
    assert lost.code is CloseCode.WRONG_SERVER_NAME
    assert not node.tunnels[0].instance  # it got no signature to relay


async def test_the_name_is_compared_without_case(bench: Bench) -> None:
    node, url = await bench.node()
    node.name = "LOCALHOST"
    await bench.agent([url.replace("127.0.0.1", "localhost")], {"web": "127.0.0.1:80"})
    await node.until_ready()


# Grants in force


async def test_two_connections_are_one_instance_and_share_revocations(bench: Bench) -> None:
    _, address = await bench.service(echo)
    node, url = await bench.node()
    await bench.agent([url], {"web": address}, connections=2)
    first, second = await node.until_ready(2)
    assert first.instance == second.instance
    body = claims(time.time())
    visitors = []
    for tunnel in (first, second):
        tunnel.connection.grant(grant_id(body), token(body))
        visitor = tunnel.open(grant_id(body))
        visitor.send(b"hello")
        await visitor.until_received(5)
        visitors.append(visitor)
    first.connection.revoke(grant_id(body))
    for visitor in visitors:
        await visitor.until_heard("reset GRANT_ENDED")
    again = second.open(grant_id(body))
    await again.until_heard("refused GRANT_REVOKED")


async def test_streams_end_with_their_grant_and_others_stay(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    now = int(time.time())
    ending = bench.grant(tunnel, iat=now - 3600, exp=now - LEEWAY_S + 2)
    lasting = bench.grant(tunnel)
    short, long = tunnel.open(ending), tunnel.open(lasting)
    for visitor in (short, long):
        visitor.send(b"x")
        await visitor.until_received(1)
    await short.until_heard("reset GRANT_ENDED")
    long.send(b"y")
    await long.until_received(2)


async def test_revocations_of_ids_that_nobody_granted_fill_no_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    tunnel = await bench.tunnel(echo)
    grant = bench.grant(tunnel)
    visitor = tunnel.open(grant)
    await visitor.until_heard("accepted")
    with caplog.at_level("INFO"):
        for number in range(50):
            tunnel.connection.revoke(number.to_bytes(16))
        tunnel.connection.revoke(grant)
        await visitor.until_heard("reset GRANT_ENDED")
    assert [record.getMessage() for record in caplog.records].count("grant ended") == 1


async def test_a_stream_that_is_being_connected_is_cut_by_revocation_too(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    grant = bench.grant(tunnel)
    visitor = tunnel.open(grant)
    tunnel.connection.revoke(grant)
    await visitor.until_heard("reset GRANT_ENDED")


async def test_a_hostile_server_reaches_nothing_but_what_was_granted(bench: Bench) -> None:
    """200 targets on this machine, all listening, are asked for in every way the protocol has."""
    targets = []
    for _ in range(20):
        service, address = await bench.service(echo)
        targets.append((service, address))
    secret, secret_address = await bench.service(echo)
    granted, granted_address = await bench.service(echo)
    node, url = await bench.node()
    await bench.agent([url], {"web": granted_address, "secret": secret_address})
    tunnel = (await node.until_ready())[0]
    forged, forger = claims(time.time()), Authority(time.time())
    tunnel.connection.grant(grant_id(forged), token(forged, OTHER_KEY))
    tunnel.connection.grant(grant_id(forged), token(forged, OTHER_KEY, kid=KEY.kid))
    node.key_list = forger.key_list_text(99, [OTHER_KEY.jwk()])
    genuine = bench.grant(tunnel)
    asked = 0
    visitors = []
    names = ["secret", "ssh", "web", "localhost", "a" * 64]
    names += [address.replace(".", "-").replace(":", "_") for _, address in targets]
    for name in names:
        for device in (DEVICE, "d_other"):
            for grant in (genuine, grant_id(forged), uuid4().bytes, bytes(16)):
                if (name, device, grant) != ("web", DEVICE, genuine):
                    visitors.append(tunnel.open(grant, name, device))
                    asked += 1
    assert asked >= 199
    for visitor in visitors:
        await visitor.until_heard("refused")
    allowed = tunnel.open(genuine)
    await allowed.until_heard("accepted")
    assert granted.connections == 1
    assert secret.connections == 0
    assert sum(service.connections for service, _ in targets) == 0
    assert {visitor.refusal for visitor in visitors} <= {
        RefusedCode.NO_GRANT,
        RefusedCode.GRANT_INVALID,
        RefusedCode.UNKNOWN_SERVICE,
    }


async def test_a_granted_service_that_is_not_configured_is_unknown(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    visitor = tunnel.open(bench.grant(tunnel, svc="ssh"), "ssh")
    await visitor.until_heard("refused UNKNOWN_SERVICE")


async def test_a_service_closed_to_support_takes_its_people_alone(bench: Bench) -> None:
    """The device's own no: whatever the gateway signed for somebody who acts for another."""
    _, address = await bench.service(echo)
    node, url = await bench.node()
    await bench.agent([url], {"web": {"address": address, "support": False}, "log": address})
    tunnel = (await node.until_ready())[0]
    acting = {"sub": str(uuid4())}
    refused = tunnel.open(bench.grant(tunnel, act=acting))
    await refused.until_heard("refused UNKNOWN_SERVICE")
    await tunnel.open(bench.grant(tunnel, jti=str(uuid4()), svc="log", act=acting), "log").until_heard(
        "accepted"
    )
    await tunnel.open(bench.grant(tunnel, jti=str(uuid4()))).until_heard("accepted")


async def test_an_open_without_any_grant_is_refused(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    visitor = tunnel.open(uuid4().bytes)
    await visitor.until_heard("refused NO_GRANT")


# Keys


async def _tunnel_after_key_list(bench: Bench, text: bytes) -> NodeTunnel:
    _, address = await bench.service(echo)
    node, url = await bench.node()
    node.key_list = text
    await bench.agent([url], {"web": address})
    return (await node.until_ready())[0]


async def test_a_newer_key_list_of_the_root_is_taken_and_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, loop = asyncio.Event(), asyncio.get_running_loop()
    save = bench.store.save_key_list

    def save_and_tell(key_list: KeyList) -> None:
        save(key_list)
        loop.call_soon_threadsafe(saved.set)

    monkeypatch.setattr(bench.store, "save_key_list", save_and_tell)
    text = bench.authority.key_list_text(2, [OTHER_KEY.jwk()])
    tunnel = await _tunnel_after_key_list(bench, text)
    body = claims(time.time())
    tunnel.connection.grant(grant_id(body), token(body, OTHER_KEY))
    visitor = tunnel.open(grant_id(body))
    await visitor.until_heard("accepted")
    old = claims(time.time())
    tunnel.connection.grant(grant_id(old), token(old, KEY))
    await tunnel.open(grant_id(old)).until_heard("refused GRANT_INVALID")
    async with asyncio.timeout(5):
        await saved.wait()
    assert (bench.store.directory / "keylist.jws").read_bytes() == text


@pytest.mark.parametrize("kind", ["lower", "forged", "garbage"])
async def test_an_old_or_forged_key_list_changes_nothing(bench: Bench, kind: str) -> None:
    bench.identity = bench.authority.identity(())
    text = {
        "lower": bench.authority.key_list_text(0, [OTHER_KEY.jwk()]),
        "forged": Authority(time.time()).key_list_text(9, [OTHER_KEY.jwk()]),
        "garbage": b"x.y.z",
    }[kind]
    tunnel = await _tunnel_after_key_list(bench, text)
    body = claims(time.time())
    tunnel.connection.grant(grant_id(body), token(body, OTHER_KEY))
    await tunnel.open(grant_id(body)).until_heard("refused GRANT_INVALID")
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.until_heard("accepted")


# Coming back


async def test_a_lost_link_is_dialled_again(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    tunnel.link.abort()  # type: ignore[union-attr]
    await tunnel.node.until(lambda: tunnel.lost)
    again = await tunnel.node.until_ready()
    assert again[0].instance == tunnel.instance


async def test_garbage_from_a_server_ends_the_tunnel_with_a_code_on_both_sides(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tunnel_agent")
    tunnel = await bench.tunnel(echo)
    assert tunnel.link is not None
    tunnel.link.send(bytearray(PAD + b"\xff" * 64))
    await tunnel.node.until(lambda: tunnel.lost)
    assert tunnel.lost is not None
    assert tunnel.lost.code is CloseCode.PROTOCOL_ERROR
    await tunnel.node.until_ready()
    said = next(record for record in caplog.records if record.getMessage() == "tunnel ended")
    assert said.__dict__["code"] == "protocol_error"


async def test_a_server_that_turns_away_is_tried_until_it_does_not(bench: Bench) -> None:
    node, url = await bench.node()
    node.turn_away = 503
    await bench.agent([url], {"web": "127.0.0.1:80"})
    await node.until(lambda: True)
    node.turn_away = None
    await node.until_ready()


async def test_a_draining_server_is_left_while_its_streams_finish(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    grant = bench.grant(tunnel)
    visitor = tunnel.open(grant)
    visitor.send(b"x")
    await visitor.until_received(1)
    tunnel.connection.drain(1, "the server restarts")
    await tunnel.node.until(lambda: len(tunnel.node.ready()) == 2)
    visitor.send(b"y")
    await visitor.until_received(2)
    visitor.finish()
    await tunnel.node.until(lambda: tunnel.lost)


async def test_a_draining_servers_streams_go_on_while_nobody_else_answers(bench: Bench) -> None:
    tunnel = await bench.tunnel(echo)
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"x")
    await visitor.until_received(1)
    tunnel.node.turn_away = 503  # as the only node of all does: it listens no more
    slept = len(bench.naps.seconds)
    tunnel.connection.drain(1, "the server restarts")
    await bench.naps.until(lambda: len(bench.naps.seconds) >= slept + 4)
    visitor.send(b"y")
    await visitor.until_received(2)
    visitor.finish()
    await tunnel.node.until(lambda: tunnel.lost)


async def test_every_server_gets_a_tunnel_also_beside_one_that_is_down(bench: Bench) -> None:
    first, first_url = await bench.node()
    second, second_url = await bench.node()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        third_url = f"ws://127.0.0.1:{nobody.getsockname()[1]}/tunnel"
    await bench.agent([first_url, third_url, second_url], {"web": "127.0.0.1:80"}, connections=2)
    await first.until_ready()
    await second.until_ready()


async def test_more_connections_than_servers_go_around(bench: Bench) -> None:
    first, first_url = await bench.node()
    second, second_url = await bench.node()
    await bench.agent([first_url, second_url], {"web": "127.0.0.1:80"}, connections=3)
    await first.until_ready(2)
    await second.until_ready(1)
    assert len(first.tunnels) == 2
    assert len(second.tunnels) == 1


async def test_a_server_that_a_renewal_brings_gets_a_tunnel(bench: Bench) -> None:
    first, first_url = await bench.node()
    second, second_url = await bench.node()
    bench.identity = replace(bench.identity, tunnel_urls=(first_url,))
    agent = await bench.agent([], {"web": "127.0.0.1:80"})
    await first.until_ready()
    agent._renewed(replace(agent.identity, tunnel_urls=(first_url, second_url)))
    await second.until_ready()
    assert len(first.ready()) == 1


@pytest.mark.parametrize("code", [CloseCode.REVOKED, CloseCode.REPLACED, CloseCode.AUTH_FAILED])
async def test_a_refused_device_says_why_and_stays_quiet(
    bench: Bench, code: CloseCode, caplog: pytest.LogCaptureFixture
) -> None:
    node, url = await bench.node()
    node.refuse_with = code
    await bench.agent([url], {"web": "127.0.0.1:80"})
    await node.until(lambda: node.tunnels and node.tunnels[0].lost)
    await bench.naps.until(lambda: bench.naps.seconds)
    assert bench.naps.seconds[0] >= 7
    assert len(node.tunnels) == 1
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert getattr(errors[0], "code") == code.name.lower()  # noqa: B009 - an extra of the record


# Stopping


async def test_stopping_lets_a_stream_finish(bench: Bench) -> None:
    _, address = await bench.service(echo)
    node, url = await bench.node()
    agent = await bench.agent([url], {"web": address})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    visitor.send(b"x")
    await visitor.until_received(1)
    stopping = asyncio.ensure_future(agent.close(5.0))
    await node.until(lambda: tunnel.connection.state is ConnectionState.DRAINING)
    visitor.send(b"y")
    await visitor.until_received(2)
    visitor.finish()
    await asyncio.wait_for(stopping, 4)
    assert "finished" in visitor.heard


async def test_stopping_does_not_wait_longer_than_told(bench: Bench) -> None:
    _, address = await bench.service(echo)
    node, url = await bench.node()
    agent = await bench.agent([url], {"web": address})
    tunnel = (await node.until_ready())[0]
    visitor = tunnel.open(bench.grant(tunnel))
    await visitor.until_heard("accepted")
    started = time.monotonic()
    await agent.close(0.2)
    assert time.monotonic() - started < 2
    await visitor.until_heard("lost")


async def test_an_idle_agent_stops_at_once(bench: Bench) -> None:
    node, url = await bench.node()
    agent = await bench.agent([url], {"web": "127.0.0.1:80"}, connections=2)
    await node.until_ready(2)
    started = time.monotonic()
    await agent.close(3.0)
    assert time.monotonic() - started < 1


async def test_an_agent_that_never_connected_stops_at_once(bench: Bench) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"ws://127.0.0.1:{deaf.getsockname()[1]}/tunnel"
        agent = await bench.agent([url], {"web": "127.0.0.1:80"})
        await asyncio.sleep(0)
        started = time.monotonic()
        await agent.close(3.0)
        assert time.monotonic() - started < 1
