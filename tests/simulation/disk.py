"""Stores whose every step is on the loop: the one in memory, and the one on disk, whose thread is played."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.journal import Journal
from o3pro_bg._sqlite.mirror import Mirror
from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg._sqlite.writer import Inbox, Operation, _told, _Writer
from o3pro_bg._stores import MemoryStore
from o3pro_bg.errors import StoreError

from .loop import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Future
    from random import Random

    from o3pro_bg._records import JobRecord

    from .judge import Judge
    from .loop import Process

_LATENCIES = (0.0, 0.0, 0.001, 0.1, 1.0)  # seconds from an operation to its transaction
_PULSE = 1.0


class WatchedMemory(MemoryStore):
    """The store in memory, whose changes are judged."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        if self.get(record.job_id) is None:
            self._judge.inserted(record)
        return super().insert(record)

    def replace(self, record: JobRecord) -> Future[bool]:
        before = self.get(record.job_id)
        written = super().replace(record)
        if (after := self.get(record.job_id)) is not None:
            self._judge.moved(before, after)
        return written


class _WatchedMirror(Mirror):
    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def show(self, record: JobRecord, *, is_held: bool) -> None:
        before = self.get(record.job_id)
        super().show(record, is_held=is_held)
        self._judge.moved(before, record)


class Disk:
    """
    A file, and what may be wrong with it.

    Attributes:
        path: Where it is.
        is_full: Whether nothing can be written.
        tells_deaths: Whether a process can know that another has ended.
        commits: How many transactions changed it.
        is_sound: Whether nothing goes wrong any more.
    """

    def __init__(self, path: str, luck: Random, judge: Judge) -> None:
        self.path = path
        self.luck = luck
        self.judge = judge
        self.is_full = False
        self.is_sound = False
        self.tells_deaths = luck.random() < 0.7
        self.commits = 0
        self.kill_rate = luck.choice((0.0, 0.0, 0.0, 0.02))
        self.is_slow = luck.random() < 0.7
        self.files: list[_File] = []
        self.dead: set[str] = set()
        self.clerks: list[Clerk] = []

    def latency(self) -> float:
        """Answer the seconds until the next transaction."""
        return self.luck.choice(_LATENCIES) if self.is_slow and not self.is_sound else 0.0

    def committed(self, process: Process | None) -> None:
        """Note a transaction; it may be the last thing that its process did."""
        self.commits += 1
        if process is not None and not self.is_sound and self.luck.random() < self.kill_rate:
            self.judge.befalls("killed")
            self.judge.note("killed by its own commit", process.name)
            process.kill()
            self.dead.add(process.name)

    def is_gone(self, mark: str) -> bool:
        """Tell whether this process is known to have ended."""
        return self.tells_deaths and mark in self.dead

    def close(self) -> None:
        """Close what the dead have left open."""
        for file in self.files:
            with suppress(Exception):
                file.close()


class _File(JobFile):
    """The file, as a process has it."""

    def __init__(self, disk: Disk, process: Process | None) -> None:
        self._disk, self._process = disk, process
        super().__init__(disk.path, busy=0.0)
        disk.files.append(self)

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[None]:
        if self._process is not None and not self._process.is_alive:
            raise StoreError("the dead do not write")
        if self._disk.is_full:
            self._disk.judge.disk_failed = True
            raise StoreError(f"the job store {self.path}: the disk is full")
        with super().writing(durable=durable):
            yield
        self._disk.committed(self._process)


class _LoopInbox(Inbox):
    """Operations on their way to the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.wake: Callable[[], object] = lambda: None

    def put(self, operation: Operation[Any]) -> bool:
        is_taken = super().put(operation)
        self.wake()
        return is_taken

    def take(self, seconds: float) -> list[Operation[Any]]:
        return super().take(0.0)


class Clerk:
    """
    Plays the store's thread on the loop: as `serve` does, it opens, takes turns until the last one, and closes.

    A turn comes some luck after something was put into the inbox, and with each pulse where there is something to see.
    """

    def __init__(self, disk: Disk, args: tuple[Any, ...]) -> None:
        self._disk = disk
        self._process = PROCESS.get()
        self._settings, self._inbox, self._mirror, self._notice, self._opened, self._closed = args
        self._file: _File | None = None
        self._writer: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen = -1
        self._inbox.wake = self._wake
        disk.clerks.append(self)

    def start(self) -> None:
        """Begin soon."""
        asyncio.get_running_loop().call_later(self._disk.latency(), self._open)

    def _open(self) -> None:
        settings = self._settings
        try:
            self._file = _File(self._disk, self._process)
            pace, keep_text = settings.pace, settings.keep_text
            journal = Journal(
                self._file, self._mirror, settings.owner, settings.endpoint, pace=pace, keep_text=keep_text
            )
            journal.open()
        except StoreError as error:
            self._inbox.shut(str(error))
            self._opened.set_exception(error)
            self._closed.set_result(None)
            return
        self._opened.set_result(None)
        self._writer = _Writer(settings, self._inbox, journal, self._notice)
        self._writer._pulse = _PULSE
        self._wake()

    def _wake(self) -> None:
        """Take a turn soon."""
        if self._writer is not None and (self._timer is None or self._timer.when() > _time() + 1.0):
            self._plan(self._disk.latency())

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._take_turn)

    def _take_turn(self) -> None:
        self._timer = None
        if self._is_idle():
            self._plan(_PULSE)
            return
        if self._writer._turn():
            self._end()
            return
        self._seen = self._disk.commits
        self._writer._tell()
        self._plan(_PULSE)

    def _is_idle(self) -> bool:
        """Tell whether a turn would do nothing."""
        is_beating = self._writer._journal.awaits and time.monotonic() >= self._writer._next_beat
        has_work = is_beating or self._writer._unwritten or not self._inbox._queue.empty()
        return not has_work and self._seen == self._disk.commits

    def _end(self) -> None:
        error = None
        if self._writer._unwritten:
            error = _told(self._settings, StoreError("the last news could not be written"))
        self._inbox.shut("it is closed")
        if self._file is not None:
            self._file.close()
        if error is None:
            self._closed.set_result(None)
        else:
            self._closed.set_exception(error)


def _time() -> float:
    return asyncio.get_running_loop().time()


class LoopStore(SqliteStore):
    """The store on disk, without a thread, whose changes are judged."""

    def __init__(self, disk: Disk, *, lease: float, store_text: bool) -> None:
        super().__init__(disk.path, lease=lease, store_text=store_text)
        self._mirror = _WatchedMirror(disk.judge)
        self._inbox = _LoopInbox()
        self._disk = disk

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        if self.get(record.job_id) is None:
            self._disk.judge.inserted(record)
        return super().insert(record)

    def _notice(self, job_ids: Collection[str]) -> bool:
        """Pass on what others have changed in an order of the seed: that of a set differs between processes."""
        return super()._notice(self._disk.luck.sample(sorted(job_ids), len(job_ids)))
