"""Names and certificates at the edge: what is served, what is sent on to https, what is nobody's."""

from __future__ import annotations

import http.client
import ssl
import subprocess
from collections.abc import Callable

import pytest

from testbed.programs import program
from tests.deployment.client import PERSON, TIMEOUT_S, Client
from tests.deployment.site import DOMAIN, GATEWAY, NODES, Site

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


def test_a_name_that_is_nobodys_gets_no_answer(site: Site, front: str) -> None:
    client = site.client(front, "stranger.example.org")
    with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
        client.connection()
    # Not our own refusal of a wrong certificate: the other side showed none.
    assert not isinstance(refused.value, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_a_host_that_is_nobodys_is_misdirected(site: Site, front: str) -> None:
    """The TLS of one name, the Host of another."""
    client = site.client(front, "stranger.example.org")
    with client.connection(GATEWAY) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: stranger.example.org\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    assert (answer.status, body[:0]) in ((421, b""), (200, b""))
    assert b"ongoing" not in body
    assert b"Towline" not in body


def test_a_label_without_a_session_is_told_so(site: Site, front: str) -> None:
    client = site.client(front, f"{'b' * 26}.{DOMAIN}")
    status, body = client.get("/", {"Accept": "application/json"})
    assert status == 403
    assert b"no_session" in body
    client.close()


@pytest.mark.parametrize("front", ["nginx", "caddy", "haproxy"])
@pytest.mark.parametrize("host", [GATEWAY, f"{'a' * 26}.{DOMAIN}"])
def test_plain_http_leads_to_https(site: Site, front: str, host: str) -> None:
    client = http.client.HTTPConnection("127.0.0.1", site.http[front], timeout=TIMEOUT_S)
    client.request("GET", "/a%2Fb?c=d", headers={"Host": host})
    answer = client.getresponse()
    answer.read()
    assert answer.status == 308
    where = answer.headers["Location"]
    # Caddy names the port when it is another one than 443, as it is here.
    assert where in (f"https://{host}/a%2Fb?c=d", f"https://{host}:{site.https[front]}/a%2Fb?c=d")
    client.close()


def test_what_belongs_to_operators_and_nodes_is_not_reached(site: Site, front: str) -> None:
    """Neither by the gateway's name nor by one of a device's host."""
    gateway = site.client(front, GATEWAY)
    for path in ("/metrics", "/internal/v1/keys", "/internal/v1/presence", "/%69nternal/v1/keys"):
        assert gateway.get(path)[0] == 404, path
    gateway.close()
    label = site.client(front, f"{'c' * 26}.{DOMAIN}")
    for path in ("/metrics", "/livez", "/readyz"):
        assert label.get(path)[0] == 403, path
    label.close()
    if front in ("nginx", "caddy"):
        node = site.client(front, NODES[0])
        for path in ("/", "/metrics", "/tunnel/x", "/readyz"):
            assert node.get(path)[0] == 404, path
        node.close()


def test_https_stays_https(site: Site, front: str, visit: Visit) -> None:
    gateway = site.client(front, GATEWAY)
    answer = gateway.ask("GET", "/login", headers={"Accept": "text/html"})
    answer.read()
    assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    gateway.close()
    if front in ("nginx", "caddy"):
        page = visit(front).ask("GET", "/")
        page.read()
        assert page.headers.get_all("Strict-Transport-Security") == ["max-age=86400"]


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_no_version_is_told(site: Site, front: str) -> None:
    for host, path in ((GATEWAY, "/login"), (NODES[0], "/nothing"), (f"{'d' * 26}.{DOMAIN}", "/")):
        client = site.client(front, host)
        answer = client.ask("GET", path)
        answer.read()
        said = " ".join(answer.headers.get_all("Server") or [])
        assert not any(character.isdigit() for character in said), said
        client.close()


def test_the_link_cannot_be_opened_from_another_page(site: Site, front: str) -> None:
    """Origin: null, as of a sandboxed frame, and a sibling's: the link is not burnt by them."""
    host, token = site.link(front)
    client = site.client(front, host)
    for origin in ("null", f"https://{'e' * 26}.{DOMAIN}", f"https://{GATEWAY}"):
        client.origin = origin
        assert client.enter(token).status == 403, origin
        client.close()  # nginx ends it by itself when an answer came before the body was read
    client.origin = f"https://{host}"
    assert client.enter(token).status == 303
    client.close()


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_http_2_as_browsers_speak_it(site: Site, front: str, visit: Visit) -> None:
    """By curl: the authority becomes the Host, crumbs of cookies one header."""
    visitor = visit(front)
    page = curl(site, front, visitor.host, "/echo", "--header", f"Cookie: {visitor.cookie}; a=1")
    assert page == "2 200 the device"
    _, _, seen = site.device.requests[-1]
    assert seen["cookie"] == "a=1"
    assert seen["x-forwarded-host"] == visitor.host
    assert seen["x-forwarded-for"] == PERSON


def curl(site: Site, front: str, host: str, path: str, *more: str) -> str:
    """ "VERSION STATUS BODY"."""
    where = ["--connect-to", f"{host}:443:127.0.0.1:{site.https[front]}", "--interface", PERSON]
    command = [program("curl", "curl"), "--silent", "--http2", "--cacert", str(site.trusted), *where, *more]
    command += ["--write-out", "%{stderr}%{http_version} %{http_code} ", f"https://{host}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stderr + done.stdout
