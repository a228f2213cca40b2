"""What readers see of the jobs, and who waits for one of them to get on."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from o3pro_bg._sqlite.mirror import Mirror

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord


class Stage(Mirror):
    """A mirror beside which others may wait."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, list[tuple[int, bool, Future[str]]]] = {}
        self._gate = Lock()

    def getting_on(self, job_id: str, epoch: int, *, to_the_end: bool) -> Future[str]:
        """
        Answer the future of how far the job has got in this epoch: its status, or `left` where it is lived elsewhere.

        It is done once the service has the job, or once it has ended (`to_the_end`).
        """
        future: Future[str] = Future()
        with self._gate:
            self._waiting.setdefault(job_id, []).append((epoch, to_the_end, future))
        self._tell(job_id)
        return future

    def show(self, record: JobRecord, *, is_held: bool) -> None:
        """Show this record from now on."""
        super().show(record, is_held=is_held)
        self._tell(record.job_id)

    def drop(self, job_id: str) -> None:
        """The job is gone."""
        super().drop(job_id)
        self._tell(job_id)

    def _tell(self, job_id: str) -> None:
        with self._gate:
            before = self._waiting.pop(job_id, [])
            told = [
                (how_far, waiter)
                for waiter in before
                if (how_far := self._how_far(job_id, waiter[0], to_the_end=waiter[1]))
            ]
            if left := [waiter for waiter in before if all(waiter is not other for _, other in told)]:
                self._waiting[job_id] = left
        for how_far, (_, _, future) in told:
            with suppress(InvalidStateError):  # who waited has gone
                future.set_result(how_far)

    def _how_far(self, job_id: str, epoch: int, *, to_the_end: bool) -> str:
        """Answer what is to be told, or an empty string where the job has not got so far."""
        record = self.get(job_id)
        if record is None:
            return "left"
        if record.status.is_terminal:
            return record.status.value
        if not self.holds(job_id) or record.epoch != epoch:
            return "left"
        return "" if to_the_end or record.response_id is None else record.status.value
