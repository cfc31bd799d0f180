"""How deep the core's stack can get on rv32imc: the longest way through the compiler's call graph.

A call through a pointer is followed to each function that the sources put into a member of that name; what
the port header offers is the way's end, since the port's own stack is not the core's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.build_firmware import FIRMWARE

SOURCES: Final = FIRMWARE / "core" / "src"
# Who holds a group of the port header, as the sources call it.
_PORT: Final = re.compile(
    r"(?:port|crypto|sys|kv|flash|link|mqtt|fetch|web|ota|network|provisioning|mqtt_of\(m\))->(\w+)\("
)
_MEMBER: Final = re.compile(r"(?:->|\.)((?:events->)?\w+)\(")
_PLAIN: Final = re.compile(r"\b(\w+)\(")
_NODE: Final = re.compile(r'node: \{ title: "([^"]+)" label: "[^"\\]*\\n[^"\\]*\\n(\d+) bytes \(static\)')
_EDGE: Final = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)" label: "([^:"]+):(\d+):')
_INDIRECT: Final = "__indirect_call"


class Unresolved(Exception):
    """A call through a pointer that the sources do not explain, or a function that calls itself."""


@dataclass
class Graph:
    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)

    def depth(self, function: str, under: tuple[str, ...] = ()) -> tuple[int, tuple[str, ...]]:
        """Bytes of the deepest way from there, and its functions."""
        if function in self._known:
            return self._known[function]
        if function in under:
            raise Unresolved(f"{' → '.join(under[under.index(function) :])} → {function}")
        deepest = 0
        way: tuple[str, ...] = ()
        for called in sorted(self.calls.get(function, ())):
            if called in self.frames:
                bytes_there, way_there = self.depth(called, (*under, function))
                if bytes_there > deepest:
                    deepest, way = bytes_there, way_there
        self._known[function] = (self.frames[function] + deepest, (function, *way))
        return self._known[function]

    def __post_init__(self) -> None:
        self._known: dict[str, tuple[int, tuple[str, ...]]] = {}


# Functions that are handed over as a parameter of that name.
_HANDED: Final = {
    "sink": {"found"},
    "piece": {"logs_piece", "settings_piece", "status_piece", "live_piece"},
    "end": {"restart", "reset"},
}
# Members that this device leaves NULL, and asks before it calls.
_UNSET: Final = {"update", "updated", "stop_update"}
_ROUTE: Final = ("begin", "on_body", "fill", "over")


def _name(title: str) -> str:
    """A static function bears its file: "ui.c:page_fill"; what the optimiser cloned is the function."""
    return title.rsplit("/", 1)[-1].split(".c:")[-1].split(".")[0]


def _title(title: str) -> str:
    file = title.rsplit("/", 1)[-1].split(":")[0] + ":" if ":" in title else ""
    return file + _name(title)


def _assigned() -> dict[str, set[str]]:
    """Functions that the sources put into members, by the member; routes and header rules by their places."""
    found = {member: set(functions) for member, functions in _HANDED.items()}

    def put(member: str, path: Path, function: str) -> None:
        found.setdefault(member, set()).update({function, f"{path.name}:{function}"})

    for path in SOURCES.glob("*.c"):
        text = path.read_text()
        events = "".join(re.findall(r"tl_mux_events \w+ = \{(.*?)\};", text, re.DOTALL))
        for member, function in re.findall(r"\.(\w+) = &?(\w+)[,}\s]", text):
            put(f"events->{member}" if f".{member} = {function}," in events else member, path, function)
        for row in re.findall(r'\{"[A-Z]+", "/[^}]*\}', text):
            for member, function in zip(_ROUTE, row.strip("{}").split(",")[4:], strict=True):
                put(member, path, function.strip())
        for function in re.findall(r'\{"[a-z-]+", (take_\w+)\}', text):
            put("take", path, function)
    return found


def _targets(line: str, assigned: dict[str, set[str]], functions: set[str]) -> set[str]:
    """Where a call through a pointer in that line may go; none: into the port."""
    if _PORT.search(line):
        return set()
    for name in _MEMBER.findall(line) or _PLAIN.findall(line):
        if name in _UNSET:
            return set()
        given = assigned.get(name, set())
        if targets := {
            function
            for function in functions
            if function in given or _name(function) in _HANDED.get(name, ())
        }:
            return targets
    raise Unresolved(line.strip())


def read(rv32: Path) -> Graph:
    """The core's call graph.

    Raises:
        Unresolved: a pointer leads who knows where.
    """
    graph = Graph()
    edges: list[tuple[str, str, str, int]] = []
    for path in sorted((rv32 / "core").rglob("*.ci")):
        text = path.read_text()
        for title, size in _NODE.findall(text):
            graph.frames[_title(title)] = max(int(size), graph.frames.get(_title(title), 0))
        edges += [(_title(a), _title(b), file, int(line)) for a, b, file, line in _EDGE.findall(text)]
    assigned, functions = _assigned(), set(graph.frames)
    lines: dict[str, list[str]] = {}
    for caller, called, file, line in edges:
        targets = {called}
        if called == _INDIRECT:
            source = lines.setdefault(file, Path(file).read_text().splitlines())
            targets = _targets(source[line - 1], assigned, functions)
        graph.calls.setdefault(caller, set()).update(targets)
    return graph
