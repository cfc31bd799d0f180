"""The single gateway's tests, with two: what makes a world of its own has one gateway, as there."""

from __future__ import annotations

import asyncio

from gateway.general_limit import BURST_S
from tests.gateway.contract.test_repeats import *  # noqa: F403
from tests.gateway.world import World


async def test_one_client_cannot_take_the_whole_gateway(world: World) -> None:  # type: ignore[no-redef]
    """Each gateway bounds what one client takes from it: of both that is twice as much."""
    client, other = await world.person(), await world.person("other")
    of_both = 2 * world.settings.requests_per_login_s * BURST_S
    statuses = set()
    for _ in range(0, of_both, 50):
        answers = await asyncio.gather(*(client.get("/v1/devices") for _ in range(50)))
        statuses |= {answer.status_code for answer in answers}
    assert statuses <= {200, 429}
    refused = [await client.get("/v1/devices") for _ in range(2)]
    assert {(one.status_code, one.json().get("code")) for one in refused} == {(429, "too_many_requests")}
    assert (await other.get("/v1/devices")).status_code == 200
