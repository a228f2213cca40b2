"""The asynchronous face: the same verbs, awaited on the caller's own event loop."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from o3pro_bg import _replies
from o3pro_bg._admission import Refused
from o3pro_bg._engine import CancelVerdict
from o3pro_bg._face import Face, Settings, grace_of
from o3pro_bg._records import News
from o3pro_bg._states import Event
from o3pro_bg.errors import JobNotFound
from o3pro_bg.job import AsyncJob, on_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Unpack

    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply


class AsyncBackgroundHandler(Face):
    """
    Runs questions to a reasoning model in the background, on the event loop that first uses it.

    The verbs and the dictionaries are those of `BackgroundHandler`; here each verb is awaited, reads too. No
    thread of ours runs the jobs; only what blocks (loading the SDK, asking Entra ID) is done in passing worker
    threads. Cancelling a task that waits for a job leaves the job alone.

    It is an asynchronous context manager. Closing it cancels the jobs that are under way, within bounded time;
    `on_close="detach"` leaves them running at the service.

    Args:
        client: An `O3ProClient`; one that is not ready is reported by the verb that needs it.
        on_done: Called on the loop with the `AsyncJob` of every job that ends.
        **settings: See `Settings`.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_done: Callable[[AsyncJob], object] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(client, settings)
        self._on_done = on_done
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the five verbs -------------------------------------------------------------------------------------

    async def start_background_task(
        self, question: str, effort: str = "low", *, timeout: float | None = None, **options: Any
    ) -> StartReply:
        """Start a job and answer its id, before any network traffic; see `BackgroundHandler`."""
        self._ledger.claim_loop()
        try:
            return _replies.started(self._run(self._admit(question, effort, timeout, options)))
        except Refused as refused:
            return self._refused(refused, question, effort)

    async def check_status(self, job_id: str) -> StatusReply:
        """Answer how far the job is, from a snapshot; see `BackgroundHandler`."""
        return self._status(job_id)

    async def get_result(self, job_id: str) -> ResultReply:
        """Answer what came of the job, from a snapshot; see `BackgroundHandler`."""
        return self._result(job_id)

    async def list_active_jobs(self) -> list[ListedJob]:
        """Answer every job that the handler still holds, ended ones included, the oldest first."""
        return self._list()

    async def cancel_job(self, job_id: str) -> CancelReply:
        """Cancel the job for real, waiting for the service up to 15 seconds; see `BackgroundHandler`."""
        verdict = CancelVerdict.TOO_LATE
        with suppress(JobNotFound):
            verdict = await self._engine.cancel(job_id)
        return self._cancel_reply(job_id, verdict)

    # --- what stands beside them ----------------------------------------------------------------------------

    async def submit(
        self, question: str, effort: str = "low", *, timeout: float | None = None, **options: Any
    ) -> AsyncJob:
        """Start a job and answer its handle; raises as `BackgroundHandler.submit` does."""
        self._ledger.claim_loop()
        try:
            return self._job(self._run(self._admit(question, effort, timeout, options)))
        except Refused as refused:
            raise refused.as_error() from None

    async def attach(self, response: str, question: str = "", effort: str = "low") -> AsyncJob:
        """Take up a response that exists already; see `BackgroundHandler.attach`."""
        self._ledger.claim_loop()
        record, is_new = self._adopt(response, question, effort)
        return self._job(self._run(record) if is_new else record)

    def job(self, job_id: str) -> AsyncJob:
        """Answer the handle of a job; raises `JobNotFound` for an unknown id."""
        return self._job(self._ledger.record(job_id))

    async def wait(self, job_id: str, timeout: float | None = None) -> ResultReply:
        """Wait until the job has ended, and answer as `get_result` does; raises `TimeoutError`."""
        with suppress(JobNotFound):
            return self._result_of(await self._ledger.wait(job_id, timeout))
        return self._result(job_id)

    async def as_completed(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, ResultReply]]:
        """Answer `(job_id, reply)` of these jobs, or of all, in the order in which they end; raises `TimeoutError`."""
        ended, pending = self._split(job_ids)
        ends = await self._ledger.ends_of(pending, timeout)
        try:
            for job_id, reply in ended:
                yield job_id, reply
            async for job_id, record in ends:
                yield job_id, self._result(job_id) if record is None else self._result_of(record)
        finally:
            await ends.aclose()

    async def wait_all(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> dict[str, ResultReply]:
        """Wait until these jobs, or all, have ended, and answer their replies by id; raises `TimeoutError`."""
        return {job_id: reply async for job_id, reply in self.as_completed(job_ids, timeout)}

    async def remove_job(self, job_id: str) -> CancelReply:
        """Forget a job that has ended; see `BackgroundHandler`."""
        return self._remove(job_id)

    async def clear_finished(self) -> int:
        """Forget all jobs that have ended, and tell how many they were."""
        return self._clear()

    async def aclose(self, timeout: float = 5.0) -> None:
        """End the handler within about so many seconds; see `BackgroundHandler.close`."""
        grace = grace_of(timeout)
        self._is_closed = True
        await self._engine.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _run(self, record: JobRecord) -> JobRecord:
        job = self._job(record)
        then = None if self._on_done is None else on_loop(self._on_done, job)
        # The task runs in a copy of this context, so the submitter's context variables reach it.
        task = asyncio.create_task(self._engine.run(record.job_id, then), name=f"o3pro_bg {record.job_id}")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ran, record.job_id))
        return record

    def _ran(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        record = self._ledger.find(job_id)
        if task.cancelled() and record is not None and record.response_id is None:  # before its first step, say
            self._ledger.apply(job_id, News(Event.CANCELLED))

    def _job(self, record: JobRecord) -> AsyncJob:
        return AsyncJob(record.job_id, self._engine)
