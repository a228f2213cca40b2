"""How many requests are under way at once, and who is next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    _Turns = OrderedDict[object, asyncio.Future[None]]


class InFlight:
    """
    Bounds the requests under way.

    A job that is cancelled, which saves money, goes before all others. Of these a create and something else take
    turns: the looks at many jobs do not keep the next ones from being sent, nor the other way round. Among its like,
    each has its turn as it came.

    Args:
        most: The most requests under way at once.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._hurried: deque[asyncio.Future[None]] = deque()
        self._creates: _Turns = OrderedDict()  # a dict is slow to find its first
        self._others: _Turns = OrderedDict()
        self._is_creates_turn = False

    def place(self, job_id: str, *, is_urgent: bool = False, is_create: bool = False) -> _Place:
        """Wait for a place for a request about this job, and hold it."""
        return _Place(self, job_id, is_urgent, is_create)

    def hurry(self, job_id: str) -> None:
        """Have what waits for a place for this job go before the others."""
        for turns in (self._creates, self._others):
            if (turn := turns.pop(job_id, None)) is not None:
                self._hurried.append(turn)

    async def enter(self, job_id: str, *, is_urgent: bool, is_create: bool) -> None:
        """Wait for a place."""
        if self._free:
            self._free -= 1
            return
        turns = self._creates if is_create else self._others
        turn = asyncio.get_running_loop().create_future()
        # A job has one task, and so one request; should there be two, the second one has no name.
        key = turn if job_id in turns else job_id
        turns[key] = turn
        if is_urgent:
            self.hurry(job_id)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same moment
                self.leave()
            elif turns.get(key) is turn:
                del turns[key]
            raise

    def leave(self) -> None:
        """Pass the place on."""
        while (turn := self._next()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> asyncio.Future[None] | None:
        if self._hurried:
            return self._hurried.popleft()
        self._is_creates_turn = not self._is_creates_turn
        for turns in (self._creates, self._others) if self._is_creates_turn else (self._others, self._creates):
            if turns:
                return turns.popitem(last=False)[1]
        return None


class _Place(NamedTuple):
    """A place, as long as it is held; a generator would take thrice the time."""

    bound: InFlight
    job_id: str
    is_urgent: bool
    is_create: bool

    async def __aenter__(self) -> None:
        await self.bound.enter(self.job_id, is_urgent=self.is_urgent, is_create=self.is_create)

    async def __aexit__(self, *_: object) -> None:
        self.bound.leave()
