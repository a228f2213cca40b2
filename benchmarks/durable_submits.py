"""
How many jobs a second `BackgroundHandler` takes on with a store, beside plain SQLite and beside a handler in memory.

    python benchmarks/durable_submits.py            # --quick for one round, --sync 5 for a disk of 5 ms a sync

Each round measures, with 1, 10 and 100 threads, one after the other: plain SQLite, where each thread has a connection
of its own and commits each job (WAL, synchronous=FULL); a handler in memory; a handler with a store. The service is
in memory, and its jobs never end. A handler sends the jobs while it takes on others, so with a store it writes each
job three times: the question, that its create leaves, and the response id. The table shows medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sqlite3
import statistics
import tempfile
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from o3pro_bg import BackgroundHandler, Pace
from o3pro_bg._sqlite import jobfile
from o3pro_bg.testing import FakeClient, FakeRemote

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS = {1: 300, 10: 1000, 100: 3000}
QUESTION = "Which of these two proofs is wrong, and where? " * 10
RARELY = Pace(floor=3600, ceiling=3600)


class Disk(sqlite3.Connection):
    """A connection that counts the commits which sync, and whose disk may be made slower."""

    lag = 0.0
    is_durable = True  # which is SQLite's own default
    writes = False
    syncs: ClassVar = itertools.count()

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """Carry out a statement."""
        if sql.startswith("PRAGMA synchronous"):
            self.is_durable = sql.endswith("FULL")
        elif sql.startswith("BEGIN"):
            self.writes = sql == "BEGIN IMMEDIATE"
        elif sql == "COMMIT" and self.writes and self.is_durable:
            next(self.syncs)
            time.sleep(self.lag)
        return super().execute(sql, *args)


class _CountedSqlite:
    """The module `sqlite3`, whose connections are counted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Connect."""
        return sqlite3.connect(*args, factory=Disk, **kwargs)


def in_threads(threads: int, jobs: int, work: Callable[[int], object]) -> float:
    """Have threads share so many jobs, and answer how many were done a second; `work` does some."""
    gate = threading.Barrier(threads + 1)

    def run() -> None:
        gate.wait()
        work(jobs // threads)
        gate.wait()

    for _ in range(threads):
        threading.Thread(target=run).start()
    gate.wait()
    begun = time.perf_counter()
    gate.wait()
    return jobs / (time.perf_counter() - begun)


def plain(path: Path, threads: int, jobs: int) -> float:
    """Measure SQLite by itself, with rows like ours."""
    request = json.dumps({"v": 1, "question": QUESTION, "effort": "low", "deployment": "o3-pro", "options": {}})
    state = json.dumps({"v": 1, "created_at": time.time(), "status": "started"})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE jobs (number INTEGER PRIMARY KEY, job_id TEXT UNIQUE, state TEXT)")
        connection.execute("CREATE TABLE requests (number INTEGER PRIMARY KEY, request TEXT)")

    def work(count: int) -> None:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None, factory=Disk)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            for _ in range(count):
                connection.execute("BEGIN IMMEDIATE")
                number = connection.execute("INSERT INTO jobs VALUES (NULL, ?, ?)", (uuid.uuid4().hex, state)).lastrowid
                connection.execute("INSERT INTO requests VALUES (?, ?)", (number, request))
                connection.execute("COMMIT")

    return in_threads(threads, jobs, work)


def ours(path: Path | None, threads: int, jobs: int) -> float:
    """Measure a handler, with a store or in memory; it is closed only once every job was sent."""
    client = FakeClient(FakeRemote(seconds=1e9))
    with BackgroundHandler(client, store=path, pace=RARELY) as handler:

        def work(count: int) -> None:
            for _ in range(count):
                if not handler.start_background_task(QUESTION)["success"]:
                    raise SystemExit("a job was refused")

        rate = in_threads(threads, jobs, work)
        while client.remote.counts["create"] < jobs:
            time.sleep(0.01)
        if path is None:
            handler.close(timeout=0)  # without it, every job would be cancelled first
    return rate


def sync_of(directory: str) -> float:
    """Answer how many seconds a sync of this disk takes."""
    with open(Path(directory) / "sync", "wb", buffering=0) as file:
        times = []
        for _ in range(200):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(threads: int, jobs: int) -> dict[str, float]:
    """Answer the rates of one round."""
    with tempfile.TemporaryDirectory() as directory:
        rates = {"plain": plain(Path(directory, "plain.db"), threads, jobs), "memory": ours(None, threads, jobs)}
        before = next(Disk.syncs)
        rates["store"] = ours(Path(directory, "jobs.db"), threads, jobs)
        rates["syncs"] = (next(Disk.syncs) - before - 1) / jobs
    return rates


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--sync", type=float, default=0.0, help="milliseconds that a sync takes longer")
    options = parser.parse_args()
    Disk.lag = options.sync / 1000
    jobfile.sqlite3 = _CountedSqlite()  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as directory:
        print(f"a sync of the disk takes {1000 * sync_of(directory):.2f} ms, and {options.sync:g} ms more\n")
    print("| threads | plain SQLite | handler in memory | handler with a store | store to plain | syncs per job |")
    print("|---|---|---|---|---|---|")
    for threads, jobs in JOBS.items():
        rounds = [measure(threads, jobs) for _ in range(1 if options.quick else 5)]
        rate = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
        ratio = statistics.median(found["store"] / found["plain"] for found in rounds)
        print(
            f"| {threads} | {rate['plain']:,.0f}/s | {rate['memory']:,.0f}/s | {rate['store']:,.0f}/s "
            f"| {ratio:.2f} | {rate['syncs']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
