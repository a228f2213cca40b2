"""All jobs of one event loop: started, cancelled, let go. How a single one lives, `_life` tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._life import Life
from o3pro_bg._shared import Shared
from o3pro_bg._states import JobStatus
from o3pro_bg.errors import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from o3pro_bg._ledger import Ledger
    from o3pro_bg._pacing import Pace
    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import Remote

_CANCEL_PATIENCE: Final = 15.0  # seconds that `cancel` waits for the service to confirm


class CancelVerdict(StrEnum):
    """What became of a wish to cancel."""

    CONFIRMED = "confirmed"  # the job is cancelled
    TOO_LATE = "too late"  # it had ended, or ended first
    REFUSED = "refused"  # the service will not, and the job runs on
    UNCONFIRMED = "unconfirmed"  # not known yet; it is being tried


class Engine:
    """
    Runs jobs on the event loop that first uses it.

    Args:
        connect: Answers the remote of the running loop; asked once, at the first job.
        ledger: What is known of the jobs.
        pace: When to look.
        max_concurrency: The most jobs under way at the service at once, or None.
        max_in_flight: The most requests under way at once.
        resubmit_uncertain: Whether a create that may have been accepted is sent again.
        lost_after: Seconds for which the service has to deny a response before it counts as lost.
        cancel_on_close: Whether `close` cancels at the service what is under way there.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Remote]],
        ledger: Ledger,
        *,
        pace: Pace,
        max_concurrency: int | None = None,
        max_in_flight: int = 64,
        resubmit_uncertain: bool = False,
        lost_after: float = 30.0,
        cancel_on_close: bool = True,
    ) -> None:
        self.ledger = ledger
        self._shared = Shared(
            connect=connect,
            ledger=ledger,
            pace=pace,
            slots=asyncio.Semaphore(max_concurrency) if max_concurrency else None,
            in_flight=asyncio.Semaphore(max_in_flight),
            resubmit_uncertain=resubmit_uncertain,
            lost_after=lost_after,
            cancel_on_close=cancel_on_close,
        )
        self._lives: dict[str, Life] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def run(self, job_id: str, then: Callable[[], object] | None = None) -> None:
        """
        Live the job whose record is in the ledger, to its end; one with a response id is only watched.

        Args:
            job_id: The job.
            then: Called, soon, once the job has ended.
        """
        self.ledger.claim_loop()
        if then is not None:
            self.when_ended(job_id, then)
        with suppress(JobNotFound):  # cancelled and removed before its task began
            life = self._life_of(job_id)
            if life.task is not None:  # a former life of this job, which still owes the service a cancel
                life = self._lives[job_id] = Life(self.ledger.record(job_id), self._shared)
            try:
                await (life.orphaned() if self._shared.closing else life.live())
            finally:
                if self._lives.get(job_id) is life:
                    del self._lives[job_id]

    def when_ended(self, job_id: str, then: Callable[[], object]) -> None:
        """Call back on the loop, soon, once the job has ended; one that is gone has."""

        def if_ended(record: JobRecord) -> None:
            if record.status.is_terminal:
                then()

        try:
            self.ledger.when_ended(job_id, if_ended)
        except JobNotFound:
            then()

    def background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run this on the loop, which by itself would let go of it half-way; `close` gives it a second."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def cancel(self, job_id: str) -> CancelVerdict:
        """
        Cancel the job for real, and tell what became of it, after 15 seconds at the most.

        Raises:
            JobNotFound: No such job.
        """
        self.ledger.claim_loop()
        end = self.ledger.end_of(job_id)
        if end.done():
            return CancelVerdict.TOO_LATE
        life = self._life_of(job_id)
        refused = life.cancel()
        either: list[asyncio.Future[Any]] = [end, refused]
        await asyncio.wait(either, timeout=_CANCEL_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            cancelled = end.result().status is JobStatus.CANCELLED
            return CancelVerdict.CONFIRMED if cancelled else CancelVerdict.TOO_LATE
        return CancelVerdict.REFUSED if refused.done() else CancelVerdict.UNCONFIRMED

    async def close(self, timeout: float) -> None:
        """
        End all tasks and connections, within about so many seconds; records stay readable.

        Args:
            timeout: Seconds for the service to answer creates that are on their way, and cancels.
        """
        if self._lives:
            self.ledger.claim_loop()
        self._shared.closing = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(timeout))
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        lives = list(self._lives.values())
        for life in lives:
            life.let_go()
        if tasks := [life.task for life in lives if life.task is not None]:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
        self.ledger.close()
        await asyncio.sleep(0)  # the ends that were told just now call back
        if self._background:
            await asyncio.wait(list(self._background), timeout=1)
        if self._shared.remote is not None:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await self._shared.remote.aclose()

    def _life_of(self, job_id: str) -> Life:
        """Answer the life of a job, which may be asked for before its task has begun."""
        if (life := self._lives.get(job_id)) is None:
            life = self._lives[job_id] = Life(self.ledger.record(job_id), self._shared)
        return life
