"""Logins that must not happen because of what a browser brings: evil pages, evil people."""

from __future__ import annotations

import asyncio

from runtime.clock import FakeClock
from tests.gateway.login.free_provider import (
    FreeProvider,
)
from tests.gateway.login.visitor import FLOW_COOKIE, NEXT_TRY_S, PAGE, PERSON, Visitor, refused
from tests.gateway.test_edge import Page, check_headers
from tests.gateway.world import World


async def test_denied_consent(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    await visitor.begin()
    answer = await visitor.come_back(error="access_denied", error_description="<script>alert(1)</script>")
    await refused(visitor, answer, 403, "login_denied")
    assert "alert" not in answer.text
    check_headers(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert Page(answer.text).inline == []
    late = await visitor.come_back(code=provider.agree(visitor.asked, **PERSON))
    await refused(visitor, late, 400, "login_not_open")


async def test_a_state_works_once(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    await visitor.begin()
    flow = visitor.http.cookies[FLOW_COOKIE]
    code = provider.agree(visitor.asked, **PERSON)
    assert (await visitor.come_back(code=code)).status_code == 303
    replay = Visitor(login_world)
    replay.asked = visitor.asked
    replay.http.cookies.set(FLOW_COOKIE, flow)
    await refused(replay, await replay.come_back(code=code), 400, "login_not_open")
    fresh = await replay.come_back(code=provider.agree(visitor.asked, **PERSON))
    await refused(replay, fresh, 400, "login_not_open")


async def test_a_state_at_once_from_many_tabs_works_once(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    await visitor.begin()
    codes = [provider.agree(visitor.asked, **PERSON) for _ in range(8)]
    answers = await asyncio.gather(*(visitor.come_back(code=code) for code in codes))
    assert sorted(answer.status_code for answer in answers) == [303] + [400] * 7


async def test_a_state_of_another_browser(login_world: World, provider: FreeProvider) -> None:
    """Login fixation: the attacker's own login must not land in the victim's browser."""
    attacker, victim, newcomer = (Visitor(login_world) for _ in range(3))
    await attacker.begin()
    await victim.begin()
    code = provider.agree(attacker.asked, **PERSON)
    answer = await victim.come_back(state=attacker.asked["state"], code=code)
    await refused(victim, answer, 400, "login_not_open")
    assert provider.asked("/token") == 0
    newcomer.asked = attacker.asked  # without any cookie of ours
    await refused(newcomer, await newcomer.come_back(code=code), 400, "login_not_open")


async def test_a_state_after_ten_minutes(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    visitor = Visitor(login_world)
    await visitor.begin()
    clock.advance(601)
    answer = await visitor.come_back(code=provider.agree(visitor.asked, **PERSON))
    await refused(visitor, answer, 400, "login_not_open")


async def test_answers_that_are_none(login_world: World, provider: FreeProvider, clock: FakeClock) -> None:
    visitor = Visitor(login_world)
    await visitor.begin()
    state = visitor.asked["state"]
    for query in (
        "",
        "code=x",
        "state=",
        "state=x&code=x",
        f"state={state}&state={state}&code=x",
        "state=%00",
    ):
        answer = await visitor.http.get(f"/login/from/free?{query}", headers=PAGE)
        await refused(visitor, answer, 400, "login_not_open")
    for query in ("", "&code=", f"&code={'x' * 3000}", "&code=a&code=b"):
        await visitor.begin()
        url = f"/login/from/free?state={visitor.asked['state']}{query}"
        await refused(visitor, await visitor.http.get(url, headers=PAGE), 502, "provider_refused")
        clock.advance(2 * NEXT_TRY_S)
    assert provider.asked("/token") == 0


async def test_two_flow_cookies_are_none(login_world: World, provider: FreeProvider) -> None:
    """One of them was planted."""
    visitor = Visitor(login_world)
    await visitor.begin()
    flow = visitor.http.cookies[FLOW_COOKIE]
    visitor.http.cookies.clear()
    visitor.http.headers["cookie"] = f"{FLOW_COOKIE}={flow}; {FLOW_COOKIE}={'A' * 43}"
    answer = await visitor.come_back(code=provider.agree(visitor.asked, **PERSON))
    await refused(visitor, answer, 400, "login_not_open")


NOT_OUR_OWN = [
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/x\\..",
    "/\t/evil.example",
    "/\n/evil.example",
    "/x\r\nset-cookie: a=b",
    " //evil.example",
    "javascript:alert(1)",
    "devices",
    "///evil.example",
    "/" + "x" * 3000,
    "/ünïcode",
]


async def test_next_is_a_path_of_our_own(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    for following in NOT_OUR_OWN:
        page = await Visitor(login_world).http.get("/login", params={"next": following}, headers=PAGE)
        assert 'href="/login/with/free"' in page.text, following
        answer = await Visitor(login_world).log_in(provider, following=following)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), following
        clock.advance(2 * NEXT_TRY_S)


async def test_a_thousand_tries_cost_little(login_world: World, provider: FreeProvider) -> None:
    """Answers that are guessed, and buttons that are pressed: at most twenty of each are looked at."""
    visitor = Visitor(login_world)
    await visitor.begin()
    gate = asyncio.Semaphore(20)

    async def guess(number: int) -> int:
        async with gate:
            answer = await visitor.http.get(f"/login/from/free?state=guess-{number}&code=x")
            return answer.status_code

    answers = await asyncio.gather(*(guess(number) for number in range(1000)))
    assert answers.count(400) <= 20
    assert set(answers) == {400, 429}
    buttons = [(await visitor.begin()).status_code for _ in range(30)]
    assert buttons.count(303) <= 20
    assert provider.asked("/token") == 0
