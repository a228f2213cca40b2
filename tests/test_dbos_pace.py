"""The pace that all hosts keep: one even stream of creates, and one gate that a 429 closes for all."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from o3pro_bg import BackgroundHandler, DbosEngine, O3ProConfig
from o3pro_bg._budget import Limits, RateBudget
from o3pro_bg._dbos import pace as paces
from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.pace import PacedDoor, SharedPace
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg._door import Slots
from o3pro_bg._line import Turn, Waiter
from o3pro_bg._records import Failure, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.errors import StoreError
from o3pro_bg.testing import FakeClient, FakeRemote

from .faces import QUICK
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg._budget import Reservation


@pytest.fixture
def shared(database: str) -> Iterator[Database]:
    """Give a database with our tables."""
    shared = Database(database, "dbos")
    JobTables(shared).prepare()
    yield shared
    shared.close()


def written(shared: Database) -> dict[str, Any]:
    """Answer the row of the only door."""
    with shared.engine.begin() as connection:
        return dict(connection.execute(sa.select(paces.pace_table(sa.MetaData(shared.schema)))).mappings().one())


def drop(shared: Database) -> None:
    """Have the database answer no more."""
    with shared.engine.begin() as connection:
        connection.execute(sa.schema.DropTable(paces.pace_table(sa.MetaData(shared.schema))))


def again(shared: Database) -> None:
    """Have it answer again."""
    JobTables(shared).prepare()


# --- the stream -------------------------------------------------------------------------------------------------


def test_creates_of_all_hosts_are_one_stream(shared: Database) -> None:
    """Whoever takes a place gets the next one: with one a minute, each is 61 seconds after the one before it."""
    hosts = [SharedPace(shared, "door", 1) for _ in range(3)]
    places = [hosts[number % 3].take() for number in range(4)]
    assert places[0] == 0
    assert [round(place / 61) for place in places] == [0, 1, 2, 3]
    assert SharedPace(shared, "another door", 1).take() == 0


def test_what_the_service_tells_one_holds_for_all(shared: Database) -> None:
    """Without a figure nobody waits, until an answer told what a minute allows; the lower of both counts."""
    one, other, strict = (SharedPace(shared, "door", most) for most in (None, None, 1))
    assert [one.take(), other.take(), one.take()] == [0, 0, 0]
    one.told = Limits(requests=2)
    assert one.take() == 0
    assert 30 < other.take() <= 30.5
    assert 91 < strict.take() <= 91.5
    assert 152 < one.take() <= 152.5, "two are as far apart as the larger needs"


def test_tokens_are_spread_over_the_minute(shared: Database) -> None:
    """Of creates that count a third of the tokens of a minute three go in one; one that counts too many goes alone."""
    one, other = SharedPace(shared, "door", None), SharedPace(shared, "door", None)
    one.told = Limits(requests=6000, tokens=100)
    places = [each.take(33) for each in (one, other, one, other)]
    assert [round(3 * place / 61) for place in places] == [0, 1, 2, 3]
    assert [round((place - places[-1]) / 61) for place in (one.take(1000), other.take(1), one.take(1))] == [1, 2, 2]


def test_a_limit_that_has_changed_is_written_once(shared: Database) -> None:
    """What one host was told long ago does not undo what another one was told since."""
    one, other = SharedPace(shared, "door", None), SharedPace(shared, "door", None)
    one.told = Limits(requests=60)
    one.take()
    other.told = Limits(requests=600, tokens=7)
    other.take()
    one.take()
    assert (written(shared)["requests"], written(shared)["tokens"]) == (600, 7)


def test_a_429_closes_the_gate_for_all(shared: Database) -> None:
    """While one host has to wait, no other sends; a shorter wait later opens nothing."""
    one, other = SharedPace(shared, "door", None), SharedPace(shared, "door", None)
    assert one.take() == other.closed() == 0
    one.refused(30)
    one.refused(1)
    assert 20 < other.take() <= 30
    assert 20 < other.closed() <= 30


def test_what_the_service_tells_is_kept_until_it_is_written(shared: Database) -> None:
    """Where the database did not answer, the limits are written with the next place; not those that came before."""
    pace = SharedPace(shared, "door", None)
    pace.told = Limits(requests=60, tokens=7)
    drop(shared)
    with pytest.raises(StoreError):
        pace.take()
    again(shared)
    pace.take()
    assert (written(shared)["requests"], written(shared)["tokens"]) == (60, 7)
    pace.told = Limits(requests=600)
    drop(shared)
    with pytest.raises(StoreError):
        pace.take()
    pace.told = Limits(requests=6000)
    again(shared)
    pace.take()
    assert written(shared)["requests"] == 6000


def test_a_clock_that_is_set_back_keeps_nobody_waiting(shared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database's clock was a day ahead, what is still to come stays as far away as it was, and no farther."""
    stream, gate = SharedPace(shared, "door", 1), SharedPace(shared, "another door", None)
    clock = shared.now
    with monkeypatch.context() as patch:
        patch.setattr(shared, "now", lambda: clock() + 86_400)
        assert [round(stream.take() / 61) for _ in range(2)] == [0, 1]
        gate.refused(30)
    assert 20 < gate.closed() <= 30
    assert 20 < gate.take() <= 30
    assert [round(stream.take() / 61) for _ in range(2)] == [2, 3]
    assert 20 < gate.closed() <= 30


# --- the door ---------------------------------------------------------------------------------------------------


class Stand:
    """A door of one host, and what went through it."""

    def __init__(self, shared: Database, most: float | None = None) -> None:
        self.pace = SharedPace(shared, "door", most)
        self.door = PacedDoor(self.pace, "d", RateBudget(), Slots(None), time.monotonic)
        self.sent: list[int] = []
        self.told: list[tuple[int, str]] = []
        self.says: News | RemoteTrouble = News(Event.ACCEPTED, response_id="r")

    async def send(self, number: int) -> News:
        """Send the create of this number; the smallest goes first."""

        async def create(_: Reservation) -> News:
            self.sent.append(number)
            if isinstance(self.says, RemoteTrouble):
                raise self.says
            return self.says

        waiter = Waiter(Turn(0, 0.0, number), 0, lambda reason: self.told.append((number, reason)))
        return await self.door.send(waiter, create)

    def all(self, numbers: range) -> list[asyncio.Task[News]]:
        """Send creates of these numbers at once."""
        return [asyncio.create_task(self.send(number)) for number in numbers]


async def seen(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def gone(*tasks: asyncio.Task[News]) -> None:
    """Cancel these, and wait until they are."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_what_a_create_brings_is_told_to_the_others(shared: Database) -> None:
    """The limits of an answer are written with the next place, and the wait of a 429 at once."""
    stand = Stand(shared)
    stand.says = News(Event.ACCEPTED, response_id="r", limits=Limits(requests=6000, tokens=50))
    await stand.send(1)
    await stand.send(2)
    assert (written(shared)["requests"], written(shared)["tokens"]) == (6000, 50)
    stand.says = RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=60.0, limits=Limits(requests=120))
    with pytest.raises(RemoteTrouble):
        await stand.send(3)
    assert 30 < SharedPace(shared, "door", None).closed() <= 60
    assert written(shared)["requests"] == 120


async def test_one_waits_for_a_place_and_the_others_in_line(shared: Database) -> None:
    """Who waits for his place is told so, as is the line; in that, whoever comes may still go before the others."""
    stand = Stand(shared, most=1)
    await stand.send(0)
    begun = written(shared)["last_at"]
    first, *others = stand.all(range(5, 8))
    await seen(lambda: len(stand.told) == 3)
    others += stand.all(range(8, 9))
    await seen(lambda: len(stand.told) == 4)
    assert {*stand.told} == {(number, "rate_limit") for number in range(5, 9)}
    assert round(written(shared)["last_at"] - begun) == 61, "one place is taken, and not three"
    with shared.engine.begin() as connection:  # as if the minute were over
        connection.execute(sa.update(stand.pace._table).values(last_at=0.0))
    earlier = asyncio.create_task(stand.send(1))
    await gone(first)
    await earlier
    assert stand.sent == [0, 1]
    await gone(*others)


async def test_creates_are_under_way_at_once(shared: Database) -> None:
    """Once a create has its place the next one takes the next, and does not wait for the answer of the first."""
    stand = Stand(shared)
    meeting = asyncio.Barrier(2)

    async def create(_: Reservation) -> News:
        await meeting.wait()
        return News(Event.ACCEPTED, response_id="r")

    waiters = [Waiter(Turn(0, 0.0, number), 0, lambda _: None) for number in range(2)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(stand.door.send(waiter, create) for waiter in waiters))


async def test_a_429_that_comes_while_one_waits_keeps_him_back(shared: Database) -> None:
    """A place that has come is of no use while the service refuses all hosts: another one is taken."""
    stand = Stand(shared, most=122)
    await stand.send(0)
    begun = written(shared)["last_at"]
    (task,) = stand.all(range(1, 2))
    await seen(lambda: written(shared)["last_at"] > begun)
    SharedPace(shared, "door", None).refused(30)
    await asyncio.sleep(0.7)  # his place comes after half a second
    assert stand.sent == [0]
    await gone(task)


async def test_who_leaves_in_the_moment_of_being_let_go_holds_up_nobody(shared: Database) -> None:
    """One who is cancelled as he is let go, or while the database is asked, makes room for the next one."""
    stand = Stand(shared)
    for turns in range(6):
        one, other = stand.all(range(2 * turns, 2 * turns + 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        await gone(one)
        assert (await asyncio.wait_for(other, 20)).response_id == "r"


async def test_nothing_leaves_before_the_database_answers(shared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no place can be taken nothing is sent, until one can; a 429 that cannot be told is a 429."""
    monkeypatch.setattr(paces, "_AGAIN", 0.01)
    stand = Stand(shared)
    drop(shared)
    (task,) = stand.all(range(1))
    await asyncio.sleep(0.1)
    assert not stand.sent
    again(shared)
    assert (await task).response_id == "r"

    async def fails(_: Reservation) -> News:
        drop(shared)
        raise RemoteTrouble(Trouble.THROTTLED, Failure("429"))

    with pytest.raises(RemoteTrouble, match="429"):
        await stand.door.send(Waiter(Turn(0, 0.0, 0), 0, lambda _: None), fails)


# --- the handler ------------------------------------------------------------------------------------------------


def test_who_waits_for_his_place_keeps_nobody_from_being_looked_at(database: str) -> None:
    """While creates wait for the pace of all hosts, jobs under way are looked at, and what waits can be cancelled."""
    engine = DbosEngine(database, requests_per_minute=1, poll=0.02)
    remote = FakeRemote(seconds=0.2, queued=0)
    with BackgroundHandler(FakeClient(remote), engine=engine, max_in_flight=1, pace=QUICK, language="en") as handler:
        jobs = [handler.submit(f"q {number}") for number in range(3)]
        until(lambda: sorted(job.status() for job in jobs) == ["completed", "started", "started"])
        waiting = [job for job in jobs if job.status() == "started"]
        until(lambda: {job.waiting for job in waiting} == {"rate_limit"})
        assert all(handler.cancel_job(job.id)["success"] for job in waiting)
    assert remote.counts["create"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_each_deployment_has_its_own_pace(database: str) -> None:
    """What a worker lives of another deployment than its own goes at the pace of that one."""
    others = O3ProConfig(endpoint="https://fake.openai.azure.com", api_key="fake", deployment="another")
    submits = DbosEngine(database, worker=False)
    with (
        BackgroundHandler(FakeClient(config=others), engine=submits) as other,
        BackgroundHandler(
            FakeClient(FakeRemote(seconds=0.2, queued=0)),
            engine=DbosEngine(database, requests_per_minute=1, poll=0.02),
            pace=QUICK,
        ) as handler,
    ):
        jobs = [handler.submit("q"), other.submit("q")]
        assert all(job.result(20) for job in jobs)
