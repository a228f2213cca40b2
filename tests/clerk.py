"""
A process with a handler over a store, driven line by line, so that a test may drive as many as it wants.

Run as `python -m tests.clerk`. It reads JSON lines `[verb, args, kwargs]`, one at a time, and prints what the verb
answers as a JSON line, or `{"raised": "TypeName: text"}`. The verbs are those of the handler, whichever face it has,
and those of `Clerk`: the first has to be `open`. It ends when its input does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import openai  # noqa: F401 - the first job shall not have to load it

from o3pro_bg import O3ProClient, O3ProConfig, Pace, SqliteStore
from o3pro_bg._responses import ResponsesRemote

from .faces import Driver


class Clerk:
    """What a test wants of the process beside the verbs of the handler."""

    def __init__(self) -> None:
        self.looked: Counter[str] = Counter()
        self.called: list[str] = []

    def open(
        self, face: str, service: dict[str, Any], store: str, lease: float, pace: dict[str, Any], **settings: Any
    ) -> None:
        """Open the store with a handler of this face, whose client is of this service."""
        self.looked.clear()
        self.called.clear()
        settings |= {"store": SqliteStore(store, lease=lease), "pace": Pace(**pace), "language": "en"}
        settings |= {"on_done": lambda job: self.called.append(job.id)}
        self.driver = Driver(face, O3ProClient(O3ProConfig(**service)), settings)
        self.driver.do("list_active_jobs")

    def perform(self, verb: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do what one line asks for."""
        if (own := getattr(self, verb, None)) is not None:
            return own(*args, **kwargs)
        return self.driver.do(verb, *args, **kwargs)

    def as_completed(self, *args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
        """Answer what `as_completed` yields."""
        return self.driver.completed(*args, **kwargs)

    def jobs(self) -> dict[str, Any]:
        """Answer the view of the jobs, as it is."""
        return dict(self.driver.handler.jobs)

    def held(self) -> list[str]:
        """Answer which jobs are held here."""
        store = self.driver.handler._store
        return [record.job_id for record in store.snapshot() if store.holds(record.job_id)]

    def facts(self, job_id: str) -> dict[str, Any]:
        """Answer what is known of a job, and stands in no reply."""
        record = self.driver.handler._store.get(job_id)
        return {
            "response_id": record.response_id,
            "sent_at": record.sent_at,
            "cancel_requested_at": record.cancel_requested_at,
            "failure": record.failure and record.failure.code,
        }

    def looks(self) -> dict[str, int]:
        """Answer how often this process has looked at each response."""
        return self.looked

    def callbacks(self) -> list[str]:
        """Answer the jobs that `on_done` was called with here."""
        return self.called

    def close(self) -> None:
        """Close the handler; another may be opened."""
        self.driver.tear_down()


def main() -> None:
    """Work until the input ends."""
    clerk, look = Clerk(), ResponsesRemote.look

    async def counted(remote: ResponsesRemote, response_id: str) -> Any:
        clerk.looked[response_id] += 1
        return await look(remote, response_id)

    setattr(ResponsesRemote, "look", counted)  # noqa: B010 - a method is not to be assigned
    for line in sys.stdin:
        try:
            answer = clerk.perform(*json.loads(line))
        except BaseException as exc:
            answer = {"raised": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
