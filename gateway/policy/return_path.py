"""Where a login may send the browser: a path of our own, and nothing that a browser reads otherwise."""

from __future__ import annotations

import re

# An app's request to log somebody in, with its redirect URI and state; the short-lived store takes 4 KiB.
RETURN_PATH_MAX = 2048
HOME = "/"

# Printable ASCII without blanks and without the backslash, which browsers read as a slash.
_OWN = re.compile(r"/(?!/)[\x21-\x5b\x5d-\x7e]*")


def return_path(text: str | None) -> str:
    """`text` when it is an absolute path of our own (a query may follow), `/` otherwise."""
    if text is None or len(text) > RETURN_PATH_MAX or _OWN.fullmatch(text) is None:
        return HOME
    return text
