"""What the service bills for a job that was cancelled: it is known to finish such work minutes later all the same."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from o3pro_bg._records import JobRecord
    from o3pro_bg._shared import Shared

_PAUSES: Final = (15.0, 60.0, 300.0)  # seconds between the looks
_RECENT: Final = 600.0  # seconds after a job's end in which a new process still looks for its usage


def is_owed(record: JobRecord, now: float) -> bool:
    """Tell whether a job that a former process ended may still cost something that is not known here."""
    was_stopped = record.status is JobStatus.CANCELLED or record.failure == Failure("deadline")
    is_recent = record.ended is not None and now - record.ended < _RECENT
    return was_stopped and is_recent and record.response_id is not None and record.usage is None


async def book_late_usage(
    shared: Shared, job_id: str, response_id: str, nap: Callable[[float], Awaitable[None]]
) -> None:
    """Look a few times more at a response whose job has ended, until its usage is known."""
    pauses = iter(_PAUSES)
    while _may_come(shared, job_id) and (pause := next(pauses, None)) is not None:
        await nap(pause)
        await _look(shared, job_id, response_id)


def _may_come(shared: Shared, job_id: str) -> bool:
    record = shared.ledger.find(job_id)
    is_owed = record is not None and record.status.is_terminal and record.usage is None
    return is_owed and shared.remote is not None and not shared.closing


async def _look(shared: Shared, job_id: str, response_id: str) -> None:
    if shared.remote is not None and _may_come(shared, job_id):
        with suppress(RemoteTrouble):
            async with shared.in_flight:
                shared.ledger.apply(job_id, await shared.remote.look(response_id))
