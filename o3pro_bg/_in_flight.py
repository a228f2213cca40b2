"""How many requests are under way at once, and who is next."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class InFlight:
    """
    Bounds the requests under way.

    Who finds no place waits for one in his turn, so nobody starves; but a job that is cancelled, which saves money,
    goes before all others.

    Args:
        most: The most requests under way at once.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._hurried: deque[asyncio.Future[None]] = deque()
        self._others: dict[object, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def place(self, job_id: str, *, is_urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a place for a request about this job, and hold it."""
        if self._free:
            self._free -= 1
        else:
            await self._turn(job_id, is_urgent=is_urgent)
        try:
            yield
        finally:
            self._pass_on()

    def hurry(self, job_id: str) -> None:
        """Have what waits for a place for this job go before the others."""
        if (turn := self._others.pop(job_id, None)) is not None:
            self._hurried.append(turn)

    async def _turn(self, job_id: str, *, is_urgent: bool) -> None:
        turn = asyncio.get_running_loop().create_future()
        # A job has one task, and so one request; should there be two, the second one has no name.
        self._others[turn if job_id in self._others else job_id] = turn
        if is_urgent:
            self.hurry(job_id)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._hurried or self._others:
            turn = self._hurried.popleft() if self._hurried else self._others.pop(next(iter(self._others)))
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
