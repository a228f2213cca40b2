"""
What the calls themselves cost, in memory: to start a job, to read of jobs, and to wait for them.

    python benchmarks/costs.py              # --rounds 3

The service is in memory and its jobs never end, so all of it is our own work. Each round is a process of its own.

Starting: 1, 10 and 100 threads call `start_background_task`, and beside it the least that it has to do, which is
`asyncio.run_coroutine_threadsafe` of a coroutine that sends such a question to such a service. "One by one" there are
500 calls a second in all, so that the loop has no other work; "in a burst" each thread calls again at once, so that the
loop's thread runs what was started before and contends for the interpreter. "Loop blocked" is one by one again, and a
callback holds the loop up for 50 ms out of 100 by waiting; "loop computing" the same, but by pure Python: then every
thread of the process has to wait until the interpreter is passed on, every 5 ms.

One by one, too, without a hand-over: "a plain call" is one of the standard library, which wraps a text and shares
nothing with other threads; "a start that is not handed over" checks its arguments and keeps its record, without the
garbage collector. After a rest the caches are others', and some calls in a hundred take several times as long.

Reading: "a call" is the mean wall of calls one after the other; with many threads these take turns, so the processor's
time for a call is told, too. The peer is the copy of a dictionary that is found in another one, under a lock.

Waiting: 1,000 tasks wait for a job each, and beside them 1,000 tasks for a future each.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from measures import Goal, clock, cpu, head, medians, quantile, row, show, span, tell

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg._records import JobRequest, News

QUESTION = "Which of these two proofs is wrong, and where?"
RARELY = Pace(floor=3600, ceiling=3600)
SOON = Pace(floor=0.01, ceiling=0.01)
THREADS = (1, 10, 100)
RATE = 500  # calls a second, one by one
HOLD = 0.05  # seconds for which the loop is held up, as often
LOOPS = ("one by one", "in a burst", "loop blocked", "loop computing")
SIZES = (10, 1000, 10_000)
WAITERS = 1000


class Service(FakeRemote):
    """A service in memory that holds its loop up now and then."""

    def __init__(self, loop: str, seconds: float = 1e9) -> None:
        super().__init__(seconds=seconds)
        self._hold_up = {"loop blocked": time.sleep, "loop computing": compute}.get(loop)
        self._held_up = clock()

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Take the question."""
        if self._hold_up is not None and clock() - self._held_up > HOLD:
            self._hold_up(HOLD)
            self._held_up = clock()
        return await super().create(job_id, request)


class Client(FakeClient):
    """A client of such a service, which checks its configuration once, as `O3ProClient` does."""

    def is_ready(self) -> bool:
        """Tell that it was found right."""
        return True


def compute(seconds: float) -> None:
    """Have the interpreter be busy for so long."""
    until = clock() + seconds
    while clock() < until:
        pass


async def finish() -> None:
    """Wait for what else runs on this loop."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


@contextmanager
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
        asyncio.run_coroutine_threadsafe(finish(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def timed(threads: int, calls: int, pause: float, call: Callable[[], object]) -> dict[str, float]:
    """Have threads share so many calls, and answer what a call takes."""
    walls: list[float] = []
    spent: list[float] = []
    gate = threading.Barrier(threads)

    def run(number: int) -> None:
        gate.wait()
        time.sleep(pause * number / threads)
        mine = []
        burnt = 0.0
        for _ in range(calls // threads):
            before, begun = time.thread_time(), clock()
            call()
            mine.append(clock() - begun)
            burnt += time.thread_time() - before
            if pause:
                time.sleep(pause)
        walls.extend(mine)
        spent.append(burnt)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "p50": quantile(walls, 0.5),
        "p99": quantile(walls, 0.99),
        "longest": max(walls),
        "mean": sum(walls) / len(walls),
        "CPU": sum(spent) / len(walls),
    }


def starting(loop: str, threads: int, calls: int) -> dict[str, float]:
    """Measure `start_background_task`."""
    pause = 0.0 if loop == "in a burst" else threads / RATE
    handler = BackgroundHandler(Client(Service(loop)), pace=RARELY)
    handler.start_background_task(QUESTION)  # which starts the loop's thread
    time.sleep(0.2)
    figures = timed(threads, calls, pause, functools.partial(handler.start_background_task, QUESTION))
    handler.close(timeout=0)
    return figures


def handing_over(loop: str, threads: int, calls: int) -> dict[str, float]:
    """Measure the least that has to be done: to hand a coroutine over to a loop on another thread."""
    pause = 0.0 if loop == "in a burst" else threads / RATE
    service, request = Service(loop), object()
    with a_loop() as running:
        return timed(
            threads, calls, pause, lambda: asyncio.run_coroutine_threadsafe(service.create("job", request), running)
        )


def keeping(calls: int) -> dict[str, float]:
    """Measure what of a start is left where no job is handed over to a loop, and no garbage is collected."""
    handler = BackgroundHandler(Client(Service("one by one")), pace=RARELY)
    handler.start_background_task(QUESTION)
    time.sleep(0.2)
    handler._run = lambda _: None
    gc.disable()
    figures = timed(1, calls, 1 / RATE, functools.partial(handler.start_background_task, QUESTION))
    gc.enable()
    handler.close(timeout=0)
    return figures


def plain(calls: int) -> dict[str, float]:
    """Measure a call of the standard library that shares nothing with other threads."""
    return timed(1, calls, 1 / RATE, functools.partial(textwrap.wrap, QUESTION * 4, 15))


def reading(jobs: int, threads: int, calls: int) -> dict[str, float]:
    """Measure what is read of so many jobs, in seconds a call, and the processor's."""
    figures: dict[str, float] = {}
    lock, records = threading.RLock(), {str(number): {"status": "running", "n": number} for number in range(jobs)}

    def peer(job_id: str) -> dict[str, Any]:
        with lock:
            return dict(records[job_id])

    handler = BackgroundHandler(Client(Service("")), pace=RARELY)
    done = BackgroundHandler(Client(Service("", seconds=0)), pace=SOON)
    handles = [handler.submit(QUESTION) for _ in range(jobs)]
    ended = [done.submit(QUESTION) for _ in range(jobs)]
    done.wait_all()
    time.sleep(0.5)  # until all are sent, and the loop is idle
    gc.collect()
    reads: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "a copy": (peer, list(records)),
        "check_status": (handler.check_status, [job.id for job in handles]),
        "get_result": (done.get_result, [job.id for job in ended]),
        "job.status()": (lambda job: job.status(), handles),
        "job.waiting": (lambda job: job.waiting, handles),
    }
    for name, (call, keys) in reads.items():
        found = in_turn(threads, calls, call, keys)
        figures |= {f"{name} {figure}": value for figure, value in found.items()}
    if threads == 1:
        times = []
        for _ in range(max(20, 20_000 // jobs)):
            begun = clock()
            handler.list_active_jobs()
            times.append((clock() - begun) / jobs)
        figures["list_active_jobs wall"] = quantile(times, 0.5)
    handler.close(timeout=0)
    done.close(timeout=0)
    return figures


def in_turn(threads: int, calls: int, call: Callable[[Any], object], keys: list[Any]) -> dict[str, float]:
    """Have each of these threads call for key after key, and answer the seconds that a call takes."""
    walls, spent = [], []
    gate = threading.Barrier(threads)

    def run() -> None:
        mine = (keys * (calls // len(keys) + 1))[:calls]
        gate.wait()
        before, begun = time.thread_time(), clock()
        for key in mine:
            call(key)
        walls.append((clock() - begun) / calls)
        spent.append((time.thread_time() - before) / calls)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"wall": sum(walls) / threads, "CPU": sum(spent) / threads}


async def waited_for(*, ours: bool) -> dict[str, float]:
    """Measure 1,000 waiters: of jobs, or of bare futures."""
    async with AsyncBackgroundHandler(Client(Service("")), pace=RARELY, on_close="detach") as handler:
        jobs = [await handler.submit(QUESTION) for _ in range(WAITERS)]
        await asyncio.sleep(0.5)
        futures = [asyncio.get_running_loop().create_future() for _ in range(WAITERS)]
        gc.collect()
        threads = threading.active_count()
        tracemalloc.start()
        waiters = [
            asyncio.ensure_future(handler.wait(job.id) if ours else asyncio.wait_for(future, None))
            for job, future in zip(jobs, futures, strict=True)
        ]
        await asyncio.sleep(0.5)
        memory = tracemalloc.get_traced_memory()[0] / WAITERS
        tracemalloc.stop()
        spent = cpu()
        await asyncio.sleep(2)
        figures = {"threads": threading.active_count() - threads, "CPU": (cpu() - spent) / 2, "memory": memory}
        for waiter in waiters:
            waiter.cancel()
        await handler.aclose(0)
    return figures


def one_round(calls: int) -> dict[str, float]:
    """Answer all figures of one round, each under one name."""
    figures = {f"plain {figure}": value for figure, value in plain(calls).items()}
    figures |= {f"kept {figure}": value for figure, value in keeping(calls).items()}
    for threads in THREADS:
        for loop in LOOPS:
            for name, measure in {"ours": starting, "peer": handing_over}.items():
                found = measure(loop, threads, calls)
                figures |= {f"{loop} {threads} {name} {figure}": value for figure, value in found.items()}
    for jobs, threads in [*((jobs, 1) for jobs in SIZES), *((1000, threads) for threads in THREADS[1:])]:
        found = reading(jobs, threads, 20_000 // threads)
        figures |= {f"{jobs} {threads} {figure}": value for figure, value in found.items()}
    for name, is_ours in {"ours": True, "peer": False}.items():
        found = asyncio.run(waited_for(ours=is_ours))
        figures |= {f"waiters {name} {figure}": value for figure, value in found.items()}
    return figures


def print_starts(median: dict[str, float]) -> None:
    """Print the table of starts."""
    head(
        "threads", "loop", "start p50", "p99", "longest", "CPU", "hand over p50", "p99", "longest", "CPU", "p99 to p99",
    )  # fmt: skip
    for threads in THREADS:
        for loop in LOOPS:
            ours, peer = (f"{loop} {threads} {who}" for who in ("ours", "peer"))
            cells = [span(median[f"{who} {part}"]) for who in (ours, peer) for part in ("p50", "p99", "longest", "CPU")]
            row(threads, loop, *cells, show(median[f"{ours} p99"] / median[f"{peer} p99"], ".1f"))
    head("one by one", "p50", "p99", "longest", "p99 to p50")
    for name, who in {"a plain call": "plain", "a start that is not handed over": "kept"}.items():
        cells = [span(median[f"{who} {part}"]) for part in ("p50", "p99", "longest")]
        row(name, *cells, show(median[f"{who} p99"] / median[f"{who} p50"], ".1f"))


def print_reads(median: dict[str, float]) -> None:
    """Print the table of reads."""
    head("jobs", "threads", "read", "a call", "CPU a call", "copy of a dictionary", "CPU")
    for jobs, threads in [*((jobs, 1) for jobs in SIZES), *((1000, threads) for threads in THREADS[1:])]:
        copy = [span(median[f"{jobs} {threads} a copy {part}"]) for part in ("wall", "CPU")]
        for read in ("check_status", "get_result", "job.status()", "job.waiting"):
            cells = [span(median[f"{jobs} {threads} {read} {part}"]) for part in ("wall", "CPU")]
            row(f"{jobs:,}", threads, read, *cells, *copy)
        if threads == 1:
            row(
                f"{jobs:,}",
                threads,
                "list_active_jobs, for each job",
                span(median[f"{jobs} 1 list_active_jobs wall"]),
                "–",
                *copy,
            )


def print_waits(median: dict[str, float]) -> None:
    """Print the table of waiters."""
    head(f"{WAITERS:,} waiters", "threads more", "CPU a second", "memory a waiter")
    for name, who in {"of a job each": "ours", "of a future each": "peer"}.items():
        figures = [median[f"waiters {who} {part}"] for part in ("threads", "CPU", "memory")]
        row(name, f"{figures[0]:g}", show(figures[1] * 1000, ".1f", "ms"), show(figures[2] / 1000, ".1f", "kB"))


def goals_of(median: dict[str, float]) -> list[Goal]:
    """Answer the goals that are about costs."""
    listed = [median[f"{jobs} 1 list_active_jobs wall"] for jobs in SIZES]
    return [
        Goal("start_background_task p99, one by one", "", 100.0, median["one by one 1 ours p99"] * 1e6, "µs"),
        Goal("start_background_task p99, loop blocked", "", 100.0, median["loop blocked 1 ours p99"] * 1e6, "µs"),
        Goal("check_status at 10,000 jobs", "", 2.0, median["10000 1 check_status wall"] * 1e6, "µs"),
        Goal("list_active_jobs for each of 10,000", "for each of 1,000", 1.5, listed[2] / listed[1]),
        Goal(f"threads for {WAITERS:,} waiters", "", 0.0, median["waiters ours threads"]),
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2000, help="starts that all threads share")
    parser.add_argument("--quick", action="store_true", help="one round of 500 starts")
    parser.add_argument("--round", action="store_true", help="be one round, in this process")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    if options.round:
        print(json.dumps(one_round(options.calls)))
        return
    if options.quick:
        options.rounds, options.calls = 1, 500
    command = [sys.executable, __file__, "--round", "--calls", str(options.calls)]
    rounds = [json.loads(subprocess.check_output(command)) for _ in range(options.rounds)]  # noqa: S603 - ourselves
    median = medians(rounds)
    print_starts(median)
    print_reads(median)
    print_waits(median)
    tell(goals_of(median), options.goals)


if __name__ == "__main__":
    main()
