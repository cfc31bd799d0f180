"""JSON lines on a stream, one event a line, without secrets.

Use stdlib logging with ``extra=``: ``log.info("tunnel open", extra={"device": id})``. A field whose name
speaks of a secret, and any value that has the shape of a JWT, is replaced: a careless call leaks nothing.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

MAX_VALUE_CHARS = 4096  # a hostile peer chooses some values: one line must stay readable and bounded
MAX_TRACEBACK_CHARS = 16384  # enough for any real traceback
MAX_DEPTH = 4  # nested extras deeper than this are written as text

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"token|secret|authorization|cookie|password|passwd|private_key|credential", re.IGNORECASE
)
# Three base64url parts, the first opening with '{"' (RFC 7519 section 3): login, link, grant tokens alike.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# The id of the request that is served where a line is written; "" elsewhere. Every line carries it, so that
# all that one request wrote is found by what its answer's header said.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")


def get_logger(name: str) -> logging.Logger:
    """The logger of that name; it writes nothing above WARNING's level until ``configure``."""
    return logging.getLogger(name)


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send all loggers' lines to ``stream`` (stderr) as JSON naming ``service``; earlier handlers go."""
    output = logging.StreamHandler(stream if stream is not None else sys.stderr)
    output.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(output)
    root.setLevel(level.upper())


def redact_text(text: str, limit: int = MAX_VALUE_CHARS) -> str:
    """``text`` without JWT-shaped parts and no longer than ``limit`` characters."""
    cleaned = _JWT.sub(REDACTED, text)
    if len(cleaned) > limit:
        return cleaned[:limit] + f"… ({len(cleaned)} characters)"
    return cleaned


def redact(key: str, value: object, depth: int = 0) -> object:
    """``value`` as something JSON can hold, with secrets (by ``key`` or by shape) replaced."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return redact_text(bytes(value[: MAX_VALUE_CHARS // 2]).hex())
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(name): redact(str(name), item, depth + 1) for name, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [redact(key, item, depth + 1) for item in value]
    return redact_text(str(value))


class JsonFormatter(logging.Formatter):
    """One record to one line of JSON: time, level, service, logger, event, then the extra fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": redact_text(record.getMessage()),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = redact_text(request_id)
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in line:
                line[key] = redact(key, value)
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = redact_text(self.formatException(record.exc_info), MAX_TRACEBACK_CHARS)
        return json.dumps(line, ensure_ascii=False, default=str)
