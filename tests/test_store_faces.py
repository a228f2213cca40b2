"""What both faces promise with a store: what is kept, what is taken up, and what happens where the file fails."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import (
    AsyncBackgroundHandler,
    BackgroundHandler,
    HandlerClosed,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    O3ProConfig,
    Price,
    SqliteStore,
    StoreError,
    Usage,
)
from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg.testing import Event, Failure, FakeClient, FakeRemote, News, RemoteTrouble, Trouble

from .faces import FOREVER, QUICK, Driver, came_true, fake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Open = Callable[..., Driver]

SECRET = "what nobody else shall read"


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """The face under test."""
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of the test is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def open_face(face: str, path: Path) -> Iterator[Open]:
    """Open handlers of this face, by default over the file of the test."""
    drivers: list[Driver] = []

    def opened(client: Any = None, **settings: Any) -> Driver:
        drivers.append(Driver(face, client or fake(), {"store": path, "language": "en", **settings}))
        return drivers[-1]

    yield opened
    for driver in drivers:
        driver.tear_down()


def stuck(driver: Driver, error: str) -> None:
    """Have every write of this handler's store fail from now on."""
    store: Any = driver.handler._store
    failed: Future[Any] = Future()
    failed.set_exception(StoreError(error))
    for verb in ("insert", "wish", "remove"):
        setattr(store, verb, lambda *_: failed)


# --- what is kept -----------------------------------------------------------------------------------------------


def test_an_ended_job_is_there_again(open_face: Open) -> None:
    """The next handler answers for a job that has ended exactly as the one that ran it, and asks nobody."""
    first = open_face(fake(seconds=0.05))
    done = first.start("Why?", "high")
    first.do("wait", done)
    failed = first.start("Who?")
    first.handler.client.remote.script["look"] = [News(Event.ERRORED, failure=Failure("server_error", "sorry"))]
    first.do("wait", failed)
    first.close()
    client = fake()
    second = open_face(client)
    for verb in ("check_status", "get_result", "wait", "cancel_job"):
        for job_id in (done, failed):
            assert second.do(verb, job_id) == first.do(verb, job_id)
    assert second.do("list_active_jobs") == first.do("list_active_jobs")
    assert not client.remote.counts


def test_all_that_is_known_of_a_job_is_kept(open_face: Open) -> None:
    """Handles answer the same from the file: ids, usage, cost, output items, the exception of a failure."""
    first = open_face()
    script = first.handler.client.remote.script
    items = ({"type": "function_call", "name": "f"},)
    script["look"] = [
        News(
            Event.ANSWERED, answer="text \ud800", output_items=items, usage=Usage(1, 2, 3, 4), model="o3-pro-2025-06-10"
        ),
        News(Event.ERRORED, failure=Failure("deadline", "detail"), answer="half", request_id="request-1"),
    ]
    jobs = []
    for _ in range(2):
        jobs.append(first.start())
        first.do("wait", jobs[-1])
    first.close()
    second = open_face()
    second.do("list_active_jobs")
    for job_id in jobs:
        before, after = first.handler.job(job_id), second.handler.job(job_id)
        for name in ("question", "effort", "response_id", "output_items", "usage", "cost"):
            assert getattr(after, name) == getattr(before, name), name
        assert after.elapsed_time == pytest.approx(before.elapsed_time)
        raised = []
        for driver, job in ((first, before), (second, after)):
            try:
                raised.append(driver.do("result", of=job))
            except JobFailed as exc:
                raised.append((type(exc), exc.code, exc.detail, exc.partial, exc.request_id, str(exc)))
        assert raised[0] == raised[1]


def test_a_job_under_way_is_finished(open_face: Open) -> None:
    """A job that runs on at the service is watched by the next handler; nothing is sent, and `on_done` hears of it."""
    client = fake(seconds=FOREVER)
    first = open_face(client)
    job_id = first.start()
    first.until(job_id, lambda status: status["status"] == "running")
    first.close()
    client.remote.seconds = 0.0
    heard: list[str] = []
    second = open_face(client, on_done=lambda job: heard.append(job.id))
    assert second.do("wait", job_id, timeout=10)["success"]
    asyncio.run(came_true(lambda: heard == [job_id]))
    assert client.remote.counts["create"] == 1


def test_a_handler_without_a_client_leaves_jobs_alone(open_face: Open) -> None:
    """A handler whose configuration is broken lists the jobs of the file, fails none of them, and takes none on."""
    client = fake(seconds=FOREVER)
    first = open_face(client)
    job_id = first.start()
    first.until(job_id, lambda status: status["status"] == "running")
    first.close()
    broken = open_face(FakeClient(client.remote, O3ProConfig(endpoint=client.config.endpoint, auth="key")))
    assert broken.do("check_status", job_id)["status"] == "running"
    assert "not ready" in broken.do("start_background_task", "q")["error"]
    assert not broken.handler._store.holds(job_id)
    assert broken.do("list_active_jobs")[0]["job_id"] == job_id


@pytest.mark.parametrize("settings", [{"store": 7}, {"prices": {"o3-pro": (20, 80)}}])
def test_settings_of_the_wrong_type_are_refused(settings: dict[str, Any]) -> None:
    """A store that is none, and prices that are none, are refused at once."""
    with pytest.raises(TypeError, match=r"store has to|prices has to"):
        BackgroundHandler(fake(), **settings)


def test_settings_decide_what_closing_does(open_face: Open) -> None:
    """With `on_close="cancel"` closing cancels at the service, as without a store."""
    client = fake(seconds=FOREVER)
    driver = open_face(client, on_close="cancel")
    job_id = driver.start()
    driver.until(job_id, lambda status: status["status"] == "running")
    driver.close()
    assert driver.do("check_status", job_id)["status"] == "cancelled"
    assert client.remote.counts["cancel"] == 1


def test_removed_jobs_are_gone_for_good(open_face: Open) -> None:
    """What `remove_job`, `clear_finished`, `del` and `retain` let go is not in the file any more."""
    first = open_face()
    ids = []
    for _ in range(4):
        ids.append(first.start())
        first.do("wait", ids[-1])
    assert first.do("remove_job", ids[0])["success"]
    del first.handler.jobs[ids[1]]
    assert [job["job_id"] for job in first.do("list_active_jobs")] == ids[2:]
    first.close()
    second = open_face(retain=1)
    assert [job["job_id"] for job in second.do("list_active_jobs")] == ids[3:]
    assert second.do("clear_finished") == 1
    second.close()
    third = open_face()
    assert third.do("list_active_jobs") == []


def test_a_dedupe_key_finds_its_job_again(open_face: Open) -> None:
    """The same key is answered with the same job and its status, in the next process too, until it is removed."""
    client = fake()
    first = open_face(client)
    reply = first.do("start_background_task", "q", dedupe_key="order 7")
    again = first.do("start_background_task", "another", "high", dedupe_key="order 7")
    assert {**again, "status": "started"} == reply
    assert first.do("submit", "q", dedupe_key="order 7").id == reply["job_id"]
    first.do("wait", reply["job_id"])
    first.close()
    second = open_face(client)
    assert second.do("start_background_task", "q", dedupe_key="order 7") == {**reply, "status": "completed"}
    assert client.remote.counts["create"] == 1
    second.do("remove_job", reply["job_id"])
    assert second.do("start_background_task", "q", dedupe_key="order 7")["job_id"] != reply["job_id"]


def test_a_key_belongs_to_its_service(open_face: Open) -> None:
    """The same key at another endpoint is another job's."""
    first = open_face(fake(seconds=FOREVER))
    job_id = first.start(dedupe_key="k")
    other = FakeClient(FakeRemote(seconds=0.03), O3ProConfig(endpoint="https://other.openai.azure.com", api_key="k"))
    second = open_face(other)
    reply = second.do("start_background_task", "q", dedupe_key="k")
    assert reply["job_id"] != job_id
    assert [pair[0] for pair in second.completed(timeout=10)] == [reply["job_id"]], "the other one cannot end here"
    assert second.do("wait_all", timeout=10)[reply["job_id"]]["success"]
    assert second.handler.job(job_id).waiting == "endpoint"


@pytest.mark.parametrize("key", ["", "x" * 513, "\ud800", "a\nb"])
def test_a_dedupe_key_has_to_be_a_text(open_face: Open, key: str) -> None:
    """A key that is none is refused with a sentence, and nothing is started."""
    driver = open_face()
    reply = driver.do("start_background_task", "q", dedupe_key=key)
    assert reply["error"] == "dedupe_key takes a printable text of 1 to 512 characters, or None"
    with pytest.raises(InvalidRequest):
        driver.do("submit", "q", dedupe_key=key)
    with pytest.raises(TypeError):
        driver.do("submit", "q", dedupe_key=7)
    assert driver.do("list_active_jobs") == []


def test_a_response_is_attached_to_once(open_face: Open) -> None:
    """A response that a job has is that job's, in the next process too; one whose job failed can be tried again."""
    first = open_face(fake(seconds=FOREVER))
    job = first.do("attach", "resp_1", "Why?", "high")
    assert first.do("attach", "resp_1").id == job.id
    token = job.continuation_token()
    first.close()
    second = open_face(fake(seconds=FOREVER), lost_after=0.01)
    assert second.do("attach", "resp_1").id == second.do("attach", token).id == job.id
    missing = RemoteTrouble(Trouble.MISSING, Failure("lost"))
    second.handler.client.remote.script["look"] = [missing] * 1000
    assert second.do("wait", job.id, timeout=10)["status"] == "failed"
    second.handler.client.remote.script["look"].clear()
    again = second.do("attach", "resp_1")
    assert again.id != job.id
    second.do("cancel", of=again)
    second.handler.client.remote.script["look"] = [missing] * 1000
    third = second.do("attach", "resp_2")
    token = third.continuation_token()
    assert second.do("wait", third.id, timeout=10)["status"] == "failed"
    second.handler.client.remote.script["look"].clear()
    assert second.do("attach", token).id != third.id


def test_two_processes_attach_to_one_response(open_face: Open) -> None:
    """Whoever attaches to a response that nobody here knows yet makes the same job of it."""
    client = fake(seconds=FOREVER)
    first, second = open_face(client), open_face(client)
    second.do("list_active_jobs")
    assert first.do("attach", "resp_1").id == second.do("attach", "resp_1").id
    assert len(first.do("list_active_jobs")) == 1


# --- text that is not kept --------------------------------------------------------------------------------------


def test_text_can_be_kept_out_of_the_file(open_face: Open, path: Path) -> None:
    """With `store_text=False` neither question, options nor answer are in the file, and results still come."""
    client = fake()
    first = open_face(client, store=SqliteStore(path, store_text=False))
    client.remote.script["look"] = [News(Event.ANSWERED, answer=SECRET)]
    job_id = first.start(f"{SECRET}?", instructions=SECRET)
    assert first.do("wait", job_id)["response"] == SECRET
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    first.close()
    assert SECRET.encode() not in path.read_bytes()
    client.remote.seconds = 0.0
    second = open_face(client, store=SqliteStore(path, store_text=False))
    looks = client.remote.counts["look"]
    assert second.do("check_status", job_id)["question"].startswith("sha256:")
    assert client.remote.counts["look"] == looks, "only a result is asked for"
    for verb in ("get_result", "wait"):
        reply = second.do(verb, job_id)
        assert (reply["success"], reply["response"]) == (True, "fake answer of resp_fake_1")
    assert second.completed()[0][1]["success"]
    assert second.do("result", of=second.handler.job(job_id)) == "fake answer of resp_fake_1"


def test_an_answer_that_cannot_be_had_says_so(open_face: Open, path: Path) -> None:
    """Where the service does not give the answer out the job stays completed, and can be asked for again."""
    client = fake()
    first = open_face(client, store=SqliteStore(path, store_text=False))
    job_id = first.start()
    first.do("wait", job_id)
    first.close()
    second = open_face(client)
    client.remote.script["look"] = [RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost"))] * 2
    reply = second.do("get_result", job_id)
    assert (reply["success"], reply["status"]) == (False, "completed")
    assert "could not be had from the service" in reply["error"]
    with pytest.raises(StoreError, match="could not be had") as caught:
        second.do("result", of=second.handler.job(job_id))
    assert caught.value.job_id == job_id
    assert second.do("get_result", job_id)["success"]
    second.close()
    assert not second.do("get_result", job_id)["success"], "a closed handler asks nobody"


# --- deletes and costs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [True, False])
def test_a_response_is_deleted_with_its_job(open_face: Open, setting: bool) -> None:
    """`delete_remote`, as a setting or for one call, deletes at the service what is forgotten here."""
    client = fake()
    driver = open_face(client, delete_remote=setting)
    ids = [driver.start() for _ in range(3)]
    driver.do("wait_all")
    assert driver.do("remove_job", ids[0], delete_remote=not setting)["success"]
    assert client.remote.counts["delete"] == (not setting)
    assert driver.do("clear_finished") == 2
    assert client.remote.counts["delete"] == (2 if setting else 1)
    assert driver.do("clear_finished", delete_remote=True) == 0


def test_a_job_whose_response_is_not_deleted_is_kept(open_face: Open) -> None:
    """Where the service does not delete, the job stays and says why."""
    client = fake()
    driver = open_face(client, delete_remote=True)
    job_id, _ = driver.start(), driver.start()
    driver.do("wait_all")
    client.remote.script["delete"] = [RemoteTrouble(Trouble.DENIED, Failure("forbidden"))] * 2
    reply = driver.do("remove_job", job_id)
    assert (reply["success"], reply["job_id"], reply["status"]) == (False, job_id, "completed")
    assert "The resource refused access" in reply["error"]
    assert driver.do("clear_finished") == 1
    assert len(driver.do("list_active_jobs")) == 1
    driver.close()
    assert driver.do("remove_job", job_id)["error"] == "The handler is closed; make a new one"


def test_costs_are_estimated(open_face: Open) -> None:
    """A job's cost follows from its usage and the table, or from the user's own prices; unknown ones are None."""
    client = fake()
    driver = open_face(client)
    job = driver.do("submit", "q")
    driver.do("wait", of=job)
    assert job.cost == pytest.approx((10 * 20 + 100 * 80) / 1e6)
    assert driver.do("attach", "resp_other").cost is None
    driver.close()
    priced = open_face(client, prices={"o3-pro": Price(1, 2)})
    priced.do("list_active_jobs")
    assert priced.handler.job(job.id).cost == pytest.approx((10 + 200) / 1e6)


# --- where the file fails ---------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_opened_says_so(face: str, path: Path) -> None:
    """A file of somebody else is refused with a sentence: by the constructor, or by `async with` and every verb."""
    path.write_text("not a database, but long enough to be taken for one" * 100)
    if face == "sync":
        before = {*threading.enumerate()}
        with pytest.raises(StoreError, match="no SQLite database"):
            BackgroundHandler(fake(), store=path)
        asyncio.run(came_true(lambda: before >= {*threading.enumerate()}))
        return

    async def main() -> None:
        with pytest.raises(StoreError, match="no SQLite database"):
            async with AsyncBackgroundHandler(fake(), store=path):
                pass
        handler = AsyncBackgroundHandler(fake(), store=path, language="en")
        for reply in (
            await handler.start_background_task("q"),
            await handler.check_status("nope"),
            await handler.get_result("nope"),
            await handler.cancel_job("nope"),
            await handler.remove_job("nope"),
            await handler.wait("nope"),
        ):
            assert not reply["success"]
            assert "no SQLite database" in reply["error"]
        with pytest.raises(StoreError, match="no SQLite database"):
            await handler.list_active_jobs()
        with pytest.raises(StoreError, match="no SQLite database"):
            await handler.submit("q")
        await handler.aclose()

    asyncio.run(main())


def test_a_job_that_cannot_be_written_is_not_started(open_face: Open) -> None:
    """A full disk is a reply, or a `StoreError`; nothing is sent, and the other jobs go on."""
    client = fake(seconds=0.2)
    driver = open_face(client)
    job_id = driver.start()
    stuck(driver, "the disk is full")
    reply = driver.do("start_background_task", "q", "high")
    error = "The store of the jobs cannot be used: the disk is full"
    assert reply == {"success": False, "error": error, "question": "q", "effort": "high"}
    for verb, argument in (("submit", "q"), ("attach", "resp_1")):
        with pytest.raises(StoreError, match="the disk is full"):
            driver.do(verb, argument)
    assert driver.do("wait", job_id)["success"]
    assert client.remote.counts["create"] == 1
    assert driver.handler._engine.expected == set()


def test_a_removal_does_not_wait_for_the_disk_to_be_back(open_face: Open) -> None:
    """What is removed while the file cannot be written is gone here at once; a closed handler removes nothing."""
    driver = open_face()
    ids = [driver.start() for _ in range(3)]
    driver.do("wait_all")
    keep = driver.handler._store.remove
    stuck(driver, "the disk is full")
    assert driver.do("remove_job", ids[0])["success"]
    assert driver.do("clear_finished") == 3, "the store that was put in here forgets nothing"
    driver.handler._store.remove = keep
    driver.close()
    assert driver.do("clear_finished") == 0
    assert driver.do("remove_job", ids[1])["error"] == "The handler is closed; make a new one"


@pytest.mark.parametrize("path", [":memory:", "", "sqlite:///jobs.db"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """The names that databases give to something else are refused, before a file of that name is made."""
    with pytest.raises(ValueError, match="the path of a file"):
        BackgroundHandler(fake(), store=path)


def test_a_cancel_that_cannot_be_passed_on_says_so(open_face: Open) -> None:
    """A job that another process holds is cancelled by way of the file; where that fails, the reply says so."""
    first = open_face(fake(seconds=FOREVER, queued=FOREVER))
    job_id = first.start()
    second = open_face(fake(seconds=FOREVER, queued=FOREVER))
    assert second.do("check_status", job_id)["success"]
    stuck(second, "the disk is full")
    reply = second.do("cancel_job", job_id)
    assert (reply["success"], reply["status"]) == (False, "started")
    assert reply["error"] == "The store of the jobs cannot be used: the disk is full"
    with pytest.raises(StoreError):
        second.do("cancel", of=second.handler.job(job_id))


def test_a_store_serves_one_handler(open_face: Open, path: Path) -> None:
    """A store object that is in use is refused; the same file may be opened again and again."""
    store = SqliteStore(path)
    first = open_face(store=store)
    job_id = first.start()
    if first.face == "sync":
        with pytest.raises(StoreError, match="one handler"):
            open_face(store=store)
    else:
        assert "one handler" in open_face(store=store).do("start_background_task", "q")["error"]
    assert open_face(store=path).do("check_status", job_id)["success"]


def test_reads_do_not_wait_for_a_locked_file(open_face: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program locks the file every job that is known is answered for; an unknown one too, soon."""
    driver = open_face()
    is_at_the_lock = threading.Event()
    write = JobFile.writing

    def writing(file: JobFile, *, durable: bool = True) -> AbstractContextManager[None]:
        if durable:  # a start, and no beat
            is_at_the_lock.set()
        return write(file, durable=durable)

    job_id = driver.start()
    driver.do("wait", job_id)
    blocker = sqlite3.connect(path, isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        starting = threading.Thread(target=driver.do, args=("start_background_task", "q"))
        monkeypatch.setattr(JobFile, "writing", writing)
        starting.start()
        assert is_at_the_lock.wait(30)
        for _ in range(100):
            assert driver.do("get_result", job_id)["success"]
        error = driver.do("check_status", "nope")["error"]
        assert "its file could not be read in time" in error, "who knows whether there is such a job"
        assert starting.is_alive()
        blocker.execute("ROLLBACK")
        starting.join(10)
        assert driver.do("check_status", "nope")["error"] == "No such job: nope"
        assert len(driver.do("list_active_jobs")) == 2
    finally:
        blocker.close()


# --- starts that are broken off ---------------------------------------------------------------------------------


class Slow(SqliteStore):
    """A store whose inserts wait until they are let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.gate = threading.Event(), threading.Event()

    def insert(self, record: Any) -> Future[Any]:
        inserted: Future[Any] = Future()
        inserted.set_running_or_notify_cancel()

        def work() -> None:
            self.asked.set()
            self.gate.wait(10)
            inserted.set_result(super(Slow, self).insert(record).result())

        threading.Thread(target=work).start()
        return inserted


def test_a_start_that_is_cancelled_starts_nothing(path: Path) -> None:
    """A start whose task is cancelled before it has told its id leaves no job behind, and sends nothing."""
    client = FakeClient(FakeRemote())
    store = Slow(path)

    async def main() -> None:
        async with AsyncBackgroundHandler(client, store=store, pace=QUICK) as handler:
            start = asyncio.create_task(handler.start_background_task("q"))
            await came_true(store.asked.is_set)
            start.cancel()
            await asyncio.wait([start])
            assert start.cancelled()
            store.gate.set()
            await came_true(lambda: not handler._engine.expected)
            await came_true(lambda: not store.snapshot())

    asyncio.run(main())
    assert not client.remote.counts
    with BackgroundHandler(client, store=path) as handler:
        assert handler.list_active_jobs() == []


def test_an_attach_that_is_cancelled_removes_nothing(path: Path) -> None:
    """A job whose response is attached to again stays, though that attach is cancelled before it is told anything."""
    remote = FakeRemote()
    remote.script["look"] = [News(Event.ERRORED, failure=Failure("server_error"))]
    store = Slow(path)
    store.gate.set()

    async def main() -> None:
        async with AsyncBackgroundHandler(FakeClient(remote), store=store, pace=QUICK) as handler:
            job = await handler.submit("q")
            with pytest.raises(JobFailed):
                await job
            store.asked.clear()
            store.gate.clear()
            attach = asyncio.create_task(handler.attach(job.continuation_token()))
            await came_true(store.asked.is_set)
            attach.cancel()
            await asyncio.wait([attach])
            store.gate.set()
            await came_true(lambda: not handler._engine.expected)
            assert [kept.job_id for kept in store.snapshot()] == [job.id]
            await handler.list_active_jobs()

    asyncio.run(main())
    with BackgroundHandler(FakeClient(remote), store=path) as handler:
        assert [job["status"] for job in handler.list_active_jobs()] == ["failed"]


def test_a_start_with_a_key_that_is_cancelled_is_run(path: Path) -> None:
    """A job whose key somebody else may have given is not taken back by the first one's going away."""
    client = fake()
    store = Slow(path)

    async def main() -> None:
        async with AsyncBackgroundHandler(client, store=store, pace=QUICK) as handler:
            start = asyncio.create_task(handler.start_background_task("q", dedupe_key="k"))
            await came_true(store.asked.is_set)
            start.cancel()
            await asyncio.wait([start])
            store.gate.set()
            second = await handler.submit("q", dedupe_key="k")
            assert (await second.result(10)).startswith("fake answer")

    asyncio.run(main())
    assert client.remote.counts["create"] == 1


def test_a_start_that_a_close_overtakes_is_left_to_the_next_process(path: Path) -> None:
    """A job that was written before the handler closed is told as started, because it is: the next process runs it."""
    client = fake()
    handler = BackgroundHandler(client, store=path, pace=QUICK)
    submit = handler._portal.submit

    def overtaken(*_: Any) -> Any:
        raise HandlerClosed("closed")

    handler._portal.submit = overtaken  # type: ignore[method-assign, assignment]
    reply = handler.start_background_task("q")
    assert reply["success"]
    handler._portal.submit = submit  # type: ignore[method-assign]
    handler.close()
    with BackgroundHandler(client, store=path, pace=QUICK) as successor:
        assert successor.wait(reply["job_id"], timeout=10)["success"]
    assert client.remote.counts["create"] == 1


def test_an_opening_that_is_cancelled_leaves_nothing(path: Path) -> None:
    """A handler whose `async with` is cancelled while the store is opened holds no job, and ends its thread."""
    with BackgroundHandler(fake(seconds=FOREVER), store=path) as first:
        job_id = first.start_background_task("q")["job_id"]
    before = {*threading.enumerate()}

    async def main() -> None:
        handler = AsyncBackgroundHandler(fake(), store=path)
        task = asyncio.create_task(handler.__aenter__())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await came_true(lambda: before >= {*threading.enumerate()})
        assert not handler._store.holds(job_id)

    asyncio.run(main())


def test_an_opening_that_its_loop_did_not_survive_says_so(path: Path) -> None:
    """A handler whose loop ended while its store was opened answers on the next one with a sentence."""
    handler = AsyncBackgroundHandler(fake(), store=path, language="en")
    store: Any = handler._store
    begins, has_ended = store._begin, threading.Event()

    @contextmanager
    def begins_late(*args: Any) -> Iterator[Any]:
        has_ended.wait(20)
        with begins(*args) as journal:
            yield journal

    store._begin = begins_late

    async def begin() -> None:
        asyncio.get_running_loop().create_task(handler.check_status("nope"))
        await asyncio.sleep(0)

    asyncio.run(begin())
    has_ended.set()
    opening: Any = handler._opening
    assert opening.cancelled()
    reply = asyncio.run(handler.check_status("nope"))
    assert "ended while its store was opened" in reply["error"]
    closed = handler._store.close()
    closed.exception(10)


def test_unknown_jobs_stay_unknown(open_face: Open) -> None:
    """With a store, too, an id that nobody knows is answered as the specification says."""
    driver = open_face(language="ja")
    for verb in ("check_status", "get_result", "cancel_job", "remove_job", "wait"):
        assert driver.do(verb, "nope") == {"success": False, "error": "ジョブが見つかりません: nope"}
    assert driver.completed(["nope"]) == [("nope", driver.do("get_result", "nope"))]
    with pytest.raises(JobNotFound):
        driver.handler.job("nope")
