"""Writes a file of docs/protocol/vectors as C: vectors_to_c.py IN.json OUT.c (types: vectors.h).

A member that this script does not know ends it with an error: what is added to a vector cannot be forgotten
in C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_BYTES_A_LINE: Final = 24
Json = dict[str, Any]


class Source:
    """C text that grows; each byte string and each array stands in it once, before what refers to it."""

    def __init__(self, origin: str) -> None:
        self._parts = [f'/* Written by vectors_to_c.py from {origin}. */\n#include "vectors.h"\n']
        self._names: dict[str, str] = {}

    def span(self, hexadecimal: str) -> str:
        raw = bytes.fromhex(hexadecimal)
        if not raw:
            return "{NULL, 0}"
        rows = [raw[at : at + _BYTES_A_LINE] for at in range(0, len(raw), _BYTES_A_LINE)]
        body = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
        return f"{{{self.array('uint8_t', body)}, {len(raw)}}}"

    def array(self, kind: str, body: str) -> str:
        """The name of a constant array with this body; NULL for an empty one, which C does not have."""
        if not body:
            return "NULL"
        text = f"const {kind} %s[] = {{\n{body}\n}};"
        if text not in self._names:
            self._names[text] = f"part_{len(self._names)}"
            self._parts.append("static " + text.replace("%s", self._names[text], 1))
        return self._names[text]

    def rows(self, kind: str, rows: list[str]) -> str:
        return self.array(kind, "\n".join(f"    {row}," for row in rows))

    def public(self, kind: str, name: str, rows: list[str]) -> None:
        body = "\n".join(f"    {row}," for row in rows)
        self._parts.append(
            f"const {kind} {name}[] = {{\n{body}\n}};\nconst size_t {name}_count = {len(rows)};"
        )

    def single(self, kind: str, name: str, value: str) -> None:
        self._parts.append(f"const {kind} {name} = {value};")

    def text(self) -> str:
        return "\n\n".join(self._parts) + "\n"


def quoted(text: str | None) -> str:
    """A C literal of the text's UTF-8."""
    if text is None:
        return "NULL"
    plain = (
        chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return '"' + "".join(plain) + '"'


def truth(value: bool) -> str:
    return "true" if value else "false"


def braces(members: dict[str, str]) -> str:
    return "{" + ", ".join(f".{name} = {value}" for name, value in members.items()) + "}"


def known(entry: Json, names: set[str]) -> Json:
    if unknown := entry.keys() - names:
        raise SystemExit(f"members that no C test knows: {sorted(unknown)}")
    return entry


_NUMBERS: Final = [
    "stream",
    "code",
    "last_id",
    "retry_after_ms",
    "offset",
    "max_frame",
    "max_message",
    "stream_window",
    "connection_window",
    "max_streams",
    "keepalive_ms",
]
_TEXTS: Final = [
    "name",
    "type",
    "device",
    "service",
    "server_name",
    "token",
    "message",
    "reason",
    "software",
    "key_list",
]
_BYTES: Final = ["nonce", "instance", "key_id", "signature", "grant_id", "data", "opaque"]
_LISTS: Final = ["features", "children"]


def frames(source: Source, whole: Json) -> None:
    rows = []
    for entry in known(whole, {"about", "frames"})["frames"]:
        known(entry, {*_NUMBERS, *_TEXTS, *_BYTES, *_LISTS, "hex", "services"})
        members = {"raw": source.span(entry["hex"])}
        members |= {name: str(entry[name]) for name in _NUMBERS if name in entry}
        members |= {name: quoted(entry[name]) for name in _TEXTS if name in entry}
        members |= {name: source.span(entry[name]) for name in _BYTES if name in entry}
        members |= {name: quoted(",".join(entry[name])) for name in _LISTS if name in entry}
        if services := entry.get("services"):
            members["services"] = source.rows("vector_service", [_service(one) for one in services])
            members["service_count"] = str(len(services))
        rows.append(braces(members))
    source.public("vector_frame", "vector_frames", rows)


def _service(entry: Json) -> str:
    known(entry, {"name", "kind", "host", "forwarded", "upstream"})
    members = {name: quoted(entry[name]) for name in ("name", "kind", "upstream")}
    members |= {"preserve": truth(entry["host"] == "preserve"), "forwarded": truth(entry["forwarded"])}
    return braces(members)


def bad_frames(source: Source, whole: Json) -> None:
    rows = []
    for entry in known(whole, {"about", "cases"})["cases"]:
        known(entry, {"name", "side", "state", "before", "accept", "hex", "close_code"})
        members = {name: quoted(entry[name]) for name in ("name", "side", "state")}
        members["before"] = source.rows("tl_span", [source.span(message) for message in entry["before"]])
        members["before_count"] = str(len(entry["before"]))
        members["accept"] = truth(entry["accept"])
        members["raw"] = source.span(entry["hex"])
        members["close_code"] = str(entry["close_code"])
        rows.append(braces(members))
    source.public("vector_bad_frame", "vector_bad_frames", rows)


def credit(source: Source, whole: Json) -> None:
    rows = []
    for entry in known(whole, {"about", "cases"})["cases"]:
        known(entry, {"name", "peer", "steps"})
        peer = known(entry.get("peer", {}), {"stream_window", "connection_window"})
        members = {"name": quoted(entry["name"])}
        members |= {f"peer_{name}": str(value) for name, value in peer.items()}
        members["steps"] = source.rows("vector_step", [_step(source, step) for step in entry["steps"]])
        members["step_count"] = str(len(entry["steps"]))
        rows.append(braces(members))
    source.public("vector_credit", "vector_credits", rows)


def _step(source: Source, step: Json) -> str:
    known(step, {"receive", "consumed", "send", "stream", "answers", "close_code"})
    kind = next(name for name in ("receive", "consumed", "send") if name in step)
    members = {"kind": f"STEP_{kind.upper()}", "close_code": str(step.get("close_code", -1))}
    if kind == "consumed":
        members["consumed"] = str(step["consumed"])
    else:
        members["bytes"] = source.span(step[kind])
    if "stream" in step:
        members["stream"] = str(step["stream"])
    members["answers"] = source.span("".join(step.get("answers", [])))
    return braces(members)


def handshake(source: Source, whole: Json) -> None:
    rows = []
    for entry in known(whole, {"about", "server_name", "nonce", "messages"})["messages"]:
        known(entry, {"from", "hex", "events"})
        members = {"from_server": truth(entry["from"] == "server"), "raw": source.span(entry["hex"])}
        rows.append(braces(members | {"events": quoted(",".join(entry["events"]))}))
    source.public("vector_message", "vector_messages", rows)


def auth(source: Source, whole: Json) -> None:
    spans = ["private_scalar", "public_key_spki", "key_id", "nonce", "instance", "transcript", "signature"]
    known(whole, {*spans, "about", "server_name", "device", "must_not_verify"})
    members = {name: source.span(whole[name]) for name in spans}
    members |= {name: quoted(whole[name]) for name in ("server_name", "device")}
    wrong = [known(entry, {"name", "transcript"}) for entry in whole["must_not_verify"]]
    rows = [
        braces({"name": quoted(one["name"]), "transcript": source.span(one["transcript"])}) for one in wrong
    ]
    members["must_not_verify"] = source.rows("vector_wrong_transcript", rows)
    members["must_not_verify_count"] = str(len(rows))
    source.single("vector_auth", "vector_auth_case", braces(members))


_TOLD: Final = [
    "host",
    "origin",
    "cookie",
    "content_type",
    "if_none_match",
    "accept_encoding",
    "x_towline",
]
_TOLD_TRUTHS: Final = ["chunked", "expect_continue", "upgrade"]


def http_requests(source: Source, whole: Json) -> None:
    known(whole, {"about", "requests", "bad"})
    rows = []
    for entry in whole["requests"]:
        known(entry, {"name", "visitor", "client", "service", "device", "told"})
        told = known(entry["told"], {"method", "path", "query", "content_length", *_TOLD, *_TOLD_TRUTHS})
        members = {"name": quoted(entry["name"]), "head": _head(source, entry["device"])}
        members |= {name: quoted(told[name]) for name in ("method", "path", "query")}
        values = [quoted(told.get(name)) for name in _TOLD]  # the order of tl_http_header
        members["header"] = "{" + ", ".join(values) + "}"
        members["content_length"] = str(told["content_length"])
        members |= {name: truth(told[name]) for name in _TOLD_TRUTHS}
        rows.append(braces(members))
    source.public("vector_http_request", "vector_http_requests", rows)
    bad = []
    for entry in whole["bad"]:
        known(entry, {"name", "head", "status", "passed_on"})
        bad.append(_bad_head(source, entry["name"], entry))
        if passed_on := entry.get("passed_on"):
            bad.append(_bad_head(source, f"{entry['name']}, as it is passed on", passed_on))
    source.public("vector_http_head", "vector_http_heads", bad)


def _head(source: Source, text: str) -> str:
    return source.span(text.encode("latin-1").hex())


def _bad_head(source: Source, name: str, entry: Json) -> str:
    head = _head(source, entry["head"])
    return braces({"name": quoted(name), "head": head, "status": str(entry["status"])})


def device_v1(source: Source, whole: Json) -> None:
    known(whole, {"about", "topics", "good", "bad", "sending", "told", "bodies", "lines", "counters"})
    source.public("vector_topic", "vector_topics", [_topic(source, one) for one in whole["topics"]])
    source.public("vector_sending", "vector_sendings", [_sending(source, one) for one in whole["sending"]])
    source.public("vector_told", "vector_tolds", [_told(source, one) for one in whole["told"]])
    source.public("vector_body", "vector_bodies", [_body(source, one) for one in whole["bodies"]])
    source.public("vector_line", "vector_lines", [_line(source, one) for one in whole["lines"]])
    source.public("vector_counter", "vector_counters", [_counter(one) for one in whole["counters"]])
    source.single("size_t", "vector_messages_for_readers", str(len(whole["good"]) + len(whole["bad"])))


def _pair(number: list[int]) -> str:
    boot, seq = number
    return f"{{{boot}u, {seq}u}}"


def _compact(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _topic(source: Source, entry: Json) -> str:
    known(entry, {"text", "tokens", "subject"})
    tokens = entry["tokens"]
    members = {"text": source.span(entry["text"].encode().hex())}  # the subject is a broker's to know
    return braces(members | {"tokens": quoted(None if tokens is None else ",".join(tokens))})


def _sending(source: Source, entry: Json) -> str:
    known(entry, {"name", "stored", "floor", "prev", "sent"})
    members = {"name": quoted(entry["name"]), "floor": _pair(entry["floor"])}
    members |= {name: source.span(entry[name]) for name in ("stored", "sent")}
    members["tells_prev"] = truth(entry["prev"] is not None)
    return braces(members | {"prev": _pair(entry["prev"] or [0, 0])})


def _told(source: Source, entry: Json) -> str:
    known(entry, {"name", "kind", "hex", "what", "fields"})
    members = {name: quoted(entry[name]) for name in ("name", "kind", "what")}
    members["raw"] = source.span(entry["hex"])
    fields = dict(entry["fields"])
    if number := fields.pop("number", fields.pop("known", None)):
        members["number"] = _pair(number)
    if "name" in fields:
        members["command"] = quoted(fields.pop("name"))
    for name in ("params", "body"):
        if name in fields:
            members[name] = quoted(_compact(fields.pop(name)))
    fields.pop("trace", None)  # a device checks its form, and does not carry it on
    for name in ("hello", "time", "ttl_ms", "expires", "timeout_ms", "version"):
        if name in fields:
            members[name] = f"{fields.pop(name)}u"
    for name in ("reason", "id", "prefix", "sha256"):
        members[name] = quoted(fields.pop(name, None))
    known(fields, set())
    return braces(members)


def _body(source: Source, entry: Json) -> str:
    known(entry, {"name", "kind", "hex", "fields"})
    members = {name: quoted(entry[name]) for name in ("name", "kind")}
    members["raw"] = source.span(entry["hex"])
    fields = dict(entry["fields"])
    if "gone" in fields:
        members["gone"] = "true"
        fields["instance"] = fields.pop("gone")
    if outbox := fields.pop("outbox", None):
        members |= {"outbox": "{" + ", ".join(map(str, outbox)) + "}", "has_outbox": "true"}
    if "at" in fields:
        members["has_at"] = truth(fields["at"] is not None)
    members["commands"] = quoted(",".join(fields.pop("commands", [])))
    members["result"] = quoted(_compact(fields.pop("result", None)))
    members["ok"] = truth(fields.pop("ok", None) is True)
    for name in ("boot", "config", "at", "version", "told"):
        members[name] = f"{fields.pop(name, None) or 0}u"
    for name in ("instance", "software", "type", "command", "stage", "error", "sha256"):
        members[name] = quoted(fields.pop(name, None))
    known(fields, set())
    return braces(members)


def _line(source: Source, entry: Json) -> str:
    known(entry, {"name", "have", "steps"})
    rows = []
    for step in entry["steps"]:
        known(step, {"number", "before", "floor", "have", "place", "passed"})
        members = {name: _pair(step[name]) for name in ("number", "before", "floor", "have")}
        members |= {"place": quoted(step["place"]), "passed": truth(step["passed"])}
        rows.append(braces(members))
    members = {"name": quoted(entry["name"]), "have": _pair(entry["have"])}
    members |= {"steps": source.rows("vector_line_step", rows), "step_count": str(len(rows))}
    return braces(members)


def _counter(entry: Json) -> str:
    known(entry, {"name", "highest", "told", "went_back", "next_boot"})
    members = {"name": quoted(entry["name"]), "went_back": truth(entry["went_back"])}
    members |= {name: _pair(entry[name]) for name in ("highest", "told")}
    return braces(members | {"next_boot": str(entry["next_boot"] or 0)})


def grants(source: Source, whole: Json) -> None:
    good, bad, tokens = whole["lists"], whole["bad_lists"], whole["tokens"]
    known(whole, {"about", "device", "earliest_s", "root", "lists", "bad_lists_root", "bad_lists", "tokens"})
    members = {"device": quoted(whole["device"]), "earliest_s": str(whole["earliest_s"])}
    members |= {name: source.span(whole[name]) for name in ("root", "bad_lists_root")}
    source.public("vector_key_list", "vector_key_lists", [_key_list(source, entry) for entry in good])
    source.public("vector_bad_list", "vector_bad_lists", [_bad_list(source, entry) for entry in bad])
    source.public("vector_token", "vector_tokens", [_token(source, entry) for entry in tokens])
    source.single("vector_grants", "vector_grants_case", braces(members))


def _characters(source: Source, text: str) -> str:
    return source.span(text.encode("latin-1").hex())


def _key_list(source: Source, entry: Json) -> str:
    known(entry, {"name", "number", "text"})
    members = {"name": quoted(entry["name"]), "number": str(entry["number"])}
    return braces(members | {"text": _characters(source, entry["text"])})


def _bad_list(source: Source, entry: Json) -> str:
    known(entry, {"name", "text", "limit", "signed"})
    members = {"name": quoted(entry["name"]), "text": _characters(source, entry["text"])}
    return braces(members | {"has_signature": truth(entry["signed"])})


def _token(source: Source, entry: Json) -> str:
    known(entry, {"name", "grant_id", "token", "list", "wall_s", "service", "code", "signed"})
    members = {name: quoted(entry[name]) for name in ("name", "service")}
    members |= {name: str(entry[name]) for name in ("list", "wall_s", "code")}
    members |= {"grant_id": source.span(entry["grant_id"]), "token": _characters(source, entry["token"])}
    return braces(members | {"has_signature": truth(entry["signed"])})


def image(source: Source, whole: Json) -> None:
    device = known(known(whole, {"about", "device", "cases"})["device"], _DEVICE)
    numbers = ("target", "security", "floor", "largest")
    members = {name: f"{device[name]}u" for name in numbers} | {"hardware": quoted(device["hardware"])}
    members["version"] = "{" + ", ".join(f"{part}u" for part in device["version"]) + "}"
    members["keys"] = "{" + ", ".join(source.span(point) for point in device["keys"]) + "}"
    source.single("vector_image_device", "vector_image_runs", braces(members))
    rows = []
    for entry in whole["cases"]:
        known(entry, {"name", "head", "force", "why"})
        members = {"name": quoted(entry["name"]), "head": source.span(entry["head"])}
        rows.append(braces(members | {"force": truth(entry["force"]), "why": quoted(entry["why"])}))
    source.public("vector_image", "vector_images", rows)


_DEVICE: Final = {"keys", "target", "hardware", "version", "security", "floor", "largest"}

WRITERS: Final[dict[str, Callable[[Source, Json], None]]] = {
    "frames.json": frames,
    "bad_frames.json": bad_frames,
    "credit.json": credit,
    "handshake.json": handshake,
    "auth.json": auth,
    "http_requests.json": http_requests,
    "image.json": image,
    "device-v1.json": device_v1,
    "grants.json": grants,
}


def main(given: Path, wanted: Path) -> None:
    source = Source(given.name)
    WRITERS[given.name](source, json.loads(given.read_text(encoding="utf-8")))
    wanted.write_text(source.text(), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
