"""Many hosts, one database: any process answers for any job, and whoever dies, each job is created once."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler, DbosEngine
from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg.emulator import Emulator
from o3pro_bg.testing import FakeClient, FakeRemote
from o3pro_bg.web import lifespan

from .faces import QUICK, fake
from .host import Host, hosts
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., Host]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX's signals")


@pytest.fixture
def host(o3pro_emulator: Emulator, database: str) -> Iterator[Open]:
    """Start one more host, over the emulator and the database."""
    with hosts(o3pro_emulator, database) as start:
        yield start


def submitter(host: Open, **settings: Any) -> Host:
    """Start a host that lives no jobs."""
    return host(**settings, engine={"worker": False})


def running(host: Host, job_id: str) -> None:
    """Wait until the job is under way at the service."""
    until(lambda: host.do("check_status", job_id)["status"] == "running")


# --- any process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "database"), [("sync", "sqlite"), ("async", "postgresql")], indirect=["database"])
def test_any_process_answers_for_any_job(o3pro_emulator: Emulator, host: Open, face: str) -> None:
    """A job that one process submits, another lives; a third one waits for it, has its answer, and lists it."""
    o3pro_emulator.set_knobs("seconds=0.3 queued=0 text=42")
    worker, one, other = host(face=face), submitter(host, face=face), submitter(host, face=face)
    job_id = one.start("What is it?")
    assert other.do("wait", job_id, 20)["response"] == "[emulator] 42"
    assert one.do("result", job_id, 20) == "[emulator] 42"
    for each in (worker, one, other):
        assert each.do("get_result", job_id)["success"]
        assert [job["question"] for job in each.do("list_active_jobs")] == ["What is it?"]
    assert other.do("remove_job", job_id)["success"]
    until(lambda: one.do("list_active_jobs") == [])
    assert o3pro_emulator.counters()["accepted"] == 1


async def test_a_lifespan_takes_the_engine(database: str) -> None:
    """A web server's handler lives jobs of a database as any other does, and lets go of them as the server ends."""
    async with lifespan(fake(), engine=DbosEngine(database, poll=0.02), pace=QUICK)(None) as state:
        assert await (await state["o3pro_bg"].submit("q")).result(20)
    async with lifespan(fake(), engine=DbosEngine(database, worker=False))(None) as state:
        assert [job["status"] for job in await state["o3pro_bg"].list_active_jobs()] == ["completed"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_workers_of_two_services_share_a_database(o3pro_emulator: Emulator, host: Open, database: str) -> None:
    """Each job is lived by a worker of its own service, whoever else is dealt jobs from the same database."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    with Emulator("seconds=0.1 queued=0") as another, Host(another, database) as theirs, Host(another, database) as one:
        ours = host()
        pairs = [(one, one.start(f"theirs {number}")) for number in range(10)]
        pairs += [(ours, ours.start(f"ours {number}")) for number in range(10)]
        for submitter_, job_id in pairs:
            assert submitter_.do("wait", job_id, 25)["success"]
        assert (another.counters()["accepted"], o3pro_emulator.counters()["accepted"]) == (10, 10)
        theirs.leave()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_cancel_reaches_whoever_lives_the_job(o3pro_emulator: Emulator, host: Open) -> None:
    """A process that lives nothing cancels a job that another one has under way, and hears that it is so."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    host()
    one, other = submitter(host), submitter(host)
    job_id = one.start()
    running(one, job_id)
    assert other.do("cancel_job", job_id)["success"]
    assert one.do("wait", job_id, 20)["status"] == "cancelled"
    assert o3pro_emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_nobody_has_taken_is_cancelled_at_once(o3pro_emulator: Emulator, host: Open) -> None:
    """A job that waits for a worker, of which there is none, is cancelled, and is not sent by the next worker."""
    one, other = submitter(host), submitter(host)
    job_id = one.start()
    assert one.do("check_status", job_id)["status"] == "started"
    assert one.do("facts")[job_id]["waiting"] == "concurrency"
    assert other.do("cancel_job", job_id)["success"]
    assert host().do("wait", one.start("the next"), 20)["success"]
    assert one.do("check_status", job_id)["status"] == "cancelled"
    assert o3pro_emulator.counters()["creates"] == 1


def test_the_time_of_a_job_is_over_though_nobody_took_it(host: Open) -> None:
    """The deadline of a job holds where there is no worker at all."""
    one = submitter(host)
    reply = one.do("wait", one.start(timeout=0.5), 20)
    assert (reply["status"], "timeout" in reply["error"]) == ("failed", True)


def test_whose_clock_is_wrong_shortens_no_job(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a job that nobody has taken has to end is told by the database's clock, and not by that of a host."""
    right = time.time
    with BackgroundHandler(fake(), engine=DbosEngine(database, worker=False)) as handler:
        monkeypatch.setattr(time, "time", lambda: right() - 60)
        job = handler.submit("q", timeout=40)
        monkeypatch.undo()
        with closing(Database(database, "dbos")) as shared:
            tables = JobTables(shared)
            with tables.reading():
                assert tables.overdue() == []
        short = handler.submit("q", timeout=0.1)
        until(lambda: short.status() == "failed")
        assert job.status() == "started"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_one_key_is_one_job(o3pro_emulator: Emulator, host: Open) -> None:
    """Hosts that submit with the same key get the same job, also after it has ended."""
    o3pro_emulator.set_knobs("seconds=0.2 queued=0")
    several = [host(), submitter(host), host()]
    for number in range(5):
        for each in several:
            each.send("submit", "q", dedupe_key=f"key {number} é")
        job_id, *others = [each.receive() for each in several]
        assert len(job_id) == 32, job_id
        assert others == [job_id, job_id]
        several[1].do("wait", job_id, 20)
        assert several[2].do("submit", "q", dedupe_key=f"key {number} é") == job_id
    assert o3pro_emulator.counters()["accepted"] == 5


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_max_concurrency_and_priority_hold_for_all_hosts(o3pro_emulator: Emulator, host: Open) -> None:
    """However many hosts live jobs, no more than that are under way, and the highest priority goes first."""
    o3pro_emulator.set_knobs("seconds=0.4 queued=0")
    one = submitter(host)
    ids = [one.start(f"q {number}", priority=number) for number in range(8)]
    workers = [host(max_concurrency=2), host(max_concurrency=2)]
    assert all(reply["success"] for reply in one.do("wait_all", ids, 30).values())
    facts = one.do("facts")
    spans = [(fact["sent_at"], fact["ended_at"]) for fact in facts.values()]
    at_once = [sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans]
    assert max(at_once) == 2
    order = sorted(ids, key=lambda job_id: facts[job_id]["sent_at"])
    assert {*order[:2]} == {*ids[-2:]}
    assert order[-1] in ids[:3]  # two are under way at once, so neighbours may change places
    assert all(worker.process.poll() is None for worker in workers)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_bound_is_that_of_whoever_started_last(o3pro_emulator: Emulator, host: Open) -> None:
    """Who started with a lower bound lives more once another has raised it, and deals no job again without end."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    worker = host(max_concurrency=1)
    ids = [worker.start(f"q {number}") for number in range(4)]
    until(lambda: len(worker.do("held")) == 1)
    host(max_concurrency=3).opened().close()
    until(lambda: len(worker.do("held")) == 3)
    for job_id in ids:
        assert worker.do("cancel_job", job_id)["success"]


# --- whoever dies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "database"),
    [("kill -9", "sqlite"), ("kill -9", "postgresql"), ("stands still", "postgresql"), ("closes", "sqlite")],
    indirect=["database"],
)
def test_jobs_of_the_dead_are_lived_by_others(o3pro_emulator: Emulator, host: Open, end: str) -> None:
    """Of a worker that dies, stands still or closes, another one has the jobs in 15 seconds; each was created once."""
    o3pro_emulator.set_knobs("seconds=30 queued=0")
    as_users_have_it = {"poll": 0.5, "lease": 5.0} if end == "stands still" else {}
    one, worker = submitter(host), host(max_concurrency=5, engine=as_users_have_it)
    ids = [one.start(f"q {number}", timeout=300, dedupe_key=str(number)) for number in range(5)]
    for job_id in ids:
        running(one, job_id)
    other = host(max_concurrency=5, engine=as_users_have_it).opened()
    begun = time.monotonic()
    if end == "kill -9":
        worker.kill()
    elif end == "closes":
        worker.close()
    else:
        worker.stop()
    until(lambda: sorted(other.do("held")) == sorted(ids))
    assert time.monotonic() - begun < 15
    if end == "stands still":  # it wakes up, and changes nothing
        worker.go_on()
        until(lambda: worker.do("held") == [])
    assert one.do("submit", "q", dedupe_key="0") == ids[0]
    for job_id in ids:
        assert one.do("cancel_job", job_id)["success"]
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["duplicates"], counters["cancels"]) == (5, {}, 5)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # what others have of the dead is tested on both
def test_a_deadline_survives_its_worker(o3pro_emulator: Emulator, host: Open) -> None:
    """A job that is lived by a second worker still ends when its time is over."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    one, worker = submitter(host), host()
    job_id = one.start(timeout=8)
    running(one, job_id)
    worker.kill()
    host()
    reply = one.do("wait", job_id, 30)
    assert (reply["status"], "timeout" in reply["error"]) == ("failed", True)
    assert 8 <= reply["total_time"] < 15
    until(lambda: o3pro_emulator.counters()["cancels"] == 1)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_runs_goes_before_what_waits(o3pro_emulator: Emulator, host: Open) -> None:
    """The jobs that a dead worker had under way are lived first, beyond no bound, however many wait to be sent."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    one, worker = submitter(host), host(max_concurrency=2)
    ids = [one.start(f"q {number}") for number in range(2)]
    for job_id in ids:
        running(one, job_id)
    waiting = [one.start(f"w {number}", priority=10**6) for number in range(6)]
    worker.kill()
    other = host(max_concurrency=2)
    until(lambda: sorted(other.do("held")) == sorted(ids))
    assert o3pro_emulator.counters()["accepted"] == 2
    for job_id in [*waiting, *ids]:
        assert one.do("cancel_job", job_id)["success"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_claimed_after_all_is_not_called_off(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that saw a job just before it was claimed leaves it alone: called off, it would be cancelled."""
    looks: list[None] = []

    def before_it_was_claimed(_: JobTables) -> dict[str, tuple[int, bool]]:
        looks.append(None)
        return {}

    monkeypatch.setattr(JobTables, "dealt", before_it_was_claimed)
    engine = DbosEngine(database, poll=0.02, lease=1)
    with BackgroundHandler(FakeClient(FakeRemote(seconds=600, queued=0)), engine=engine, pace=QUICK) as handler:
        job = handler.submit("q")
        until(lambda: job.status() == "running")
        before = len(looks)
        until(lambda: len(looks) > before + 3)
        assert job.status() == "running"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_killed_before_the_service_has_answered(o3pro_emulator: Emulator, host: Open) -> None:
    """A job whose worker is killed between its create and the id of that is not sent again: it may be there."""
    o3pro_emulator.set_knobs("latency=30")
    one, worker = submitter(host), host()
    job_id = one.start()
    until(lambda: o3pro_emulator.counters()["accepted"] == 1)
    worker.kill()
    o3pro_emulator.set_knobs("latency=0")
    host(lost_after=0.5)
    assert one.do("result", job_id, 30).startswith("SubmissionUncertain: ")
    assert o3pro_emulator.counters()["creates"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_dead_worker_takes_up_no_place(o3pro_emulator: Emulator, host: Open) -> None:
    """Where `max_concurrency` is used up by the jobs of a dead worker, these jobs are lived all the same."""
    o3pro_emulator.set_knobs("seconds=1 queued=0")
    one, worker = submitter(host), host(max_concurrency=2)
    ids = [one.start(f"q {number}") for number in range(4)]
    running(one, ids[0])
    worker.kill()
    host(max_concurrency=2)
    assert all(reply["success"] for reply in one.do("wait_all", ids, 60).values())
    assert o3pro_emulator.counters()["duplicates"] == {}
