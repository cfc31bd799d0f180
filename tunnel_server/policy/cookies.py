"""Our own session cookie among the device's: found, stripped, and kept out of the device's hands."""

from __future__ import annotations

SECURE_NAME = b"__Host-towline"
# On plain loopback a browser refuses the __Host- prefix; the name is used on no other bind.
LOOPBACK_NAME = b"towline_session"
_OWN_NAMES = frozenset({SECURE_NAME.lower(), LOOPBACK_NAME.lower()})


class DuplicateCookie(Exception):
    """Our cookie came twice: somebody planted one, and which is ours cannot be known."""


def split_cookie(header: bytes, name: bytes) -> tuple[bytes | None, bytes | None]:
    """(value of our cookie or None, the Cookie header without our cookies or None when nothing is left)."""
    if header.startswith(name) and header[len(name) : len(name) + 1] == b"=" and b";" not in header:
        return header[len(name) + 1 :], None  # the commonest case: ours alone
    if b"towline" not in header.lower():
        return None, header
    own: bytes | None = None
    rest: list[bytes] = []
    for pair in header.split(b";"):
        key, equals, value = pair.strip(b" \t").partition(b"=")
        if key.strip(b" \t").lower() not in _OWN_NAMES:
            if pair.strip(b" \t"):
                rest.append(pair.strip(b" \t"))
        elif key == name and equals:
            if own is not None:
                raise DuplicateCookie
            own = value
    return own, b"; ".join(rest) if rest else None


def rewritten_set_cookie(value: bytes) -> bytes | None:
    """A device's Set-Cookie without Domain=, or None when it aims at our cookie.

    Without Domain a cookie stays on the session's own host (RFC 6265 section 5.3 step 6).
    """
    pair, *attributes = value.split(b";")
    key, equals, _ = pair.partition(b"=")
    if key.strip(b" \t").lower() in _OWN_NAMES:
        return None
    if (not equals or not key.strip(b" \t")) and b"towline" in pair.lower():
        return None  # a nameless cookie is sent back as its bare value, which may read as ours
    kept = [item for item in attributes if item.partition(b"=")[0].strip(b" \t").lower() != b"domain"]
    return b";".join([pair, *kept])


def session_cookie(name: bytes, value: bytes, max_age_s: int) -> bytes:
    """The Set-Cookie value of a new session; host-only, and no script reads it."""
    secure = b"; Secure" if name == SECURE_NAME else b""
    return b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b" % (name, value, max_age_s, secure)


def expired_cookie(name: bytes) -> bytes:
    """The Set-Cookie value that removes it."""
    return session_cookie(name, b"", 0)
