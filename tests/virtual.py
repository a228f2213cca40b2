"""What the engine's tests share: tests in virtual time, and a bench with an engine on a service in memory."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from o3pro_bg._engine import Engine
from o3pro_bg._ledger import Ledger
from o3pro_bg._pacing import Pace
from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._stores import MemoryStore
from o3pro_bg.testing import Event, Failure, FakeRemote, News, RemoteTrouble, Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import timedelta

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


class Bench:
    """An engine on a service in memory, without luck, and the jobs that a test starts on it."""

    def __init__(
        self, remote: Recorder | None = None, *, retain: int | timedelta | None = None, **settings: Any
    ) -> None:
        self.remote = remote or Recorder()
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, retain=retain)
        self.engine = Engine(
            settings.pop("connect", self._connect), self.ledger, **{"pace": Pace(jitter=0), **settings}
        )
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _connect(self) -> Recorder:
        return self.remote

    def enter(self, job_id: str = "job", *, timeout: float | None = None, response_id: str | None = None) -> None:
        """Put the record of a new job into the ledger."""
        self.ledger.claim_loop()
        request = JobRequest("question", "low", timeout=timeout)
        self.store.insert(JobRecord(job_id, request, 0.0, self.ledger.clock(), response_id=response_id))

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
