"""Why a login by a provider fails. The reasons are for the log; what people read stands in the flow."""

from __future__ import annotations


class LoginError(Exception):
    """This login does not happen; `str` is the reason for the log. Nothing secret is in it."""


class ProviderError(LoginError):
    """The provider says what we do not accept: its metadata, keys, tokens."""


class ProviderAwayError(LoginError):
    """The provider does not answer, or not in time, or not with what was asked."""
