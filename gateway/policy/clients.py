"""Programs that log people in through the system browser (RFC 8252), and which redirect URIs are theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.settings import not_empty, setting

# The client of `POST /v1/login` with a refresh token: our own programs, which ask for the password.
OWN_CLIENT = "towline"

CLIENT_ID_MAX = 64
REDIRECT_URI_MAX = 512  # ours to choose: the longest of the big platforms have about 200 characters
_CLIENT_ID = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{CLIENT_ID_MAX - 1}}}")
# RFC 3986 characters without the fragment's '#', and nothing that a browser would repair.
_URI_REST = r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*"
# A name that the app's maker owns, backwards: it has a dot (RFC 8252, section 7.1), as javascript: has not.
_PRIVATE = re.compile(rf"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+:{_URI_REST}")
_CLAIMED = re.compile(
    r"https://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[1-9][0-9]{0,4})?"
    r"(/[A-Za-z0-9._~:/@!$&'()*+,;=%-]*)?(\?[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*)?"
)
# Only the addresses: a name can be made to lead elsewhere (RFC 8252, section 8.3).
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[1-9][0-9]{0,4})?((?:/" + _URI_REST + r")?)")


def _are_redirect_uris(value: tuple[str, ...]) -> str | None:
    for uri in value:
        if len(uri) > REDIRECT_URI_MAX or not any(p.fullmatch(uri) for p in (_PRIVATE, _CLAIMED, _LOOPBACK)):
            return (
                "must be a list of redirect URIs without a fragment: https://…, http://127.0.0.1/… or"
                " http://[::1]/… (any port), or a scheme with a dot like com.example.app:/…"
            )
    return not_empty(value)


@dataclass(frozen=True)
class NativeClient:
    """A public client (it can keep no secret): what the operator registered."""

    name: str = setting("What people read on the page that asks for their yes.", check=not_empty)
    redirect_uris: tuple[str, ...] = setting(
        "Where answers may go, compared character by character; on loopback the port is free (RFC 8252).",
        check=_are_redirect_uris,
    )

    def takes(self, redirect_uri: str) -> bool:
        """Whether answers may go to `redirect_uri`."""
        return any(_same(registered, redirect_uri) for registered in self.redirect_uris)


def are_clients(value: Mapping[str, NativeClient]) -> str | None:
    """Check of the setting: the ids."""
    if OWN_CLIENT in value or not all(_CLIENT_ID.fullmatch(client) for client in value):
        return (
            f"must be named by client ids of a-z, 0-9, '.', '_' and '-', {CLIENT_ID_MAX} characters at most,"
            f" other than {OWN_CLIENT!r}"
        )
    return None


def _same(registered: str, given: str) -> bool:
    if len(given) > REDIRECT_URI_MAX:
        return False
    ours = _LOOPBACK.fullmatch(registered)
    if ours is None:
        return registered == given
    theirs = _LOOPBACK.fullmatch(given)
    return theirs is not None and ours.groups() == theirs.groups()
