from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from testbed.processes import short_folder, started
from testbed.up import Stack
from tests.browser.browser import WAIT_MS, chromium
from tests.browser.certificates import WildcardCertificate, tls_options, wildcard_certificate

DOMAIN = "tunnel.test"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Stack]:
    """`towline up` as a newcomer starts it."""
    with started(Stack(folder / "plain")) as stack:
        yield stack


@pytest.fixture(scope="module")
def certificate(folder: Path) -> WildcardCertificate:
    return wildcard_certificate(folder, DOMAIN)


@pytest.fixture(scope="module")
def with_tls(folder: Path, certificate: WildcardCertificate) -> Iterator[Stack]:
    """`towline up` with sessions on https://<label>.tunnel.test."""
    with started(Stack(folder / "tls", *tls_options(certificate, DOMAIN))) as stack:
        yield stack


@pytest.fixture(scope="module")
def browser(certificate: WildcardCertificate) -> Iterator[Browser]:
    with chromium(resolve=f"*.{DOMAIN}", trust=certificate.spki_hash) as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a person without a past."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()
