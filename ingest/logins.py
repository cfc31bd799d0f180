"""Whether a device may log in at the embedded broker: the gateway knows its password."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from runtime.internal_http import GatewayRefused, InternalHttp

PATH: Final = "/internal/v1/devices/broker-login"


class Logins:
    """Asks at each login: a device that was revoked meanwhile does not get in again."""

    def __init__(self, http: InternalHttp) -> None:
        self._http = http

    async def check(self, device: str, password: str) -> bool:
        """GatewayUnavailable or GatewayRefused: nobody can tell now."""
        try:
            await self._http.call("POST", PATH, {"device_id": device, "password": password})
        except GatewayRefused as error:
            # What cannot even be asked (a name that is no device id) may not log in either.
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY):
                return False
            raise
        return True
