"""The agent's command line: run it, enrol it, or claim it for another owner."""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime import process
from runtime.settings import SettingsError, load
from tunnel_agent.claim import claim
from tunnel_agent.enrolment import Enrolment, EnrolmentRequest
from tunnel_agent.errors import AgentError, EnrolmentPending
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import IdentityStore
from tunnel_agent.settings import AgentSettings
from tunnel_agent.urls import gateway_url_problem
from tunnel_agent.version import SOFTWARE

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_PENDING = 3  # nobody decided yet; the same command goes on waiting
MAX_TOKEN_BYTES = 4096
MAX_CA_BYTES = 1 << 20
DEFAULT_WAIT_S = 3600.0
_OTHERS = {
    "enrol": "make a key, and ask a gateway to let this device in",
    "claim": "take this device over for another owner",
}


def main(argv: Sequence[str]) -> int:
    """Run `--config FILE`, `enrol URL …` or `claim …`; returns the exit code."""
    if argv and argv[0] == "enrol":
        return _enrol(argv[1:])
    if argv and argv[0] == "claim":
        return _claim(argv[1:])
    from tunnel_agent.app import run_agent  # enrolment needs neither the event loop nor the tunnel

    return process.run("towline agent", run_agent, argv, others=_OTHERS)


def _enrol(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        store = IdentityStore(_state_dir(arguments))
        request = _request(arguments)
        if store.is_enrolled():
            identity = store.load()
            print(f"already enrolled as {identity.device_id} at {identity.gateway_url} ({store.directory})")
            return process.EXIT_OK
        identity = Enrolment(store, request, say=lambda line: print(line, flush=True)).run()
    except SettingsError as error:
        return _failed(error, EXIT_BAD_INPUT)
    except EnrolmentPending as error:
        return _failed(error, EXIT_PENDING)
    except AgentError as error:
        return _failed(error, EXIT_FAILED)
    except OSError as error:
        return _failed(SettingsError(f"{error.filename}: {error.strerror}"), EXIT_FAILED)
    except KeyboardInterrupt:
        return _failed(EnrolmentPending("interrupted; the same command goes on waiting"), EXIT_PENDING)
    print(f"enrolled as {identity.device_id}; identity in {store.directory}")
    return process.EXIT_OK


def _claim(argv: Sequence[str]) -> int:
    arguments = _claim_parser().parse_args(argv)
    try:
        token = _token(arguments.token_file)
        assert token is not None  # argparse requires the option
        identity = IdentityStore(_state_dir(arguments)).load()
        name, site = claim(identity, GatewayClient(identity.gateway_url, identity.gateway_ca), token)
    except SettingsError as error:
        return _failed(error, EXIT_BAD_INPUT, "claim")
    except AgentError as error:
        return _failed(error, EXIT_FAILED, "claim")
    except OSError as error:
        return _failed(SettingsError(f"{error.filename}: {error.strerror}"), EXIT_FAILED, "claim")
    print(f"{identity.device_id} ({name}) belongs to the site {site} now")
    return process.EXIT_OK


def _claim_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="towline agent claim",
        description="Take this device over to another owner's site, once its owner released it."
        " The agent may run meanwhile.",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        required=True,
        help="file with a registration token of the new site that approves in advance, - for standard input",
    )
    _add_where(parser)
    return parser


def _add_where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--config", type=Path, metavar="FILE", help="the agent's settings: their state_dir is used"
    )
    where.add_argument("--state-dir", type=Path, metavar="DIR", help="directory of the identity")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="towline agent enrol", description="Make this machine a device of a gateway."
    )
    parser.add_argument("url", metavar="URL", help="the gateway, https://…")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the registration token, - for standard input (never an argument)",
    )
    _add_where(parser)
    parser.add_argument(
        "--name", default=socket.gethostname(), help="name the owner sees (default: this host's)"
    )
    parser.add_argument(
        "--hardware-id", help="stable id of the hardware (default: from the machine-id, hashed)"
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="PEM file of the gateway's CA, where it is a private one"
    )
    parser.add_argument(
        "--wait", type=float, default=DEFAULT_WAIT_S, metavar="SECONDS", help="how long to wait for approval"
    )
    return parser


def _state_dir(arguments: argparse.Namespace) -> Path:
    if arguments.config is not None:
        return load(AgentSettings, arguments.config).state_dir
    directory: Path = arguments.state_dir
    return directory


def _request(arguments: argparse.Namespace) -> EnrolmentRequest:
    problem = gateway_url_problem(arguments.url)
    if problem:
        raise SettingsError(f"URL {problem}")
    return EnrolmentRequest(
        gateway=arguments.url,
        token=_token(arguments.token_file),
        name=arguments.name,
        hardware_id=arguments.hardware_id,
        software=f"{SOFTWARE} ({platform.system()} {platform.machine()})",
        gateway_ca=_ca(arguments.ca),
        wait_s=arguments.wait,
    )


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    if path == "-":
        token = sys.stdin.read(MAX_TOKEN_BYTES).strip()
    else:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            token = file.read(MAX_TOKEN_BYTES).strip()
            if os.fstat(file.fileno()).st_mode & 0o077:
                print(f"note: {path} can be read by other users of this machine", file=sys.stderr)
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise SettingsError("--token-file: holds no registration token")
    return token


def _ca(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open(encoding="ascii", errors="replace") as file:
        text = file.read(MAX_CA_BYTES)
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise SettingsError(f"--ca: {path} holds no PEM certificate")
    return text


def _failed(error: Exception, code: int, command: str = "enrol") -> int:
    print(f"towline agent {command}: {error}", file=sys.stderr)
    return code
