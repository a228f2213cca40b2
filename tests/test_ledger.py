"""What is promised of the ledger: who is told of an end, what a wait does, which records go."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._records import News, Usage
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.errors import JobNotFound
from tests.virtual import Bench, now, virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from o3pro_bg._records import JobRecord

ANSWERED = News(Event.ANSWERED, answer="42")
no_time = pytest.mark.parametrize("timeout", [float("nan"), -1, -0.001, float("-inf")])


def bench_of(*job_ids: str, **settings: Any) -> Bench:
    """Answer a bench whose ledger holds these jobs, which only the test moves."""
    bench = Bench(**settings)
    for job_id in job_ids:
        bench.enter(job_id)
    return bench


def later(seconds: float, bench: Bench, job_id: str, news: News = ANSWERED) -> None:
    """Have these news arrive after so many seconds."""
    asyncio.get_running_loop().call_later(seconds, bench.ledger.apply, job_id, news)


async def collect(bench: Bench, *job_ids: str, timeout: float | None = None) -> list[tuple[str, float]]:
    """Answer the ids of the ends of these jobs, and when they came."""
    return [(job_id, now()) async for job_id, _ in await bench.ledger.ends_of(job_ids, timeout)]


# --- waiting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 10, 5.001, float("inf")])
@virtual
async def test_wait_answers_the_record_in_which_the_job_ends(timeout: float | None) -> None:
    """Every waiter gets the terminal record, at the moment of the end."""
    bench = bench_of("job")
    later(5, bench, "job")
    record = await bench.ledger.wait("job", timeout)
    assert now() == 5
    assert record is bench.record()
    assert record.status is JobStatus.COMPLETED


@pytest.mark.parametrize("timeout", [0, 3, 4.999])
@virtual
async def test_a_wait_that_runs_out_of_time_leaves_the_job_alone(timeout: float) -> None:
    """It raises TimeoutError on time, which names the job and says that it goes on; a second wait is as good."""
    bench = bench_of("job")
    later(5, bench, "job")
    with pytest.raises(TimeoutError, match=f"job job has not ended within {timeout} seconds; it goes on"):
        await bench.ledger.wait("job", timeout)
    assert now() == timeout
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
    assert now() == 5


@virtual
async def test_a_wait_of_no_time_is_enough_for_a_job_that_has_ended() -> None:
    """A timeout of 0 answers what is there."""
    bench = bench_of("job")
    bench.ledger.apply("job", ANSWERED)
    assert (await bench.ledger.wait("job", 0)).answer == "42"


@no_time
@virtual
async def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    """
    NaN and negative seconds raise ValueError, for a job that has ended, too.

    A naive NaN goes to the head of the loop's timers, and none behind it fires any more.
    """
    bench = bench_of("job")
    for _ in range(2):
        with pytest.raises(ValueError, match="seconds"):
            await bench.ledger.wait("job", timeout)
        with pytest.raises(ValueError, match="seconds"):
            await collect(bench, "job", timeout=timeout)
        bench.ledger.apply("job", ANSWERED)


async def _wait(bench: Bench) -> None:
    await bench.ledger.wait("nobody")


async def _end_of(bench: Bench) -> None:
    bench.ledger.end_of("nobody")


async def _record(bench: Bench) -> None:
    bench.ledger.record("nobody")


@pytest.mark.parametrize("ask", [_wait, _end_of, _record])
@virtual
async def test_an_unknown_job_raises_at_once(ask: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """JobNotFound carries the id that was asked for."""
    with pytest.raises(JobNotFound) as caught:
        await ask(bench_of("job"))
    assert caught.value.job_id == "nobody"


@virtual
async def test_an_unknown_job_calls_back_with_none() -> None:
    """Soon, as for a job that has ended; unless the callback is taken back."""
    bench = bench_of("job")
    called: list[JobRecord | None] = []
    bench.ledger.when_ended("nobody", called.append)
    bench.ledger.when_ended("nobody", called.append)()
    assert called == []
    await asyncio.sleep(0)
    assert called == [None]


# --- ends_of -----------------------------------------------------------------------------------------------


@virtual
async def test_ends_answers_in_the_order_of_the_ends() -> None:
    """Each record comes when its job ends; a job named twice comes once; what has ended already comes first."""
    bench = bench_of("slow", "quick", "before", "middle")
    bench.ledger.apply("before", ANSWERED)
    for seconds, job_id in [(9, "slow"), (1, "quick"), (5, "middle")]:
        later(seconds, bench, job_id)
    assert await collect(bench, "slow", "quick", "slow", "before", "middle", "quick") == [
        ("before", 0),
        ("quick", 1),
        ("middle", 5),
        ("slow", 9),
    ]


@virtual
async def test_ends_keeps_the_order_of_ends_in_one_moment() -> None:
    """Jobs that end in the same turn of the loop come in the order in which they ended."""
    ids = [f"job {number}" for number in range(20)]
    bench = bench_of(*ids)
    iteration = asyncio.create_task(collect(bench, *ids))
    await asyncio.sleep(1)
    for job_id in reversed(ids):
        bench.ledger.apply(job_id, ANSWERED)
    assert await iteration == [(job_id, 1) for job_id in reversed(ids)]


@virtual
async def test_ends_of_an_unknown_job_is_none() -> None:
    """An id that is not there stops nobody: its end is there at once, and holds no record."""
    bench = bench_of("job")
    ends = await bench.ledger.ends_of(["job", "nobody"])
    assert await anext(ends) == ("nobody", None)
    later(1, bench, "job")
    assert await anext(ends) == ("job", await bench.ledger.wait("job"))


@virtual
async def test_ends_are_watched_from_the_first_moment() -> None:
    """A job that ends, and is removed, before anybody asks for it is answered all the same."""
    bench = bench_of("job")
    ends = await bench.ledger.ends_of(["job"])
    bench.ledger.apply("job", ANSWERED)
    bench.store.remove("job")
    assert [(job_id, record and record.answer) async for job_id, record in ends] == [("job", "42")]


@virtual
async def test_ends_that_are_given_up_leave_nothing_behind() -> None:
    """Who asks again and again with a time-out does not pile up callbacks on the jobs."""
    bench = bench_of("job")
    for _ in range(10):
        ends = await bench.ledger.ends_of(["job"], 1)
        with pytest.raises(TimeoutError):
            await anext(ends)
        await ends.aclose()
    assert not bench.ledger.end_of("job")._callbacks


@virtual
async def test_ends_of_nothing_is_empty() -> None:
    """No jobs, no waiting."""
    assert await collect(bench_of()) == []


@virtual
async def test_ends_tells_how_many_are_missing() -> None:
    """Its timeout is one for all; the message counts what is left, and the jobs go on."""
    bench = bench_of("a", "b", "c")
    for seconds, job_id in [(2, "a"), (7, "b"), (8, "c")]:
        later(seconds, bench, job_id)
    records = await bench.ledger.ends_of(["a", "b", "c"], 5)
    assert (await anext(records))[0] == "a"
    with pytest.raises(TimeoutError, match="2 of 3 jobs have not ended in time; they go on"):
        await anext(records)
    assert now() == 5
    assert (await bench.ledger.wait("c")).status is JobStatus.COMPLETED


@virtual
async def test_ends_of_no_time_answers_what_has_ended() -> None:
    """
    A timeout of 0 answers the ended jobs, and only then raises.

    The naive way races the timer against the callbacks of the ends, and loses answers that were there.
    """
    bench = bench_of("a", "b", "c")
    bench.ledger.apply("a", ANSWERED)
    bench.ledger.apply("b", ANSWERED)
    assert await collect(bench, "a", "b", timeout=0) == [("a", 0), ("b", 0)]
    with pytest.raises(TimeoutError, match="1 of 3 jobs"):
        await collect(bench, "a", "b", "c", timeout=0)


@virtual
async def test_an_iteration_that_is_given_up_harms_nothing() -> None:
    """Whoever stops asking leaves the ledger in order, and the ends still come."""
    bench = bench_of("a", "b")
    records = await bench.ledger.ends_of(["a", "b"])
    later(1, bench, "a")
    assert (await anext(records))[0] == "a"
    del records
    later(1, bench, "b")
    assert (await bench.ledger.wait("b")).status is JobStatus.COMPLETED


# --- callbacks --------------------------------------------------------------------------------------------------


@virtual
async def test_callbacks_come_on_the_loop_with_the_record_of_the_end() -> None:
    """Each is called once, soon after the end, before or after it is registered; late news call nobody."""
    bench = bench_of("job")
    called: list[JobRecord | None] = []
    bench.ledger.when_ended("job", called.append)
    bench.ledger.apply("job", ANSWERED)
    assert called == []
    bench.ledger.when_ended("job", called.append)
    bench.ledger.apply("job", News(Event.ERRORED))
    await asyncio.sleep(0)
    assert called == [bench.record()] * 2


# --- news -------------------------------------------------------------------------------------------------------


@virtual
async def test_news_of_an_unknown_job_are_dropped() -> None:
    """News, notes and cancels of a job that is not held, or no longer, make no record."""
    bench = bench_of("job")
    bench.store.remove("job")
    bench.ledger.apply("job", ANSWERED)
    bench.ledger.note("job", waiting="denied")
    bench.ledger.note_cancel("job")
    assert bench.store.snapshot() == []


@virtual
async def test_a_job_that_is_removed_while_news_arrive_stays_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal by another thread, between the read and the write, wins."""
    bench = bench_of("job")
    before, get = bench.record(), bench.store.get

    def get_and_lose(job_id: str) -> JobRecord | None:
        record = get(job_id)
        bench.store.remove(job_id)
        return record

    monkeypatch.setattr(bench.store, "get", get_and_lose)
    bench.ledger.apply("job", ANSWERED)
    bench.store.insert(before)
    bench.ledger.note("job", waiting="denied")
    assert bench.store.snapshot() == []


@virtual
async def test_late_usage_is_booked_on_a_record_that_has_ended() -> None:
    """Late news of a cancelled job keep its status, its end and its times, and book the usage."""
    bench = bench_of("job")
    bench.ledger.apply("job", News(Event.CANCELLED))
    ended = bench.record().ended
    await asyncio.sleep(5)
    bench.ledger.apply("job", News(Event.ANSWERED, answer="late", usage=Usage(3, 4)))
    record = bench.record()
    assert (record.status, record.ended, record.answer) == (JobStatus.CANCELLED, ended, None)
    assert record.usage == Usage(3, 4)


@virtual
async def test_why_a_job_waits_is_noted_until_it_ends() -> None:
    """A note replaces the one before; the same note, or one for an ended job, writes nothing."""
    bench = bench_of("job")
    bench.ledger.note("job", waiting="connection")
    noted = bench.record()
    bench.ledger.note("job", waiting="connection")
    assert bench.record() is noted
    bench.ledger.note("job", waiting="rate_limit")
    assert bench.record().waiting == "rate_limit"
    bench.ledger.apply("job", ANSWERED)
    bench.ledger.note("job", waiting="rate_limit")
    assert bench.record().waiting == ""


@virtual
async def test_the_first_wish_to_cancel_is_the_one_that_is_noted() -> None:
    """Later cancels keep the moment of the first."""
    bench = bench_of("job")
    bench.ledger.note_cancel("job")
    first = bench.record()
    assert first.cancel_requested_at is not None
    bench.ledger.note_cancel("job")
    assert bench.record() is first


# --- retain -----------------------------------------------------------------------------------------------------


@virtual
async def test_without_retain_everything_stays() -> None:
    """Ended jobs stay until they are removed."""
    bench = bench_of("a", "b")
    bench.ledger.apply("a", ANSWERED)
    await asyncio.sleep(1_000_000)
    assert [record.job_id for record in bench.store.snapshot()] == ["a", "b"]


@virtual
async def test_retain_keeps_the_newest_ended_jobs() -> None:
    """Of the ended jobs the last ones to end are kept; jobs under way do not count, waiters are told before."""
    bench = bench_of("a", "b", "c", "running", retain=2)
    waiter = asyncio.create_task(bench.ledger.wait("c"))
    await asyncio.sleep(0)
    for job_id in ("c", "a", "b"):
        bench.ledger.apply(job_id, ANSWERED)
    assert [record.job_id for record in bench.store.snapshot()] == ["a", "b", "running"]
    assert (await waiter).answer == "42"


@virtual
async def test_retain_keeps_ended_jobs_for_a_time() -> None:
    """Each ended job goes when its time is over; jobs under way stay."""
    bench = bench_of("a", "b", retain=timedelta(seconds=10))
    later(1, bench, "a")
    await asyncio.sleep(10.9)
    assert len(bench.store.snapshot()) == 2
    await asyncio.sleep(0.2)
    assert [record.job_id for record in bench.store.snapshot()] == ["b"]


@virtual
async def test_a_removed_job_is_not_resurrected_by_late_news() -> None:
    """What retain has let go stays gone, whatever arrives of it."""
    bench = bench_of("a", "b", retain=1)
    bench.ledger.apply("a", News(Event.CANCELLED))
    bench.ledger.apply("b", ANSWERED)
    bench.ledger.apply("a", News(Event.ANSWERED, usage=Usage(1, 2)))
    assert [record.job_id for record in bench.store.snapshot()] == ["b"]


@virtual
async def test_retain_by_age_spares_a_job_that_was_taken_up_again() -> None:
    """The same holds where ended jobs are kept for a time."""
    bench = bench_of("a", retain=timedelta(seconds=10))
    bench.ledger.apply("a", ANSWERED)
    bench.store.remove("a")
    bench.enter("a", response_id="resp_a")
    await asyncio.sleep(11)
    assert [record.job_id for record in bench.store.snapshot()] == ["a"]


@virtual
async def test_retain_spares_a_job_that_was_taken_up_again() -> None:
    """A job that was removed by hand and taken up again is under way, and is not let go for its former end."""
    bench = bench_of("a", "b", "c", retain=1)
    bench.ledger.apply("a", ANSWERED)
    bench.store.remove("a")
    bench.enter("a", response_id="resp_a")
    bench.ledger.apply("b", ANSWERED)
    bench.ledger.apply("c", ANSWERED)
    assert [record.job_id for record in bench.store.snapshot()] == ["c", "a"]


# --- close ------------------------------------------------------------------------------------------------------


@virtual
async def test_close_wakes_whoever_waits() -> None:
    """Waiters before and after the close get the record as it is; so do iterations and callbacks."""
    bench = bench_of("job", "other")
    called: list[JobRecord | None] = []
    bench.ledger.when_ended("job", called.append)
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    iteration = asyncio.create_task(collect(bench, "job", "other"))
    await asyncio.sleep(1)
    await bench.ledger.close(1)
    assert await waiter is await bench.ledger.wait("job", 0) is bench.record()
    assert await iteration == [("job", 1), ("other", 1)]
    assert called == [bench.record()]
    assert not bench.record().status.is_terminal


@virtual
async def test_close_passes_over_jobs_that_were_removed() -> None:
    """A job that is gone has nobody to be told; the others are."""
    bench = bench_of("gone", "job")
    bench.ledger.end_of("gone")
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await asyncio.sleep(0)
    bench.store.remove("gone")
    await bench.ledger.close(1)
    assert await waiter is bench.record()
