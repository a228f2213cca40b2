"""What the engine's tests share: tests in virtual time, and a bench with an engine on a service in memory."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from o3pro_bg._engine import Engine
from o3pro_bg._ledger import Ledger
from o3pro_bg._link import Link
from o3pro_bg._pacing import Pace
from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._shared import Shared
from o3pro_bg._stores import MemoryStore
from o3pro_bg.testing import Event, Failure, FakeRemote, News, RemoteTrouble, Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine
    from datetime import timedelta

    from o3pro_bg.errors import StoreError

RUNNING = News(Event.PROGRESSED)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on a loop of its own whose time jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(lambda: test(*args, **kwargs))

    return run


def trouble(kind: Trouble, code: str = "code", *, after: float | None = None) -> RemoteTrouble:
    """Answer a trouble to put into a script."""
    return RemoteTrouble(kind, Failure(code, "detail"), retry_after=after)


def now() -> float:
    """Answer the virtual time."""
    return asyncio.get_running_loop().time()


class Recorder(FakeRemote):
    """A `FakeRemote` that notes when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls: list[tuple[float, str]] = []

    async def _call(self, kind: str) -> News | None:
        self.calls.append((now(), kind))
        return await super()._call(kind)

    def times(self, kind: str) -> list[float]:
        """Answer when this kind was called, rounded to milliseconds."""
        return [round(at, 3) for at, called in self.calls if called == kind]


class SlowStore(MemoryStore):
    """
    A durable store whose writes take these seconds, and which other processes share: the test is the others.

    Attributes:
        trouble: What writes raise, from now on.
        elsewhere: Ids of the jobs that another process holds.
        written: When which verb was carried out, and on which job.
    """

    durable = True

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.trouble: StoreError | None = None
        self.elsewhere: set[str] = set()
        self.written: list[tuple[float, str, str]] = []
        self.is_closed = False
        self._noticed: Callable[[Collection[str]], object] = len

    def open(
        self, endpoint: str, noticed: Callable[[Collection[str]], object], is_heard: Callable[[], bool] = lambda: True
    ) -> Future[None]:
        self._noticed = noticed
        return self._later("open", endpoint, lambda: None)

    def replace(self, record: JobRecord) -> Future[bool]:
        def carry_out() -> bool:
            before = self.get(record.job_id)
            is_fenced = record.job_id in self.elsewhere or (before is not None and before.epoch != record.epoch)
            return not is_fenced and super(SlowStore, self).replace(record).result()

        return self._later("replace", record.job_id, carry_out)

    def wish(self, job_id: str, at: float | None) -> Future[bool]:
        return self._later("wish", job_id, lambda: super(SlowStore, self).wish(job_id, at).result())

    def holds(self, job_id: str) -> bool:
        return super().holds(job_id) and job_id not in self.elsewhere

    def close(self) -> Future[None]:
        self.is_closed = True
        return self._later("close", "", lambda: None)

    def put(self, record: JobRecord) -> None:
        """Have another process write this record, and tell of it."""
        self._records[record.job_id] = record
        self.tell(record.job_id)

    def tell(self, *job_ids: str) -> None:
        """Tell that another process changed these jobs."""
        self._noticed(job_ids)

    def _later(self, verb: str, job_id: str, carry_out: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def settle() -> None:
            self.written.append((now(), verb, job_id))
            answer = carry_out()
            if self.trouble is None:
                future.set_result(answer)
            else:
                future.set_exception(self.trouble)

        asyncio.get_running_loop().call_later(self.seconds, settle)
        return future


class Bench:
    """An engine on a service in memory, without luck, and the jobs that a test starts on it."""

    def __init__(
        self,
        remote: Recorder | None = None,
        *,
        retain: int | timedelta | None = None,
        store: MemoryStore | None = None,
        **settings: Any,
    ) -> None:
        self.remote = remote or Recorder()
        self.store = store or MemoryStore()
        if self.store.durable:
            settings = {"is_durable": True, "cancel_on_close": False, **settings}
        self.ledger = Ledger(self.store, retain=retain)
        self.engine = Engine(
            Shared(Link(settings.pop("connect", self._connect)), self.ledger, **{"pace": Pace(jitter=0), **settings})
        )
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ended: list[str] = []

    async def _connect(self) -> Recorder:
        return self.remote

    async def open(self) -> None:
        """Open the store; jobs that are taken up from it tell when they have ended."""
        await self.engine.open("", lambda job_id: lambda: self.ended.append(job_id))

    def enter(self, job_id: str = "job", *, timeout: float | None = None, **facts: Any) -> JobRecord:
        """Put the record of a new job into the ledger."""
        self.ledger.claim_loop()
        request = facts.pop("request", JobRequest("question", "low", timeout=timeout))
        record = JobRecord(job_id, request, 0.0, facts.pop("started", self.ledger.clock()), **facts)
        self.store.insert(record)
        return record

    def start(self, job_id: str = "job", **settings: Any) -> asyncio.Task[None]:
        """Start a job; its task begins at the next turn of the loop."""
        self.enter(job_id, **settings)
        task = self.tasks[job_id] = asyncio.create_task(self.engine.run(job_id))
        return task

    def record(self, job_id: str = "job") -> JobRecord:
        """Answer what is known of a job."""
        return self.ledger.record(job_id)

    async def end(self, job_id: str = "job") -> JobRecord:
        """Wait for the end of a job, and of its task."""
        record = await self.ledger.wait(job_id)
        await asyncio.wait([self.tasks[job_id]])
        return record
