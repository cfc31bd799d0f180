"""Names and certificates at the edge: what is served, what is sent on to https, what is nobody's."""

from __future__ import annotations

from collections.abc import Callable

from tests.deployment.client import Client
from tests.deployment.site import GATEWAY, Site

Visit = Callable[..., Client]


def test_a_session_opens_over_tls_with_a_cookie_of_its_host(site: Site, front: str) -> None:
    host, token = site.link(front)
    client = site.client(front, host)
    landing = client.ask("GET", "/.towline/open")
    page = landing.read().decode()
    assert f'data-gateway="https://{GATEWAY}"' in page
    answer = client.enter(token)
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-towline=")
    assert "; Path=/;" in cookie
    assert "; Secure" in cookie
    assert "Domain" not in cookie
    assert client.get("/") == (200, b"the device")
    client.close()
