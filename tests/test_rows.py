"""What is written of a record is what is read of it; nothing private is written unasked; damage is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from o3pro_bg._records import Failure, JobRecord, JobRequest, Usage
from o3pro_bg._sqlite.rows import Row, crc_of, record_from, request_from_text, request_to_text, row_from, state_to_text
from o3pro_bg._states import JobStatus

REQUEST = JobRequest(
    "なぜ? \0 \U0001f600",
    "high",
    "my-o3",
    {"instructions": "the options", "metadata": {"a": "b"}},
    timeout=60.5,
    endpoint="https://x/openai/v1/",
    dedupe_key="key-1",
    priority=-7,
)
ENDED = JobRecord(
    "job-1",
    REQUEST,
    1.7e9,
    100.0,
    status=JobStatus.COMPLETED,
    ended=160.0,
    response_id="resp_1",
    request_id="req_1",
    sent_at=1.7e9 + 1,
    answer="the answer: 42 \0",
    output_items=({"type": "message", "content": [{"text": "the item"}]},),
    failure=Failure("incomplete", "why"),
    usage=Usage(10, 200, 150, 5),
    model="o3-pro-2025-06-10",
)
FRESH = JobRecord("job-1", REQUEST, 1.7e9, 100.0, waiting="rate_limit")


def reread(record: JobRecord, *, keep_text: bool = True, now_mono: float = 500.0, now_wall: float = 1.7e9) -> JobRecord:
    """Answer what becomes of a record that is written, and read at another time."""
    return record_from(
        record.job_id,
        request_from_text(request_to_text(record.request, keep_text=keep_text)),
        state_to_text(record, keep_text=keep_text),
        cancel_requested_at=record.cancel_requested_at,
        now_mono=now_mono,
        now_wall=now_wall,
    )


def changed(text: str, **facts: Any) -> str:
    """Answer the text with some facts changed."""
    return json.dumps({**json.loads(text), **facts})


@pytest.mark.parametrize("record", [FRESH, ENDED], ids=["under way", "ended"])
def test_record_goes_there_and_back(record: JobRecord) -> None:
    """Every field of a record, and of its request, is what it was."""
    assert reread(record, now_mono=100.0) == record


def test_every_field_is_written() -> None:
    """A field that is added to a record or a request has to be written, or to be named here."""
    assert {field.name for field in dataclasses.fields(JobRequest)} == json.loads(
        request_to_text(REQUEST, keep_text=True)
    ).keys() - {"v"}
    elsewhere = {"job_id", "request", "cancel_requested_at", "started", "ended", "epoch"}
    state = json.loads(state_to_text(ENDED, keep_text=True))
    assert {field.name for field in dataclasses.fields(JobRecord)} - elsewhere == state.keys() - {"v", "total_time"}


def test_age_is_told_by_the_wall_clock() -> None:
    """A job that was submitted 50 s ago in Unix time is 50 s old on this process's monotonic clock."""
    record = reread(FRESH, now_mono=500.0, now_wall=1.7e9 + 50)
    assert (record.started, record.elapsed(500.0)) == (450.0, 50.0)


def test_no_job_is_younger_than_nothing() -> None:
    """Where the clock was set back, a job is taken to be new."""
    assert reread(FRESH, now_mono=500.0, now_wall=1.7e9 - 1000).elapsed(500.0) == 0


def test_total_time_is_kept() -> None:
    """How long a job took does not depend on when it is read."""
    record = reread(ENDED, now_mono=5.0, now_wall=1.7e9 + 86_400)
    assert record.elapsed(9e9) == pytest.approx(60.0)


def test_no_monotonic_time_is_written() -> None:
    """The texts of one job are the same in whatever process they are written."""
    shifted = dataclasses.replace(ENDED, started=1100.0, ended=1160.0)
    assert state_to_text(shifted, keep_text=True) == state_to_text(ENDED, keep_text=True)


def test_the_wish_to_cancel_is_not_in_the_state() -> None:
    """What anybody may set is no part of what the holder writes."""
    wished = dataclasses.replace(FRESH, cancel_requested_at=1.7e9 + 5)
    assert state_to_text(wished, keep_text=True) == state_to_text(FRESH, keep_text=True)
    assert reread(wished).cancel_requested_at == 1.7e9 + 5


def test_text_is_kept_out() -> None:
    """Without text, a hash of the question is all that is written of it, and what is read says so."""
    state = state_to_text(ENDED, keep_text=False)
    texts = request_to_text(REQUEST, keep_text=False) + state
    assert "the " not in texts
    assert "why" not in texts  # a service's error may quote the question
    record = reread(ENDED, keep_text=False, now_mono=100.0)
    digest = "sha256:" + hashlib.sha256(REQUEST.question.encode()).hexdigest()
    request = dataclasses.replace(REQUEST, question=digest, options={}, is_whole=False)
    bare = dataclasses.replace(ENDED, answer=None, output_items=(), failure=Failure("incomplete"))
    assert record == dataclasses.replace(bare, request=request)


def test_hash_is_not_hashed_again() -> None:
    """A request that is not whole keeps the hash that it has."""
    once = request_from_text(request_to_text(REQUEST, keep_text=False))
    assert request_from_text(request_to_text(once, keep_text=False)) == once
    assert request_from_text(request_to_text(once, keep_text=True)) == once


def test_texts_are_for_people() -> None:
    """A question stands in the file as it was typed."""
    assert "なぜ? " in request_to_text(REQUEST, keep_text=True)


def test_lone_surrogates_are_written_too() -> None:
    """What has no place in UTF-8 is escaped, and read as it was."""
    record = dataclasses.replace(ENDED, answer="half a \ud83d pair")
    state_to_text(record, keep_text=True).encode()
    assert reread(record).answer == record.answer
    state_to_text(record, keep_text=False).encode()


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}], ids=type)
def test_what_is_no_json_is_refused(value: Any) -> None:
    """An option or output item that is no JSON value is a ValueError that does not tell what it is."""
    with pytest.raises(ValueError, match=r"^not to be written as JSON$"):
        request_to_text(dataclasses.replace(REQUEST, options={"x": value}), keep_text=True)
    with pytest.raises(ValueError, match=r"^not to be written as JSON$"):
        state_to_text(dataclasses.replace(ENDED, output_items=({"x": value},)), keep_text=True)


def test_what_is_too_deep_is_refused() -> None:
    """A value that is nested without end is a ValueError."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"^not to be written as JSON$"):
        state_to_text(dataclasses.replace(ENDED, output_items=({"x": deep},)), keep_text=True)
    while deep:  # taken apart by hand: not every Python does it without running out of stack
        deep = deep.pop()


def test_later_versions_may_add_facts() -> None:
    """Keys that are unknown are passed over, and those that are missing have their defaults."""
    request = request_from_text(json.dumps({"v": 1, "question": "q", "effort": "low", "colour": "red"}))
    assert request == JobRequest("q", "low")
    text = json.dumps({"v": 1, "created_at": 5, "status": "started", "colour": "red"})
    record = record_from("a", request, text, cancel_requested_at=None, now_mono=10.0, now_wall=5.0)
    assert record == JobRecord("a", request, 5.0, 10.0)


def test_an_end_without_a_duration_took_none() -> None:
    """A job that ended, and of which nothing is written of how long it took, took no time."""
    text = json.dumps({"v": 1, "created_at": 5, "status": "failed"})
    record = record_from("a", REQUEST, text, cancel_requested_at=None, now_mono=10.0, now_wall=5.0)
    assert record.ended == record.started


@pytest.mark.parametrize(("epoch", "known"), [(3, 3), ("damaged", 0)])
def test_a_damaged_row_keeps_its_epoch(epoch: Any, known: int) -> None:
    """A damaged row has no state, and has ended; its epoch still tells who holds the job, if that can be read."""
    row = row_from(7, "a", "https://x/", "state", crc_of("a", "another"), 0, 1.5, epoch)
    assert row == Row(7, "a", "https://x/", None, ended=True, cancel_requested_at=None, epoch=known)


DAMAGED_TEXTS = ["", "{", "null", "5", "[]", '"v"', "{}", '{"v": 2}', '{"v": 1}', "[" * 100_000, "\ud800"]


@pytest.mark.parametrize("text", DAMAGED_TEXTS, ids=lambda text: repr(text[:10]))
def test_damaged_texts_are_told(text: str) -> None:
    """Whatever is not a text of ours is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        request_from_text(text)
    with pytest.raises(ValueError, match=r"."):
        record_from("a", REQUEST, text, cancel_requested_at=None, now_mono=1.0, now_wall=1.0)


@pytest.mark.parametrize(
    "facts",
    [
        *[{name: 5} for name in ("question", "effort", "deployment", "options", "endpoint", "dedupe_key", "is_whole")],
        *[{"priority": value} for value in ("5", True, 1.5)],
        *[{"timeout": value} for value in ("5", True, float("nan"), float("inf"), 10**400)],
        {"question": None},
        {"effort": None},
        {"v": "1"},
    ],
    ids=str,
)
def test_damaged_requests_are_told(facts: dict[str, Any]) -> None:
    """A fact of the wrong type, or one that is missing without a default, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        request_from_text(changed(request_to_text(REQUEST, keep_text=True), **facts))


@pytest.mark.parametrize(
    "facts",
    [
        *[{name: 5} for name in ("status", "response_id", "request_id", "answer", "output_items", "failure", "usage")],
        *[{name: "5"} for name in ("created_at", "total_time", "sent_at")],
        {"model": []},
        {"waiting": {}},
        {"status": "exploded"},
        {"status": None},
        {"created_at": None},
        {"output_items": [5]},
        {"failure": {"detail": "no code"}},
        {"failure": {"code": 5}},
        {"usage": {"input_tokens": 5}},
        {"usage": {"input_tokens": 5, "output_tokens": 5.5}},
        {"usage": {"input_tokens": 5, "output_tokens": True}},
    ],
    ids=str,
)
def test_damaged_states_are_told(facts: dict[str, Any]) -> None:
    """A fact of the wrong type, or one that is missing without a default, is a ValueError."""
    text = changed(state_to_text(ENDED, keep_text=True), **facts)
    with pytest.raises(ValueError, match=r"."):
        record_from("a", REQUEST, text, cancel_requested_at=None, now_mono=1.0, now_wall=1.0)
