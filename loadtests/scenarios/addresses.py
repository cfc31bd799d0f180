"""A loopback address for each visitor, so that limits for one address see them as in life. Pure."""

from __future__ import annotations

from itertools import count

_FIRST = 2  # 127.0.0.1 is everybody else
_PER_BLOCK = 250
_BLOCKS = 250 * 250


def loopback_address(number: int) -> str:
    """The `number`-th visitor's address in 127.0.0.0/8, all of which is this machine on Linux."""
    block, last = divmod(number, _PER_BLOCK)
    high, low = divmod(block % _BLOCKS, 250)
    return f"127.{high + 1}.{low}.{last + _FIRST}"


visitor_numbers = count()
