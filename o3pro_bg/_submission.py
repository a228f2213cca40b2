"""
How a job comes to the service: one create, sent again only where it provably never arrived.

A create that may have been accepted is not repeated, because it could be paid twice; only a user who asked for
it takes that risk, twice at the most.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from o3pro_bg._pacing import backoff
from o3pro_bg._records import Failure, JobRequest, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg._remote import Remote
    from o3pro_bg._shared import Shared

log = logging.getLogger("o3pro_bg")

_CONNECT_PATIENCE: Final = 120.0  # seconds of failed connects after which an unsent job fails
_RESUBMISSIONS: Final = 2  # how often an uncertain create is repeated where the user allows it
_NEVER_ARRIVED: Final = frozenset({Trouble.UNSENT, Trouble.THROTTLED})


class Submission:
    """
    The create of one job.

    Args:
        is_unwanted: Tells whether the job shall not be sent, or not again.

    Attributes:
        sent: Whether the service may have the job. Until then its task may simply be cancelled.
    """

    def __init__(self, job_id: str, request: JobRequest, shared: Shared, is_unwanted: Callable[[], bool]) -> None:
        self.sent = False
        self._job_id = job_id
        self._request = request
        self._shared = shared
        self._ledger = shared.ledger
        self._is_unwanted = is_unwanted
        self._troubles = 0
        self._uncertain = 0
        self._unreachable_since: float | None = None

    async def accepted(self, remote: Remote) -> News:
        """Answer the news with which the service accepts the job, or those that end it."""
        while True:
            try:
                news = await self._post(remote)
            except RemoteTrouble as trouble:
                log.info("job %s: create %s (%s)", self._job_id, trouble.kind, trouble.failure.code)
                self._troubles += 1
                if self._may_send_again(trouble):
                    self.sent = self._uncertain > 0  # one may be running, and cannot just be dropped
                    await self._hold_off(trouble)
                    if not self._is_unwanted():
                        continue
                return self.refused(trouble)
            self.sent = True
            self._shared.budget.accepted()
            return news

    def refused(self, trouble: RemoteTrouble) -> News:
        """Answer the news that end a job whose create is not sent again."""
        failure = trouble.failure
        if trouble.kind is Trouble.UNCLEAR or self._uncertain:
            failure = Failure("submission_uncertain", f"{failure.code} {failure.detail}".strip())
        elif self._is_unwanted() and trouble.kind in _NEVER_ARRIVED:
            return News(Event.CANCELLED)
        return News(Event.ERRORED, request_id=trouble.request_id, failure=failure)

    async def _post(self, remote: Remote) -> News:
        while True:
            while (pause := self._gate()) > 0:
                self._ledger.note(self._job_id, waiting="rate_limit")
                await asyncio.sleep(pause)
            # A foreground create lasts as long as its job: it would keep the others from being looked at.
            async with self._shared.in_flight if remote.background else nullcontext():
                await remote.prepare()  # a token, say: what it waits for is not the service
                if self._uncertain and self._is_unwanted():
                    raise RemoteTrouble(Trouble.UNCLEAR, Failure("unwanted"))
                if self._gate() == 0:  # nobody has met a 429 while this one waited for its turn
                    self._ledger.note(self._job_id, waiting="")
                    self.sent = remote.background  # a foreground create ends with its connection
                    return await remote.create(self._job_id, self._request)

    def _gate(self) -> float:
        return self._shared.budget.wait(self._ledger.clock(), random.random())

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
                return True
            case Trouble.UNSENT:
                return now - self._unreachable_since < _CONNECT_PATIENCE
            case Trouble.UNCLEAR:
                return self._shared.resubmit_uncertain and self._uncertain <= _RESUBMISSIONS
            case _:
                return False

    async def _hold_off(self, trouble: RemoteTrouble) -> None:
        if trouble.kind is Trouble.THROTTLED:
            self._shared.budget.throttled(self._ledger.clock(), random.random(), trouble.retry_after)
        else:
            self._ledger.note(self._job_id, waiting="connection")
            await asyncio.sleep(backoff(self._troubles, random.random()))
