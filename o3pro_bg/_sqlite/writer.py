"""
The thread that writes for all.

Whoever wants something changed puts an operation into the inbox and gets a future. The writer takes everything that
waits there, carries it out in one transaction, which costs one disk sync however much it holds, and then tells them
all: while the disk syncs, the next transaction gathers. Between operations it looks what other processes did, and
beats while there are jobs to be held.

The connection to the file is known on this thread alone, so no other thread, and no forked process, can touch it.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, RLock, get_ident
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.journal import Journal
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sqlite.mirror import Mirror

    Begin = Callable[["Settings", Mirror], AbstractContextManager[Journal]]
    Notice = weakref.WeakMethod[Callable[[Collection[str]], bool]]


log = logging.getLogger("o3pro_bg")

T = TypeVar("T")

_MOVES: Final = (Journal.replace, Journal.remove)

_FORK_PATIENCE: Final = 5.0  # seconds that a fork waits for files to be closed, however busy the machine is
_PULSE: Final = 0.2  # seconds between two looks at what other processes did


class Operation(Generic[T]):
    """
    Something that the journal shall do, and the future of what comes of it.

    Only an insert can be cancelled, before it is begun: then nobody wants the job. All else is done in any case.
    """

    def __init__(self, verb: Callable[..., T], *args: Any) -> None:
        self.verb = verb
        self.args = args
        self.future: Future[T] = Future()
        if verb is not Journal.insert:
            self.future.set_running_or_notify_cancel()

    def is_wanted(self) -> bool:
        """Begin; False where it was cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def run(self, journal: Journal) -> T | StoreError:
        """Answer what the journal answers, or why this operation alone cannot be carried out."""
        verb = getattr(type(journal), self.verb.__name__, self.verb)  # a kind of journal may have a way of its own
        try:
            return verb(journal, *self.args)
        except StoreError:
            raise
        except ValueError:
            return StoreError("the job holds something that is no JSON value, and cannot be written")
        except Exception as exc:
            return StoreError(f"the job cannot be written: internal error ({type(exc).__name__})")

    def settle(self, outcome: T | StoreError) -> None:
        """Tell who waits; what is settled already stays so."""
        with suppress(InvalidStateError):
            if isinstance(outcome, StoreError):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)


class Inbox:
    """
    Operations on their way to the writer.

    Attributes:
        why: Why it takes no more, or an empty string.
    """

    def __init__(self) -> None:
        self.why = ""
        self._queue: SimpleQueue[Operation[Any]] = SimpleQueue()
        self._gate = RLock()  # whatever a signal or the garbage collector interrupts, may put something in

    def put(self, operation: Operation[Any]) -> bool:
        """Hand over an operation; False where it is too late."""
        with self._gate:
            if not self.why:
                self._queue.put(operation)
            return not self.why

    def take(self, seconds: float) -> list[Operation[Any]]:
        """Answer all that waits, up to a release or a rest; wait so many seconds for the first."""
        taken: list[Operation[Any]] = []
        with suppress(Empty):
            taken.append(self._queue.get(timeout=seconds))
            while taken[-1].verb not in (Journal.release, _rest):
                taken.append(self._queue.get_nowait())
        return [operation for operation in taken if operation.is_wanted()]

    def shut(self, why: str) -> None:
        """Take no more, and refuse what waits."""
        with self._gate:
            self.why = why
        with suppress(Empty):
            while True:
                self._queue.get_nowait().settle(StoreError(why))


_AT_WORK: Final[set[Inbox]] = set()
_RESTS: Final[dict[int, Event]] = {}  # by the thread that forks: what tells that it has


@contextmanager
def at_rest_in_forks(inbox: Inbox) -> Iterator[None]:
    """Have the writer of this inbox close its file for the moment of a fork: a child could not open it otherwise."""
    _AT_WORK.add(inbox)
    try:
        yield
    finally:
        _AT_WORK.discard(inbox)


def _rest(journal: Journal, begun: Event, over: Event) -> None:
    if not over.is_set():
        journal.rest()
        begun.set()
        over.wait()


def _have_rest() -> None:
    """Wait until all files are closed; one that takes longer, because another process has locked it, is left open."""
    over = _RESTS[get_ident()] = Event()
    rests = [(inbox, Event()) for inbox in list(_AT_WORK)]
    asked = [begun for inbox, begun in rests if inbox.put(Operation(_rest, begun, over))]
    deadline = time.monotonic() + _FORK_PATIENCE
    for begun in asked:
        begun.wait(max(0.0, deadline - time.monotonic()))


def _go_on() -> None:
    _RESTS.pop(get_ident()).set()


def _begin_again() -> None:
    _AT_WORK.clear()
    _RESTS.clear()


getattr(os, "register_at_fork", dict)(  # no forks on Windows
    before=_have_rest, after_in_parent=_go_on, after_in_child=_begin_again
)


@contextmanager
def of_file(settings: Settings, mirror: Mirror) -> Iterator[Journal]:
    """Open a file, or make it, for as long as its journal is needed."""
    with closing(JobFile(settings.path, busy=settings.busy)) as file:
        yield Journal(file, mirror, settings.owner, settings.endpoint, pace=settings.pace, keep_text=settings.keep_text)


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How a store is used.

    Attributes:
        path: The place, as people are told of it.
        owner: This store's name among the owners of jobs.
        endpoint: The service whose free jobs are claimed.
        keep_text: Whether questions and answers are written.
        pace: Seconds between two beats.
        busy: Seconds to wait for another process's transaction.
        begin: Opens the place where the jobs are, and answers its journal.
    """

    path: str
    owner: str
    endpoint: str
    keep_text: bool
    pace: float
    busy: float
    begin: Begin = of_file


def serve(
    settings: Settings, inbox: Inbox, mirror: Mirror, notice: Notice, opened: Future[None], closed: Future[None]
) -> None:
    """
    Open the file, work until a release is done, and close the file: what the thread runs.

    Args:
        settings: How the store is used.
        inbox: Where the operations come from.
        mirror: Where the records are shown.
        notice: What to call, as long as it is there, with the ids of jobs that changed elsewhere, if any; it answers
            whether anybody is left to hear that.
        opened: Is done once the mirror shows all jobs, or raises `StoreError`.
        closed: Is done once the file is closed, and raises `StoreError` where something could not be written.
    """
    outcome: StoreError | None = None
    try:
        with settings.begin(settings, mirror) as journal:
            journal.open()
            opened.set_result(None)
            with at_rest_in_forks(inbox):
                outcome = _Writer(settings, inbox, journal, notice).work()
    except BaseException as exc:  # nobody above this could tell of it
        outcome = _told(settings, exc)
    inbox.shut(str(outcome or f"the job store {settings.path}: it is closed"))
    if not opened.done():
        opened.set_exception(outcome)
        closed.set_result(None)
    elif outcome is None:
        closed.set_result(None)
    else:
        log.error("%s", outcome)
        closed.set_exception(outcome)


class _Writer:
    """
    Carries out what comes into the inbox.

    What could not be written is kept, the newest state of each job, and tried again with every pulse: readers have seen
    it already.
    """

    def __init__(self, settings: Settings, inbox: Inbox, journal: Journal, notice: Notice) -> None:
        self._settings = settings
        self._inbox = inbox
        self._journal = journal
        self._notice = notice
        self._unwritten: dict[str, Operation[Any]] = {}
        self._is_troubled = False
        self._pulse = min(_PULSE, settings.pace)
        self._next_pulse = self._next_beat = time.monotonic()

    def work(self) -> StoreError | None:
        """Work until a release is done; answer what could not be written, if anything."""
        while not self._turn():
            self._tell()
        if not self._unwritten:
            return None
        return StoreError(
            f"the job store {self._settings.path}: the last news of these jobs could not be written: "
            + ", ".join(self._unwritten)
        )

    def _turn(self) -> bool:
        """Do what there is to do; tell whether it was the last."""
        batch = self._inbox.take(max(0.0, self._next_pulse - time.monotonic()))
        if batch and batch[-1].verb is Journal.release:
            self._write_late()  # what is not held any more cannot be written
            self._carry_out(batch)
            return True
        rest = batch.pop() if batch and batch[-1].verb is _rest else None
        if batch:
            self._carry_out(batch)
        if rest is not None:
            rest.settle(rest.run(self._journal))
        if time.monotonic() >= self._next_pulse:
            self._look_around()
            self._next_pulse = time.monotonic() + self._pulse
        return False

    def _look_around(self) -> None:
        try:
            with self._journal.glance():
                pass
            if self._journal.awaits and time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + self._settings.pace
                self._journal.beat()
                self._relax()
            self._write_late()
        except StoreError as exc:
            self._complain(exc)
        self._journal.wipe()

    def _write_late(self) -> None:
        """Try again, one by one, what could not be written: where one of it never can be, the others still are."""
        while self._unwritten:
            job_id, operation = next(iter(self._unwritten.items()))
            del self._unwritten[job_id]
            self._carry_out([operation])
            if job_id in self._unwritten:  # it is the last one now: another comes first at the next pulse
                return

    def _carry_out(self, batch: list[Operation[Any]]) -> None:
        late = self._making_way_for(batch)
        try:
            outcomes = self._outcomes_of([*late, *batch])
            if late and isinstance(outcomes, StoreError):  # one of those may be what can never be written
                late, outcomes = [], self._outcomes_of(batch)
        except BaseException as exc:
            self._refuse(batch, _told(self._settings, exc))
            raise
        if isinstance(outcomes, StoreError):
            self._refuse(batch, outcomes)
            return
        for operation in (done := [*late, *batch]):
            if operation.verb in _MOVES:
                self._unwritten.pop(_job_of(operation), None)  # this is newer
        if not _is_read(batch):
            self._relax()
        for operation, outcome in zip(done, outcomes, strict=True):
            if isinstance(outcome, StoreError) and operation.verb is Journal.replace:
                self._show(operation)
            operation.settle(outcome)

    def _making_way_for(self, batch: list[Operation[Any]]) -> list[Operation[Any]]:
        """Answer the removals that wait, if there is anything new whose key or id they may free."""
        if all(operation.verb is not Journal.insert for operation in batch):
            return []
        return [operation for operation in self._unwritten.values() if operation.verb is Journal.remove]

    def _outcomes_of(self, batch: list[Operation[Any]]) -> list[Any] | StoreError:
        """Carry these out as one transaction; answer what comes of each, or why nothing of it could be written."""
        try:
            with self._journal.glance() if _is_read(batch) else self._journal.transaction():
                return [operation.run(self._journal) for operation in batch]
        except Exception as exc:
            return _told(self._settings, exc)

    def _refuse(self, batch: list[Operation[Any]], error: StoreError) -> None:
        self._complain(error)
        for operation in batch:
            self._keep(operation)
            operation.settle(StoreError(str(error)))

    def _show(self, operation: Operation[Any]) -> JobRecord | None:
        """Show readers the news that could not be written; answer what is to be written of the job, if there is one."""
        try:
            return self._journal.keep(*operation.args)
        except Exception:  # what is no record cannot be shown either
            return None

    def _keep(self, operation: Operation[Any]) -> None:
        """Remember what was to be written of a job, which readers see from now on."""
        if operation.verb is Journal.remove:
            self._unwritten[_job_of(operation)] = operation
        elif operation.verb is Journal.replace and (record := self._show(operation)) is not None:
            self._unwritten[record.job_id] = Operation(Journal.replace, record)

    def _tell(self) -> None:
        """Tell what others have changed; where nobody is left to hear it, nobody can live a job that is held here."""
        job_ids, notice = self._journal.take_news(), self._notice()
        try:
            if notice is not None and not notice(job_ids):  # a store that is gone has itself put in its release
                self._inbox.put(Operation(Journal.release))
        except Exception as exc:
            log.error("who was told of changes in the job store raised %s", type(exc).__name__)

    def _complain(self, error: StoreError) -> None:
        if not self._is_troubled:
            self._is_troubled = True
            log.warning("%s; it is tried again, and the jobs go on in memory", error)

    def _relax(self) -> None:
        if self._is_troubled and not self._unwritten:
            self._is_troubled = False
            log.info("the job store %s: all is written again", self._settings.path)


def _is_read(batch: list[Operation[Any]]) -> bool:
    return all(operation.verb is Journal.refresh for operation in batch)


def _job_of(operation: Operation[Any]) -> str:
    """Answer the id of the job that this replaces or removes."""
    subject = operation.args[0]
    return subject if isinstance(subject, str) else str(subject.job_id)


def _told(settings: Settings, exc: BaseException) -> StoreError:
    if isinstance(exc, StoreError):
        return exc
    return StoreError(f"the job store {settings.path}: internal error ({type(exc).__name__})")
