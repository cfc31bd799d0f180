"""What people may be called, and a new person's name from what a provider says about them.

People type it there: it proves nothing. Whoever has another name from before the rule keeps it, and logs in
with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator

USERNAME_MAX = 32  # fits the header of a phone's page; the schema takes 64
# Names that would pass for somebody who speaks for the installation.
RESERVED = frozenset({"admin", "administrator", "root", "support", "system", "towline", "security"})
FALLBACK = "user"
_NUMBERED = 20  # then a random end is surer than counting on

_UNWANTED = re.compile(r"[^a-z0-9._-]+")
_EDGES = "._-"


def clean_username(text: object) -> str | None:
    """`text` in small ASCII letters, digits, dot, dash and underscore; None when nothing is left.

    ASCII alone: two names that look the same are the same. Of an address only the part before the @.
    """
    if not isinstance(text, str):
        return None
    plain = unicodedata.normalize("NFKD", text[: 4 * USERNAME_MAX]).casefold().partition("@")[0]
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return _UNWANTED.sub("-", plain).strip(_EDGES)[:USERNAME_MAX].strip(_EDGES) or None


USERNAME_RULE = (
    f"must be 1..{USERNAME_MAX} of a-z, 0-9, dot, dash and underscore, none of these three at its ends"
)


def is_username(text: str) -> bool:
    """Whether somebody new may be called so: one alphabet, one case, so that no two names look alike."""
    return clean_username(text) == text


def usernames(wishes: Collection[object], reserved: Collection[str], random_end: str) -> Iterator[str]:
    """Names to try, in order, until one is free: the first usable wish, the same numbered, and one with
    `random_end`, which nobody has.

    `reserved`: more names that must not be given, in any spelling.
    """
    taken = RESERVED | {name.casefold() for name in reserved} | set(map(clean_username, reserved))
    names = [name for name in map(clean_username, wishes) if name is not None and name not in taken]
    base = names[0] if names else FALLBACK
    if base != FALLBACK:
        yield base
    for number in range(2, _NUMBERED):
        yield _with_end(base, str(number))
    yield _with_end(base, random_end)


def _with_end(base: str, end: str) -> str:
    return f"{base[: USERNAME_MAX - len(end) - 1]}-{end}"
