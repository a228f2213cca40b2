"""Where the records are kept: the port, and the store in memory."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from o3pro_bg._records import JobRecord

    Noticed = Callable[[Collection[str]], object]

T = TypeVar("T")


def done(value: T) -> Future[T]:
    """Answer a future that holds this value already."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


# A future costs more than all that the store in memory does for one; and these two are all it answers a change with.
YES: Final = done(value=True)
NO: Final = done(value=False)


class Store(Protocol):
    """
    Keeps the newest record of every job, in the order of their submission.

    Any thread may call it at any time. Reads answer at once, from memory, and give whole records. Whatever changes
    something answers with a future, which is done once the change would survive the end of the process (in memory
    at once), and may raise `StoreError`. Changes are carried out in the order in which they were asked for.

    Several processes may hold stores of the same jobs. A job that has not ended is *held* by one of them, the one
    that inserted it until another takes it over; only the holder's records take the place of older ones.
    """

    durable: bool
    """Whether the jobs outlive the process."""

    def open(self, endpoint: str, noticed: Noticed, is_heard: Callable[[], bool] = lambda: True) -> Future[None]:
        """
        Begin; readers see all jobs once the future is done.

        Args:
            endpoint: The service whose jobs shall be taken over here when nobody holds them.
            noticed: Called in whatever thread with the ids of jobs that changed otherwise than by this store's own
                `insert`, `replace`, `wish` and `remove`: by another process, or because they are held here now, or no
                longer.
            is_heard: Tells, in whatever thread, whether anybody is left to hear that. Once nobody is, nobody can live
                the jobs that are held here, and a store that others share closes itself.
        """
        ...

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        """
        Keep the record of a new job, and hold the job; readers see it once the future is done.

        The future's record is the one that is kept: this very one, or the one that has its `job_id` or its
        `dedupe_key` already. Where it raises `StoreError` nothing is kept.
        """
        ...

    def replace(self, record: JobRecord) -> Future[bool]:
        """
        Keep this record in place of the one with its id; readers see it once the future is done.

        False where the job was removed, and stays so, or is held elsewhere: readers see the newer truth then, into
        which ids that were unknown there, and usage, are booked. `StoreError` says that it could not be written:
        readers see it nevertheless, and it is written as soon as it can be. What `wish` says about a cancel stands.
        """
        ...

    def wish(self, job_id: str, at: float | None) -> Future[bool]:
        """
        Set or withdraw (None) the `cancel_requested_at` of a job, whoever holds it.

        False where there is no such job, or it has ended.
        """
        ...

    def holds(self, job_id: str) -> bool:
        """Tell whether this job has not ended and is held here."""
        ...

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        ...

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        ...

    def remove(self, job_id: str) -> Future[bool]:
        """Forget the job, which readers no longer see from now on; tell whether there was one."""
        ...

    def refresh(self) -> Future[None]:
        """See what other processes have done until now."""
        ...

    def close(self) -> Future[None]:
        """
        Write what is left, and hold nothing any more; readers keep what they saw.

        Every later change raises `StoreError`.
        """
        ...

    def again(self) -> Store:
        """Answer a store for a forked process, not opened yet: of the same jobs, where they outlive the process."""
        ...


class MemoryStore:
    """
    A dictionary whose changes take a lock: the default, gone with the process.

    A read is a single step of the dictionary and takes none, so it hangs in no forked process.
    """

    durable = False

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}
        self._by_key: dict[str, str] = {}
        self._lock = RLock()  # a signal handler may change what its own thread changes

    def open(self, endpoint: str, noticed: Noticed, is_heard: Callable[[], bool] = lambda: True) -> Future[None]:
        """Begin; there is nothing to be read."""
        return done(None)

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        """Keep the record of a new job; answer the one that is kept."""
        key = record.request.dedupe_key
        with self._lock:
            kept = self._records.get(record.job_id if key is None else self._by_key.get(key, record.job_id))
            if kept is None:
                kept = self._records[record.job_id] = record
                if key is not None:
                    self._by_key[key] = record.job_id
        return done(kept)

    def replace(self, record: JobRecord) -> Future[bool]:
        """Keep this record in place of the one with its id; a job that was removed stays removed (False)."""
        with self._lock:
            before = self._records.get(record.job_id)
            if before is not None:
                if record.cancel_requested_at != before.cancel_requested_at:
                    record = replace(record, cancel_requested_at=before.cancel_requested_at)
                self._records[record.job_id] = record
        return NO if before is None else YES

    def wish(self, job_id: str, at: float | None) -> Future[bool]:
        """Set or withdraw the `cancel_requested_at` of a job."""
        with self._lock:
            before = self._records.get(job_id)
            if before is None or before.status.is_terminal:
                return NO
            self._records[job_id] = replace(before, cancel_requested_at=at)
        return YES

    def holds(self, job_id: str) -> bool:
        """Tell whether this job has not ended."""
        record = self.get(job_id)
        return record is not None and not record.status.is_terminal

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        return self._records.get(job_id)

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        return list(self._records.values())

    def remove(self, job_id: str) -> Future[bool]:
        """Forget the job; tell whether there was one."""
        with self._lock:
            record = self._records.pop(job_id, None)
            if record is not None and record.request.dedupe_key is not None:
                self._by_key.pop(record.request.dedupe_key, None)
        return NO if record is None else YES

    def refresh(self) -> Future[None]:
        """Nobody else changes anything."""
        return done(None)

    def close(self) -> Future[None]:
        """End; what was kept stays readable."""
        return done(None)

    def again(self) -> Store:
        """Answer an empty store."""
        return MemoryStore()
