"""The documents name files; a file that moved must not leave a wrong name behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["architecture.md", "proofs.md", "life-of-a-request.md", "threat-model.md", "runbook.md"]
_NAMED = re.compile(r"`([a-z_]+(?:/[a-z_]+)*/?(?:[a-z_]+\.(?:py|js|sql|service|md))?)`")
_LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def named_paths(text: str) -> list[str]:
    return [name for name in _NAMED.findall(text) if "/" in name]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    """A path counts from the root, or, in a tunnel server's paragraph, from `tunnel_server/`."""
    missing = [
        name
        for name in named_paths((ROOT / "docs" / document).read_text())
        if not (ROOT / name).exists() and not (ROOT / "tunnel_server" / name).exists()
    ]
    assert missing == []


def test_linked_files_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    missing = [
        f"{page.relative_to(ROOT)} → {link}"
        for page in pages
        for link in _LINKED.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert missing == []


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(words, key=str.lower)
