"""The pace that all hosts keep: one even stream of creates, and one gate that a 429 closes for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from o3pro_bg._budget import Limits
from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.pace import PacedRemote, SharedPace
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg._records import Failure, JobRequest
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg.testing import FakeRemote

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = JobRequest("q", "low")


@pytest.fixture
def shared(database: str) -> Iterator[Database]:
    """Give a database with our tables."""
    shared = Database(database, "dbos")
    JobTables(shared).prepare()
    yield shared
    shared.close()


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
    one.hear(2, 0)
    assert other.take() == 0
    assert 0 < other.take() <= 61 / 2
    strict.take()
    assert one.take() > 61


def test_a_429_closes_the_gate_for_all(shared: Database) -> None:
    """While one host has to wait, no other sends; a shorter wait later opens nothing."""
    one, other = SharedPace(shared, "door", None), SharedPace(shared, "door", None)
    assert one.take() == other.closed() == 0
    one.hear(None, 30)
    one.hear(None, 1)
    assert 20 < other.take() <= 30
    assert 20 < other.closed() <= 30


async def test_a_remote_tells_and_minds(shared: Database) -> None:
    """What a create brings is told to the others: the limit of an answer, and the wait of a 429."""
    pace, other = SharedPace(shared, "door", None), SharedPace(shared, "door", None)
    remote = FakeRemote()
    paced = PacedRemote(remote, pace)
    await paced.prepare()
    trouble = RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=60.0, limits=Limits(requests=120))
    remote.script["create"] = [trouble]
    with pytest.raises(RemoteTrouble):
        await paced.create("a", REQUEST)
    assert 30 < other.closed() <= 60
    assert (await paced.create("b", REQUEST)).response_id is not None
    with shared.engine.begin() as connection:
        assert connection.execute(sa.select(pace._table.c.told)).scalar() == 120


async def test_nothing_leaves_before_the_database_answers(shared: Database) -> None:
    """Where no place can be taken, the create is provably not sent, for the reason of a store that does not answer."""
    paced = PacedRemote(FakeRemote(), SharedPace(shared, "door", None))
    with shared.engine.begin() as connection:
        connection.execute(sa.schema.DropTable(paced._pace._table))
    with pytest.raises(RemoteTrouble) as told:
        await paced.prepare()
    assert (told.value.kind, told.value.failure.code) == (Trouble.UNSENT, "store")
