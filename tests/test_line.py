"""Who waits is called in order: by priority, then by who came first; a slot is held by one and never lost."""

from __future__ import annotations

import asyncio

import pytest

from o3pro_bg._line import Line, Slots, Turn

from .virtual import virtual


@virtual
async def test_the_order_is_that_of_priority_then_age_then_number() -> None:
    """The highest priority is first, then the oldest job, then the one that was lived first."""
    line = Line()
    turns = [Turn(0, 5.0, 3), Turn(-9, 7.0, 4), Turn(0, 5.0, 2), Turn(1, 1.0, 1), Turn(0, 4.0, 9)]
    for turn in turns:
        line.join(turn)
    called = []
    while (waiter := line.first()) is not None:
        waiter.call.set_result(None)
        called.append(waiter.turn)
    assert called == sorted(turns)


@virtual
async def test_who_has_gone_is_passed_over() -> None:
    """A waiter that was cancelled is not called."""
    line = Line()
    gone, other = line.join(Turn(0, 0.0, 1)), line.join(Turn(0, 0.0, 2))
    gone.call.cancel()
    assert line.first() is other


@virtual
async def test_slots_go_by_priority_and_who_waits_is_told() -> None:
    """A slot that comes free goes to the highest priority; only who found none is told that he waits."""
    slots, order, told = Slots(1), list[int](), list[int]()

    async def work(number: int, priority: int = 0) -> None:
        async with slots.slot(Turn(-priority, 0.0, number), lambda: told.append(number)):
            order.append(number)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(work(number, priority)) for number, priority in ((1, 0), (2, 0), (3, 5), (4, 0))]
    await asyncio.gather(*tasks)
    assert order == [1, 3, 2, 4]
    assert told == [2, 3, 4]


@virtual
@pytest.mark.parametrize("moment", ["while it waits", "as its turn comes", "as it works"])
async def test_no_slot_is_lost(moment: str) -> None:
    """Who is cancelled, in whatever moment, leaves his slot to the next one."""
    slots, done = Slots(1), asyncio.Event()

    async def work(number: int) -> None:
        async with slots.slot(Turn(0, 0.0, number), lambda: None):
            await done.wait()

    first, second, third = (asyncio.create_task(work(number)) for number in range(3))
    await asyncio.sleep(0)
    if moment != "while it waits":
        first.cancel()
        await asyncio.sleep(0)
    if moment == "as it works":
        await asyncio.sleep(1)
    second.cancel()
    done.set()
    await asyncio.wait([first, second, third], timeout=5)
    assert third.done()
    assert not third.cancelled()
    async with slots.slot(Turn(0, 0.0, 9), lambda: None):
        pass
