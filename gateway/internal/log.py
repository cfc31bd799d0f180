"""The embedded log, as ingest appends to it: ingest has no database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from gateway.errors import Problem
from gateway.parts import GatewayParts, Parts
from gateway.store import log_table
from gateway.store.log_table import LogFullError
from runtime.event_log import wire
from runtime.event_log.interface import LogRefusedError

router = APIRouter(prefix="/internal/v1/log", tags=["internal"])

Topic = Annotated[str, Path(pattern="^[a-z]{1,32}$")]
Part = Annotated[int, Path(ge=0, lt=2**31)]


class PartsAnswer(BaseModel):
    """How many parts each topic has."""

    parts: dict[str, int]


class AppendAnswer(BaseModel):
    """The offset of the first entry; the others follow it."""

    first: int


@router.get("")
async def log_parts(parts: Parts) -> PartsAnswer:
    """The log's topics; those that are missing are made."""
    _check_kept_here(parts)
    async with parts.database.transaction() as tx:
        return PartsAnswer(parts=await log_table.parts(tx))


@router.post("/{topic}/{part}")
async def append(topic: Topic, part: Part, request: Request, parts: Parts) -> AppendAnswer:
    """Append entries; `first` once they are durable. Body as `runtime.event_log.wire` has it."""
    _check_kept_here(parts)
    body = await _bounded_body(request)
    async with _refusals(parts):
        entries = wire.from_json(_parsed(body))
        async with parts.database.transaction() as tx:
            return AppendAnswer(first=await log_table.append(tx, topic, part, entries))


def _check_kept_here(parts: GatewayParts) -> None:
    """Else nobody would read it."""
    if parts.settings.log.kind != "table":
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "log_refused", "This gateway keeps no log (`log.kind`)."
        )


async def _bounded_body(request: Request) -> bytes:
    """Not longer than an append can be: the listener itself takes far larger ones, of nodes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > wire.BODY_MAX:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "No append is so large.")
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LogRefusedError("the body is not JSON") from error
    return parsed


@asynccontextmanager
async def _refusals(parts: GatewayParts) -> AsyncIterator[None]:
    try:
        yield
    except LogFullError as error:
        parts.metrics.log_full.inc()
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "log_full", str(error)) from error
    except LogRefusedError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "log_refused", str(error)) from error
