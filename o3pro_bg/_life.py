"""
How one job lives: submitted once, looked at until it ends, cancelled for real.

A `Life` is driven by one task, and that task alone talks to the service about its job. Whoever wants something
of the job (a cancel, its deadline, the end of the handler) leaves a wish and wakes the task. Until the job is
*sent* its task may simply be cancelled, and in the foreground until it is answered, because the request ends
with its connection. After that the service works on it, and only the service can stop it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from o3pro_bg._late import book_late_usage
from o3pro_bg._lookout import Lookout
from o3pro_bg._nap import Nap
from o3pro_bg._pacing import backoff
from o3pro_bg._records import Failure, JobRecord, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg._submission import Submission

if TYPE_CHECKING:
    from o3pro_bg._remote import Remote
    from o3pro_bg._shared import Shared

log = logging.getLogger("o3pro_bg")

_CANCEL_TRIES: Final = 6  # unconfirmed cancels after which a job that has ended here is left to the service
_OVERDUE: Final = 2.0  # seconds that a job taken up has to have left, for its deadline to hold before the first look
_LAST_WORDS: Final = 1.2  # seconds for a cancel when the loop itself ends
_ENDS: Final = frozenset({Event.ANSWERED, Event.ERRORED, Event.CANCELLED, Event.LOST})


class Life:
    """
    A job under way: its task, the wishes left for it, and the troubles it has met.

    Args:
        first_look: For a job that is taken up from a former process: seconds until it is looked at, if it has a
            response.

    Attributes:
        task: What lives it, once that has begun.
        epoch: The time of being held for which it stands.
    """

    def __init__(self, record: JobRecord, shared: Shared, first_look: float | None = None) -> None:
        self.task: asyncio.Task[None] | None = None
        self.epoch = record.epoch
        self._job_id = record.job_id
        self._request = record.request
        self._born = shared.ledger.clock() - record.elapsed(shared.ledger.clock())
        self._response_id = record.response_id
        self._shared = shared
        self._ledger = shared.ledger
        self._submission = Submission(record, shared, self._is_unwanted, self.give_up_sending)
        self._cancel_wanted = record.cancel_requested_at is not None and record.response_id is not None
        self._cancels_asked = 0
        self._is_taken_over = False
        self._nap = Nap()
        self._is_taken_up = first_look is not None
        self._is_overdue = False
        self._deadline: asyncio.TimerHandle | None = None
        self._lookout = Lookout(shared, record)
        if record.response_id is not None:
            self._lookout.hint = first_look or 0.0

    async def live(self) -> None:
        """Live to the end of the job; one that has a response id already is only watched."""
        self.task = asyncio.current_task()
        try:
            await asyncio.sleep(0)  # an eager task factory would send before the submitter has its id
            await self._live()
            await self._ledger.settled(self._job_id)
            if self._response_id is not None and self._cancels_asked > 0 and not self._cancel_wanted:
                await book_late_usage(self._shared, self._job_id, self._response_id, self._nap.take)
        except asyncio.CancelledError:
            await self.orphaned()
            if not (self._has_ended or self._is_taken_over or self._shared.closing):
                self._ledger.let_go(self._job_id)
            raise
        except GeneratorExit:  # the loop is gone, and with it whoever could be told
            raise
        except BaseException as exc:  # even SystemExit: raised on here, it would kill the loop's thread
            # No traceback: it may quote the prompt.
            log.error("job %s met %s: a bug of o3pro_bg", self._job_id, type(exc).__name__)
            self._fail("internal", type(exc).__name__)

    # --- wishes -------------------------------------------------------------------------------------------

    @property
    def is_lived(self) -> bool:
        """Tell whether the task has begun, and the job was not left to another process since."""
        return self.task is not None and not self._is_taken_over

    @property
    def next_look(self) -> float | None:
        """The moment on the loop's clock at which the service is asked again; None where no look is planned."""
        return None if self._response_id is None else self._nap.due

    def cancel(self) -> None:
        """Have the job cancelled by its task, or at once where nothing was sent."""
        self._ledger.note_cancel(self._job_id)
        if not self._is_sent:
            self._ledger.apply(self._job_id, News(Event.CANCELLED))
        self._stop()

    def let_go(self) -> None:
        """Have the task end as the engine closes; what is sent is left running, if it is not cancelled."""
        if self._shared.leaves_unsent and not self._is_sent:
            record = self._ledger.newest(self._job_id)
            if record is None or record.waiting:  # something else than a moment keeps it from being sent
                self.drop()
        elif self._shared.leaves_unsent and self._submission.is_waiting:
            self.drop()
        elif (self._shared.cancel_on_close or not self._is_sent) and self._ledger.holds(self._job_id):
            self.cancel()
        self._nap.end()

    def give_up_sending(self) -> None:
        """Leave to the next process what is not sent by now."""
        if not (self._is_sent or self._submission.has_left):
            self.drop()

    def notice(self, record: JobRecord) -> None:
        """Do what other processes have left to do: a cancel, or a response that one has told of after all."""
        if self._response_id is None and record.response_id is not None:
            self._nap.end()
        if record.cancel_requested_at is not None and not self._cancel_wanted:
            self.cancel()

    def abandon(self) -> None:
        """Have the task end because another process lives the job now; an answer on its way is still taken."""
        self._is_taken_over = True
        self._nap.end()
        self.give_up_sending()

    def drop(self) -> None:
        """Have the task end as it stands."""
        if self.task is not None:
            self.task.cancel()

    def _expire(self) -> None:
        """The job's own time is over: it fails now, and its task cancels it at the service."""
        self._fail("deadline")
        self._stop()

    def _stop(self) -> None:
        if self._is_sent:
            self._cancel_wanted = True
            self._cancels_asked = self._lookout.troubles = 0
            self._shared.in_flight.hurry(self._job_id)
            self._submission.withdraw()
            self._nap.end()
        else:
            self.drop()

    @property
    def _is_sent(self) -> bool:
        return self._response_id is not None or self._submission.sent

    def _is_unwanted(self) -> bool:
        return self._cancel_wanted or self._shared.closing

    @property
    def _has_ended(self) -> bool:
        """Tell whether the job has ended; its record may have been removed since."""
        record = self._ledger.newest(self._job_id)
        return record is None or record.status.is_terminal

    # --- the way of a job -----------------------------------------------------------------------------------

    async def _live(self) -> None:
        if not self._ledger.holds(self._job_id):
            return
        if self._response_id is None and self._submission.is_unsure:
            await self._listen()
            if self._is_taken_over or self._shared.closing:
                return
        if self._response_id is None and (news := self._submission.hopeless()) is not None:
            self._ledger.apply(self._job_id, news)
            return
        self._mind_deadline()
        try:
            if (remote := await self._connected()) is None:
                return
            if self._response_id is None:
                if (news := await self._submission.accepted(remote)) is None:
                    return
                self._response_id = news.response_id
                self._lookout.accepted(news)
                self._ledger.apply(self._job_id, news)
                await self._ledger.settled(self._job_id)
            await self._watch(remote)
        finally:
            self._submission.release()
            if self._deadline is not None:
                self._deadline.cancel()

    async def _listen(self) -> None:
        """Give the former process, which may only have been stalled, time to tell what became of its create."""
        self._ledger.note(self._job_id, waiting="uncertain")
        until = self._ledger.clock() + self._shared.lost_after
        while not (self._is_taken_over or self._shared.closing) and (left := until - self._ledger.clock()) > 0:
            record = self._ledger.find(self._job_id)
            self._response_id = None if record is None else record.response_id
            if record is None or self._response_id is not None:
                return
            await self._nap.take(left)  # a wish to cancel is heard, and minded afterwards

    async def _connected(self) -> Remote | None:
        """Answer the remote. Without one a new job fails; one that is taken up waits until there is one."""
        while not (self._is_taken_up and self._is_taken_over):
            try:
                remote = await self._shared.link.connected()
            except RemoteTrouble as trouble:
                log.info("job %s: no client (%s)", self._job_id, trouble.failure.code)
                if not self._is_taken_up and not self._shared.leaves_unsent:
                    self._ledger.apply(self._job_id, self._submission.refused(trouble))
                    break
                if self._shared.closing:
                    break
                self._lookout.troubles += 1
                self._ledger.note(self._job_id, waiting="connection")
                await self._nap.take(backoff(self._lookout.troubles, random.random()))
            else:
                self._lookout.troubles = 0
                return remote
        return None

    def _mind_deadline(self) -> None:
        """Have the job expire at its deadline."""
        if self._request.timeout is None:
            return
        left = self._request.timeout + self._born - self._ledger.clock()
        if self._response_id is not None and left <= _OVERDUE:
            self._is_overdue = True  # it may have ended in time, while no process lived it: the first look tells
        else:
            self._deadline = asyncio.get_running_loop().call_later(max(left, 0.0), self._expire)

    async def _watch(self, remote: Remote) -> None:
        """Look until the job has ended here and, where a cancel is owed, at the service."""
        while self._response_id is not None and not self._is_taken_over:
            ended = self._has_ended
            if ended and not self._cancel_wanted:
                return
            if ended and self._cancels_asked >= _CANCEL_TRIES:
                log.warning("job %s: the cancel of %s is not confirmed", self._job_id, self._response_id)
                return
            self._shared.mind(await self._nap.take(self._delay()))
            if self._is_taken_over:
                return
            owes_a_look = self._is_taken_up and not self._lookout.has_looked
            if self._shared.closing and not self._cancel_wanted and not owes_a_look:
                await self.orphaned()
                return
            refused = self._cancel_wanted and not await self._ask_to_stop(remote, self._response_id)
            await self._look(remote, self._response_id)
            if refused and not self._has_ended:
                self._ledger.note_refusal(self._job_id)

    def _delay(self) -> float:
        if self._cancel_wanted and not self._lookout.troubles:
            return backoff(self._cancels_asked, random.random())
        return self._lookout.pause() if self._cancel_wanted or not self._shared.closing else 0.0

    async def _ask_to_stop(self, remote: Remote, response_id: str) -> bool:
        """Ask the service to cancel; False is its refusal. Whether it did stop, the next look tells."""
        self._cancels_asked += 1
        try:
            async with self._shared.in_flight.place(self._job_id, is_urgent=True):
                await remote.cancel(response_id)
        except RemoteTrouble as trouble:
            log.info("job %s: cancel %s (%s)", self._job_id, trouble.kind, trouble.failure.code)
            self._cancel_wanted = trouble.kind is not Trouble.REFUSED
        return self._cancel_wanted

    async def _look(self, remote: Remote, response_id: str) -> None:
        try:
            async with self._shared.in_flight.place(self._job_id):
                news = await remote.look(response_id)
        except RemoteTrouble as trouble:
            if (loss := self._lookout.failed(response_id, trouble)) is not None:
                self._heard(loss)
        else:
            self._lookout.saw(news)
            self._heard(news)
            if self._is_overdue and not self._has_ended:
                self._expire()

    # --- ends -----------------------------------------------------------------------------------------------

    def _heard(self, news: News) -> None:
        self._ledger.apply(self._job_id, news)
        if news.event in _ENDS:
            self._cancel_wanted = False

    def _fail(self, code: str, detail: str = "") -> None:
        self._ledger.apply(self._job_id, News(Event.ERRORED, failure=Failure(code, detail)))

    async def orphaned(self) -> None:
        """
        End the job as nobody is left to live it.

        Either `close` ran out of time for it, or the loop ends without a `close`: then the job is cancelled at
        the service, briefly, because nobody is left to read its answer.
        """
        if self._has_ended or self._is_taken_over:
            return
        if not self._is_sent:
            if self._shared.is_durable and not self._shared.cancel_on_close and not self._submission.has_left:
                self._ledger.note(self._job_id, sent_at=None)  # it was about to leave, and did not
            else:
                self._ledger.apply(self._job_id, News(Event.CANCELLED))
        elif self._response_id is None:
            if not self._shared.is_durable:  # else it is written that it left, and the next process goes on from there
                self._fail("submission_uncertain")
        elif self._shared.cancel_on_close:
            if not self._shared.closing:
                await self._last_words(self._response_id)
            if not self._shared.is_durable:  # else the wish stands, and the next process sees to it
                self._ledger.apply(self._job_id, News(Event.LOST, failure=Failure("closed_unconfirmed")))

    async def _last_words(self, response_id: str) -> None:
        with suppress(Exception):
            async with asyncio.timeout(_LAST_WORDS):
                remote = await self._shared.link.connected()
                await remote.cancel(response_id)
                self._heard(await remote.look(response_id))
