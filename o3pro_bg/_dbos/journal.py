"""
What a process knows of the jobs in the database, and how it changes them.

It is the journal of the store on disk, with its epochs, beats and burials; only who holds a job is not decided by who
comes first, but dealt: whoever inserts a job, lets go of it, or buries its owner has it dealt out, in the same
transaction, and who is dealt it claims it, once. What nobody holds, and was never sent, anybody may end.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._dbos.tables import InDoubtError
from o3pro_bg._records import Failure, JobRecord, News
from o3pro_bg._sqlite.journal import PATIENCE, Journal, Known
from o3pro_bg._states import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg._dbos.dealer import Dealer
    from o3pro_bg._dbos.tables import JobTables
    from o3pro_bg._sqlite.mirror import Mirror
    from o3pro_bg._sqlite.writer import Settings

_OFTEN: Final = 20  # times that a job is dealt again at once
_WAITS: Final = "concurrency"  # for a worker whose hands are not full
_EXPIRED: Final = News(Event.ERRORED, failure=Failure("deadline"))


class SharedJournal(Journal):
    """
    The jobs of a database, for one thread.

    Args:
        tables: Where the jobs are.
        dealer: Deals them out.
        mirror: Where they are shown.
        settings: How the store is used.
        stop: Called before all that is held here is dealt to others: nothing more shall be dealt to us.
    """

    holds_new = False

    def __init__(
        self,
        tables: JobTables,
        dealer: Dealer,
        mirror: Mirror,
        settings: Settings,
        stop: Callable[[], object],
    ) -> None:
        file: Any = tables  # it answers as a file does
        super().__init__(
            file, mirror, settings.owner, settings.endpoint, pace=settings.pace, keep_text=settings.keep_text
        )
        self._tables = tables
        self._dealer = dealer
        self._stop = stop
        self._is_untidy = True  # until it was seen that DBOS has nothing under way
        self._beats = 0
        self._suspects: set[tuple[str, int]] = set()
        self._moved: list[tuple[str, int]] = []  # what was dealt again, with the epochs before
        self._inserted: list[JobRecord] = []  # in the transaction under way
        self._in_doubt: list[JobRecord] = []  # of which it was told that they are not kept

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Do what is done inside as one step; what is kept though it was told that it is not, is withdrawn before."""
        if self._in_doubt:
            with super().transaction():
                for record in self._in_doubt:
                    self._withdraw(record)
            self._in_doubt = []
        self._inserted = []
        try:
            with super().transaction(durable=durable):
                yield
        except BaseException as exc:
            self._moved = []  # which was not moved: called off, a job that is lived would be cancelled
            if isinstance(exc, InDoubtError):
                self._in_doubt = self._inserted
            raise

    def _withdraw(self, record: JobRecord) -> None:
        """
        Remove a job of which nobody learned; one that is held already is cancelled.

        One that is held and has a key is left alone: who gives the key again gets it.
        """
        known = self._view(record.job_id)
        if known is None:
            return
        if not _may_be_sent(known.record) and self._tables.remove_free(known.number):
            self._dealer.forget(self._tables.connection, record.job_id, range(known.epoch, known.epoch + 1))
            self._step(record.job_id, None)
        elif record.request.dedupe_key is None:
            super().wish(record.job_id, time.time())
        self._news.add(record.job_id)

    def insert(self, record: JobRecord) -> JobRecord:
        """Add a job and have it dealt out; answer its record, or that of the job which has its key or its id."""
        waits = replace(record, waiting=_WAITS)
        kept = super().insert(waits)
        if kept is waits and (known := self._view(record.job_id)) is not None:
            if record.request.timeout is not None:
                self._tables.set_due(known.number, record.created_at + record.request.timeout - time.time())
            self._deal(known.number, record, known.epoch)
            self._tables.evidence = partial(self._dealer.has_dealt, record.job_id, known.epoch)
            self._inserted.append(record)
        return record if kept is waits else kept

    def claim(self, job_id: str, epoch: int) -> bool:
        """Hold a job that was dealt to us; False where that is over: it has ended, was dealt again, or is gone."""
        known = self._view(job_id)
        if known is None or known.epoch != epoch or known.record.status.is_terminal:
            return False
        if not _may_be_sent(known.record) and not self._has_room():  # to two at once, it was dealt beyond the bound
            if len(self._tables.epochs(known.number)) < _OFTEN:  # else whoever sweeps does so, in some seconds
                self._deal_again(job_id)
            return False
        if not self._tables.take(known.number, self._owner, epoch, self._seq + 1):
            return False
        self._file.beat(self._owner, self._pace)
        self._is_untidy = True
        waiting = "" if known.record.waiting == _WAITS else known.record.waiting
        claimed = replace(known.record, epoch=epoch, waiting=waiting)
        self._step(job_id, Known(claimed, known.number, epoch, is_mine=True))
        self._news.add(job_id)
        return True

    def wish(self, job_id: str, at: float | None) -> bool:
        """Set or withdraw the wish to cancel a job; one that nobody holds, and that was never sent, is cancelled."""
        if not super().wish(job_id, at):
            return False
        if at is not None:
            self._end_unsent(job_id, News(Event.CANCELLED))
        return True

    def remove(self, job_id: str) -> bool:
        """Forget a job, and with it what DBOS knows of it."""
        if (known := self._known.get(job_id)) is not None:  # the mirror hides it already
            self._dealer.forget(self._tables.connection, job_id, self._tables.epochs(known.number))
        return super().remove(job_id)

    def heed(self, job_id: str, epoch: int) -> bool:
        """Wish to cancel a job that is still held here, in this epoch."""
        known = self._view(job_id)
        is_ours = known is not None and known.is_mine and known.epoch == epoch
        if is_ours and known is not None and known.record.cancel_requested_at is None:
            self._news.add(job_id)
            return super().wish(job_id, time.time())
        return False

    @property
    def awaits(self) -> bool:
        """Tell whether any job is under way, or there is something to be tidied up."""
        return super().awaits or self._is_untidy

    def open(self) -> None:
        """See every job, and deal out anew those of the dead."""
        super().open()
        self._call_off_moved()

    def beat(self) -> None:
        """Show that we live, look who does not, and deal out anew what is free; tidy up, every few beats."""
        super().beat()
        self._call_off_moved()
        self._beats += 1
        if self._beats % PATIENCE == 0:
            self._sweep()

    def release(self) -> None:
        """Hold nothing any more: others are dealt it."""
        self._stop()
        for known in [known for known in self._known.values() if known.is_mine]:
            self._deal_again(known.record.job_id)
        self._file.bury(self._owner)

    def _claim(self) -> None:
        """Deal out anew what the buried held, and end what nobody took in its time."""
        for job_id in self._tables.free(self._endpoint):
            self._deal_again(job_id)
        for job_id in self._tables.overdue():
            self._end_unsent(job_id, _EXPIRED)

    def _deal_again(self, job_id: str) -> None:
        known = self._changed.get(job_id, self._known.get(job_id))
        if known is None or known.record.status.is_terminal:  # or its row is damaged
            return
        epoch = known.epoch + 1
        self._tables.hand_over(known.number, None, epoch, self._seq + 1)
        self._deal(known.number, known.record, epoch)
        self._moved.append((job_id, known.epoch))
        self._step(job_id, Known(replace(known.record, epoch=epoch), known.number, epoch, is_mine=False))
        self._news.add(job_id)

    def _end_unsent(self, job_id: str, news: News) -> None:
        known = self._view(job_id)
        if known is None or _may_be_sent(known.record):
            return
        ended = known._replace(record=known.record.apply(news, time.monotonic()))
        if ended.record is not known.record and self._tables.update(self._row(ended), self._seq + 1, if_free=True):
            self._step(job_id, ended)
            self._news.add(job_id)

    def _deal(self, number: int, record: JobRecord, epoch: int) -> None:
        is_sent = _may_be_sent(record)
        self._tables.set_sent(number, is_sent=is_sent)
        self._dealer.deal(self._tables.connection, record, epoch, is_urgent=is_sent)

    def _has_room(self) -> bool:
        """Tell whether one more job of our service may be under way."""
        most = self._dealer.most_of(self._tables.connection, self._endpoint)
        return most is None or self._tables.held_of(self._endpoint) < most

    def _call_off_moved(self) -> None:
        """Have what was dealt again take up no place any more by where it was before."""
        moved, self._moved = self._moved, []
        with self._tables.told():
            self._dealer.call_off(moved)

    def _sweep(self) -> None:
        """
        Call off workflows that live nothing any more, and deal out anew what nobody holds, or is dealt.

        All of that is left by processes that died, or could not live what they were dealt; it may also be on its way to
        be claimed, or told, so it is seen twice before it is believed.
        """
        with self._tables.told():
            under_way = self._dealer.under_way()
        with self._tables.reading():
            dealt = self._tables.dealt() if under_way else {}
            stranded = [pair for pair in self._tables.stranded(self._dealer.is_dealt) if self._is_sound(pair[0])]
        self._is_untidy = bool(under_way or stranded)
        idle = {pair for pair in under_way if dealt.get(pair[0]) != (pair[1], True)}
        suspects = idle | {*stranded}
        for job_id, epoch in sorted(suspects & self._suspects):
            self._tidy(job_id, epoch, is_under_way=(job_id, epoch) in idle)
        self._suspects = suspects - self._suspects
        self._call_off_moved()

    def _is_sound(self, job_id: str) -> bool:
        """Tell whether a job that has not ended can be lived; one whose row is damaged cannot."""
        known = self._known.get(job_id)
        return known is not None and not known.record.status.is_terminal

    def _tidy(self, job_id: str, epoch: int, *, is_under_way: bool) -> None:
        with self.transaction():
            dealt = self._tables.dealt_as(job_id)
            if dealt == (epoch, True):  # it was claimed after all: called off, it would be cancelled
                return
            if dealt == (epoch, False):
                self._deal_again(job_id)
        if is_under_way:
            with self._tables.told():
                self._dealer.call_off([(job_id, epoch)])
        if self._view(job_id) is None:
            with self.transaction():
                self._dealer.forget(self._tables.connection, job_id, range(epoch, epoch + 1))


def _may_be_sent(record: JobRecord) -> bool:
    return record.sent_at is not None or record.response_id is not None
