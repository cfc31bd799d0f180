"""One `towline up` on TLS with one device that offers every real UI; each is started once."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from testbed.people import Visitor, entered
from testbed.processes import short_folder, started
from testbed.up import Stack
from tests.browser.browser import WAIT_MS, chromium
from tests.browser.certificates import WildcardCertificate, tls_options, wildcard_certificate
from tests.browser.devices import Local, device_at
from tests.device_uis import device_programs
from tests.device_uis.plain_device import PlainDevice
from tests.device_uis.programs import Program
from tests.device_uis.sessions import DOMAIN, Desk

SERVICES: dict[str, Callable[[Path], Program]] = {
    "node-red": device_programs.node_red,
    "octoprint": device_programs.octoprint,
    "notebook": device_programs.notebook,
    "dashboard": device_programs.dashboard,
}

# OctoPrint names its CSRF cookie after the port that the browser sees: it must be told the public address.
OPTIONS = {"octoprint": ('host = "preserve"', "forwarded_headers = true")}


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture(scope="package")
def certificate(folder: Path) -> WildcardCertificate:
    return wildcard_certificate(folder, DOMAIN)


@pytest.fixture(scope="package")
def programs(folder: Path) -> Iterator[dict[str, Program]]:
    """Every UI, started side by side; not yet waited for."""
    with ExitStack() as ending:
        running: dict[str, Program] = {}
        for name, start in SERVICES.items():
            running[name] = ending.enter_context(closing(start(folder / name)))
        yield running


@pytest.fixture(scope="package")
def plain_device() -> Iterator[PlainDevice]:
    device = PlainDevice()
    yield device
    device.close()


@pytest.fixture(scope="package")
def stack(folder: Path, certificate: WildcardCertificate, programs: dict[str, Program]) -> Iterator[Stack]:
    """`towline up` with sessions on https://<label>.tunnel.test; `programs` start meanwhile."""
    with started(Stack(folder / "up", *tls_options(certificate, DOMAIN))) as stack:
        yield stack


@pytest.fixture(scope="package")
def desk(
    stack: Stack, folder: Path, programs: dict[str, Program], plain_device: PlainDevice
) -> Iterator[Desk]:
    """The device is online and every UI answers."""
    services = {name: Local(program.port, OPTIONS.get(name, ())) for name, program in programs.items()}
    (folder / "device").mkdir()
    with device_at(stack, folder / "device", "workshop", plain_device.port, services) as identity:
        for program in programs.values():
            program.wait_ready()
        desk = Desk(stack, identity)
        yield desk
        desk.close()


@pytest.fixture(scope="package")
def browser(certificate: WildcardCertificate) -> Iterator[Browser]:
    with chromium(resolve=f"*.{DOMAIN}", trust=certificate.spki_hash) as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A person without a past."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def visit(desk: Desk, certificate: WildcardCertificate) -> Iterator[Callable[[str], Visitor]]:
    """A visitor without a browser who is in a session with the named service."""
    trust = ssl.create_default_context(cafile=str(certificate.certificate))
    with ExitStack() as leaving:

        def enter(service: str) -> Visitor:
            return leaving.enter_context(closing(entered(desk.link(service), trust)))

        yield enter
