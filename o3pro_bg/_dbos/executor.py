"""
This process's part in DBOS: the workflow that lives a job, and the one instance of DBOS that a process can have.

An application that runs DBOS itself is joined; else an instance of ours is launched with the first store that lives
jobs, and goes with the last. What would bite is fenced here: the executor's id is this process's alone, the version is
that of our tables and not of the code, values are JSON and no pickles, nothing is recovered behind our back, and each
worker polls its own queue, which no instance of DBOS does by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from dbos import DBOS, DBOSPortableJSONSerializer, StepOptions
from dbos import _dbos as internals
from dbos import error as troubles
from dbos._queue import queue_worker_thread

from o3pro_bg._dbos.dealer import WORKFLOW
from o3pro_bg._dbos.schema import VERSION
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from o3pro_bg._dbos.database import Database

log = logging.getLogger("o3pro_bg")

_AGAIN: Final = 0.5  # seconds until a claim is tried again that the database did not answer
_PATIENCE: Final = 5.0  # seconds for a thread of DBOS to end
_PREEMPTIBLE: Final[StepOptions] = {"preemptible": True}
_LEFT: Final = "left"  # what a workflow answers whose job is not, or no longer, lived by it


@dataclass(slots=True)
class _Part:
    """
    What deals jobs to a worker.

    Attributes:
        stop: Set once it shall deal nothing more.
        thread: It.
    """

    stop: threading.Event
    thread: threading.Thread


_PARTS: Final[dict[Worker, _Part]] = {}
_CHANGES: Final = threading.Condition(threading.RLock())  # of those, and of our instance


@dataclass(slots=True)
class _Instance:
    """
    The instance of DBOS that we have launched.

    Attributes:
        dbos: It, or None where there is none of ours.
        pid: The process that launched it.
        url: Its database.
        is_stopping: Whether its last worker has gone, so that it deals nothing more.
    """

    dbos: DBOS | None = None
    pid: int = 0
    url: str = field(default="", repr=False)
    is_stopping: bool = False


_OURS: Final = _Instance()


class Worker(Protocol):
    """Somebody in this process who lives the jobs of a queue."""

    queue: str

    def claim(self, job_id: str, epoch: int) -> Future[bool]:
        """Hold a job that was dealt to this process; raises `StoreError`."""

    def getting_on(self, job_id: str, epoch: int, *, to_the_end: bool) -> Future[str]:
        """Answer how far the job has got."""

    def heed(self, job_id: str, epoch: int) -> Future[bool]:
        """Have the job cancelled, if it is still lived here."""


def join(worker: Worker, database: Database) -> None:
    """
    Have this worker dealt jobs from now on.

    Raises:
        StoreError: This process's DBOS works on another database, or is that of the process which it was forked from.
    """
    with _CHANGES:
        check(database)
        if (running := internals._dbos_global_instance) is None:
            running = _launch(database)
        stop = threading.Event()
        facts = (stop, running, running._sys_db.get_queue(worker.queue))
        thread = threading.Thread(target=queue_worker_thread, args=facts, name="o3pro_bg dealing", daemon=True)
        _PARTS[worker] = _Part(stop, thread)
        thread.start()


def check(database: Database) -> None:
    """Raise `StoreError` where this process can live no jobs of this database, before anything is done with it."""
    with _CHANGES:
        _CHANGES.wait_for(lambda: not _OURS.is_stopping or _OURS.pid != os.getpid(), timeout=_PATIENCE)
        running = internals._dbos_global_instance
        if running is not None and (why := _objection(running, database)) is not None:
            raise StoreError(f"the job store {database.place}: {why}")


def pause(worker: Worker) -> None:
    """Have this worker dealt no more jobs; with the last one, our own instance is about to end."""
    with _CHANGES:
        if (part := _PARTS.get(worker)) is not None:
            part.stop.set()
        if _OURS.dbos is not None and _OURS.pid == os.getpid() and all(part.stop.is_set() for part in _PARTS.values()):
            _OURS.is_stopping = True


def leave(worker: Worker) -> None:
    """Have done with a worker; our own instance ends with the last one."""
    pause(worker)
    if (part := _PARTS.get(worker)) is not None:
        part.thread.join(_PATIENCE)  # what it has just dealt still begins, and finds nobody to live it
    with _CHANGES:
        _PARTS.pop(worker, None)
        if _PARTS or not _OURS.is_stopping or _OURS.dbos is None:
            return
        if internals._dbos_global_instance is _OURS.dbos:
            DBOS.destroy()
        _OURS.dbos, _OURS.is_stopping = None, False
        _CHANGES.notify_all()


def _launch(database: Database) -> DBOS:
    if not (logger := logging.getLogger("dbos")).handlers:  # else it would print on the user's terminal
        logger.addHandler(logging.NullHandler())
    instance = DBOS(
        config={
            "name": "o3pro-bg",
            "system_database_url": database.url,
            "dbos_system_schema": database.dbos_schema,
            "executor_id": uuid.uuid4().hex,
            "application_version": f"o3pro_bg-{VERSION}",
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "CRITICAL",  # what matters of it, the store tells
            "run_migrations": False,
            "notification_listener_polling_interval_sec": 0.25,  # nobody notifies; it ends as soon as that
            "db_engine_kwargs": {"hide_parameters": True, "pool_size": 4},
        }
    )
    try:
        DBOS.launch()
    except BaseException:
        DBOS.destroy()
        raise
    _OURS.dbos, _OURS.pid, _OURS.url, _OURS.is_stopping = instance, os.getpid(), database.url, False
    return instance


def _objection(running: Any, database: Database) -> str | None:
    """Answer why this instance of DBOS cannot deal us the jobs of this database, or None."""
    if running is _OURS.dbos:
        if os.getpid() != _OURS.pid:
            return "this process was forked from one that lives jobs: fork before that, or use DbosEngine(worker=False)"
        if _OURS.is_stopping or _OURS.url != database.url:
            return "this process lives jobs of another database, and DBOS has one: use DbosEngine(worker=False)"
    elif not running._launched:
        return "this application has a DBOS that it has not launched: call DBOS.launch() first"
    elif not database.is_that_of(running._sys_db.engine.url, running._sys_db.schema):
        return "this application runs DBOS on another database: name that one, or use DbosEngine(worker=False)"
    return None


@DBOS.workflow(name=WORKFLOW)
async def live(job_id: str, epoch: int, queue: str) -> str:
    """
    Live a job that was dealt to this process: what the worker's handler does with it, as two steps.

    The first ends when the service has the job, the second when that has ended, or is lived elsewhere. Each can be
    broken off at any moment: what it comes to is in the job's row before it is told here.
    """
    worker = await _claimed(job_id, epoch, queue)
    if worker is None:
        return _LEFT
    try:
        how_far = await DBOS.run_step_async(_PREEMPTIBLE, submit, worker, job_id, epoch)
        return how_far if how_far == _LEFT else await DBOS.run_step_async(_PREEMPTIBLE, watch, worker, job_id, epoch)
    except troubles.DBOSWorkflowCancelledError:  # somebody has cancelled the workflow, with the tools of DBOS
        worker.heed(job_id, epoch)
        raise


async def submit(worker: Worker, job_id: str, epoch: int) -> str:
    """Wait until the service has the job, or it has ended."""
    return await asyncio.wrap_future(worker.getting_on(job_id, epoch, to_the_end=False))


async def watch(worker: Worker, job_id: str, epoch: int) -> str:
    """Wait until the job has ended."""
    return await asyncio.wrap_future(worker.getting_on(job_id, epoch, to_the_end=True))


async def _claimed(job_id: str, epoch: int, queue: str) -> Worker | None:
    """Answer who of this process has claimed the job, or None: it is for another epoch to live it."""
    while True:
        # Without the lock: who ends our instance has it, and waits for this loop.
        worker = next(
            (worker for worker, part in [*_PARTS.items()] if worker.queue == queue and not part.stop.is_set()), None
        )
        if worker is None:
            return None
        try:
            return worker if await asyncio.wrap_future(worker.claim(job_id, epoch)) else None
        except StoreError:  # once its database is there again; or its store is closed, and then it is gone
            await asyncio.sleep(_AGAIN)
