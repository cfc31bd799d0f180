"""A server that shows an agent old, forged and other devices' lists of grant keys."""

from __future__ import annotations

import time
from pathlib import Path

from tests.hostile.raw_server import AgentProcess, RawPeer, RawServer, Target, attacked, open_frame
from tests.hostile.raw_tunnel import GRANT, HELLO, OPENED, REFUSED, field, frame
from tests.tunnel_agent.authority import KEY, OTHER_KEY, Authority, GrantKey, claims, grant_id, token

GRANT_INVALID = 2
KEY_LIST = 10  # the field of HELLO


async def shown(server: RawServer, text: bytes) -> RawPeer:
    """The next connection, on which HELLO carried this list."""
    peer = await server.peer()
    await peer.greet(frame(HELLO, field(KEY_LIST, text)))
    await peer.settled()
    return peer


async def opens(peer: RawPeer, key: GrantKey, stream: int) -> bool:
    """Whether a grant by this key opens anything; if not, it is refused as no grant."""
    body = claims(time.time())
    heard = len(peer.of(OPENED)), len(peer.of(REFUSED))
    await peer.send(frame(GRANT, grant_id(body) + token(body, key)), open_frame(stream, grant_id(body)))
    await peer.until(lambda: (len(peer.of(OPENED)), len(peer.of(REFUSED))) != heard)
    if len(peer.of(OPENED)) > heard[0]:
        return True
    assert int.from_bytes(peer.of(REFUSED)[-1][1][:2]) == GRANT_INVALID
    return False


def stored(agent: AgentProcess) -> bytes:
    return (agent.state / "keylist.jws").read_bytes()


async def test_only_a_newer_list_of_the_pinned_root_counts(tmp_path: Path) -> None:
    async with attacked(tmp_path, hasty=True, web=Target()) as (agent, server):
        first = stored(agent)
        both = agent.authority.key_list_text(7, [KEY.jwk(), OTHER_KEY.jwk()])
        switched = agent.authority.key_list_text(8, [OTHER_KEY.jwk()])
        forged = Authority(time.time()).key_list_text(99, [KEY.jwk()])
        same = agent.authority.key_list_text(8, [KEY.jwk()])
        peer = await shown(server, both)
        assert [await opens(peer, key, stream) for key, stream in ((KEY, 1), (OTHER_KEY, 3))] == [True, True]
        await peer.close()
        for text in (switched, first, both, forged, same, b"junk", switched):
            peer = await shown(server, text)
            assert not await opens(peer, KEY, 1), text[:40]
            assert await opens(peer, OTHER_KEY, 3)
            await peer.close()
        assert stored(agent) == switched
        agent.kill()
        agent.start()
        peer = await shown(server, both)
        assert not await opens(peer, KEY, 1)
        events = [line["event"] for line in agent.lines()]
        assert events.count("a server sent an old key list") == 4
        assert events.count("a server sent a forged key list") == 2
