"""OpenID providers that others wrote, as processes of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from testbed.waiting import eventually
from tests.device_uis.programs import Program, installed, node_path
from tests.gateway.login.free_provider import CLIENT_ID, CLIENT_SECRET, WELL_KNOWN

_HERE = Path(__file__).parent
READY_S = 60.0
STEPS_MAX = 12  # login and consent take six pages


def npm_provider(folder: Path, redirect_uris: Sequence[str], **more: Any) -> Program:
    """npm's oidc-provider, started."""
    return start_npm(Program("oidc-provider", folder), redirect_uris, **more)


def start_npm(program: Program, redirect_uris: Sequence[str], **more: Any) -> Program:
    """npm's oidc-provider: PKCE required, `iss` in its answers (RFC 9207), pages for login and consent.

    `more`: `clients` and `jwks`, see oidc_provider.mjs.
    """
    settings: dict[str, Any] = {
        "issuer": program.url,
        "port": program.port,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "redirect_uris": list(redirect_uris),
        **more,
    }
    module = installed("oidc-provider") / "node_modules/oidc-provider/lib/index.js"
    program.start([node_path(), str(_HERE / "oidc_provider.mjs"), str(module), json.dumps(settings)])
    return wait_for_metadata(program)


def python_provider(folder: Path) -> Program:
    """PyPI's oidc-provider-mock: any client, no PKCE; one types a subject."""
    program = Program("oidc-provider-mock", folder)
    program.start([sys.executable, "-m", "oidc_provider_mock", "--port", str(program.port)])
    return wait_for_metadata(program)


def wait_for_metadata(program: Program) -> Program:
    def answers() -> bool:
        return httpx.get(program.url + WELL_KNOWN, trust_env=False).status_code == 200

    try:
        eventually(f"{program.name} answers", answers, READY_S)
    except AssertionError:
        print(program.logs())
        program.close()
        raise
    return program


class Browser:
    """What a browser does at a provider: follows, keeps cookies, fills forms in."""

    def __init__(self) -> None:
        self._http = httpx.Client(trust_env=False)

    def close(self) -> None:
        self._http.close()

    def walk(self, url: str, back: str, **fields: str) -> str:
        """From the authorization address through every page, with these fields filled in, to the redirect
        that begins with `back`: the whole address.
        """
        answer = self._http.get(url)
        for _ in range(STEPS_MAX):
            target = answer.headers.get("location")
            if target is not None:
                url = urljoin(str(answer.url), target)
                if url.startswith(back):
                    return url
                answer = self._http.get(url)
                continue
            assert answer.status_code == 200, answer.text
            form = _form(answer.text, fields)
            data = {name: fields.get(name, value) for name, value in form.fields.items()}
            answer = self._http.post(urljoin(str(answer.url), form.action or str(answer.url)), data=data)
        raise AssertionError(f"no way back from {answer.url}: {answer.text[:500]}")


@dataclass
class _Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)


def _form(text: str, wanted: Mapping[str, str]) -> _Form:
    """The form of the page that has one of the wanted fields, or else its first."""
    forms = _Forms(text).found
    assert forms, text
    return next((form for form in forms if form.fields.keys() & wanted.keys()), forms[0])


class _Forms(HTMLParser):
    """Every form of a page; a button with a name is a field, too."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[_Form] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(_Form(values.get("action", "")))
        elif tag in {"input", "button"} and "name" in values and self.found:
            self.found[-1].fields[values["name"]] = values.get("value", "")
