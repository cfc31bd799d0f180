"""Every answer that this node gives itself: readable pages, problem+json (RFC 9457), the link page."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources

from runtime.tcp_door import PATH

DOOR = PATH.encode()
_FILES = resources.files("tunnel_server.edge")
STYLE = _FILES.joinpath("page_style.css").read_text("utf-8")
OPEN_JS = _FILES.joinpath("open.js").read_bytes()
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'; "
)
_COMMON = (
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
)
CLEAR_SITE_DATA = 'Clear-Site-Data: "cache", "cookies", "storage"\r\n'


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that can go wrong, as a person and a program read it. ``retry_after_s`` None: no header."""

    status: int
    code: str
    title: str
    text: str
    retry_after_s: int | None = None
    clear_site_data: bool = False


NO_SESSION = Notice(
    403,
    "no_session",
    "This page needs a fresh link",
    "Open the device again from your device list: this browser holds no session for it.",
)
SESSION_ENDED = Notice(
    410,
    "session_ended",
    "The session has ended",
    "Access was limited in time, or it was ended. Open the device again from your device list.",
    clear_site_data=True,
)
CLOSED_HERE = Notice(
    200, "closed", "Closed in this browser", "This browser no longer holds the session.", clear_site_data=True
)
LINK_EXPIRED = Notice(
    410,
    "link_expired",
    "The link has expired",
    "A link works for a minute. Open the device again to get a new one.",
)
LINK_USED = Notice(
    410,
    "link_used",
    "The link was used already",
    "Each link works once. Open the device again to get a new one.",
)
LINK_BAD = Notice(400, "bad_link", "This is no link", "The address is not complete. Copy it again, whole.")
LINK_KIND = Notice(
    403,
    "wrong_kind",
    "The link is for another kind of service",
    "A link to a TCP service is opened by `towline connect`, a link to a page by a browser.",
)
LINK_BINDING = Notice(
    403,
    "binding",
    "The link is for somebody who is logged in",
    "Open the link itself in the browser in which you are logged in.",
)
WRONG_KIND = Notice(
    403,
    "wrong_kind",
    "The session is for another kind of service",
    "A session opens web pages or TCP connections, never both.",
)
BEARER_NEEDED = Notice(
    401, "bearer_needed", "No session was named", "This address takes a session id as a Bearer, nothing else."
)
COOKIE_AT_DOOR = Notice(
    400,
    "cookie_refused",
    "Cookies are refused here",
    "This address takes a session id as a Bearer, nothing else.",
)
UPGRADE_NEEDED = Notice(
    426, "upgrade_needed", "This address speaks WebSocket", "It takes a GET that asks for the upgrade."
)
WEBSOCKET_VERSION = Notice(
    426, "websocket_version", "Another WebSocket version", "This address speaks version 13 of the protocol."
)
DEVICE_OFFLINE = Notice(
    503,
    "device_offline",
    "The device is offline",
    "It has no connection to here at the moment. This page works again as soon as it comes back.",
    5,
)
DEVICE_BUSY = Notice(
    503, "device_busy", "The device is busy", "It serves as many requests at once as it can. Try again.", 2
)
SESSION_FULL = Notice(
    429,
    "too_many_doors",
    "Too many connections of one session",
    "The session has as many connections open as it may have at once. Close one, or open another session.",
)
DEVICE_LIVE_LIMIT = Notice(
    503,
    "too_many_live_streams",
    "Too many live connections",
    "The device keeps as many live connections open as it can. Close another window of it and try again.",
    5,
)
UNKNOWN_SERVICE = Notice(
    404,
    "unknown_service",
    "The device does not offer this",
    "Its configuration names no such service, or keeps support out of it.",
)
UNREACHABLE = Notice(
    502,
    "unreachable",
    "The device's own page does not answer",
    "The device is connected, but its web service did not accept the connection.",
)
BAD_GATEWAY = Notice(
    502, "bad_gateway", "The device's answer could not be used", "It broke off, or it was no valid HTTP."
)
GATEWAY_TIMEOUT = Notice(
    504, "timeout", "The device did not answer in time", "It is connected, but it took too long."
)
NO_TIME = Notice(
    503,
    "no_time",
    "The device's clock is wrong",
    "It checks how long access lasts, and its clock is not set yet, or is off. Try again in a moment; if this"
    " stays, set the device's clock (NTP).",
    5,
)
GRANT_REFUSED = Notice(
    403,
    "grant_refused",
    "The device refused",
    "It does not accept this session. Open it again from your device list.",
)
CONTROL_LOST = Notice(
    503,
    "control_unavailable",
    "Not possible at the moment",
    "Access cannot be checked right now. Sessions that are open go on.",
    5,
)
TOO_MANY = Notice(429, "too_many_requests", "Too many tries", "Wait a moment, then try again.", 10)
WRONG_HOST = Notice(
    421, "wrong_host", "Nothing lives at this address", "Check the address, or open the device again."
)
FOREIGN_ORIGIN = Notice(
    403, "foreign_origin", "Refused", "The request came from a page that does not belong to this device."
)
NOT_FOUND = Notice(404, "not_found", "Not found", "There is nothing at this address.")
METHOD = Notice(405, "method_not_allowed", "Not possible this way", "This address takes another method.")
DUPLICATE_COOKIE = Notice(
    400,
    "duplicate_cookie",
    "Two sessions at once",
    "The browser sent our cookie twice, so somebody planted one. Clear the cookies of this address.",
)
REQUEST_TIMEOUT = Notice(408, "request_timeout", "The request took too long", "It did not arrive in time.")


def bad_request(status: int, reason: str) -> Notice:
    """A request that breaks HTTP or a rule of the edge; ``reason`` is our own text."""
    return Notice(
        status, "bad_request", "The request could not be read", reason[:1].upper() + reason[1:] + "."
    )


def prefers_json(accept: bytes | None, target: bytes = b"") -> bool:
    """Whether the client asked for JSON and not for a page (only the order of names is looked at), or names
    neither and asks for what only programs ask for.
    """
    json_at, html_at = (-1, -1) if accept is None else (accept.find(b"json"), accept.find(b"text/html"))
    if json_at < 0 and html_at < 0:
        return target.partition(b"?")[0] == DOOR
    return json_at >= 0 and (html_at < 0 or json_at < html_at)


def notice(
    what: Notice,
    accept: bytes | None,
    *,
    keep: bool,
    cookie: bytes | None = None,
    target: bytes = b"",
) -> tuple[bytes, bytes]:
    """(head, body) of the answer; ``cookie`` is a Set-Cookie value, ``target`` what was asked for."""
    if prefers_json(accept, target):
        kind = "application/problem+json"
        content = json.dumps(
            {
                "type": "about:blank",
                "title": what.title,
                "status": what.status,
                "code": what.code,
                "detail": what.text,
            }
        ).encode()
    else:
        kind = "text/html; charset=utf-8"
        content = _document(what.title, f"<h1>{_escaped(what.title)}</h1><p>{_escaped(what.text)}</p>")
    extra = CLEAR_SITE_DATA if what.clear_site_data else ""
    if what.retry_after_s is not None:
        extra += f"Retry-After: {what.retry_after_s}\r\n"
    if what.status == 405:
        extra += "Allow: GET, HEAD, POST\r\n"
    elif what.status == 401:
        extra += "WWW-Authenticate: Bearer\r\n"
    elif what.status == 426:
        extra += "Sec-WebSocket-Version: 13\r\n"  # RFC 6455 section 4.4
    return answer(what.status, kind, content, keep=keep, extra=extra, cookie=cookie), content


def tcp_session(session_id: bytes, sid: str, expires_at: float, *, keep: bool) -> tuple[bytes, bytes]:
    """The answer to a burnt link of a TCP service: a Bearer for the door, in a body and nowhere else."""
    body = {"session_id": session_id.decode("ascii"), "id": sid, "expires_at": int(expires_at)}
    content = json.dumps(body).encode()
    return answer(200, "application/json", content, keep=keep), content


def open_page(gateway_url: str, *, keep: bool) -> tuple[bytes, bytes]:
    """The page a link leads to; it consumes nothing."""
    content = _document(
        "Open a device",
        '<h1>Open a device</h1><p id="wait">One moment …</p>'
        '<p id="nothing" hidden>The address is not complete. Copy the link again, whole.</p>'
        '<p id="support" hidden>Support: the owner consented, and can read which pages are asked for.</p>'
        '<form id="form" method="post" action="/.towline/open" hidden>'
        "<p>The link gives this browser access to a device for a limited time.</p>"
        '<input type="hidden" id="secret"><button>Open the device</button></form>'
        "<noscript><p>Links need JavaScript: its secret part never leaves the browser by itself.</p>"
        '</noscript><script src="/.towline/open.js"></script>',
        attributes=f' data-gateway="{_escaped(gateway_url)}"',
    )
    policy = "script-src 'self'; form-action 'self'"
    # Under no-referrer a form's POST says `Origin: null`, even to its own host (Fetch, "append a request
    # Origin header"): browsers without Sec-Fetch-Site, Safari before 16.4, could never open a link. To other
    # hosts this page still says nothing.
    head = answer(200, "text/html; charset=utf-8", content, keep=keep, policy=policy, referrer="same-origin")
    return head, content


def open_script(*, keep: bool) -> tuple[bytes, bytes]:
    """The link page's script."""
    return answer(200, "text/javascript; charset=utf-8", OPEN_JS, keep=keep), OPEN_JS


def redirect(cookie: bytes, *, keep: bool) -> tuple[bytes, bytes]:
    """303 to the device's page with the new session's cookie."""
    return answer(303, "text/plain", b"", keep=keep, extra="Location: /\r\n", cookie=cookie), b""


def answer(
    status: int,
    kind: str,
    content: bytes,
    *,
    keep: bool,
    extra: str = "",
    cookie: bytes | None = None,
    policy: str = "form-action 'none'",
    referrer: str = "no-referrer",
) -> bytes:
    """The head of one of our own answers."""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\nReferrer-Policy: {referrer}\r\n{_COMMON}{extra}"
        f"Content-Security-Policy: {PAGE_POLICY}{policy}\r\n"
    )
    if cookie is not None:
        head += f"Set-Cookie: {cookie.decode('ascii')}\r\n"
    return (head + ("\r\n" if keep else "Connection: close\r\n\r\n")).encode("ascii")


def _document(title: str, content: str, *, attributes: str = "") -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="robots" content="noindex"><style>{STYLE}</style></head>'
        f"<body{attributes}><main>{content}</main></body></html>"
    ).encode()


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
