"""
What is known of the jobs on one event loop, and who waits for their ends.

The ledger is the only writer of records. It replaces a record when news arrive; once that is written, and not
before, it tells everyone who waits for a terminal one, calls back, and lets the oldest ended jobs go. A waiter
waits for a future of the ledger, never for the task that lives the job, so a waiter that is cancelled harms
nothing.

Between the moment in which a record changes and the one in which its store has written it, the newest record is a
*draft*: the engine acts on it, and nobody else sees it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from o3pro_bg._ends import Ends, check_seconds
from o3pro_bg._futures import outcome, soon
from o3pro_bg._sentences import shown
from o3pro_bg._stores import NO, YES
from o3pro_bg.errors import JobNotFound, StoreError, WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from concurrent.futures import Future

    from o3pro_bg._records import JobRecord, News
    from o3pro_bg._stores import Store

log = logging.getLogger("o3pro_bg")

T = TypeVar("T")

_AT_ONCE: Final = 200  # jobs that other processes have changed are dealt with so many in one turn of the loop


@dataclass(frozen=True, slots=True)
class _Draft:
    record: JobRecord
    settled: asyncio.Future[None]


class Ledger:
    """
    The records of a store, moved by news.

    Args:
        store: Where the records are kept.
        retain: How many ended jobs to keep, or for how long; None keeps them until they are removed.
        clock: Monotonic seconds.

    Attributes:
        forget: Removes the job of an ended record that `retain` lets go.
    """

    def __init__(
        self,
        store: Store,
        *,
        retain: int | timedelta | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.forget: Callable[[JobRecord], object] = lambda record: self.remove(record.job_id)
        self._store = store
        self._retain = retain
        self._drafts: dict[str, _Draft] = {}
        self._missed: set[str] = set()  # jobs that were changed elsewhere while a draft of theirs was being written
        self._wishes: set[str] = set()  # jobs whose wish to be cancelled is being written
        self._ends: dict[str, asyncio.Future[JobRecord | None]] = {}
        self._refusals: dict[str, asyncio.Future[None]] = {}
        self._retired: dict[str, None] = {}
        self._noticed: Callable[[Collection[str]], object] = len
        self._endpoint: str | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def claim_loop(self) -> asyncio.AbstractEventLoop:
        """
        Bind the ledger, and whoever writes in it, to the running loop, which the first use does, and answer it.

        Raises:
            WrongThread: It is bound to another one.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self.clock = loop.time  # the monotonic clock, or a test's virtual one
        if self._loop is not loop:
            raise WrongThread(
                "this handler lives on another event loop: make one AsyncBackgroundHandler per loop, "
                "or use BackgroundHandler, which any thread and any loop may call"
            )
        return loop

    async def open(self, endpoint: str, noticed: Callable[[Collection[str]], object]) -> list[JobRecord]:
        """
        Open the store, notice what is held here from now on, and answer the records of all jobs.

        Args:
            endpoint: The service whose jobs shall be lived here when nobody else does.
            noticed: Called on the loop with the ids of jobs that another process has changed, or that have come to
                be held here, or no longer are.

        Raises:
            StoreError: It cannot be opened.
        """
        loop = self.claim_loop()
        self._noticed = noticed
        self._endpoint = endpoint

        def tell(job_ids: Collection[str]) -> None:
            soon(loop, self._see, list(job_ids))

        await outcome(self._store.open(endpoint, tell, lambda: not loop.is_closed()))
        records = self._store.snapshot()
        ended = [record for record in records if record.ended is not None]
        for record in sorted(ended, key=lambda record: record.ended or 0.0):
            self._retire(record)
        if not self._closed:
            self._see([record.job_id for record in records if self._store.holds(record.job_id)])
        return records

    # --- reading ----------------------------------------------------------------------------------------------

    def find(self, job_id: str) -> JobRecord | None:
        """Answer the job's record as everyone sees it, or None where there is no such job."""
        return self._store.get(job_id)

    def record(self, job_id: str) -> JobRecord:
        """
        Answer the job's record as everyone sees it.

        Raises:
            JobNotFound: No such job.
        """
        if (record := self._store.get(job_id)) is None:
            raise JobNotFound(f"no such job: {shown(job_id)}", job_id=job_id)
        return record

    def newest(self, job_id: str) -> JobRecord | None:
        """
        Answer the job's newest record, written or not, or None where there is no such job.

        A draft from before the job was elsewhere is not the newest: it will not be written.
        """
        draft, record = self._drafts.get(job_id), self._store.get(job_id)
        if draft is None or (record is not None and record.epoch != draft.record.epoch):
            return record
        return draft.record

    def holds(self, job_id: str) -> bool:
        """Tell whether the job has not ended, and it is for this process to live it."""
        record = self.newest(job_id)
        return record is not None and not record.status.is_terminal and self._store.holds(job_id)

    def is_ours(self, job_id: str) -> bool:
        """Tell whether the job is this process's, or what is being written of it will tell whether it is."""
        return job_id in self._drafts or self._store.holds(job_id)

    def serves(self, record: JobRecord) -> bool:
        """Tell whether the job's service is the one that is asked here."""
        return self._endpoint in (None, record.request.endpoint)

    # --- writing ----------------------------------------------------------------------------------------------

    def apply(self, job_id: str, news: News) -> None:
        """Replace the record with the one after these news; once it is written, tell everyone who waits for it."""
        if (before := self.newest(job_id)) is None:
            return
        after = before.apply(news, self.clock())
        if after is not before:
            self._write(after, has_moved=after.status is not before.status)

    def note(self, job_id: str, **facts: Any) -> Future[bool]:
        """
        Note facts that move nothing, such as `waiting` or `sent_at`.

        Returns:
            Whether the job goes on here, known once the facts are written; raises `StoreError` where they cannot be.
        """
        record = self.newest(job_id)
        if record is None or record.status.is_terminal:
            return NO
        if all(getattr(record, name) == fact for name, fact in facts.items()):
            return YES
        return self._write(replace(record, **facts))

    def note_cancel(self, job_id: str) -> Future[bool]:
        """Note when the cancel of a job was first wished for, whoever lives it."""
        record = self.find(job_id)
        if record is None or record.cancel_requested_at is not None:
            return NO if record is None else YES
        wished = self._store.wish(job_id, time.time())
        if not wished.done():
            loop = self.claim_loop()
            self._wishes.add(job_id)
            wished.add_done_callback(lambda _: soon(loop, self._wishes.discard, job_id))
        return wished

    def note_refusal(self, job_id: str) -> None:
        """Note that the service does not cancel the job: the wish stands no longer."""
        self._store.wish(job_id, None)
        self._tell_refusal(job_id)

    def remove(self, job_id: str) -> Future[bool]:
        """Forget a job; tell whether there was one."""
        return self._store.remove(job_id)

    async def settled(self, job_id: str) -> None:
        """Wait until the newest record is the one that everyone sees."""
        while (draft := self._drafts.get(job_id)) is not None:
            await asyncio.wait([draft.settled])

    # --- waiting ----------------------------------------------------------------------------------------------

    def end_of(self, job_id: str) -> asyncio.Future[JobRecord | None]:
        """
        Answer the future of the record in which the job ends, or in which `close` lets it go.

        It is None where another process removed the job before its end was seen here.

        Raises:
            JobNotFound: No such job.
            WrongThread: The job lives on another loop, and has not ended.
        """
        record = self.record(job_id)
        fresh: asyncio.Future[JobRecord | None] = asyncio.get_running_loop().create_future()
        if record.status.is_terminal or self._closed:
            fresh.set_result(record)
            return fresh
        self.claim_loop()
        return self._ends.setdefault(job_id, fresh)

    def refusal_of(self, job_id: str) -> asyncio.Future[None]:
        """Answer the future of the service's refusal to cancel the job, whoever lives it."""
        return self._refusals.setdefault(job_id, asyncio.get_running_loop().create_future())

    async def wait(self, job_id: str, timeout: float | None = None) -> JobRecord:
        """
        Answer the record in which the job ends, or in which `close` lets it go.

        Raises:
            JobNotFound: No such job, or it was removed meanwhile.
            TimeoutError: It has not ended within so many seconds; it goes on.
        """
        check_seconds(timeout)
        end = self.end_of(job_id)
        if not (await asyncio.wait([end], timeout=timeout))[0]:
            raise TimeoutError(f"job {job_id} has not ended within {timeout} seconds; it goes on")
        return end.result() or self.record(job_id)

    async def ends_of(self, job_ids: Iterable[str], timeout: float | None = None) -> Ends:
        """Answer the ends of these jobs, each watched from now on, within so many seconds together."""
        return Ends(self.when_ended, self.clock, job_ids, timeout)

    def when_ended(self, job_id: str, callback: Callable[[JobRecord | None], object]) -> Callable[[], object]:
        """
        Call back on the loop, soon, with what `end_of` tells; with None where there is no such job.

        Returns:
            What takes the callback back.
        """
        if self.find(job_id) is None:
            return asyncio.get_running_loop().call_soon(callback, None).cancel
        end = self.end_of(job_id)

        def then(end: asyncio.Future[JobRecord | None]) -> None:
            callback(end.result())

        end.add_done_callback(then)
        return lambda: end.remove_done_callback(then)

    # --- ending -----------------------------------------------------------------------------------------------

    def let_go(self, job_id: str) -> None:
        """Wake who waits for a job that nobody lives here any more."""
        self._tell(job_id)

    async def close(self, timeout: float) -> None:
        """Wait so many seconds for what is being written, and wake whoever still waits: nothing moves any more."""
        if drafts := [draft.settled for draft in self._drafts.values()]:
            await asyncio.wait(drafts, timeout=timeout)
        self._closed = True
        for job_id in list(self._ends):
            self._tell(job_id)

    async def close_store(self, timeout: float) -> None:
        """Let the jobs go, for another process to take them up, within about so many seconds."""
        with suppress(TimeoutError, StoreError):  # what it could not write, it has logged
            async with asyncio.timeout(timeout):
                await outcome(self._store.close())

    def _write(self, after: JobRecord, *, has_moved: bool = False) -> Future[bool]:
        """Hand the record over to the store, and tell of it once it is written."""
        written = self._store.replace(after)
        if written.done():
            self._written(after, written, has_moved=has_moved)
            return written
        loop = self.claim_loop()
        draft = self._drafts[after.job_id] = _Draft(after, loop.create_future())

        def settle() -> None:
            if self._drafts.get(after.job_id) is draft:
                del self._drafts[after.job_id]
            self._written(after, written, has_moved=has_moved)
            if after.job_id in self._missed and after.job_id not in self._drafts:
                self._see([after.job_id])
            draft.settled.set_result(None)

        written.add_done_callback(lambda _: soon(loop, settle))
        return written

    def _written(self, after: JobRecord, written: Future[bool], *, has_moved: bool) -> None:
        # What could not be written stands in memory all the same, and the store goes on trying.
        if written.exception() is None and not written.result():
            self._drafts.pop(after.job_id, None)  # it was written elsewhere: what we made of it is moot
            self._see([after.job_id])
        elif has_moved:
            log.info("job %s is %s (%s)", after.job_id, after.status, after.response_id or "not sent")
            if after.status.is_terminal:
                self._tell(after.job_id)
                self._retire(after)

    def _see(self, job_ids: list[str]) -> None:
        """Have the engine do what is to be done about what others have made of these jobs, and tell of it."""
        some, others = job_ids[:_AT_ONCE], job_ids[_AT_ONCE:]
        self._noticed(some)
        self._missed.update(self._drafts.keys() & some)
        for job_id in [job_id for job_id in some if job_id not in self._drafts]:  # else what becomes of that tells
            self._missed.discard(job_id)
            record = self.find(job_id)
            if record is None or record.status.is_terminal:
                self._tell(job_id)
            elif not (record.cancel_requested_at or job_id in self._wishes or self._store.holds(job_id)):
                self._tell_refusal(job_id)  # whoever lives it has withdrawn the wish
            if record is not None and record.status.is_terminal:
                self._retire(record)
        if others:
            asyncio.get_running_loop().call_soon(self._see, others)

    def _tell(self, job_id: str) -> None:
        self._refusals.pop(job_id, None)
        if (end := self._ends.pop(job_id, None)) is not None:
            end.set_result(self.find(job_id))

    def _tell_refusal(self, job_id: str) -> None:
        if (refusal := self._refusals.pop(job_id, None)) is not None:
            refusal.set_result(None)

    def _retire(self, record: JobRecord) -> None:
        if not self.serves(record):
            return
        if isinstance(self._retain, timedelta):
            left = self._retain.total_seconds() + (record.ended or 0.0) - self.clock()
            asyncio.get_running_loop().call_later(max(left, 0.0), self._forget, record.job_id)
        elif self._retain is not None:
            self._retired[record.job_id] = None
            while len(self._retired) > self._retain:
                self._forget(next(iter(self._retired)))

    def _forget(self, job_id: str) -> None:
        self._retired.pop(job_id, None)
        record = self.find(job_id)
        if record is not None and record.status.is_terminal:  # not one that was taken up again meanwhile
            self.forget(record)
