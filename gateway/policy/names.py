"""What people and devices may be called. Hostile text is allowed where people type it: pages escape it."""

from __future__ import annotations

import re
import unicodedata

DEVICE_NAME_MAX = 64  # fits a table cell and a certificate field
HARDWARE_ID_MAX = 128  # the longest seen in the field are serial ‖ MAC ‖ model strings under 100
SERVICE_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")  # the protocol's token rule
DEVICE_ID_PATTERN = re.compile(r"d_[a-z2-7]{16}")
ORG_ID_PATTERN = re.compile(r"o_[a-z2-7]{16}")
SITE_ID_PATTERN = re.compile(r"s_[a-z2-7]{16}")
DEVICE_TYPE_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")  # a token of topics
NODE_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a DNS label: it becomes a CN and a SAN


TAG_PATTERN = re.compile(r"[a-z0-9][a-z0-9._:-]{0,31}")
TAGS_MAX = 16  # more is a database of one's own
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str, maximum: int) -> str:
    """Foreign text made fit to store and show: at most `maximum` characters, odd ones replaced."""
    return "".join("\ufffd" if unicodedata.category(c) in _INVISIBLE else c for c in text[:maximum])


def clean_name(text: str, maximum: int = DEVICE_NAME_MAX) -> str:
    """The text without surrounding blanks.

    ValueError when nothing is left, it is longer than `maximum`, or it holds control, format or
    line-breaking characters (they turn lists and logs around: bidi overrides, zero-width twins).
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= maximum:
        raise ValueError(f"must have 1..{maximum} characters")
    if any(unicodedata.category(c) in _INVISIBLE for c in name):
        raise ValueError("must not hold control or invisible characters")
    return name
