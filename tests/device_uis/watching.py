"""What a page complains about while a person uses it: the same list directly and through the tunnel."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request, Response, WebSocket

_ADDRESS = re.compile(r"\w+://[^/\s'\"]+")
_VERSIONED = re.compile(r"[0-9a-f]{8,}|\d{3,}")  # cache busters, session ids, times


def _plain(text: str) -> str:
    """Without what differs between two loads of the same page."""
    return _VERSIONED.sub("#", _ADDRESS.sub("", text))


class Watch:
    """Console and page errors, failed requests, answers of 400 and above of one page; and its WebSockets."""

    def __init__(self, page: Page) -> None:
        self.complaints: Counter[str] = Counter()
        self.hosts: set[str] = set()
        self.websockets: list[WebSocket] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._note(f"page error: {error.message}"))
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)
        page.on("websocket", lambda socket: self.websockets.append(socket))

    def _note(self, complaint: str) -> None:
        self.complaints[_plain(complaint)] += 1

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if request.url.startswith(("http:", "https:", "ws:", "wss:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _websocket(self, websocket: WebSocket) -> None:
        self.websockets.append(websocket)

    def _failed(self, request: Request) -> None:
        # A navigation away drops what was still loading: no fault of the way there.
        if request.failure != "net::ERR_ABORTED":
            self._note(f"failed: {request.method} {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self._note(f"{response.status}: {response.request.method} {response.url}")

    def taken(self) -> Counter[str]:
        """What was complained about so far; the list begins anew."""
        taken, self.complaints = self.complaints, Counter()
        return taken
