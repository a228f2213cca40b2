"""The engine over a store that takes its time, fails, and is shared with other processes: in virtual time."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from o3pro_bg._engine import CancelVerdict
from o3pro_bg._futures import outcome
from o3pro_bg._records import Failure, JobRecord, JobRequest
from o3pro_bg._states import JobStatus
from o3pro_bg.errors import HandlerClosed, JobNotFound, StoreError
from o3pro_bg.testing import Event, News, RemoteTrouble, Trouble, Usage, run_virtual

from .virtual import RUNNING, Bench, Recorder, SlowStore, now, trouble, virtual

ANSWERED = News(Event.ANSWERED, answer="text", usage=Usage(1, 2))
DISK_FULL = StoreError("the disk is full")


def bench_of(seconds: float = 1.0, remote: Recorder | None = None, **settings: Any) -> tuple[Bench, SlowStore]:
    """Answer a bench on a store whose writes take so many seconds, and that store."""
    store = SlowStore(seconds)
    return Bench(remote, store=store, **settings), store


# --- nobody is told before it is written ------------------------------------------------------------------------


@virtual
async def test_a_result_is_written_before_anyone_is_told() -> None:
    """Readers, waiters and callbacks learn of an end in the moment in which it is written."""
    bench, _ = bench_of()
    bench.enter()
    called: list[float] = []
    bench.ledger.when_ended("job", lambda _: called.append(now()))
    bench.ledger.apply("job", ANSWERED)
    assert not bench.record().status.is_terminal
    newest = bench.ledger.newest("job")
    assert newest is not None
    assert newest.status is JobStatus.COMPLETED
    record = await bench.ledger.wait("job")
    await asyncio.sleep(0)
    assert (now(), called) == (1, [1])
    assert record is bench.record() is newest


@virtual
async def test_records_that_overtake_each_other_are_shown_in_their_order() -> None:
    """A job that moves while its last move is still being written shows each, and ends with the newest."""
    bench, _ = bench_of()
    bench.enter()
    bench.ledger.apply("job", RUNNING)
    await asyncio.sleep(0.5)
    bench.ledger.apply("job", ANSWERED)
    await asyncio.sleep(0.6)
    assert bench.record().status is JobStatus.RUNNING
    await bench.ledger.settled("job")
    assert bench.record().status is JobStatus.COMPLETED
    assert now() == 1.5


@virtual
async def test_a_terminal_draft_is_not_moved_any_more() -> None:
    """News that come while a result is being written do not change it."""
    bench, _ = bench_of()
    bench.enter()
    bench.ledger.apply("job", ANSWERED)
    bench.ledger.apply("job", News(Event.CANCELLED))
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED


@virtual
async def test_a_result_that_cannot_be_written_is_told_from_memory() -> None:
    """An answer is not held back by a full disk."""
    bench, store = bench_of()
    bench.enter()
    store.trouble = DISK_FULL
    bench.ledger.apply("job", ANSWERED)
    assert (await bench.ledger.wait("job")).answer == "text"


@virtual
async def test_a_waiter_that_is_cancelled_leaves_the_write_alone() -> None:
    """Whoever waits for the store may go; what was to be written is."""
    bench, _ = bench_of()
    bench.enter()
    waiter = asyncio.create_task(outcome(bench.ledger.note("job", waiting="connection")))
    await asyncio.sleep(0.5)
    waiter.cancel()
    await asyncio.wait([waiter])
    await bench.ledger.settled("job")
    assert bench.record().waiting == "connection"


def test_a_write_that_ends_after_the_loop_tells_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A store that outlives the loop harms nothing."""
    written: Future[bool] = Future()

    async def main() -> None:
        bench, store = bench_of()
        bench.enter()
        store.replace = lambda record: written  # type: ignore[method-assign]
        bench.ledger.apply("job", ANSWERED)

    run_virtual(main)
    written.set_result(True)
    assert not caplog.records, "the callback of a future logs what it raises"


# --- a job that another process holds ---------------------------------------------------------------------------


@virtual
async def test_what_another_process_wrote_wins() -> None:
    """A record that is written where the job is held elsewhere is dropped, and the truth is told."""
    bench, store = bench_of()
    record = bench.enter()
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    bench.ledger.apply("job", News(Event.CANCELLED))
    store.elsewhere.add("job")
    store._records["job"] = replace(record, status=JobStatus.COMPLETED, answer="theirs", ended=0.5)
    assert (await waiter).answer == "theirs"
    assert bench.ledger.newest("job") is bench.record()


@virtual
async def test_an_end_in_another_process_is_told_here() -> None:
    """Waiters and callbacks learn of an end that another process saw."""
    bench, store = bench_of()
    await bench.open()
    record = bench.enter()
    store.elsewhere.add("job")
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    store.put(replace(record, status=JobStatus.COMPLETED, answer="theirs", ended=1.0))
    assert (await waiter).answer == "theirs"


@virtual
async def test_a_job_that_was_removed_elsewhere_wakes_who_waits() -> None:
    """Whoever waits for a job that ends and is removed in another process is told that there is none."""
    bench, store = bench_of()
    await bench.open()
    bench.enter()
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    ends = await bench.ledger.ends_of(["job"])
    ended: list[str] = []
    bench.engine.when_ended("job", lambda: ended.append("job"))
    await asyncio.sleep(0)
    del store._records["job"]
    store.tell("job")
    with pytest.raises(JobNotFound):
        await waiter
    assert await anext(ends) == ("job", None)
    assert ended == ["job"]


@virtual
async def test_ended_jobs_of_the_file_are_let_go_oldest_first() -> None:
    """`retain` counts the jobs that had ended before, and those that end in other processes."""
    bench, store = bench_of(retain=2)
    for number in (3, 1, 2):
        bench.enter(f"job{number}", status=JobStatus.COMPLETED, ended=float(number))
    bench.enter("open")
    await bench.open()
    assert {*store._records} == {"job2", "job3", "open"}
    store.put(replace(bench.record("open"), status=JobStatus.COMPLETED, ended=4.0))
    await asyncio.sleep(0)
    assert {*store._records} == {"job3", "open"}
    store.tell("open")
    await asyncio.sleep(0)
    assert {*store._records} == {"job3", "open"}, "a job that is told of twice counts once"


@virtual
async def test_ended_jobs_of_the_file_are_let_go_at_their_age() -> None:
    """`retain` as an age counts from the end of a job, not from the opening of the store."""
    bench, store = bench_of(retain=timedelta(seconds=100))
    await asyncio.sleep(80)
    bench.enter("old", status=JobStatus.COMPLETED, started=0.0, ended=20.0)
    bench.enter("older", status=JobStatus.COMPLETED, started=-500.0, ended=-400.0)
    await bench.open()
    await asyncio.sleep(1)
    assert {*store._records} == {"old"}
    await asyncio.sleep(40)
    assert not store._records


# --- the create -------------------------------------------------------------------------------------------------


@virtual
async def test_a_create_leaves_after_it_was_written_down() -> None:
    """That a create leaves is written before it does, the response id before the first look."""
    bench, store = bench_of()
    bench.start()
    await asyncio.sleep(2.5)
    assert bench.remote.times("create") == [1]
    record = bench.record()
    assert (record.sent_at is not None, record.response_id) == (True, "resp_fake_1")
    assert [at for at, verb, _ in store.written if verb == "replace"] == [1, 2]
    await bench.end()
    assert bench.remote.times("look")[0] >= 2
    bench, _ = bench_of(10.0)
    bench.start("late")
    await bench.ledger.wait("late")
    assert bench.remote.times("look")[0] - bench.remote.times("create")[0] == 12


@virtual
async def test_a_create_that_cannot_be_written_down_waits() -> None:
    """While the store is in trouble nothing is sent, and the job says why; then it is sent once."""
    bench, store = bench_of(seconds=0.1)
    store.trouble = DISK_FULL
    bench.start()
    await asyncio.sleep(600)
    async with asyncio.timeout(1):
        while bench.record().waiting != "store":  # in a tenth of a second at a time it tries
            await asyncio.sleep(0.01)
    assert bench.remote.counts["create"] == 0
    store.trouble = None
    assert (await bench.end()).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1


@virtual
async def test_a_job_that_is_taken_over_meanwhile_is_not_sent() -> None:
    """Whoever learns, as he writes down that the create leaves, that the job is not his, does not send it."""
    bench, store = bench_of()
    task = bench.start()
    await asyncio.sleep(0.5)
    store.elsewhere.add("job")
    await asyncio.wait([task])
    assert bench.remote.counts["create"] == 0
    assert not bench.record().status.is_terminal


@virtual
@pytest.mark.parametrize("kind", [Trouble.THROTTLED, Trouble.UNSENT])
async def test_a_create_that_never_arrived_is_unsent_again(kind: Trouble) -> None:
    """While a job waits to be sent again, the file does not say that it may have arrived."""
    bench, _ = bench_of(seconds=0.01)
    bench.remote.script["create"] = [trouble(kind, after=50)] * 9
    bench.start()
    await asyncio.sleep(0.3)
    assert bench.record().waiting
    assert bench.record().sent_at is None


@virtual
async def test_an_uncertain_create_stays_sent_while_it_is_repeated() -> None:
    """A job that may have arrived once is never shown as unsent again."""
    bench, _ = bench_of(seconds=0.01, resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.THROTTLED, after=50)]
    bench.start()
    await asyncio.sleep(5)
    assert bench.record().waiting == "rate_limit"
    assert bench.record().sent_at is not None


# --- taken up ---------------------------------------------------------------------------------------------------


async def taken_up(*, resubmit_uncertain: bool = False, **facts: Any) -> tuple[Bench, SlowStore]:
    """Answer a bench that has opened a store with such a job of a former process, and was told that it holds it."""
    bench, store = bench_of(seconds=0.01, resubmit_uncertain=resubmit_uncertain)
    bench.enter(**facts)
    await bench.open()
    store.tell("job")
    return bench, store


@virtual
async def test_a_job_that_was_elsewhere_unnoticed_is_watched_by_a_new_life_alone() -> None:
    """Who learns in one moment that a job was elsewhere and is his again lets the life of before end."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    bench.remote.seconds = 3600.0
    await asyncio.sleep(30)
    begun = now()
    store.put(replace(bench.record(), epoch=bench.record().epoch + 1))
    await asyncio.sleep(100)
    looks = [at for at in bench.remote.times("look") if at > begun]
    assert looks[0] - begun < 1
    assert all(later - at >= 2 for at, later in pairwise(looks))
    await bench.engine.close(5)


@virtual
async def test_a_job_with_a_response_is_only_watched() -> None:
    """A job that is taken up is looked at soon, never created, and tells its end once."""
    bench, _ = await taken_up(response_id="resp_1", sent_at=1.0)
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    await asyncio.sleep(0)
    assert bench.remote.counts["create"] == 0
    assert bench.remote.times("look")[0] < 2.2
    assert bench.ended == ["job"]


@pytest.mark.parametrize(("sent_at", "pause"), [(0.0, 15.0), (900.0, 6.0), (None, 15.0)])
@virtual
async def test_a_job_is_as_old_as_the_service_has_had_it(sent_at: float | None, pause: float) -> None:
    """A job that waited for 900 s in a former process, and was sent 100 s ago, is looked at as one of 100 s."""
    bench, _ = await taken_up(response_id="resp_1", sent_at=sent_at, started=-1000.0)
    bench.remote.seconds = 3600.0
    await asyncio.sleep(30)
    first, second, *_ = bench.remote.times("look")
    assert second - first == pytest.approx(pause, abs=0.01)


@pytest.mark.parametrize(("endpoint", "quiet"), [("", 40.0), ("elsewhere", 2.0)])
@virtual
async def test_completed_jobs_of_the_store_teach(endpoint: str, quiet: float) -> None:
    """A new process knows from its store how long jobs of its service take: no look comes before half of the least."""
    bench, _ = bench_of(seconds=0.01)
    request = JobRequest("question", "low", endpoint=endpoint)
    for number in range(40):
        ended: dict[str, Any] = {"status": JobStatus.COMPLETED, "ended": 90.0 + number}
        bench.enter(f"job-{number}", request=request, started=0.0, sent_at=10.0, **ended)
    await bench.open()
    bench.remote.seconds, begun = 600.0, now()
    bench.start()
    await asyncio.sleep(100)
    assert bench.remote.times("look")[0] - begun == pytest.approx(quiet, abs=0.1)


@virtual
async def test_an_end_that_is_merely_met_does_not_teach() -> None:
    """A job that ended while no process watched it took no longer than it did: when it is taken up, nothing is learned.

    The naive way takes a weekend for the time that a job takes.
    """
    bench, store = bench_of(seconds=0.01)
    for number in range(40):
        bench.enter(f"job-{number}", started=-1000.0, response_id=f"resp_{number}", sent_at=0.0)
    bench.remote.seconds = 0.0
    await bench.open()
    store.tell(*[f"job-{number}" for number in range(40)])
    await asyncio.sleep(10)
    assert bench.record("job-39").status is JobStatus.COMPLETED
    assert bench.engine._shared.habits.of(JobRequest("question", "low")).quiet == 0.0


@virtual
async def test_a_job_that_never_left_is_sent() -> None:
    """A job whose intent alone was written is created, once."""
    bench, _ = await taken_up()
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1


@virtual
async def test_a_job_that_may_have_left_is_not_sent_again() -> None:
    """A job whose create may have arrived fails, and nothing is sent."""
    bench, _ = await taken_up(sent_at=1.0)
    record = await bench.ledger.wait("job")
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert not bench.remote.counts


@virtual
@pytest.mark.parametrize("resubmit_uncertain", [False, True])
async def test_a_former_process_may_tell_the_id_after_all(resubmit_uncertain: bool) -> None:
    """A job that may have left waits half a minute for its former process, which may only have been stalled."""
    bench, store = await taken_up(sent_at=1.0, resubmit_uncertain=resubmit_uncertain)
    await asyncio.sleep(20)
    assert (bench.record().waiting, bench.record().status) == ("uncertain", JobStatus.STARTED)
    store.tell("job")
    await asyncio.sleep(1)
    store.put(replace(bench.record(), response_id="resp_1"))
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 0


@virtual
async def test_a_job_that_is_listened_for_can_be_cancelled() -> None:
    """A cancel of a job that may have left does not claim that nothing runs; an id that comes is cancelled."""
    bench, store = await taken_up(sent_at=1.0)
    await asyncio.sleep(10)
    cancel = asyncio.ensure_future(bench.engine.cancel("job"))
    await asyncio.sleep(1)
    assert not cancel.done()
    store.put(replace(bench.record(), response_id="resp_late"))
    assert await cancel is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_a_cancel_does_not_shorten_the_listening() -> None:
    """A job that is cancelled while it is listened for fails as uncertain when the time is over, and no earlier."""
    bench, _ = await taken_up(sent_at=1.0)
    await asyncio.sleep(10)
    assert await bench.engine.cancel("job") is CancelVerdict.UNCONFIRMED
    record = await bench.ledger.wait("job")
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert 30 <= now() < 32


@virtual
async def test_a_job_that_may_have_left_is_not_called_cancelled() -> None:
    """Who allows a job to be sent again, and then cancels it, hears that it may run, and be paid, all the same."""
    bench, _ = await taken_up(sent_at=1.0, cancel_requested_at=2.0, resubmit_uncertain=True)
    record = await bench.ledger.wait("job")
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert bench.remote.counts["create"] == 0


@virtual
@pytest.mark.parametrize("end", ["close", "take over", "cancel the task"])
async def test_whoever_listens_may_go(end: str) -> None:
    """A process that ends, or is itself taken for dead, while it listens leaves the job as it is."""
    bench, store = await taken_up(sent_at=1.0)
    await asyncio.sleep(10)
    if end == "close":
        before = now()
        await bench.engine.close(5)
        assert now() - before < 1
    elif end == "take over":
        store.elsewhere.add("job")
        store.tell("job")
    else:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
    await asyncio.sleep(100)
    record = bench.record()
    assert (record.status, record.sent_at) == (JobStatus.STARTED, 1.0)


@virtual
async def test_a_job_that_may_have_left_is_sent_again_where_the_user_allows_it() -> None:
    """With `resubmit_uncertain` such a job is created."""
    bench, _ = await taken_up(sent_at=1.0, resubmit_uncertain=True)
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1


@virtual
@pytest.mark.parametrize("sent_at", [None, 1.0])
async def test_a_job_without_its_text_cannot_be_sent(sent_at: float | None) -> None:
    """Of a question nothing but its hash is left: the job fails and says so, or that it may have left."""
    request = JobRequest("sha256:0", "low", is_whole=False)
    bench, _ = await taken_up(request=request, sent_at=sent_at, resubmit_uncertain=True)
    record = await bench.ledger.wait("job")
    assert record.failure is not None
    assert record.failure.code == ("text_not_kept" if sent_at is None else "submission_uncertain")
    assert not bench.remote.counts


@virtual
async def test_a_cancel_that_its_process_did_not_live_to_see_is_carried_out() -> None:
    """A job that was to be cancelled is cancelled by whoever takes it up: at the service where it left."""
    bench, _ = await taken_up(response_id="resp_1", cancel_requested_at=5.0)
    assert (await bench.ledger.wait("job")).status is JobStatus.CANCELLED
    assert bench.remote.counts["cancel"] == 1
    bench, _ = await taken_up(cancel_requested_at=5.0)
    assert (await bench.ledger.wait("job")).status is JobStatus.CANCELLED
    assert not bench.remote.counts
    bench, _ = bench_of(seconds=0.01)
    bench.enter(response_id="resp_1", cancel_requested_at=5.0)
    await bench.open()
    assert (await bench.ledger.wait("job")).status is JobStatus.CANCELLED, "though nobody tells of it again"


@virtual
async def test_a_job_that_ended_in_time_is_no_late_one() -> None:
    """The deadline that passed while no process lived the job does not undo an answer that came before."""
    bench, _ = await taken_up(response_id="resp_1", started=-500.0, timeout=100)
    bench.remote.seconds = 0
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED


@virtual
async def test_a_job_that_is_late_and_runs_is_cancelled() -> None:
    """A job that still runs after a deadline that passed meanwhile fails at the first look, and is cancelled."""
    bench, _ = await taken_up(response_id="resp_1", started=-500.0, timeout=100)
    record = await bench.ledger.wait("job")
    assert record.failure == Failure("deadline")
    await asyncio.sleep(10)
    assert bench.remote.counts == {"look": 2, "cancel": 1}


@virtual
@pytest.mark.parametrize("facts", [{"response_id": "resp_1"}, {}])
async def test_a_job_waits_for_a_client(facts: dict[str, Any]) -> None:
    """Without a client a new job fails, and one of a former process waits until there is one."""
    remote = Recorder()
    clients: list[Recorder] = []

    async def connect() -> Recorder:
        if not clients:
            raise trouble(Trouble.REFUSED, "client")
        return remote

    bench, store = bench_of(0.01, remote, connect=connect)
    bench.enter(**facts)
    await bench.open()
    store.tell("job")
    await asyncio.sleep(300)
    assert (bench.record().waiting, bench.record().status) == ("connection", JobStatus.STARTED)
    bench.start("new")
    assert (await bench.end("new")).failure == Failure("client", "detail")
    clients.append(remote)
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED


@virtual
async def test_a_job_that_waits_for_a_client_is_let_go() -> None:
    """Neither a close nor another process that takes the job over fails it."""

    async def connect() -> Recorder:
        raise trouble(Trouble.REFUSED, "client")

    for end in ("close", "take over"):
        bench, store = bench_of(0.01, connect=connect)
        bench.enter(response_id="resp_1")
        await bench.open()
        store.tell("job")
        await asyncio.sleep(300)
        before = now()
        if end == "close":
            await bench.engine.close(5)
        else:
            store.elsewhere.add("job")
            store.tell("job")
        await asyncio.sleep(0.1)
        assert now() - before < 1
        assert len(asyncio.all_tasks()) == 1
        assert not bench.record().status.is_terminal


@virtual
async def test_many_jobs_are_not_looked_at_together() -> None:
    """The first looks at jobs that are taken up at once are spread over two seconds."""
    bench, store = bench_of(seconds=0.01)
    ids = [f"job{number}" for number in range(500)]
    for job_id in ids:
        bench.enter(job_id, response_id=f"resp_{job_id}")
    await bench.open()
    store.tell(*ids)
    await asyncio.sleep(2.5)
    first = bench.remote.times("look")[:500]
    assert len(first) == 500
    assert max(first) - min(first) > 1
    assert max(first) < 2.2


@virtual
async def test_a_closing_engine_takes_nothing_up() -> None:
    """What is noticed while the engine closes is left to others."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.enter(response_id="resp_1")
    await bench.engine.close(1)
    store.tell("job")
    await asyncio.sleep(100)
    assert not bench.remote.counts


# --- taken over -------------------------------------------------------------------------------------------------


@virtual
async def test_a_job_that_is_taken_over_is_left_alone() -> None:
    """From the moment in which another process holds a job it is not looked at here, and its record stays."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    task = bench.start()
    await asyncio.sleep(10)
    looks = bench.remote.counts["look"]
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.wait([task])
    assert now() < 10.1
    assert bench.remote.counts["look"] == looks
    assert bench.record().status is JobStatus.RUNNING


@virtual
async def test_a_look_on_its_way_is_the_last_one() -> None:
    """A job that is taken over during a look is not looked at again."""
    bench, store = bench_of(seconds=0.01, remote=Recorder(latency=5.0))
    await bench.open()
    task = bench.start(response_id="resp_1")
    await asyncio.sleep(3)
    assert bench.remote.counts["look"] == 1
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.wait([task])
    assert bench.remote.counts["look"] == 1


@virtual
async def test_a_create_on_its_way_still_brings_its_id() -> None:
    """A job that is taken over during its create is not cancelled: the id is booked, and another process watches."""
    bench, store = bench_of(seconds=0.01, remote=Recorder(latency=5.0))
    await bench.open()
    task = bench.start()
    await asyncio.sleep(3)
    booked: list[str | None] = []
    keep = store.replace

    def noting(record: JobRecord) -> Future[bool]:
        booked.append(record.response_id)
        return keep(record)

    store.replace = noting  # type: ignore[method-assign]
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.wait([task])
    assert booked == ["resp_fake_1"]
    assert bench.remote.counts == {"create": 1}


@virtual
async def test_a_job_that_waits_to_be_sent_is_given_up_at_once() -> None:
    """A job that is taken over before its create left is not sent."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=50)]
    task = bench.start()
    await asyncio.sleep(10)
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.wait([task])
    assert now() < 10.1
    assert bench.remote.counts == {"create": 1}
    assert not bench.record().status.is_terminal


@virtual
async def test_a_job_that_comes_back_is_lived_again() -> None:
    """A job that is taken over, and comes back before its last look is answered, is watched by a new life alone."""
    bench, store = bench_of(seconds=0.01, remote=Recorder(latency=5.0, seconds=300))
    await bench.open()
    first = bench.start(response_id="resp_1")
    await asyncio.sleep(3)
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.sleep(0.1)
    store.elsewhere.clear()
    store.tell("job")
    store.tell("job")
    await asyncio.sleep(10)
    assert first.done()
    assert bench.remote.max_in_flight == 2
    bench.remote.max_in_flight = 0
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.max_in_flight == 1
    assert bench.remote.counts["create"] == 0


@virtual
async def test_whoever_lives_a_job_to_its_end_calls_back() -> None:
    """A job that was taken over calls nobody back here, whatever is seen of it first; one that came back does."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    called: list[str] = []
    for name in ("lost", "ended", "looked at", "back"):
        bench.enter(name, response_id=f"resp_{name}")
        bench.tasks[name] = asyncio.create_task(bench.engine.run(name, lambda name=name: called.append(name)))  # type: ignore[misc]
    await asyncio.sleep(3)
    store.elsewhere |= {"lost", "ended", "looked at", "back"}
    store.tell("lost", "back")
    await asyncio.sleep(1)
    bench.ledger.apply("looked at", ANSWERED)  # what a sleeper who wakes up learns, is refused by the store
    store._records["looked at"] = replace(bench.record("looked at"), status=JobStatus.COMPLETED, ended=now())
    for name in ("lost", "ended"):
        store.put(replace(bench.record(name), status=JobStatus.COMPLETED, answer="theirs", ended=now()))
    store.elsewhere.remove("back")
    store.tell("back")
    await bench.ledger.wait("back")
    await asyncio.sleep(1)
    assert (called, bench.ended) == ([], ["back"])
    assert not bench.engine._take_backs


@virtual
async def test_a_job_that_was_lost_before_its_run_began_is_left_alone() -> None:
    """A run that comes too late, after another process has taken the job over, asks nothing of the service."""
    bench, store = bench_of(seconds=0.01)
    bench.enter(response_id="resp_1")
    store.elsewhere.add("job")
    await bench.engine.run("job")
    assert not bench.remote.counts


@virtual
async def test_a_job_is_run_once() -> None:
    """A job of which others tell before its run has begun is not run by that; nor is one that is told of twice."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.engine.expected.add("job")
    bench.enter()
    store.put(replace(bench.record(), cancel_requested_at=1.0))
    store.tell("job")
    await asyncio.sleep(100)
    assert not bench.remote.counts
    await bench.engine.run("job")
    assert bench.record().status is JobStatus.CANCELLED, "what was wished meanwhile is seen"
    bench.enter("taken up")
    store.tell("taken up")
    store.tell("taken up")
    assert (await bench.ledger.wait("taken up")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1


@virtual
async def test_a_job_may_be_cancelled_before_it_is_taken_up() -> None:
    """A cancel that comes between the opening and the first step of a job is carried out."""
    bench, store = bench_of(seconds=0.01)
    bench.enter(response_id="resp_1")
    await bench.open()
    cancel = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(0)
    store.tell("job")
    assert await cancel is CancelVerdict.CONFIRMED


@virtual
async def test_a_job_that_comes_here_as_it_is_cancelled_is_cancelled() -> None:
    """A job that changes hands between the wish and its being written is cancelled by whoever holds it then."""
    bench, store = bench_of()
    await bench.open()
    bench.enter(response_id="resp_1")
    store.elsewhere.add("job")
    cancel = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(0.5)
    store.elsewhere.clear()
    store.tell("job")
    assert await cancel is CancelVerdict.CONFIRMED


@virtual
async def test_news_of_a_job_that_nobody_lives_here_are_just_seen() -> None:
    """A job of another process that moves there starts nothing here."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    record = bench.enter()
    store.elsewhere.add("job")
    store.put(replace(record, status=JobStatus.RUNNING))
    await asyncio.sleep(100)
    assert not bench.remote.counts
    assert bench.record().status is JobStatus.RUNNING


# --- cancels across processes -----------------------------------------------------------------------------------


@virtual
async def test_a_cancel_is_left_to_who_holds_the_job() -> None:
    """A cancel of another process's job is a wish in the store; the service is not asked from here."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.enter(response_id="resp_1")
    store.elsewhere.add("job")
    cancel = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(1)
    assert bench.record().cancel_requested_at is not None
    again = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(1)
    assert not again.done(), "the wish stands: this one waits for what becomes of it, too"
    store.put(replace(bench.record(), status=JobStatus.CANCELLED, ended=1.0))
    assert await cancel is await again is CancelVerdict.CONFIRMED
    assert not bench.remote.counts


@virtual
async def test_a_refusal_reaches_the_process_that_asked() -> None:
    """A wish to cancel that the holder withdraws was refused; other news of the job are no answer."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    record = bench.enter(response_id="resp_1")
    store.elsewhere.add("job")
    cancel = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(1)
    store.put(replace(bench.record(), status=JobStatus.RUNNING))
    await asyncio.sleep(1)
    assert not cancel.done()
    store.put(replace(record, status=JobStatus.RUNNING))
    assert await cancel is CancelVerdict.REFUSED


@virtual
async def test_a_wish_that_cannot_be_written_raises() -> None:
    """A cancel of another process's job needs the store, and says so where that fails."""
    bench, store = bench_of(seconds=0.01)
    bench.enter(response_id="resp_1")
    store.elsewhere.add("job")
    store.trouble = DISK_FULL
    with pytest.raises(StoreError, match="disk is full"):
        await bench.engine.cancel("job")


@virtual
async def test_the_holder_carries_out_what_others_wish() -> None:
    """A wish of another process is carried out once, however often the job is told of."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.start(response_id="resp_1")
    await asyncio.sleep(10)
    bench.remote.latency = 1.0
    for _ in range(3):
        store.put(replace(bench.record(), cancel_requested_at=10.0))
    assert (await bench.ledger.wait("job")).status is JobStatus.CANCELLED
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_the_holder_withdraws_what_the_service_refuses() -> None:
    """A wish that the service refuses stands no longer, so that whoever wished learns of it."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)]
    bench.start(response_id="resp_1")
    await asyncio.sleep(10)
    store.put(replace(bench.record(), cancel_requested_at=10.0))
    await asyncio.sleep(2)
    assert bench.record().cancel_requested_at is None
    assert not bench.record().status.is_terminal


@virtual
async def test_a_cancel_that_a_crash_would_undo_is_not_confirmed() -> None:
    """A job that was not sent is cancelled here, but where that cannot be written the caller hears of it."""
    bench, store = bench_of(seconds=0.01, max_concurrency=1)
    bench.start("sent")
    await asyncio.sleep(10)
    bench.start("unsent")
    await asyncio.sleep(1)
    store.trouble = DISK_FULL
    with pytest.raises(StoreError, match="disk is full"):
        await bench.engine.cancel("unsent")
    assert bench.record("unsent").status is JobStatus.CANCELLED
    assert await bench.engine.cancel("sent") is CancelVerdict.CONFIRMED, "that the service keeps it cancelled is enough"


@virtual
async def test_a_cancel_while_the_result_is_written_is_too_late() -> None:
    """A job whose end is being written has ended."""
    bench, _ = bench_of()
    bench.enter()
    bench.ledger.apply("job", ANSWERED)
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    assert now() >= 1


# --- close ------------------------------------------------------------------------------------------------------


@virtual
async def test_close_leaves_all_jobs_to_the_next_process() -> None:
    """Jobs at the service run on there, unsent ones stay unsent, and the store is closed after them."""
    bench, store = bench_of(seconds=0.01, max_concurrency=1)
    await bench.open()
    bench.start("sent")
    await asyncio.sleep(10)
    bench.start("unsent")
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert (bench.record("sent").status, bench.record("unsent").status) == (JobStatus.RUNNING, JobStatus.STARTED)
    assert (bench.record("unsent").sent_at, bench.remote.counts["cancel"]) == (None, 0)
    assert store.is_closed
    assert store.written[-1][1] == "close"


@virtual
@pytest.mark.parametrize("pause", [0, 0.5])
async def test_close_sends_what_is_about_to_leave(pause: float) -> None:
    """A job that nothing holds up is sent before the engine closes, and runs on at the service."""
    bench, _ = bench_of()
    bench.start()
    await asyncio.sleep(pause)
    await bench.engine.close(5)
    assert bench.remote.counts["create"] == 1
    assert bench.record().response_id is not None
    assert (bench.record().status, bench.remote.counts["cancel"]) == (JobStatus.STARTED, 0)


@virtual
@pytest.mark.parametrize(("begins", "sent"), [(1.0, ["other", "job"]), (6.0, ["other"])])
async def test_close_sends_what_begins_in_half_of_its_time(begins: float, sent: list[str]) -> None:
    """A job whose task begins as the engine closes is sent in the first half of the time, and left unsent after it."""
    bench, _ = bench_of(seconds=0.01)
    bench.remote.latency = 100
    bench.start("other")
    await asyncio.sleep(1)
    closing = asyncio.create_task(bench.engine.close(10))
    await asyncio.sleep(begins)
    bench.start()
    await closing
    assert [job_id for job_id, _ in bench.remote.asked] == sent
    assert not bench.record().status.is_terminal
    assert (bench.record().sent_at is None) is (sent == ["other"])


@virtual
async def test_close_takes_a_create_back_that_was_about_to_leave() -> None:
    """A create that was written down, but did not leave in half the time, is not taken for one that may have left."""
    bench, _ = bench_of(seconds=2.9)
    bench.start()
    await asyncio.sleep(0.1)
    await bench.engine.close(5)
    await asyncio.sleep(10)
    assert bench.remote.counts["create"] == 0
    assert bench.record().sent_at is None
    assert not bench.record().status.is_terminal


@virtual
async def test_close_during_a_create_that_never_arrives() -> None:
    """A create that turns out not to have arrived while the engine closes is left to the next process."""
    bench, _ = bench_of(seconds=0.01, remote=Recorder(latency=1.0))
    bench.remote.script["create"] = [trouble(Trouble.UNSENT)]
    bench.start()
    await asyncio.sleep(0.5)
    await bench.engine.close(5)
    assert bench.record().sent_at is None
    assert not bench.record().status.is_terminal


@virtual
async def test_close_can_cancel_with_a_store_too() -> None:
    """With `on_close="cancel"` jobs are cancelled wherever they are."""
    bench, _ = bench_of(seconds=0.01, cancel_on_close=True, max_concurrency=1)
    bench.start("sent")
    await asyncio.sleep(10)
    bench.start("unsent")
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert bench.record("sent").status is bench.record("unsent").status is JobStatus.CANCELLED
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_a_cancel_at_close_that_is_not_confirmed_is_left_to_the_next_process() -> None:
    """The wish stands in the store, and the job is not given up."""
    bench, _ = bench_of(seconds=0.01, cancel_on_close=True)
    bench.start()
    await asyncio.sleep(10)
    bench.remote.script["cancel"] = [trouble(Trouble.UNCLEAR)] * 99
    bench.remote.script["look"] = [RUNNING] * 99
    await bench.engine.close(2)
    assert bench.record().status is JobStatus.RUNNING
    assert bench.record().cancel_requested_at is not None


@virtual
async def test_close_waits_for_what_is_being_written() -> None:
    """An end that is on its way into the store is told before the waiters are let go."""
    bench, _ = bench_of()
    bench.start(response_id="resp_1")
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    bench.remote.seconds = 0
    while bench.ledger.newest("job") is bench.record():
        await asyncio.sleep(0.1)
    await bench.engine.close(5)
    assert (await waiter).status is JobStatus.COMPLETED


@virtual
async def test_close_does_not_wait_for_a_store_that_hangs() -> None:
    """A store that writes no more holds nobody up: waiters get the record as it is."""
    bench, store = bench_of(seconds=0.01)
    bench.start(response_id="resp_1")
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await asyncio.sleep(1)
    store.seconds = 1000
    bench.ledger.apply("job", ANSWERED)
    before = now()
    await bench.engine.close(1)
    assert now() - before < 6
    assert not (await waiter).status.is_terminal


def test_the_end_of_the_loop_leaves_all_jobs() -> None:
    """A loop that ends without a close, as `asyncio.run` does, cancels nothing at the service."""
    bench, _ = bench_of(seconds=0.01, max_concurrency=1)

    async def main() -> None:
        bench.start("sent")
        await asyncio.sleep(10)
        bench.start("unsent")
        await asyncio.sleep(1)

    run_virtual(main)
    assert bench.remote.counts["cancel"] == 0
    assert not bench.record("sent").status.is_terminal
    assert not bench.record("unsent").status.is_terminal


@virtual
async def test_a_task_that_is_cancelled_wakes_who_waits() -> None:
    """A job whose task somebody cancels is left to the next process, and nobody here goes on waiting for it."""
    bench, _ = bench_of(seconds=0.01)
    bench.start()
    await asyncio.sleep(10)
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    bench.tasks["job"].cancel()
    assert not (await waiter).status.is_terminal
    assert bench.remote.counts["cancel"] == 0


@virtual
async def test_a_foreground_create_ends_with_its_process() -> None:
    """In the foreground a create that has left is cancelled by closing: the next process does not send it again."""
    bench, _ = bench_of(seconds=0.01, remote=Recorder(background=False))
    bench.start()
    await asyncio.sleep(10)
    assert bench.remote.counts["create"] == 1
    await bench.engine.close(1)
    assert bench.record().status is JobStatus.CANCELLED


@virtual
async def test_the_end_of_the_loop_cancels_where_it_shall() -> None:
    """With `on_close="cancel"` it says its last words, and leaves an unconfirmed wish to the next process."""
    bench, _ = bench_of(seconds=0.01, cancel_on_close=True)
    bench.start()
    await asyncio.sleep(10)
    bench.remote.script["look"] = [RUNNING] * 9
    bench.tasks["job"].cancel()
    await asyncio.wait([bench.tasks["job"]])
    assert bench.remote.counts["cancel"] == 1
    assert bench.record().status is JobStatus.RUNNING


# --- usage, answers and deletes ---------------------------------------------------------------------------------


def late_usage(bench: Bench, *looks: News) -> None:
    """Have the service say so at the looks after it has cancelled."""
    bench.remote.script["look"] = [News(Event.CANCELLED), *looks]


@virtual
async def test_usage_that_comes_after_a_cancel_is_booked() -> None:
    """Work that the service finished after our cancel is counted, and the job stays cancelled."""
    bench = Bench()
    bench.start(response_id="resp_1")
    await asyncio.sleep(1)
    late_usage(bench, News(Event.CANCELLED), ANSWERED)
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    assert bench.record().usage is None
    await bench.end()
    record = bench.record()
    assert (record.status, record.usage, record.answer) == (JobStatus.CANCELLED, Usage(1, 2), None)
    assert 60 < now() < 120


@virtual
async def test_usage_is_not_looked_for_without_end() -> None:
    """After three more looks nobody asks again; a look that fails is one of them."""
    bench = Bench()
    bench.start(response_id="resp_1")
    await asyncio.sleep(1)
    late_usage(bench, *[News(Event.CANCELLED)] * 9)
    await bench.engine.cancel("job")
    looks = bench.remote.counts["look"]
    bench.remote.script["look"][0] = trouble(Trouble.UNCLEAR)
    await bench.end()
    assert bench.remote.counts["look"] == looks + 3
    assert bench.record().usage is None


@virtual
@pytest.mark.parametrize("what", ["close", "remove"])
async def test_usage_keeps_nobody_waiting(what: str) -> None:
    """A close, or a removed job, ends the search for late usage at once, or at its next turn."""
    bench = Bench()
    task = bench.start(response_id="resp_1")
    await asyncio.sleep(1)
    late_usage(bench, *[News(Event.CANCELLED)] * 9)
    await bench.engine.cancel("job")
    before, looks = now(), bench.remote.counts["look"]
    if what == "close":
        await bench.engine.close(5)
        assert now() - before < 1
    else:
        bench.store.remove("job")
        await asyncio.wait([task])
        assert now() - before < 16
    assert bench.remote.counts["look"] == looks


@virtual
async def test_an_answer_that_is_not_kept_is_asked_for() -> None:
    """The record of a completed job without its answer is completed by a look; others are answered as they are."""
    bench, _ = bench_of()
    bare = bench.enter(status=JobStatus.COMPLETED, ended=1.0, response_id="resp_1")
    bench.remote.seconds = 0
    assert (await bench.engine.whole(bare)).answer == "fake answer of resp_1"
    assert bench.record().answer is None
    full = replace(bare, answer="")
    assert await bench.engine.whole(full) is full
    bench.remote.script["look"] = [trouble(Trouble.MISSING), RUNNING, News(Event.CANCELLED, answer="")]
    for _ in range(3):
        assert await bench.engine.whole(bare) is bare
    await bench.engine.close(1)
    assert await bench.engine.whole(bare) is bare


@virtual
async def test_responses_are_deleted() -> None:
    """A response is deleted at the service; of several, those that could be are told."""
    bench, _ = bench_of()
    records = [bench.enter(name, response_id=f"resp_{name}") for name in "abc"]
    bench.remote.script["delete"] = [None, trouble(Trouble.UNCLEAR)]
    assert [record.job_id for record in await bench.engine.delete_all(records)] == ["a", "c"]
    await bench.engine.delete(replace(records[0], response_id=None))
    assert bench.remote.counts["delete"] == 3
    await bench.engine.close(1)
    with pytest.raises(HandlerClosed):
        await bench.engine.delete(records[0])


@virtual
async def test_what_retain_lets_go_is_deleted_there_too(caplog: pytest.LogCaptureFixture) -> None:
    """With `delete_remote` a forgotten job's response is deleted; where that fails it is tried again."""
    bench, store = bench_of(seconds=0.01, retain=1, delete_remote=True)
    bench.remote.script["delete"] = [None, trouble(Trouble.UNCLEAR)]
    with caplog.at_level(logging.WARNING):
        for name in "abc":
            bench.enter(name, response_id=f"resp_{name}")
            bench.ledger.apply(name, ANSWERED)
            await asyncio.sleep(1)
    assert {*store._records} == {"b", "c"}
    assert "job b: its response could not be deleted; it is tried again" in caplog.text
    await asyncio.sleep(60)
    assert {*store._records} == {"c"}
    assert bench.remote.counts["delete"] == 3
    await bench.engine.close(1)
    bench.ledger.forget(bench.record("c"))
    await asyncio.sleep(100)
    assert {*store._records} == {"c"}, "a closed engine leaves it to the next process"


@virtual
async def test_jobs_of_another_service_are_left_alone() -> None:
    """What belongs to another endpoint is neither let go by `retain`, nor asked for, nor deleted."""
    bench, store = bench_of(seconds=0.01, retain=1)
    elsewhere = JobRequest("question", "low", endpoint="https://another")
    for name in "ab":
        bench.enter(name, request=elsewhere, status=JobStatus.COMPLETED, ended=1.0, response_id=f"resp_{name}")
    await bench.open()
    assert {*store._records} == {"a", "b"}
    bare = bench.record("a")
    assert await bench.engine.whole(bare) is bare
    with pytest.raises(RemoteTrouble, match="other_endpoint"):
        await bench.engine.delete(bare)
    assert not bench.remote.counts


# --- what came back, and what was left ------------------------------------------------------------------------------


@virtual
async def test_a_job_that_comes_back_is_lived_anew() -> None:
    """Who had not sent a job learns, when it comes back to him, that it was sent elsewhere: it is only watched."""
    bench, store = bench_of(seconds=0.01, max_concurrency=1)
    await bench.open()
    bench.start("first")
    await asyncio.sleep(5)
    bench.start()
    await asyncio.sleep(0.001)
    sent = replace(bench.record(), epoch=3, response_id="resp_1", sent_at=1.0)
    store.put(sent)
    assert await bench.engine.cancel("first") is CancelVerdict.CONFIRMED
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1, "the first one alone"
    assert bench.record().response_id == "resp_1"


@virtual
@pytest.mark.parametrize("until", [2, 20])
async def test_who_was_not_told_yet_that_a_job_came_back_sends_nothing(until: float) -> None:
    """A job that waits for a 429 to pass, and was sent elsewhere meanwhile, is neither sent nor taken for unsent."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=5)]
    bench.start()
    await asyncio.sleep(1)
    store._records["job"] = replace(bench.record(), epoch=3, response_id="resp_1", sent_at=1.0, waiting="")
    budget = bench.engine._shared.door_of("")._budget
    budget.throttled(budget.take(now()), now(), 0, until)
    await asyncio.sleep(15)
    assert bench.remote.counts == {"create": 1}
    assert (bench.record().sent_at, bench.record().status) == (1.0, JobStatus.STARTED)
    store.tell("job")
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert bench.remote.counts["create"] == 1


@virtual
@pytest.mark.parametrize("kind", [Trouble.UNSENT, Trouble.THROTTLED])
async def test_a_create_that_fails_after_the_job_was_elsewhere_tells_nothing(kind: Trouble) -> None:
    """What became of a create is not noted in a record of the time after it, and the job is not sent again."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.remote.latency = 1.0
    bench.remote.script["create"] = [trouble(kind, after=5)]
    bench.start()
    await asyncio.sleep(0.5)
    store._records["job"] = replace(bench.record(), epoch=3, response_id="resp_1", sent_at=1.0, waiting="")
    await asyncio.sleep(20)
    assert bench.remote.counts == {"create": 1}
    assert (bench.record().sent_at, bench.record().waiting) == (1.0, "")


@virtual
async def test_a_wish_on_its_way_is_not_taken_for_a_refusal() -> None:
    """A cancel whose wish is not written yet goes on when the job turns out to be elsewhere in the meantime."""
    bench, store = bench_of(seconds=1)
    await bench.open()
    bench.start()
    await asyncio.sleep(5.5)
    bench.remote.latency = 100.0
    cancel = asyncio.ensure_future(bench.engine.cancel("job"))
    await asyncio.sleep(0.1)
    store.elsewhere.add("job")
    store.tell("job")
    await asyncio.sleep(0.5)
    assert not cancel.done()
    await asyncio.sleep(1)
    store.put(replace(bench.record(), status=JobStatus.CANCELLED, ended=now()))
    assert await cancel is CancelVerdict.CONFIRMED


@virtual
async def test_a_cancel_of_a_job_that_came_back_cancels_what_runs() -> None:
    """A cancel does not believe him who had not sent the job before it was elsewhere."""
    bench, store = bench_of(seconds=0.01, max_concurrency=1)
    await bench.open()
    bench.start("first")
    await asyncio.sleep(5)
    bench.start()
    await asyncio.sleep(0.1)
    store._records["job"] = replace(bench.record(), epoch=3, response_id="resp_1", sent_at=1.0)
    cancel = asyncio.ensure_future(bench.engine.cancel("job"))
    await asyncio.sleep(0.1)
    store.tell("job")
    assert await cancel is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_a_create_is_not_repeated_without_end_by_new_processes() -> None:
    """With `resubmit_uncertain`, too, a job whose creates cost three processes their lives is not sent again."""
    bench, _ = await taken_up(sent_at=1.0, doubtful=1, resubmit_uncertain=True)
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    bench, _ = await taken_up(sent_at=1.0, doubtful=2, resubmit_uncertain=True)
    record = await bench.ledger.wait("job")
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert not bench.remote.counts


@virtual
async def test_creates_that_may_have_arrived_are_counted_in_the_store() -> None:
    """Before a create is repeated it is written how many may have arrived."""
    bench, _ = bench_of(seconds=0.01, resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.UNCLEAR)]
    bench.start()
    await bench.end()
    assert (bench.record().doubtful, bench.remote.counts["create"]) == (2, 3)


@virtual
async def test_a_callback_is_not_taken_back_while_its_end_is_written() -> None:
    """What another process changes of a job, while its end is on its way into the store, takes no callback away."""
    bench, store = bench_of(seconds=0.01)
    await bench.open()
    bench.enter()
    store.tell("job")
    await asyncio.sleep(3)
    store.seconds = 1
    bench.ledger.apply("job", ANSWERED)
    await asyncio.sleep(0.5)
    store.tell("job")
    await asyncio.sleep(1)
    assert bench.ended == ["job"]


@virtual
async def test_a_job_that_ended_elsewhere_calls_nobody_back() -> None:
    """Whoever sees, before he is told, that his job has ended elsewhere, calls nobody back: that is done there."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    await asyncio.sleep(1)
    ended = bench.record().apply(ANSWERED, now())
    store._records["job"] = ended
    await asyncio.sleep(10)
    assert not bench.engine._lives
    store.tell("job")
    await asyncio.sleep(1)
    assert bench.ended == []


@virtual
@pytest.mark.parametrize("looks", [[], [RUNNING]])
async def test_what_is_taken_up_is_looked_at_even_if_the_engine_closes_at_once(looks: list[News]) -> None:
    """A process that only looks in learns what has become of its jobs, and lets go of what still runs."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    bench.remote.seconds = 0
    bench.remote.script["look"] = list(looks)
    await asyncio.sleep(0)
    await bench.engine.close(5)
    assert bench.record().status is (JobStatus.RUNNING if looks else JobStatus.COMPLETED)
    assert (bench.remote.counts["look"], now() < 1, store.is_closed) == (1, True, True)


@virtual
async def test_close_does_not_wait_for_a_service_that_hangs() -> None:
    """A first look that is not answered is given up with the rest."""
    bench, _ = await taken_up(response_id="resp_1", sent_at=1.0)
    bench.remote.latency = 100
    await asyncio.sleep(0)
    await bench.engine.close(5)
    assert now() < 7
    assert not bench.record().status.is_terminal


@virtual
async def test_close_does_not_repeat_a_first_look_that_fails() -> None:
    """A first look that fails as the engine closes has been made: the job is left to the next process."""
    bench, _ = await taken_up(response_id="resp_1", sent_at=1.0)
    bench.remote.latency = 1
    bench.remote.script["look"] = [trouble(Trouble.UNCLEAR)] * 99
    await asyncio.sleep(0)
    await bench.engine.close(5)
    assert bench.remote.counts["look"] == 1
    assert not bench.record().status.is_terminal


@virtual
async def test_without_a_client_a_closing_engine_leaves_its_jobs() -> None:
    """A job that could not be sent because there was no client as the engine closed is left to the next process."""

    async def connect() -> Recorder:
        await asyncio.sleep(0.1)
        raise trouble(Trouble.REFUSED, "client")

    bench, _ = bench_of(seconds=0.01, connect=connect)
    bench.start()
    await asyncio.sleep(0)
    await bench.engine.close(5)
    assert bench.record().status is JobStatus.STARTED


@virtual
@pytest.mark.parametrize("turns", range(3))
async def test_close_does_not_wait_for_the_rate(turns: int) -> None:
    """A job that a 429 of another keeps from being sent is left at once, even if it comes to the door just then."""
    bench, _ = bench_of(seconds=0.01)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=60)]
    bench.start()
    await asyncio.sleep(1)
    bench.start("second")
    for _ in range(turns):
        await asyncio.sleep(0)
    before = now()
    await bench.engine.close(5)
    assert now() - before < 1
    assert (bench.record().status, bench.record("second").status) == (JobStatus.STARTED, JobStatus.STARTED)


@virtual
async def test_close_cancels_what_nobody_will_run() -> None:
    """A job that was inserted as the engine closed, and is run by nobody, is cancelled where jobs are."""
    bench, _ = bench_of(seconds=0.5, cancel_on_close=True)
    bench.enter()
    bench.engine.expected.add("job")
    waiter = asyncio.ensure_future(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    await bench.engine.close(5)
    assert (await waiter).status is bench.record().status is JobStatus.CANCELLED
    bench, _ = bench_of(seconds=0.01)
    bench.enter()
    bench.engine.expected.add("job")
    await bench.engine.close(5)
    assert bench.record().status is JobStatus.STARTED


@virtual
async def test_close_claims_no_cancel_of_what_nobody_asked_to_stop() -> None:
    """A response that was attached to as the engine closed may run on: it is not called cancelled."""
    bench, _ = bench_of(seconds=0.01, cancel_on_close=True)
    bench.enter(response_id="resp_1")
    bench.engine.expected.add("job")
    await bench.engine.close(5)
    assert bench.record().status is JobStatus.STARTED
    assert bench.record().cancel_requested_at is not None, "the next process sees to it"
    bench = Bench()
    bench.enter(response_id="resp_1")
    bench.engine.expected.add("job")
    await bench.engine.close(5)
    assert bench.record().failure == Failure("closed_unconfirmed")


@virtual
async def test_close_cancels_a_job_whose_nap_ends_just_then() -> None:
    """A job that wakes up for its look in the very moment of the close is cancelled like the others."""
    bench, _ = bench_of(seconds=0.01, cancel_on_close=True)
    bench.start(response_id="resp_1")
    await asyncio.sleep(1.9999)
    closing = bench.engine.close(5)
    closing.send(None)
    assert bench.engine._shared.closing
    await bench.end()
    assert bench.record().status is JobStatus.CANCELLED
    closing.close()


def stopped(**facts: Any) -> dict[str, Any]:
    """Answer the facts of a job that was cancelled ten seconds ago, and has run at the service."""
    return {"status": JobStatus.CANCELLED, "ended": -10.0, "started": -20.0, "response_id": "resp_1", **facts}


@virtual
async def test_the_next_process_looks_for_late_usage() -> None:
    """Usage that comes after a cancel whose process has ended is booked by the next one."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped())
    late_usage(bench, ANSWERED)
    await bench.open()
    await asyncio.sleep(100)
    assert (bench.record().status, bench.record().usage) == (JobStatus.CANCELLED, Usage(1, 2))
    assert bench.remote.counts == {"look": 2}
    await bench.engine.close(5)


@virtual
async def test_the_next_process_does_not_look_for_usage_without_end() -> None:
    """After four looks, and a cancel before each where the service goes on, what is owed is given up."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped(status=JobStatus.FAILED, failure=Failure("deadline")))
    bench.remote.script["look"] = [trouble(Trouble.UNCLEAR), RUNNING, News(), RUNNING]
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)] * 9
    await bench.open()
    await asyncio.sleep(1000)
    assert bench.remote.counts == {"look": 4, "cancel": 4}


@virtual
async def test_the_next_process_cancels_no_more_what_has_ended() -> None:
    """Once the service has ended it only its usage is asked for, in looks at once, and 15, 60 and 300 s later."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped(status=JobStatus.FAILED, failure=Failure("deadline")))
    bench.remote.script["look"] = [RUNNING, *[News(Event.CANCELLED)] * 9]
    await bench.open()
    opened = round(now(), 3)
    await asyncio.sleep(1000)
    assert bench.remote.times("look") == [round(opened + after, 3) for after in (0, 15, 75, 375)]
    assert bench.remote.counts["cancel"] == 2


@virtual
async def test_the_next_process_cancels_what_a_deadline_has_left() -> None:
    """A job that failed by its deadline is cancelled at the service, should its process not have come to that."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped(status=JobStatus.FAILED, failure=Failure("deadline")))
    await bench.open()
    await asyncio.sleep(10)
    assert bench.remote.counts == {"look": 1, "cancel": 1}
    before = now()
    await bench.engine.close(5)
    assert now() - before < 1


@virtual
async def test_close_ends_what_is_owed() -> None:
    """Nothing more is asked for what former processes owe once the engine is closed."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped(status=JobStatus.FAILED, failure=Failure("deadline")))
    bench.remote.script["look"] = [RUNNING] * 9
    await bench.open()
    await asyncio.sleep(10)
    await bench.engine.close(5)
    await asyncio.sleep(1000)
    assert bench.remote.counts == {"look": 1, "cancel": 1}


@virtual
@pytest.mark.parametrize(
    "facts",
    [
        {"ended": -601.0},
        {"usage": Usage(1, 2)},
        {"response_id": None},
        {"status": JobStatus.FAILED, "failure": Failure("server_error")},
        {"status": JobStatus.COMPLETED, "answer": "text"},
        {"request": JobRequest("question", "low", endpoint="another")},
    ],
)
async def test_what_owes_nothing_is_left_alone(facts: dict[str, Any]) -> None:
    """Jobs that ended long ago, that are accounted for, that were not stopped or are another service's cost no look."""
    bench, _ = bench_of(seconds=0.01)
    bench.enter(**stopped(**facts))
    await bench.open()
    await asyncio.sleep(1000)
    assert not bench.remote.counts


@virtual
async def test_without_a_client_late_usage_is_given_up() -> None:
    """What is owed for ended jobs keeps nobody busy where there is no client."""

    async def connect() -> Recorder:
        raise trouble(Trouble.REFUSED, "client")

    bench, _ = bench_of(seconds=0.01, connect=connect)
    bench.enter(**stopped())
    await bench.open()
    await asyncio.sleep(1)
    assert not bench.engine._lives


@virtual
async def test_a_job_that_comes_back_is_called_back_once() -> None:
    """Who learns in one moment that a job was elsewhere and is his again, has one callback for it, and not two."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    await asyncio.sleep(0.5)
    store.put(replace(bench.record(), epoch=3))
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    await asyncio.sleep(1)
    assert bench.ended == ["job"]


@virtual
async def test_a_callback_is_not_taken_back_for_an_end_of_ours() -> None:
    """A notice that comes after our end was written, and before it is told, takes no callback away."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    await asyncio.sleep(0.5)
    store.seconds = 1
    bench.ledger.apply("job", ANSWERED)
    newest = bench.ledger.newest("job")
    assert newest is not None
    store._records["job"] = newest
    store.tell("job")
    await asyncio.sleep(2)
    assert bench.ended == ["job"]


@virtual
async def test_a_draft_of_an_older_epoch_is_not_the_newest() -> None:
    """What is still being written of the time before a job was elsewhere says nothing about it."""
    bench, store = bench_of()
    bench.enter()
    bench.ledger.note("job", waiting="rate_limit")
    assert bench.ledger.newest("job") != bench.record()
    store._records["job"] = replace(bench.record(), epoch=3)
    assert bench.ledger.newest("job") is bench.record()
    del store._records["job"]
    assert bench.ledger.newest("job") is not None
    await asyncio.sleep(2)


@virtual
async def test_closing_while_the_store_is_opened_leaves_nothing_behind() -> None:
    """What is opened by an engine that was closed meanwhile neither lives a job, nor settles what is owed."""
    bench, _ = bench_of()
    bench.enter(response_id="resp_1")
    bench.enter("stopped", **stopped())
    opening = asyncio.ensure_future(bench.open())
    await asyncio.sleep(0.5)
    await bench.engine.close(0)
    await opening
    await asyncio.sleep(100)
    assert not bench.remote.counts
    assert not bench.engine._lives
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_many_jobs_are_taken_up_bit_by_bit() -> None:
    """The loop breathes while many jobs are taken up."""
    bench, _ = bench_of(seconds=0.01)
    for number in range(450):
        bench.enter(f"job-{number}", response_id=f"resp_{number}")
    await bench.open()
    assert len(bench.engine.expected) == 200
    await asyncio.sleep(1)
    assert (len(bench.engine.expected), len(bench.engine._lives)) == (0, 450)
    await bench.engine.close(5)


@virtual
@pytest.mark.parametrize("trouble", [None, DISK_FULL])
async def test_an_end_elsewhere_that_comes_as_we_write_is_told_once(trouble: StoreError | None) -> None:
    """Where a job ended elsewhere while it is being written here, waiters are told, and nobody is called."""
    bench, store = await taken_up(response_id="resp_1", sent_at=1.0)
    await asyncio.sleep(0.5)
    ended = bench.record().apply(News(Event.CANCELLED), now())
    store.seconds, store.trouble = 1, trouble
    waiter = asyncio.ensure_future(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    bench.ledger.note("job", waiting="connection") if trouble else bench.ledger.apply("job", ANSWERED)
    store.elsewhere.add("job")
    store._records["job"] = ended
    store.tell("job")
    await asyncio.sleep(3)
    assert waiter.done()
    assert waiter.result().status is JobStatus.CANCELLED
    assert bench.ended == []
    assert not bench.ledger._missed
