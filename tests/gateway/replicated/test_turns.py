"""That the tests beside this one do meet both gateways, and both use Redis."""

from __future__ import annotations

from gateway.shortlived.in_redis import RedisShortLived
from tests.gateway.replicated.conftest import ReplicatedWorld
from tests.gateway.world import World


async def test_requests_take_turns(world: World) -> None:
    assert isinstance(world, ReplicatedWorld)
    person = world.program()
    for _ in range(6):
        assert (await person.get("/livez")).status_code == 200
    for one in (world.gateway, world.other):
        assert isinstance(one.parts.shortlived, RedisShortLived)
        text = one.registry.render().decode()
        assert 'towline_gateway_requests_total{listener="public",status="200"}' in text
