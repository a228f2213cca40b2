"""A continuation token holds what it takes to go on elsewhere, and nothing else; a damaged one is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._tokens import from_token, is_id, is_token, to_token
from o3pro_bg.errors import InvalidRequest, JobNotFinished

NO_IDS = ("", " ", "a b", ".", "..", ".x", "a\nb", "a\0b", "\ud800", "x" * 513)
FACTS = {
    "job_id": "job-1",
    "response_id": "resp_ä/1",
    "effort": "high",
    "deployment": "my-o3",
    "created_at": 1.7e9,
}


def record(response_id: str | None = "resp_ä/1") -> JobRecord:
    """Answer the record of an accepted job."""
    request = JobRequest("the question", "high", "my-o3", {"instructions": "the options"})
    return JobRecord("job-1", request, 1.7e9, 5.0, response_id=response_id, answer="the answer")


def forged(text: str | bytes, prefix: str = "o3pro-bg-1:") -> str:
    """Answer a token with this text inside."""
    return prefix + base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode()


def changed(**facts: Any) -> str:
    """Answer a token with some facts changed, or without those that are None."""
    return forged(json.dumps({name: fact for name, fact in {**FACTS, **facts}.items() if fact is not None}))


def test_token_goes_there_and_back() -> None:
    """What a token is made of is what is read from it: the ids, effort, deployment and time."""
    assert from_token(to_token(record())) == FACTS


def test_a_token_may_be_long() -> None:
    """Each of its texts may have 512 characters."""
    facts = {**FACTS, **dict.fromkeys(("job_id", "response_id", "effort", "deployment"), "x" * 512)}
    assert from_token(changed(**facts)) == facts


def test_token_holds_no_text() -> None:
    """Neither the question, the options nor the answer is in a token, however it is read."""
    token = to_token(record())
    inside = base64.urlsafe_b64decode(token.partition(":")[2])
    assert b"the " not in inside
    assert token.isascii()
    assert token.isprintable()


def test_token_needs_an_accepted_job() -> None:
    """A job that the service has not accepted has no token; the exception names the job."""
    with pytest.raises(JobNotFinished, match="no response id yet") as caught:
        to_token(record(response_id=None))
    assert caught.value.job_id == "job-1"


@pytest.mark.parametrize(
    ("text", "expected"), [("o3pro-bg-1:abc", True), ("o3pro-bg-9:abc", True), ("resp_1", False), ("", False)]
)
def test_token_is_told_from_a_response_id(text: str, expected: bool) -> None:
    """A token of any version is meant to be a token; a response id is not."""
    assert is_token(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("resp_1", True), ("x" * 512, True), ("a/b?c", True), ("é", True), *[(bad, False) for bad in NO_IDS]],
)
def test_ids(text: str, expected: bool) -> None:
    """An id is one printable word of moderate length, which does not lead up in a path."""
    assert is_id(text) is expected


def test_other_version_is_named() -> None:
    """A token of another version is refused as that, not as damaged."""
    with pytest.raises(InvalidRequest, match="another version"):
        from_token(forged(json.dumps(FACTS), prefix="o3pro-bg-2:"))


@pytest.mark.parametrize(
    "token",
    [
        "o3pro-bg-1:",
        "o3pro-bg-1:%%%%",
        "o3pro-bg-1:ü",
        to_token(record())[:-5],
        forged(b"\xff\xfe\xfd"),
        forged("{"),
        *[forged(body) for body in ("null", "5", "[]", '"text"', json.dumps([*FACTS]))],
        forged("[" * 100_000),
        changed(extra="x"),
        *[changed(**{name: 5}) for name in ("job_id", "response_id", "effort", "deployment")],
        changed(response_id=None),
        changed(created_at=None),
        changed(created_at="now"),
        changed(created_at=10**400),
        *[changed(created_at=float(text)) for text in ("nan", "inf", "-1")],
        changed(created_at=True),
        to_token(record()).replace(":", ":!"),
        *[changed(**{name: ["x"]}) for name in ("job_id", "response_id", "effort", "deployment")],
        *[changed(response_id=bad) for bad in ("", ".", "..", "../x", "a b", "a\nb", "x" * 513)],
        *[changed(job_id=bad) for bad in ("", "a\nb", "\x1b", "x" * 513)],
        *[changed(**{name: bad}) for name in ("effort", "deployment") for bad in ("a\nb", "x" * 513)],
    ],
    ids=lambda token: token[:30],
)
def test_damaged_token_is_refused(token: str) -> None:
    """Whatever is not exactly a token's facts is refused, with nothing of it in the message."""
    with pytest.raises(InvalidRequest, match=r"^this continuation token is damaged$"):
        from_token(token)
