"""ETag, If-Match and If-None-Match (RFC 9110, 8.8.3 and 13.1) of what people can change.

A tag is `"VERSION.DIGEST"`. The version counts what people set, the digest is of the whole answer. If-Match
looks at the version alone: a device that comes online meanwhile is no reason to refuse its new name.
If-None-Match looks at all of it: an answer that says online for offline must not pass for the same.
"""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Header, Response
from pydantic import BaseModel

from gateway.errors import Problem, wrong_field

_TAG: Final = re.compile(r'(?:W/)?"([0-9]{1,18})\.([0-9a-f]{16})"')
_TAGS_MAX: Final = 20  # a client has one, a cache a few

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="Change it only while its `ETag` is this one, else 412.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", max_length=1000, description="Answer 304 while its `ETag` is this one."),
]


# For a route's `responses`.
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "It has not changed."}}


def refuse_other_version(if_match: str | None, version: int) -> None:
    """412 when the client saw another version than this one; no header: the last write wins."""
    if if_match is None or if_match.strip() == "*":
        return
    if version not in {int(seen) for seen, _ in _read(if_match, "If-Match")}:
        raise Problem(
            HTTPStatus.PRECONDITION_FAILED,
            "version_conflict",
            "It was changed since you read it. Read it again.",
        )


def tagged(response: Response, answer: BaseModel, version: int) -> str:
    """Give the answer its tag."""
    return _tag(response, answer.model_dump_json().encode(), version)


def _tag(response: Response, body: bytes, version: int) -> str:
    digest = hashlib.sha256(body).hexdigest()[:16]
    tag = f'"{version}.{digest}"'
    response.headers["etag"] = tag
    # The browser may keep it, and asks each time whether it still holds.
    response.headers["cache-control"] = "private, no-cache"
    return tag


def unless_known(if_none_match: str | None, response: Response, answer: BaseModel, version: int) -> Response:
    """The answer with its tag, or 304 without a body when the client has just this one."""
    body = answer.model_dump_json().encode()
    tag = _tag(response, body, version)
    headers = dict(response.headers)
    same = if_none_match is not None and (
        if_none_match.strip() == "*"
        or any(f'"{v}.{d}"' == tag for v, d in _read(if_none_match, "If-None-Match"))
    )
    if same:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type="application/json")  # what the tag is of


def _read(header: str, name: str) -> list[tuple[str, str]]:
    """Version and digest of each tag; 422 for what is no list of our tags."""
    tags = [_TAG.fullmatch(one.strip()) for one in header.split(",")]
    if len(tags) > _TAGS_MAX:
        raise wrong_field(name, f"has more than {_TAGS_MAX} tags")
    found = [(tag[1], tag[2]) for tag in tags if tag is not None]
    # A tag that we never gave matches nothing; what is not even a tag is a mistake that must show.
    if not all(re.fullmatch(r'(?:W/)?"[\x21\x23-\x7e]*"', one.strip()) for one in header.split(",")):
        raise wrong_field(name, "is no list of entity tags")
    return found
