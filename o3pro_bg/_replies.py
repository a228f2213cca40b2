"""The dictionaries of the specification: their types, and how a record becomes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Required, TypedDict

from o3pro_bg._records import Failure
from o3pro_bg._sentences import explain, say
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord
    from o3pro_bg._sentences import Language


class _Reply(TypedDict, total=False):
    success: Required[bool]
    error: str
    status: str
    question: str
    effort: str


class StartReply(_Reply, total=False):
    """What `start_background_task` answers."""

    job_id: str


class StatusReply(_Reply, total=False):
    """What `check_status` answers; `elapsed_time` is in seconds."""

    elapsed_time: float


class ResultReply(_Reply, total=False):
    """What `get_result` and `wait` answer; `total_time` is in seconds."""

    response: str
    total_time: float


class CancelReply(_Reply, total=False):
    """What `cancel_job` and `remove_job` answer."""

    job_id: str


class ListedJob(TypedDict):
    """One of the jobs that `list_active_jobs` answers; `elapsed_time` is in seconds."""

    job_id: str
    status: str
    question: str
    effort: str
    elapsed_time: float


def reason(language: Language, record: JobRecord) -> str:
    """Answer why a job failed, and the way back where there is one."""
    failure = record.failure or Failure("unknown")
    text = explain(language, failure.code, failure.detail)
    if failure.code == "submission_uncertain" and record.response_id is not None:
        text += say(language, "known_after_all", response_id=record.response_id)
    return text


def error_of(record: JobRecord, language: Language) -> str | None:
    """Answer why a job failed or was cancelled, or None where it did neither."""
    if record.status is JobStatus.CANCELLED:
        return say(language, "cancelled")
    if record.failure is None:
        return None
    return say(language, "api_error", detail=reason(language, record))


def started(record: JobRecord) -> StartReply:
    """Answer for a job that was taken on, or that is there already under the same key."""
    return {
        "success": True,
        "job_id": record.job_id,
        "status": record.status.value,
        "question": record.request.question,
        "effort": record.request.effort,
    }


def status(record: JobRecord, now: float, language: Language) -> StatusReply:
    """Answer how far the job is; `success` says that the query worked."""
    reply: StatusReply = {
        "success": True,
        "status": record.status.value,
        "elapsed_time": record.elapsed(now),
        "question": record.request.question,
        "effort": record.request.effort,
    }
    if (error := error_of(record, language)) is not None:
        reply["error"] = error
    return reply


def result(record: JobRecord, now: float, language: Language) -> ResultReply:
    """Answer what came of the job, or that nothing has come of it yet."""
    if not record.status.is_terminal:
        return {"success": False, "error": say(language, "not_finished"), "status": record.status.value}
    reply: ResultReply = {
        "success": record.status is JobStatus.COMPLETED and not record.lacks_answer,
        "status": record.status.value,
        "total_time": record.elapsed(now),
        "question": record.request.question,
        "effort": record.request.effort,
    }
    if reply["success"] or (record.status is JobStatus.FAILED and record.answer):
        reply["response"] = record.answer or ""
    error = say(language, "answer_not_here") if record.lacks_answer else error_of(record, language)
    if error is not None:
        reply["error"] = error
    return reply


def listed(record: JobRecord, now: float) -> ListedJob:
    """Answer one line of the list."""
    return {
        "job_id": record.job_id,
        "status": record.status.value,
        "question": record.request.question,
        "effort": record.request.effort,
        "elapsed_time": record.elapsed(now),
    }


def removed(record: JobRecord) -> CancelReply:
    """Answer for a job that this call has removed."""
    return {"success": True, "job_id": record.job_id, "status": record.status.value}


def cancelled(record: JobRecord) -> CancelReply:
    """Answer for a job that this call has cancelled."""
    return {**removed(record), "question": record.request.question, "effort": record.request.effort}


def left_alone(record: JobRecord, language: Language, sentence: str, **values: object) -> CancelReply:
    """Answer for a job that this call has not cancelled, or not removed, and why."""
    error = say(language, sentence, **values)
    return {"success": False, "error": error, "job_id": record.job_id, "status": record.status.value}
