"""A person at a desk who opens sessions to the services of one device."""

from __future__ import annotations

from playwright.sync_api import Page

from testbed.up import Stack

DOMAIN = "tunnel.test"  # outside the Public Suffix List: its labels are same-site


class Desk:
    """Logged in at the gateway; one device."""

    def __init__(self, stack: Stack, device: str) -> None:
        self.stack = stack
        self.device = device
        self.person = stack.newcomer()

    def link(self, service: str, device: str | None = None) -> str:
        return str(self.person.open_session(device or self.device, service)["url"])

    def enter(self, page: Page, service: str, device: str | None = None) -> str:
        """Open a session in the page as a person does; its origin. The UI's own first page is there then."""
        page.goto(self.link(service, device))
        page.get_by_role("button", name="Open").click()
        page.wait_for_url(lambda url: "/.towline/" not in url, wait_until="commit")
        return str(page.evaluate("location.origin"))

    def end_all(self) -> None:
        for session in self.person.http.get("/v1/sessions").json()["items"]:
            assert self.person.http.delete(f"/v1/sessions/{session['id']}").status_code == 204

    def close(self) -> None:
        self.person.close()
