"""What readers see of a file of jobs."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord


class Mirror:
    """
    The records as readers see them, without the disk.

    A read is a single step of a dictionary and takes no lock, so it neither waits, nor hangs in a forked process.
    """

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}
        self._held: set[str] = set()
        self._leaving: set[str] = set()  # removed here, which the file does not know yet
        self._lock = RLock()  # a signal handler may remove what its own thread removes

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        return self._records.get(job_id)

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        return list(self._records.values())

    def holds(self, job_id: str) -> bool:
        """Tell whether the job has not ended and is held here."""
        record = self._records.get(job_id)
        return record is not None and not record.status.is_terminal and job_id in self._held

    def hide(self, job_id: str) -> bool:
        """Show a job no more, whatever is shown of it later, until it is gone; False where there is none."""
        with self._lock:
            if job_id not in self._records:
                return False
            self._leaving.add(job_id)
            del self._records[job_id]
        return True

    def show(self, record: JobRecord, *, is_held: bool) -> None:
        """Show this record from now on."""
        with self._lock:
            (self._held.add if is_held else self._held.discard)(record.job_id)
            if record.job_id not in self._leaving:
                self._records[record.job_id] = record

    def drop(self, job_id: str) -> None:
        """The job is gone."""
        with self._lock:
            self._records.pop(job_id, None)
            self._held.discard(job_id)
            self._leaving.discard(job_id)
