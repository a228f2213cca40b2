"""
How a job comes to the service: one create, sent again only where it provably never arrived.

A create that may have been accepted is not repeated, because it could be paid twice; only a user who asked for
it takes that risk, twice at the most. Before a create leaves, the record says so (`sent_at`), and afterwards no
longer where it provably did not arrive: so the next process knows of a job without a response what became of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from o3pro_bg._budget import most_output_of, tokens_of
from o3pro_bg._futures import outcome
from o3pro_bg._line import Waiter
from o3pro_bg._pacing import backoff
from o3pro_bg._records import Failure, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg._budget import Reservation
    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import Remote
    from o3pro_bg._shared import Shared

log = logging.getLogger("o3pro_bg")

_CONNECT_PATIENCE: Final = 120.0  # seconds of failed connects after which an unsent job fails
_RESUBMISSIONS: Final = 2  # how often an uncertain create is repeated where the user allows it
_NEVER_ARRIVED: Final = frozenset({Trouble.UNSENT, Trouble.THROTTLED})
_TAKEN_OVER: Final = "taken_over"  # the code of a create that did not leave, because the job is, or was, elsewhere
_UNWRITTEN: Final = "store"  # the code of a create that did not leave, because that could not be written down


class Submission:
    """
    The create of one job.

    Args:
        is_unwanted: Tells whether the job shall not be sent, or not again.
        give_up: Leaves the job to the next process, if no create of it has left.

    Attributes:
        sent: Whether the service may have the job. Until then its task may simply be cancelled.
        has_left: Whether a create has left, and is not known not to have arrived.
    """

    def __init__(
        self,
        record: JobRecord,
        shared: Shared,
        is_unwanted: Callable[[], bool],
        give_up: Callable[[], object],
    ) -> None:
        self.sent = self.has_left = record.sent_at is not None
        self._epoch = record.epoch
        self._job_id = record.job_id
        self._request = record.request
        self._turn = shared.turn_of(record)
        self._door = shared.door_of(record.request.deployment)
        self._waiter: Waiter | None = None
        self._refusals = 0
        self._shared = shared
        self._ledger = shared.ledger
        self._is_unwanted = is_unwanted
        self._give_up = give_up
        self._troubles = 0
        self._uncertain = record.doubtful + (record.sent_at is not None)
        self._is_withdrawn = record.cancel_requested_at is not None
        self._unreachable_since: float | None = None

    @property
    def is_unsure(self) -> bool:
        """Tell whether a create of a former process may have arrived."""
        return self._uncertain > 0

    def hopeless(self) -> News | None:
        """Answer the news that end a job of a former process that is not to be sent (again); None for others."""
        may_send_again = self._shared.resubmit_uncertain and self._uncertain <= _RESUBMISSIONS
        if self._uncertain and not (may_send_again and self._request.is_whole and not self._is_withdrawn):
            return News(Event.ERRORED, failure=Failure("submission_uncertain", "its process ended"))
        if self._is_withdrawn:
            return News(Event.CANCELLED)
        if not self._request.is_whole:
            return News(Event.ERRORED, failure=Failure("text_not_kept"))
        return None

    async def accepted(self, remote: Remote) -> News | None:
        """
        Answer the news with which the service accepts the job, or those that end it.

        They are None where the job is, or was, elsewhere: what becomes of it is not for this one to tell.
        """
        while True:
            try:
                return await self._post(remote)
            except RemoteTrouble as trouble:
                log.info("job %s: create %s (%s)", self._job_id, trouble.kind, trouble.failure.code)
                if trouble.failure.code == _TAKEN_OVER:
                    return None
                self._troubles += 1
                if self._may_send_again(trouble):
                    # One may be running, and cannot just be dropped.
                    self.sent = self.has_left = self._uncertain > 0
                    if not self._uncertain:
                        self.release()
                    await self._hold_off(trouble)
                    if not self._is_unwanted():
                        continue
                return self.refused(trouble)

    def refused(self, trouble: RemoteTrouble) -> News:
        """Answer the news that end a job whose create is not sent again."""
        failure = trouble.failure
        if trouble.kind is Trouble.UNCLEAR or self._uncertain:
            failure = Failure("submission_uncertain", f"{failure.code} {failure.detail}".strip())
        elif self._is_unwanted() and trouble.kind in _NEVER_ARRIVED:
            self._note(waiting="")
            return News() if self._shared.leaves_unsent else News(Event.CANCELLED)
        return News(Event.ERRORED, request_id=trouble.request_id, failure=failure)

    async def _post(self, remote: Remote) -> News:
        async def create(leave: Reservation) -> News:
            # A foreground create lasts as long as its job: it would keep the others from being looked at.
            place = self._shared.in_flight.place(self._job_id, is_create=True)
            async with place if remote.background else nullcontext():
                await remote.prepare()  # a token, say: what it waits for is not the service
                if self._uncertain and self._is_unwanted():
                    raise RemoteTrouble(Trouble.UNCLEAR, Failure("unwanted"))
                await self._write_down()
                self._door.leaves(leave, is_long=not remote.background)
                self.has_left, self.sent = True, remote.background  # in the foreground it ends with its connection
                return await remote.create(self._job_id, self._request)

        has_slot = self._waiter is not None and self._waiter.has_slot
        self._waiter = Waiter(self._turn, tokens_of(self._request), self._held_up, has_slot=has_slot)
        return await self._door.send(self._waiter, create)

    def _held_up(self, reason: str) -> None:
        self._note(waiting=reason)
        self._unreachable_since = None  # it is not the way to the service that it waits for
        if self._shared.leaves_unsent:
            self._give_up()

    @property
    def is_waiting(self) -> bool:
        """Tell whether the job stands at the door."""
        return self._waiter is not None and not self._waiter.call.done()

    def withdraw(self) -> None:
        """Have the job leave the door without having been sent, or not again."""
        if self._waiter is not None and self.is_waiting:
            self._waiter.call.set_exception(RemoteTrouble(Trouble.UNCLEAR, Failure("unwanted")))

    def release(self) -> None:
        """Note that the job is not under way any more."""
        if self._waiter is not None and self._waiter.has_slot:
            self._waiter.has_slot = False
            self._shared.slots.give_back()

    async def _write_down(self) -> None:
        """Note that the create leaves now, so that it counts as sent whatever happens to this process."""
        facts = {"waiting": "", "sent_at": time.time(), "doubtful": self._uncertain}
        try:
            is_ours = self._is_ours() and await outcome(self._ledger.note(self._job_id, **facts))
        except StoreError:
            raise RemoteTrouble(Trouble.UNSENT, Failure(_UNWRITTEN)) from None
        if not is_ours:
            raise RemoteTrouble(Trouble.REFUSED, Failure(_TAKEN_OVER))

    def _note(self, waiting: str) -> None:
        """Note why the job waits, and that no create of it can have arrived."""
        facts = {"doubtful": self._uncertain - 1} if self._uncertain else {"sent_at": None}
        if self._is_ours():
            self._ledger.note(self._job_id, waiting=waiting, **facts)

    def _is_ours(self) -> bool:
        """Tell whether the job was not elsewhere since: another process may have sent it there."""
        record = self._ledger.newest(self._job_id)
        return record is not None and record.epoch == self._epoch

    def _may_send_again(self, trouble: RemoteTrouble) -> bool:
        now = self._ledger.clock()
        if self._unreachable_since is None or trouble.kind is not Trouble.UNSENT:
            self._unreachable_since = now
        if trouble.kind is Trouble.UNCLEAR:
            self._uncertain += 1
        if self._is_unwanted():
            return False
        match trouble.kind:
            case Trouble.THROTTLED:
                return not self._is_too_large(trouble)
            case Trouble.UNSENT:
                return trouble.failure.code == _UNWRITTEN or now - self._unreachable_since < _CONNECT_PATIENCE
            case Trouble.UNCLEAR:
                return self._shared.resubmit_uncertain and self._uncertain <= _RESUBMISSIONS
            case _:
                return False

    def _is_too_large(self, trouble: RemoteTrouble) -> bool:
        """Tell whether the service will never have room for the job, and say so in the trouble."""
        told, most = trouble.limits and trouble.limits.tokens, most_output_of(self._request)
        if told is None or most <= told:
            return False
        trouble.failure = Failure("larger_than_quota", f"max_output_tokens is {most}, the quota {told:.0f} a minute")
        return True

    async def _hold_off(self, trouble: RemoteTrouble) -> None:
        if trouble.kind is Trouble.THROTTLED:
            self._note(waiting="rate_limit")  # the door knows for how long
            self._refusals += 1
            if self._refusals > 1:  # whatever is wrong with it, those behind it are not to wait for that
                self._turn = self._turn._replace(since=self._ledger.clock())
        else:
            self._note(waiting="store" if trouble.failure.code == _UNWRITTEN else "connection")
            await asyncio.sleep(backoff(self._troubles, random.random()))
