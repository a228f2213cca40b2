"""The store on disk: a mirror for readers, and one thread that writes for all."""

from __future__ import annotations

import os
import uuid
import weakref
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from o3pro_bg._figures import is_figure
from o3pro_bg._sqlite.journal import PATIENCE, Journal
from o3pro_bg._sqlite.mirror import Mirror
from o3pro_bg._sqlite.place import absolute, process_mark
from o3pro_bg._sqlite.writer import Inbox, Operation, Settings, of_file, serve
from o3pro_bg._stores import done
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sqlite.writer import Begin
    from o3pro_bg._stores import Noticed

T = TypeVar("T")

_SHORTEST: Final = 0.1  # seconds of a lease; in a shorter one, even the living do not get around to showing it


class WrittenStore:
    """
    A store that one thread writes for all, who read from memory.

    Args:
        place: Where the jobs are, as people are told of it.
        begin: Opens that place, on the thread.
        store_text: Whether questions, options and answers are written.
        lease: Seconds after which the jobs of one that does not show that it lives are taken over.
    """

    durable = True

    def __init__(self, place: str, begin: Begin, *, store_text: bool, lease: float) -> None:
        if not is_figure(lease) or lease < _SHORTEST:
            raise ValueError(f"lease= must be a number of seconds, {_SHORTEST} at least")
        if not isinstance(store_text, bool):  # "no" is true, and would keep texts
            raise TypeError("store_text= must be True or False")
        self._path = place
        self._begin = begin
        self._store_text = store_text
        self._lease = lease
        self._busy = 5.0  # seconds to wait for another process's transaction
        self._mirror = Mirror()
        self._inbox = Inbox()
        # Taken by the first who comes, and never given back, so nobody waits for them: not even a forked process.
        self._is_used, self._is_closing = Lock(), Lock()
        self._pid = 0  # of the process that has the thread, as soon as it was opened
        self._closed: Future[None] = Future()
        self._noticed: Noticed
        self._is_heard: Callable[[], bool]

    def __repr__(self) -> str:
        state = "open" if not self._absence() else "closed" if self._is_used.locked() else "not open"
        return f"<{type(self).__name__} {self._path!r}, {state}>"

    def open(self, endpoint: str, noticed: Noticed, is_heard: Callable[[], bool] = lambda: True) -> Future[None]:
        """
        Open the file, or make it; readers see all jobs once the future is done, and free ones are held here.

        The future raises `StoreError` where the file cannot be used, and says why. `noticed` is called on the
        store's own thread, so it must not wait for the store; so is `is_heard`, several times a second.
        """
        opened: Future[None] = Future()
        if not self._is_used.acquire(blocking=False):
            opened.set_exception(self._refusal("a store serves one handler, once: make another one"))
            return opened
        opened.set_running_or_notify_cancel()
        self._closed.set_running_or_notify_cancel()
        self._noticed, self._is_heard = noticed, is_heard
        owner = f"{uuid.uuid4().hex} {process_mark()}"
        settings = Settings(
            self._path, owner, endpoint, self._store_text, self._lease / PATIENCE, self._busy, self._begin
        )
        # The thread does not hold the store, so one that nobody holds any more can go, and is closed then.
        facts = (settings, self._inbox, self._mirror, weakref.WeakMethod(self._notice), opened, self._closed)
        self._pid = os.getpid()
        weakref.finalize(self, _let_go, self._pid, self._inbox).atexit = False
        try:
            Thread(target=serve, args=facts, name="o3pro_bg store", daemon=True).start()
        except RuntimeError:  # as the interpreter exits, no thread starts any more
            error = self._refusal("the interpreter exits")
            self._inbox.shut(str(error))
            self._closed.set_result(None)
            opened.set_exception(error)
        return opened

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        """Keep the record of a new job and hold it; a future that is cancelled in time keeps nothing."""
        return self._ask(Journal.insert, record)

    def replace(self, record: JobRecord) -> Future[bool]:
        """Keep this record in place of the one with its id; False where it was removed, or is held elsewhere."""
        return self._ask(Journal.replace, record)

    def wish(self, job_id: str, at: float | None) -> Future[bool]:
        """Set or withdraw the `cancel_requested_at` of a job, whoever holds it; False where it has ended."""
        return self._ask(Journal.wish, job_id, at)

    def holds(self, job_id: str) -> bool:
        """Tell whether this job has not ended and is held here."""
        return not self._absence() and self._mirror.holds(job_id)

    def get(self, job_id: str) -> JobRecord | None:
        """Answer the job's record, or None."""
        return self._mirror.get(job_id)

    def snapshot(self) -> list[JobRecord]:
        """Answer all records, the oldest job first."""
        return self._mirror.snapshot()

    def remove(self, job_id: str) -> Future[bool]:
        """Forget the job, which readers no longer see from now on; tell whether there was one."""
        if not self._absence() and not self._mirror.hide(job_id):
            return done(value=False)
        return self._ask(Journal.remove, job_id)

    def refresh(self) -> Future[None]:
        """See what other processes have done until now."""
        return self._ask(Journal.refresh)

    def close(self) -> Future[None]:
        """
        Write what is left, hold nothing any more, and close the file; readers keep what they saw.

        The future raises `StoreError` where something could not be written. It is done within twice the time that
        another process's transaction is waited for: ten seconds at most.
        """
        if self._pid != os.getpid():
            self._is_used.acquire(blocking=False)
            return done(None)
        if not self._inbox.why and self._is_closing.acquire(blocking=False):
            self._inbox.put(Operation(Journal.release))
        return self._closed

    def _ask(self, verb: Callable[..., T], *args: Any) -> Future[T]:
        operation = Operation(verb, *args)
        why = self._absence()
        if why or not self._inbox.put(operation):
            operation.settle(StoreError(why or self._inbox.why))
        return operation.future

    def _absence(self) -> str:
        """
        Answer why nothing can be changed here, or an empty string.

        The thread is not asked whether it lives: a Ctrl-C in the midst of that marks it as ended (CPython 3.12). It
        shuts the inbox when it ends, and a forked process has none.
        """
        if self._inbox.why:
            return self._inbox.why
        if not self._is_used.locked():
            why = "it was not opened yet"
        elif not self._pid or self._is_closing.locked():
            why = "it is closed"
        elif self._pid != os.getpid():
            why = "its process was forked: open another store in this one"
        else:
            return ""
        return str(self._refusal(why))

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"the job store {self._path}: {why}")

    def _notice(self, job_ids: Collection[str]) -> bool:
        """Pass on what others have changed, if anything; tell whether anybody is left to hear it."""
        if job_ids:
            self._noticed(job_ids)
        return self._is_heard()


class SqliteStore(WrittenStore):
    """
    Keeps the jobs in an SQLite file, which outlives the process, and which several processes of a machine may share.

    Nothing is touched until a handler opens the store; one store serves one handler. The file is made for its owner
    alone (mode 0600), as are directories that are missing (0700); modes of what exists are left alone. It stands on
    a local disk, and beside it, while it is in use, stand its `-wal` and `-shm`: they belong to it.

    Reads come from memory. Whatever changes something is written by one thread, which takes all that waits into one
    transaction, with one disk sync. What another process does is seen after 0.2 seconds at the latest; looking for it
    takes 0.15 % of a processor. While jobs are under way that this process holds or could take over, it shows six
    times per lease that it lives, which writes one page and syncs nothing; when there are none, it writes nothing.

    Args:
        path: The file; `~` stands for the home directory.
        store_text: Whether questions, options and answers are written; else a hash of the question is, and a process
            that did not get an answer itself has to fetch it from the service. A `dedupe_key` is written in any case.
        lease: Seconds after which another process takes over the jobs of one that does not show that it lives, the
            longer of their leases; 0.1 at least. Where Linux tells that it has ended, which it does not across
            containers, a sixth of that is enough, and a store that is opened has its jobs at once.

    Raises:
        ValueError: `lease` is too short, or `path` none of a file, such as one in the home of a user who is not there.
    """

    def __init__(self, path: str | os.PathLike[str], *, store_text: bool = True, lease: float = 3.0) -> None:
        super().__init__(absolute(path), of_file, store_text=store_text, lease=lease)

    def again(self) -> SqliteStore:
        """Answer a store of the same file, not opened yet."""
        return SqliteStore(self._path, store_text=self._store_text, lease=self._lease)


def _let_go(pid: int, inbox: Inbox) -> None:
    """Close a store that is no longer there; a forked process leaves that to the one that has its thread."""
    if pid == os.getpid():
        inbox.put(Operation(Journal.release))
