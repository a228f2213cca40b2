"""The pace that all hosts keep: one even stream of creates, and one gate that a 429 closes for all."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from o3pro_bg import BackgroundHandler, DbosEngine, O3ProConfig
from o3pro_bg._budget import Limits, RateBudget
from o3pro_bg._dbos import pace as paces
from o3pro_bg._dbos.asker import Asker
from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.pace import PacedDoor, SharedPace
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg._door import Slots
from o3pro_bg._line import Turn, Waiter
from o3pro_bg._records import Failure, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.errors import StoreError, SubmissionUncertain
from o3pro_bg.testing import FakeClient, FakeRemote

from .faces import QUICK
from .peers import until
from .virtual import virtual

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


@pytest.fixture
def asker(shared: Database) -> Iterator[Asker]:
    """Give what asks the database, of a host: what is being asked ends before the connections do."""
    asker = Asker()
    yield asker
    asker.close()
    until(lambda: not asks())


def asks() -> bool:
    """Tell whether a thread is there that asks for places."""
    return any(thread.name == "o3pro_bg pace" for thread in threading.enumerate())


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

    def __init__(self, shared: Database, asker: Asker, most: float | None = None) -> None:
        self.pace = SharedPace(shared, "door", most)
        self.slots = Slots(100)
        self.late = 0.0
        self.door = PacedDoor(self.pace, asker, "d", RateBudget(), self.slots, lambda: time.monotonic() + self.late)
        self.sent: list[int] = []
        self.told: list[tuple[int, str]] = []
        self.says: News | RemoteTrouble = News(Event.ACCEPTED, response_id="r")

    async def send(self, number: int, need: int = 0) -> News:
        """Send the create of this number; the smallest goes first."""

        async def create(_: Reservation) -> News:
            self.sent.append(number)
            if isinstance(self.says, RemoteTrouble):
                raise self.says
            return self.says

        waiter = Waiter(Turn(0, 0.0, number), need, lambda reason: self.told.append((number, reason)))
        async with asyncio.timeout(20):
            return await self.door.send(waiter, create)

    def all(self, numbers: range, need: int = 0) -> list[asyncio.Task[News]]:
        """Send creates of these numbers at once."""
        return [asyncio.create_task(self.send(number, need)) for number in numbers]


class Asked:
    """What a pace was asked, one after the other; it answers as soon as it is let."""

    def __init__(self, pace: SharedPace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.needs: list[int] = []
        self.goes_on = threading.Semaphore(0)
        self.fails: BaseException | None = None
        self.pause = 0.0
        monkeypatch.setattr(pace, "take", self._take)

    def _take(self, tokens: int) -> float:
        self.needs.append(tokens)
        assert self.goes_on.acquire(timeout=20)
        if self.fails is not None:
            raise self.fails
        return self.pause


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


async def test_what_a_create_brings_is_told_to_the_others(shared: Database, asker: Asker) -> None:
    """The limits of an answer are written with the next place, and the wait of a 429 at once."""
    stand = Stand(shared, asker)
    stand.says = News(Event.ACCEPTED, response_id="r", limits=Limits(requests=6000, tokens=50))
    await stand.send(1)
    await stand.send(2)
    assert (written(shared)["requests"], written(shared)["tokens"]) == (6000, 50)
    stand.says = RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=60.0, limits=Limits(requests=120))
    with pytest.raises(RemoteTrouble):
        await stand.send(3)
    await seen(lambda: 30 < SharedPace(shared, "door", None).closed() <= 60)
    assert written(shared)["requests"] == 120


async def test_one_waits_for_a_place_and_the_others_in_line(shared: Database, asker: Asker) -> None:
    """While a place is to come, all in the line are told so; whoever comes later may still go before the others."""
    stand = Stand(shared, asker, most=1)
    await stand.send(0)
    begun = written(shared)["last_at"]
    first, *others = stand.all(range(5, 8))
    await seen(lambda: len(stand.told) == 3)
    others += stand.all(range(8, 9))
    await seen(lambda: len(stand.told) == 4)
    assert {*stand.told} == {(number, "rate_limit") for number in range(5, 9)}
    assert round(written(shared)["last_at"] - begun) == 61, "one place is taken, and not three"
    assert stand.slots.free == 99, "who is in the line has no slot"
    await gone(first, *others)


async def test_who_is_first_when_the_place_comes_goes_with_it(shared: Database, asker: Asker) -> None:
    """A place is nobody's before it has come: one who came later goes first, if that is his turn."""
    stand = Stand(shared, asker, most=20)
    await stand.send(0)
    begun = written(shared)["last_at"]
    (other,) = stand.all(range(5, 6))
    await seen(lambda: written(shared)["last_at"] > begun)
    await stand.send(1)
    assert stand.sent == [0, 1]
    await gone(other)


async def test_creates_are_under_way_at_once(shared: Database, asker: Asker) -> None:
    """Once a create has its place the next one takes the next, and does not wait for the answer of the first."""
    stand = Stand(shared, asker)
    meeting = asyncio.Barrier(2)

    async def create(_: Reservation) -> News:
        await meeting.wait()
        return News(Event.ACCEPTED, response_id="r")

    waiters = [Waiter(Turn(0, 0.0, number), 0, lambda _: None) for number in range(2)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(stand.door.send(waiter, create) for waiter in waiters))


async def test_a_429_that_comes_while_one_waits_keeps_him_back(shared: Database, asker: Asker) -> None:
    """A place that has come is of no use while the service refuses all hosts: another one is taken."""
    stand = Stand(shared, asker, most=20)
    await stand.send(0)
    begun = written(shared)["last_at"]
    (task,) = stand.all(range(1, 2))
    await seen(lambda: written(shared)["last_at"] > begun)
    his_place = written(shared)["last_at"]
    SharedPace(shared, "door", None).refused(30)
    await seen(lambda: written(shared)["last_at"] > his_place)  # once that has come, after three seconds
    assert stand.sent == [0]
    await gone(task)


async def test_who_leaves_in_the_moment_of_being_let_go_holds_up_nobody(shared: Database, asker: Asker) -> None:
    """One who is cancelled as he is let go, or while the database is asked, makes room for the next one."""
    stand = Stand(shared, asker)
    for turns in range(6):
        one, other = stand.all(range(2 * turns, 2 * turns + 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        await gone(one)
        assert (await asyncio.wait_for(other, 20)).response_id == "r"


async def test_nothing_leaves_before_the_database_answers(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no place can be taken nothing is sent, until one can; a 429 that cannot be told is a 429."""
    monkeypatch.setattr(paces, "_AGAIN", 0.01)
    stand = Stand(shared, asker)
    asks: list[int] = []
    take = stand.pace.take

    def counted(tokens: int) -> float:
        asks.append(tokens)
        return take(tokens)

    monkeypatch.setattr(stand.pace, "take", counted)
    drop(shared)
    (task,) = stand.all(range(1))
    await seen(lambda: len(asks) >= 3)
    assert not stand.sent
    again(shared)
    assert (await task).response_id == "r"

    async def fails(_: Reservation) -> News:
        drop(shared)
        raise RemoteTrouble(Trouble.THROTTLED, Failure("429"))

    with pytest.raises(RemoteTrouble, match="429"):
        await stand.door.send(Waiter(Turn(0, 0.0, 0), 0, lambda _: None), fails)


def test_an_asker_asks_in_order_and_drops_what_waits_when_it_closes() -> None:
    """When it closes, what is being asked is answered, and what waits cancelled; one that nobody holds goes as well."""
    asker, goes_on, order = Asker(), threading.Event(), list[int]()
    assert asker.submit(abs, -1).result(20) == 1
    one = asker.submit(goes_on.wait, 20)
    others = [asker.submit(order.append, number) for number in range(3)]
    until(one.running)
    asker.close()
    goes_on.set()
    assert one.result(20)
    assert ([other.cancelled() for other in others], order) == ([True] * 3, [])
    with pytest.raises(RuntimeError):
        asker.submit(abs, -1)
    asker.close()
    until(lambda: not asks())
    asker = Asker()
    numbers = [asker.submit(order.append, number) for number in range(3)]
    assert [each.result(20) for each in numbers] == [None] * 3
    assert order == [0, 1, 2]
    del asker
    until(lambda: not asks())


async def test_who_leaves_takes_no_place_along(shared: Database, asker: Asker) -> None:
    """Of many who leave the line, one after the other, none costs all hosts a place; who stays goes with the first."""
    stand = Stand(shared, asker, most=20)
    await stand.send(0)
    begun = written(shared)["last_at"]
    *leaving, last = stand.all(range(1, 12))
    for task in leaving:
        await gone(task)
        await asyncio.sleep(0.02)
    assert round((written(shared)["last_at"] - begun) / 3) == 1
    await last
    assert stand.sent == [0, 11]
    assert round((written(shared)["last_at"] - begun) / 3) == 1


async def test_one_place_is_asked_for_whoever_comes_and_goes(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database does not answer it is asked once, however many wait and leave; who is next has that place."""
    stand = Stand(shared, asker)
    asked = Asked(stand.pace, monkeypatch)
    for number in range(20):
        (task,) = stand.all(range(number, number + 1))
        await seen(lambda: bool(asked.needs))
        await gone(task)
    (last,) = stand.all(range(20, 21))
    asked.goes_on.release()
    await last
    assert asked.needs == [0]


async def test_a_place_is_used_once_while_it_is_fresh(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that came while nobody waited serves one who comes soon; for the next one, or later, another is asked."""
    stand = Stand(shared, asker)
    asked = Asked(stand.pace, monkeypatch)

    async def comes() -> None:
        (task,) = stand.all(range(1))
        await seen(lambda: stand.door._is_coming)
        await gone(task)
        asked.goes_on.release()
        await seen(lambda: not stand.door._is_coming)

    await comes()
    await stand.send(0)
    assert len(asked.needs) == 1
    await comes()
    assert len(asked.needs) == 2, "the first was used up"
    stand.late += 2
    asked.goes_on.release()
    await stand.send(0)
    assert len(asked.needs) == 3


async def test_who_waits_after_a_long_wait_is_told_of_his_own(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the place has come for which the line had to wait, those who come later are told nothing of that."""
    monkeypatch.setattr(paces, "_LONG", 0.01)
    stand = Stand(shared, asker)
    asked = Asked(stand.pace, monkeypatch)
    asked.pause = 0.05
    asked.goes_on.release()
    await stand.send(0)
    asked.pause = 0.0
    later = stand.all(range(1, 3))
    await seen(lambda: len(asked.needs) == 2)
    later += stand.all(range(3, 4))
    await asyncio.sleep(0)
    assert stand.told == [(0, "rate_limit")]
    asked.goes_on.release(3)
    await asyncio.gather(*later)


async def test_a_place_serves_who_needs_no_more_than_it_counts(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that was taken for few tokens is no place for one who needs more; the other way round it is."""
    stand = Stand(shared, asker)
    asked = Asked(stand.pace, monkeypatch)
    (small,) = stand.all(range(2, 3), need=1)
    await seen(lambda: asked.needs == [1])
    (large,) = stand.all(range(1, 2), need=100)
    await asyncio.sleep(0)
    asked.goes_on.release()
    await seen(lambda: asked.needs == [1, 100])
    assert not stand.sent
    await gone(large)
    asked.goes_on.release()
    await small
    assert asked.needs == [1, 100]


async def test_what_is_wrong_with_the_pace_is_said_and_keeps_nobody_for_ever(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that nobody thought of is logged without its text, and another place is asked for; so is SystemExit."""
    monkeypatch.setattr(paces, "_AGAIN", 0.01)
    stand = Stand(shared, asker)
    asked = Asked(stand.pace, monkeypatch)
    for number, fault in enumerate((ZeroDivisionError("secret"), SystemExit("secret"))):
        asked.fails = fault
        asked.goes_on.release()
        (task,) = stand.all(range(number, number + 1))
        await seen(lambda number=number: len(caplog.records) == number + 1)  # type: ignore[misc]
        asked.fails = None
        asked.goes_on.release()
        await task
    assert ["ZeroDivisionError" in caplog.text, "SystemExit" in caplog.text, "secret" in caplog.text] == [
        True,
        True,
        False,
    ]


async def test_an_asker_that_takes_nothing_is_tried_again_while_somebody_waits(
    shared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be had the next try may have one; once the store is closed, nobody goes and all can leave."""
    monkeypatch.setattr(paces, "_AGAIN", 0.01)
    refusals = [RuntimeError("can't start new thread")] * 3

    class Short(Asker):
        def submit(self, *args: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return super().submit(*args)

    short = Short()
    stand = Stand(shared, short)
    assert (await stand.send(0)).response_id == "r"
    short.close()
    (task,) = stand.all(range(1, 2))
    await seen(lambda: stand.door._is_coming)
    await gone(task)
    await seen(lambda: not stand.door._is_coming)
    assert stand.sent == [0]
    stand.door._refuse(1.0)  # which nobody can be told any more


def test_a_loop_that_ends_while_the_database_is_asked_hears_nothing(
    shared: Database, asker: Asker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that comes after the end of the loop is nobody's, and nothing is said of it."""

    async def ends() -> tuple[Stand, Asked, asyncio.Task[News]]:
        stand = Stand(shared, asker)
        asked = Asked(stand.pace, monkeypatch)
        (task,) = stand.all(range(1))
        await seen(lambda: bool(asked.needs))
        return stand, asked, task

    stand, asked, task = asyncio.run(ends())
    asker.close()
    asked.goes_on.release()
    until(lambda: not asks())
    assert task.cancelled()
    assert [stand.sent, caplog.records] == [[], []]


# --- all windows ------------------------------------------------------------------------------------------------


class Fickle:
    """A pace that answers by luck, and the pool where it is asked: its answers come a little later."""

    def __init__(self, luck: random.Random) -> None:
        self.told = Limits()
        self.places = 0
        self.is_asked = False
        self._luck = luck

    def take(self, _: int) -> float:
        self._fail()
        self.places += 1
        return self._luck.choice([0.0, 0.0, 0.5, 3.0])

    def closed(self) -> float:
        self._fail()
        return self._luck.choice([0.0, 0.0, 1.0])

    def _fail(self) -> None:
        if self._luck.random() < 0.2:
            raise StoreError("by luck")

    def submit(self, verb: Callable[..., float], *args: int) -> Future[float]:
        assert not self.is_asked, "one thing at a time"
        self.is_asked = True
        future: Future[float] = Future()
        asyncio.get_running_loop().call_later(self._luck.choice([0.0, 0.2]), self._answer, future, verb, *args)
        return future

    def _answer(self, future: Future[float], verb: Callable[..., float], *args: int) -> None:
        self.is_asked = False
        try:
            future.set_result(verb(*args))
        except StoreError as trouble:
            future.set_exception(trouble)


@pytest.mark.parametrize("seed", range(30))
def test_whoever_leaves_whenever_the_others_go_on(seed: int) -> None:
    """Of many who leave by luck, at any moment, no slot is lost and no reservation; all others go, one a place."""

    @virtual
    async def storm() -> None:
        luck = random.Random(seed)
        fickle: Any = Fickle(luck)
        budget, slots = RateBudget(), Slots(3)
        door = PacedDoor(fickle, fickle, "d", budget, slots, asyncio.get_running_loop().time)
        sent: list[int] = []

        async def job(number: int) -> None:
            async def create(_: Reservation) -> News:
                sent.append(number)
                await asyncio.sleep(luck.choice([0.0, 0.1]))
                return News(Event.ACCEPTED, response_id="r")

            waiter = Waiter(Turn(-luck.randrange(3), 0.0, number), luck.choice([0, 5]), lambda _: None)
            waiters.append(waiter)
            try:
                await door.send(waiter, create)
            finally:
                if waiter.has_slot:
                    slots.give_back()

        waiters: list[Waiter] = []
        stays, leaves = list[asyncio.Task[None]](), list[asyncio.Task[None]]()
        for number in range(60):
            task = asyncio.create_task(job(number))
            (leaves if luck.random() < 0.6 else stays).append(task)
            await asyncio.sleep(luck.choice([0.0, 0.0, 0.0, 0.3]))
            if leaves and luck.random() < 0.5:
                leaver = luck.randrange(len(leaves))
                waiting = [waiter for waiter in waiters if not waiter.call.done()]
                if waiting and luck.random() < 0.3:
                    luck.choice(waiting).call.set_exception(RemoteTrouble(Trouble.UNCLEAR, Failure("unwanted")))
                else:
                    leaves[leaver].cancel()
        for task in leaves:
            task.cancel()
        async with asyncio.timeout(2000):
            for outcome in await asyncio.gather(*stays, *leaves, return_exceptions=True):
                assert outcome is None or isinstance(outcome, RemoteTrouble | asyncio.CancelledError)
        assert len(sent) == len({*sent}) <= fickle.places
        assert (slots.free, budget._on_their_way) == (3, 0)

    storm()


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
        assert asks()
    assert remote.counts["create"] == 1
    until(lambda: not asks())


def test_a_wish_reaches_an_uncertain_job_that_waits_for_its_place(database: str) -> None:
    """A job that may have been accepted, and waits for the pace to be sent again, ends as uncertain once cancelled."""
    remote = FakeRemote(seconds=0.2, queued=0)
    remote.script["create"] = [RemoteTrouble(Trouble.UNCLEAR, Failure("timeout"))]
    engine = DbosEngine(database, requests_per_minute=1, poll=0.02)
    with BackgroundHandler(FakeClient(remote), engine=engine, resubmit_uncertain=True, pace=QUICK) as handler:
        job = handler.submit("q")
        until(lambda: job.waiting == "rate_limit")
        handler.cancel_job(job.id)
        assert handler.check_status(job.id)["status"] == "failed", "and not 15 seconds later"
        with pytest.raises(SubmissionUncertain):
            job.result(20)
    assert remote.counts["create"] == 1


def ending_of(script: str) -> tuple[int, str]:
    """Run this in a process of its own; answer its exit code, and what it complained of."""
    ended = subprocess.run(  # noqa: S603 - a script of ours
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stderr


WAITS = {
    "sync": """
handler = BackgroundHandler(client, **settings)
jobs = [handler.submit("q") for _ in range(3)]
while sorted(job.waiting for job in jobs)[1:] != ["rate_limit"] * 2:
    time.sleep(0.01)
""",
    "async": """
async def main():
    handler = AsyncBackgroundHandler(client, **settings)
    jobs = [await handler.submit("q") for _ in range(3)]
    while sorted(job.waiting for job in jobs)[1:] != ["rate_limit"] * 2:
        await asyncio.sleep(0.01)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("face", WAITS)
def test_a_process_that_closes_nothing_ends_without_a_word(face: str, database: str) -> None:
    """Neither a place that is to come nor the thread that asks for it keeps a process, or has it complain."""
    script = f"""
import asyncio, time
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, DbosEngine
from o3pro_bg.testing import FakeClient, FakeRemote
client = FakeClient(FakeRemote(seconds=600))
settings = {{"engine": DbosEngine({database!r}, requests_per_minute=1, poll=0.02)}}
{WAITS[face]}"""
    assert ending_of(script) == (0, "")


HANGS = {
    "sync": """
handler = BackgroundHandler(client, **settings)
handler.submit("q")
is_asked.wait()
""",
    "async": """
async def main():
    handler = AsyncBackgroundHandler(client, **settings)
    await handler.submit("q")
    await asyncio.to_thread(is_asked.wait)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("face", HANGS)
def test_a_process_does_not_wait_for_a_database_that_hangs(face: str, database: str) -> None:
    """One that ends while a place is asked for, of which the database may never answer, ends nonetheless."""
    script = f"""
import asyncio, threading
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, DbosEngine
from o3pro_bg._dbos.pace import SharedPace
from o3pro_bg.testing import FakeClient, FakeRemote
is_asked = threading.Event()
def hang(*_):
    is_asked.set()
    threading.Event().wait()
SharedPace.take = hang
client = FakeClient(FakeRemote(seconds=600))
settings = {{"engine": DbosEngine({database!r}, poll=0.02)}}
{HANGS[face]}"""
    assert ending_of(script) == (0, "")


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
