"""The edge of a process: its command line, its event loop, its signals, its exit code."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime import malloc, open_files
from runtime.logs import get_logger
from runtime.settings import SettingsError

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_BAD_SETTINGS = 2
UNUSABLE_ADDRESS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})

Main = Callable[[Path], Coroutine[Any, Any, int | None]]

_log = get_logger("runtime.process")


class Shutdown:
    """The wish to stop: ``requested`` is set by the first SIGTERM or SIGINT; a second one exits at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()

    def install(self) -> Shutdown:
        """Take over SIGTERM and SIGINT of the running loop; call it in the main thread."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        return self

    def request(self) -> None:
        """Ask for the stop from within, for example after a task that cannot be replaced crashed."""
        self.requested.set()

    def _signalled(self, number: int) -> None:
        if self.requested.is_set():
            os._exit(128 + number)  # the shell's code for "ended by this signal"
        self.requested.set()


def run(
    name: str, main: Main, argv: Sequence[str] | None = None, *, others: Mapping[str, str] | None = None
) -> int:
    """Run the service ``main(config path)`` and return the process's exit code.

    ``others``: what the program does beside serving, by the word that asks for it, for --help.
    0 after a clean end (or what ``main`` returned), 1 after a crash, 2 and a line on stderr for bad settings.
    """
    width = max(map(len, others or ()), default=0)
    lines = [f"  {word:<{width}}  {what}" for word, what in (others or {}).items()]
    parser = argparse.ArgumentParser(
        prog=name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["in place of serving (COMMAND --help says more):", *lines]) if lines else None,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings, a TOML file")
    arguments = parser.parse_args(argv)
    return run_loop(name, main(arguments.config))


def run_loop(name: str, main: Coroutine[Any, Any, int | None]) -> int:
    """Run a service whose command line is already parsed; exit codes as ``run``."""
    malloc.tune()
    open_files.raise_limit()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(main) or EXIT_OK
    except SettingsError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        # An address to listen on that cannot be had is the operator's affair: a stack tells nothing more.
        if error.errno not in UNUSABLE_ADDRESS:
            _log.critical("process crashed", exc_info=True, extra={"command": name})
        else:
            print(f"{name}: cannot listen: {error}", file=sys.stderr)
        return EXIT_CRASH
    except Exception:
        _log.critical("process crashed", exc_info=True, extra={"command": name})
        return EXIT_CRASH


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where it is installed (it has no wheel for 32-bit ARM), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
