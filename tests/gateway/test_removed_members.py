"""Support that rests on a member who is removed: its sessions end with that, not only new ones."""

from __future__ import annotations

import pytest

from tests.gateway.test_places import home, join
from tests.gateway.test_support import Case, case  # noqa: F401


@pytest.mark.parametrize("leaves", [False, True])
async def test_support_ends_with_the_owner_who_consented(case: Case, leaves: bool) -> None:  # noqa: F811
    bob, path = await home(case.world, "bob"), f"/v1/sites/{case.owner.site}"
    await join(case.owner, path, bob, "owner")
    asked = (await case.ask()).json()
    consent = f"/v1/support-requests/{asked['id']}"
    assert (await bob.http.post(f"{consent}/approve", json={})).status_code == 200
    link = await case.opened()
    gone = await (bob if leaves else case.owner).http.delete(f"{path}/members/{bob.id}")
    assert gone.status_code == 204
    assert await case.revoked() == [link.session]
    assert (await case.owner.http.get(consent)).json()["state"] == "ended"
