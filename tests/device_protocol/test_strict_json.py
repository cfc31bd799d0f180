"""Only JSON that every parser reads alike, and every row can hold, comes through; all of that does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_protocol.strict_json import DEPTH_MAX, Fault, StrictJsonError, dumps, loads

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_values_come_through(value: object, escaped: bool, indent: int | None) -> None:
    """Written by another's writer, in any of its ways."""
    raw = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    if depth(value) > DEPTH_MAX:
        with pytest.raises(StrictJsonError):
            loads(raw)
    else:
        assert loads(raw) == value
        assert loads(dumps(value)) == value


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
)
@example(b'{"a":1}\0')
@example(b"1" * 5000)
@example(b'"\\ud83c\\udf31"')
def test_what_comes_through_is_read_alike_by_another_parser(raw: bytes) -> None:
    try:
        value = loads(raw)
    except StrictJsonError:
        return
    assert value == json.loads(raw)
    assert depth(value) <= DEPTH_MAX
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")  # no NaN, no half pair
    assert "\\u0000" not in json.dumps(value).replace("\\\\", "")


@given(VALUES, st.data())
def test_a_member_that_is_there_twice(value: object, data: st.DataObject) -> None:
    name = data.draw(TEXTS)
    one, other = json.dumps(name), json.dumps(name, ensure_ascii=False)
    inner = json.dumps(value)
    with pytest.raises(StrictJsonError) as refused:
        loads(f'{{{one}:1,"between":{inner},{other}:2}}'.encode())
    if depth(value) < DEPTH_MAX and name != "between":
        assert (refused.value.fault, refused.value.member) == (Fault.TWICE, name)


@given(st.sampled_from("[{"), st.integers(1, 40), TEXTS)
def test_how_deep(bracket: str, levels: int, text: str) -> None:
    opening, closing = ("[", "]") if bracket == "[" else ('{"a":', "}")
    noise = json.dumps(text + '[{"' * 20)  # brackets in a string are none
    raw = (opening * levels + noise + closing * levels).encode()
    if levels > DEPTH_MAX:
        with pytest.raises(StrictJsonError) as refused:
            loads(raw)
        assert refused.value.fault is Fault.TOO_DEEP
    else:
        assert depth(loads(raw)) == levels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("-0.0", -0.0),
        ("1e-999", 0.0),
        ("9" * 300, int("9" * 300)),
        ('"\\\\u0000"', "\\u0000"),
        ('"\\ud83c\\udf31"', "🌱"),
        ('"\\u007f\\u2028"', "\x7f\u2028"),
    ],
)
def test_the_edge_of_what_comes_through(text: str, value: object) -> None:
    assert loads(text.encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E+0400", "1.0e00400", "9" * 250 + "e99"),
        *("9" * 400, "-" + "9" * 400, "9" * 20_000),
        *('"\t"', '"\0"'),
        *("", " ", "01", "+1", ".5", "1.", "0x1", "1_000", "'a'", "[1,]", "{a:1}", "// x\n1", "1 1"),
        *("nul", "\ufeff1"),
        *('"\\x41"', '"\\u12"', '"abc', "[", "]", '{"a"}', '{1:2}', "True", '"a" "b"'),
    ],
)  # fmt: skip
def test_what_does_not_come_through(text: str) -> None:
    with pytest.raises(StrictJsonError) as refused:
        loads(text.encode())
    assert refused.value.fault is Fault.NO_JSON


@pytest.mark.parametrize(
    ("text", "where"),
    [
        *(('"\\u0000"', ""), ('"\\ud800"', ""), ('"\\udfff\\ud800"', ""), ('{"\\u0000":1}', "")),
        *(
            ('[{"a":["","\\udc00"]}]', "0.a.1"),
            ('{"b":{"\\ud800":"x"}}', "b"),
            ('{"name":"a\\u0000"}', "name"),
        ),
    ],
)
def test_text_that_no_column_takes_is_named_by_its_place(text: str, where: str) -> None:
    with pytest.raises(StrictJsonError) as refused:
        loads(text.encode())
    assert (refused.value.fault, refused.value.member) == (Fault.ODD_TEXT, where)


@pytest.mark.parametrize(
    "raw", [b"\xff", b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"']
)
def test_what_is_no_utf_8(raw: bytes) -> None:
    with pytest.raises(StrictJsonError) as refused:
        loads(raw)
    assert refused.value.fault is Fault.NO_UTF8


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": -math.inf}, "\ud800", object()])
def test_what_is_not_written(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        dumps(value)


@pytest.mark.parametrize(
    "raw",
    [
        b'"\\"' * 16_000,  # quotes that open a string over and over
        b'["' + b'\\"' * 500_000,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'"' * 1_000_001,
        b"[" * 20 + b'"' + b"\\" * 1_000_001,
    ],
    ids=["pairs", "escapes", "lists", "objects", "quotes", "backslashes"],
)
def test_hostile_text_costs_one_look_at_each_character(raw: bytes) -> None:
    """Looked at again from each quote a megabyte would take hours: the test's time limit is the proof."""
    with pytest.raises(StrictJsonError):
        loads(raw)
