"""
What is known of a job: the request, the facts that answers bring, and the record that holds both.

All of it is frozen. A `JobRecord` is the only truth about a job; it changes by being replaced with the record
that `apply` answers, so whoever holds one holds a consistent snapshot.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from o3pro_bg._echo import without_texts
from o3pro_bg._states import JobStatus, step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from o3pro_bg._budget import Limits
    from o3pro_bg._states import Event

log = logging.getLogger("o3pro_bg")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """
    What the user asked for.

    Attributes:
        question: The prompt. It is kept out of every repr.
        effort: The reasoning effort, a word of the configuration.
        deployment: The deployment that answers.
        options: More arguments of the Responses API, as JSON values.
        timeout: Seconds from submission after which the job is cancelled and fails, or None.
        endpoint: The URL of the service, under which `responses` lies.
        dedupe_key: What no second job of the same store has, or None.
        priority: Of the jobs that wait to be sent, the one with the highest goes first.
        is_whole: Whether question and options are here; a store may have kept their hashes alone.
    """

    question: str = field(repr=False)
    effort: str
    deployment: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    endpoint: str = field(default="", repr=False)
    dedupe_key: str | None = field(default=None, repr=False)
    priority: int = 0
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the service billed; reasoning tokens are part of the output, cached ones of the input."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """
    Why a job failed.

    Attributes:
        code: The cause in one word: the service's own error code, or one that has a sentence in `_sentences`.
        detail: What the service said beside it.
    """

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """
    What one answer of the service says about a job; None where it says nothing.

    Attributes:
        event: What happened; None moves nothing (an unknown word, or a fact that is not a move).
        poll_after: Seconds until the service wants to be asked again.
        limits: What the service allows the deployment in a minute.
    """

    event: Event | None = None
    response_id: str | None = None
    request_id: str | None = None
    answer: str | None = field(default=None, repr=False)
    output_items: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    failure: Failure | None = None
    usage: Usage | None = None
    model: str | None = None
    poll_after: float | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """
    A frozen snapshot of a job.

    Attributes:
        created_at: Unix time of the submission, in seconds.
        started: The same moment on the monotonic clock, in seconds.
        ended: The terminal moment on the monotonic clock, or None.
        sent_at: Unix time at which a create left that may have arrived, or None.
        cancel_requested_at: Unix time of the first wish to cancel that still stands, or None.
        answer: The text, or None where there is none here.
        model: The model that answers, as the service calls it, or None.
        waiting: Why the job makes no progress right now, in one word, or an empty string.
        doubtful: How many creates left of which nobody knows whether they arrived, before the one of `sent_at`.
        epoch: Which time of being held this belongs to, as its store counts; nothing that was made of a record of
            another epoch takes its place.
    """

    job_id: str
    request: JobRequest
    created_at: float
    started: float
    status: JobStatus = JobStatus.STARTED
    ended: float | None = None
    response_id: str | None = None
    request_id: str | None = None
    sent_at: float | None = None
    cancel_requested_at: float | None = None
    answer: str | None = field(default=None, repr=False)
    output_items: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    failure: Failure | None = None
    usage: Usage | None = None
    model: str | None = None
    waiting: str = ""
    doubtful: int = 0
    epoch: int = field(default=0, compare=False)

    @property
    def lacks_answer(self) -> bool:
        """Tell whether the job has an answer that is not kept here, but at the service."""
        return self.status is JobStatus.COMPLETED and self.answer is None

    def elapsed(self, now: float) -> float:
        """Answer the seconds from submission to the terminal moment, or to `now` on the monotonic clock."""
        return max(0.0, (now if self.ended is None else self.ended) - self.started)

    def age(self, now: float) -> float | None:
        """Answer for how many of these seconds the service has had the job; None where nobody knows since when."""
        if self.sent_at is None:
            return None
        return max(0.0, self.elapsed(now) - max(0.0, self.sent_at - self.created_at))

    def apply(self, news: News, at: float) -> JobRecord:
        """
        Answer the record after these news, which is this very record where they change nothing.

        A terminal status stays, whatever comes later; ids that were unknown, and the newest usage, are still booked.
        """
        facts: dict[str, Any] = {
            name: value
            for name in ("response_id", "request_id", "model")
            if (value := getattr(news, name)) is not None and getattr(self, name) is None
        }
        if news.usage not in (None, self.usage):  # an early answer may count zeros
            facts["usage"] = news.usage
        if self.status.is_terminal:
            log.debug("job %s is %s: late news (%s) do not move it", self.job_id, self.status, news.event)
        else:
            status = self.status if news.event is None else step(self.status, news.event)
            facts |= self._move(news, status, at)
        return replace(self, **facts) if facts else self

    def _without_question(self, failure: Failure | None, status: JobStatus) -> Failure | None:
        """Answer why the job failed, without the question, which some services and gateways echo."""
        if failure is None:
            return Failure("unknown") if status is JobStatus.FAILED else None
        said = without_texts(failure.detail, self.request.question, self.request.options)
        return failure if said == failure.detail else replace(failure, detail=said)

    def _move(self, news: News, status: JobStatus, at: float) -> dict[str, Any]:
        if status.is_terminal:
            return {
                "status": status,
                "ended": at,
                "answer": news.answer,
                "output_items": news.output_items,
                "failure": self._without_question(news.failure, status),
                "waiting": "",
            }
        changed = {"status": status, "waiting": ""}
        return changed if (self.status, self.waiting) != (status, "") else {}
