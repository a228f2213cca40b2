"""Stores in other processes, which a test tells what to do, stops and kills."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from o3pro_bg._records import JobRecord, JobRequest, Usage
from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg._states import JobStatus
from o3pro_bg.errors import StoreError

from .child import SOON, Child, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

ENDPOINT = "https://x/openai/v1/"
LEASE = 0.5


def until(condition: Callable[[], object]) -> None:
    """Wait, half a minute at most, for what another thread or process brings about and no event tells."""
    pause = threading.Event()
    for number in range(1200):
        if condition():
            return
        pause.wait(0.005 if number < 40 else 0.025)  # what takes longer is not worth the processor
    raise AssertionError(f"not within half a minute: {condition}")


def record(job_id: str = "a", *, key: str | None = None, **facts: Any) -> JobRecord:
    """Answer the record of a new job."""
    request = JobRequest(f"Why {job_id}?", "low", options={"a": [1]}, endpoint=ENDPOINT, dedupe_key=key)
    return JobRecord(job_id, request, time.time(), time.monotonic(), **facts)


def ended(before: JobRecord, answer: str = "text", **facts: Any) -> JobRecord:
    """Answer the record after the job was completed."""
    return dataclasses.replace(before, status=JobStatus.COMPLETED, ended=time.monotonic(), answer=answer, **facts)


def of(future: Future[Any]) -> Any:
    """Answer what becomes of a change."""
    return future.result(SOON)


def sentence(future: Future[Any]) -> str:
    """Answer why something could not be done."""
    exc = future.exception(SOON)
    assert isinstance(exc, StoreError)
    return str(exc)


def get(store: SqliteStore, job_id: str = "a") -> JobRecord:
    """Answer the record of a job that is there."""
    found = store.get(job_id)
    assert found is not None
    return found


class Peer(Child):
    """A process that holds a store of this file."""

    def __init__(self, path: Path, lease: float = LEASE) -> None:
        super().__init__("tests.peers", str(path), str(lease))
        self.opened()

    def do(self, verb: str, *args: Any) -> Any:
        """Have something done, and answer what comes of it; an error is answered as a text."""
        self.tell(verb, *args)
        return self.receive()


class _Served:
    """What a peer does when it is told to."""

    def __init__(self, path: str, lease: float) -> None:
        self.store = SqliteStore(path, lease=lease)
        self.seen: set[str] = set()
        self.store.open(ENDPOINT, self.seen.update).result(SOON)

    def insert(self, *job_ids: str) -> None:
        for future in [self.store.insert(record(job_id)) for job_id in job_ids]:
            future.result(SOON)

    def insert_keyed(self, job_id: str, key: str) -> str:
        return self.store.insert(record(job_id, key=key)).result(SOON).job_id

    def end(self, job_id: str, answer: str, facts: dict[str, Any]) -> bool:
        return self.store.replace(self._changed(job_id, facts, answer)).result(SOON)

    def change(self, job_id: str, facts: dict[str, Any]) -> bool:
        return self.store.replace(self._changed(job_id, facts)).result(SOON)

    def wish(self, job_id: str, at: float | None) -> bool:
        return self.store.wish(job_id, at).result(SOON)

    def remove(self, job_id: str) -> bool:
        return self.store.remove(job_id).result(SOON)

    def churn(self, name: str, rounds: int) -> None:
        """Insert, move, end and remove jobs of our own, and wish and remove some of others, as fast as possible."""
        for number in range(rounds):
            first = record(f"{name}-{number}", key=f"shared-{number}" if number % 5 == 0 else None)
            self.store.insert(first)
            self.store.replace(dataclasses.replace(first, waiting="rate_limit"))
            if number % 3:
                self.store.replace(ended(first, answer=name))
            others = [found.job_id for found in self.store.snapshot() if not found.job_id.startswith(name)]
            if others and number % 4 == 0:
                self.store.wish(others[-1], float(number))
                self.store.remove(others[0])
            if number % 7 == 0:
                self.store.refresh().result(SOON)
        self.store.refresh().result(SOON)

    def flood(self, name: str) -> None:
        """Insert and end jobs of our own without end."""
        for number in itertools.count():
            first = self.store.insert(record(f"{name}-{number}")).result(SOON)
            if number % 2:
                self.store.replace(ended(first, answer=name))

    def held(self) -> list[str]:
        return [found.job_id for found in self.store.snapshot() if self.store.holds(found.job_id)]

    def noticed(self) -> list[str]:
        return sorted(self.seen)

    def look(self) -> list[dict[str, Any]]:
        """Answer all records as this process sees them now."""
        self.store.refresh().result(SOON)
        return self.see()

    def see(self) -> list[dict[str, Any]]:
        """Answer all records as this process sees them without looking."""
        facts = [dataclasses.asdict(dataclasses.replace(found, epoch=0)) for found in self.store.snapshot()]
        for fact in facts:
            started, stopped = fact.pop("started"), fact.pop("ended")
            fact["total_time"] = None if stopped is None else round(stopped - started, 6)
        return facts

    def close(self) -> None:
        self.store.close().result(SOON)

    def _changed(self, job_id: str, facts: dict[str, Any], answer: str | None = None) -> JobRecord:
        found = self.store.get(job_id)
        if "status" in facts:
            facts["status"] = JobStatus(facts["status"])
        if "usage" in facts:
            facts["usage"] = Usage(*facts["usage"])
        assert found is not None
        return dataclasses.replace(found, **facts) if answer is None else ended(found, answer, **facts)


def main(path: str, lease: str) -> None:
    """Do what comes in, one line after the other."""
    served = _Served(path, float(lease))
    answer("open")
    for line in sys.stdin:
        verb, *args = json.loads(line)
        try:
            reply = getattr(served, verb)(*args)
        except StoreError as exc:
            reply = str(exc)
        answer(reply)


if __name__ == "__main__":
    main(*sys.argv[1:])
