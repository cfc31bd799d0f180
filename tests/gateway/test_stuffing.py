"""Lists of stolen names and passwords: another account at each try, so that no account's own limit is met."""

from __future__ import annotations

from tests.gateway.world import ADMIN_PASSWORD, World

TRIES = 60
LOOKED_AT_MAX = 20


async def test_one_address_does_not_try_many_accounts(world: World) -> None:
    await world.add_user("ann")
    program = world.program()
    answers = []
    for number in range(TRIES):
        body = {"username": f"person-{number}", "password": f"guess-{number}"}
        answers.append((await program.post("/v1/login", json=body)).status_code)
    assert set(answers) == {401, 429}
    assert 1 <= answers.count(401) <= LOOKED_AT_MAX
    # Whoever guessed right behind that is not let in either, and no account is shut for others by it.
    right = await program.post("/v1/login", json={"username": "ann", "password": ADMIN_PASSWORD})
    assert (right.status_code, right.json()["code"]) == (429, "too_many_requests")
    assert int(right.headers["retry-after"]) >= 1
