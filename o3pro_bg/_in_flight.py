"""How many requests are under way at once, and who is next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import NamedTuple


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
        self._others: OrderedDict[object, asyncio.Future[None]] = OrderedDict()  # a dict is slow to find its first

    def place(self, job_id: str, *, is_urgent: bool = False) -> _Place:
        """Wait for a place for a request about this job, and hold it."""
        return _Place(self, job_id, is_urgent)

    def hurry(self, job_id: str) -> None:
        """Have what waits for a place for this job go before the others."""
        if (turn := self._others.pop(job_id, None)) is not None:
            self._hurried.append(turn)

    async def enter(self, job_id: str, *, is_urgent: bool) -> None:
        """Wait for a place."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        # A job has one task, and so one request; should there be two, the second one has no name.
        self._others[turn if job_id in self._others else job_id] = turn
        if is_urgent:
            self.hurry(job_id)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Pass the place on."""
        while self._hurried or self._others:
            turn = self._hurried.popleft() if self._hurried else self._others.popitem(last=False)[1]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Place(NamedTuple):
    """A place, as long as it is held; a generator would take thrice the time."""

    bound: InFlight
    job_id: str
    is_urgent: bool

    async def __aenter__(self) -> None:
        await self.bound.enter(self.job_id, is_urgent=self.is_urgent)

    async def __aexit__(self, *_: object) -> None:
        self.bound.leave()
