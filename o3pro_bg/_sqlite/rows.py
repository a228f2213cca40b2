"""
What is written of a record: two JSON texts, versioned and allow-listed, and the row that holds one of them.

The request is written once; the state again whenever the job moves. A text holds wall-clock time and durations
alone, for the monotonic clock of one process means nothing to another. Keys that are unknown are passed over, so
that a later version may add some; whatever is not what it should be is a `ValueError`: the text is damaged. Damage
that leaves a text readable is found by its checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from o3pro_bg._records import Failure, JobRecord, JobRequest, Usage
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VERSION: Final = 1


class Row(NamedTuple):
    """A job as a file has it; `state` is None where the row is damaged."""

    number: int
    job_id: str
    endpoint: str
    state: str | None
    ended: bool
    cancel_requested_at: float | None
    epoch: int


def crc_of(job_id: str, text: str) -> int:
    """Answer the checksum of a text of this job."""
    return zlib.crc32(f"{job_id}\n{text}".encode())


def row_from(number: int, job_id: Any, endpoint: Any, state: Any, crc: Any, ended: Any, wish: Any, epoch: Any) -> Row:
    """Answer the row that has these columns, which hold what the file holds."""
    is_sound = (
        isinstance(job_id, str)
        and isinstance(state, str)
        and crc_of(job_id, state) == crc
        and ended in (0, 1)
        and isinstance(wish, float | None)
        and isinstance(epoch, int)
    )
    if is_sound:
        return Row(number, job_id, str(endpoint), state, bool(ended), wish, epoch)
    epoch = epoch if isinstance(epoch, int) else 0
    return Row(number, str(job_id), str(endpoint), None, ended=True, cancel_requested_at=None, epoch=epoch)


def request_to_text(request: JobRequest, *, keep_text: bool) -> str:
    """
    Answer the text of a request; without its question and options, of which a hash stays, unless `keep_text`.

    Raises:
        ValueError: An option is no JSON value.
    """
    facts = {name: getattr(request, name) for name in _REQUEST}
    if keep_text:
        facts["options"] = dict(request.options)
    else:
        facts |= {"options": {}, "is_whole": False}
        if request.is_whole:
            facts["question"] = _digest(request.question)
    return _dump(facts)


def request_from_text(text: str) -> JobRequest:
    """
    Answer the request that was written so.

    Raises:
        ValueError: The text is damaged.
    """
    facts = _load(text, _REQUEST)
    _expect(facts, "question", "effort")
    return JobRequest(**facts)


def state_to_text(record: JobRecord, *, keep_text: bool) -> str:
    """
    Answer the text of all that moves in a record, but for `cancel_requested_at`, which others may set.

    Without `keep_text` the answer and the output items are left out, and what is told of a failure beside its code,
    which may quote the question.

    Raises:
        ValueError: An output item is no JSON value.
    """
    facts = {name: getattr(record, name) for name in _STATE if hasattr(record, name)}
    if record.ended is not None:
        facts["total_time"] = record.ended - record.started
    for name in ("failure", "usage"):
        facts[name] = None if facts[name] is None else asdict(facts[name])
    if not keep_text:
        del facts["output_items"], facts["answer"]
        if facts["failure"] is not None:
            del facts["failure"]["detail"]
    return _dump(facts)


def record_from(
    job_id: str,
    request: JobRequest,
    text: str,
    *,
    cancel_requested_at: float | None,
    now_mono: float,
    now_wall: float,
    epoch: int = 0,
) -> JobRecord:
    """
    Answer the record whose state was written so.

    Args:
        job_id: Our id of the job.
        request: Its request.
        text: Its state.
        cancel_requested_at: Unix time of the wish to cancel that stands, or None.
        now_mono: Any moment after the submission, on the monotonic clock.
        now_wall: The same moment in Unix time; a job that seems to be submitted later is taken to be new.
        epoch: Which time of being held it is that the file knows.

    Raises:
        ValueError: The text is damaged.
    """
    facts = _load(text, _STATE)
    _expect(facts, "created_at", "status")
    started = now_mono - max(0.0, now_wall - facts["created_at"])
    total_time = facts.pop("total_time", 0.0)
    return JobRecord(
        job_id,
        request,
        started=started,
        ended=started + total_time if facts["status"].is_terminal else None,
        cancel_requested_at=cancel_requested_at,
        epoch=epoch,
        **facts,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("no count")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _objects(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return tuple(map(_object, value))


def _failure(value: Any) -> Failure:
    facts = _pick(_object(value), {"code": _text, "detail": _text})
    _expect(facts, "code")
    return Failure(**facts)


def _usage(value: Any) -> Usage:
    facts = _pick(_object(value), dict.fromkeys(Usage.__slots__, _count))
    _expect(facts, "input_tokens", "output_tokens")
    return Usage(**facts)


_REQUEST: Final[Mapping[str, Callable[[Any], Any]]] = {
    "question": _text,
    "effort": _text,
    "deployment": _text,
    "options": _object,
    "timeout": _number,
    "endpoint": _text,
    "dedupe_key": _text,
    "priority": _count,
    "is_whole": _truth,
}
_STATE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "created_at": _number,
    "status": JobStatus,
    "total_time": _number,
    "response_id": _text,
    "request_id": _text,
    "sent_at": _number,
    "answer": _text,
    "output_items": _objects,
    "failure": _failure,
    "usage": _usage,
    "model": _text,
    "waiting": _text,
    "doubtful": _count,
}


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _dump(facts: Mapping[str, Any]) -> str:
    """Answer the facts as JSON, for people to read unless UTF-8 has no place for some of it."""
    facts = {"v": _VERSION} | {name: fact for name, fact in facts.items() if fact is not None}
    try:
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return text if _is_encodable(text) else json.dumps(facts, separators=(",", ":"))
    except (TypeError, RecursionError):
        raise ValueError("not to be written as JSON") from None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a service may answer with lone surrogates
        return False
    return True


def _load(text: str, checks: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    try:
        facts = _object(json.loads(text))
        if facts.get("v") != _VERSION:
            raise ValueError("another version")
        return _pick(facts, checks)
    except (RecursionError, OverflowError):
        raise ValueError("no text of ours") from None


def _pick(facts: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {name: check(facts[name]) for name, check in checks.items() if facts.get(name) is not None}


def _expect(facts: Mapping[str, Any], *names: str) -> None:
    if not facts.keys() >= {*names}:
        raise ValueError("incomplete")
