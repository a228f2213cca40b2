"""What both faces promise alike: the specification's dictionaries, the handles, and what stands beside them."""

from __future__ import annotations

import contextvars
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import (
    ConfigError,
    DbosEngine,
    DeadlineExceeded,
    HandlerClosed,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobLost,
    JobNotFinished,
    JobNotFound,
    O3ProConfig,
    SubmissionUncertain,
)
from o3pro_bg.testing import Event, Failure, FakeClient, FakeRemote, News, RemoteTrouble, Trouble, Usage

from .faces import FOREVER, Driver, fake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from o3pro_bg._records import JobRequest

    Open = Callable[..., Driver]

NOT_FOUND = {"success": False, "error": "ジョブが見つかりません: nope"}


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """The face under test."""
    return str(request.param)


ONE_PROCESS = pytest.mark.parametrize("open_face", ["memory", "file"], indirect=True)
"""For what holds within a process: DBOS deals a job to any, and a process has its jobs of one database."""


@pytest.fixture(params=["memory", "file", "dbos"])
def open_face(request: pytest.FixtureRequest, face: str, tmp_path: Path) -> Iterator[Open]:
    """Open handlers of this face over a client, or a fake one whose jobs take 30 ms; each has a store of its own."""
    drivers: list[Driver] = []

    def opened(client: Any = None, **settings: Any) -> Driver:
        stores: dict[str, dict[str, Any]] = {
            "memory": {},
            "file": {"store": tmp_path / f"{len(drivers)}.db", "on_close": "cancel"},
            "dbos": {"engine": DbosEngine(f"sqlite:///{tmp_path}/{len(drivers)}.db", poll=0.02), "on_close": "cancel"},
        }
        drivers.append(Driver(face, client or fake(), {**stores[request.param], **settings}))
        return drivers[-1]

    yield opened
    for driver in drivers:
        driver.tear_down()


def ended_by(news: News | RemoteTrouble) -> FakeClient:
    """Answer a client whose first look, or whose create where it is trouble, says this."""
    client = fake(seconds=FOREVER)
    client.remote.script["create" if isinstance(news, RemoteTrouble) else "look"].append(news)
    return client


FAILED = News(Event.ERRORED, failure=Failure("server_error", "it broke"), answer="half an ans")


# --- the five verbs -----------------------------------------------------------------------------------------


def test_start_answers_id_status_question_and_effort(open_face: Open) -> None:
    """A started job is answered with exactly the specification's keys."""
    reply = open_face().do("start_background_task", "質問", effort="high")
    job_id = reply.pop("job_id")
    assert isinstance(job_id, str)
    assert reply == {"success": True, "status": "started", "question": "質問", "effort": "high"}


def test_effort_defaults_to_low(open_face: Open) -> None:
    """Without an effort a job has the effort low."""
    assert open_face().do("start_background_task", "q")["effort"] == "low"


@pytest.mark.parametrize("question", ["", "  \n"])
def test_empty_question_is_an_answer(open_face: Open, question: str) -> None:
    """An empty question is answered with success False and a sentence, and starts nothing."""
    driver = open_face()
    reply = driver.do("start_background_task", question)
    assert reply == {
        "success": False,
        "error": "質問が空です。質問の文章を渡してください",
        "question": question,
        "effort": "low",
    }
    assert driver.do("list_active_jobs") == []


def test_unknown_effort_names_the_efforts(open_face: Open) -> None:
    """An unknown effort is answered with the efforts that the configuration knows."""
    reply = open_face(language="en").do("start_background_task", "q", effort="ultra")
    assert reply["success"] is False
    assert "low, medium, high" in reply["error"]


@pytest.mark.parametrize(("question", "effort"), [(None, "low"), (b"q", "low"), ("q", 3)])
def test_arguments_of_the_wrong_type_raise(open_face: Open, question: Any, effort: Any) -> None:
    """An argument that is no text raises TypeError, as any function would."""
    with pytest.raises(TypeError, match="has to be str"):
        open_face().do("start_background_task", question, effort)


def test_client_that_is_not_ready_is_an_answer(open_face: Open) -> None:
    """A client without endpoint and key is answered with both problems and their mends."""
    driver = open_face(FakeClient(config=O3ProConfig(auth="key")), language="en")
    reply = driver.do("start_background_task", "q")
    assert reply["success"] is False
    assert "AZURE_OPENAI_ENDPOINT" in reply["error"]
    assert "AZURE_OPENAI_API_KEY" in reply["error"]
    japanese = open_face(FakeClient(config=O3ProConfig(auth="key")))
    assert "エンドポイントがありません" in japanese.do("start_background_task", "q")["error"]
    with pytest.raises(ConfigError, match="no endpoint: set AZURE_OPENAI_ENDPOINT"):
        japanese.do("submit", "q")


@pytest.mark.parametrize("option", ["background", "store", "stream", "input", "model"])
def test_options_that_would_break_the_job_are_refused(open_face: Open, option: str) -> None:
    """An option that the library sets itself is refused by its name."""
    driver = open_face()
    reply = driver.do("start_background_task", "q", **{option: True})
    assert (reply["success"], option in reply["error"]) == (False, True)
    with pytest.raises(InvalidRequest, match=option):
        driver.do("submit", "q", **{option: True})


def test_options_reach_the_request(open_face: Open) -> None:
    """What is passed beside the question reaches the request, as it was when it was passed."""
    client = fake()
    driver = open_face(client)
    metadata = {"team": "a"}
    job_id = driver.start("q", instructions="short", max_output_tokens=100, metadata=metadata)
    metadata["team"] = "b"
    driver.do("wait", job_id)
    options = client.remote.asked[0][1].options
    assert options == {"instructions": "short", "max_output_tokens": 100, "metadata": {"team": "a"}}


def test_status_while_started_and_running(open_face: Open) -> None:
    """A job is started until the service works on it, and running then; its time goes on."""
    client = fake(seconds=FOREVER)
    client.remote.script["look"] = [News(Event.ACCEPTED)]
    driver = open_face(client)
    job_id = driver.start("q", "medium")
    first = driver.do("check_status", job_id)
    elapsed = first.pop("elapsed_time")
    assert first == {"success": True, "status": "started", "question": "q", "effort": "medium"}
    second = driver.until(job_id, lambda status: status["status"] == "running")
    assert second["elapsed_time"] > elapsed >= 0
    assert "error" not in second


def test_status_of_a_failed_job(open_face: Open) -> None:
    """A query of a failed job succeeds, and says why it failed."""
    driver = open_face(ended_by(FAILED))
    job_id = driver.start()
    driver.do("wait", job_id)
    status = driver.do("check_status", job_id)
    elapsed = status.pop("elapsed_time")
    assert status == {
        "success": True,
        "status": "failed",
        "error": "API Error: server_error: it broke",
        "question": "q",
        "effort": "low",
    }
    assert driver.do("check_status", job_id)["elapsed_time"] == elapsed


def test_result_of_a_completed_job(open_face: Open) -> None:
    """A completed job answers its text and its total time, which stands still."""
    driver = open_face()
    job_id = driver.start()
    waited = driver.do("wait", job_id)
    total = waited["total_time"]
    assert waited == {
        "success": True,
        "response": "fake answer of resp_fake_1",
        "status": "completed",
        "total_time": total,
        "question": "q",
        "effort": "low",
    }
    assert isinstance(total, float)
    assert driver.do("get_result", job_id) == waited


def test_result_before_the_end(open_face: Open) -> None:
    """A job that has not ended answers exactly the specification's sentence and its status."""
    driver = open_face(fake(seconds=FOREVER))
    reply = driver.do("get_result", driver.start())
    assert reply["status"] in ("started", "running")
    assert reply == {"success": False, "error": "ジョブはまだ完了していません", "status": reply["status"]}


def test_result_of_a_failed_job_keeps_partial_text(open_face: Open) -> None:
    """A failed job answers why, with the text that was generated before."""
    driver = open_face(ended_by(FAILED))
    job_id = driver.start()
    reply = driver.do("wait", job_id)
    assert reply == {
        "success": False,
        "error": "API Error: server_error: it broke",
        "status": "failed",
        "total_time": reply["total_time"],
        "question": "q",
        "effort": "low",
        "response": "half an ans",
    }


def test_cancel_answers_and_stays(open_face: Open) -> None:
    """A cancelled job answers so at once and afterwards, and the service was asked to stop."""
    client = fake(seconds=FOREVER)
    driver = open_face(client)
    job_id = driver.start()
    driver.until(job_id, lambda status: status["status"] == "running")
    assert driver.do("cancel_job", job_id) == {
        "success": True,
        "job_id": job_id,
        "status": "cancelled",
        "question": "q",
        "effort": "low",
    }
    assert client.remote.counts["cancel"] == 1
    result = driver.do("get_result", job_id)
    assert result == {
        "success": False,
        "error": "ジョブはキャンセルされました",
        "status": "cancelled",
        "total_time": result["total_time"],
        "question": "q",
        "effort": "low",
    }
    assert driver.do("check_status", job_id)["error"] == "ジョブはキャンセルされました"
    again = {"success": False, "error": "ジョブは既に終了しています", "job_id": job_id, "status": "cancelled"}
    assert driver.do("cancel_job", job_id) == again


def test_cancel_of_an_ended_job(open_face: Open) -> None:
    """A job that has ended cannot be cancelled, and keeps its answer."""
    driver = open_face()
    job_id = driver.start()
    driver.do("wait", job_id)
    reply = driver.do("cancel_job", job_id)
    assert reply == {
        "success": False,
        "error": "ジョブは既に終了しています",
        "job_id": job_id,
        "status": "completed",
    }
    assert driver.do("get_result", job_id)["success"]


def test_cancel_that_the_service_refuses(open_face: Open) -> None:
    """A refused cancel says so, and the job runs on to its answer."""
    client = fake(seconds=0.3)
    client.remote.script["cancel"] = [RemoteTrouble(Trouble.REFUSED, Failure("http_409"))]
    driver = open_face(client)
    job_id = driver.start()
    driver.until(job_id, lambda status: status["status"] == "running")
    reply = driver.do("cancel_job", job_id)
    assert reply == {
        "success": False,
        "error": "サービスがキャンセルを拒否しました。ジョブは実行を続けています",
        "job_id": job_id,
        "status": "running",
    }
    assert driver.do("wait", job_id)["success"]


@pytest.mark.parametrize("verb", ["check_status", "get_result", "cancel_job", "wait", "remove_job"])
def test_unknown_id(open_face: Open, verb: str) -> None:
    """An unknown id is answered with exactly the specification's sentence, whatever the verb."""
    assert open_face().do(verb, "nope") == NOT_FOUND


def test_list_holds_every_job_until_it_is_removed(open_face: Open) -> None:
    """The list shows all jobs, ended ones included, in the order of their start."""
    client = fake(seconds=FOREVER)
    client.remote.script["look"] = [FAILED]
    driver = open_face(client)
    failed = driver.start("first", "high")
    driver.do("wait", failed)
    running = driver.start("second")
    jobs = driver.do("list_active_jobs")
    assert [job["job_id"] for job in jobs] == [failed, running]
    assert {*jobs[0]} == {"job_id", "status", "question", "effort", "elapsed_time"}
    assert (jobs[0]["status"], jobs[0]["question"], jobs[0]["effort"]) == ("failed", "first", "high")


def test_english_has_the_same_keys(open_face: Open) -> None:
    """With language en the sentences are English and the keys the same."""
    driver = open_face(fake(seconds=FOREVER), language="en")
    job_id = driver.start()
    assert driver.do("check_status", "nope") == {"success": False, "error": "No such job: nope"}
    reply = driver.do("get_result", job_id)
    assert reply == {"success": False, "error": "The job has not finished yet", "status": reply["status"]}
    driver.do("cancel_job", job_id)
    assert driver.do("get_result", job_id)["error"] == "The job was cancelled"
    assert driver.do("cancel_job", job_id)["error"] == "The job has already ended"


# --- jobs: the live mapping ---------------------------------------------------------------------------------


def test_jobs_is_a_live_mapping_of_plain_dictionaries(open_face: Open) -> None:
    """`jobs` shows each job as a dictionary, follows what happens, and removes by `del`."""
    driver = open_face()
    jobs = driver.handler.jobs
    assert len(jobs) == 0
    job_id = driver.start("question", "high")
    assert list(jobs) == [job_id]
    assert {*jobs[job_id]} >= {"job_id", "status", "question", "effort", "elapsed_time"}
    assert type(jobs[job_id]) is dict
    driver.do("wait", job_id)
    assert jobs[job_id]["status"] == "completed"
    del driver.handler.jobs[job_id]
    assert job_id not in jobs
    assert driver.do("list_active_jobs") == []


def test_unfinished_jobs_are_not_removed(open_face: Open) -> None:
    """Removing a job that has not ended is refused, by `del` and by `remove_job`."""
    driver = open_face(fake(seconds=FOREVER))
    job_id = driver.start()
    with pytest.raises(JobNotFinished):
        del driver.handler.jobs[job_id]
    reply = driver.do("remove_job", job_id)
    assert reply == {
        "success": False,
        "error": "ジョブはまだ完了していません",
        "job_id": job_id,
        "status": reply["status"],
    }
    with pytest.raises(KeyError):
        del driver.handler.jobs["nope"]
    assert job_id in driver.handler.jobs


def test_jobs_may_be_iterated_while_jobs_start(open_face: Open) -> None:
    """Iterating over the jobs goes on undisturbed while another thread starts and ends jobs."""
    driver = open_face()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            driver.do("wait", driver.start())
            driver.do("clear_finished")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            for job_id, job in list(driver.handler.jobs.items()):
                assert job["job_id"] == job_id
    finally:
        stop.set()
        thread.join()


def test_jobs_iteration_survives_a_removal(open_face: Open) -> None:
    """An id that was removed while the mapping is iterated raises no error but KeyError on its own look-up."""
    driver = open_face()
    ids = [driver.start() for _ in range(3)]
    driver.do("wait_all")
    seen = []
    for job_id in driver.handler.jobs:
        driver.do("remove_job", ids[2])
        seen.append(job_id)
    assert seen == ids
    with pytest.raises(KeyError):
        driver.handler.jobs[ids[2]]


# --- waiting, removing, retaining ---------------------------------------------------------------------------


def test_wait_times_out_and_leaves_the_job_alone(open_face: Open) -> None:
    """A wait that runs out of time raises TimeoutError, and the job goes on."""
    client = fake(seconds=FOREVER)
    driver = open_face(client)
    job_id = driver.start()
    with pytest.raises(TimeoutError, match="goes on"):
        driver.do("wait", job_id, timeout=0.01)
    assert driver.do("check_status", job_id)["status"] in ("started", "running")
    assert client.remote.counts["cancel"] == 0


def test_wait_all_answers_by_id(open_face: Open) -> None:
    """`wait_all` answers the results of the named jobs, or of all, by their ids."""
    driver = open_face()
    ids = [driver.start(), driver.start()]
    replies = driver.do("wait_all", [*ids, "nope"])
    assert {*replies} == {*ids, "nope"}
    assert replies["nope"] == NOT_FOUND
    assert all(replies[job_id]["success"] for job_id in ids)
    assert driver.do("wait_all") == {job_id: replies[job_id] for job_id in ids}


def test_as_completed_yields_in_the_order_of_the_ends(open_face: Open) -> None:
    """`as_completed` answers what has ended first, first; an ended job needs no waiting."""
    client = fake(seconds=FOREVER)
    driver = open_face(client)
    first, second = driver.start(), driver.start()
    driver.do("cancel_job", second)
    client.remote.seconds = 0.0
    assert [job_id for job_id, _ in driver.completed()] == [second, first]


def test_as_completed_times_out(open_face: Open) -> None:
    """`as_completed` raises TimeoutError when not all have ended in time."""
    driver = open_face(fake(seconds=FOREVER))
    driver.start()
    with pytest.raises(TimeoutError, match="1 of 1"):
        driver.completed(timeout=0.01)


def test_clear_finished_counts(open_face: Open) -> None:
    """`clear_finished` forgets the ended jobs and no others, and tells how many they were."""
    client = fake(seconds=FOREVER)
    client.remote.script["look"] = [FAILED]
    driver = open_face(client)
    driver.do("wait", driver.start())
    running = driver.start()
    assert driver.do("clear_finished") == 1
    assert [job["job_id"] for job in driver.do("list_active_jobs")] == [running]


def test_retain_keeps_the_newest_ended_jobs(open_face: Open) -> None:
    """With `retain=2` only the two jobs that ended last are kept."""
    driver = open_face(retain=2)
    ids = []
    for _ in range(4):
        ids.append(driver.start())
        driver.do("wait", ids[-1])
    assert [job["job_id"] for job in driver.do("list_active_jobs")] == ids[2:]


def test_retain_by_age(open_face: Open) -> None:
    """With an age as `retain` an ended job is gone when it is older."""
    driver = open_face(retain=timedelta(seconds=0.05))
    job_id = driver.start()
    assert driver.do("wait", job_id)["success"]
    assert driver.until(job_id, lambda status: not status["success"])


@pytest.mark.parametrize("per", ["job", "handler"])
def test_timeout_cancels_at_the_service_and_fails(open_face: Open, per: str) -> None:
    """A job's time-out, its own or the handler's, fails it and cancels it at the service."""
    client = fake(seconds=FOREVER)
    driver = open_face(client, **({"timeout": 0.05} if per == "handler" else {}))
    job_id = driver.start(timeout=0.05 if per == "job" else None)
    reply = driver.do("wait", job_id)
    assert (reply["success"], reply["status"]) == (False, "failed")
    assert reply["error"] == "API Error: 制限時間 (timeout) を過ぎました。サービスで実行中の処理はキャンセルされます"
    with pytest.raises(DeadlineExceeded):
        driver.do("result", of=driver.do("job", job_id))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), FOREVER, True])
def test_impossible_timeouts_are_answers(open_face: Open, timeout: Any) -> None:
    """A time-out that is no positive finite number starts nothing."""
    driver = open_face()
    reply = driver.do("start_background_task", "q", timeout=timeout)
    assert (reply["success"], "timeout" in reply["error"]) == (False, True)


def test_max_concurrency_bounds_the_jobs_under_way(open_face: Open) -> None:
    """With `max_concurrency=1` the second job is sent when the first has ended; meanwhile it says why it waits."""
    client = fake(seconds=FOREVER)
    driver = open_face(client, max_concurrency=1)
    first = driver.start()
    second = driver.do("submit", "q")
    driver.until(first, lambda status: status["status"] == "running")
    driver.until(second.id, lambda _: second.waiting == "concurrency")
    assert client.remote.counts["create"] == 1
    client.remote.seconds = 0.0
    assert all(reply["success"] for reply in driver.do("wait_all").values())
    assert client.remote.counts["create"] == 2


def test_priority_orders_the_jobs_that_wait(open_face: Open) -> None:
    """Of the jobs that wait for a slot the one of the highest priority is sent first; what is none starts nothing."""
    client = fake(seconds=FOREVER)
    driver = open_face(client, max_concurrency=1)
    driver.until(driver.start(), lambda status: status["status"] == "running")
    waiting = [driver.do("submit", "later"), driver.do("submit", "sooner", priority=1)]
    for job in waiting:
        driver.until(job.id, lambda _, job=job: job.waiting == "concurrency")  # type: ignore[misc]
    client.remote.seconds = 0.0
    driver.do("wait_all")
    assert [request.question for _, request in client.remote.asked[1:]] == ["sooner", "later"]
    reply = driver.do("start_background_task", "q", priority=10**9)
    assert (reply["success"], "priority" in reply["error"]) == (False, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"language": "fr"},
        {"on_close": "explode"},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"max_in_flight": None},
        {"lost_after": None},
        {"max_in_flight": -1},
        {"retain": 0},
        {"retain": timedelta(0)},
        {"timeout": float("nan")},
        {"lost_after": FOREVER},
    ],
)
def test_impossible_settings_raise(face: str, settings: dict[str, Any]) -> None:
    """A setting that makes no sense raises ValueError when the handler is made."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Driver(face, fake(), settings)


def test_a_configuration_is_no_client(face: str) -> None:
    """A configuration in place of a client raises TypeError that says how to wrap it."""
    with pytest.raises(TypeError, match=r"O3ProClient\(O3ProConfig\(\)\)"):
        Driver(face, O3ProConfig(), {})  # type: ignore[arg-type]


def test_unknown_settings_raise(face: str) -> None:
    """A setting that does not exist raises TypeError by its name."""
    with pytest.raises(TypeError, match="storre"):
        Driver(face, fake(), {"storre": 1})


# --- the handle ---------------------------------------------------------------------------------------------


def test_submit_answers_a_handle(open_face: Open) -> None:
    """`submit` answers a handle that knows the job and waits for its answer."""
    driver = open_face()
    job = driver.do("submit", "the question", "high")
    assert (job.question, job.effort, job.status(), job.done()) == ("the question", "high", "started", False)
    assert driver.do("wait", of=job) is None
    assert driver.do("result", of=job) == "fake answer of resp_fake_1"
    assert (job.status(), job.done(), job.response_id) == ("completed", True, "resp_fake_1")
    assert job.usage == Usage(input_tokens=10, output_tokens=100, reasoning_tokens=80)
    assert job.elapsed_time == driver.do("get_result", job.id)["total_time"]


def test_job_answers_the_handle_of_an_id(open_face: Open) -> None:
    """`job` turns an id into a handle, and raises JobNotFound for an unknown one."""
    driver = open_face()
    job_id = driver.start()
    assert driver.do("result", of=driver.handler.job(job_id)).startswith("fake answer")
    with pytest.raises(JobNotFound):
        driver.handler.job("nope")


def test_result_times_out_and_leaves_the_job_alone(open_face: Open) -> None:
    """A result that is not there in time raises TimeoutError, and the job goes on."""
    driver = open_face(fake(seconds=FOREVER))
    job = driver.do("submit", "q")
    with pytest.raises(TimeoutError):
        driver.do("result", of=job, timeout=0.01)
    assert not job.done()


@pytest.mark.parametrize(
    ("news", "error"),
    [
        (FAILED, JobFailed),
        (News(Event.CANCELLED), JobCancelled),
        (News(Event.LOST, failure=Failure("lost", "gone")), JobLost),
        (RemoteTrouble(Trouble.UNCLEAR, Failure("http_500")), SubmissionUncertain),
        (RemoteTrouble(Trouble.DENIED, Failure("invalid_key", "Access denied")), JobFailed),
    ],
)
def test_result_raises_what_became_of_the_job(
    open_face: Open, news: News | RemoteTrouble, error: type[Exception]
) -> None:
    """`result` raises a typed error that carries the way back."""
    driver = open_face(ended_by(news))
    job = driver.do("submit", "the question")
    with pytest.raises(error) as caught:
        driver.do("result", of=job)
    assert caught.value.job_id == job.id  # type: ignore[attr-defined]
    assert caught.value.response_id == job.response_id  # type: ignore[attr-defined]
    assert "the question" not in str(caught.value)
    if isinstance(caught.value, JobFailed) and error is JobFailed and news is FAILED:
        assert (caught.value.code, caught.value.detail, caught.value.partial) == (
            "server_error",
            "it broke",
            "half an ans",
        )


def test_cancel_of_a_handle_tells_whether_it_did(open_face: Open) -> None:
    """`cancel` answers True when the job is cancelled by it, and False when it had ended."""
    driver = open_face(fake(seconds=FOREVER))
    job = driver.do("submit", "q")
    assert driver.do("cancel", of=job) is True
    assert driver.do("cancel", of=job) is False
    with pytest.raises(JobCancelled):
        driver.do("result", of=job)


def test_done_callbacks_get_the_handle(open_face: Open) -> None:
    """Callbacks of a handle and of the handler are called with the handle, once, also after the end."""
    called: list[tuple[str, Any]] = []
    events = {who: threading.Event() for who in ("handler", "job", "late")}

    def note(who: str) -> Callable[[Any], None]:
        def noted(job: Any) -> None:
            called.append((who, job.id))
            events[who].set()

        return noted

    driver = open_face(on_done=note("handler"))
    job = driver.do("submit", "q")
    driver.do("add_done_callback", note("job"), of=job)
    driver.do("wait", of=job)
    assert events["handler"].wait(5)
    assert events["job"].wait(5)
    driver.do("add_done_callback", note("late"), of=job)
    assert events["late"].wait(5)
    assert sorted(called) == [("handler", job.id), ("job", job.id), ("late", job.id)]


def test_every_end_is_called_back_once(open_face: Open) -> None:
    """However short a job lives and however few are kept, the handler's callback comes once for each."""
    client = fake(seconds=0.0)
    called: list[str] = []
    over = threading.Event()

    def note(job: Any) -> None:
        called.append(job.id)
        if len(called) == 100:
            over.set()

    driver = open_face(client, on_done=note, retain=1)
    ids = [driver.start() for _ in range(100)]
    assert over.wait(10)
    assert sorted(called) == sorted(ids)


def test_attach_of_a_held_job_is_the_same_job(open_face: Open) -> None:
    """Attaching what the handler holds already answers its handle, and starts no second life."""
    client = fake(seconds=0.3)
    called: list[str] = []
    driver = open_face(client, on_done=lambda job: called.append(job.id))
    job = driver.do("submit", "q")
    driver.until(job.id, lambda _: job.response_id is not None)
    token = job.continuation_token()
    assert {driver.do("attach", token).id for _ in range(5)} == {job.id}
    driver.do("wait", of=job)
    driver.close()
    assert called == [job.id]


def test_as_completed_watches_from_the_start(open_face: Open) -> None:
    """A job that ends and is removed while another's result is handled is answered all the same."""
    client = fake(seconds=FOREVER)
    client.remote.script["look"] = [FAILED]
    driver = open_face(client, retain=1)
    driver.do("wait", driver.start())
    ids = [driver.start() for _ in range(3)]
    client.remote.seconds = 0.0
    replies = driver.completed(ids)
    assert sorted(job_id for job_id, _ in replies) == sorted(ids)
    assert all(reply["success"] for _, reply in replies)


def test_waiting_for_all_of_a_detached_handler(open_face: Open) -> None:
    """After a close that detaches, `wait_all` answers what is known instead of waiting or raising."""
    driver = open_face(fake(seconds=FOREVER), on_close="detach")
    job = driver.do("submit", "q")
    driver.until(job.id, lambda _: job.response_id is not None)
    driver.close()
    assert driver.do("wait_all")[job.id]["error"] == "ジョブはまだ完了していません"
    assert driver.do("cancel_job", job.id)["error"].startswith("ハンドラーは閉じられています")


def test_one_id_is_no_collection_of_ids(open_face: Open) -> None:
    """A bare id where ids are asked for raises TypeError, instead of waiting for its letters."""
    driver = open_face()
    with pytest.raises(TypeError, match="not one id"):
        driver.do("wait_all", driver.start())


@pytest.mark.parametrize("timeout", [None, FOREVER, float("nan"), -1])
def test_closing_takes_a_finite_time(open_face: Open, timeout: Any) -> None:
    """A time-out of `close` that is no finite number of seconds raises ValueError, and nothing is closed."""
    driver = open_face()
    with pytest.raises(ValueError, match="timeout"):
        driver.do("aclose" if driver.face == "async" else "close", timeout)
    assert driver.start()


@pytest.mark.parametrize("response", ["", " ", ".", "..", "resp 1", "resp_\n"])
def test_attach_of_no_response_id(open_face: Open, response: str) -> None:
    """What cannot be a response id is refused, and nothing is asked."""
    with pytest.raises(InvalidRequest, match="response id"):
        open_face().do("attach", response)


def test_calls_of_tools_can_be_read(open_face: Open) -> None:
    """What an answer holds beside its text is on the handle."""
    call = {"type": "function_call", "name": "look_up", "arguments": "{}"}
    driver = open_face(ended_by(News(Event.ANSWERED, answer="", output_items=(call,))))
    job = driver.do("submit", "q", tools=[{"type": "function", "name": "look_up"}])
    assert driver.do("result", of=job) == ""
    assert job.output_items == [call]


@pytest.mark.parametrize("error", [RuntimeError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_callback_that_raises_is_logged_and_harms_nobody(
    open_face: Open, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """What a callback raises is logged, and the next job and the other callbacks go on."""

    def bad(_: Any) -> None:
        raise error

    good = threading.Event()
    driver = open_face(on_done=bad)
    job = driver.do("submit", "q")
    driver.do("add_done_callback", lambda _: good.set(), of=job)
    driver.do("wait", of=job)
    assert good.wait(5)
    assert driver.do("wait", driver.start())["success"]
    driver.close()
    assert any("callback" in record.getMessage() for record in caplog.records)


@ONE_PROCESS
def test_continuation_token_takes_the_job_up_elsewhere(open_face: Open) -> None:
    """A token attaches another handler to the same response: no create, the same id, the same answer."""
    remote = FakeRemote(seconds=FOREVER, queued=0.0)
    one, other = open_face(FakeClient(remote)), open_face(FakeClient(remote))
    job = one.do("submit", "secret question", "high")
    one.until(job.id, lambda status: status["status"] == "running")
    token = job.continuation_token()
    taken = other.do("attach", token, question="as I remember it")
    assert (taken.id, taken.effort, taken.question) == (job.id, "high", "as I remember it")
    remote.seconds = 0.0
    assert other.do("result", of=taken) == "fake answer of resp_fake_1"
    assert other.do("attach", token).id == job.id
    assert remote.counts["create"] == 1
    assert "secret" not in token


def test_attach_adopts_a_response_id(open_face: Open) -> None:
    """`attach` adopts a response that somebody else started, by its bare id."""
    client = fake(seconds=0.0)
    driver = open_face(client)
    job = driver.do("attach", "gateway-id-7")
    assert driver.do("result", of=job) == "fake answer of gateway-id-7"
    assert client.remote.counts["create"] == 0


def test_token_before_the_service_accepted_raises(open_face: Open) -> None:
    """A job that was not accepted yet has no token, and says so."""
    client = fake()
    client.remote.script["create"] = [RemoteTrouble(Trouble.THROTTLED, Failure("http_429"), retry_after=60)]
    job = open_face(client).do("submit", "q")
    with pytest.raises(JobNotFinished, match="no response id yet"):
        job.continuation_token()


@ONE_PROCESS
def test_token_of_another_deployment_is_refused(open_face: Open) -> None:
    """A token does not attach to a handler of another deployment."""
    one = open_face()
    other = open_face(FakeClient(config=O3ProConfig(endpoint="https://x", api_key="k", deployment="gpt-5-pro")))
    job = one.do("submit", "q")
    one.do("wait", of=job)
    with pytest.raises(InvalidRequest, match="gpt-5-pro"):
        other.do("attach", job.continuation_token())


def test_a_removed_job_has_no_status(open_face: Open) -> None:
    """A handle whose job was removed raises JobNotFound, and its repr says so."""
    driver = open_face()
    job = driver.do("submit", "q")
    driver.do("wait", of=job)
    driver.do("remove_job", job.id)
    with pytest.raises(JobNotFound):
        job.status()
    assert "removed" in repr(job)


@ONE_PROCESS
def test_context_variables_reach_the_job(open_face: Open) -> None:
    """The submitter's context variables are those of the job's request."""
    caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller")
    seen: list[str] = []

    class Curious(FakeRemote):
        async def create(self, job_id: str, request: JobRequest) -> News:
            seen.append(caller.get())
            return await super().create(job_id, request)

    driver = open_face(FakeClient(Curious(seconds=0.0)))

    def submit() -> str:
        caller.set("alice")
        return driver.start()

    job_id = (
        contextvars.copy_context().run(submit)
        if driver.face == "sync"
        else driver.do("wait", _start_as(driver, caller))
    )
    if driver.face == "sync":
        driver.do("wait", job_id)
    assert seen == ["alice"]


def _start_as(driver: Driver, caller: contextvars.ContextVar[str]) -> str:
    async def submit() -> str:
        caller.set("alice")
        reply = await driver.handler.start_background_task("q")
        return str(reply["job_id"])

    return str(driver._resolve(submit()))


def test_reprs_tell_without_the_question(open_face: Open) -> None:
    """The reprs of a handler and of a handle tell ids and statuses, never the question, and escape as HTML."""
    config = O3ProConfig(endpoint="https://x", api_key="k", efforts=("<b>",))
    driver = open_face(FakeClient(FakeRemote(seconds=0.0), config))
    job = driver.do("submit", "SECRET <script>", "<b>")
    driver.do("wait", of=job)
    for text in (
        repr(job),
        repr(driver.handler),
        repr(driver.handler.jobs),
        job._repr_html_(),
        driver.handler._repr_html_(),
    ):
        assert "SECRET" not in text
        assert "completed" in text
    assert job.id in driver.handler._repr_html_()
    for markup in (job._repr_html_(), driver.handler._repr_html_()):
        assert "<b>" not in markup
        assert "<script>" not in markup


# --- closing ------------------------------------------------------------------------------------------------


def test_close_cancels_what_is_under_way(open_face: Open) -> None:
    """Closing a handler in memory cancels its jobs at the service; what it knows stays readable."""
    client = fake(seconds=FOREVER)
    driver = open_face(client)
    job = driver.do("submit", "q")
    driver.until(job.id, lambda status: status["status"] == "running")
    driver.close()
    assert client.remote.counts["cancel"] == 1
    assert client.remote.is_closed
    assert driver.do("check_status", job.id)["status"] == "cancelled"
    assert "closed" in repr(driver.handler)


def test_close_detaches_where_asked(open_face: Open) -> None:
    """With `on_close="detach"` the service is left to work on, and a waiter learns that the handler let go."""
    client = fake(seconds=FOREVER)
    driver = open_face(client, on_close="detach")
    job = driver.do("submit", "q")
    driver.until(job.id, lambda status: status["status"] == "running")
    outcome: list[type[BaseException]] = []
    waiters = [
        threading.Thread(target=lambda verb=verb: outcome.append(_raised(lambda: driver.do(verb, of=job))))
        for verb in ("result", "wait")
    ]
    for waiter in waiters:
        waiter.start()
    driver.close()
    for waiter in waiters:
        waiter.join()
    assert outcome == [HandlerClosed, HandlerClosed]
    assert client.remote.counts["cancel"] == 0
    assert driver.do("check_status", job.id)["status"] == "running"
    assert driver.do("wait", job.id)["error"] == "ジョブはまだ完了していません"


def _raised(call: Callable[[], object]) -> type[BaseException]:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the type is what is asked
        call()
    return caught.type


def test_closed_handler_answers(open_face: Open) -> None:
    """A closed handler takes no job, says what to do, and still reads; closing again does nothing."""
    driver = open_face()
    job_id = driver.start()
    driver.do("wait", job_id)
    for _ in range(2):
        driver.close()
    reply = driver.do("start_background_task", "q")
    assert reply == {
        "success": False,
        "error": "ハンドラーは閉じられています。新しいハンドラーを作成してください",
        "question": "q",
        "effort": "low",
    }
    with pytest.raises(HandlerClosed):
        driver.do("submit", "q")
    with pytest.raises(HandlerClosed):
        driver.do("attach", "resp_1")
    assert driver.do("get_result", job_id)["success"]
    assert driver.do("wait", job_id)["success"]
    assert driver.do("wait_all")[job_id]["success"]
    assert driver.do("cancel_job", job_id)["error"] == "ジョブは既に終了しています"
    removed = driver.do("remove_job", job_id)
    in_memory = not driver.handler._store.durable
    assert removed["success"] is in_memory, "a file is left as it was closed"
    assert in_memory or removed["error"] == reply["error"]
