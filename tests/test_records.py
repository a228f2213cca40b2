"""Records change by replacement alone: news move them as the table says, a terminal one stays as it is."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from o3pro_bg._records import Failure, JobRecord, JobRequest, News, Usage
from o3pro_bg._states import Event, IllegalTransition, JobStatus

SECRET = "the prompt, or what came of it"
FAILURE = Failure("server_error", "it broke")
ZEROS = Usage(0, 0)
USAGE = Usage(10, 200, 150, 5)

RECORD = JobRecord("job", JobRequest("q", "low"), 0.0, 0.0)


def record(**facts: Any) -> JobRecord:
    """Answer the record of a job that was submitted at 100 s."""
    return JobRecord("job-1", JobRequest(SECRET, "low", options={"instructions": SECRET}), 1.7e9, 100.0, **facts)


def ended(status: JobStatus = JobStatus.COMPLETED, **facts: Any) -> JobRecord:
    """Answer the record of a job that ended at 160 s."""
    return record(status=status, ended=160.0, **facts)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (Event.ANSWERED, JobStatus.COMPLETED),
        (Event.ERRORED, JobStatus.FAILED),
        (Event.LOST, JobStatus.FAILED),
        (Event.CANCELLED, JobStatus.CANCELLED),
    ],
)
def test_terminal_news_end_the_record(event: Event, status: JobStatus) -> None:
    """A terminal event brings status, end, answer and failure at once, and nothing is waited for any more."""
    after = record(waiting="rate_limit").apply(News(event, answer="text", failure=FAILURE), at=160.0)
    assert (after.status, after.ended, after.answer, after.failure, after.waiting) == (
        status,
        160.0,
        "text",
        FAILURE,
        "",
    )


@pytest.mark.parametrize(
    ("detail", "kept"),
    [
        ("it broke", "it broke"),
        (f"bad input: {SECRET}", "bad input: [the question]"),
        (f"bad input: {SECRET} is too long", "bad input: [the question]"),
    ],
)
def test_failures_do_not_echo_the_question(detail: str, kept: str) -> None:
    """A service that repeats the question in its error does not make us repeat it."""
    after = record().apply(News(Event.ERRORED, failure=Failure("invalid_prompt", detail)), at=160.0)
    assert after.failure == Failure("invalid_prompt", kept)


def test_short_questions_are_no_echo() -> None:
    """A question of a few letters stands in an error by chance, and is left there."""
    short = JobRecord("job-1", JobRequest("it", "low"), 1.7e9, 100.0)
    assert short.apply(News(Event.ERRORED, failure=FAILURE), at=160.0).failure == FAILURE


def test_failed_news_without_a_reason() -> None:
    """A job that failed without a reason still fails with one."""
    assert record().apply(News(Event.ERRORED), at=160.0).failure == Failure("unknown")


def test_news_under_way_carry_no_answer() -> None:
    """A job that runs has neither answer, failure nor end, whatever the body already holds."""
    after = record().apply(News(Event.PROGRESSED, answer="half", failure=FAILURE), at=120.0)
    assert after == dataclasses.replace(record(), status=JobStatus.RUNNING)


def test_news_leave_the_old_record_as_it_was() -> None:
    """Whoever holds a record holds a snapshot: applying news to it changes nothing in it."""
    before, copy = record(), record()
    assert before.apply(News(Event.ANSWERED, answer="text"), at=160.0) != before
    assert before == copy


@pytest.mark.parametrize("status", [JobStatus.STARTED, JobStatus.RUNNING])
def test_progress_ends_waiting(status: JobStatus) -> None:
    """An answer of the service clears the word for what the job waited for."""
    after = record(status=status, waiting="connection").apply(News(Event.PROGRESSED), at=1.0)
    assert (after.status, after.waiting) == (JobStatus.RUNNING, "")


@pytest.mark.parametrize(
    ("before", "news"),
    [
        (record(), News()),
        (record(), News(Event.ACCEPTED)),
        (record(status=JobStatus.RUNNING), News(Event.PROGRESSED)),
        (record(status=JobStatus.RUNNING), News(Event.ACCEPTED)),
        (record(response_id="resp_1", request_id="req-1"), News(response_id="resp_2", request_id="req-2")),
        (record(usage=USAGE), News(usage=Usage(10, 200, 150, 5))),
        (record(), News(poll_after=3.0)),
        (ended(), News(Event.CANCELLED, answer="late", failure=FAILURE)),
    ],
)
def test_news_that_change_nothing_answer_the_very_record(before: JobRecord, news: News) -> None:
    """News that bring nothing new answer the same object, so that nobody is told of a change."""
    assert before.apply(news, at=999.0) is before


def test_ids_are_booked_once() -> None:
    """The first response id and the first request id stay."""
    first = record().apply(News(Event.ACCEPTED, response_id="resp_1", request_id="req-1"), at=101.0)
    later = first.apply(News(Event.PROGRESSED, response_id="resp_2", request_id="req-2"), at=102.0)
    assert (later.response_id, later.request_id) == ("resp_1", "req-1")


def test_newest_usage_is_booked() -> None:
    """The bill is the last one: what an early answer counted, zeros say, does not stick."""
    after = record().apply(News(Event.ACCEPTED, usage=ZEROS), at=101.0)
    assert after.usage == ZEROS
    after = after.apply(News(Event.ANSWERED, usage=USAGE), at=160.0).apply(News(Event.ANSWERED), at=161.0)
    assert after.usage == USAGE


@pytest.mark.parametrize("status", [status for status in JobStatus if status.is_terminal])
@pytest.mark.parametrize("event", Event)
def test_late_news_book_facts_but_move_nothing(
    status: JobStatus, event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that has ended keeps status, end and answer; late ids and usage are booked, with a word at debug level."""
    before = ended(status, answer="text")
    with caplog.at_level(logging.DEBUG, "o3pro_bg"):
        after = before.apply(
            News(event, response_id="resp_1", request_id="req-1", answer="late", failure=FAILURE, usage=USAGE), at=999.0
        )
    assert after == dataclasses.replace(before, response_id="resp_1", request_id="req-1", usage=USAGE)
    assert [(entry.levelname, "job-1" in entry.message) for entry in caplog.records] == [("DEBUG", True)]


def test_impossible_event_raises_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that the table does not have is our bug: it raises, and the record is as before."""

    def refuse(status: JobStatus, event: Event) -> JobStatus:
        raise IllegalTransition(f"{status} {event}")

    monkeypatch.setattr("o3pro_bg._records.step", refuse)
    before, copy = record(), record()
    with pytest.raises(IllegalTransition):
        before.apply(News(Event.ANSWERED, answer="text", usage=USAGE), at=160.0)
    assert before == copy


@pytest.mark.parametrize(
    ("job", "now", "seconds"), [(record(), 130.0, 30.0), (record(), 99.0, 0.0), (ended(), 999.0, 60.0)]
)
def test_elapsed_runs_until_the_end(job: JobRecord, now: float, seconds: float) -> None:
    """Elapsed seconds are never negative and stop at the terminal moment."""
    assert job.elapsed(now) == seconds


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        (record(), None),
        (record(sent_at=1.7e9), 80.0),
        (record(sent_at=1.7e9 + 50), 30.0),
        (ended(sent_at=1.7e9 + 50), 10.0),
        (record(sent_at=1.7e9 + 900), 0.0),
        (record(sent_at=1.7e9 - 900), 80.0),
    ],
)
def test_age_is_what_the_service_had(job: JobRecord, seconds: float | None) -> None:
    """The age of a job is its time less what it waited until it was sent, whatever a clock that was set tells."""
    assert job.age(180.0) == seconds


def test_usage_counts_what_it_was_told() -> None:
    """Tokens that nobody counted are 0."""
    assert (Usage(5, 7).reasoning_tokens, Usage(5, 7).cached_tokens) == (0, 0)


@pytest.mark.parametrize("thing", [record(answer=SECRET), record().request, News(Event.ANSWERED, answer=SECRET)])
def test_repr_tells_no_text(thing: object) -> None:
    """No repr holds the question, the options or the answer."""
    assert SECRET not in repr(thing)


@pytest.mark.parametrize("thing", [record(), record().request, News(), FAILURE, USAGE])
def test_everything_is_frozen(thing: Any) -> None:
    """Nobody changes a record, or a part of one, in place."""
    name = dataclasses.fields(thing)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, name, "other")


def test_reprs_tell_no_text() -> None:
    """Neither a request, nor news, nor a record shows a question, an option, a key of the user's, or an answer."""
    item = {"arguments": "a canary"}
    request = JobRequest("a canary", "low", options=item, endpoint="a canary", dedupe_key="a canary")
    news = News(answer="a canary", output_items=(item,))
    record = JobRecord("job", request, 0.0, 0.0, answer="a canary", output_items=(item,))
    assert "canary" not in f"{request!r} {news!r} {record!r}"


@pytest.mark.parametrize("thing", [JobRequest("q", "low"), Usage(1, 2), Failure("x"), News(), RECORD], ids=repr)
def test_what_is_known_does_not_change(thing: Any) -> None:
    """Whoever holds one of these holds it as it is."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, dataclasses.fields(thing)[0].name, None)


def test_what_a_new_job_is() -> None:
    """A new job goes with the others, is all there, is not in doubt, and belongs to no time of being held."""
    assert (RECORD.request.priority, RECORD.request.is_whole, RECORD.doubtful, RECORD.epoch) == (0, True, 0, 0)
    assert dataclasses.replace(RECORD, epoch=7) == RECORD, "records of two epochs say the same"


@pytest.mark.parametrize(
    ("status", "answer", "lacks"),
    [
        (JobStatus.COMPLETED, None, True),
        (JobStatus.COMPLETED, "", False),
        (JobStatus.COMPLETED, "text", False),
        (JobStatus.FAILED, None, False),
        (JobStatus.RUNNING, None, False),
    ],
)
def test_an_answer_is_lacking(status: JobStatus, answer: str | None, lacks: bool) -> None:
    """Only a completed job lacks the answer that is not here."""
    assert dataclasses.replace(RECORD, status=status, answer=answer).lacks_answer is lacks
