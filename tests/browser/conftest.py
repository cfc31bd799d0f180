from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.browser import WAIT_MS, chromium
from tests.browser.certificates import WildcardCertificate, wildcard_certificate
from tests.integration.stack import Stack

DOMAIN = "tunnel.test"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: the database's socket lies below it."""
    made = Path(tempfile.mkdtemp(prefix="towline-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Stack]:
    """`towline up` as a newcomer starts it."""
    stack = Stack(folder / "plain")
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def certificate(folder: Path) -> WildcardCertificate:
    return wildcard_certificate(folder, DOMAIN)


@pytest.fixture(scope="module")
def with_tls(folder: Path, certificate: WildcardCertificate) -> Iterator[Stack]:
    """`towline up` with sessions on https://<label>.tunnel.test."""
    stack = Stack(folder / "tls")
    files = ["--tunnel-certificate", str(certificate.certificate), "--tunnel-key", str(certificate.key)]
    try:
        stack.start("--tunnel-domain", DOMAIN, *files)
        yield stack
    finally:
        stack.close()


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
