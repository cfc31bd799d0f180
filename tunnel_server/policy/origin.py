"""Which requests a page of this very session may have made: SameSite lets siblings through."""

from __future__ import annotations

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


def is_allowed(
    method: bytes,
    *,
    upgrade: bool,
    fetch_site: bytes | None,
    fetch_mode: bytes | None,
    fetch_dest: bytes | None,
    origin: bytes | None,
    own_origin: bytes,
) -> bool:
    """Whether the request may reach the device (DESIGN 3.6).

    Sec-Fetch-Site is set by the browser alone and decides where it is present; a top-level GET navigation
    may come from anywhere. Without it unsafe methods and upgrades need our own Origin, and a foreign
    Origin is refused on any method.
    """
    if fetch_site is not None:
        if fetch_site in (b"same-origin", b"none"):
            return not upgrade or origin is None or origin == own_origin
        return method == b"GET" and not upgrade and fetch_mode == b"navigate" and fetch_dest == b"document"
    if origin is not None:
        return origin == own_origin
    return method in SAFE and not upgrade
