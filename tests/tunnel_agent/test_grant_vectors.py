"""Grants and key lists as the shared vectors have them: what this agent takes, every device takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tunnel_agent.grant_vectors import VECTORS
from tunnel_agent.policy.grants import ConnectionGrants, GrantBook, Refusal
from tunnel_agent.policy.jws import TokenRefused
from tunnel_agent.policy.key_list import verify_key_list

WHOLE: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
LISTS = [entry["text"].encode("ascii") for entry in WHOLE["lists"]]
MONO = 1000.0


def _root(member: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(WHOLE[member]))


def test_there_are_many_of_each() -> None:
    codes = [entry["code"] for entry in WHOLE["tokens"]]
    assert len(codes) >= 100
    assert {0, 2, 3, 5} == set(codes)
    assert len(WHOLE["bad_lists"]) >= 40
    signed_but_refused = [entry for entry in WHOLE["tokens"] if entry["signed"] and entry["code"] == 2]
    assert len(signed_but_refused) >= 40


@pytest.mark.parametrize("entry", WHOLE["tokens"], ids=lambda entry: entry["name"])
def test_a_token(entry: dict[str, Any]) -> None:
    keys = verify_key_list(LISTS[entry["list"]], _root("root"))
    book = GrantBook(WHOLE["device"], keys, earliest=WHOLE["earliest_s"])
    connection = ConnectionGrants(book, WHOLE["device"])
    frame_id = bytes.fromhex(entry["grant_id"])
    connection.offer(frame_id, entry["token"].encode("latin-1"), entry["wall_s"], MONO)
    verdict = connection.open(WHOLE["device"], entry["service"], frame_id, entry["wall_s"], MONO)
    assert (verdict.code if isinstance(verdict, Refusal) else 0) == entry["code"]


@pytest.mark.parametrize("entry", WHOLE["lists"], ids=lambda entry: entry["name"])
def test_a_list(entry: dict[str, Any]) -> None:
    assert verify_key_list(entry["text"].encode("ascii"), _root("root")).number == entry["number"]


@pytest.mark.parametrize("entry", WHOLE["bad_lists"], ids=lambda entry: entry["name"])
def test_a_bad_list(entry: dict[str, Any]) -> None:
    text, root = entry["text"].encode("ascii"), _root("bad_lists_root")
    if entry["limit"]:
        verify_key_list(text, root)
    else:
        with pytest.raises(TokenRefused):
            verify_key_list(text, root)
