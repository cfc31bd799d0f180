"""What goes wrong, in the gateway's own words. The seam to HTTP turns each into problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

from gateway.problem_codes import CODES


class Problem(Exception):
    """A request that cannot be served. `code` is for programs (one of CODES), `detail` for people."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        if code not in CODES:
            raise ValueError(f"{code!r} is missing in gateway.problem_codes: clients look codes up there")
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        """Name of the body's field that is wrong; None: the problem is not about one field."""
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, object]:
        """The RFC 9457 members, with `code` and `field` as extensions."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "code": self.code,
            "detail": self.detail,
        }
        if self.field is not None:
            members["field"] = self.field
        return members


def not_found(what: str) -> Problem:
    """The one answer for what does not exist and for what is somebody else's."""
    return Problem(HTTPStatus.NOT_FOUND, "not_found", f"There is no such {what}.")


def login_needed() -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, "login_needed", "Log in first.")


def wrong_field(field: str, detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field", f"{field}: {detail}", field=field)


class StoreUnavailableError(Exception):
    """Postgres or Redis does not answer. Requests get 503; the commit's fate may be unknown."""


class SchemaBehindError(StoreUnavailableError):
    """The database lacks a migration that this process's role may not apply: it waits for who may."""


class MigrationError(Exception):
    """The database's schema does not fit this program; a person must look."""


class KeyFileError(Exception):
    """A file of `keys_dir` is missing its partner, unreadable, or open to others."""


class BadTokenError(Exception):
    """A token that does not hold. The reason is for the log and tests, never for the bearer."""
