"""The synchronous face: plain verbs that any thread may call."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from o3pro_bg import _replies
from o3pro_bg._admission import Refused
from o3pro_bg._engine import CancelVerdict
from o3pro_bg._face import Face, Settings, grace_of
from o3pro_bg._portal import LoopThread
from o3pro_bg.errors import HandlerClosed, JobNotFound
from o3pro_bg.job import Job, in_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Unpack

    from o3pro_bg._ends import Ends
    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply


class BackgroundHandler(Face):
    """
    Runs questions to a reasoning model in the background; any number of threads may call it.

    The five verbs of the specification, `start_background_task`, `check_status`, `get_result`,
    `list_active_jobs` and `cancel_job`, answer with dictionaries and raise nothing for what a service, a
    network or a job id does. Reads come from snapshots: they cause no request and wait for nothing. The jobs
    run on an event loop on a thread of its own, which starts with the first job.

    It is a context manager. Closing it, or the end of the interpreter, cancels the jobs that are under way,
    within bounded time; `on_close="detach"` leaves them running at the service.

    Args:
        client: An `O3ProClient`; one that is not ready is reported by the verb that needs it.
        on_done: Called with the `Job` of every job that ends, in a worker thread.
        **settings: See `Settings`.
    """

    def __init__(
        self, client: Client, *, on_done: Callable[[Job], object] | None = None, **settings: Unpack[Settings]
    ) -> None:
        super().__init__(client, settings)
        self._on_done = on_done
        self._portal = LoopThread(self._engine.close)

    # --- the five verbs -------------------------------------------------------------------------------------

    def start_background_task(
        self, question: str, effort: str = "low", *, timeout: float | None = None, **options: Any
    ) -> StartReply:
        """
        Start a job and answer its id at once, before any network traffic.

        Args:
            question: The prompt.
            effort: One of the efforts of the configuration.
            timeout: Seconds after which the job is cancelled and fails; default the handler's.
            **options: More arguments of the Responses API, such as `instructions` or `max_output_tokens`.

        Returns:
            `success=True, job_id, status="started", question, effort`, or
            `success=False, error, question, effort`.

        Raises:
            TypeError: `question` or `effort` is no text.
        """
        try:
            return _replies.started(self._run(self._admit(question, effort, timeout, options)))
        except Refused as refused:
            return self._refused(refused, question, effort)

    def check_status(self, job_id: str) -> StatusReply:
        """
        Answer how far the job is, from a snapshot.

        Returns:
            `success=True, status, elapsed_time, question, effort`, and `error` where it failed or was
            cancelled; `elapsed_time` is in seconds. For an unknown id `success=False, error`.
        """
        return self._status(job_id)

    def get_result(self, job_id: str) -> ResultReply:
        """
        Answer what came of the job, from a snapshot.

        Returns:
            `success=True, response, status, total_time, question, effort` once it is completed; `total_time`
            is in seconds. Otherwise `success=False, error` and what else is known.
        """
        return self._result(job_id)

    def list_active_jobs(self) -> list[ListedJob]:
        """Answer every job that the handler still holds, ended ones included, the oldest first."""
        return self._list()

    def cancel_job(self, job_id: str) -> CancelReply:
        """
        Cancel the job for real: the service is asked to, and what it then says is believed.

        It waits for the service, up to 15 seconds.

        Returns:
            `success=True, job_id, status="cancelled", question, effort`; or
            `success=False, error, job_id, status` where the job had ended, the service refuses, or the
            cancel is not confirmed yet.

        Raises:
            WrongThread: Called on the handler's own loop.
        """
        verdict, record = CancelVerdict.TOO_LATE, self._store.get(job_id)
        if record is not None and not record.status.is_terminal:
            with suppress(HandlerClosed, JobNotFound):
                verdict = self._portal.call(self._engine.cancel, job_id)
        return self._cancel_reply(job_id, verdict)

    # --- what stands beside them ----------------------------------------------------------------------------

    def submit(self, question: str, effort: str = "low", *, timeout: float | None = None, **options: Any) -> Job:
        """
        Start a job as `start_background_task` does, and answer its handle.

        Raises:
            InvalidRequest: The service could not take this request.
            ConfigError: The client is not ready.
            HandlerClosed: The handler is closed.
            TypeError: `question` or `effort` is no text.
        """
        try:
            return self._job(self._run(self._admit(question, effort, timeout, options)))
        except Refused as refused:
            raise refused.as_error() from None

    def attach(self, response: str, question: str = "", effort: str = "low") -> Job:
        """
        Take up a response that exists already, and answer the handle of its job; nothing is sent twice.

        Args:
            response: The service's response id, or a `continuation_token()`.
            question: What the replies show as the question; a token does not carry it.
            effort: What they show as the effort; a token carries it.

        The handler's `timeout` does not hold for such a job.

        Raises:
            InvalidRequest: The token is damaged, or belongs to another deployment.
            HandlerClosed: The handler is closed.
        """
        record, is_new = self._adopt(response, question, effort)
        try:
            return self._job(self._run(record) if is_new else record)
        except Refused as refused:
            raise refused.as_error() from None

    def job(self, job_id: str) -> Job:
        """Answer the handle of a job; raises `JobNotFound` for an unknown id."""
        return self._job(self._ledger.record(job_id))

    def wait(self, job_id: str, timeout: float | None = None) -> ResultReply:
        """
        Wait until the job has ended, and answer as `get_result` does.

        Raises:
            TimeoutError: It has not ended within so many seconds; it goes on.
            WrongThread: Called on the handler's own loop.
        """
        record = self._store.get(job_id)
        if record is not None and not record.status.is_terminal:
            with suppress(HandlerClosed, JobNotFound):
                return self._result_of(self._portal.call(self._ledger.wait, job_id, timeout))
        return self._result(job_id)

    def as_completed(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> Iterator[tuple[str, ResultReply]]:
        """
        Answer `(job_id, reply)` of these jobs, or of all, in the order in which they end.

        Raises:
            TimeoutError: Not all have ended within so many seconds; they go on.
            WrongThread: Called on the handler's own loop.
        """
        ended, pending = self._split(job_ids)
        ends: Ends | None = None
        with suppress(HandlerClosed):
            ends = self._portal.call(self._ledger.ends_of, pending, timeout) if pending else None
        yield from ended
        left = dict.fromkeys(pending)
        try:
            while ends is not None and left:
                job_id, record = self._portal.call(ends.__anext__)
                del left[job_id]
                yield job_id, self._result(job_id) if record is None else self._result_of(record)
        except HandlerClosed:
            ends = None
        finally:
            if ends is not None:
                with suppress(HandlerClosed):
                    self._portal.submit(ends.aclose)
        for job_id in left:
            yield job_id, self._result(job_id)

    def wait_all(self, job_ids: Iterable[str] | None = None, timeout: float | None = None) -> dict[str, ResultReply]:
        """Wait until these jobs, or all, have ended, and answer their replies by id; raises as `as_completed`."""
        return dict(self.as_completed(job_ids, timeout))

    def remove_job(self, job_id: str) -> CancelReply:
        """
        Forget a job that has ended.

        Returns:
            `success=True, job_id, status`; or `success=False, error, job_id, status` for one that has not.
        """
        return self._remove(job_id)

    def clear_finished(self) -> int:
        """Forget all jobs that have ended, and tell how many they were."""
        return self._clear()

    def close(self, timeout: float = 5.0) -> None:
        """
        End the handler within about so many seconds; what it knows stays readable.

        Jobs under way are cancelled at the service, or left running there (`on_close="detach"`).
        """
        grace = grace_of(timeout)
        self._is_closed = True
        self._portal.stop(grace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, record: JobRecord) -> JobRecord:
        job = self._job(record)
        then = None if self._on_done is None else in_worker(self._on_done, job)
        try:
            self._portal.submit(self._engine.run, record.job_id, then)
        except HandlerClosed:
            self._store.remove(record.job_id)
            raise Refused("closed") from None
        return record

    def _job(self, record: JobRecord) -> Job:
        return Job(record.job_id, self._engine, self._portal)
