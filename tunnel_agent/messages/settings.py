"""The table `[messages]` of the agent's configuration file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from runtime.settings import between, not_empty, setting
from tunnel_agent.urls import gateway_url_problem

HEALTH_MIN_S: Final = 1.0
HEALTH_MAX_S: Final = 60.0
"""A slower one would pass for offline: the gateway waits for two and a half of these."""
OWN_MEMBERS: Final = ("health_every_s", "log_level")
"""Of a configuration: the agent takes them itself."""
MAX_SOURCES = 16  # each is a task, and as much to read and to report
MAX_COMMANDS = 60  # a hello names 64, and ping, log_level and reboot are among them
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,31}")


def _named(most: int) -> Any:
    def check(value: dict[str, Any]) -> str | None:
        if len(value) > most:
            return f"must hold at most {most} tables"
        wrong = next((name for name in value if not _NAME.fullmatch(name)), None)
        return f"names are 1 to 64 of a-z 0-9 _ - ({wrong!r} is none)" if wrong is not None else None

    return check


def _are_parameters(value: tuple[str, ...]) -> str | None:
    wrong = next((name for name in value if not _PARAMETER.fullmatch(name)), None)
    return None if wrong is None else f"are a letter and up to 31 of a-z 0-9 _ ({wrong!r} is none)"


def _is_program(value: tuple[str, ...]) -> str | None:
    problem = not_empty(value)
    if problem is None and not value[0].startswith("/"):
        return "must begin with an absolute path: no search path and no shell is used"
    return problem


def _is_program_or_empty(value: tuple[str, ...]) -> str | None:
    return _is_program(value) if value else None


@dataclass(frozen=True)
class SourceSettings:
    """Something on this device that has readings: a JSON object of numbers, texts and true/false."""

    url: str | None = setting(
        "Where it answers GET: http:// on this machine, or https://.",
        default=None,
        check=gateway_url_problem,
    )
    exec: tuple[str, ...] = setting(
        "Or the program that prints it, with its arguments.", default=(), check=_is_program_or_empty
    )
    keys: tuple[str, ...] = setting("Members that are taken; empty: all of them.", default=())
    sample_s: float = setting(
        "How often it is read, seconds. Samples stay on the device.", default=10.0, check=between(0.5, 86_400)
    )
    report_s: float = setting(
        "How often their summary leaves: count, least, greatest, mean and last of each number.",
        default=60.0,
        check=between(1, 86_400),
    )
    timeout_s: float = setting("How long one reading may take, seconds.", default=5.0, check=between(0.1, 60))
    report: Literal["telemetry", "health"] = setting(
        "`telemetry`: messages of its own. `health`: read once for each health report and told in it "
        "(512 bytes for all).",
        default="telemetry",
    )

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.exec):
            raise ValueError("needs either url or exec")
        if self.report_s < self.sample_s:
            raise ValueError("report_s must not be below sample_s")


@dataclass(frozen=True)
class CommandSettings:
    """One program that the gateway may have run here. What is not listed cannot be run."""

    exec: tuple[str, ...] = setting("The program and its arguments; no shell reads them.", check=_is_program)
    timeout_s: float = setting(
        "After which it is killed, seconds; the gateway may set less.", default=60.0, check=between(0.1, 3600)
    )
    params: tuple[str, ...] = setting(
        "Parameters it takes; each comes as the environment's TOWLINE_PARAM_NAME.",
        default=(),
        check=_are_parameters,
    )
    direct: bool = setting(
        "Announced as a command of its own, for a device type that knows it; else as `run` with its name.",
        default=False,
    )


@dataclass(frozen=True)
class ConfigurationSettings:
    """What the device takes of its configuration at the gateway, beside `health_every_s` and `log_level`,
    which the agent takes itself. What is not listed is refused.
    """

    keys: tuple[str, ...] = setting("Members that it takes.", default=(), check=_are_parameters)
    url: str | None = setting(
        "Where they are PUT as a JSON object, all that are set: http:// on this machine, or https://. 200 or"
        " 204: taken; another answer refuses them.",
        default=None,
        check=gateway_url_problem,
    )
    exec: tuple[str, ...] = setting(
        "Or the program that gets the object as the environment's TOWLINE_CONFIGURATION; it ends with 0 when"
        " it took them. Either must do no harm when it is asked twice.",
        default=(),
        check=_is_program_or_empty,
    )
    timeout_s: float = setting("How long that may take, seconds.", default=10.0, check=between(0.1, 600))

    def __post_init__(self) -> None:
        if self.keys and (self.url is None) == (not self.exec):
            raise ValueError("needs either url or exec")
        wrong = next((name for name in OWN_MEMBERS if name in self.keys), None)
        if wrong is not None:
            raise ValueError(f"keys: {wrong} is the agent's own")


@dataclass(frozen=True)
class MessagesSettings:
    """Readings, health and commands over MQTT. Whatever becomes of it, tunnels stay."""

    enabled: bool = setting("Whether the agent has this side at all.", default=False)
    health_every_s: float = setting(
        "Between two health reports, seconds; not heard for 150, the device is offline for the gateway.",
        default=HEALTH_MAX_S,
        check=between(HEALTH_MIN_S, HEALTH_MAX_S),
    )
    http_after_s: float = setting(
        "Without a broker for so long, seconds: what is to be said goes over HTTPS, if the gateway offers it;"
        " 0: never.",
        default=30.0,
        check=between(0, 86_400),
    )
    outbox_bytes: int = setting(
        "Disk for what was not accepted yet, bytes; above it the oldest goes.",
        default=64 << 20,
        check=between(256 << 10, 16 << 30),
    )
    sync_every_ms: int = setting(
        "How long readings are gathered for one write to the disk; events and health wait for none.",
        default=200,
        check=between(0, 60_000),
    )
    reboot: tuple[str, ...] = setting(
        'Program that restarts the machine, such as ["/usr/bin/systemctl", "reboot"]; empty: not offered.',
        default=(),
        check=_is_program_or_empty,
    )
    sources: dict[str, SourceSettings] = setting(
        "Sources of readings by name.", default_factory=dict, check=_named(MAX_SOURCES)
    )
    commands: dict[str, CommandSettings] = setting(
        "Programs by name.", default_factory=dict, check=_named(MAX_COMMANDS)
    )
    configuration: ConfigurationSettings = field(
        default_factory=ConfigurationSettings,
        metadata={"doc": "What the device itself takes of what is configured at the gateway."},
    )
