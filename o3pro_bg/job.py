"""The typed handles of one job: names that users of Azure's pollers and of futures know."""

from __future__ import annotations

import html
import inspect
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import to_thread

from o3pro_bg._engine import CancelVerdict
from o3pro_bg._prices import cost_of
from o3pro_bg._replies import reason
from o3pro_bg._sentences import say
from o3pro_bg._states import JobStatus
from o3pro_bg._tokens import to_token
from o3pro_bg.errors import (
    DeadlineExceeded,
    HandlerClosed,
    JobCancelled,
    JobFailed,
    JobLost,
    StoreError,
    SubmissionUncertain,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from o3pro_bg._engine import Engine
    from o3pro_bg._portal import LoopThread
    from o3pro_bg._records import JobRecord, Usage

log = logging.getLogger("o3pro_bg")

HandleT = TypeVar("HandleT", bound="_Handle")
T = TypeVar("T")

_FAILURES = {"submission_uncertain": SubmissionUncertain, "lost": JobLost, "deadline": DeadlineExceeded}


def ended(record: JobRecord) -> JobRecord:
    """
    Answer this record, in which the job has ended.

    Raises:
        HandlerClosed: It has not, because the handler was closed.
    """
    if record.status.is_terminal:
        return record
    raise HandlerClosed(
        f"the handler was closed before job {record.job_id} ended; its response is {record.response_id}: a handler "
        "with the same store goes on with it, and so does attach",
        job_id=record.job_id,
        response_id=record.response_id,
    )


def answer_of(record: JobRecord) -> str:
    """
    Answer the text of a completed job.

    Raises:
        JobCancelled: It was cancelled.
        JobFailed: It failed; the subclass and its `code` tell how.
        HandlerClosed: It has not ended, because the handler was closed.
        StoreError: Its store keeps no text, and the service did not give the answer out.
    """
    ids = {"job_id": record.job_id, "response_id": record.response_id, "request_id": record.request_id}
    if record.lacks_answer:
        raise StoreError(say("en", "answer_not_here"), **ids)
    if record.status is JobStatus.COMPLETED:
        return record.answer or ""
    if (failure := ended(record).failure) is None:
        raise JobCancelled(f"job {record.job_id} was cancelled", **ids)
    code, detail = failure.code, failure.detail
    kind = _FAILURES.get(code, JobFailed)
    message = f"job {record.job_id} failed: {reason('en', record)}"
    raise kind(message, code=code, detail=detail, partial=record.answer or None, **ids)


def check_callback(callback: object, *, is_sync: bool = False) -> None:
    """Raise TypeError, with a sentence, for what cannot be called back; None is no callback at all."""
    if callback is not None and not callable(callback):
        raise TypeError(f"a callback has to be a function of one job, not {type(callback)}")
    if is_sync and inspect.iscoroutinefunction(callback):
        raise TypeError("a coroutine function is no callback of BackgroundHandler: use AsyncBackgroundHandler")


def guarded(callback: Callable[[HandleT], T], job: HandleT) -> T | None:
    """Call back; whatever that raises is the user's, is logged with its traceback, and harms nobody else."""
    try:
        return callback(job)
    except BaseException:
        log.exception("a callback of job %s failed", job.id)
        return None


def in_worker(callback: Callable[[Job], object], job: Job) -> Callable[[], None]:
    """Answer what calls back in a worker thread, where it may take its time."""

    async def work() -> None:
        try:
            await to_thread.run_sync(guarded, callback, job, limiter=job._portal.callbacks)
        except RuntimeError:  # no thread can be had: late and in the way is better than never
            guarded(callback, job)

    return lambda: job._engine.background(work())


def on_loop(callback: Callable[[AsyncJob], object], job: AsyncJob) -> Callable[[], None]:
    """Answer what calls back on the loop, and runs what is awaitable as a task."""

    async def finish(awaitable: Awaitable[object]) -> None:
        try:
            await awaitable
        except Exception:
            log.exception("a callback of job %s failed", job.id)

    def then() -> None:
        if inspect.isawaitable(answer := guarded(callback, job)):
            job._engine.background(finish(answer))

    return then


class _Handle:
    """What both handles tell from a snapshot: never a request, never a wait."""

    def __init__(self, job_id: str, engine: Engine) -> None:
        self.id = job_id
        self._engine = engine

    def status(self) -> str:
        """Answer the job's status, one of the specification's five words; raises `JobNotFound` once removed."""
        return self._record.status.value

    def done(self) -> bool:
        """Tell whether the job has ended, in whatever way; raises `JobNotFound` once removed."""
        return self._record.status.is_terminal

    def continuation_token(self) -> str:
        """
        Answer a text with which `attach` takes the job up in another handler, process or machine.

        It holds ids, the effort and the deployment; no secret, and neither the question nor the answer.

        Raises:
            JobNotFinished: The service has not accepted the job yet.
            JobNotFound: It was removed.
        """
        return to_token(self._record)

    @property
    def question(self) -> str:
        """The question, as it was asked."""
        return self._record.request.question

    @property
    def effort(self) -> str:
        """The reasoning effort."""
        return self._record.request.effort

    @property
    def elapsed_time(self) -> float:
        """Seconds since the submission; they stop when the job ends."""
        return self._record.elapsed(self._engine.ledger.clock())

    @property
    def response_id(self) -> str | None:
        """The service's id of the response, or None until it is accepted."""
        return self._record.response_id

    @property
    def output_items(self) -> list[dict[str, Any]]:
        """What the output holds beside text and reasoning, such as calls of tools, as the service sent it."""
        return list(self._record.output_items)

    @property
    def usage(self) -> Usage | None:
        """The tokens that the service billed, or None until it says."""
        return self._record.usage

    @property
    def cost(self) -> float | None:
        """What the usage costs, in US dollars: an estimate from `o3pro_bg.PRICES` or `prices=`; None where unknown."""
        record = self._record
        return cost_of(record.usage, record.model, record.request.deployment, self._engine.prices)

    @property
    def waiting(self) -> str:
        """
        Why the job makes no progress.

        `"rate_limit"`, `"connection"`, `"denied"`, `"refused"` (the service, or something on the way to it, says that
        there is no such response), `"concurrency"`, `"store"` (it is not sent before that can be written down),
        `"uncertain"` (a former process may still tell whether it was accepted), `"endpoint"` (it is another service's,
        and this handler leaves it alone), or `""`.
        """
        record = self._record
        is_elsewhere = not record.status.is_terminal and not self._engine.ledger.serves(record)
        return "endpoint" if is_elsewhere else record.waiting

    @property
    def next_look(self) -> float | None:
        """Seconds until the service is asked about the job again; None where this handler plans no look just now."""
        return self._engine.next_look(self.id)

    @property
    def _record(self) -> JobRecord:
        return self._engine.ledger.record(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._telling()}>"

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(repr(self))}</code>"

    def _telling(self) -> str:
        record = self._engine.ledger.find(self.id)
        if record is None:
            return f"{self.id} removed"
        parts = [self.id, record.status.value, f"effort={record.request.effort}", f"{self.elapsed_time:.1f}s"]
        if record.waiting:
            parts.append(f"waiting={record.waiting}")
        if record.response_id is not None:
            parts.append(record.response_id)
        return " ".join(parts)


class Job(_Handle):
    """A job of a `BackgroundHandler`; any thread may use it."""

    def __init__(self, job_id: str, engine: Engine, portal: LoopThread) -> None:
        super().__init__(job_id, engine)
        self._portal = portal

    def wait(self, timeout: float | None = None) -> None:
        """
        Wait until the job has ended, in whatever way.

        Raises:
            TimeoutError: It has not ended within so many seconds; it goes on.
            HandlerClosed: The handler was closed before it ended.
            JobNotFound: It was removed.
        """
        ended(self._last(timeout))

    def result(self, timeout: float | None = None) -> str:
        """
        Wait for the job's answer.

        Raises:
            TimeoutError: It has not ended within so many seconds; it goes on.
            JobFailed: It failed; `SubmissionUncertain`, `JobLost` and `DeadlineExceeded` are kinds of it.
            JobCancelled: It was cancelled.
            HandlerClosed: The handler was closed before it ended.
            JobNotFound: It was removed.
            StoreError: Its store keeps no text, and the service did not give the answer out.
        """
        record = self._last(timeout)
        return answer_of(self._portal.call(self._engine.whole, record) if record.lacks_answer else record)

    def cancel(self) -> bool:
        """
        Cancel the job for real; tell whether it is cancelled now. Waits for the service, up to 15 seconds.

        Raises:
            StoreError: Another process lives the job, and the wish could not be written for it.
        """
        return not self.done() and self._portal.call(self._engine.cancel, self.id) is CancelVerdict.CONFIRMED

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """
        Call back with this handle once the job has ended, in a worker thread; if it has, at once, in this one.

        What the callback raises is logged; it may take its time, and may wait for jobs. At most 64 callbacks of a
        handler run at once; the others wait.
        """
        check_callback(callback, is_sync=True)
        if self.done():
            guarded(callback, self)
        else:
            self._portal.submit(self._register, callback)

    async def _register(self, callback: Callable[[Job], object]) -> None:
        self._engine.when_ended(self.id, in_worker(callback, self))

    def _last(self, timeout: float | None) -> JobRecord:
        record = self._record
        return record if record.status.is_terminal else self._portal.call(self._engine.ledger.wait, self.id, timeout)


class AsyncJob(_Handle):
    """A job of an `AsyncBackgroundHandler`; awaiting it answers its result."""

    def __await__(self) -> Generator[Any, None, str]:
        return self.result().__await__()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the job has ended, in whatever way; raises as `Job.wait` does."""
        ended(await self._engine.ledger.wait(self.id, timeout))

    async def result(self, timeout: float | None = None) -> str:
        """Wait for the job's answer; raises as `Job.result` does. Cancelling the waiter leaves the job alone."""
        return answer_of(await self._engine.whole(await self._engine.ledger.wait(self.id, timeout)))

    async def cancel(self) -> bool:
        """Cancel the job for real; tell whether it is cancelled now; see `Job.cancel`."""
        return await self._engine.cancel(self.id) is CancelVerdict.CONFIRMED

    def add_done_callback(self, callback: Callable[[AsyncJob], object]) -> None:
        """
        Call back with this handle on the loop once the job has ended; what it raises is logged.

        A coroutine function is run as a task.
        """
        check_callback(callback)
        self._engine.when_ended(self.id, on_loop(callback, self))
