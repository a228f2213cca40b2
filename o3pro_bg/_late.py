"""What is left of a job that was stopped: the service is known to finish, and bill, such work minutes later."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble
from o3pro_bg._states import Event, JobStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import Remote
    from o3pro_bg._shared import Shared

    Nap = Callable[[float], Awaitable[object]]

_DEADLINE: Final = Failure("deadline")
_PAUSES: Final = (15.0, 60.0, 300.0)  # seconds between the looks
_RECENT: Final = 600.0  # seconds after a job's end in which a new process still looks for its usage


def is_owed(record: JobRecord, now: float) -> bool:
    """Tell whether a job that a former process ended may still cost something that is not known here."""
    was_stopped = record.status is JobStatus.CANCELLED or record.failure == _DEADLINE
    is_recent = record.ended is not None and now - record.ended < _RECENT
    return was_stopped and is_recent and record.response_id is not None and record.usage is None


async def book_late_usage(shared: Shared, job_id: str, response_id: str, nap: Nap) -> None:
    """Look a few times more at a response whose job has ended, until its usage is known."""
    for pause in _PAUSES:
        if not _may_come(shared, job_id):
            return
        await nap(pause)
        await _look(shared, job_id, response_id)


async def settle(shared: Shared, records: Collection[JobRecord], nap: Nap) -> None:
    """
    See to what former processes may owe for jobs that they ended: a cancel of what a deadline has failed, and usage.

    One job comes after the other, so that many are no rush.
    """
    running = {record.job_id for record in records if record.failure == _DEADLINE}
    with suppress(RemoteTrouble):
        remote = await shared.link.connected()
        for pause in (0.0, *_PAUSES):
            await nap(pause)
            for record in records:
                if record.job_id in running:
                    await _stop(shared, remote, record.job_id, str(record.response_id))
                if await _look(shared, record.job_id, str(record.response_id)):
                    running.discard(record.job_id)


def _may_come(shared: Shared, job_id: str) -> bool:
    record = shared.ledger.find(job_id)
    is_unknown = record is not None and record.status.is_terminal and record.usage is None
    return is_unknown and shared.link.remote is not None and not shared.closing


async def _stop(shared: Shared, remote: Remote, job_id: str, response_id: str) -> None:
    with suppress(RemoteTrouble):
        async with shared.in_flight.place(job_id, is_urgent=True):
            await remote.cancel(response_id)


async def _look(shared: Shared, job_id: str, response_id: str) -> bool:
    """Book the usage that the service tells by now; tell whether it has ended the response."""
    if shared.link.remote is not None and _may_come(shared, job_id):
        with suppress(RemoteTrouble):
            async with shared.in_flight.place(job_id):
                news = await shared.link.remote.look(response_id)
            shared.ledger.apply(job_id, news)
            return news.event not in (None, Event.ACCEPTED, Event.PROGRESSED)
    return False
