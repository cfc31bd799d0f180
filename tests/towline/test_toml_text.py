from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.toml_text import toml_text

# TOML texts hold any Unicode scalar value; keys and values alike.
texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(
    texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
tables = st.recursive(
    st.dictionaries(texts, st.one_of(scalars, st.lists(scalars))),
    lambda inner: st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=30)
@given(tables)
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(table)) == table


def test_paths_and_what_is_left_out() -> None:
    text = toml_text({"a": None, "b": Path("/x y/z"), "c": {"d": (1, 2), "e": {"f": True}}})
    assert text == 'b = "/x y/z"\n\n[c]\nd = [1, 2]\n\n[c.e]\nf = true\n'


def test_a_value_toml_has_no_form_for() -> None:
    with pytest.raises(TypeError, match="no TOML for object"):
        toml_text({"a": object()})
