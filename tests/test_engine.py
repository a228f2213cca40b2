"""What is promised of all jobs of a loop together: where they live, what `cancel` tells, how `close` ends."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import Any

import pytest

from o3pro_bg._engine import CancelVerdict
from o3pro_bg._records import Failure
from o3pro_bg._states import JobStatus
from o3pro_bg.errors import JobNotFound, WrongThread
from o3pro_bg.testing import Trouble, VirtualLoop, run_virtual
from tests.virtual import Bench, Recorder, now, trouble, virtual


def test_an_engine_lives_on_one_loop() -> None:
    """
    Run, cancel and claim on a second loop raise WrongThread, and change nothing.

    The naive way shares one client between the loops, which ends in a bare RuntimeError of the transport.
    """
    bench: Bench

    async def first() -> None:
        nonlocal bench
        bench = Bench()
        bench.start()
        await bench.end()
        bench.enter("second")

    async def second() -> None:
        with pytest.raises(WrongThread, match="one AsyncBackgroundHandler per loop"):
            await bench.engine.run("second")
        with pytest.raises(WrongThread):
            await bench.engine.cancel("second")
        with pytest.raises(WrongThread):
            bench.ledger.claim_loop()

    run_virtual(first)
    run_virtual(second)
    assert bench.record("second").status is JobStatus.STARTED
    assert bench.remote.counts["create"] == 1


def test_the_clock_of_the_ledger_is_that_of_the_loop() -> None:
    """From the first use on, times are the loop's, so that virtual time holds for records too."""
    loop = VirtualLoop()
    loop.jump(1000)

    async def main() -> Bench:
        bench = Bench()
        bench.start()
        await bench.end()
        return bench

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        record = runner.run(main()).record()
    assert record.started == 1000
    assert record.ended == pytest.approx(1061, abs=5)


@virtual
async def test_the_remote_is_made_once_however_many_jobs_begin() -> None:
    """Jobs that begin together share one connect, however long it takes."""
    connects: list[float] = []
    remote = Recorder()

    async def connect() -> Recorder:
        connects.append(now())
        await asyncio.sleep(1)
        return remote

    bench = Bench(remote, connect=connect)
    for number in range(10):
        bench.start(f"job {number}")
    await asyncio.wait(bench.tasks.values())
    assert connects == [0]
    assert remote.counts["create"] == 10


@virtual
async def test_jobs_that_wait_for_a_connect_share_its_trouble() -> None:
    """A connect that fails has failed for all who wait for it; the next job makes another."""
    connects: list[float] = []
    remote = Recorder()

    async def connect() -> Recorder:
        connects.append(now())
        await asyncio.sleep(1)
        if len(connects) == 1:
            raise trouble(Trouble.REFUSED, "client")
        return remote

    bench = Bench(remote, connect=connect)
    for number in range(10):
        bench.start(f"job {number}")
    await asyncio.wait(bench.tasks.values())
    bench.start("later")
    await bench.end("later")
    assert connects == [0, 1]
    assert {bench.record(f"job {number}").status for number in range(10)} == {JobStatus.FAILED}
    assert bench.record("later").status is JobStatus.COMPLETED


@virtual
async def test_a_connect_outlives_the_job_that_began_it() -> None:
    """Whoever waits for a connect gets it, though the job that was the first to need it was cancelled meanwhile."""
    connects: list[float] = []
    remote = Recorder()

    async def connect() -> Recorder:
        connects.append(now())
        await asyncio.sleep(5)
        return remote

    bench = Bench(remote, connect=connect)
    bench.start("first")
    bench.start("second")
    await asyncio.sleep(1)
    assert await bench.engine.cancel("first") is CancelVerdict.CONFIRMED
    await bench.end("second")
    assert connects == [0]
    assert bench.record("second").status is JobStatus.COMPLETED


@virtual
async def test_a_connect_that_wants_to_end_the_process_fails_its_jobs() -> None:
    """A SystemExit in the making of a client is a failure of the jobs that wait for it, and the loop goes on."""

    async def connect() -> Recorder:
        await asyncio.sleep(1)
        raise SystemExit(3)

    bench = Bench(connect=connect)
    bench.start("one")
    bench.start("two")
    assert [(await bench.end(name)).failure for name in ("one", "two")] == [Failure("internal", "SystemExit")] * 2


@virtual
async def test_a_connect_does_not_outlive_the_close() -> None:
    """What is being connected as the engine closes is given up."""
    ended: list[float] = []

    async def connect() -> Recorder:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(now())
        raise AssertionError

    bench = Bench(connect=connect)
    bench.start()
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert ended == [1]


@virtual
async def test_jobs_that_wait_for_a_connect_are_woken_together() -> None:
    """Two hundred jobs begin within sixty turns of the loop, and not each in a turn of its own."""
    remote, begun = Recorder(), list[int]()

    async def connect() -> Recorder:
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(look_on, 60)
        return remote

    def look_on(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(look_on, turns - 1)
        else:
            begun.append(remote.counts["create"])

    bench = Bench(remote, connect=connect, max_in_flight=200)
    for number in range(200):
        bench.start(f"job {number}")
    await asyncio.wait(bench.tasks.values())
    assert begun == [200]


@virtual
async def test_the_defaults_are_those_that_are_documented() -> None:
    """Where nothing is set, 64 requests are under way at the most, and what is denied for 30 s is lost."""
    shared = Bench().engine._shared
    assert (shared.max_in_flight, shared.lost_after) == (64, 30.0)


@virtual
async def test_close_without_a_job_connects_nowhere() -> None:
    """An engine that was never used closes at once, and needs no remote for it."""
    bench = Bench()
    await bench.engine.close(5)
    assert not bench.remote.is_closed
    assert now() == 0


@virtual
async def test_a_second_close_has_nothing_to_do() -> None:
    """Closing twice is closing once."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    await bench.engine.close(5)
    counts = dict(bench.remote.counts)
    await bench.engine.close(5)
    assert bench.remote.counts == counts


@pytest.mark.parametrize("fault", [OSError("reset"), None], ids=["raises", "hangs"])
@virtual
async def test_close_outlives_a_remote_that_does_not_close(fault: OSError | None) -> None:
    """Connections that fail to close, or hang in it, hold it up for a second at the most."""

    class Stubborn(Recorder):
        async def aclose(self) -> None:
            if fault is not None:
                raise fault
            await asyncio.Event().wait()

    bench = Bench(Stubborn())
    bench.start()
    await bench.end()
    ended = now()
    await bench.engine.close(5)
    assert now() - ended <= 1


@virtual
async def test_close_closes_what_is_connected_meanwhile() -> None:
    """A connect that answers in spite of its cancellation leaves no connections open."""
    remote = Recorder()

    async def connect() -> Recorder:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        await asyncio.sleep(0.5)
        return remote

    bench = Bench(connect=connect)
    bench.start()
    await asyncio.sleep(1)
    await bench.engine.close(0)
    assert remote.is_closed


@virtual
async def test_close_outlives_a_connect_that_goes_on() -> None:
    """A connect that swallows its cancellation holds `close` up for a second, not for ever."""

    async def connect() -> Recorder:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        await asyncio.sleep(100)
        raise OSError

    bench = Bench(connect=connect)
    bench.start()
    await asyncio.sleep(1)
    begun = now()
    await bench.engine.close(0)
    assert now() - begun <= 1
    await asyncio.sleep(1000)


@virtual
async def test_close_outlives_a_task_that_cannot_be_cancelled() -> None:
    """A remote that swallows its cancellation holds `close` up for a second, not for ever."""

    class Deaf(Recorder):
        async def look(self, response_id: str) -> None:  # type: ignore[override]
            while True:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    if now() > 1000:
                        raise

    bench = Bench(Deaf())
    bench.start()
    await asyncio.sleep(3)
    await bench.engine.close(5)
    assert now() == 9
    await asyncio.sleep(1000)
    bench.tasks["job"].cancel()


@virtual
async def test_waiters_wake_at_the_close_whatever_became_of_their_job() -> None:
    """Everyone who waits for a job of a detached handler is told how far it was."""
    bench = Bench(cancel_on_close=False)
    bench.start()
    waiters = [asyncio.create_task(bench.ledger.wait("job")) for _ in range(3)]
    await asyncio.sleep(3)
    await bench.engine.close(5)
    assert {record.status for record in await asyncio.gather(*waiters)} == {JobStatus.RUNNING}
    assert now() == 3


@virtual
async def test_a_cancel_after_the_close_asks_nobody() -> None:
    """The engine is gone: it is too late, at once, and no request leaves."""
    bench = Bench(cancel_on_close=False)
    bench.start()
    await asyncio.sleep(3)
    await bench.engine.close(5)
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    assert bench.remote.counts["cancel"] == 0
    assert now() == 3


@virtual
async def test_a_caller_of_cancel_is_told_at_the_close() -> None:
    """A cancel that nobody confirms does not outlast the engine."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(3)
    bench.remote.script["cancel"] = [trouble(Trouble.UNSENT)] * 100
    bench.remote.script["look"] = [trouble(Trouble.UNSENT)] * 100
    verdict = asyncio.create_task(bench.engine.cancel("job"))
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert await verdict is CancelVerdict.TOO_LATE
    assert now() <= 10


@virtual
async def test_an_unknown_job_cannot_be_run() -> None:
    """A run without a record ends, and leaves no record behind."""
    bench = Bench()
    await bench.engine.run("nobody")
    with pytest.raises(JobNotFound):
        bench.record("nobody")
    assert not bench.remote.counts


@virtual
async def test_a_job_that_was_removed_before_its_task_began_is_over() -> None:
    """A job that was cancelled and removed before its task began sends nothing and raises nothing."""
    bench = Bench()
    task = bench.start()
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    bench.store.remove("job")
    await task
    bench.enter("other")
    bench.store.remove("other")
    await bench.engine.run("other", print)
    assert not bench.remote.counts


@virtual
async def test_then_is_called_once_the_job_has_ended() -> None:
    """What `run` was given is called once: at the end, at once where the job is gone, never where it is let go."""
    called: list[str] = []
    bench = Bench(cancel_on_close=False)
    for job_id in ("job", "gone", "let go"):
        bench.enter(job_id)
    bench.store.remove("gone")
    tasks = [
        asyncio.create_task(bench.engine.run(job_id, lambda job_id=job_id: called.append(job_id)))  # type: ignore[misc]
        for job_id in ("job", "gone")
    ]
    await asyncio.wait(tasks)
    letting_go = asyncio.create_task(bench.engine.run("let go", lambda: called.append("let go")))
    await asyncio.sleep(5)
    await bench.engine.close(1)
    await asyncio.wait([letting_go])
    assert called == ["gone", "job"]


@virtual
async def test_the_next_look_is_told() -> None:
    """The engine tells in how many seconds it asks about a job again; None where it does not live it, or asks now."""
    bench = Bench(Recorder(latency=1.0))
    bench.start()
    assert bench.engine.next_look("job") is None, "it has not begun to live it"
    await asyncio.sleep(0.5)
    assert bench.engine.next_look("job") is None, "the question is under way"
    await asyncio.sleep(1)
    assert 0 < (bench.engine.next_look("job") or 0) <= 15
    await bench.end()
    assert bench.engine.next_look("job") is None


@virtual
async def test_close_gives_what_runs_in_the_background_a_second() -> None:
    """Callbacks that have begun are waited for, but not for ever."""
    ends: list[str] = []

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ends.append(f"after {seconds} s")

    bench = Bench()
    bench.engine.background(work(0.5))
    bench.engine.background(work(5))
    await bench.engine.close(0)
    assert (ends, now()) == (["after 0.5 s"], 1)


@virtual
async def test_close_waits_for_what_the_last_ends_call_back() -> None:
    """A callback of a job that ends by the close itself has its second, too."""
    ends: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.5)
        ends.append("done")

    bench = Bench()
    bench.enter()
    bench.engine.expected.add("job")
    bench.engine.when_ended("job", lambda: bench.engine.background(work()))
    await bench.engine.close(0)
    assert (ends, now()) == (["done"], 0.5)


@virtual
async def test_a_client_that_fails_when_nobody_waits_any_more_is_no_complaint() -> None:
    """Where all jobs are cancelled while the client is made, that it could not be made troubles nobody."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def connect() -> Any:
        await asyncio.sleep(1)
        raise trouble(Trouble.REFUSED, "client")

    bench = Bench(connect=connect)
    bench.start()
    await asyncio.sleep(0.5)
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    await asyncio.sleep(1)
    gc.collect()
    assert not complaints


@virtual
async def test_nothing_is_left_of_jobs_that_have_ended() -> None:
    """Whatever became of a job and of who waited for it, no table holds anything of it afterwards."""
    bench = Bench()
    bench.remote.script["create"] = [None, None, None, trouble(Trouble.REFUSED)]
    bench.engine.background(asyncio.sleep(1))
    for job_id in ("completed", "cancelled", "obstinate", "failed", "not sent"):
        bench.start(job_id)
    assert await bench.engine.cancel("not sent") is CancelVerdict.CONFIRMED
    await asyncio.sleep(5)
    with pytest.raises(TimeoutError):
        await bench.ledger.wait("completed", 0.1)
    assert await bench.engine.cancel("cancelled") is CancelVerdict.CONFIRMED
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)]
    assert await bench.engine.cancel("obstinate") is CancelVerdict.REFUSED
    await asyncio.wait(bench.tasks.values())
    ledger, engine = bench.ledger, bench.engine
    assert not any((ledger._ends, ledger._refusals, ledger._drafts, ledger._wishes, ledger._missed))
    assert not any((engine._lives, engine._take_backs, engine._background, engine.expected))
