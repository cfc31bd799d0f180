"""The command line `towline`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.process import run
from towline import commands, messages
from towline.data_folder import DataFolder, default_data
from towline.errors import TowlineError
from towline.gateway_client import ApiToken, Credentials, GatewayClient
from towline.launcher.ports import PARTS

EXIT_FAILED = 1
DEFAULT_DURATION_S = 3600  # a session; the gateway's own ceiling applies
DEFAULT_PORT = 8080
DEFAULT_TTL_S = 60  # as the gateway's own
DEFAULT_WAIT_S = 30
# A file with an API token, and the gateway it is for (left out: the one of `towline up`).
TOKEN_FILE = "TOWLINE_TOKEN_FILE"
GATEWAY = "TOWLINE_GATEWAY"

# Commands that are the services' own, with the extra that installs them. They get everything after the name.
_SERVICES = {"agent": "agent", "gateway": "server", "server": "server", "ingest": "server", "audit": "server"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 (a reason was printed), 2 (a wrong command line)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in _SERVICES:
            return _run_service(arguments[0], arguments[1:])
        parsed = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = parsed.run
        return command(parsed)
    except TowlineError as error:
        print(f"towline: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130  # the shell's code for Ctrl-C
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


def _run_service(name: str, argv: list[str]) -> int:
    """Imported only here: each needs packages that a machine with another part alone has not."""
    try:
        if name == "agent":
            from tunnel_agent.cli import main as run_agent

            return run_agent(argv)
        if name == "gateway":
            from gateway.__main__ import start as run_gateway

            return run_gateway(argv)
        if name == "ingest":
            from ingest.__main__ import start as run_ingest

            return run_ingest(argv)
        if name == "audit":
            from gateway.audit.command import main as run_audit

            return run_audit(argv)
        from tunnel_server.app import main as run_server

        return run("towline server", run_server, argv)
    except ModuleNotFoundError as error:
        raise TowlineError(
            f"`towline {name}` needs the package {error.name}: pip install 'towline[{_SERVICES[name]}]'"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="towline",
        description="Reach a device's own web UI from anywhere, through a tunnel the device opens itself.",
        epilog=f"{TOKEN_FILE} names a file with an API token, {GATEWAY} the gateway it is for: the commands"
        " then act with that, on any gateway, in place of `towline up`'s own administrator.",
    )
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(parsers)
    _add_link(parsers)
    _add_connect(parsers)
    _add_device(parsers)
    _add_command(parsers)
    listing = _with_data(parsers.add_parser("devices", help="list the devices"))
    listing.set_defaults(run=_on_gateway(lambda gateway, _: commands.devices(gateway)))
    listing = _with_data(parsers.add_parser("sessions", help="list the sessions"))
    listing.set_defaults(run=_on_gateway(lambda gateway, _: commands.sessions(gateway)))
    approve = _with_data(parsers.add_parser("approve", help="let an enrolled device in"))
    approve.add_argument("device", metavar="DEVICE", help="its id or name")
    approve.set_defaults(run=_on_gateway(lambda gateway, given: commands.approve(gateway, given.device)))
    _add_revoke(parsers)
    _add_token(parsers)
    for name, text in (
        ("agent", "run a device's agent, or enrol it: towline agent --help"),
        ("gateway", "run a gateway: towline gateway --help"),
        ("server", "run a tunnel server node: towline server --help"),
        ("ingest", "run a bridge from the broker to the log, or replay dead letters: towline ingest --help"),
        ("audit", "verify or export the audit log: towline audit --help"),
    ):
        parsers.add_parser(name, help=text, add_help=False)
    return parser


def _add_up(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = _with_data(
        parsers.add_parser(
            "up",
            help="start everything on this machine",
            description="Start a database, the gateway, a tunnel server and a demo device, and print the "
            "address that opens them. Everything is kept in one folder; Ctrl-C stops it.",
        )
    )
    up.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="the gateway's port; the nine after it are used as well (default %(default)s)",
    )
    up.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="PART=PORT",
        help=f"another port for one part: {', '.join(PARTS)}",
    )
    up.add_argument(
        "--tunnel-domain",
        default="localhost",
        metavar="DOMAIN",
        help="sessions live on https://<label>.DOMAIN, which must lead here (default: *.%(default)s, plain)",
    )
    up.add_argument("--tunnel-certificate", type=Path, metavar="FILE", help="PEM chain for *.DOMAIN")
    up.add_argument("--tunnel-key", type=Path, metavar="FILE", help="PEM key of that certificate")
    up.add_argument(
        "--device",
        choices=("agent", "simulator"),
        default="agent",
        help="the demo device: a page behind the agent, or the firmware of a small device as a program of"
        " this machine (default %(default)s)",
    )
    up.add_argument("--no-demo", action="store_true", help="start no demo device")
    up.set_defaults(run=_up)


def _add_link(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    link = _with_data(
        parsers.add_parser(
            "link",
            help="open a session and print its link",
            description="Open a session to a device and print its link. Whoever clicks it within a minute "
            "is in, once: pass it on with care.",
        )
    )
    link.add_argument("device", metavar="DEVICE", help="its id or name")
    link.add_argument("--service", default="web", help="one of the device's services (default %(default)s)")
    _add_duration(link)
    link.set_defaults(
        run=_on_gateway(
            lambda gateway, given: commands.link(gateway, given.device, given.service, given.duration)
        )
    )


def _add_connect(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    connect = _with_data(
        parsers.add_parser(
            "connect",
            help="open a local port to a TCP service of a device, ssh for example",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description="Open a session to a TCP service of a device, and a port on this machine that leads\n"
            "there: each connection to it becomes one to the service. Ctrl-C ends the session.",
            epilog="examples:\n"
            "  towline connect Pump ssh --port 2222      then: ssh -p 2222 user@127.0.0.1\n"
            "  ssh -p 2222 -o HostKeyAlias=pump user@127.0.0.1\n"
            "      keeps the device's host key under its own name, whatever the port\n"
            "  ssh -o ProxyCommand='towline connect Pump ssh --stdio' user@pump\n"
            "  scp -o ProxyCommand='towline connect Pump ssh --stdio' file user@pump:\n\n"
            "Whoever can reach the port has the session: it listens on 127.0.0.1 alone.\n"
            "It ends by itself once the session does.\n"
            "exit codes: 0 ended by a signal (--stdio: or with its connection), 1 the session or the\n"
            "connection was refused or cut (standard error says why), 2 a wrong command line",
        )
    )
    connect.add_argument("device", metavar="DEVICE", help="its id or name")
    connect.add_argument("service", metavar="SERVICE", help="one of its services of kind tcp")
    near = connect.add_mutually_exclusive_group()
    near.add_argument(
        "--port", type=_port, default=0, metavar="N", help="the local port (default: a free one, printed)"
    )
    near.add_argument(
        "--stdio",
        action="store_true",
        help="no port: one connection over standard input and output, for ssh's ProxyCommand",
    )
    _add_duration(connect)
    connect.add_argument(
        "--ca",
        metavar="FILE",
        help="PEM certificates to trust for the sessions' hosts, beside the system's own",
    )
    connect.set_defaults(run=_connect)


def _add_device(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    device = _with_data(
        parsers.add_parser(
            "device",
            help="show what a device says",
            description="Show a device's newest readings, its health, its configuration, and what it was"
            " asked to do.",
        )
    )
    device.add_argument("device", metavar="DEVICE", help="its id or name")
    device.set_defaults(run=_on_gateway(lambda gateway, given: messages.device(gateway, given.device)))


def _add_command(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _with_data(
        parsers.add_parser(
            "command",
            help="ask a device to do something, and wait for its answer",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description="Ask a device to do something once, and print each state that this reaches.",
            epilog="examples:\n"
            "  towline command Pump ping\n"
            "  towline command Pump log_level --param level=debug\n"
            "  towline command Pump run --param name=backup --ttl 3600 --wait 0\n\n"
            "exit codes: 0 the device did it, 1 it did not, or not yet (standard error says why),\n"
            "2 a wrong command line",
        )
    )
    command.add_argument("device", metavar="DEVICE", help="its id or name")
    command.add_argument("name", metavar="NAME", help="what its type can do: ping, reboot, log_level, run")
    command.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter; what is no JSON is text",
    )
    command.add_argument(
        "--ttl",
        type=_seconds,
        default=DEFAULT_TTL_S,
        metavar="SECONDS",
        help="how long it waits for the device (default %(default)s)",
    )
    command.add_argument("--now", action="store_true", help="refuse it while the device is not connected")
    command.add_argument(
        "--wait",
        type=_seconds,
        default=DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to wait for its end (default %(default)s)",
    )
    command.set_defaults(run=_command)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > messages.WAIT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 to {messages.WAIT_MAX_S} whole seconds")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _add_revoke(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    revoke = parsers.add_parser("revoke", help="end a session, or revoke a device for good")
    kinds = revoke.add_subparsers(title="what", metavar="session|device", required=True)
    session = _with_data(kinds.add_parser("session", help="end a session everywhere, within 2 seconds"))
    session.add_argument("id", metavar="ID", help="as `towline sessions` shows it")
    session.set_defaults(run=_on_gateway(lambda gateway, given: commands.revoke_session(gateway, given.id)))
    device = _with_data(kinds.add_parser("device", help="close its tunnel and refuse its certificate"))
    device.add_argument("id", metavar="ID", help="its id or name")
    device.set_defaults(run=_on_gateway(lambda gateway, given: commands.revoke_device(gateway, given.id)))


def _add_token(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    token = _with_data(
        parsers.add_parser(
            "token",
            help="print a registration token for one new device",
            description="Print a registration token: one use, 15 minutes. On the device: "
            "towline agent enrol GATEWAY --token-file FILE --config FILE",
        )
    )
    token.add_argument("--name", help="the device's name")
    token.add_argument("--approve", action="store_true", help="let the device in without a further yes")
    token.set_defaults(
        run=_on_gateway(
            lambda gateway, given: commands.token(gateway, given.name, pre_approved=given.approve)
        )
    )


def _add_duration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        type=int,
        default=DEFAULT_DURATION_S,
        metavar="SECONDS",
        help="how long the session lasts (default %(default)s)",
    )


def _with_data(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--data", type=Path, default=default_data(), metavar="DIR", help="its folder (default %(default)s)"
    )
    return parser


def _on_gateway(
    command: Callable[[GatewayClient, argparse.Namespace], str],
) -> Callable[[argparse.Namespace], int]:
    def run(given: argparse.Namespace) -> int:
        print(command(_gateway(given), given))
        return 0

    return run


def _gateway(given: argparse.Namespace) -> GatewayClient:
    data = DataFolder(given.data.absolute())
    token_file, gateway = os.environ.get(TOKEN_FILE), os.environ.get(GATEWAY)
    if token_file is None:
        return GatewayClient(Credentials.load(data.credentials), data.access_token)
    origin = gateway or Credentials.load(data.credentials).gateway
    return GatewayClient(ApiToken.load(origin, Path(token_file)))


def _command(given: argparse.Namespace) -> int:
    asked = messages.Asked(
        given.name, messages.params(given.param), given.ttl, given.wait, queue=not given.now
    )
    messages.command(_gateway(given), given.device, asked, lambda line: print(line, flush=True))
    return 0


def _connect(given: argparse.Namespace) -> int:
    # Imported here: the other commands need no event loop, and start sooner without.
    from towline.connect.command import Wanted, connect

    wanted = Wanted(given.device, given.service, given.port, given.stdio, given.duration, given.ca)
    return connect(_gateway(given), wanted)


def _up(given: argparse.Namespace) -> int:
    # The launcher needs packages that a machine with the agent alone has not.
    try:
        from towline.launcher.up import run_up
    except ModuleNotFoundError as error:
        raise TowlineError(
            f"`towline up` needs the package {error.name}: pip install 'towline[up]'"
        ) from None
    from towline.launcher.config_files import SessionSite
    from towline.launcher.demo import DemoDevice
    from towline.launcher.ports import Ports

    demo = DemoDevice.NONE if given.no_demo else DemoDevice(given.device)
    ports = Ports.from_arguments(given.port, given.listen)
    site = SessionSite(given.tunnel_domain, given.tunnel_certificate, given.tunnel_key)
    return run_up(DataFolder(given.data.absolute()), ports, site, demo)
