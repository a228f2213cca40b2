"""What the synchronous face promises beside the common suite: threads, and never a wait where none is due."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, HandlerClosed, JobCancelled, JobNotFound, WrongThread
from o3pro_bg.testing import FakeClient, FakeRemote

from .faces import FOREVER, QUICK, came_true, fake
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from o3pro_bg import Job
    from o3pro_bg.emulator import Emulator


def our_threads() -> int:
    """Count the loop threads of this process's handlers."""
    return sum(thread.name == "o3pro_bg" for thread in threading.enumerate())


@pytest.fixture
def handler() -> Iterator[BackgroundHandler]:
    """A handler whose jobs never end."""
    with BackgroundHandler(fake(seconds=FOREVER), pace=QUICK) as handler:
        yield handler


def block(handler: BackgroundHandler) -> threading.Event:
    """Block the handler's loop until the answered event is set."""
    blocked, release = threading.Event(), threading.Event()

    async def hold() -> None:
        blocked.set()
        release.wait(10)

    handler._portal.submit(hold)
    assert blocked.wait(5)
    return release


def test_the_thread_starts_with_the_first_job() -> None:
    """Making a handler, reading from it and closing it start no thread; the first job does, and close ends it."""
    before = our_threads()
    handler = BackgroundHandler(fake(), pace=QUICK)
    handler.check_status("nope")
    handler.cancel_job("nope")
    handler.wait_all()
    assert our_threads() == before
    handler.start_background_task("q")
    assert our_threads() == before + 1
    handler.close()
    assert our_threads() == before


def test_start_returns_before_any_traffic() -> None:
    """`start_background_task` answers while the way to the service is blocked, and the job is listed."""
    gate = threading.Event()

    class Blocked(FakeClient):
        async def connect(self) -> FakeRemote:
            gate.wait(10)
            return await super().connect()

    with BackgroundHandler(Blocked(FakeRemote(seconds=0.0)), pace=QUICK) as handler:
        job_id = handler.start_background_task("q")["job_id"]
        assert handler.check_status(job_id)["status"] == "started"
        assert handler.client.remote.counts["create"] == 0  # type: ignore[attr-defined]
        gate.set()
        assert handler.wait(job_id)["success"]


def test_verbs_that_do_not_wait_need_no_loop(handler: BackgroundHandler) -> None:
    """Starting and reading answer while the handler's loop is blocked."""
    job_id = handler.start_background_task("q")["job_id"]
    release = block(handler)
    try:
        assert handler.check_status(job_id)["success"]
        assert not handler.get_result(job_id)["success"]
        assert handler.start_background_task("another")["success"]
        assert len(handler.list_active_jobs()) == len(handler.jobs) == 2
        assert not handler.remove_job(job_id)["success"]
        assert not handler.job(job_id).done()
    finally:
        release.set()


def test_reads_cause_no_request(handler: BackgroundHandler) -> None:
    """However often it is asked, a status causes no request of its own."""
    client: Any = handler.client
    job_id = handler.start_background_task("q")["job_id"]
    release = block(handler)
    try:
        before = client.remote.counts.total()
        for _ in range(1000):
            handler.check_status(job_id)
            handler.get_result(job_id)
            handler.list_active_jobs()
        assert client.remote.counts.total() == before
    finally:
        release.set()


def test_any_thread_may_call() -> None:
    """Jobs started, read, waited for and removed from 20 threads at once all get their own answers."""
    with BackgroundHandler(fake(), pace=QUICK) as handler:

        def use(number: int) -> bool:
            job_id = handler.start_background_task(f"question {number}")["job_id"]
            result = handler.wait(job_id)
            right = result["question"] == f"question {number}" and result["success"]
            return bool(right and handler.remove_job(job_id)["success"])

        with ThreadPoolExecutor(20) as pool:
            assert all(pool.map(use, range(200)))
        assert handler.list_active_jobs() == []


def test_waiting_in_a_callback_works() -> None:
    """A callback runs in a worker thread, so it may wait for another job."""
    seen: list[str] = []
    over = threading.Event()

    with BackgroundHandler(fake(), pace=QUICK) as handler:

        def then(job: Job) -> None:
            seen.append(handler.submit("next").result(timeout=5))
            over.set()

        handler.submit("first").add_done_callback(then)
        assert over.wait(5)
    assert seen[0].startswith("fake answer")


def test_many_callbacks_may_wait_at_once() -> None:
    """Callbacks that wait for further jobs do not keep those jobs from their threads."""
    over = threading.Barrier(61, timeout=20)

    with BackgroundHandler(fake(), pace=QUICK) as handler:

        def then(_: Job) -> None:
            over.wait()  # until all sixty are inside a callback
            handler.submit("next").result(timeout=20)
            over.wait()

        for _ in range(60):
            handler.submit("first").add_done_callback(then)
        over.wait()
        over.wait()


def test_a_coroutine_function_is_no_callback(handler: BackgroundHandler) -> None:
    """A coroutine function as callback raises TypeError that names the face that takes it."""

    async def then(_: Job) -> None: ...

    with pytest.raises(TypeError, match="AsyncBackgroundHandler"):
        handler.submit("q").add_done_callback(then)


WAITING: dict[str, Callable[[BackgroundHandler, Job], object]] = {
    "wait": lambda handler, job: handler.wait(job.id),
    "wait_all": lambda handler, job: handler.wait_all([job.id]),
    "as_completed": lambda handler, job: next(handler.as_completed([job.id])),
    "cancel_job": lambda handler, job: handler.cancel_job(job.id),
    "job.wait": lambda _, job: job.wait(),
    "job.result": lambda _, job: job.result(),
    "job.cancel": lambda _, job: job.cancel(),
}


@pytest.mark.parametrize("verb", WAITING)
def test_waiting_on_the_loop_itself_is_refused(handler: BackgroundHandler, verb: str) -> None:
    """A waiting verb on the handler's own loop raises WrongThread, and names what to call, instead of waiting on."""
    job = handler.submit("q")

    async def mistake() -> None:
        WAITING[verb](handler, job)

    with pytest.raises(WrongThread, match="call it from another thread, or use check_status and get_result"):
        handler._portal.submit(mistake).result(5)


@pytest.mark.parametrize("where", ["its own loop", "another loop", "a callback", "a signal handler"])
@pytest.mark.parametrize("store", ["memory", "file"])
def test_verbs_that_do_not_wait_are_fine_anywhere(tmp_path: Path, where: str, store: str) -> None:
    """Starting, reading, removing and adding a callback work on whatever thread and loop, without a warning."""
    settings: dict[str, Any] = {"store": tmp_path / "jobs.db", "on_close": "cancel"} if store == "file" else {}
    told: list[Any] = []
    with BackgroundHandler(fake(), pace=QUICK, **settings) as handler:
        ended = handler.submit("ended")
        ended.wait(5)

        def use() -> None:
            job = handler.submit("q")
            job.add_done_callback(lambda _: None)
            told.extend([handler.check_status(job.id)["success"], handler.get_result(job.id)["status"], repr(handler)])
            told.extend([len(handler.list_active_jobs()), len(handler.jobs), handler.job(job.id).status()])
            told.append(handler.start_background_task("another")["success"])
            told.append(handler.remove_job(ended.id)["success"])

        async def awaited() -> None:
            use()

        if where == "its own loop":
            handler._portal.submit(awaited).result(5)
        elif where == "another loop":
            asyncio.run(awaited())
        elif where == "a callback":
            handler.submit("first").add_done_callback(lambda _: use())
            until(lambda: len(told) == 8)
        else:
            former = signal.signal(signal.SIGALRM, lambda *_: use())
            signal.raise_signal(signal.SIGALRM)
            signal.signal(signal.SIGALRM, former)
    assert (told[0], told[-2:]) == (True, [True, True])


@pytest.mark.parametrize("end", ["SystemExit", "its loop is stopped"])
@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_loop_that_dies_leaves_nobody_waiting(
    tmp_path: Path, end: str, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When its loop dies, who waits wakes up, every verb says that the handler is closed, and a new one works."""
    settings: dict[str, Any] = {"store": tmp_path / "jobs.db"} if store == "file" else {}
    handler = BackgroundHandler(fake(seconds=FOREVER), pace=QUICK, language="en", **settings)
    job = handler.submit("q")
    until(lambda: job.response_id)
    with ThreadPoolExecutor(2) as pool:
        result, reply = pool.submit(job.result), pool.submit(handler.wait, job.id)
        server = handler._portal._server
        assert server is not None
        until(lambda: len(handler._ledger._ends) == 1)

        async def exit_() -> None:
            raise SystemExit

        if end == "SystemExit":
            handler._portal.submit(exit_)
        else:
            server._loop.call_soon_threadsafe(server._loop.stop)
        with pytest.raises((HandlerClosed, JobCancelled)):
            result.result(10)
        assert not reply.result(10)["success"]
    server.thread.join(5)
    assert "the loop of a handler ended by" in caplog.text
    assert handler.check_status(job.id)["success"]
    assert not handler.get_result(job.id)["success"]
    assert len(handler.list_active_jobs()) == len(handler.jobs) == 1
    assert "closed" in handler.start_background_task("q")["error"]
    assert not handler.cancel_job(job.id)["success"]
    assert not handler.wait(job.id)["success"]
    assert {*handler.wait_all()} == {job.id}
    with pytest.raises(HandlerClosed):
        handler.submit("q")
    with pytest.raises(HandlerClosed):
        handler.attach("resp_1")
    handler.close()
    if store == "file":
        until(lambda: "o3pro_bg store" not in {thread.name for thread in threading.enumerate()})
    with BackgroundHandler(fake(), pace=QUICK, **settings) as another:
        assert another.submit("q").result(5).startswith("fake")


async def test_waiting_inside_another_loop_warns_once() -> None:
    """Inside a running loop a waiting verb works, and warns once that it blocks that loop."""
    with BackgroundHandler(fake(), pace=QUICK) as handler:
        with pytest.warns(RuntimeWarning, match="AsyncBackgroundHandler") as caught:
            assert handler.wait(handler.start_background_task("q")["job_id"])["success"]
        assert caught[0].filename == __file__
        assert handler.wait(handler.start_background_task("q")["job_id"])["success"]


def test_wait_wakes_when_the_handler_is_closed(handler: BackgroundHandler) -> None:
    """A thread that waits for a job is woken by `close`, with what became of the job."""
    job_id = handler.start_background_task("q")["job_id"]
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(handler.wait, job_id)
        handler.close()
        assert waiter.result(5)["status"] == "cancelled"


def test_cancel_of_a_job_of_a_closed_handler(handler: BackgroundHandler) -> None:
    """Cancelling where the handler let the job go says that the handler is closed."""
    detached = BackgroundHandler(fake(seconds=FOREVER), pace=QUICK, on_close="detach", language="en")
    job = detached.submit("q")
    asyncio.run(came_true(lambda: job.response_id))
    detached.close()
    assert detached.cancel_job(job.id)["error"] == "The handler is closed; make a new one"
    with pytest.raises(HandlerClosed):
        job.cancel()


def test_remove_while_waiting_to_cancel_is_not_found(handler: BackgroundHandler) -> None:
    """A handle of a job that was removed raises JobNotFound from every call."""
    job = handler.submit("q")
    handler.cancel_job(job.id)
    handler.remove_job(job.id)
    for call in (job.status, job.result, job.wait, job.cancel, job.continuation_token):
        with pytest.raises(JobNotFound):
            call()


def test_close_is_bounded_while_the_service_hangs() -> None:
    """Closing returns in bounded time though the service answers nothing, and says what is not known."""
    client = fake(seconds=FOREVER)
    handler = BackgroundHandler(client, pace=QUICK, language="en")
    job = handler.submit("q")
    asyncio.run(came_true(lambda: job.response_id))
    client.remote.latency = FOREVER
    closing = threading.Thread(target=handler.close, kwargs={"timeout": 0.2})
    closing.start()
    closing.join(8)
    assert not closing.is_alive()
    result = handler.get_result(job.id)
    assert (result["status"], "before the service confirmed" in result["error"]) == ("failed", True)


def test_both_faces_in_one_process() -> None:
    """A synchronous handler serves a thread while an asynchronous one serves a loop, over the same client."""
    client = fake()

    async def main(sync: BackgroundHandler) -> None:
        async with AsyncBackgroundHandler(client, pace=QUICK) as handler:
            job = await handler.submit("q")
            other = await asyncio.to_thread(sync.submit, "q")
            assert (await job).startswith("fake")
            assert (await asyncio.to_thread(other.result)).startswith("fake")

    with BackgroundHandler(client, pace=QUICK) as sync:
        asyncio.run(main(sync))


SCRIPT = """
import sys, time
import httpx2
from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace
# No connection is kept open, so whatever is asked late has to look up the host's name once more.
unkept = lambda: httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
client = O3ProClient(O3ProConfig(auth="key"), http_client=unkept)
handler = BackgroundHandler(client, pace=Pace(floor=0.05, ceiling=0.05))
job = handler.submit("q", metadata={"emulator": "seconds=60 queued=0"})
while job.status() != "running": time.sleep(0.01)
print("running", flush=True)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit(3)", 3), ("raise ValueError('mine')", 1), ("job.wait()", -signal.SIGINT)],
)
def test_the_end_of_the_interpreter_cancels(o3pro_emulator: Emulator, ending: str, code: int) -> None:
    """However a script ends, it ends; the job is cancelled at the service and our thread prints nothing."""
    environment = {
        **os.environ,
        "AZURE_OPENAI_ENDPOINT": o3pro_emulator.endpoint.replace("127.0.0.1", "localhost"),
        "AZURE_OPENAI_API_KEY": o3pro_emulator.api_key,
    }
    process = subprocess.Popen(  # noqa: S603 - a script of this file
        [sys.executable, "-c", SCRIPT + ending],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        if code < 0:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert o3pro_emulator.counters()["cancels"] == 1
    # What is on standard error is the script's own: nothing at all, or one traceback of its main thread.
    told = [line for line in errors.splitlines() if line and not line.startswith(" ")]
    assert len(told) == (2 if code in (1, -signal.SIGINT) else 0), errors


def test_ctrl_c_in_a_wait_leaves_the_job_alone(handler: BackgroundHandler) -> None:
    """A wait that Ctrl-C ends raises KeyboardInterrupt; the job goes on, and can be waited for and cancelled again."""
    job_id = handler.start_background_task("q")["job_id"]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            handler.wait(job_id)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert handler.check_status(job_id)["status"] in ("started", "running")
    assert handler.cancel_job(job_id)["success"]


def test_a_signal_handler_may_call_any_verb(handler: BackgroundHandler) -> None:
    """A signal handler that calls a verb while its thread is inside one does not wait for itself."""
    job_id = handler.start_background_task("q")["job_id"]
    calls = 0

    def on_alarm(*_: object) -> None:
        nonlocal calls
        calls += 1
        handler.list_active_jobs()
        handler.check_status(job_id)

    former = signal.signal(signal.SIGALRM, on_alarm)
    try:
        while calls < 100:
            before = calls
            signal.setitimer(signal.ITIMER_REAL, 0.0003)  # once: it must not overtake its own handler
            handler.start_background_task("another")
            while calls == before:
                handler.check_status(job_id)
                handler.list_active_jobs()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert handler.check_status(job_id)["success"]


def test_callbacks_share_a_bounded_number_of_threads() -> None:
    """Jobs that end together do not start a thread each: at most 64 callbacks run at once, and all come."""
    lock, over = threading.Lock(), threading.Event()
    running = most = done = 0

    def slow(_: Job) -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)  # long enough for the others to come
        with lock:
            running -= 1
            done += 1
        if done == 300:
            over.set()

    with BackgroundHandler(fake(seconds=0.0), pace=QUICK, on_done=slow) as handler:
        for _ in range(300):
            handler.start_background_task("q")
        assert over.wait(20)
    assert most <= 64


def test_a_callback_comes_though_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker thread starts any more, the callback is called on the loop, and is not lost."""
    called = threading.Event()

    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("o3pro_bg.job.to_thread.run_sync", no_thread)
    with BackgroundHandler(fake(), pace=QUICK, on_done=lambda _: called.set()) as handler:
        handler.start_background_task("q")
        assert called.wait(5)


def test_a_job_that_is_removed_before_its_task_began_is_called_back() -> None:
    """A job that another thread ends and removes before the loop has seen it still calls back."""
    called = threading.Event()
    with BackgroundHandler(fake(), pace=QUICK, on_done=lambda _: called.set()) as handler:
        release = block(handler)
        handler._store.remove(handler.start_background_task("q")["job_id"])
        release.set()
        assert called.wait(5)


async def test_close_in_a_loop_closes_though_warnings_are_errors() -> None:
    """Closing inside a running loop warns after the closing has begun, so it is closed whatever the warning does."""
    before = our_threads()
    handler = BackgroundHandler(fake(seconds=FOREVER), pace=QUICK)
    handler.start_background_task("q")
    with pytest.raises(RuntimeWarning, match="blocks the event loop"):
        handler.close()
    await asyncio.to_thread(handler.close)
    assert our_threads() == before
    assert handler.list_active_jobs()[0]["status"] == "cancelled"


def test_attach_beside_a_close_raises_handler_closed(
    handler: BackgroundHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the handler closes while a job is attached, HandlerClosed is raised, and the job is not held."""

    def closed(*_: object) -> None:
        raise HandlerClosed("closed")

    monkeypatch.setattr(handler._portal, "submit", closed)
    with pytest.raises(HandlerClosed):
        handler.attach("resp_1")
    assert handler.list_active_jobs() == []


@pytest.mark.parametrize("when", ["before it is handed over", "afterwards"])
@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_start_that_is_interrupted_leaves_no_job_that_nobody_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, store: str
) -> None:
    """A job whose start Ctrl-C ends as it is handed to the loop is cancelled, and keeps nobody who waits for all."""
    settings: dict[str, Any] = {"store": tmp_path / "jobs.db"} if store == "file" else {}
    with BackgroundHandler(fake(seconds=FOREVER), pace=QUICK, **settings) as handler:
        submit = handler._portal.submit

        def interrupted(*args: Any) -> None:
            monkeypatch.setattr(handler._portal, "submit", submit)
            if when == "afterwards":
                submit(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(handler._portal, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            handler.submit("q")
        (reply,) = handler.wait_all(timeout=5).values()
        assert reply["status"] == "cancelled"
