"""What the asynchronous face promises beside the common suite: the caller's own loop, and nothing else."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.responses import StreamingResponse

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, JobCancelled, Pace, WrongThread
from o3pro_bg.testing import FakeClient, FakeRemote, run_virtual

from .faces import FOREVER, QUICK, came_true, fake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from o3pro_bg import AsyncJob


async def test_it_starts_no_thread() -> None:
    """A job's whole life happens on the caller's loop: no thread is started."""
    before = set(threading.enumerate())
    async with AsyncBackgroundHandler(fake(), pace=QUICK) as handler:
        assert await (await handler.submit("q"))
        assert not set(threading.enumerate()) - before


async def test_start_answers_before_any_traffic() -> None:
    """`start_background_task` answers before the first request is made."""
    client = fake()
    async with AsyncBackgroundHandler(client, pace=QUICK) as handler:
        assert (await handler.start_background_task("q"))["success"]
        assert client.remote.counts.total() == 0


async def test_awaiting_a_job_answers_its_result() -> None:
    """A handle can be awaited, by several tasks and more than once."""
    async with AsyncBackgroundHandler(fake(), pace=QUICK) as handler:
        job = await handler.submit("q")
        first, second = await asyncio.gather(job, job)
        assert first == second == await job


def test_the_next_look_is_told() -> None:
    """A handle tells in how many seconds the service is asked again, as long as that is planned."""

    async def main() -> None:
        pace = Pace(floor=10, ceiling=10)
        async with AsyncBackgroundHandler(FakeClient(FakeRemote(seconds=30)), pace=pace) as handler:
            job = await handler.submit("q")
            assert job.next_look is None, "it has not left yet"
            await asyncio.sleep(1)
            planned = job.next_look
            assert planned is not None
            assert 0 < planned <= 10
            await asyncio.sleep(planned / 2)
            assert job.next_look == pytest.approx(planned / 2)
            await job
            assert job.next_look is None

    run_virtual(main)


@pytest.mark.parametrize("how", ["wait_for", "asyncio.timeout", "task.cancel", "TaskGroup", "anyio scope"])
async def test_a_cancelled_waiter_leaves_the_job_alone(how: str) -> None:
    """Cancelling whoever awaits a job, in whatever way, neither cancels the job nor loses its answer."""
    client = fake(seconds=FOREVER)
    async with AsyncBackgroundHandler(client, pace=QUICK) as handler:
        job = await handler.submit("q")
        if how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(job.result(), 0.02)
        elif how == "asyncio.timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await handler.wait_all([job.id])
        elif how == "task.cancel":
            task = asyncio.ensure_future(handler.wait(job.id))
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "TaskGroup":
            with pytest.raises(ExceptionGroup):
                await _wait_beside_a_failure(job)
        else:
            with anyio.move_on_after(0.02) as scope:
                await job
            assert scope.cancelled_caught
        assert not job.done()
        client.remote.seconds = 0.0
        assert (await job).startswith("fake answer")
    assert client.remote.counts["cancel"] == 0


async def _wait_beside_a_failure(job: AsyncJob) -> None:
    async def fail() -> None:
        raise ValueError("another task")

    async with asyncio.TaskGroup() as group:
        group.create_task(job.wait())
        group.create_task(fail())


def test_another_loop_is_refused() -> None:
    """A handler used on a second loop raises WrongThread with the name of what to use; reading goes on."""
    handler = AsyncBackgroundHandler(fake(), pace=QUICK)

    async def use() -> str:
        reply = await handler.start_background_task("q")
        await handler.wait(reply["job_id"])
        return reply["job_id"]

    job_id = asyncio.run(use())
    with pytest.raises(WrongThread, match="BackgroundHandler, which any thread"):
        asyncio.run(use())
    assert asyncio.run(handler.get_result(job_id))["success"]


def test_a_loop_that_ends_without_aclose_cancels() -> None:
    """When the loop ends and nobody closed the handler, its jobs are cancelled at the service."""
    client = fake(seconds=FOREVER)
    handler = AsyncBackgroundHandler(client, pace=QUICK)

    async def forgetful() -> str:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)
        return job.id

    job_id = asyncio.run(forgetful())
    assert client.remote.counts["cancel"] == 1
    assert handler.jobs[job_id]["status"] == "cancelled"


def test_a_loop_that_ends_detaches_where_asked() -> None:
    """The same with `on_close="detach"` leaves the service to work on."""
    client = fake(seconds=FOREVER)
    handler = AsyncBackgroundHandler(client, pace=QUICK, on_close="detach")

    async def forgetful() -> None:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)

    asyncio.run(forgetful())
    assert client.remote.counts["cancel"] == 0


@pytest.mark.parametrize("seconds", [0.0, FOREVER])
@pytest.mark.parametrize("on_close", ["cancel", "detach"])
def test_a_loop_that_ends_closes_the_connections(seconds: float, on_close: Any) -> None:
    """When the loop ends and nobody closed the handler, its connections are closed, with jobs under way or without."""
    client = fake(seconds=seconds)
    handler = AsyncBackgroundHandler(client, pace=QUICK, on_close=on_close)

    async def forgetful() -> None:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)
        assert not client.remote.is_closed

    asyncio.run(forgetful())
    assert client.remote.is_closed


def test_asyncio_run_twice() -> None:
    """A handler per `asyncio.run` over one client works each time."""
    client = fake()

    async def main() -> str:
        async with AsyncBackgroundHandler(client, pace=QUICK) as handler:
            return await (await handler.submit("q"))

    assert asyncio.run(main()).startswith("fake")
    assert asyncio.run(main()).startswith("fake")


async def test_a_callback_may_be_a_coroutine_function(caplog: pytest.LogCaptureFixture) -> None:
    """An asynchronous callback is run as a task; what it raises is logged."""
    seen: list[str] = []

    async def on_done(job: AsyncJob) -> None:
        seen.append(await job)
        raise ValueError("mine")

    async with AsyncBackgroundHandler(fake(), pace=QUICK, on_done=on_done) as handler:
        await (await handler.submit("q"))
        await came_true(lambda: caplog.records)
    assert seen[0].startswith("fake answer")
    assert "callback" in caplog.text


async def test_closing_that_is_interrupted_is_still_done() -> None:
    """Cancelling whoever closes does not stop the closing: the connections are closed, the next close waits for it."""
    client = fake(seconds=FOREVER)
    handler = AsyncBackgroundHandler(client, pace=QUICK)
    job = await handler.submit("q")
    await came_true(lambda: job.response_id)
    client.remote.latency = 0.2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handler.aclose(), 0.05)
    assert not client.remote.is_closed
    await handler.aclose()
    assert client.remote.is_closed
    assert job.status() == "cancelled"


async def test_another_loop_cannot_wait() -> None:
    """Waiting on a second loop for a job of the first raises WrongThread instead of waiting for ever."""
    async with AsyncBackgroundHandler(fake(seconds=FOREVER), pace=QUICK) as handler:
        job = await handler.submit("q")
        with pytest.raises(WrongThread):
            await asyncio.to_thread(lambda: asyncio.run(job.result()))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_send_nothing_before_the_id() -> None:
    """With an eager task factory too, a job's id is answered before its first request is made."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        client = fake()
        async with AsyncBackgroundHandler(client, pace=QUICK) as handler:
            for _ in range(2):
                before = client.remote.counts["create"]
                job = await handler.submit("q")
                assert client.remote.counts["create"] == before
                await job

    asyncio.run(main())


def test_hours_pass_in_virtual_time() -> None:
    """A job of three hours is looked at by the pace alone, and its times are those of the loop."""

    async def main() -> Any:
        client = FakeClient(FakeRemote(seconds=3 * 3600))
        async with AsyncBackgroundHandler(client) as handler:
            reply = await handler.start_background_task("q", "high")
            return await handler.wait(reply["job_id"]), client.remote.counts["look"]

    result, looks = run_virtual(main)
    assert 3 * 3600 <= result["total_time"] <= 3 * 3600 + 17
    assert looks < 900


async def test_cancel_of_an_awaited_job_raises_in_the_waiter() -> None:
    """Whoever awaits a job that somebody cancels gets JobCancelled, which is no CancelledError."""
    async with AsyncBackgroundHandler(fake(seconds=FOREVER), pace=QUICK) as handler:
        job = await handler.submit("q")
        waiter = asyncio.ensure_future(job.result())
        assert await job.cancel() is True
        with pytest.raises(JobCancelled):
            await waiter


async def test_a_sync_handler_may_be_used_beside_a_loop() -> None:
    """The verbs of the synchronous face that do not wait are fine inside a running loop, without a warning."""
    with BackgroundHandler(fake(), pace=QUICK) as handler:
        job_id = handler.start_background_task("q")["job_id"]
        await came_true(lambda: handler.check_status(job_id)["status"] == "completed")
        assert handler.get_result(job_id)["success"]
        await asyncio.to_thread(handler.close)


async def test_an_asynchronous_callback_ends_before_aclose_does() -> None:
    """Closing gives callbacks that have begun a second to end."""
    seen: list[str] = []

    async def on_done(_: AsyncJob) -> None:
        seen.append("begun")
        await asyncio.sleep(0.05)
        seen.append("done")

    async with AsyncBackgroundHandler(fake(seconds=FOREVER), pace=QUICK, on_done=on_done) as handler:
        await handler.submit("q")
    assert seen == ["begun", "done"]


async def test_a_task_cancelled_before_it_began_cancels_its_job() -> None:
    """A framework that cancels all tasks right after a start leaves a job that has ended, and nobody waiting."""
    async with AsyncBackgroundHandler(fake(), pace=QUICK) as handler:
        job = await handler.submit("q")
        for task in handler._tasks:
            task.cancel()
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(job.result(), 5)


async def test_another_loop_cannot_close() -> None:
    """Closing on another loop while jobs are under way raises WrongThread, and harms nothing."""
    async with AsyncBackgroundHandler(fake(seconds=FOREVER), pace=QUICK) as handler:
        job = await handler.submit("q")
        await asyncio.sleep(0)
        with pytest.raises(WrongThread):
            await asyncio.to_thread(lambda: asyncio.run(handler.aclose()))
        assert not job.done()


async def test_a_blocked_loop_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Where the application blocks its loop for more than a second, the log says so, and how to find what does."""
    async with AsyncBackgroundHandler(fake(), pace=QUICK) as handler:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)
        time.sleep(1.2)  # noqa: ASYNC251 - that is the mistake
        assert await job
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "seconds late: something blocks the event loop" in said
    assert "PYTHONASYNCIODEBUG=1" in said


VERBS: dict[str, Callable[[AsyncBackgroundHandler, AsyncJob], Coroutine[Any, Any, Any]]] = {
    "start_background_task": lambda handler, _: handler.start_background_task("another"),
    "submit": lambda handler, _: handler.submit("another"),
    "check_status": lambda handler, job: handler.check_status(job.id),
    "get_result": lambda handler, job: handler.get_result(job.id),
    "list_active_jobs": lambda handler, _: handler.list_active_jobs(),
    "cancel_job": lambda handler, job: handler.cancel_job(job.id),
    "wait": lambda handler, job: handler.wait(job.id),
    "wait_all": lambda handler, job: handler.wait_all([job.id]),
    "remove_job": lambda handler, job: handler.remove_job(job.id),
    "clear_finished": lambda handler, _: handler.clear_finished(delete_remote=True),
    "attach": lambda handler, _: handler.attach("resp_of_another"),
    "aclose": lambda handler, _: handler.aclose(0.1),
    "job.wait": lambda _, job: job.wait(),
    "job.result": lambda _, job: job.result(),
    "job.cancel": lambda _, job: job.cancel(),
}


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("verb", VERBS)
async def test_cancellation_is_never_swallowed(tmp_path: Path, verb: str, store: str) -> None:
    """Whoever cancels a task in whatever verb, at whichever of its steps, has it cancelled, if it had not ended."""
    settings: dict[str, Any] = {"store": tmp_path / "jobs.db", "on_close": "cancel"} if store == "file" else {}
    client = fake(seconds=FOREVER)
    async with AsyncBackgroundHandler(client, pace=QUICK, **settings) as handler:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)
        client.remote.latency = 0.01
        for steps in range(12):
            task = asyncio.ensure_future(VERBS[verb](handler, job))
            for _ in range(steps):
                await asyncio.sleep(0.001 if steps > 5 else 0)
            was_cancelled = task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.done()
            assert task.cancelled() == was_cancelled, task
        assert not job.done() or verb in ("cancel_job", "job.cancel", "aclose")


async def test_a_client_that_disconnects_leaves_the_job_alone() -> None:
    """An endpoint whose client goes away while it awaits a job is cancelled, and the job goes on to its answer."""
    remote = fake(seconds=FOREVER)
    async with AsyncBackgroundHandler(remote, pace=QUICK) as handler:
        job = await handler.submit("q")
        await came_true(lambda: job.response_id)
        left = asyncio.Event()
        cancelled: list[bool] = []

        async def answer() -> AsyncIterator[str]:
            try:
                yield await job.result()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def receive() -> dict[str, str]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            left.set()

        scope: Any = {"type": "http", "asgi": {"spec_version": "2.0"}}
        await StreamingResponse(answer())(scope, receive, send)
        assert cancelled == [True]
        assert not job.done()
        remote.remote.seconds = 0.0
        assert (await job).startswith("fake answer")
    assert remote.remote.counts["cancel"] == 0
