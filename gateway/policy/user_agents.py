"""A browser's User-Agent in a few words, so that people recognise their own logins. It proves nothing."""

from __future__ import annotations

import re

SHORT_MAX = 60  # a table cell
UNKNOWN = "unknown"

# In this order: each names those below it too ("Edg" also says Chrome and Safari).
_PROGRAMS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("HeadlessChrome", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_PRODUCT = re.compile(r"[A-Za-z0-9._+ -]+(?:/[0-9.]+)?")


def short_user_agent(header: str | None) -> str:
    """ "Firefox on Linux", "curl/8.5.0"; empty when the header says nothing."""
    if not header:
        return ""
    program = next((name for token, name in _PROGRAMS if f"{token}/" in header), None)
    system = next((name for token, name in _SYSTEMS if token in header), None)
    if program is not None:
        return program if system is None else f"{program} on {system}"
    match = _PRODUCT.match(header)
    return match[0].strip()[:SHORT_MAX] if match else UNKNOWN
