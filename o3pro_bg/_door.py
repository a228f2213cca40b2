"""The door through which the creates of a deployment go to the service: one by one, in order, as its budget allows."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from typing import TYPE_CHECKING, Final

from o3pro_bg._line import Line
from o3pro_bg._remote import RemoteTrouble, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from o3pro_bg._budget import RateBudget, Reservation
    from o3pro_bg._line import Turn, Waiter
    from o3pro_bg._records import News

log = logging.getLogger("o3pro_bg")

_AT_ONCE: Final = 200  # so many of those who wait are told why in one turn of the loop


class Door:
    """
    Lets the creates of one deployment go.

    Args:
        name: The deployment, for the log.
        clock: Monotonic seconds.
    """

    def __init__(self, name: str, budget: RateBudget, clock: Callable[[], float]) -> None:
        self._name = name
        self._budget = budget
        self._clock = clock
        self._line = Line()
        self._untold: dict[Waiter, Callable[[], object]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def send(
        self,
        create: Callable[[], Awaitable[News]],
        turn: Turn,
        tokens: int,
        *,
        held_up: Callable[[], object],
        is_long: bool = False,
    ) -> News:
        """
        Send a create in its turn, and answer the news that it brings.

        Args:
            create: Sends it.
            turn: Its place in the order.
            tokens: What the service counts for it.
            held_up: Told, once, that it waits because of the service's rates.
            is_long: Whether the create is answered when the job ends, and not when the service takes it.

        Raises:
            RemoteTrouble: It brought none.
        """
        reservation = await self._leave(turn, tokens, held_up)
        try:
            if is_long:
                self._budget.spent(reservation, self._clock())
                self._let_go()
            news = await create()
        except RemoteTrouble as trouble:
            self._note(reservation, trouble)
            raise
        else:
            self._budget.accepted(reservation, self._clock(), news.limits)
            return news
        finally:
            self._budget.spent(reservation, self._clock())
            self._let_go()

    async def _leave(self, turn: Turn, tokens: int, held_up: Callable[[], object]) -> Reservation:
        waiter = self._line.join(turn, tokens)
        self._untold[waiter] = held_up
        self._let_go()
        try:
            reservation: Reservation = await waiter.call
        except asyncio.CancelledError:
            if waiter.call.done() and not waiter.call.cancelled():  # leave came in the same moment
                self._budget.returned(waiter.call.result())
                self._let_go()
            raise
        finally:
            self._untold.pop(waiter, None)
        return reservation

    def _let_go(self) -> None:
        """Let go whoever may, and see to it that this is asked again in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (waiter := self._line.first()) is not None:
            now = self._clock()
            if (pause := self._budget.wait(now, waiter.need)) > 0:
                if pause < math.inf:
                    self._timer = asyncio.get_running_loop().call_later(pause, self._let_go)
                    self._explain()
                return
            waiter.call.set_result(self._budget.take(now, waiter.need))

    def _explain(self) -> None:
        """Tell those who wait that it is because of the service's rates: many, a part of them after the other."""
        for waiter in list(self._untold)[:_AT_ONCE]:
            self._untold.pop(waiter)()
        if self._untold and self._timer is not None:
            asyncio.get_running_loop().call_soon(self._explain)

    def _note(self, reservation: Reservation, trouble: RemoteTrouble) -> None:
        now = self._clock()
        if trouble.kind is Trouble.THROTTLED:
            if self._budget.throttled(reservation, now, random.random(), trouble.retry_after, trouble.limits):
                log.info("deployment %s: 429; no create for %.1f seconds", self._name, self._budget.wait(now))
        elif trouble.kind is Trouble.UNSENT:
            self._budget.returned(reservation)
