"""What is promised of the tools for tests: virtual time, the service in memory, the emulator as a fixture."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import AsyncBackgroundHandler
from o3pro_bg._records import JobRequest
from o3pro_bg.config import O3ProConfig
from o3pro_bg.testing import (
    Event,
    Failure,
    FakeClient,
    FakeRemote,
    News,
    RemoteTrouble,
    Trouble,
    Usage,
    VirtualLoop,
    run_virtual,
)
from tests.virtual import now, virtual

if TYPE_CHECKING:
    from o3pro_bg.emulator import Emulator

REQUEST = JobRequest("question", "low")


# --- virtual time -----------------------------------------------------------------------------------------------


def test_years_of_virtual_time_pass_at_once() -> None:
    """Sleeps take exactly as long as they say, on the loop's clock, and none on the wall's."""

    async def sleep() -> float:
        await asyncio.sleep(3 * 365 * 86400)
        return now()

    assert run_virtual(sleep) == 3 * 365 * 86400


def test_virtual_time_is_always_the_same() -> None:
    """What sleeps is woken in the order of its time, in every run."""

    async def race() -> list[tuple[str, float]]:
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((name, now()))

        await asyncio.gather(sleeper("c", 30), sleeper("a", 0.001), sleeper("b", 5), sleeper("d", 3600))
        return woken

    expected = [("a", 0.001), ("b", 5), ("c", 30), ("d", 3600)]
    assert run_virtual(race) == run_virtual(race) == expected


@virtual
async def test_timeouts_hold_in_virtual_time() -> None:
    """`asyncio.timeout` fires on time, and what is ready never loses against it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1800):
            await asyncio.sleep(1801)
    assert now() == 1800
    async with asyncio.timeout(0.001):
        for _ in range(1000):
            await asyncio.sleep(0)
    assert now() == 1800


def test_time_can_be_moved_by_hand() -> None:
    """`jump` lets time pass, and what was due meanwhile is late."""

    async def jumped() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        sleeping = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        loop.jump(60)
        await sleeping
        return loop.time()

    assert run_virtual(jumped) == 60


def test_a_wait_that_nothing_can_end_is_reported() -> None:
    """A deadlock raises, where a real loop would hang."""

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="that is for ever"):
        run_virtual(wait)


@virtual
async def test_a_call_from_outside_is_served() -> None:
    """What comes through the loop's own socket is taken before time moves."""
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    loop.call_soon_threadsafe(called.set)
    async with asyncio.timeout(1):
        await called.wait()
    assert now() == 0


def test_run_virtual_ends_what_it_leaves() -> None:
    """As `asyncio.run` does, it raises what the coroutine raises, and cancels the tasks that are left."""
    cancelled: list[str] = []

    async def stays() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.append("stays")

    async def fails() -> None:
        asyncio.get_running_loop().left = asyncio.create_task(stays())  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_virtual(fails)
    assert cancelled == ["stays"]


# --- the service in memory --------------------------------------------------------------------------------------


async def created(remote: FakeRemote) -> str:
    """Create a response and answer its id."""
    news = await remote.create("job", REQUEST)
    assert news.event is Event.ACCEPTED
    assert news.response_id is not None
    return news.response_id


@virtual
async def test_a_fake_response_goes_by_the_clock() -> None:
    """It is queued, runs, and is completed after its seconds, with an answer that says it is fake, and usage."""
    remote = FakeRemote(seconds=10, queued=2)
    response_id = await created(remote)
    heard = []
    for _ in range(4):
        heard.append((await remote.look(response_id)).event)
        await asyncio.sleep(4)
    assert heard == [Event.ACCEPTED, Event.PROGRESSED, Event.PROGRESSED, Event.ANSWERED]
    news = await remote.look(response_id)
    assert news.answer == f"fake answer of {response_id}"
    assert news.usage == Usage(10, 100, 80)


@virtual
async def test_a_fake_cancel_stops_what_has_not_ended() -> None:
    """A cancelled response stays cancelled; one that has ended stays as it is."""
    remote = FakeRemote(seconds=10)
    first, second = await created(remote), await created(remote)
    assert first != second
    await remote.cancel(first)
    await asyncio.sleep(10)
    await remote.cancel(second)
    assert (await remote.look(first)).event is Event.CANCELLED
    assert (await remote.look(second)).event is Event.ANSWERED


@virtual
async def test_a_fake_delete_leaves_nothing() -> None:
    """A deleted response is missing to every look, except where the script says otherwise; others stay."""
    remote = FakeRemote(seconds=10)
    first, second = await created(remote), await created(remote)
    refused = RemoteTrouble(Trouble.REFUSED, Failure("conflict"))
    remote.script["delete"].append(refused)
    with pytest.raises(RemoteTrouble) as caught:
        await remote.delete(first)
    assert caught.value is refused
    assert (await remote.look(first)).event is Event.ACCEPTED
    for unknown in (first, "resp_of_somebody_else"):
        await remote.delete(unknown)
        with pytest.raises(RemoteTrouble) as caught:
            await remote.look(unknown)
        assert caught.value.kind is Trouble.MISSING
        assert caught.value.failure == Failure("lost", f"Response with id '{unknown}' not found.")
    late = News(Event.ANSWERED, response_id=first, model="o3-pro-2025-06-10")
    remote.script["look"].append(late)
    assert await remote.look(first) is late
    assert (await remote.look(second)).model is None
    assert remote.counts["delete"] == 3


@pytest.mark.parametrize("background", [True, False])
@virtual
async def test_a_script_says_what_the_next_calls_answer(background: bool) -> None:
    """News are answered, at once and in order, trouble is raised, None and the end of it mean the usual."""
    remote = FakeRemote(seconds=10, background=background)
    news = News(Event.ERRORED, response_id="resp_1", failure=Failure("code"))
    fault = RemoteTrouble(Trouble.DENIED, Failure("code"))
    remote.script = {"create": [fault, news, None], "look": [news, fault, None], "cancel": [fault]}
    with pytest.raises(RemoteTrouble) as caught:
        await remote.create("job", REQUEST)
    assert caught.value is fault
    assert await remote.create("job", REQUEST) is news
    assert now() == 0
    response_id = (await remote.create("job", REQUEST)).response_id
    assert response_id is not None
    assert await remote.look(response_id) is news
    with pytest.raises(RemoteTrouble):
        await remote.look(response_id)
    assert (await remote.look(response_id)).event is (Event.ACCEPTED if background else Event.ANSWERED)
    with pytest.raises(RemoteTrouble):
        await remote.cancel(response_id)
    await remote.cancel(response_id)
    await remote.delete(response_id)  # of which the script says nothing
    assert remote.counts == {"create": 3, "look": 3, "cancel": 2, "delete": 1}


@virtual
async def test_a_fake_foreground_create_is_answered_at_the_end() -> None:
    """Without background the create lasts as long as the job, and brings its answer."""
    remote = FakeRemote(seconds=10, background=False)
    news = await remote.create("job", REQUEST)
    assert (news.event, now()) == (Event.ANSWERED, 10)


@virtual
async def test_a_fake_remote_counts() -> None:
    """It keeps the requests, how often each kind was called, and the most that were under way at once."""
    remote = FakeRemote(latency=5)
    await asyncio.gather(*(remote.create(f"job {number}", REQUEST) for number in range(3)))
    assert now() == 5
    await remote.look("resp_fake_1")
    assert remote.counts == {"create": 3, "look": 1}
    assert remote.asked == [(f"job {number}", REQUEST) for number in range(3)]
    assert remote.max_in_flight == 3
    assert not remote.is_closed
    await remote.aclose()
    assert remote.is_closed


@virtual
async def test_a_fake_client_drives_a_handler() -> None:
    """A user's test needs no network, no account and no time."""
    client = FakeClient(FakeRemote(seconds=3600))
    async with AsyncBackgroundHandler(client) as handler:
        job = await handler.submit("question", "high")
        assert await job == "fake answer of resp_fake_1"
        assert now() == pytest.approx(3600, rel=0.01)
    assert client.remote.is_closed


@pytest.mark.parametrize(
    ("settings", "ready"),
    [({}, True), ({"config": O3ProConfig(endpoint="", api_key="")}, False)],
    ids=["default", "not ready"],
)
@virtual
async def test_a_fake_client_is_ready_as_its_configuration_is(settings: dict[str, Any], ready: bool) -> None:
    """It has a configuration and a remote of its own where none are given, and tells its deployment."""
    client = FakeClient(**settings)
    assert client.is_ready() is ready
    assert repr(client) == "<FakeClient o3-pro>"
    assert await client.connect() is client.remote


# --- the emulator as a fixture ----------------------------------------------------------------------------------


def test_the_fixture_runs_an_emulator(o3pro_emulator: Emulator) -> None:
    """A test that asks for it gets a real server of its own, on this machine."""
    assert o3pro_emulator.endpoint.startswith("http://127.0.0.1:")
    assert o3pro_emulator.counters()["accepted"] == 0
