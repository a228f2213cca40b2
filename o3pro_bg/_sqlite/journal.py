"""
What a process knows of the jobs in a file, and how it changes them.

The journal moves in transactions. Each one begins by catching up with what other processes committed, so whatever is
decided in it is decided on the truth, and nobody can change that truth before it is committed. What is decided shows
in the mirror, from which readers are served, after the commit.

A job that has not ended is held by one owner: the epoch of its row counts the owners it had, and an owner writes
only in his own epoch. Owners beat: each counts his own beats and, with each of them, looks at those of the others.
One who stood still for six of them, and for as long as six of his should take, is taken for dead, and his jobs are
free; one whose process is known to have ended is dead at once. No clock is compared, so neither a clock that jumps
nor a machine that sleeps kills anybody; and one who was taken for dead and was not, wakes up in an old epoch.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from o3pro_bg._records import Failure, JobRecord, JobRequest
from o3pro_bg._sqlite.place import is_gone
from o3pro_bg._sqlite.rows import Row, record_from, request_from_text, request_to_text, state_to_text
from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from o3pro_bg._records import Usage
    from o3pro_bg._sqlite.jobfile import JobFile
    from o3pro_bg._sqlite.mirror import Mirror

log = logging.getLogger("o3pro_bg")

_DAMAGED: Final = Failure("store_damaged")

PATIENCE: Final = 6  # beats of ours in which an owner does not beat until he is taken for dead


class Known(NamedTuple):
    """A job as this process knows it: what the file has, or what could not be written yet."""

    record: JobRecord
    number: int
    epoch: int
    is_mine: bool


class Journal:
    """
    The jobs of a file, for one thread.

    `insert`, `replace`, `wish`, `remove`, `refresh` and `release` are called inside a `transaction`, and raise
    `ValueError`, having done nothing, where something cannot be written as JSON.

    Args:
        file: Where the jobs are.
        mirror: Where they are shown.
        owner: This process's name among the owners.
        endpoint: The service whose free jobs are claimed.
        pace: Seconds between two beats.
        keep_text: Whether questions and answers are written.
    """

    holds_new = True  # whether who inserts a job holds it

    def __init__(
        self, file: JobFile, mirror: Mirror, owner: str, endpoint: str, *, pace: float, keep_text: bool
    ) -> None:
        self._file = file
        self._mirror = mirror
        self._owner = owner
        self._endpoint = endpoint
        self._pace = pace
        self._keep_text = keep_text
        self._seq = -(2**63)  # before every row, should even its number be damaged
        self._removals = 0
        self._known: dict[str, Known] = {}
        self._steps: list[tuple[str, Known | None]] = []  # of the transaction under way
        self._changed: dict[str, Known | None] = {}  # what they lead to
        self._awaited: set[str] = set()  # jobs for which it matters who is alive
        self._silence: dict[str, tuple[int, int]] = {}  # of each owner: his beat, and for how many of ours
        self._news: set[str] = set()

    @property
    def awaits(self) -> bool:
        """Tell whether any job is under way that is held here or might have to be."""
        return bool(self._awaited)

    def take_news(self) -> set[str]:
        """Answer, once, which jobs changed otherwise than by what was asked for here."""
        news, self._news = self._news, set()
        return news

    def open(self) -> None:
        """See every job of the file, and claim those that are free."""
        with self._file.reading():
            self._file.check()
            self._catch_up()
        self._news.clear()
        with self.transaction():
            for owner in self._file.beats(self._pace):
                if is_dead(owner):
                    self._file.bury(owner)
            self._claim()

    def rest(self) -> None:
        """Have the file closed until it is needed again."""
        self._file.rest()

    @contextmanager
    def glance(self) -> Iterator[None]:
        """See what other processes have done, without a transaction that writes; inside, nothing but `refresh`."""
        with self._file.reading():
            self._catch_up()
        yield

    def beat(self) -> None:
        """Show that we live, look who does not, and claim what is free."""
        with self.transaction(durable=False):
            self._file.beat(self._owner, self._pace)
            silence: dict[str, tuple[int, int]] = {}
            for owner, (beat, ratio) in self._file.beats(self._pace).items():
                before, beats = self._silence.get(owner, (None, 0))
                silence[owner] = beat, (beats + 1 if beat == before else 0)
                if silence[owner][1] >= PATIENCE * max(1.0, ratio) or is_dead(owner):
                    self._file.bury(owner)
            self._claim()
        self._silence = silence

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Do what is done inside as one step, of which nothing stays where it raises; the mirror shows it then."""
        try:
            with self._file.writing(durable=durable):
                self._catch_up()
                yield
                removals = self._removals + sum(known is None for _, known in self._steps)
                if self._steps:
                    self._file.count(self._seq + 1, removals)
            if self._steps:
                self._seq, self._removals = self._seq + 1, removals
            for job_id, known in self._steps:
                self._put(job_id, known)
        finally:
            self._steps, self._changed = [], {}

    def insert(self, record: JobRecord) -> JobRecord:
        """Add a job and hold it; answer its record, or that of the job which has its key or its id."""
        job_id, request = record.job_id, record.request
        found = self._file.find(job_id, request.endpoint, request.dedupe_key)
        if found is not None:
            known = self._view(found.job_id)
            return self._read(found) if known is None else known.record
        epoch = self._seq + 1  # above that of any job which had this id before
        known = Known(record, 0, epoch, is_mine=self.holds_new)
        row, text = self._row(known), request_to_text(request, keep_text=self._keep_text)
        owner = self._owner if self.holds_new else None
        number = self._file.insert(row, request.dedupe_key, text, owner, self._seq + 1)
        self._file.beat(self._owner, self._pace)  # an owner of whom nobody knows, holds nothing
        self._step(job_id, known._replace(number=number))
        return record

    def replace(self, record: JobRecord) -> bool:
        """Write the state of a job that is held here, or book the facts in that of another; tell which."""
        before = self._view(record.job_id)
        if before is None or before.record.failure == _DAMAGED:  # whose row is left for who may mend it
            return False
        after, is_newest = _merged(before, record)
        if not is_newest:  # what readers see may have been told before it could be written, and is not the truth
            after = self._truth(before)
            after = after._replace(record=_booked(after.record, record))
        is_there = self._file.update(self._row(after), self._seq + 1)
        shown = after if is_newest else before._replace(record=_booked(before.record, record))
        self._step(record.job_id, shown if is_there else None)
        return is_there and is_newest

    def keep(self, record: JobRecord) -> JobRecord | None:
        """
        Show the state of a job that could not be written, if it is held here.

        Returns:
            What is to be written as soon as it can be; None where there is no such job.
        """
        if (before := self._view(record.job_id)) is None:
            return None
        if not before.is_mine:
            return record
        after = _merged(before, record)[0]
        self._put(record.job_id, after)
        return after.record

    def wish(self, job_id: str, at: float | None) -> bool:
        """Set or withdraw the wish to cancel a job; False where it has ended, or there is none."""
        known = self._view(job_id)
        if known is None or known.record.status.is_terminal or not self._file.wish(known.number, at, self._seq + 1):
            return False
        self._step(job_id, known._replace(record=replace(known.record, cancel_requested_at=at)))
        return True

    def remove(self, job_id: str) -> bool:
        """Forget a job, which the mirror hides already."""
        if (known := self._known.get(job_id)) is not None:
            self._file.remove(known.number)
        self._step(job_id, None)
        return True

    def wipe(self) -> None:
        """Have nothing left of what was removed here, where that can be had without waiting; outside a transaction."""
        self._file.wipe()

    def refresh(self) -> None:
        """Nothing is left to be done: the transaction has caught up."""

    def release(self) -> None:
        """Hold nothing any more."""
        for job_id, known in {**self._known, **self._changed}.items():
            if known is not None and known.is_mine and not known.record.status.is_terminal:
                self._file.hand_over(known.number, None, known.epoch, self._seq + 1)
                self._step(job_id, known._replace(is_mine=False))
        self._file.bury(self._owner)

    def _truth(self, known: Known) -> Known:
        """Answer the job as the file has it."""
        row = self._file.find(known.record.job_id, "", None)
        return known if row is None or row.state is None else known._replace(record=self._read(row))

    def _step(self, job_id: str, known: Known | None) -> None:
        self._steps.append((job_id, known))
        self._changed[job_id] = known

    def _view(self, job_id: str) -> Known | None:
        """Answer a job as it is inside the transaction under way."""
        if job_id in self._changed:
            return self._changed[job_id]
        return None if self._mirror.get(job_id) is None else self._known.get(job_id)

    def _claim(self) -> None:
        for job_id in self._file.free(self._endpoint):
            known = self._known.get(job_id)
            if known is not None and not known.record.status.is_terminal:  # else its row is damaged
                epoch = known.epoch + 1
                mine = known._replace(record=replace(known.record, epoch=epoch), epoch=epoch, is_mine=True)
                self._file.hand_over(mine.number, self._owner, mine.epoch, self._seq + 1)
                self._step(job_id, mine)
                self._news.add(job_id)
        if self._steps:
            self._file.beat(self._owner, self._pace)

    def _catch_up(self) -> None:
        seq, removals = self._file.counters()
        if seq != self._seq:
            for row in self._file.rows_since(self._seq):
                self._absorb(row)
        if removals != self._removals:
            for job_id in self._known.keys() - self._file.job_ids():
                self._put(job_id, None)
                self._news.add(job_id)
        self._seq, self._removals = seq, removals

    def _absorb(self, row: Row) -> None:
        """Take over what another process wrote; of a job that is held here, what we cannot know."""
        before = self._known.get(row.job_id)
        truth = Known(self._read(row), row.number, row.epoch, is_mine=False)
        if before is not None and before.is_mine and before.epoch == row.epoch:
            record = replace(_booked(before.record, truth.record), cancel_requested_at=row.cancel_requested_at)
            truth = before._replace(record=record)
        elif before is not None and _has_been_told(before.record, truth.record):
            truth = truth._replace(record=_booked(before.record, truth.record))
        if truth != before:
            self._put(row.job_id, truth)
            self._news.add(row.job_id)

    def _put(self, job_id: str, known: Known | None) -> None:
        if known is None:
            self._known.pop(job_id, None)
            self._awaited.discard(job_id)
            self._mirror.drop(job_id)
            return
        self._known[job_id] = known
        matters = known.is_mine or known.record.request.endpoint == self._endpoint
        is_awaited = matters and not known.record.status.is_terminal
        (self._awaited.add if is_awaited else self._awaited.discard)(job_id)
        self._mirror.show(known.record, is_held=known.is_mine)

    def _row(self, known: Known) -> Row:
        record, text = known.record, state_to_text(known.record, keep_text=self._keep_text)
        endpoint, ended, wish = record.request.endpoint, record.status.is_terminal, record.cancel_requested_at
        return Row(known.number, record.job_id, endpoint, text, ended, wish, known.epoch)

    def _read(self, row: Row) -> JobRecord:
        """Answer the record of a row; a damaged one is a job that failed by that, here and not in the file."""
        known = self._known.get(row.job_id)
        # A known job keeps its place on our monotonic clock, however the wall clock was set since.
        if known is None:
            request, now_mono, now_wall = self._request(row), time.monotonic(), time.time()
        else:
            request, now_mono, now_wall = known.record.request, known.record.started, known.record.created_at
        try:
            record = record_from(
                row.job_id,
                request,
                row.state or "",
                cancel_requested_at=row.cancel_requested_at,
                epoch=row.epoch,
                now_mono=now_mono,
                now_wall=now_wall,
            )
            if record.status.is_terminal is row.ended:
                return record
        except ValueError:
            pass
        log.error("the job store %s: the state of job number %d is damaged", self._file.path, row.number)
        return JobRecord(
            row.job_id, request, now_wall, now_mono, status=JobStatus.FAILED, ended=now_mono, failure=_DAMAGED
        )

    def _request(self, row: Row) -> JobRequest:
        try:
            return request_from_text(self._file.request(row) or "")
        except ValueError:
            log.error("the job store %s: the request of job number %d is damaged", self._file.path, row.number)
            return JobRequest("", "", endpoint=row.endpoint, is_whole=False)


def is_dead(owner: str) -> bool:
    """Tell whether the process of this owner is known to have ended, by the mark in his name."""
    return is_gone(owner.partition(" ")[2])


def _merged(before: Known, record: JobRecord) -> tuple[Known, bool]:
    """
    Answer what is to be kept of a record that shall take the place of another, and whether that is the record itself.

    It is only in the hands of the job's owner, if it was made since he holds the job, and where it does not move a job
    that has ended; else facts that were unknown are all that is kept of it.
    """
    truth = before.record
    is_owners = before.is_mine and record.epoch == truth.epoch
    is_newest = is_owners and (not truth.status.is_terminal or record.status is truth.status)
    kept = _booked(record, truth) if is_newest else _booked(truth, record)
    return before._replace(record=replace(kept, cancel_requested_at=truth.cancel_requested_at)), is_newest


def _has_been_told(shown: JobRecord, truth: JobRecord) -> bool:
    """Tell whether readers saw this job end, in a state that could not be written, so that it ended again elsewhere."""
    is_same = shown.created_at == truth.created_at and shown.failure != _DAMAGED
    return is_same and shown.status.is_terminal and truth.failure != _DAMAGED


def _booked(record: JobRecord, other: JobRecord) -> JobRecord:
    """Answer the record with the facts that only the other one knows: the ids, the model, and more usage."""
    facts: dict[str, Any] = {
        name: fact
        for name in ("response_id", "request_id", "model")
        if getattr(record, name) is None and (fact := getattr(other, name)) is not None
    }
    if other.usage is not None and _total(other.usage) > _total(record.usage):
        facts["usage"] = other.usage
    return replace(record, **facts) if facts else record


def _total(usage: Usage | None) -> int:
    return -1 if usage is None else usage.input_tokens + usage.output_tokens
