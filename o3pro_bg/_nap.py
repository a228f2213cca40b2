"""A sleep that others can end."""

from __future__ import annotations

import asyncio


class Nap:
    """
    Sleeps of one task: a future and a timer, the least that a waiting job can hold.

    Who wants something of the sleeper leaves a wish, and ends his nap; the next one, where he does not sleep just now.

    Attributes:
        due: When the nap is over, on the loop's clock, or None where nobody sleeps.
    """

    __slots__ = ("_over", "due")

    def __init__(self) -> None:
        self.due: float | None = None
        self._over = asyncio.get_running_loop().create_future()

    async def take(self, seconds: float) -> float:
        """Sleep for so many seconds, or until somebody ends that; answer how much later it is now than it should be."""
        loop = asyncio.get_running_loop()
        self.due = due = loop.time() + seconds
        timer = loop.call_at(due, self.end)
        try:
            await self._over
        finally:
            self.due = None
            timer.cancel()
        self._over = loop.create_future()
        return loop.time() - due

    def end(self) -> None:
        """End the nap."""
        if not self._over.done():
            self._over.set_result(None)
