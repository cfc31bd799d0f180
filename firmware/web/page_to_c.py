"""Writes the device's page as C: page_to_c.py page.html OUT.c (the names: core/include/towline/ui.h).

The page is one file, so that it costs one stream; what the browser may run of it is told by digests (CSP 3,
section 8.4), so that nothing else ever runs, whatever gets into the page.
"""

from __future__ import annotations

import gzip
import re
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

LARGEST: Final = 12 * 1024  # bytes of gzip: it stands in the flash, and leaves through a thin line
_BYTES_A_LINE: Final = 24
_ELEMENT: Final = r"<{0}>(.*?)</{0}>"


def shrunk(page: str) -> str:
    """Without indentation and empty lines; the lines stay, so that a browser's messages can name one."""
    return "\n".join(line.strip() for line in page.splitlines() if line.strip()) + "\n"


def digest_of(page: str, element: str) -> str:
    """The one element's digest as a policy names it."""
    found = re.findall(_ELEMENT.format(element), page, re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"the page has {len(found)} <{element}>, and may have one")
    return f"'sha256-{b64encode(sha256(found[0].encode()).digest()).decode()}'"


def policy_of(page: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"script-src {digest_of(page, 'script')}",
            f"style-src {digest_of(page, 'style')}",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def source_of(page: str) -> str:
    """SystemExit where the page is too large."""
    small = gzip.compress(page.encode(), 9, mtime=0)
    if len(small) > LARGEST:
        raise SystemExit(f"the page has {len(small)} bytes, and may have {LARGEST}")
    rows = [small[at : at + _BYTES_A_LINE] for at in range(0, len(small), _BYTES_A_LINE)]
    body = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    return f"""/* Written by page_to_c.py from page.html. */
#include "towline/ui.h"

const uint8_t tl_page[] = {{
{body}
}};
const uint32_t tl_page_size = {len(small)};
const char tl_page_etag[] = "\\"{sha256(small).hexdigest()[:16]}\\"";
const char tl_page_policy[] = "{policy_of(page)}";
"""


def main(given: Path, wanted: Path) -> None:
    wanted.write_text(source_of(shrunk(given.read_text(encoding="utf-8"))), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
