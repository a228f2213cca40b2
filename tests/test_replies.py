"""Every reply has exactly the keys of the specification's decisions, in both languages, and none is None."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from o3pro_bg import _replies
from o3pro_bg._records import Failure, JobRecord, JobRequest
from o3pro_bg._sentences import EN, JA, Language
from o3pro_bg._states import JobStatus

NOW = 130.0
BOTH = pytest.mark.parametrize("language", ["ja", "en"])
UNFINISHED = pytest.mark.parametrize("status", [JobStatus.STARTED, JobStatus.RUNNING])
FAILED = Failure("server_error", "it broke")


def record(status: JobStatus, **facts: Any) -> JobRecord:
    """Answer the record of a job that was submitted at 100 s and, if terminal, ended at 120 s."""
    request = JobRequest("Why?", "high", "my-o3")
    return JobRecord("job-1", request, 1.7e9, 100.0, status, 120.0 if status.is_terminal else None, **facts)


def test_started() -> None:
    """A started job answers success, its id, its status, the question and the effort."""
    assert _replies.started(record(JobStatus.RUNNING))["status"] == "running", "one that was there under its key"
    assert _replies.started(record(JobStatus.STARTED)) == {
        "success": True,
        "job_id": "job-1",
        "status": "started",
        "question": "Why?",
        "effort": "high",
    }


@BOTH
@UNFINISHED
def test_status_of_a_job_under_way(status: JobStatus, language: Language) -> None:
    """The status of a job under way answers the seconds so far, and no error."""
    assert _replies.status(record(status), NOW, language) == {
        "success": True,
        "status": status.value,
        "elapsed_time": 30.0,
        "question": "Why?",
        "effort": "high",
    }


@pytest.mark.parametrize(
    ("status", "failure", "language", "error"),
    [
        ("completed", None, "ja", {}),
        ("failed", FAILED, "ja", {"error": "API Error: server_error: it broke"}),
        ("failed", Failure("lost"), "ja", {"error": f"API Error: {JA['failure.lost']}"}),
        ("failed", Failure("lost"), "en", {"error": f"API Error: {EN['failure.lost']}"}),
        ("cancelled", None, "ja", {"error": "ジョブはキャンセルされました"}),
        ("cancelled", None, "en", {"error": "The job was cancelled"}),
    ],
)
def test_status_of_an_ended_job(
    status: str, failure: Failure | None, language: Language, error: dict[str, str]
) -> None:
    """The status of an ended job is a success of the query; its seconds stand still; failed and cancelled say why."""
    assert _replies.status(record(JobStatus(status), failure=failure), NOW, language) == {
        "success": True,
        "status": status,
        "elapsed_time": 20.0,
        "question": "Why?",
        "effort": "high",
        **error,
    }


@UNFINISHED
@pytest.mark.parametrize(
    ("language", "error"), [("ja", "ジョブはまだ完了していません"), ("en", "The job has not finished yet")]
)
def test_result_of_a_job_under_way(status: JobStatus, language: Language, error: str) -> None:
    """The result of a job under way is exactly success, error and status."""
    reply = _replies.result(record(status, answer="half"), NOW, language)
    assert reply == {"success": False, "error": error, "status": status.value}


@BOTH
@pytest.mark.parametrize("answer", ["because", ""])
def test_result_of_a_completed_job(language: Language, answer: str) -> None:
    """The result of a completed job always has its response, an empty one too."""
    assert _replies.result(record(JobStatus.COMPLETED, answer=answer), NOW, language) == {
        "success": True,
        "response": answer,
        "status": "completed",
        "total_time": 20.0,
        "question": "Why?",
        "effort": "high",
    }


@pytest.mark.parametrize(("language", "error"), [("ja", JA["answer_not_here"]), ("en", EN["answer_not_here"])])
def test_result_of_a_job_whose_answer_is_not_here(language: Language, error: str) -> None:
    """A completed job whose answer was not kept, and cannot be had, says so and stays completed."""
    assert _replies.result(record(JobStatus.COMPLETED, answer=None), NOW, language) == {
        "success": False,
        "error": error,
        "status": "completed",
        "total_time": 20.0,
        "question": "Why?",
        "effort": "high",
    }


@BOTH
@pytest.mark.parametrize(("answer", "partial"), [("half", {"response": "half"}), ("", {}), (None, {})])
def test_result_of_a_failed_job(language: Language, answer: str | None, partial: dict[str, str]) -> None:
    """The result of a failed job says why, and holds the partial text where there is some."""
    assert _replies.result(record(JobStatus.FAILED, answer=answer, failure=FAILED), NOW, language) == {
        "success": False,
        "error": "API Error: server_error: it broke",
        "status": "failed",
        "total_time": 20.0,
        "question": "Why?",
        "effort": "high",
        **partial,
    }


@pytest.mark.parametrize("answer", ["half", "", None])
@pytest.mark.parametrize(
    ("language", "error"), [("ja", "ジョブはキャンセルされました"), ("en", "The job was cancelled")]
)
def test_result_of_a_cancelled_job(language: Language, error: str, answer: str | None) -> None:
    """The result of a cancelled job says so, and holds no text, whatever the service had generated by then."""
    assert _replies.result(record(JobStatus.CANCELLED, answer=answer), NOW, language) == {
        "success": False,
        "error": error,
        "status": "cancelled",
        "total_time": 20.0,
        "question": "Why?",
        "effort": "high",
    }


@pytest.mark.parametrize("status", JobStatus)
def test_listed(status: JobStatus) -> None:
    """A line of the list is id, status, question, effort and seconds, for jobs under way and ended ones alike."""
    assert _replies.listed(record(status, answer="x", failure=FAILED), NOW) == {
        "job_id": "job-1",
        "status": status.value,
        "question": "Why?",
        "effort": "high",
        "elapsed_time": 20.0 if status.is_terminal else 30.0,
    }


@pytest.mark.parametrize(("language", "says"), [("ja", "attach('resp_1')"), ("en", "take it up with attach('resp_1')")])
def test_an_uncertain_job_whose_id_is_known_says_so(language: Language, says: str) -> None:
    """Nobody is told to ask again for what runs at the service."""
    job = record(JobStatus.FAILED, failure=Failure("submission_uncertain"))
    assert says in str(_replies.error_of(replace(job, response_id="resp_1"), language))
    assert "attach" not in str(_replies.error_of(job, language))


def test_removed() -> None:
    """A removed job answers its id and the status in which it had ended."""
    assert _replies.removed(record(JobStatus.FAILED)) == {"success": True, "job_id": "job-1", "status": "failed"}


def test_cancelled() -> None:
    """A cancelled job answers success, its id, `cancelled`, the question and the effort."""
    assert _replies.cancelled(record(JobStatus.CANCELLED)) == {
        "success": True,
        "job_id": "job-1",
        "status": "cancelled",
        "question": "Why?",
        "effort": "high",
    }


@pytest.mark.parametrize(
    ("sentence", "language", "error"),
    [
        ("already_finished", "ja", "ジョブは既に終了しています"),
        ("already_finished", "en", "The job has already ended"),
        ("not_finished", "ja", "ジョブはまだ完了していません"),
        ("cancel_refused", "en", EN["cancel_refused"]),
    ],
)
def test_left_alone(sentence: str, language: Language, error: str) -> None:
    """A job that could not be cancelled, or removed, answers exactly why, its id and its status."""
    assert _replies.left_alone(record(JobStatus.COMPLETED), language, sentence) == {
        "success": False,
        "error": error,
        "job_id": "job-1",
        "status": "completed",
    }


@pytest.mark.parametrize("status", JobStatus)
def test_statuses_are_plain_words(status: JobStatus) -> None:
    """Every status in a reply is a plain str, so that it prints, pickles and compares as one."""
    job = record(status, failure=FAILED)
    replies: list[Any] = [
        _replies.started(job),
        _replies.status(job, NOW, "ja"),
        _replies.result(job, NOW, "ja"),
        _replies.listed(job, NOW),
        _replies.cancelled(job),
        _replies.left_alone(job, "ja", "not_finished"),
    ]
    assert {type(reply["status"]) for reply in replies} == {str}
