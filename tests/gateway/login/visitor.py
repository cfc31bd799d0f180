"""A person with a browser at the login, without pages: follows and forges what a browser carries."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.gateway.login.free_provider import FreeProvider
from tests.gateway.world import ORIGIN, World

FLOW_COOKIE = "towline_flow"
LOGIN_COOKIE = "towline_login"
NEXT_TRY_S = 3.0  # in which the limit on answers from one address gives one back
PATIENCE_S = 30.0  # longer than the gateway has with a provider
PERSON = {
    "sub": "subject-1",
    "email": "ada@example.com",
    "email_verified": True,
    "preferred_username": "ada",
}


class Visitor:
    """One browser. `asked` is the authorization request of its last login."""

    def __init__(self, world: World) -> None:
        self.http = world.browser()
        del self.http.headers["origin"]  # a navigation carries none
        self.http.headers["sec-fetch-site"] = "none"
        self.http.timeout = httpx.Timeout(PATIENCE_S)
        self.asked: dict[str, str] = {}
        self.asked_at = ""

    async def begin(self, provider: str = "free", following: str | None = None) -> httpx.Response:
        """Press the provider's button."""
        params = {} if following is None else {"next": following}
        answer = await self.http.get(f"/login/with/{provider}", params=params, headers=PAGE)
        if answer.status_code == 303:
            target = urlsplit(answer.headers["location"])
            self.asked = dict(parse_qsl(target.query))
            self.asked_at = f"{target.scheme}://{target.netloc}{target.path}"
        return answer

    async def come_back(self, provider: str = "free", **params: str) -> httpx.Response:
        """Bring the provider's answer; the state is the last one unless given."""
        return await self.http.get(
            f"/login/from/{provider}", params={"state": self.asked["state"], **params}, headers=PAGE
        )

    async def log_in(
        self, provider: FreeProvider, provider_id: str = "free", following: str | None = None, **claims: Any
    ) -> httpx.Response:
        """The whole way."""
        began = await self.begin(provider_id, following)
        assert began.status_code == 303, began.text
        return await self.come_back(provider_id, code=provider.agree(self.asked, **(PERSON | claims)))

    @property
    def cookie(self) -> str | None:
        return self.http.cookies.get(LOGIN_COOKIE)

    async def me(self) -> dict[str, Any] | None:
        """Who one is logged in as; None: nobody."""
        answer = await self.http.get("/v1/me")
        return answer.json() if answer.status_code == 200 else None

    def from_own_page(self) -> httpx.AsyncClient:
        """The same browser, as scripts of the gateway's pages ask."""
        self.http.headers.update({"origin": ORIGIN, "sec-fetch-site": "same-origin"})
        return self.http


PAGE = {"accept": "text/html"}


def code_of(answer: httpx.Response) -> str:
    """The stable code on a problem's page."""
    return answer.text.rpartition("· ")[2].partition("<")[0].strip()


async def refused(visitor: Visitor, answer: httpx.Response, status: int, code: str) -> None:
    """Nobody was logged in, and a page says why."""
    assert (answer.status_code, code_of(answer)) == (status, code)
    assert answer.headers["content-type"].startswith("text/html")
    assert visitor.cookie is None
    assert await visitor.me() is None
