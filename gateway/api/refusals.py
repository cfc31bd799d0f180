"""Which problems a route may answer with, read from the code of the route and of what it calls.

The reference must not promise less than what comes. A list beside each route would be forgotten at the next
`raise`; the raise itself is not.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Final, get_type_hints

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.parts import GatewayParts
from gateway.policy.links import LinkRefusal
from gateway.problem_codes import CODES

# Codes that are looked up when the problem is made: the function that makes it → what it may be.
LOOKED_UP: Final[dict[str, frozenset[str]]] = {
    "gateway.api.links.link_problem": frozenset(refusal.value for refusal in LinkRefusal),
    "gateway.api.provider_login._told": frozenset({"account_disabled", "email_domain", "no_account"}),
    "gateway.api.app._on_http": frozenset({"not_found", "method_not_allowed", "too_large", "bad_request"}),
    "gateway.internal.routes.authenticate": frozenset({"pending", "revoked"}),
}
# Using one of these parts may find its server away.
_STORES: Final = frozenset({"database", "shortlived"})
_LOGIN: Final = "gateway.api.credentials.logged_in"
# `parts.events.join`: what the parts are.
_PARTS: Final = get_type_hints(GatewayParts)


class UnknownCodeError(Exception):
    """A problem is made with a code that cannot be read from the code, nor stands in LOOKED_UP."""


def codes_of_route(route: APIRoute) -> frozenset[str]:
    """The codes of the route's own problems, without those of bodies and parameters in general."""
    found: set[str] = set()
    for function in _functions_of(route.dependant):
        found |= _codes(function)
    return frozenset(found)


def needs_login(route: APIRoute) -> bool:
    """Whether the route asks who the person is, in any way."""
    return any(_name(one) == _LOGIN for one in _closure(route))


def _closure(route: APIRoute) -> set[FunctionType]:
    seen: set[FunctionType] = set()
    todo = list(_functions_of(route.dependant))
    while todo:
        function = todo.pop()
        if function not in seen:
            seen.add(function)
            todo += _called(function)
    return seen


def _functions_of(dependant: Dependant) -> Iterator[FunctionType]:
    if isinstance(dependant.call, FunctionType):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _functions_of(inner)


@cache
def _codes(function: FunctionType) -> frozenset[str]:
    """Of the function and of all it calls in the gateway."""
    seen: set[FunctionType] = set()
    todo, found = [function], set[str]()
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            found |= _own_codes(one)
            todo += _called(one)
    return frozenset(found)


@cache
def _own_codes(function: FunctionType) -> frozenset[str]:
    found: set[str] = set()
    node = _definition(function)
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Attribute) and part.attr in _STORES:
            found.add("store_unavailable")
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "Problem":
            found |= _codes_of_call(part, _name(function))
    return frozenset(found)


def _codes_of_call(call: ast.Call, where: str) -> frozenset[str]:
    code = call.args[1] if len(call.args) > 1 else None
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        return frozenset({code.value})
    if isinstance(code, ast.JoinedStr):
        parts = (re.escape(str(v.value)) if isinstance(v, ast.Constant) else "[a-z_]+" for v in code.values)
        pattern = re.compile("".join(parts))
        status = call.args[0].attr if isinstance(call.args[0], ast.Attribute) else None
        return frozenset(
            known
            for known, one in CODES.items()
            if pattern.fullmatch(known) and status in {None, one.status.name}
        )
    if where in LOOKED_UP:
        return LOOKED_UP[where]
    raise UnknownCodeError(f"{where}: say in LOOKED_UP which codes this can be")


@cache
def _called(function: FunctionType) -> tuple[FunctionType, ...]:
    """What it names of the gateway's functions: called, or handed on to be called."""
    node = _definition(function)
    found = []
    for part in ast.walk(node) if node is not None else ():
        target = None
        if isinstance(part, ast.Name):
            target = function.__globals__.get(part.id)
        elif isinstance(part, ast.Attribute):
            owner = _owner(function, part.value)
            target = getattr(owner, part.attr, None) if isinstance(owner, ModuleType | type) else None
        target = inspect.unwrap(target) if callable(target) else None
        if isinstance(target, FunctionType) and target.__module__.startswith("gateway."):
            found.append(target)
    return tuple(found)


def _owner(function: FunctionType, value: ast.expr) -> object:
    """Whose attribute it is: a module's or class's that the file knows, its own class's, or a part's."""
    if isinstance(value, ast.Name):
        name = function.__qualname__.partition(".")[0] if value.id == "self" else value.id
        return function.__globals__.get(name)
    return _PARTS.get(value.attr) if isinstance(value, ast.Attribute) else None


def _definition(function: FunctionType) -> ast.AST | None:
    return _definitions(function.__code__.co_filename).get(function.__qualname__)


@cache
def _definitions(filename: str) -> dict[str, ast.AST]:
    """Functions and methods of a file by their qualified name; nested ones are within those."""
    found: dict[str, ast.AST] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + child.name] = child
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(Path(filename).read_text("utf-8")), "")
    return found


def _name(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"
