"""docs/api-reference.md, written from the OpenAPI document that the gateway serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.api.app import documented_routes
from gateway.api.credentials import ANYBODY, DEVICE
from gateway.api.openapi import describe
from gateway.policy.access import RULES, Action
from gateway.problem_codes import CODES

_METHODS = ("get", "post", "put", "patch", "delete")
_PROBLEM_TYPE = "application/problem+json"
_INTRODUCTION = (
    "Every public route, from the document at `/v1/openapi.json`. [api.md](api.md) is the guide: how a\n"
    "request is authenticated, what all answers have in common, and examples that work.\n"
)


def api_reference() -> str:
    """The whole page."""
    document = describe(documented_routes(), "https://gateway.example.com")
    reference = _Reference(document["components"]["schemas"])
    parts = [
        "# The gateway's routes\n\n<!-- Written by `make docs`; change the code, not this file. -->\n",
        _INTRODUCTION,
    ]
    for tag in document["tags"]:
        parts.append(f"\n## {tag['name'].capitalize()}\n\n{tag['description']}\n")
        for path, operations in document["paths"].items():
            for method in _METHODS:
                operation = operations.get(method)
                if operation is not None and tag["name"] in operation["tags"]:
                    parts += reference.route(method.upper(), path, operation)
    parts += ["\n## Problem codes\n\n| status | code | meaning |\n|---|---|---|\n"]
    for code, one in sorted(CODES.items(), key=lambda pair: (pair[1].status, pair[0])):
        said = f"internal: {one.meaning}" if one.internal else one.meaning
        parts.append(f"| {int(one.status)} | `{code}` | {_cell(said)} |\n")
    return "".join(parts)


class _Reference:
    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas = schemas

    def route(self, method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
        yield f"\n### `{method} {path}`\n\n{operation['description'].strip()}\n\n"
        yield f"For: {_who(operation.get('x-towline-access'))}.\n"
        yield from self._parameters(operation.get("parameters", []))
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            form = "" if kind == "application/json" else f" (`{kind}`)"
            yield f"\nBody{form}:\n\n"
            yield from self._members(content["schema"])
        yield from self._answers(operation["responses"])

    def _parameters(self, parameters: list[dict[str, Any]]) -> Iterator[str]:
        if parameters:
            yield "\n| parameter | in | type | what it is |\n|---|---|---|---|\n"
        for one in parameters:
            schema = one.get("schema", {})
            name = f"`{one['name']}`" + (" (required)" if one.get("required") else "")
            text = one.get("description") or schema.get("description") or ""
            yield f"| {name} | {one['in']} | {_cell(self._type(schema))} | {_cell(text)} |\n"

    def _answers(self, responses: dict[str, Any]) -> Iterator[str]:
        refusals = []
        for status, answer in sorted(responses.items()):
            for kind, content in answer.get("content", {}).items():
                if kind == _PROBLEM_TYPE:
                    codes = content["schema"]["allOf"][1]["properties"]["code"]["enum"]
                    refusals.append(f"{status} " + ", ".join(f"`{code}`" for code in codes))
                elif kind == "application/json" and content.get("schema"):
                    yield f"\nAnswers `{status}`: {self._type(content['schema'])}\n\n"
                    yield from self._members(content["schema"])
                else:
                    yield f"\nAnswers `{status}`: `{kind}`\n"
            if not answer.get("content"):
                yield f"\nAnswers `{status}`, without a body.\n"
        if refusals:
            yield "\nProblems: " + "; ".join(refusals) + ".\n"

    def _members(self, schema: dict[str, Any]) -> Iterator[str]:
        """The members of an object; of a list's `items` those of one item."""
        whole = self._resolve(schema)
        if whole.get("description"):
            yield f"{whole['description'].strip()}\n\n"
        properties = whole.get("properties", {})
        if not properties:
            return
        yield "| member | type | what it is |\n|---|---|---|\n"
        required = set(whole.get("required", ()))
        for name, member in properties.items():
            optional = "" if name in required else "?"
            text = member.get("description", "")
            yield f"| `{name}`{optional} | {_cell(self._type(member))} | {_cell(text)} |\n"
        items = properties.get("items")
        if items is not None and items.get("type") == "array":
            yield "\nEach of `items`:\n\n"
            yield from self._members(items["items"])

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        for one in schema.get("anyOf", ()):
            if "$ref" in one:
                return self._resolve(one)
        if "$ref" in schema:
            found: dict[str, Any] = self._schemas[schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def _type(self, schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            whole = self._resolve(schema)
            return self._type(whole) if "enum" in whole else schema["$ref"].rpartition("/")[2]
        if "anyOf" in schema:
            return " or ".join(self._type(one) for one in schema["anyOf"])
        if "enum" in schema or "const" in schema:
            return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
        if schema.get("type") == "array":
            return f"list of {self._type(schema.get('items', {}))}"
        said = str(schema.get("type", "any"))
        bounds = [
            f"{word} {schema[key]}"
            for key, word in (
                ("minimum", "from"),
                ("maximum", "to"),
                ("minLength", "at least"),
                ("maxLength", "at most"),
            )
            if key in schema
        ]
        default = schema.get("default")
        if default not in (None, "", []):
            bounds.append(f"default `{default}`")
        form = f" ({schema['format']})" if "format" in schema else ""
        return said + form + (", " + ", ".join(bounds) if bounds else "")


def _who(access: str | None) -> str:
    """Who may call it, out of the one policy."""
    if access == ANYBODY:
        return "anybody"
    if access == DEVICE:
        return "a device, by a secret or a signature of its own"
    rule = RULES[Action(str(access))]
    ways = []
    if rule.anyone:
        ways.append("everybody who is logged in")
    if rule.roles:
        ways.append("there " + ", ".join(role.word for role in sorted(rule.roles, reverse=True)))
    if rule.mine:
        ways.append("whose own it is")
    if rule.consented:
        ways.append("support with the owner's consent")
    ways += [f"staff of kind {staff.value}" for staff in sorted(rule.staff)]
    token = "no API token" if rule.scope is None else f"API tokens with `{rule.scope.value}`"
    return f"{'; '.join(ways)} ({token})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()
