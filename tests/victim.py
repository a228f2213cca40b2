"""
A process that submits jobs to the emulator, and is killed: by itself at a named step of the journal, or from outside.

Run as `python -m tests.victim SETTINGS`, a JSON object: `endpoint`, `api_key`, `store`, and how many `jobs` to submit
(0: without end); `step`, where the process kills itself with SIGKILL (or none); `lease`, in seconds; `face`, "sync"
or "async". It prints the id of each job as soon as it was told.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore
from o3pro_bg._responses import ResponsesRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from o3pro_bg._records import JobRecord

STEPS = (
    "before the intent is written",
    "after the intent is written",
    "before it is written that the create leaves",
    "after it is written that the create leaves",
    "while the create is under way",
    "after the create was accepted",
    "after the response id is written",
    "before a look",
    "after a look",
    "before the result is written",
    "after the result is written",
)


def die(*_: object) -> None:
    """End at once, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


class Store(SqliteStore):
    """A store that dies at one step of a job."""

    step = ""

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        return self._dying("the intent is written", super().insert, record)

    def replace(self, record: JobRecord) -> Future[bool]:
        if record.status.is_terminal:
            return self._dying("the result is written", super().replace, record)
        if record.response_id is not None:
            return self._dying("the response id is written", super().replace, record)
        if record.sent_at is not None:
            return self._dying("it is written that the create leaves", super().replace, record)
        return super().replace(record)

    def _dying(self, what: str, write: Callable[[JobRecord], Future[Any]], record: JobRecord) -> Future[Any]:
        if self.step == f"before {what}":
            die()
        written = write(record)
        if self.step == f"after {what}":
            written.add_done_callback(die)
        return written


def arm(step: str) -> None:
    """Have this process die at a step that lies at the service."""

    def dying(name: str, before: bool, after: bool, within: bool) -> None:
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(ResponsesRemote, name)

        async def call(*args: Any) -> Any:
            if before:
                die()
            if within:
                asyncio.get_running_loop().call_later(0.15, die)
            answer = await method(*args)
            if after:
                die()
            return answer

        setattr(ResponsesRemote, name, call)

    Store.step = step
    dying("create", before=False, after=step == "after the create was accepted", within=step.startswith("while"))
    dying("look", before=step == "before a look", after=step == "after a look", within=False)


def main(settings: dict[str, Any]) -> None:
    """Submit the jobs, print their ids, and wait to be killed."""
    arm(settings.get("step", ""))
    client = O3ProClient(O3ProConfig(endpoint=settings["endpoint"], api_key=settings["api_key"]))
    store = Store(settings["store"], lease=settings.get("lease", 0.5))
    options: dict[str, Any] = {"store": store, "pace": Pace(floor=0.05, ceiling=0.1), "language": "en"}
    jobs = settings.get("jobs", 1)
    numbers = iter(range(jobs)) if jobs else iter(int, 1)
    if settings.get("face") == "async":
        asyncio.run(submit_awaited(AsyncBackgroundHandler(client, **options), numbers))
    handler = BackgroundHandler(client, **options)
    for number in numbers:
        tell(handler.start_background_task(f"question {number}"))
    threading.Event().wait()


async def submit_awaited(handler: AsyncBackgroundHandler, numbers: Any) -> None:
    """Do on a loop of our own what `main` does in a script."""
    for number in numbers:
        tell(await handler.start_background_task(f"question {number}"))
    await asyncio.Event().wait()


def tell(reply: Any) -> None:
    """Print the id of a job."""
    print(reply["job_id"] if reply["success"] else f"refused: {reply['error']}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
