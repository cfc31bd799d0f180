"""A tunnel server that was taken over, against a real agent process: what it reaches and what it may cost."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from uuid import UUID, uuid4

from tests.hostile.raw_server import AgentProcess, RawPeer, RawServer, Target, attacked, open_frame
from tests.hostile.raw_tunnel import (
    DATA,
    GRANT,
    HELLO,
    OPENED,
    REFUSED,
    RESET,
    REVOKE,
    credit,
    field,
    frame,
    number,
)
from tests.hostile.scene import Bounds
from tests.tunnel_agent.authority import (
    DEVICE,
    KEY,
    OTHER_KEY,
    Authority,
    claims,
    grant_id,
    token,
)

OVERFLOW = 8
NO_GRANT, GRANT_INVALID, GRANT_EXPIRED, GRANT_REVOKED, UNKNOWN_SERVICE = 1, 2, 3, 4, 6
TOO_MANY_STREAMS = 8
MAX_STREAMS = 256  # of the agent's settings
# What an agent may grow by under attack: a message with the events of its frames, the ids of grants refused
# and revoked; with streams also 256 splices with a socket each, and 64 KiB for each that gets no credit.
FLOOD_MB, STREAMS_MB = 12.0, 16.0
LINES = 40  # 20 refusals of a connection, and its open and end


async def greeted(server: RawServer, hello: bytes = frame(HELLO)) -> RawPeer:
    peer = await server.peer()
    await peer.greet(hello)
    return peer


async def warmed(peer: RawPeer) -> bytes:
    """A grant with which one stream (id 1) was open: the loop's own files are open after it."""
    grant = await peer.grant()
    await peer.send(open_frame(1, grant))
    await peer.until_heard(OPENED)
    await peer.send(frame(RESET, bytes(2), 1))
    await peer.settled()
    peer.heard.clear()
    return grant


async def over(agent: AgentProcess, bounds: Bounds, *, mb: float) -> None:
    assert agent.process.poll() is None
    await bounds.check(mb=mb, lines=LINES)


def forged() -> tuple[bytes, bytes]:
    """Grant and key list of a gateway that this device never enrolled with."""
    body = claims(time.time())
    return grant_id(body), token(body, OTHER_KEY, kid=KEY.kid)


async def test_200_targets_and_only_what_was_granted_is_connected(tmp_path: Path) -> None:
    granted, secret = Target(), Target()
    others = [Target() for _ in range(30)]
    addresses = [await other.start() for other in others]
    async with attacked(tmp_path, web=granted, secret=secret) as (_, server):
        key_list = Authority(time.time()).key_list_text(99, [OTHER_KEY.jwk()])
        peer = await greeted(server, frame(HELLO, field(10, key_list)))
        genuine = await peer.grant()
        now = int(time.time())
        forged_id, forged_token = forged()
        await peer.send(frame(GRANT, forged_id + forged_token))
        wrong = [
            (forged_id, GRANT_INVALID),
            (await peer.grant(aud="d_other"), GRANT_INVALID),
            (await peer.grant(svc="secret", iat=now - 7200, exp=now - 3600), GRANT_EXPIRED),
            (await peer.grant(svc="ssh"), UNKNOWN_SERVICE),
            (uuid4().bytes, NO_GRANT),
            (bytes(16), NO_GRANT),
        ]
        revoked = await peer.grant(svc="secret")
        await peer.send(frame(REVOKE, revoked))
        wrong.append((revoked, GRANT_REVOKED))
        names = [b"web", b"secret", b"ssh", b"localhost", b"127-0-0-1", b"0", b"_", b"-", b"a" * 64]
        names += [address.replace(".", "-").replace(":", "_").encode() for address in addresses]
        asked = [
            (name, device, grant)
            for name in names
            for device in (DEVICE.encode(), b"d_other", b"child")
            for grant in [genuine, *(one for one, _ in wrong)]
            if (name, device, grant) != (b"web", DEVICE.encode(), genuine)
        ]
        assert len(asked) > 200
        for number_, (name, device, grant) in enumerate(asked):
            await peer.send(open_frame(2 * number_ + 1, grant, name, device))
        answers = await peer.until_heard(REFUSED, len(asked))
        codes = {int.from_bytes(payload[:2]) for _, payload in answers}
        assert codes <= {NO_GRANT, GRANT_INVALID, GRANT_EXPIRED, GRANT_REVOKED, UNKNOWN_SERVICE}
        for grant, code in wrong:
            service = b"ssh" if code == UNKNOWN_SERVICE else b"secret"
            place = asked.index((service, DEVICE.encode(), grant))
            assert dict(answers)[2 * place + 1][:2] == code.to_bytes(2), (UUID(bytes=grant), code)
        await peer.send(open_frame(2 * len(asked) + 1, genuine))
        await peer.until_heard(OPENED)
        assert (granted.connections, secret.connections) == (1, 0)
        assert [other.connections for other in others] == [0] * len(others)
    for other in others:
        other.close()


async def test_a_flood_of_grants_is_bounded(tmp_path: Path) -> None:
    async with attacked(tmp_path, web=Target()) as (agent, server):
        peer = await greeted(server)
        await warmed(peer)
        bounds = Bounds(agent)
        for number_ in range(20):
            junk = (frame(GRANT, (1_000 * number_ + n).to_bytes(16) + b"x" * 1_500) for n in range(1, 160))
            await peer.send(*junk)
        body = claims(time.time())
        for _ in range(300):
            await peer.send(*(frame(GRANT, grant_id(body) + token(body)) for _ in range(5)))
        for number_ in range(40):
            if not await peer.send(*(frame(REVOKE, (number_ << 64 | n).to_bytes(16)) for n in range(1_000))):
                break
        await peer.until(peer.ended.is_set)
        assert peer.goaway_code == OVERFLOW
        await greeted(server)  # it comes back
        await over(agent, bounds, mb=FLOOD_MB)


async def test_a_flood_of_opens_ends_at_max_streams(tmp_path: Path) -> None:
    target = Target()
    async with attacked(tmp_path, web=target) as (agent, server):
        peer = await greeted(server)
        grant = await warmed(peer)
        bounds = Bounds(agent)
        for start in range(3, 2_003, 100):
            await peer.send(*(open_frame(stream, grant) for stream in range(start, start + 100, 2)))
        await peer.until(lambda: len(peer.of(OPENED)) + len(peer.of(REFUSED)) == 1_000)
        codes = {int.from_bytes(payload[:2]) for _, payload in peer.of(REFUSED)}
        assert codes == {TOO_MANY_STREAMS}
        assert len(peer.of(OPENED)) <= MAX_STREAMS
        await target.until(lambda: target.connections == 1 + len(peer.of(OPENED)))
        await peer.send(*(frame(RESET, bytes(2), stream) for stream, _ in peer.of(OPENED)))
        await peer.settled()
        await target.until(lambda: not target.live)
        await over(agent, bounds, mb=STREAMS_MB)


async def test_resets_in_the_middle_of_uploads_close_every_local_connection(tmp_path: Path) -> None:
    target = Target()
    async with attacked(tmp_path, web=target) as (agent, server):
        peer = await greeted(server)
        grant = await warmed(peer)
        bounds = Bounds(agent)
        for turn in range(10):
            ids = range(100 * turn + 3, 100 * turn + 103, 2)
            for stream in ids:
                await peer.send(open_frame(stream, grant), frame(DATA, bytes(30_000), stream))
            if turn % 2:
                await peer.settled()
            await peer.send(*(frame(RESET, (1).to_bytes(2), stream) for stream in ids))
        await peer.settled()
        await target.until(lambda: not target.live)
        await over(agent, bounds, mb=STREAMS_MB)


async def test_a_server_that_gives_no_credit_costs_a_queue_a_stream(tmp_path: Path) -> None:
    target = Target(pushes=True)
    async with attacked(tmp_path, web=target) as (agent, server):
        peer = await greeted(server, frame(HELLO, number(3, 1) + number(4, 1)))
        grant = await peer.grant()
        bounds = Bounds(agent)
        await peer.send(*(open_frame(stream, grant) for stream in range(1, 201, 2)))
        await peer.until_heard(OPENED, 100)
        await peer.send(*(credit(0, 2) for _ in range(100)))
        await peer.until(lambda: peer.data_bytes == 2)
        await over_with_streams(agent, bounds, mb=STREAMS_MB)


async def over_with_streams(agent: AgentProcess, bounds: Bounds, *, mb: float) -> None:
    """Memory alone: the local connections are still there."""
    assert agent.process.poll() is None
    assert bounds.growth_mb <= mb
    bounds.stop()


async def test_a_server_that_does_not_read_costs_what_the_transport_holds(tmp_path: Path) -> None:
    target = Target(pushes=True)
    async with attacked(tmp_path, web=target) as (agent, server):
        peer = await greeted(server, frame(HELLO, number(3, 1 << 30) + number(4, 1 << 31)))
        grant = await peer.grant()
        bounds = Bounds(agent)
        peer.reads.clear()
        await peer.send(*(open_frame(stream, grant) for stream in range(1, 101, 2)))
        await target.until(lambda: target.connections == 50)
        await peer.send(credit(0, 1 << 40))
        await target.until_still()
        await over_with_streams(agent, bounds, mb=STREAMS_MB)
        peer.reads.set()


async def test_crumbs_for_a_service_that_does_not_answer_cost_what_they_carry(tmp_path: Path) -> None:
    """A full backlog: its connections hang, and what the server sends for them waits in the agent."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        host, port = deaf.getsockname()
        with socket.socket() as first:
            first.connect((host, port))
            server = RawServer()
            agent = AgentProcess(tmp_path, [await server.start()], {"web": f"{host}:{port}"})
            try:
                peer = await greeted(server)
                grant = await peer.grant()
                await peer.send(*(open_frame(stream, grant) for stream in range(1, 41, 2)))
                bounds = Bounds(agent)
                for stream in range(1, 41, 2):
                    for _ in range(10):
                        await peer.send(frame(DATA, b"x", stream) * 2_000)
                await peer.settled()
                await over_with_streams(agent, bounds, mb=FLOOD_MB)
            finally:
                await asyncio.to_thread(agent.stop)
                await server.close()
