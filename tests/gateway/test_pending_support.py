"""A request for support that nobody decided yet: the engineer takes it back, the owner says yes or no."""

from __future__ import annotations

import pytest

from tests.gateway.test_places import home, join
from tests.gateway.test_support import Case, case  # noqa: F401


@pytest.mark.parametrize("who", ["owner", "admin"])
async def test_who_runs_the_site_cannot_withdraw_it(case: Case, who: str) -> None:  # noqa: F811
    """It would read as if the engineer had taken it back: a no is a refusal, with a name."""
    person = case.owner
    if who == "admin":
        person = await home(case.world, "adam")
        await join(case.owner, f"/v1/sites/{case.owner.site}", person, "admin")
    path = f"/v1/support-requests/{(await case.ask()).json()['id']}"
    ended = await person.http.post(f"{path}/end")
    assert (ended.status_code, ended.json()["code"]) == (403, "forbidden")
    assert (await case.owner.http.get(path)).json()["state"] == "pending"
    assert (await case.owner.http.post(f"{path}/refuse")).json()["decided_by"] == "ann"
