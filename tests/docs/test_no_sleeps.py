"""A test waits for what it waits for, never for a while: the clock of a busy machine proves nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REASON = "# sleeps:"
"""A sleep that is the deed itself, not a wait for one, says so in its line: a loop that is to stand still."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
# A loop asks again, or paces what it sends; what stands in a function of its own is not in the loop round it.
_LOOPS = (ast.While, ast.For, ast.AsyncFor)


def sleeps(source: str) -> list[int]:
    """Lines that sleep outside a loop without a reason; `sleep(0)` gives others their turn."""
    lines = source.splitlines()
    found = _sleeping(ast.parse(source), looping=False)
    return [n for n in found if REASON not in lines[n - 1]]


def _sleeping(node: ast.AST, *, looping: bool) -> Iterator[int]:
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, _LOOPS) or (looping and not isinstance(child, _SCOPES))
        if isinstance(child, ast.Call) and not inside and _is_sleep(child):
            yield child.lineno
        yield from _sleeping(child, looping=inside)


def _is_sleep(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    nothing = [isinstance(word, ast.Constant) and word.value == 0 for word in call.args[:1]]
    return name == "sleep" and nothing != [True]


def test_nothing_sleeps_and_hopes() -> None:
    files = [path for folder in ("tests", "testbed") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    assert {
        str(path.relative_to(ROOT)): found
        for path in files
        if "sleep" in (text := path.read_text("utf-8")) and (found := sleeps(text))
    } == {}


def test_who_sleeps_and_hopes_is_found() -> None:
    assert sleeps("async def test():\n    await asyncio.sleep(0.1)\n    assert done") == [2]
    assert sleeps("import time\ntime.sleep(WAIT_S)") == [2]
    assert sleeps("while True:\n    def later():\n        sleep(1)") == [3]
    assert sleeps("while not done():\n    await asyncio.sleep(0.1)") == []
    assert sleeps("await asyncio.sleep(0)") == []
    assert sleeps("time.sleep(1)  # sleeps: the loop is to stand still") == []
