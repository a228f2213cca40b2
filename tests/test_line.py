"""Who waits is called in order: by priority, then by who came first."""

from __future__ import annotations

import asyncio
import time

from o3pro_bg._budget import RateBudget, Reservation
from o3pro_bg._door import Door, Slots
from o3pro_bg._line import Line, Turn, Waiter
from o3pro_bg._records import News
from o3pro_bg._states import Event

from .virtual import virtual


def waiter(rank: int, since: float, number: int) -> Waiter:
    """Answer somebody who waits in this turn."""
    return Waiter(Turn(rank, since, number), 0, lambda _: None)


@virtual
async def test_the_order_is_that_of_priority_then_age_then_number() -> None:
    """The highest priority is first, then the oldest job, then the one that was lived first."""
    line, called = Line(), list[Turn]()
    waiting = [waiter(*turn) for turn in ((0, 5.0, 3), (-9, 7.0, 4), (0, 5.0, 2), (1, 1.0, 1), (0, 4.0, 9))]
    for each in waiting:
        line.join(each)
    while (first := line.first()) is not None:
        first.call.set_result(None)
        called.append(first.turn)
    assert called == sorted(each.turn for each in waiting)


@virtual
async def test_who_has_gone_is_passed_over() -> None:
    """A waiter that was cancelled is not called."""
    line, gone, other = Line(), waiter(0, 0.0, 1), waiter(0, 0.0, 2)
    line.join(gone)
    line.join(other)
    gone.call.cancel()
    line.leave()
    assert line.first() is other


@virtual
async def test_those_who_have_gone_take_no_room() -> None:
    """A line in which thousands have given up behind a first one that stays holds few of them, in order still."""
    line = Line()
    many = [waiter(0, float(number), number) for number in range(5000)]
    for each in many:
        line.join(each)
    for each in many[1:4900]:
        each.call.cancel()
        line.leave()
    assert len(line._heap) < 400
    many[0].call.set_result(None)
    assert line.first() is many[4900]


@virtual
async def test_a_door_keeps_who_may_not_leave_yet_in_the_line() -> None:
    """Whom something else than the budget keeps has no slot and can leave; who is first goes once it is asked again."""

    class Kept(Door):
        is_shut = True

        def _may_leave(self, waiter: Waiter) -> bool:
            return not self.is_shut

    async def create(_: Reservation) -> News:
        return News(Event.ACCEPTED, response_id="r")

    slots = Slots(2)
    door = Kept("d", RateBudget(), slots, time.monotonic)
    waiting = [waiter(0, 0.0, number) for number in range(2)]
    gone, other = [asyncio.create_task(door.send(each, create)) for each in waiting]
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(1)
    assert (gone.cancelled(), other.done(), slots.free) == (True, False, 2)
    door.is_shut = False
    door.let_go()
    assert (await other).response_id == "r"
    assert slots.free == 1
