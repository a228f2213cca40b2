"""
What is known of the jobs on one event loop, and who waits for their ends.

The ledger is the only writer of records. It replaces a record when news arrive, and at a terminal one it
tells everyone who waits, calls back, and lets the oldest ended jobs go. A waiter waits for a future of the
ledger, never for the task that lives the job, so a waiter that is cancelled harms nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from o3pro_bg._ends import Ends, check_seconds
from o3pro_bg.errors import JobNotFound, WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from o3pro_bg._records import JobRecord, News
    from o3pro_bg._stores import Store

log = logging.getLogger("o3pro_bg")


class Ledger:
    """
    The records of a store, moved by news.

    Args:
        store: Where the records are kept.
        retain: How many ended jobs to keep, or for how long; None keeps them until they are removed.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        retain: int | timedelta | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._store = store
        self._retain = retain
        self._ends: dict[str, asyncio.Future[JobRecord]] = {}
        self._retired: deque[str] = deque()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def claim_loop(self) -> None:
        """
        Bind the ledger, and whoever writes in it, to the running loop, which the first use does.

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

    def find(self, job_id: str) -> JobRecord | None:
        """Answer the job's newest record, or None where there is no such job."""
        return self._store.get(job_id)

    def record(self, job_id: str) -> JobRecord:
        """
        Answer the job's newest record.

        Raises:
            JobNotFound: No such job.
        """
        if (record := self._store.get(job_id)) is None:
            raise JobNotFound(f"no such job: {job_id}", job_id=job_id)
        return record

    def apply(self, job_id: str, news: News) -> None:
        """Replace the record with the one after these news; if they end the job, tell everyone who waits."""
        if (before := self.find(job_id)) is None:
            return
        after = before.apply(news, self.clock())
        if after is before or not self._store.replace(after) or after.status is before.status:
            return
        log.info("job %s is %s (%s)", job_id, after.status, after.response_id or "not sent")
        if after.status.is_terminal:
            self._tell(after)
            self._retire(job_id)

    def note(self, job_id: str, *, waiting: str) -> None:
        """Note why the job makes no progress right now."""
        record = self.find(job_id)
        if record is not None and record.waiting != waiting and not record.status.is_terminal:
            self._store.replace(replace(record, waiting=waiting))

    def note_cancel(self, job_id: str) -> None:
        """Note when the cancel of a job was first wished for, as Unix time."""
        record = self.find(job_id)
        if record is not None and record.cancel_requested_at is None:
            self._store.replace(replace(record, cancel_requested_at=time.time()))

    def end_of(self, job_id: str) -> asyncio.Future[JobRecord]:
        """
        Answer the future of the record in which the job ends, or in which `close` lets it go.

        Raises:
            JobNotFound: No such job.
            WrongThread: The job lives on another loop, and has not ended.
        """
        record, fresh = self.record(job_id), asyncio.get_running_loop().create_future()
        if record.status.is_terminal or self._closed:
            fresh.set_result(record)
            return fresh
        self.claim_loop()
        return self._ends.setdefault(job_id, fresh)

    async def wait(self, job_id: str, timeout: float | None = None) -> JobRecord:
        """
        Answer the record in which the job ends, or in which `close` lets it go.

        Raises:
            JobNotFound: No such job.
            TimeoutError: It has not ended within so many seconds; it goes on.
        """
        check_seconds(timeout)
        end = self.end_of(job_id)
        if not (await asyncio.wait([end], timeout=timeout))[0]:
            raise TimeoutError(f"job {job_id} has not ended within {timeout} seconds; it goes on")
        return end.result()

    async def ends_of(self, job_ids: Iterable[str], timeout: float | None = None) -> Ends:
        """Answer the ends of these jobs, each watched from now on, within so many seconds together."""
        return Ends(self.when_ended, self.clock, job_ids, timeout)

    def when_ended(self, job_id: str, callback: Callable[[JobRecord], object]) -> Callable[[], object]:
        """
        Call back on the loop, soon, with the record in which the job ends or in which `close` lets it go.

        Returns:
            What takes the callback back.

        Raises:
            JobNotFound: No such job.
        """
        end = self.end_of(job_id)

        def then(end: asyncio.Future[JobRecord]) -> None:
            callback(end.result())

        end.add_done_callback(then)
        return lambda: end.remove_done_callback(then)

    def close(self) -> None:
        """Wake whoever still waits: from here on nothing moves a record."""
        self._closed = True
        for job_id in list(self._ends):
            if (record := self.find(job_id)) is not None:
                self._tell(record)

    def _tell(self, record: JobRecord) -> None:
        if (end := self._ends.pop(record.job_id, None)) is not None:
            end.set_result(record)

    def _retire(self, job_id: str) -> None:
        if isinstance(self._retain, timedelta):
            asyncio.get_running_loop().call_later(self._retain.total_seconds(), self._forget, job_id)
        elif self._retain is not None:
            self._retired.append(job_id)
            while len(self._retired) > self._retain:
                self._forget(self._retired.popleft())

    def _forget(self, job_id: str) -> None:
        record = self.find(job_id)
        if record is not None and record.status.is_terminal:  # not one that was taken up again meanwhile
            self._store.remove(job_id)
