"""The device simulator as the demo device: the firmware of a small device, as a program of this machine.

It is a program of its own, in C: a checkout builds it once (`make firmware-sim` installs what that needs).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from runtime.private_files import write_private
from towline.data_folder import DataFolder
from towline.embedded.processes import Program
from towline.errors import TowlineError
from towline.gateway_client import GatewayClient

NAME: Final = "Simulator"
DEVICE_TYPE: Final = "esp32"  # its commands are those of the chip
BUILD_TIMEOUT_S = 600.0  # some 20 s on two cores; a Raspberry Pi takes ten times that
ASK_TIMEOUT_S = 10.0  # it reads one file
NOT_ENROLLED: Final = 3  # exit code of `towline-device --enrolled`
LAST_LINES = 5  # of a build that failed

_CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
_BUILD: Final = _CHECKOUT / "scripts" / "build_firmware.py"
_PROGRAM: Final = _CHECKOUT / "build" / "firmware" / "sim" / "port" / "towline-device"


async def ensure_built(say: Callable[[str], None]) -> None:
    """Build the simulator where there is none; TowlineError says what is missing."""
    if _PROGRAM.exists():
        return
    if not _BUILD.exists():
        raise TowlineError("--device simulator: it is built in a checkout of Towline, which this is not")
    say("building the device simulator (first start only)")
    code, output = await _run([sys.executable, str(_BUILD), "sim"], BUILD_TIMEOUT_S)
    if code != 0:
        last = "\n".join(output.strip().splitlines()[-LAST_LINES:])
        raise TowlineError(
            f"the device simulator does not build; `make firmware-sim` installs what it needs:\n{last}"
        )


@asynccontextmanager
async def enrolling(data: DataFolder, gateway: GatewayClient) -> AsyncIterator[Sequence[str]]:
    """The options by which the simulator enrols; none where it did. The token is gone afterwards."""
    code, output = await _run([str(_PROGRAM), "--data", str(_folder(data)), "--enrolled"], ASK_TIMEOUT_S)
    if code == 0:
        yield ()
        return
    if code != NOT_ENROLLED:
        raise TowlineError(f"the device simulator: {output.strip()}")
    wish = {"name": NAME, "approve": True, "type": DEVICE_TYPE}
    made = await asyncio.to_thread(gateway.post, "/v1/registration-tokens", wish)
    token_file = data.secrets / "simulator-registration-token"
    write_private(token_file, (made["token"] + "\n").encode())
    try:
        yield ("--gateway", gateway.address, "--token-file", str(token_file), "--name", NAME)
    finally:
        token_file.unlink()


def program(
    data: DataFolder, listen: str, options: Sequence[str], ready: Callable[[], Awaitable[bool]]
) -> Program:
    """The simulator with its own page at `listen` (ADDRESS:PORT)."""
    folder = str(_folder(data))
    return Program(
        "simulator", [str(_PROGRAM), "--data", folder, "--listen", listen, *options], folder, ready
    )


def _folder(data: DataFolder) -> Path:
    return data.demo / "simulator"


async def _run(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Exit code and output; TowlineError when it does not end in time.

    It ends with whoever gives up.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        raise TowlineError(f"{argv[0]} took more than {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode("utf-8", "replace")
