"""What holds of a device that changes hands, one condition at a time."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from gateway.api.claims import CLAIM_PURPOSE
from gateway.randomness import digest
from runtime.clock import FakeClock
from tests.gateway.test_claims import claim_as, new_token
from tests.gateway.test_places import home, join
from tests.gateway.world import Device, World, base64url


async def nonce_of(world: World, device: Device) -> str:
    answer = await world.program().post(f"/v1/devices/{device.id}/certificate/challenge")
    nonce: str = answer.json()["nonce"]
    return nonce


async def claim_with(world: World, device: Device, token: str, nonce: str) -> httpx.Response:
    """Signed as it must be, over this nonce."""
    raw = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
    signature = device.sign(CLAIM_PURPOSE + raw + device.id.encode() + digest(token))
    body: dict[str, Any] = {"token": token, "nonce": nonce, "signature": base64url(signature)}
    return await world.program().post(f"/v1/devices/{device.id}/claim", json=body)


async def test_a_signed_nonce_counts_once_in_time_and_for_its_device(world: World, clock: FakeClock) -> None:
    """A signature that somebody recorded, or made ahead, moves nothing."""
    ann, bob, carl = await home(world, "ann"), await home(world, "bob"), await home(world, "carl")
    device, other = await world.enrol(ann.http), await world.enrol(ann.http)
    for one in (device, other):
        await ann.http.post(f"/v1/devices/{one.id}/release")
    for nonce in (base64url(b"x" * 32), await nonce_of(world, other)):
        refused = await claim_with(world, device, await new_token(bob), nonce)
        assert (refused.status_code, refused.json()["code"]) == (403, "bad_nonce")
    late = await nonce_of(world, device)
    clock.advance(3600)
    refused = await claim_with(world, device, await new_token(bob), late)
    assert (refused.status_code, refused.json()["code"]) == (403, "bad_nonce")
    nonce = await nonce_of(world, device)
    assert (await claim_with(world, device, await new_token(bob), nonce)).status_code == 200
    await bob.http.post(f"/v1/devices/{device.id}/release")
    again = await claim_with(world, device, await new_token(carl), nonce)
    assert (again.status_code, again.json()["code"]) == (403, "bad_nonce")
    assert (await bob.http.get(f"/v1/devices/{device.id}")).json()["role"] == "owner"


async def test_a_revoked_or_unapproved_device_goes_nowhere(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device, waiting = await world.enrol(ann.http), await world.enrol(ann.http, approve=False)
    assert (await ann.http.post(f"/v1/devices/{device.id}/release")).status_code == 200
    await ann.http.post(f"/v1/devices/{device.id}/revoke")
    refused = await ann.http.post(f"/v1/devices/{waiting.id}/release")
    assert (refused.status_code, refused.json()["code"]) == (409, "device_not_approved")
    # Its challenge is refused already; a nonce that it still had does not help.
    async with world.gateway.parts.database.transaction() as tx:
        for one in (device, waiting):
            await tx.execute(
                "INSERT INTO renewal_nonces (nonce_sha256, device_id, expires_at)"
                " VALUES ($1, $2, $3::timestamptz + interval '60 s')",
                digest(base64url(one.id.encode())),
                one.id,
                tx.at,
            )
            await tx.execute(
                "UPDATE devices SET released_until = $2::timestamptz + interval '1 h' WHERE id = $1",
                one.id,
                tx.at,
            )
    for one, code in ((device, "device_revoked"), (waiting, "device_pending")):
        refused = await claim_with(world, one, await new_token(bob), base64url(one.id.encode()))
        assert (refused.status_code, refused.json()["code"]) == (403, code)


async def test_a_release_is_of_the_site_that_gave_it(world: World, clock: FakeClock) -> None:
    """Moved to somebody else's site, the device is theirs to let go of: the former owner's word is over."""
    ann = await home(world, "ann")
    clock.advance(1)  # the older site is the one that is meant when none is named
    bob, eve = await home(world, "bob"), await home(world, "eve")
    await join(bob, f"/v1/sites/{bob.site}", ann, "admin")
    device = await world.enrol(ann.http)
    path = f"/v1/devices/{device.id}"
    assert (await ann.http.post(f"{path}/release")).status_code == 200
    renamed = (await ann.http.patch(path, json={"name": "Boiler"})).json()
    assert renamed["released_until"] is not None  # a new name takes nothing back
    moved = await ann.http.patch(path, json={"site_id": bob.site})
    assert (moved.status_code, moved.json()["released_until"]) == (200, None)
    refused = await claim_as(world, device, await new_token(eve))
    assert (refused.status_code, refused.json()["code"]) == (409, "not_released")
    assert (await bob.http.get(path)).json()["role"] == "owner"
    assert (await bob.http.post(f"{path}/release")).status_code == 200
    assert (await claim_as(world, device, await new_token(eve))).status_code == 200
