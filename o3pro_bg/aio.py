"""The asynchronous face: the same verbs, awaited on the caller's own event loop."""

from __future__ import annotations

import asyncio
import functools
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from o3pro_bg import _replies
from o3pro_bg._admission import Refused
from o3pro_bg._engine import CancelVerdict
from o3pro_bg._face import REFRESH_PATIENCE, Face
from o3pro_bg._futures import outcome, soon
from o3pro_bg._records import JobRecord, News
from o3pro_bg._remote import RemoteTrouble
from o3pro_bg._settings import Settings, grace_of, patience_with
from o3pro_bg._states import Event
from o3pro_bg.errors import HandlerClosed, JobNotFound, StoreError
from o3pro_bg.job import AsyncJob, check_callback, on_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Unpack

    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply
    from o3pro_bg._stores import Store


class AsyncBackgroundHandler(Face):
    """
    Runs questions to a reasoning model in the background, on the event loop that first uses it.

    The verbs and the dictionaries are those of `BackgroundHandler`; here each verb is awaited, reads too. No
    thread of ours runs the jobs; only what blocks (loading the SDK, asking Entra ID) is done in passing worker
    threads. Cancelling a task that waits for a job leaves the job alone.

    It is an asynchronous context manager. Closing it cancels the jobs that are under way, within bounded time;
    `on_close="detach"` leaves them running at the service. With a `store` they are left running anyway, and the next
    handler of that store takes them up. The store is opened by `async with`, which raises `StoreError` where it cannot
    be, or else by the first verb, which answers so: until then no job is known. It is written by a thread of its own.

    Args:
        client: An `O3ProClient`; one that is not ready is reported by the verb that needs it.
        on_done: Called on the loop with the `AsyncJob` of every job that ends in this handler's hands.
        **settings: See `Settings`.
    """

    _LEFT = Face._LEFT | {"_tasks", "_opening"}
    _tasks: dict[asyncio.Task[None], str]
    _opening: asyncio.Future[None] | None

    def __init__(
        self,
        client: Client,
        *,
        on_done: Callable[[AsyncJob], object] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        check_callback(on_done)
        self._on_done = on_done
        super().__init__(client, settings)

    def _inside(self, store: Store) -> dict[str, Any]:
        return {**super()._inside(store), "_tasks": {}, "_opening": None}

    # --- the five verbs -------------------------------------------------------------------------------------

    async def start_background_task(
        self,
        question: str,
        effort: str = "low",
        *,
        timeout: float | None = None,
        dedupe_key: str | None = None,
        priority: int = 0,
        **options: Any,
    ) -> StartReply:
        """Start a job and answer its id, before any network traffic; see `BackgroundHandler`."""
        self._ledger.claim_loop()
        try:
            return _replies.started(
                await self._enter(self._admit(question, effort, options, timeout, dedupe_key, priority))
            )
        except Refused as refused:
            return self._refused(refused, question, effort)

    async def check_status(self, job_id: str) -> StatusReply:
        """Answer how far the job is, from a snapshot; see `BackgroundHandler`."""
        await self._refresh([job_id])
        return self._status(job_id)

    async def get_result(self, job_id: str) -> ResultReply:
        """Answer what came of the job, from a snapshot; see `BackgroundHandler`."""
        await self._refresh([job_id])
        return await self._reply(job_id, self._store.get(job_id))

    async def list_active_jobs(self) -> list[ListedJob]:
        """
        Answer every job that the handler still holds, ended ones included, the oldest first.

        Raises:
            StoreError: The store could not be opened, so nobody knows what jobs there are.
        """
        await self._open()
        return self._list()

    async def cancel_job(self, job_id: str) -> CancelReply:
        """Cancel the job for real, waiting for the service up to 15 seconds; see `BackgroundHandler`."""
        await self._refresh([job_id])
        verdict: CancelVerdict | StoreError = CancelVerdict.TOO_LATE
        try:
            verdict = await self._engine.cancel(job_id)
        except JobNotFound:
            pass
        except StoreError as trouble:
            verdict = trouble
        return self._cancel_reply(job_id, verdict)

    # --- what stands beside them ----------------------------------------------------------------------------

    async def submit(
        self,
        question: str,
        effort: str = "low",
        *,
        timeout: float | None = None,
        dedupe_key: str | None = None,
        priority: int = 0,
        **options: Any,
    ) -> AsyncJob:
        """Start a job and answer its handle; raises as `BackgroundHandler.submit` does."""
        self._ledger.claim_loop()
        try:
            return self._job(await self._enter(self._admit(question, effort, options, timeout, dedupe_key, priority)))
        except Refused as refused:
            error = refused.as_error()
        del question, options, dedupe_key  # trackers of errors show the locals of a traceback
        raise error

    async def attach(self, response: str, question: str = "", effort: str = "low") -> AsyncJob:
        """Take up a response that exists already; see `BackgroundHandler.attach`."""
        self._ledger.claim_loop()
        await self._refresh([response])  # which is no job's id: others may have told of it by now
        try:
            record = self._adopt(response, question, effort)
            if self._is_known(record):
                return self._job(record)
            if (kept := await self._enter(record)).failure is not None:
                kept = await self._enter(replace(record, job_id=uuid.uuid4().hex))
            return self._job(kept)
        except Refused as refused:
            raise refused.as_error() from None

    def job(self, job_id: str) -> AsyncJob:
        """
        Answer the handle of a job that is known here; raises `JobNotFound` for an unknown id.

        A job of another process is known once a verb was awaited for it, or a fraction of a second later.
        """
        return self._job(self._ledger.record(job_id))

    async def wait(self, job_id: str, timeout: float | None = None) -> ResultReply:
        """Wait until the job has ended, and answer as `get_result` does; raises `TimeoutError`."""
        await self._refresh([job_id])
        record: JobRecord | None = None
        with suppress(JobNotFound):
            record = await self._ledger.wait(job_id, timeout)
        return await self._reply(job_id, record)

    async def as_completed(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, ResultReply]]:
        """
        Answer `(job_id, reply)` of these jobs, or of all, in the order in which they end.

        Raises:
            TimeoutError: Not all have ended within so many seconds; they go on.
            StoreError: All were asked for, and the store could not be opened.
        """
        if job_ids is None:
            await self._open()
        asked = self._asked(job_ids)
        await self._refresh(asked)
        ended, pending = self._split(asked)
        ends = await self._ledger.ends_of(pending, timeout)
        try:
            for job_id, record in ended:
                yield job_id, await self._reply(job_id, record)
            async for job_id, record in ends:
                yield job_id, await self._reply(job_id, record)
        finally:
            await ends.aclose()

    async def wait_all(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> dict[str, ResultReply]:
        """Wait until these jobs, or all, have ended, and answer their replies by id; raises as `as_completed`."""
        return {job_id: reply async for job_id, reply in self.as_completed(job_ids, timeout)}

    async def remove_job(self, job_id: str, *, delete_remote: bool | None = None) -> CancelReply:
        """Forget a job that has ended; see `BackgroundHandler`."""
        await self._refresh([job_id])
        record = self._removable(job_id)
        if not isinstance(record, JobRecord):
            return record
        try:
            self._check_open()
            if self._deletes(delete_remote=delete_remote):
                await self._engine.delete(record)
        except (RemoteTrouble, HandlerClosed) as trouble:
            return self._kept(record, trouble)
        with suppress(StoreError):
            await outcome(self._store.remove(job_id))
        return _replies.removed(record)

    async def clear_finished(self, *, delete_remote: bool | None = None) -> int:
        """Forget all jobs that have ended, and tell how many they were; see `BackgroundHandler`, and as_completed."""
        await self._open()
        try:
            self._check_open()
        except HandlerClosed:
            return 0
        ended = self._ended()
        if self._deletes(delete_remote=delete_remote):
            ended = await self._engine.delete_all(ended)
        for removal in [self._store.remove(record.job_id) for record in ended]:
            with suppress(StoreError):
                await outcome(removal)
        return len(ended)

    async def aclose(self, timeout: float = 5.0) -> None:
        """End the handler within about so many seconds; see `BackgroundHandler.close`."""
        grace = grace_of(timeout)
        self._is_closed = True
        await self._engine.close(grace)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:  # cancelled, say: nobody gets this handler
            await self.aclose(0)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.aclose(patience_with(kind))

    async def _open(self) -> None:
        """Open a durable store, which the first to come does; raises `StoreError`."""
        if not self._store.durable:
            return
        if self._opening is None:
            self._ledger.claim_loop()
            self._opening = asyncio.ensure_future(self._engine.open(self._endpoint, self._then_of))
        if self._opening.cancelled():
            raise StoreError("the event loop of this handler ended while its store was opened: make a new handler")
        try:
            await asyncio.shield(self._opening)
        except StoreError as trouble:
            raise StoreError(f"{trouble}; then make a new handler") from None

    async def _refresh(self, job_ids: Iterable[str]) -> None:
        """Where a job is not known here, see what other processes have written by now."""
        trouble: Exception | None = None
        try:
            await self._open()
            if self._lacks(job_ids):
                async with asyncio.timeout(REFRESH_PATIENCE):
                    await outcome(self._store.refresh())
        except (StoreError, TimeoutError) as exc:
            trouble = exc
        self._note_refresh(trouble)

    async def _reply(self, job_id: str, record: JobRecord | None) -> ResultReply:
        return self._result(job_id, None if record is None else await self._engine.whole(record))

    async def _enter(self, record: JobRecord) -> JobRecord:
        """Keep the record of a new job, and run it; answer the record that is kept, which may be another job's."""
        try:
            await self._open()
            inserted = self._insert(record)
            try:
                kept = await outcome(inserted)
            except BaseException:  # cancelled, say
                make_good = functools.partial(self._make_good, record, self._then_of(record.job_id))
                loop = asyncio.get_running_loop()
                self._withdraw(record, inserted, lambda: soon(loop, lambda: self._engine.background(make_good())))
                raise
        except StoreError as trouble:
            raise Refused("store", detail=trouble) from None
        if kept is record:
            self._run(record.job_id)
        return kept

    def _run(self, job_id: str) -> None:
        # The task runs in a copy of this context, so the submitter's context variables reach it.
        task = asyncio.create_task(self._engine.run(job_id, self._then_of(job_id)), name=f"o3pro_bg {job_id}")
        self._tasks[task] = job_id
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        job_id = self._tasks.pop(task)
        record = self._ledger.find(job_id)
        if task.cancelled() and record is not None and record.response_id is None and not self._store.durable:
            self._ledger.apply(job_id, News(Event.CANCELLED))  # before its first step, say

    def _then_of(self, job_id: str) -> Callable[[], object] | None:
        return None if self._on_done is None else on_loop(self._on_done, AsyncJob(job_id, self._engine))

    def _job(self, record: JobRecord) -> AsyncJob:
        return AsyncJob(record.job_id, self._engine)
