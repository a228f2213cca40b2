"""The door through which the creates of a deployment go to the service: one by one, in order, as its budget allows."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from itertools import islice
from typing import TYPE_CHECKING, Final

from o3pro_bg._line import Line, Waiter
from o3pro_bg._remote import RemoteTrouble, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from o3pro_bg._budget import RateBudget, Reservation
    from o3pro_bg._records import News

log = logging.getLogger("o3pro_bg")

_AT_ONCE: Final = 200  # so many of those who wait are told why in one turn of the loop
_PATIENCE: Final = 1.0  # seconds in which a create is answered, as a rule


class Slots:
    """
    Bounds the jobs under way at the service.

    Args:
        most: The most at once; None is no bound.
    """

    def __init__(self, most: int | None) -> None:
        self.free = math.inf if most is None else most
        self.doors: list[Door] = []

    def give_back(self) -> None:
        """Have another job go."""
        self.free += 1
        for door in self.doors:
            door.let_go()


class Door:
    """
    Lets the creates of one deployment go. Who does gets a slot, and gives it back once his job is not under way.

    Args:
        name: The deployment, for the log.
        budget: When the next one may go.
        slots: Bounds those who have gone.
        clock: Monotonic seconds.
    """

    def __init__(self, name: str, budget: RateBudget, slots: Slots, clock: Callable[[], float]) -> None:
        self._name = name
        self._budget = budget
        self._slots = slots
        self._clock = clock
        self._line = Line()
        self._holders = Line()  # those who have a slot already: they do not wait for who has none
        self._untold: dict[str, dict[Waiter, None]] = {"concurrency": {}, "connection": {}, "rate_limit": {}}
        self._timer: asyncio.TimerHandle | None = None
        slots.doors.append(self)

    async def send(self, waiter: Waiter, create: Callable[[Reservation], Awaitable[News]]) -> News:
        """
        Send a create in its turn, and answer the news that it brings.

        Args:
            waiter: Who sends it; his need is what the service counts for it. He has a slot from now on, whatever
                becomes of it, which the caller gives back. What his call raises is raised.
            create: Sends it, and calls `leaves` first.

        Raises:
            RemoteTrouble: It brought none.
        """
        reservation = await self._leave(waiter)
        try:
            news = await create(reservation)
        except BaseException as exc:
            self._note(reservation, exc)
            self.let_go()
            raise
        self._budget.accepted(reservation, self._clock(), news.limits)
        self.let_go()
        return news

    def leaves(self, reservation: Reservation, *, is_long: bool) -> None:
        """Note that a create leaves the house now; a long one that is not refused soon is presumed to be accepted."""
        reservation.has_left = True
        if is_long:
            asyncio.get_running_loop().call_later(_PATIENCE, self._presume, reservation)

    def _presume(self, reservation: Reservation) -> None:
        if reservation.is_open:
            self._budget.accepted(reservation, self._clock())
            self.let_go()

    def let_go(self) -> None:
        """Let go whoever may, and see to it that this is asked again in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (waiter := self._next()) is not None:
            now = self._clock()
            if (pause := self._budget.wait(now, waiter.need)) > 0:
                self._wait(pause)
                return
            if not self._may_leave(waiter):
                return
            self._admit(waiter, now)
        if self._slots.free < 1 and self._line.first() is not None:
            self._explain("concurrency")

    def _next(self) -> Waiter | None:
        """Answer who is next of those who have a slot, or can have one."""
        firsts = [self._holders.first(), self._line.first() if self._slots.free >= 1 else None]
        return min((first for first in firsts if first is not None), default=None)

    def _may_leave(self, waiter: Waiter) -> bool:
        """Tell whether nothing else keeps him; who answers False sees to it that `let_go` is called once it is so."""
        return True

    def _admit(self, waiter: Waiter, now: float) -> None:
        """Let him go."""
        self._slots.free -= not waiter.has_slot
        waiter.has_slot = True
        waiter.call.set_result(self._budget.take(now, waiter.need))

    async def _leave(self, waiter: Waiter) -> Reservation:
        line = self._holders if waiter.has_slot else self._line
        line.join(waiter)
        for untold in self._untold.values():
            untold[waiter] = None
        try:
            self.let_go()
            reservation: Reservation = await waiter.call
        except BaseException:
            if waiter.call.done() and not waiter.call.cancelled() and waiter.call.exception() is None:
                self._budget.returned(waiter.call.result())  # leave came in the same moment
            waiter.call.cancel()
            line.leave()
            self.let_go()  # whoever is next was perhaps waiting for him alone
            raise
        finally:
            for untold in self._untold.values():
                untold.pop(waiter, None)
        return reservation

    def _wait(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        if pause < math.inf:
            self._timer = loop.call_later(pause, self.let_go)
            self._explain("rate_limit")
        elif self._budget.is_refused:
            self._explain("rate_limit")
        else:
            self._timer = loop.call_later(_PATIENCE, self._explain, "connection")

    def _explain(self, reason: str) -> None:
        """
        Tell those who wait why: many, a part of them after the other.

        Each is told of a reason once, and of none after that of the rate: what holds up the first of them changes
        often, and for each it may have to be written down.
        """
        untold = self._untold[reason]
        for waiter in list(islice(untold, _AT_ONCE)):
            for reasons in self._untold.values() if reason == "rate_limit" else [untold]:
                reasons.pop(waiter, None)
            waiter.held_up(reason)
        if untold:
            asyncio.get_running_loop().call_soon(self._explain, reason)

    def _note(self, reservation: Reservation, exc: BaseException) -> None:
        now = self._clock()
        trouble = exc if isinstance(exc, RemoteTrouble) else None
        if trouble is not None and trouble.kind is Trouble.THROTTLED:
            if self._budget.throttled(reservation, now, random.random(), trouble.retry_after, trouble.limits):
                log.info("deployment %s: 429; no create for %.1f seconds", self._name, self._budget.closed(now))
        elif reservation.has_left and (trouble is None or trouble.kind is not Trouble.UNSENT):
            self._budget.spent(reservation, now)
        else:
            self._budget.returned(reservation)
