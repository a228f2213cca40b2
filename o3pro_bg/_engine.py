"""All jobs of one event loop: started, taken up, cancelled, let go. How a single one lives, `_life` tells."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._futures import outcome
from o3pro_bg._late import is_owed, settle
from o3pro_bg._life import Life
from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.errors import HandlerClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from o3pro_bg._records import JobRecord
    from o3pro_bg._shared import Shared

log = logging.getLogger("o3pro_bg")

_TAKE_UP_SPREAD: Final = 2.0  # seconds over which the first looks at many jobs taken up at once are spread
_FORGET_AGAIN: Final = 60.0  # seconds until a response that could not be deleted is tried again
_FOR_SENDING: Final = 0.5  # the part of the time for closing in which creates may still leave
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

    Attributes:
        expected: Ids of the jobs whose `run` is on its way, from before their insertion: each is run once.
    """

    def __init__(self, shared: Shared) -> None:
        self.ledger = shared.ledger
        self.prices = shared.prices
        self._shared = shared
        if shared.delete_remote:
            self.ledger.forget = lambda record: self.background(self._forget(record))
        self.expected: set[str] = set()
        self._lives: dict[str, Life] = {}
        self._take_backs: dict[str, Callable[[], object]] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._settling: asyncio.Future[None] | None = None
        self._still_sends = True
        self._closing: asyncio.Task[None] | None = None

    async def open(self, endpoint: str, then_of: Callable[[str], Callable[[], object] | None]) -> None:
        """
        Open the ledger's store, and live from now on the jobs that nobody else lives.

        Args:
            endpoint: The service whose jobs these may be.
            then_of: Answers what to call, soon, once a job that was taken up has ended.

        Raises:
            StoreError: It cannot be opened.
        """

        def noticed(job_ids: Collection[str]) -> None:
            # Jobs that are taken up together are not looked at together.
            spread = min(_TAKE_UP_SPREAD, 0.01 * len(job_ids))
            for job_id in job_ids:
                self._notice(job_id, then_of, spread * random.random())

        records = await self.ledger.open(endpoint, noticed)
        self._shared.habits.learn(filter(self.ledger.serves, records))
        now = self.ledger.clock()
        owed = [record for record in records if is_owed(record, now) and self.ledger.serves(record)]
        if owed and not self._shared.closing:
            self._settling = asyncio.ensure_future(settle(self._shared, owed, asyncio.sleep))

    def _notice(self, job_id: str, then_of: Callable[[str], Callable[[], object] | None], first_look: float) -> None:
        """Do what another process has left to do, or leave to it what it does now."""
        record, life = self.ledger.find(job_id), self._lives.get(job_id)
        if not self.ledger.is_ours(job_id):  # it goes on, or has ended, elsewhere, and is called back there
            self._take_backs.pop(job_id, lambda: None)()
        if record is None or record.status.is_terminal or self._shared.closing:
            return
        if not self.ledger.holds(job_id):
            if life is not None:
                life.abandon()
        elif life is not None and life.is_lived and life.epoch == record.epoch:
            life.notice(record)
        elif job_id not in self.expected:
            log.info("job %s is taken up (%s)", job_id, record.response_id or "not sent")
            self._life_of(job_id, first_look)
            self.expected.add(job_id)
            self.background(self.run(job_id, then_of(job_id)))

    async def run(self, job_id: str, then: Callable[[], object] | None = None) -> None:
        """
        Live the job whose record is in the ledger, to its end; one with a response id is only watched.

        Args:
            job_id: The job.
            then: Called, soon, once the job has ended here.
        """
        self.ledger.claim_loop()
        self.expected.discard(job_id)
        if then is not None:
            self._call_back(job_id, then)
        if self.ledger.find(job_id) is None:  # cancelled and removed before its task began
            return
        life = self._life_of(job_id)
        if life.task is not None:  # a former life of this job, which still owes the service a cancel
            life = Life(self.ledger.record(job_id), self._shared)
        is_too_late = self._shared.closing and not (self._shared.leaves_unsent and self._still_sends)
        self._lives[job_id] = life
        try:
            await (life.orphaned() if is_too_late else life.live())
        finally:
            if self._lives.get(job_id) is life:
                del self._lives[job_id]

    def _call_back(self, job_id: str, then: Callable[[], object]) -> None:
        """Call back once the job has ended, unless it turns out, until that is told, that it ended elsewhere."""

        def told() -> None:
            self._take_backs.pop(job_id, None)
            then()

        self._take_backs.pop(job_id, lambda: None)()  # that of the time before the job was elsewhere
        self._take_backs[job_id] = self.when_ended(job_id, told)

    def when_ended(self, job_id: str, then: Callable[[], object]) -> Callable[[], object]:
        """
        Call back on the loop, soon, once the job has ended; one that is gone has.

        Returns:
            What takes the callback back.
        """

        def if_ended(record: JobRecord | None) -> None:
            if record is None or record.status.is_terminal:
                then()

        return self.ledger.when_ended(job_id, if_ended)

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
            StoreError: Another process lives the job, and the wish could not be written for it; or the job was not
                sent yet, and the next process, which does not know of the cancel, would send it.
        """
        end = self.ledger.end_of(job_id)
        if end.done():
            return CancelVerdict.TOO_LATE
        refused = self.ledger.refusal_of(job_id)  # before the end, which lets go of it
        wished = self.ledger.note_cancel(job_id)
        if not self.ledger.holds(job_id):
            await outcome(wished)
        if self.ledger.holds(job_id):  # it may have come here meanwhile
            self._life_of(job_id).cancel()
        either: list[asyncio.Future[Any]] = [end, refused]
        await asyncio.wait(either, timeout=_CANCEL_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            record = end.result()
            if record is None or record.status is not JobStatus.CANCELLED:
                return CancelVerdict.TOO_LATE
            if record.response_id is None:
                await outcome(wished)
            return CancelVerdict.CONFIRMED
        return CancelVerdict.REFUSED if refused.done() else CancelVerdict.UNCONFIRMED

    def next_look(self, job_id: str) -> float | None:
        """Answer in how many seconds the service is asked about the job again; None where no look is planned here."""
        life = self._lives.get(job_id)
        due = None if life is None else life.next_look
        return None if due is None else max(0.0, due - self.ledger.clock())

    async def whole(self, record: JobRecord) -> JobRecord:
        """Answer the record with its answer, which is asked of the service where the store kept none."""
        can_be_had = record.response_id is not None and self.ledger.serves(record) and not self._shared.closing
        if record.lacks_answer and can_be_had:
            with suppress(RemoteTrouble):
                remote = await self._shared.link.connected()
                async with self._shared.in_flight.place(record.job_id):
                    news = await remote.look(str(record.response_id))
                if news.event is Event.ANSWERED:
                    return replace(record, answer=news.answer, output_items=news.output_items)
        return record

    async def delete(self, record: JobRecord) -> None:
        """
        Delete the job's response at the service.

        Raises:
            RemoteTrouble: The service did not.
            HandlerClosed: The engine was closed.
        """
        if self._shared.closing:
            raise HandlerClosed("the handler is closed: make a new one")
        if not self.ledger.serves(record):
            raise RemoteTrouble(Trouble.REFUSED, Failure("other_endpoint"))
        if record.response_id is not None:
            remote = await self._shared.link.connected()
            async with self._shared.in_flight.place(record.job_id):
                await remote.delete(record.response_id)

    async def delete_all(self, records: Collection[JobRecord]) -> list[JobRecord]:
        """Delete the responses of these jobs, and answer the jobs whose response is gone."""
        troubles = await asyncio.gather(*map(self.delete, records), return_exceptions=True)
        return [record for record, trouble in zip(records, troubles, strict=True) if trouble is None]

    async def _forget(self, record: JobRecord) -> None:
        if await self.delete_all([record]):
            self.ledger.remove(record.job_id)
        elif not self._shared.closing:
            log.warning("job %s: its response could not be deleted; it is tried again", record.job_id)
            asyncio.get_running_loop().call_later(_FORGET_AGAIN, self.ledger.forget, record)

    async def close(self, timeout: float) -> None:
        """
        End all tasks and connections, within about so many seconds; records stay readable.

        Jobs that are left running are sent first, as far as nothing keeps them from it, and those that were taken up
        are looked at once.

        Args:
            timeout: Seconds for that, and for the service to answer creates that are on their way, and cancels.
        """
        if self._lives:
            self.ledger.claim_loop()
        self._shared.closing = True
        if self._closing is None:
            for life in self._lives.values():
                life.let_go()
            self._closing = asyncio.ensure_future(self._close(timeout))
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        if self._settling is not None:
            self._settling.cancel()
        await self._ended(timeout * _FOR_SENDING)
        self._still_sends = False
        for life in self._lives.values():
            life.give_up_sending()
        await self._ended(timeout * (1 - _FOR_SENDING))
        for life in self._lives.values():
            life.drop()
        await self._ended(1)
        for job_id in filter(self.ledger.holds, [*self.expected]):  # which nobody will run any more
            if self._shared.cancel_on_close:
                self.ledger.note_cancel(job_id)
            await self._life_of(job_id).orphaned()
        await self.ledger.close(timeout=1)
        await asyncio.sleep(0)  # the ends that were told just now call back
        if self._background:
            await asyncio.wait(list(self._background), timeout=1)
        await self.ledger.close_store(timeout=1)
        await self._shared.link.hang_up()

    async def _ended(self, timeout: float) -> None:
        """Wait so many seconds for the tasks of all lives to end."""
        if tasks := [life.task for life in self._lives.values() if life.task is not None]:
            await asyncio.wait(tasks, timeout=timeout)

    def _life_of(self, job_id: str, first_look: float | None = None) -> Life:
        """
        Answer the life of a job, which may be asked for before its task has begun.

        One from before the job was elsewhere knows nothing of what became of it there: another takes its place.
        """
        record, life = self.ledger.record(job_id), self._lives.get(job_id)
        if life is not None and life.epoch != record.epoch:
            life.abandon()
            life = None
        if life is None:
            life = self._lives[job_id] = Life(record, self._shared, first_look)
        return life
