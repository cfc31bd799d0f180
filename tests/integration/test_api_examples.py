"""docs/api.md as a reader has it: every command of the page, in order, in one shell, against a real site."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.processes import ROOT, short_folder, started
from testbed.settings_tables import ADMIN, PASSWORD
from testbed.small_site import SmallSite

PAGE = ROOT / "docs" / "api.md"
RUN_S = 120.0  # all commands together take about ten seconds
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MARK = "=== the example of line"


@dataclass(frozen=True)
class Example:
    """Commands of the page; `shown` is what it says that they print, None where it says nothing."""

    line: int
    commands: str
    shown: str | None


def fences(text: str) -> list[tuple[int, str, str]]:
    """(line, language, content) of every fenced block."""
    return [(text.count("\n", 0, one.start()) + 1, one[1], one[2]) for one in FENCE.finditer(text)]


def examples(text: str) -> list[Example]:
    """The `sh` blocks; a `text` block that follows one is its output."""
    found = [*fences(text), (0, "", "")]
    return [
        Example(line, content, following[2] if following[1] == "text" else None)
        for (line, language, content), following in itertools.pairwise(found)
        if language == "sh"
    ]


def script(of: list[Example]) -> str:
    """All of them for one shell, which stops at the first failure; each says first whose turn it is."""
    parts = (f"echo '{MARK} {one.line}'\n{one.commands}" for one in of)
    return "set -euo pipefail\n" + "\n".join(parts)


def printed(output: str) -> dict[int, str]:
    """What each example printed, by its line."""
    parts = output.split(f"{MARK} ")[1:]
    return {int(part.partition("\n")[0]): part.partition("\n")[2] for part in parts}


def pattern(shown: str) -> re.Pattern[str]:
    """`…` stands for what differs each time, within a line."""
    return re.compile(".+?".join(map(re.escape, shown.split("…"))))


@pytest.fixture(scope="module")
def site() -> Iterator[SmallSite]:
    """With the app and the devices that the page speaks of."""
    settings = "".join(content for _, language, content in fences(PAGE.read_text()) if language == "toml")
    with short_folder("api-") as folder, started(SmallSite(folder, settings=tomllib.loads(settings))) as site:
        owner = site.gateways.owner()
        for name in ("Demo device", "Second device"):
            site.add_device(name, owner)
        yield site


def test_every_command_of_the_page_does_what_the_page_says(site: SmallSite, tmp_path: Path) -> None:
    of = examples(PAGE.read_text())
    assert len(of) > 20
    done = subprocess.run(
        ["timeout", str(RUN_S), "bash", "-c", script(of)],  # so that what was said until then is shown
        cwd=tmp_path,
        env=os.environ | {"G": site.url, "NAME": ADMIN, "PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        timeout=RUN_S * 2,
        check=False,
    )
    said = printed(done.stdout)
    last = max(said)
    assert done.returncode == 0, f"docs/api.md, line {last}: {said[last]}{done.stderr[-2000:]}"
    for one in of:
        if one.shown is not None:
            told = said[one.line]
            assert pattern(one.shown).fullmatch(told), f"docs/api.md, line {one.line}: printed {told!r}"


def test_nothing_on_the_page_looks_like_a_command_and_is_not_run() -> None:
    text = PAGE.read_text()
    assert {language for _, language, _ in fences(text)} <= {"sh", "text", "toml", "json"}
    for line, language, content in fences(text):
        assert language == "sh" or "curl" not in content, f"line {line}"


def test_a_page_that_is_wrong_is_told() -> None:
    page = "```sh\necho a b\n```\n\n```text\na …\n```\n\nProse.\n\n```sh\ntrue\n```\n"
    first, second = examples(page)
    assert (first.line, first.shown, second.shown) == (1, "a …\n", None)
    assert pattern("a …\n").fullmatch("a b\n")
    assert not pattern("a …\n").fullmatch("b b\n")
    assert not pattern("a …\n").fullmatch("a b\nc\n")
    assert printed(f"{MARK} 1\na b\n{MARK} 10\n") == {1: "a b\n", 10: ""}
