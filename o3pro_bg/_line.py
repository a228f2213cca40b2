"""Who waits, and who is next: those of higher priority first, and among these whoever came first."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Turn(NamedTuple):
    """
    A place in the order in which jobs go; the smallest is the first.

    Attributes:
        rank: The priority, the highest being the smallest rank.
        since: When the job was submitted.
        number: Its number among those that this process lives.
    """

    rank: int
    since: float
    number: int


class Waiter:
    """Somebody who waits for a call, which brings him something."""

    __slots__ = ("call", "need", "turn")

    def __init__(self, turn: Turn, need: int) -> None:
        self.turn = turn
        self.need = need
        self.call: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __lt__(self, other: Waiter) -> bool:
        return self.turn < other.turn


class Line:
    """Those who wait, in order."""

    def __init__(self) -> None:
        self._heap: list[Waiter] = []

    def join(self, turn: Turn, need: int = 0) -> Waiter:
        """Answer a new waiter, who needs so much of what is waited for."""
        waiter = Waiter(turn, need)
        heappush(self._heap, waiter)
        return waiter

    def first(self) -> Waiter | None:
        """Answer who is next, or None where nobody waits."""
        while self._heap and self._heap[0].call.done():  # called, or gone
            heappop(self._heap)
        return self._heap[0] if self._heap else None


class Slots:
    """
    Bounds the jobs under way at the service.

    Args:
        most: The most at once.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._line = Line()

    @asynccontextmanager
    async def slot(self, turn: Turn, held_up: Callable[[], object]) -> AsyncIterator[None]:
        """Wait for a slot, after telling so where there is none, and hold it."""
        waiter = self._line.join(turn)
        self._call()
        try:
            if not waiter.call.done():
                held_up()
            await waiter.call
            yield
        finally:
            self._free += waiter.call.done() and not waiter.call.cancelled()
            self._call()

    def _call(self) -> None:
        while self._free and (waiter := self._line.first()) is not None:
            self._free -= 1
            waiter.call.set_result(None)
