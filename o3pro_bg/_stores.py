"""Where the records are kept: the port, and the store in memory."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord


class Store(Protocol):
    """
    Keeps the newest record of every job, in the order of their submission.

    Any thread may read and insert at any time and gets whole records; only the engine's loop replaces them.
    """

    def insert(self, record: JobRecord) -> bool:
        """Keep the record of a new job, which readers see at once; False where the job is held already."""
        ...

    def replace(self, record: JobRecord) -> bool:
        """Keep this record in place of the one with its id; a job that was removed stays removed (False)."""
        ...

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        ...

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        ...

    def remove(self, job_id: str) -> bool:
        """Forget the job; tell whether there was one."""
        ...


class MemoryStore:
    """A dictionary under a lock: the default, gone with the process."""

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}
        self._lock = RLock()  # a signal handler may read while its own thread does

    def insert(self, record: JobRecord) -> bool:
        """Keep the record of a new job, which readers see at once; False where the job is held already."""
        with self._lock:
            return self._records.setdefault(record.job_id, record) is record

    def replace(self, record: JobRecord) -> bool:
        """Keep this record in place of the one with its id; a job that was removed stays removed (False)."""
        with self._lock:
            if record.job_id not in self._records:
                return False
            self._records[record.job_id] = record
            return True

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        with self._lock:
            return self._records.get(job_id)

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        with self._lock:
            return list(self._records.values())

    def remove(self, job_id: str) -> bool:
        """Forget the job; tell whether there was one."""
        with self._lock:
            return self._records.pop(job_id, None) is not None
