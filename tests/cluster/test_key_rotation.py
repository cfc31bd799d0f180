"""Grant keys are rotated as the runbook says, with a gateway, nodes and agents that run; nobody notices."""

from __future__ import annotations

import asyncio
import base64
import json
from asyncio import to_thread
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.keys.files import write_private
from gateway.keys.signing import RSA_BITS, private_pem
from testbed.people import Visitor, entered
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.cluster.cluster import Cluster
from tests.cluster.load import Load
from towline.errors import TowlineError

SIGNS_AFTER_S = 8  # a day in life
SPREAD_S = 1.0
ONLINE_S = 15.0


@pytest.fixture
def rotating() -> Iterator[Cluster]:
    with short_folder("keys-") as folder:
        cluster = Cluster(
            folder,
            gateway={"grant_key_wait_s": SIGNS_AFTER_S},
            tunnels={"key_list_spread_s": SPREAD_S},
            node_program="tests.cluster.hasty_node",
        )
        with started(cluster) as running:
            yield running


def key_files(cluster: Cluster) -> list[Path]:
    return sorted((cluster.folder / "keys").glob("grant-*.pem"))


def restart_gateway(cluster: Cluster) -> None:
    cluster.stop("gateway")
    cluster.again("gateway")
    cluster.wait_ops("gateway", cluster.gateway_ops)


def publish(cluster: Cluster) -> None:
    """An operator adds a key and restarts the gateway."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    write_private(cluster.folder / "keys" / "grant-99990101T000000Z.pem", private_pem(key))
    restart_gateway(cluster)


def retire(cluster: Cluster) -> None:
    """The old file goes."""
    key_files(cluster)[0].unlink()
    restart_gateway(cluster)


def list_number(cluster: Cluster, agent: str) -> int:
    """Of the list that the agent has on its disk."""
    text = (cluster.folder / f"{agent}-state" / "keylist.jws").read_text().split(".")[1]
    number: int = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["n"]
    return number


def wait_list(cluster: Cluster, agent: str, number: int) -> None:
    eventually(f"{agent} has list {number}", lambda: list_number(cluster, agent) == number)


def page_of(visitor: Visitor) -> int:
    return visitor.http.get("/page").status_code


def opened(cluster: Cluster, device_id: str) -> str | None:
    """A new session's link; None while the gateway calls the device offline."""
    try:
        return str(cluster.open_session(device_id)["url"])
    except TowlineError as refused:
        if "(device_offline)" not in str(refused):
            raise
        return None


def check_new_session(cluster: Cluster, device: int) -> Visitor:
    """Lists come to both nodes' tunnels at once here: the gateway may call the device offline for a blink."""
    url = eventually("a new session", partial(opened, cluster, cluster.device_ids[device]), ONLINE_S)
    assert url is not None
    visitor = entered(url)
    assert page_of(visitor) == 200
    return visitor


@pytest.mark.timeout(300)  # with the start of a cluster, on a machine with others at work
async def test_a_rotation_that_nobody_notices(rotating: Cluster, figures: Callable[[str, str], None]) -> None:
    def visitors() -> Load:
        device = rotating.device_ids[0]
        web = [rotating.visitor(device) for _ in range(2)]
        return Load(rotating.front, web, [rotating.visitor(device, "echo") for _ in range(3)])

    rotating.stop("agent-1")  # it is away while all of this happens
    load = await to_thread(visitors)
    first = await to_thread(check_new_session, rotating, 0)
    lasting = await to_thread(rotating.visitor, rotating.device_ids[0], "echo")
    with lasting.websocket("/") as socket:

        def check_socket() -> None:
            socket.send("still there?")
            assert socket.recv(timeout=ONLINE_S) == "still there?"

        async with load.running() as tally:
            await to_thread(check_socket)
            await to_thread(publish, rotating)
            await to_thread(wait_list, rotating, "agent-0", 2)
            published = await to_thread(check_new_session, rotating, 0)  # signed with the old key
            await to_thread(check_socket)
            await asyncio.sleep(SIGNS_AFTER_S)  # sleeps: as the operator does in between
            switched = await to_thread(check_new_session, rotating, 0)  # and with the new one
            await to_thread(check_socket)
        assert tally.failed == [], tally
        assert tally.wrong == []
    figures("requests over the rotation, failed", f"{sum(tally.done.values())}, {len(tally.failed)}")

    modern = await to_thread(rotating.visitor, rotating.device_ids[0], "echo")
    with modern.websocket("/") as socket:
        await to_thread(check_socket)
        await to_thread(retire, rotating)
        await to_thread(wait_list, rotating, "agent-0", 3)
        await to_thread(check_socket)  # its grant is by the key that stays
    # Those whose grants the old key signed get new ones, and go on.
    for visitor in (first, published, switched, await to_thread(check_new_session, rotating, 0)):
        await to_thread(eventually, "the page", partial(is_page, visitor))
        visitor.http.close()
    log = (rotating.folder / "agent-0.log").read_text()
    assert '"reason": "its key was withdrawn"' in log  # the old key's, and it was the old key that signed

    rotating.run_agent("agent-1")
    await to_thread(rotating.wait_tunnels)
    await to_thread(wait_list, rotating, "agent-1", 3)
    back = await to_thread(check_new_session, rotating, 1)
    for visitor in (back, lasting, modern):
        visitor.close()


def is_page(visitor: Visitor) -> bool:
    return page_of(visitor) == 200
