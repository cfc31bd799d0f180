"""Schemas mean here what they mean to a validator that is not ours; what they cannot say is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_protocol.schema import DEPTH_MAX, PATTERN_STEPS_MAX, Pattern, Schema, SchemaError
from device_protocol.schemas import PUBLISHED

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "device-v1.json").read_text("utf-8")
)
NAMES = st.sampled_from(["a", "b", "level", "name"])
WORDS = st.sampled_from(["", "a", "b", "ab", "aab", "level", "-", "ä", "a\n", "7"])
NUMBERS = st.one_of(st.integers(-5, 5), st.sampled_from([0.5, -2.5, 1e300]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), WORDS)
COUNTS = st.integers(0, 3)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"])
PATTERNS = st.sampled_from(["^a$", "^a?b{0,2}$", "^[a-z]{1,3}$", "^[^a]{2}$", "^\\-$", "^[0-9]{0,2}$", "^$"])


def schemas_of(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=3, unique=True)),
            "const": SCALARS,
            "enum": st.lists(SCALARS, min_size=1, max_size=3),
            "minimum": NUMBERS,
            "maximum": NUMBERS,
            "minLength": COUNTS,
            "maxLength": COUNTS,
            "pattern": PATTERNS,
            "minItems": COUNTS,
            "maxItems": COUNTS,
            "items": inner,
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "propertyNames": st.fixed_dictionaries({"pattern": PATTERNS}),
            "maxProperties": COUNTS,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    )


SCHEMAS = st.recursive(st.fixed_dictionaries({"type": TYPES}), schemas_of, max_leaves=4)


@given(SCHEMAS, VALUES)
def test_a_foreign_validator_says_the_same(source: dict[str, Any], value: object) -> None:
    ours = Schema(source).fault(value)
    assert (ours is None) == jsonschema_rs.is_valid(source, value), ours
    assert ours is None or ours.isprintable()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schemas_are_schemas(name: str) -> None:
    jsonschema_rs.meta.validate(PUBLISHED[name])
    Schema(PUBLISHED[name])


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["name"])
def test_published_schemas_take_every_good_message(case: dict[str, Any]) -> None:
    message = json.loads(bytes.fromhex(case["hex"]))
    if case["name"] != "a floor where none is needed is ignored":  # the schema does not know the kind
        jsonschema_rs.validate(PUBLISHED["envelope"], message)
    kind = "state-config" if case["kind"] == "state" and case["type"] == "config" else case["kind"]
    jsonschema_rs.validate(PUBLISHED[kind], message["payload"])


@pytest.mark.parametrize("case", VECTORS["told"], ids=lambda case: case["name"])
def test_published_schemas_take_what_a_device_is_told(case: dict[str, Any]) -> None:
    if case["what"] is not None:
        jsonschema_rs.validate(PUBLISHED[case["kind"]], json.loads(bytes.fromhex(case["hex"])))


# What the words of the specification say and no schema of this kind can.
BEYOND_SCHEMAS = {
    *("ack done without ok", "ack received with ok", "a result of 4097 bytes", "sensors of 513 bytes"),
    *("floor [7,42]", "prev [7,42]", "floor [8,0]", "prev [8,0]", "no floor"),
    *("seq 0", "boot 0", "a boot's first message without prev", "hello that is numbered"),
    *(
        "seq 1.0",
        "boot 7.0",
        "floor [7,1.0]",
        "prev [7,1.0]",
        "ts 1e12",
        "seq 4.2e1",
    ),  # integers to the draft
}


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS["bad"] if case["reason"] == "bad_schema"],
    ids=lambda case: case["name"],
)
def test_published_schemas_refuse_what_is_refused(case: dict[str, Any]) -> None:
    message = json.loads(bytes.fromhex(case["hex"]))
    payload = message.get("payload") if isinstance(message, dict) else None
    kind = "state-config" if "report" in case["name"] else case["kind"]
    taken = jsonschema_rs.is_valid(PUBLISHED["envelope"], message) and jsonschema_rs.is_valid(
        PUBLISHED[kind], payload
    )
    assert taken == (case["name"] in BEYOND_SCHEMAS)


@pytest.mark.parametrize(
    "source",
    [
        *(None, [], "object", True, 1),
        *({"type": "int"}, {"type": []}, {"type": [1]}, {"type": {}}),
        *({"oneOf": []}, {"$ref": "#"}, {"format": "date"}, {"multipleOf": 2}, {"patternProperties": {}}),
        *({"enum": 1}, {"enum": [[1]]}, {"const": {}}, {"anyOf": []}, {"anyOf": {}}, {"anyOf": [1]}),
        *({"type": None}, {"minimum": "1"}, {"maximum": True}, {"minLength": -1}, {"maxItems": 1.5}),
        {"maxProperties": None},
        *({"items": []}, {"properties": []}, {"properties": {"a": 1}}, {"required": "a"}, {"required": [1]}),
        *({"additionalProperties": 1}, {"propertyNames": []}, {"pattern": 1}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_schema_is_refused(source: object) -> None:
    with pytest.raises(SchemaError):
        Schema(source)


def test_a_schema_that_nests_too_deep_is_refused() -> None:
    source: dict[str, Any] = {"type": "string"}
    for _ in range(DEPTH_MAX):
        source = {"items": source}
    Schema(source)
    with pytest.raises(SchemaError):
        Schema({"items": source})


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "^a", "a$", "", "^", "^(a)$", "^a|b$", "^a*$", "^a+$", "^a{1,}$", "^.$", "^a??$", "^a{2}{3}$"),
        *("^\\d$", "^\\w$", "^[\\d]$", "^[a$", "^a]$", "^[]$", "^[a-z&&b]$", "^[a--b]$", "^[z-a]$"),
        *("^a{3,2}$", "^a^$", "^\\$"),
        "^" + "[a-z]{0,64}" * 3 + "$",
        "^" + "a?" * 17 + "$",
    ],
)  # fmt: skip
def test_patterns_that_are_not_taken(pattern: str) -> None:
    with pytest.raises(SchemaError):
        Pattern(pattern)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "[a-z]", "[^b]", "\\.", "-", "[0-9_]"]),
            st.sampled_from(["", "?", "{2}", "{0,3}", "{1,2}"]),
        ),
        max_size=5,
    ),
    st.text("ab.-_0\n", max_size=8),
)
def test_patterns_match_the_whole_text(atoms: list[tuple[str, str]], text: str) -> None:
    inner = "".join(atom + often for atom, often in atoms)
    assert Pattern(f"^{inner}$").matches(text) == (re.fullmatch(inner, text) is not None)


def test_the_worst_pattern_is_quick() -> None:
    """As many ways as there may be, and a text that takes all of them: its time is bounded by the test's."""
    worst = Pattern("^" + "a{0,255}" * 2 + "b$")
    assert PATTERN_STEPS_MAX == 256 * 256
    for _ in range(20):
        assert not worst.matches("a" * 24_000)


def test_faults_are_said_by_names_that_the_schema_has() -> None:
    schema = Schema(
        {
            "type": "object",
            "properties": {"level": {"type": "string", "enum": ["debug"]}, "list": {"items": {"minimum": 1}}},
            "required": ["level"],
            "additionalProperties": False,
        }
    )
    assert schema.fault({"level": "debug"}) is None
    assert schema.fault({}) == "level: missing"
    assert schema.fault({"level": "s3cret"}) == "level: none of the values it may be"
    assert schema.fault({"level": "debug", "s3cret": 1}) == "a member: not one that there may be"
    assert schema.fault({"level": "debug", "list": [1, 0]}) == "list: an item: below 1"
    assert schema.fault([]) == "of another type"
