"""Makes the demo device a device of the gateway, once, in the way any other device becomes one."""

from __future__ import annotations

import asyncio
import secrets
import sys
from enum import StrEnum
from pathlib import Path

from runtime.private_files import write_private
from towline.data_folder import DataFolder
from towline.errors import TowlineError
from towline.gateway_client import GatewayClient

DEMO_NAME = "Demo device"
ENROL_TIMEOUT_S = 30.0  # makes a key and exchanges four requests on loopback
IDENTITY_FILE = "identity.toml"  # the last file that enrolment writes


class DemoDevice(StrEnum):
    """What stands for a device. Each kind keeps its own identity, so a folder may have seen both."""

    AGENT = "agent"  # a small web server behind the agent, as on a Linux device
    SIMULATOR = "simulator"  # the firmware of a small device, as a program of this machine
    NONE = "none"


def is_enrolled(data: DataFolder) -> bool:
    return (data.agent_state / IDENTITY_FILE).exists()


async def enrol(data: DataFolder, gateway: GatewayClient, config: Path) -> None:
    """Enrol with a pre-approved registration token; TowlineError with what the agent said."""
    made = await asyncio.to_thread(
        gateway.post, "/v1/registration-tokens", {"name": DEMO_NAME, "approve": True}
    )
    token_file = data.secrets / "demo-registration-token"
    write_private(token_file, (made["token"] + "\n").encode())
    argv = [sys.executable, "-m", "tunnel_agent", "enrol", gateway.address]
    argv += ["--token-file", str(token_file), "--config", str(config), "--name", DEMO_NAME]
    # Not this machine's id, which belongs to a real agent on it; a new one each time, since an enrolment that
    # was killed half way keeps its own.
    argv += ["--hardware-id", f"demo-{secrets.token_hex(8)}", "--wait", str(ENROL_TIMEOUT_S)]
    try:
        await _run(argv)
    finally:
        token_file.unlink()


async def _run(argv: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(ENROL_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TowlineError(f"the demo device's enrolment took more than {ENROL_TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        raise TowlineError(f"the demo device's enrolment failed: {output.decode('utf-8', 'replace').strip()}")
