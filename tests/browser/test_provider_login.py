"""Logging in by a provider as a person does it: our page, the provider's pages, and back; over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from testbed.certificates import spki_hash
from testbed.gateways import Gateways
from testbed.processes import short_folder, started
from testbed.settings_tables import ADMIN, PASSWORD
from tests.browser.browser import WAIT_MS, chromium
from tests.device_uis.programs import Program
from tests.gateway.login.free_provider import CLIENT_ID, CLIENT_SECRET, WELL_KNOWN
from tests.gateway.login.real_providers import start_npm

HOST = "gateway.test"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def provider(place: Path) -> Iterator[Program]:
    """Begun by `gateways`, which knows the redirect URI."""
    with closing(Program("oidc-provider", place / "npm")) as program:
        yield program


@pytest.fixture(scope="module")
def gateways(place: Path, provider: Program) -> Iterator[Gateways]:
    secret = place / "client-secret"
    secret.write_text(CLIENT_SECRET)
    common = {"client_id": CLIENT_ID, "client_secret_file": secret}
    settings = {
        "log_level": "debug",
        "login_providers": {
            "works": common | {"metadata_url": provider.url + WELL_KNOWN, "name": "The Works"},
            "google": common | {"preset": "google"},
        },
    }
    (place / "gateways").mkdir()
    running = Gateways(place / "gateways", replicas=2, settings=settings, https_host=HOST)
    start_npm(provider, [f"{running.url}/login/from/works"])
    with started(running):
        yield running


@pytest.fixture(scope="module")
def own_browser(gateways: Gateways) -> Iterator[Browser]:
    with chromium(resolve=HOST, trust=spki_hash(gateways.folder / "front.crt")) as running:
        yield running


@pytest.fixture
def context(own_browser: Browser) -> Iterator[BrowserContext]:
    made = own_browser.new_context(viewport={"width": 900, "height": 700})
    made.set_default_timeout(WAIT_MS)
    yield made
    made.close()


def at_the_provider(page: Page, person: str) -> None:
    """Its two pages: who are you, and do you agree."""
    page.locator("input[name=login]").fill(person)
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()


def test_the_whole_way(context: BrowserContext, gateways: Gateways, provider: Program) -> None:
    page = context.new_page()
    broken: list[str] = []
    page.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
    page.goto(f"{gateways.url}/devices/d_aaaaaaaaaaaaaaaa")
    page.wait_for_url("**/login?next=**")
    assert broken == []
    page.get_by_role("link", name="Continue with The Works").click()
    page.wait_for_url(f"{provider.url}/**")
    flow = {cookie["name"]: cookie for cookie in context.cookies(gateways.url)}["__Host-towline_flow"]
    assert (flow["secure"], flow["httpOnly"], flow["sameSite"]) == (True, True, "Lax")
    at_the_provider(page, "grace")
    page.wait_for_url(f"{gateways.url}/devices/d_aaaaaaaaaaaaaaaa")  # where she wanted to be; it is not hers
    page.goto(gateways.url)
    expect(page.get_by_text("grace", exact=True)).to_be_visible()
    names = [cookie["name"] for cookie in context.cookies(gateways.url)]
    assert names == ["__Host-towline_login"]
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login**")
    logs = gateways.logs() + "".join(path.read_text() for path in gateways.folder.glob("*.log"))
    for secret in (CLIENT_SECRET, flow["value"]):
        assert secret not in logs
    for line in (gateways.folder / "gateway-0.log", gateways.folder / "gateway-1.log"):
        assert "code=" not in line.read_text()


def test_no_is_a_page_that_leads_back(context: BrowserContext, gateways: Gateways, provider: Program) -> None:
    page = context.new_page()
    page.goto(f"{gateways.url}/login")
    page.get_by_role("link", name="Continue with The Works").click()
    page.wait_for_url(f"{provider.url}/**")
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url(f"{gateways.url}/login/from/works**")
    expect(page.get_by_text("The Works did not log you in.")).to_be_visible()
    page.get_by_role("link", name="Log in").click()
    page.wait_for_url("**/login**")


def test_the_local_administrator_needs_no_provider(
    context: BrowserContext, gateways: Gateways, provider: Program
) -> None:
    """Neither provider is asked: one is stopped, the other was never reached."""
    provider.close()
    page = context.new_page()
    page.goto(f"{gateways.url}/login")
    expect(page.get_by_role("link", name="Continue with Google")).to_be_visible()
    page.locator("input[name=username]").fill(ADMIN)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Devices")).to_be_visible()
