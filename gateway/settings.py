"""Everything one can set about the gateway. Read once, at start; a mistake names the field and exits 2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gateway.commands.settings import BrokerSettings
from gateway.keys.key_list import GRANT_KEY_WAIT_S
from gateway.keys.keyring import LOGIN_KEY_WAIT_S
from gateway.login.settings import ProviderSettings, are_providers
from gateway.messages.settings import HISTORY_DAYS_MAX, LogSettings
from gateway.policy.clients import NativeClient, are_clients
from gateway.policy.rotation import Purpose, Schedule
from gateway.shortlived.redis_url import RedisAddress, parse_redis_url
from runtime.addresses import is_address, is_loopback, parse_address
from runtime.broker_url import is_broker_url
from runtime.client_address import are_networks
from runtime.internal_http import is_internal_url
from runtime.settings import SettingsError, between, not_empty, setting
from runtime.settings import read_secret as read_secret  # of every service's own password files

# A grant cannot be taken back from a device that is cut off from everything but a stolen server, so its
# life is bounded whatever the settings say.
SESSION_CEILING_S = 12 * 3600
# A link is a bearer until its use; a minute is enough to click it (DESIGN 3.3).
LINK_CEILING_S = 60
# A login key stays published for as long after its last signature.
ACCESS_CEILING_S = 3600
KEY_SLACK_S = 120  # beyond every verifier's leeway
DAY_S = 86_400

_PREFIX = re.compile(r"[a-z0-9_-]{1,32}")
_DOMAIN = re.compile(r"(?=.{1,190}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def _is_origin(value: str) -> str | None:
    parts = urlsplit(value)
    bare = parts.scheme in {"http", "https"} and parts.hostname and not parts.username
    if not bare or parts.path or parts.query or parts.fragment or value != value.lower():
        return "must be an origin like https://gateway.example.com, without a path"
    return None


def _is_domain(value: str) -> str | None:
    return None if _DOMAIN.fullmatch(value) else "must be a domain name in small letters"


def _is_prefix(value: str) -> str | None:
    return None if _PREFIX.fullmatch(value) else "must be 1 to 32 small letters, digits, - or _"


def _are_tunnel_urls(value: tuple[str, ...]) -> str | None:
    for url in value:
        parts = urlsplit(url)
        loopback = parts.scheme == "ws" and is_loopback(parts.hostname)
        if not parts.hostname or not (parts.scheme == "wss" or loopback):
            return "must be a list of wss:// URLs (ws:// on loopback alone)"
    return not_empty(value)


def _are_internal_urls(value: tuple[str, ...]) -> str | None:
    wrong = any(is_internal_url(url) is not None for url in value)
    return "must be a list of https://host:port addresses" if wrong else None


@dataclass(frozen=True)
class Settings:
    """The gateway's settings. Times in seconds; paths relative to the settings file."""

    public_url: str = setting(
        "Origin under which browsers and agents reach the gateway. It is the issuer of every token."
        " http:// is accepted on loopback alone.",
        check=_is_origin,
    )
    keys_dir: Path = setting("Directory of the private keys and CAs; made at the first start with mode 0700.")
    agent_tunnel_urls: tuple[str, ...] = setting(
        "Tunnel URLs (wss://…/tunnel) that enrolled agents are told to dial.", check=_are_tunnel_urls
    )
    device_mqtt_url: str | None = setting(
        "The broker that devices are told to send their messages to: mqtts://host:port, where they show their"
        " certificates, or mqtt:// on loopback, where they have passwords. Not set: they send none.",
        default=None,
        check=is_broker_url,
    )
    ingest_urls: tuple[str, ...] = setting(
        "https:// addresses of the bridges' `http` listeners, in the order of their numbers: there goes what"
        " devices say over HTTPS, where no broker can be reached. Empty: devices are offered no such way.",
        default=(),
        check=_are_internal_urls,
    )
    broker: BrokerSettings | None = setting(
        "The devices' broker, by which commands go to them. Left out: commands stay queued.", default=None
    )
    public_listen: str = setting(
        "Address of the public listener, host:port. Plain HTTP: TLS ends in front of it.",
        default="127.0.0.1:8080",
        check=is_address,
    )
    internal_listen: str = setting(
        "Address of the listener for tunnel server nodes and ingest (mTLS, never public).",
        default="127.0.0.1:8083",
        check=is_address,
    )
    internal_names: tuple[str, ...] = setting(
        "Names and IP addresses in the internal listener's certificate.",
        default=("localhost", "127.0.0.1"),
        check=not_empty,
    )
    ops_listen: str = setting(
        "Address of /metrics, /livez and /readyz for operators.", default="127.0.0.1:8084", check=is_address
    )
    database_url: str | None = setting(
        "PostgreSQL connection URL. Better in a file of its own: database_url_file.", default=None
    )
    database_url_file: Path | None = setting(
        "File that holds the connection URL and nothing else.", default=None
    )
    migration_database_url: str | None = setting(
        "Connection URL of the role that owns the tables; the gateway migrates by it at its start, and gives"
        " the role of database_url what it needs and no more. Left out: database_url's role does both, or"
        " `towline gateway migrate` migrates. Better in a file of its own: migration_database_url_file.",
        default=None,
    )
    migration_database_url_file: Path | None = setting(
        "File that holds the owner's connection URL and nothing else.", default=None
    )
    audit_heads_dir: Path | None = setting(
        "Directory, on another machine's storage or at least another mount, where the audit log's signed"
        " heads are added to audit-heads.jsonl each minute. It must exist. Left out: none are signed, and"
        " whoever has the database can rewrite the log unseen.",
        default=None,
    )
    database_pool_max: int = setting(
        "Most database connections for this process's requests, beside the two that watch and listen and the"
        " six that store what devices say.",
        default=10,
        check=between(1, 200),
    )
    redis_url: str | None = setting(
        "Redis for one-time values, rate limits and wake-ups: redis://[user:password@]host[:port][/database],"
        " rediss:// with TLS, or unix:///path. Better in a file of its own: redis_url_file. Neither: Postgres"
        " keeps them.",
        default=None,
    )
    redis_url_file: Path | None = setting("File that holds the Redis URL and nothing else.", default=None)
    redis_ca: Path | None = setting(
        "CA certificates (PEM) for rediss://; left out: the system's.", default=None
    )
    redis_prefix: str = setting(
        "What every key and channel in Redis begins with; gateways of one site share it, other sites differ.",
        default="towline",
        check=_is_prefix,
    )
    tunnel_scheme: Literal["http", "https"] = setting(
        "Scheme of session URLs. http on loopback alone.", default="https"
    )
    tunnel_domain: str = setting(
        "Domain under which every session gets its own host; registrable apart from the gateway's.",
        default="localhost",
        check=_is_domain,
    )
    tunnel_port: int | None = setting(
        "Port of session URLs; left out: the scheme's own.", default=None, check=between(1, 65535)
    )
    agents_trust_server_ca: bool = setting(
        "Hand the server CA to agents: true while nodes use certificates of issue-node-certificate, false"
        " when their tunnel listeners have publicly trusted ones.",
        default=True,
    )
    session_duration_max_s: int = setting(
        "Longest session that may be asked for.", default=3600, check=between(60, SESSION_CEILING_S)
    )
    sessions_per_user: int = setting(
        "Most live sessions of one person: each holds a label, a grant and a row on every node.",
        default=100,
        check=between(1, 10_000),
    )
    requests_per_login_s: int = setting(
        "Requests a second that one login or API token may make of this gateway, twenty times as many at"
        " once.",
        default=50,
        check=between(1, 100_000),
    )
    writes_per_person_s: int = setting(
        "Requests a second that change something and that one person may make at all gateways, by all their"
        " logins and API tokens together; ten minutes' worth at once. Each may add a line to the audit log,"
        " which is kept for ever. What takes access away does not count.",
        default=2,
        check=between(1, 100_000),
    )
    link_ttl_s: int = setting("Life of a link.", default=60, check=between(5, LINK_CEILING_S))
    access_token_ttl_s: int = setting(
        "Life of an access token.", default=900, check=between(60, ACCESS_CEILING_S)
    )
    refresh_idle_s: int = setting(
        "A program or app that does not refresh for this long must log in again.",
        default=30 * DAY_S,
        check=between(3600, 400 * DAY_S),
    )
    refresh_absolute_s: int = setting(
        "Life of a program's or app's login, however often it refreshes.",
        default=180 * DAY_S,
        check=between(3600, 1000 * DAY_S),
    )
    refresh_grace_s: int = setting(
        "For this long after a refresh the token that it used up may be used again, by an app that did not"
        " get the answer; 0: never. docs/decisions/0018 says why this costs little.",
        default=10,
        check=between(0, 60),
    )
    native_clients: dict[str, NativeClient] = setting(
        "Apps that log people in through the system's browser (OAuth 2.1, RFC 8252), by client id.",
        default_factory=dict,
        check=are_clients,
    )
    grant_key_wait_s: int = setting(
        "From the publication of a new grant key until it signs: every device must have it by then.",
        default=GRANT_KEY_WAIT_S,
        check=between(0, 30 * DAY_S),
    )
    login_key_wait_s: int = setting(
        "From the publication of a new login key until it signs: everybody who keeps the JWKS must have it.",
        default=LOGIN_KEY_WAIT_S,
        check=between(0, 30 * DAY_S),
    )
    login_key_days: int = setting(
        "A new login key is made after so many days; 0: only by `towline gateway rotate-keys`.",
        default=90,
        check=between(0, 3650),
    )
    grant_key_days: int = setting(
        "The same for grant keys. Every tunnel is renewed when the list changes, so not too often.",
        default=90,
        check=between(0, 3650),
    )
    login_duration_s: int = setting(
        "Life of a browser login.", default=12 * 3600, check=between(300, 30 * DAY_S)
    )
    login_idle_s: int = setting(
        "A browser login that is not used for this long ends; an open page of the console uses it.",
        default=2 * 3600,
        check=between(60, 30 * DAY_S),
    )
    login_providers: dict[str, ProviderSettings] = setting(
        "Providers by whom people log in (OpenID Connect), by an id that stands in the redirect URI:"
        " PUBLIC_URL/login/from/ID.",
        default_factory=dict,
        check=are_providers,
    )
    admin_username: str = setting(
        "Name of the local administrator: 1 to 32 of a-z, 0-9, dot, dash and underscore, unless somebody has"
        " another name since an older release.",
        default="admin",
        check=not_empty,
    )
    admin_password_file: Path | None = setting(
        "File with the administrator's password; read at every start. Left out: no password login.",
        default=None,
    )
    welcome_secret_file: Path | None = setting(
        "File with a secret that logs its bearer in as the administrator (the address that `towline up`"
        " prints). Loopback alone.",
        default=None,
    )
    log: LogSettings = setting(
        "The log that devices' messages come by, from ingest.", default_factory=LogSettings
    )
    consumer: Literal["inside", "apart"] = setting(
        "inside: this process stores what the log has. apart: `towline gateway consume` does, in a process of"
        " its own: where many devices speak, so that the API does not wait for it.",
        default="inside",
    )
    consumer_ops_listen: str = setting(
        "Address of /metrics, /livez and /readyz of `towline gateway consume`.",
        default="127.0.0.1:8085",
        check=is_address,
    )
    history_days: int = setting(
        "What devices said is kept for so many days; older days are dropped.",
        default=30,
        check=between(1, HISTORY_DAYS_MAX),
    )
    trusted_proxies: tuple[str, ...] = setting(
        "Networks of the proxies whose X-Forwarded-For tells the client's address.",
        default=(),
        check=are_networks,
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Least severe level that is logged.", default="info"
    )

    def __post_init__(self) -> None:
        loopback = is_loopback(urlsplit(self.public_url).hostname)
        if self.public_url.startswith("http://") and not loopback:
            raise ValueError("public_url: must be https:// unless it is on loopback")
        if self.welcome_secret_file is not None and not loopback:
            raise ValueError("welcome_secret_file: is allowed only when public_url is on loopback")
        if self.welcome_secret_file is not None and not is_loopback(parse_address(self.public_listen).host):
            raise ValueError("welcome_secret_file: is allowed only when public_listen is on loopback")
        if self.tunnel_scheme == "http" and not is_loopback(self.tunnel_domain):
            raise ValueError("tunnel_scheme: must be https unless tunnel_domain is localhost")
        if (self.database_url is None) == (self.database_url_file is None):
            raise ValueError("database_url: set either this or database_url_file")
        if self.migration_database_url is not None and self.migration_database_url_file is not None:
            raise ValueError("migration_database_url: set either this or migration_database_url_file")
        if self.redis_url is not None and self.redis_url_file is not None:
            raise ValueError("redis_url: set either this or redis_url_file")

    @property
    def secure(self) -> bool:
        """Whether browsers reach the gateway over TLS."""
        return self.public_url.startswith("https://")

    @property
    def database_field(self) -> str:
        """Which of the two settings holds the connection URL."""
        return "database_url" if self.database_url_file is None else "database_url_file"

    def database(self) -> str:
        """The connection URL, from wherever it is set."""
        url = _database_url(self.database_url, self.database_url_file, self.database_field)
        assert url is not None  # __post_init__
        return url

    def migration_database(self) -> str | None:
        """The connection URL of the tables' owner; None: not known to this process."""
        name = "migration_database_url"
        if self.migration_database_url_file is not None:
            name = "migration_database_url_file"
        return _database_url(self.migration_database_url, self.migration_database_url_file, name)

    def redis(self) -> RedisAddress | None:
        """Where Redis is; None: Postgres keeps the short-lived."""
        url, name = self.redis_url, "redis_url"
        if self.redis_url_file is not None:
            name = "redis_url_file"
            url = read_secret(self.redis_url_file, name)
        if url is None:
            return None
        if self.redis_ca is not None and not self.redis_ca.is_file():
            raise SettingsError(f"redis_ca: {self.redis_ca}: no such file")
        try:
            return parse_redis_url(url, self.redis_ca)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None

    def key_schedules(self) -> dict[Purpose, Schedule]:
        """How the keys of tokens rotate. What they signed lives by the ceilings: settings may have shrunk."""
        return {
            "login": Schedule(
                self.login_key_wait_s, ACCESS_CEILING_S + KEY_SLACK_S, self.login_key_days * DAY_S
            ),
            "grant": Schedule(
                self.grant_key_wait_s, SESSION_CEILING_S + KEY_SLACK_S, self.grant_key_days * DAY_S
            ),
        }

    def session_url(self, label: str) -> str:
        """Where a session's landing page is, without the fragment."""
        port = "" if self.tunnel_port is None else f":{self.tunnel_port}"
        return f"{self.tunnel_scheme}://{label}.{self.tunnel_domain}{port}/.towline/open"


def _database_url(url: str | None, file: Path | None, name: str) -> str | None:
    if file is not None:
        url = read_secret(file, name)
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"{name}: must hold a postgresql:// URL")
    return url
