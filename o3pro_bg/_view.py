"""The jobs of a handler as the mapping that the specification shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from o3pro_bg import _replies
from o3pro_bg._records import JobRecord
from o3pro_bg.errors import JobNotFinished

if TYPE_CHECKING:
    from o3pro_bg._face import Face
    from o3pro_bg._replies import ListedJob


class JobsView(Mapping[str, "ListedJob"]):
    """
    The jobs that a handler holds, by id: a live view whose values are plain snapshots.

    It may be iterated while other threads start and end jobs. `del view[job_id]` removes a job that has ended,
    here and soon in its store, and raises `JobNotFinished` for one that has not, and `HandlerClosed` where its handler
    is closed and cannot change its store any more.
    """

    def __init__(self, face: Face) -> None:
        self._face = face

    def __getitem__(self, job_id: str) -> ListedJob:
        if (record := self._face._store.get(job_id)) is None:
            raise KeyError(job_id)
        return _replies.listed(record, self._face._ledger.clock())

    def __delitem__(self, job_id: str) -> None:
        self[job_id]
        self._face._check_open()
        if not isinstance(self._face._removable(job_id), JobRecord):
            raise JobNotFinished(f"job {job_id} has not ended: cancel it, or wait for it, first", job_id=job_id)
        self._face._store.remove(job_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._face._ids())

    def __len__(self) -> int:
        return len(self._face._ids())

    def __repr__(self) -> str:
        return f"<JobsView of {self._face!r}>"
