"""
How long a new process takes to have all jobs of a store again.

    python benchmarks/take_up.py            # --quick for one round

A store is filled once; each round measures a new process on a copy of it. The service is in memory and answers at
once, so what is measured is our own work: until `list_active_jobs` lists all jobs, until each unfinished one was looked
at once, and until that is written. Beside it a task sleeps for a millisecond again and again: what it oversleeps is
how long the event loop was blocked. The peer is bare SQLite: read all rows and parse their JSON. The table shows
medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any

from o3pro_bg import AsyncBackgroundHandler, SqliteStore
from o3pro_bg._records import JobRecord, JobRequest, News
from o3pro_bg._states import Event
from o3pro_bg.testing import FakeClient, FakeRemote

if TYPE_CHECKING:
    from concurrent.futures import Future

CASES = {
    "1 unfinished": (1, False),
    "1,000 unfinished": (1000, False),
    "10,000 unfinished": (10_000, False),
    "10,000 ended, answers of 20 kB": (10_000, True),
}
QUESTION = "Which of these two proofs is wrong, and where? " * 10
ANSWER = "The second one is, for it divides by nought. " * 455


class Service(FakeRemote):
    """A service in memory, whose jobs never end, and which knows what was looked at."""

    def __init__(self, count: int) -> None:
        super().__init__(seconds=1e18)
        self.all_looked = asyncio.Event()
        self._left = {f"resp-{number}" for number in range(count)}

    async def look(self, response_id: str) -> News:
        """Answer how far the response is."""
        self._left.discard(response_id)
        if not self._left:
            self.all_looked.set()
        return await super().look(response_id)


def fill(path: Path, count: int, *, ended: bool) -> None:
    """Make a store with so many jobs."""
    store, client = SqliteStore(path), FakeClient()
    endpoint, now = client.config.resource, time.time()
    store.open(endpoint, lambda _: None).result()
    futures: list[Future[Any]] = []
    for number in range(count):
        request = JobRequest(QUESTION, "low", client.config.deployment, endpoint=endpoint)
        record = JobRecord(f"job-{number}", request, now, time.monotonic())
        futures.append(store.insert(record))
        news = News(Event.ANSWERED if ended else Event.ACCEPTED, response_id=f"resp-{number}", answer=ANSWER)
        record = record.apply(news, time.monotonic())
        futures.append(store.replace(replace(record, sent_at=now)))
    for future in futures:
        future.result()
    store.close().result()


def resident() -> float:
    """Answer the memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def beat(blocked: list[float]) -> None:
    """Note again and again how long the loop was late."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        blocked.append(time.perf_counter() - begun - 0.001)


async def take_up(path: Path, count: int, *, ended: bool) -> dict[str, float]:
    """Answer the figures of a handler that opens the store."""
    service, blocked, before = Service(count), [0.0], resident()
    heart = asyncio.ensure_future(beat(blocked))
    await asyncio.sleep(0.1)
    store = SqliteStore(path)
    begun = time.perf_counter()
    async with AsyncBackgroundHandler(FakeClient(service), store=store) as handler:
        figures = {"opened": time.perf_counter() - begun, "blocked as it opens": max(blocked)}
        if len(await handler.list_active_jobs()) != count:
            raise SystemExit("not all jobs are listed")
        figures |= {"listed": time.perf_counter() - begun, "memory": resident() - before}
        await asyncio.sleep(0)  # which is when it is noted that listing them took its time
        blocked[:] = [0.0]
        if not ended:
            await service.all_looked.wait()
        figures["looked"] = time.perf_counter() - begun
        figures["blocked as it looks"] = max(blocked)
        while any(job["status"] == "started" for job in await handler.list_active_jobs()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        figures["written"] = time.perf_counter() - begun
        heart.cancel()
    return figures


def bare(path: Path) -> float:
    """Answer how long bare SQLite takes to read all rows, and their JSON to be parsed."""
    begun = time.perf_counter()
    with closing(sqlite3.connect(path)) as connection:
        for state, request in connection.execute("SELECT state, request FROM jobs JOIN requests USING (number)"):
            json.loads(state)
            json.loads(request)
    return time.perf_counter() - begun


def measured(path: Path, name: str) -> dict[str, float]:
    """Answer the figures of a new process on a copy of this store."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--case", name, "--path", copy(path, directory)]
        figures: dict[str, float] = json.loads(subprocess.check_output(command))  # noqa: S603 - ourselves
    return figures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--case", choices=CASES, help="measure one case in this process")
    parser.add_argument("--path", type=Path, help="the store of that case")
    options = parser.parse_args()
    if options.case is not None:
        count, ended = CASES[options.case]
        figures = {"bare": bare(options.path)}
        print(json.dumps(figures | asyncio.run(take_up(options.path, count, ended=ended))))
        return
    print("| jobs | bare SQLite | all listed | to bare | loop blocked | each looked at | written | blocked | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (count, ended) in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "jobs.db")
            fill(path, count, ended=ended)
            rounds = [measured(path, name) for _ in range(1 if options.quick else 5)]
        median = {figure: statistics.median(found[figure] for found in rounds) for figure in rounds[0]}
        ratio = statistics.median(found["listed"] / found["bare"] for found in rounds)
        looked, written = (f"{median[figure]:.2f} s" for figure in ("looked", "written"))
        after = "– | – | –" if ended else f"{looked} | {written} | {1000 * median['blocked as it looks']:.0f} ms"
        print(
            f"| {name} | {1000 * median['bare']:.0f} ms | {1000 * median['listed']:.0f} ms | {ratio:.1f} "
            f"| {1000 * median['blocked as it opens']:.0f} ms | {after} | {median['memory']:.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
