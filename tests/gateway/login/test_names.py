"""The pure decisions of the login: names, paths, browsers."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.login.admission import check_domain
from gateway.login.errors import NotAdmittedError
from gateway.login.flow import Person
from gateway.login.settings import ProviderSettings
from gateway.policy.return_path import return_path
from gateway.policy.user_agents import SHORT_MAX, short_user_agent
from gateway.policy.usernames import RESERVED, USERNAME_MAX, usernames

_ALLOWED = set(string.ascii_lowercase + string.digits + "._-")


@given(st.lists(st.one_of(st.text(), st.none(), st.integers()), max_size=4), st.text(max_size=20))
def test_names_are_always_clean(wishes: list[object], reserved: str) -> None:
    names = list(usernames(wishes, {reserved}, "zzzzzzz"))
    assert len(names) == len(set(names)) >= 19
    for name in names:
        assert 1 <= len(name) <= USERNAME_MAX
        assert set(name) <= _ALLOWED
        assert name not in RESERVED
        assert name != reserved.casefold()


@given(st.text())
def test_a_path_is_our_own_or_home(text: str) -> None:
    path = return_path(text)
    assert path == "/" or path == text
    assert path.startswith("/")
    assert not path.startswith("//")
    assert "\\" not in path
    assert path.isascii()
    assert path.isprintable()


@given(st.one_of(st.none(), st.text(max_size=400)))
def test_a_browser_in_a_few_words(header: str | None) -> None:
    short = short_user_agent(header)
    assert len(short) <= SHORT_MAX
    assert short.isascii()
    assert short.isprintable()


def test_known_browsers() -> None:
    chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
    assert short_user_agent(f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {chrome}") == "Chrome on Windows"
    assert short_user_agent(f"Mozilla/5.0 (Windows NT 10.0) {chrome} Edg/130.0") == "Edge on Windows"
    iphone = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1 Version/17.0 Safari/604.1"
    )
    assert short_user_agent(iphone) == "Safari on iPhone"
    assert short_user_agent("curl/8.5.0") == "curl/8.5.0"
    assert short_user_agent(None) == ""


@pytest.mark.parametrize(
    ("claims", "admitted"),
    [
        ({"hd": "works.example"}, True),
        ({"hd": "other.example"}, False),
        ({"email": "ada@works.example", "email_verified": True}, False),
        ({"hd": ["works.example"]}, False),
    ],
)
def test_google_vouches_for_an_organisation_by_hd(claims: dict[str, object], admitted: bool) -> None:
    """A Google account with an address of the domain may be anybody's who once could read its mail."""

    settings = ProviderSettings("x", Path("secret"), preset="google", email_domains=("works.example",))
    person = Person("https://accounts.google.com", {"sub": "1", **claims})
    if admitted:
        check_domain(person, settings)
    else:
        with pytest.raises(NotAdmittedError):
            check_domain(person, settings)
