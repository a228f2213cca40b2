"""Whether it is the emulator that answers for the service: every page says so then."""

from __future__ import annotations

import http.client
import time
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from anyio import to_thread

_HEADER: Final = "x-o3pro-bg-emulator"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_PATIENCE: Final = 1.0  # seconds for it to answer
_AGAIN: Final = 30.0  # seconds until one that was not there is asked again


class Mark:
    """
    Whether the emulator answers at this endpoint.

    It listens on loopback alone, so no other endpoint is asked. Its answers say so themselves; this tells it before
    there is one.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._place = (parts.hostname, parts.port) if parts.scheme == "http" and parts.hostname in _LOOPBACK else None
        self._is_emulator = False
        self._asked_at = float("-inf")

    async def is_emulator(self) -> bool:
        """Tell whether the emulator answers there; asks it until it has, twice a minute at the most."""
        now = time.monotonic()
        if self._place is not None and not self._is_emulator and now > self._asked_at + _AGAIN:
            self._asked_at = now
            self._is_emulator = await to_thread.run_sync(_knock, *self._place)
        return self._is_emulator


def _knock(host: str, port: int | None) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    with suppress(OSError, http.client.HTTPException):
        try:
            connection.request("GET", "/emulator")
            return connection.getresponse().getheader(_HEADER) is not None
        finally:
            connection.close()
    return False
