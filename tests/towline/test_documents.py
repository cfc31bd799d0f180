from __future__ import annotations

from pathlib import Path

import pytest

from towline.documents import DOCUMENTS, main

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_documents_are_those_of_this_code(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == DOCUMENTS[name](), "run `make docs`"


def test_every_setting_and_metric_is_explained() -> None:
    for name in ("settings.md", "metrics.md"):
        for line in DOCUMENTS[name]().splitlines():
            if line.startswith("| `"):
                assert len(line.rstrip("| ").rsplit("|", 1)[1].strip()) > 5, line


def test_all_documents_are_written(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    written = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(written) == sorted(DOCUMENTS)
