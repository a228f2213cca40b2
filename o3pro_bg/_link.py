"""The way to the service, which all jobs of an engine share: connected by the first, and in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from o3pro_bg._remote import hanging_up

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from o3pro_bg._remote import Remote


class Link:
    """
    The way to the service.

    Args:
        connect: Answers the remote of the running loop; asked once, by the first job.

    Attributes:
        remote: The service, once there are connections.
    """

    def __init__(self, connect: Callable[[], Awaitable[Remote]]) -> None:
        self.connect = connect
        self.remote: Remote | None = None
        self._connecting: asyncio.Task[Remote | BaseException] | None = None
        self._comers: list[asyncio.Future[Remote | BaseException]] = []
        self._hanging_up: AsyncGenerator[None, None] | None = None

    async def connected(self) -> Remote:
        """
        Answer the remote, connected at the first call; a trouble with that is one of all who wait for it.

        Whoever waits for it goes on before those who come after him.
        """
        if self.remote is not None:
            return self.remote
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._admit)
        comer: asyncio.Future[Remote | BaseException] = asyncio.get_running_loop().create_future()
        self._comers.append(comer)
        remote = await comer
        if isinstance(remote, BaseException):
            raise remote.with_traceback(None)  # else each who waits would lengthen it
        return remote

    async def _connect(self) -> Remote | BaseException:
        """Connect, or answer the trouble with that: raised by a task, a SystemExit would end the loop."""
        try:
            remote = await self.connect()
            self._hanging_up = hanging_up(remote)
            await anext(self._hanging_up)
        except BaseException as exc:
            return exc
        return remote

    def _admit(self, connecting: asyncio.Task[Remote | BaseException]) -> None:
        """Have those who wait go on. Who comes before they all have is one of them: else he would overtake them."""
        remote = asyncio.CancelledError() if connecting.cancelled() else connecting.result()
        comers, self._comers = self._comers, []
        for comer in comers:
            if not comer.done():
                comer.set_result(remote)
        if isinstance(remote, BaseException):
            self._connecting = None
        elif comers:
            asyncio.get_running_loop().call_soon(self._admit, connecting)
        else:
            self._connecting, self.remote = None, remote

    async def hang_up(self) -> None:
        """Close the connections, if there are any, or are about to be."""
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            await asyncio.wait([connecting], timeout=1)
        if self._hanging_up is not None:
            await self._hanging_up.aclose()
