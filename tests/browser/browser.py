"""Chromium as a person has it, driven by Playwright; Debian's build, found by its usual name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

WAIT_MS = 20_000  # a step of a test; a loaded machine needs seconds, a hang needs an end
expect.set_options(timeout=WAIT_MS)  # Playwright's own 5 s are too few for a login on a busy machine

# Headless, without the background calls home that a closed network would only delay; one profile a context.
_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str:
    """Where Debian's chromium lies; AssertionError with the way to get it where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found is not None, "chromium is missing: apt-get install chromium"
    return found


@contextmanager
def chromium(
    *, resolve: str, trust: str, address: str = "127.0.0.1", executable: str | None = None
) -> Iterator[Browser]:
    """A browser for which the names `resolve` (`*.tunnel.test`) are `address`, and the key `trust` good.

    `trust` is base64 of SHA-256 over the SPKI. An error that is merely clicked away would not do: Chromium
    then refuses service workers by itself.
    """
    arguments = list(_ARGUMENTS)
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses to start its sandbox as root
    arguments.append(f"--host-resolver-rules=MAP {resolve} {address}")
    arguments.append(f"--ignore-certificate-errors-spki-list={trust}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable or chromium_path(), headless=True, args=arguments
        )
        try:
            yield browser
        finally:
            browser.close()
