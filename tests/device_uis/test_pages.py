"""Every UI loads through the tunnel as it does directly, which tells what it complains of itself."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from tests.browser.browser import WAIT_MS
from tests.device_uis.programs import Program
from tests.device_uis.sessions import Desk
from tests.device_uis.walks import WALKS
from tests.device_uis.watching import Watch


@pytest.mark.parametrize("name", WALKS)
def test_a_page_complains_of_nothing_new(
    browser: Browser, desk: Desk, programs: dict[str, Program], name: str
) -> None:
    watches = []
    for through_tunnel in (False, True):
        context = browser.new_context()
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        watch = Watch(page)
        if through_tunnel:
            origin = desk.enter(page, name)
        else:
            page.goto(programs[name].url)
        WALKS[name](page)
        watches.append(watch)
        if through_tunnel:
            assert watch.hosts == {urlsplit(origin).netloc}, "the page left its origin"
        context.close()
    direct, tunnelled = watches
    assert tunnelled.complaints - direct.complaints == {}
    assert len(tunnelled.websockets) >= len(direct.websockets) > 0 or name == "notebook"
