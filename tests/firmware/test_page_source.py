"""The page as the build takes it: small enough, and nothing runs in it that its policy does not name."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from scripts.build_firmware import FIRMWARE

WEB = FIRMWARE / "web"
LARGE = "".join(sha256(bytes(divmod(at, 256))).hexdigest() for at in range(700))  # does not shrink to 12 KiB
SMALL = "<style>a {}</style><script>1</script>\n"


def made(page: Path, folder: Path) -> str:
    """The C source; ValueError with what the script said where it refuses."""
    out = folder / "page.c"
    command = [sys.executable, str(WEB / "page_to_c.py"), str(page), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return out.read_text()


def page_in(source: str) -> str:
    digits = re.findall(r"0x([0-9a-f]{2}),", source)
    return gzip.decompress(bytes.fromhex("".join(digits))).decode()


def test_the_policy_names_the_one_script_and_the_one_style(tmp_path: Path) -> None:
    source = made(WEB / "page.html", tmp_path)
    page = page_in(source)
    for element in ("script", "style"):
        (inner,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert f"{element}-src 'sha256-{b64encode(sha256(inner.encode()).digest()).decode()}'" in source
    assert not re.search(r'\son[a-z]+="|\sstyle="|javascript:', page)  # the policy would not let them work


def test_the_same_page_is_the_same_bytes(tmp_path: Path) -> None:
    assert made(WEB / "page.html", tmp_path) == made(WEB / "page.html", tmp_path)


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (SMALL + "<script>2</script>", "2 <script>"),
        (SMALL.replace("style", "b"), "0 <style>"),
        (SMALL + LARGE, "may have 12288"),
    ],
)
def test_another_page_is_refused(tmp_path: Path, page: str, why: str) -> None:
    html = tmp_path / "page.html"
    html.write_text(page)
    with pytest.raises(ValueError, match=re.escape(why)):
        made(html, tmp_path)
