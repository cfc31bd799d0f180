"""Lists in pages: one form of cursor for all of them.

A cursor says behind which item the next page begins, so that what comes and goes meanwhile neither repeats
nor hides an item. It is opaque: it names its list, and one of another list is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import wrong_field

# One page; an answer stays under 100 KB.
PAGE_MAX: Final = 200
PAGE_DEFAULT: Final = 100
CURSOR_MAX: Final = 512  # the longest position, a user's name of 64 characters, takes 400 in base64

Item = TypeVar("Item")


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str,
        Field(
            max_length=CURSOR_MAX, description="`next_cursor` of the page before; left out: the first page."
        ),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="Most items of the page.")] = PAGE_DEFAULT

    @property
    def asked(self) -> int:
        """How many items to look for: one more than the page has says whether there is another."""
        return self.limit + 1

    def after(self, list_name: str) -> str:
        """The position behind which the page begins, "" for the first one. 422 for no cursor of this list."""
        if not self.cursor:
            return ""
        try:
            raw = base64.b64decode(self.cursor + "=" * (-len(self.cursor) % 4), altchars=b"-_", validate=True)
            name, found, position = raw.decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            name, found, position = "", "", ""
        if (
            not found
            or name != list_name
            or not position
            or "\0" in position
            or cursor(name, position) != self.cursor
        ):
            raise wrong_field("cursor", "is no next_cursor of this list")
        return position

    def after_number(self, list_name: str) -> int | None:
        """As `after`, where positions are numbers below 2⁶³; None: the first page."""
        position = self.after(list_name)
        if not position:
            return None
        # isascii: other digits are decimal too; 18 of them stay below 2⁶³.
        if not (position.isascii() and position.isdecimal() and len(position) <= 18):
            raise wrong_field("cursor", "is no next_cursor of this list")
        return int(position)

    def cut(
        self, found: Sequence[Item], list_name: str, position: Callable[[Item], object]
    ) -> tuple[Sequence[Item], str | None]:
        """The page out of what `asked` found, and its `next_cursor`: None when that was all."""
        page = found[: self.limit]
        if len(found) <= self.limit:
            return page, None
        return page, cursor(list_name, str(position(page[-1])))


def cursor(list_name: str, position: str) -> str:
    """base64url of both, without padding."""
    return base64.urlsafe_b64encode(f"{list_name}:{position}".encode()).rstrip(b"=").decode("ascii")
