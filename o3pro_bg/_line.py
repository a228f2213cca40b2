"""Who waits, and who is next: those of higher priority first, and among these whoever came first."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_FEW: Final = 100  # so many of those who have gone may stay in the line


class Turn(NamedTuple):
    """
    A place in the order in which jobs go; the smallest is the first.

    Attributes:
        rank: The priority, the highest being the smallest rank.
        since: When the job was submitted, on the monotonic clock.
        number: Its number among those that this process lives.
    """

    rank: int
    since: float
    number: int


class Waiter:
    """
    Somebody who waits for a call, which brings him something.

    Args:
        turn: His place in the order.
        need: How much he needs of what is waited for.
        held_up: Told why he waits, where that is for longer.
        has_slot: Whether he has a slot already, because a former create of his may have been accepted.
    """

    __slots__ = ("call", "has_slot", "held_up", "need", "turn")

    def __init__(self, turn: Turn, need: int, held_up: Callable[[str], object], *, has_slot: bool = False) -> None:
        self.has_slot = has_slot
        self.turn = turn
        self.need = need
        self.held_up = held_up
        self.call: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __lt__(self, other: Waiter) -> bool:
        return self.turn < other.turn


class Line:
    """Those who wait, in order."""

    def __init__(self) -> None:
        self._heap: list[Waiter] = []
        self._gone = 0

    def join(self, waiter: Waiter) -> None:
        """Let him wait."""
        heappush(self._heap, waiter)

    def first(self) -> Waiter | None:
        """Answer who is next, or None where nobody waits."""
        while self._heap and self._heap[0].call.done():  # called, or gone
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def leave(self) -> None:
        """Note that one who waited has gone: his call is cancelled."""
        self._gone += 1
        if self._gone > max(_FEW, len(self._heap) // 2):
            self._heap = [waiter for waiter in self._heap if not waiter.call.done()]
            heapify(self._heap)
            self._gone = 0
