"""The single gateway's tests, with two, on each store."""

from __future__ import annotations

from testbed.redis_server import RedisServer
from tests.gateway.replicated.test_two_gateways import stores  # noqa: F401
from tests.gateway.test_write_limit import *  # noqa: F403
from tests.gateway.test_write_limit import leave, rename
from tests.gateway.world import World


async def test_a_flush_of_redis_gives_nobody_new_writes(world: World, redis_server: RedisServer) -> None:
    ann = await world.person("ann")
    device = await world.enrol(ann)
    await leave(world, ann, 0)
    assert redis_server.ask("FLUSHALL") == "+OK"
    assert (await rename(ann, device, "Anew")).status_code == 429
