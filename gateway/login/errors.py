"""Why a login by a provider fails. The reasons are for the log; what people read stands in the flow."""

from __future__ import annotations

from uuid import UUID


class LoginError(Exception):
    """This login does not happen; `str` is the reason for the log. Nothing secret is in it."""


class ProviderError(LoginError):
    """The provider says what we do not accept: its metadata, keys, tokens."""


class ProviderAwayError(LoginError):
    """The provider cannot serve: it does not answer, or with an error of its own."""


class ProviderSilentError(ProviderAwayError):
    """The provider cannot be reached, or does not answer in time."""


class DeniedError(LoginError):
    """The person, or the provider for them, said no."""


class StateError(LoginError):
    """The browser's answer belongs to no login that this browser began here and that is still open."""


class NotAdmittedError(LoginError):
    """The person is who they say, and still gets no login. `code` is for programs, `detail` for people.
    `user_id`: their account; None: they have none.
    """

    def __init__(self, code: str, detail: str, *, user_id: UUID | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.user_id = user_id
