"""The bound on requests under way: nobody starves, cancels go first, and no place is lost."""

from __future__ import annotations

import asyncio

import pytest

from o3pro_bg._engine import CancelVerdict
from o3pro_bg._in_flight import InFlight

from .virtual import Bench, Recorder, virtual


@virtual
async def test_places_are_had_in_turn_and_cancels_go_first() -> None:
    """Who waits gets a place in his turn, whatever he wants of the service; but whoever cancels, before them."""
    bound, order = InFlight(1), list[str]()

    async def work(name: str, *, is_urgent: bool = False) -> None:
        async with bound.place(name, is_urgent=is_urgent):
            order.append(name)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(work(name)) for name in ("first", "look", "create")]
    await asyncio.sleep(0.5)
    tasks += [asyncio.create_task(work(name, is_urgent=True)) for name in ("cancel", "another cancel")]
    await asyncio.gather(*tasks)
    assert order == ["first", "cancel", "another cancel", "look", "create"]


@virtual
async def test_a_turn_that_was_given_up_takes_no_other_one_along() -> None:
    """Who gives up waiting, and comes again to cancel, goes before all others."""
    bound, order = InFlight(1), list[str]()

    async def work(name: str, *, is_urgent: bool = False) -> None:
        async with bound.place(name, is_urgent=is_urgent):
            order.append(name)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(work(name)) for name in ("first", "job", "look")]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(work("job", is_urgent=True)))
    await asyncio.wait(tasks)
    assert order == ["first", "job", "look"]


@virtual
async def test_creates_and_others_take_turns() -> None:
    """Neither the looks at many jobs nor the creates of many keep the others from going."""
    bound, order = InFlight(1), list[str]()

    async def work(name: str, *, is_create: bool) -> None:
        async with bound.place(name, is_create=is_create):
            order.append(name)
            await asyncio.sleep(1)

    names = ["first", "look 1", "look 2", "look 3", "create 1", "create 2", "create 3"]
    await asyncio.gather(*(work(name, is_create=name.startswith("create")) for name in names))
    assert order == ["first", "create 1", "look 1", "create 2", "look 2", "create 3", "look 3"]


@virtual
@pytest.mark.parametrize("moment", ["while it waits", "as its turn comes", "as it begins"])
async def test_no_place_is_lost(moment: str) -> None:
    """Who is cancelled, in whatever moment, leaves his place to the next one."""
    bound = InFlight(1)
    held, got = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with bound.place("job"):
            await held.wait()

    async def get() -> None:
        async with bound.place("job"):
            got.set()

    first = asyncio.create_task(hold())
    await asyncio.sleep(0)
    second = asyncio.create_task(hold())
    third = asyncio.create_task(get())
    await asyncio.sleep(0)
    if moment != "while it waits":
        first.cancel()
        await asyncio.sleep(0)
    if moment == "as it begins":
        await asyncio.sleep(0)
    second.cancel()
    held.set()
    await asyncio.wait([first, second, third], timeout=5)
    assert got.is_set()
    async with bound.place("job"):
        pass


@virtual
async def test_a_cancel_overtakes_the_looks_of_many_jobs() -> None:
    """A cancel does not wait behind the looks at all other jobs."""
    bench = Bench(Recorder(seconds=1000), max_in_flight=1)
    for number in range(50):
        bench.start(f"job-{number}", response_id=f"resp_{number}")
    bench.remote.latency = 1.0
    await asyncio.sleep(10)
    cancel = asyncio.create_task(bench.engine.cancel("job-7"))
    await asyncio.sleep(3)
    assert bench.remote.counts["cancel"] == 1
    assert await cancel in (CancelVerdict.CONFIRMED, CancelVerdict.UNCONFIRMED)
    await bench.engine.close(0)


@virtual
async def test_no_place_is_won_by_giving_up() -> None:
    """Who is cancelled while he waits is cancelled, and leaves no more places than there were."""
    bound = InFlight(1)
    async with bound.place("job"):
        waiter = asyncio.create_task(bound.enter("another", is_urgent=False, is_create=False))
        await asyncio.sleep(1)
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), bound.place("third"):
                raise AssertionError("there was one place")
