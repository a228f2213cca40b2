"""
What jobs cost that many machines share: `DbosEngine` beside a handler in memory and one with a store on disk.

    python benchmarks/machines.py            # --quick for one smaller round; --postgres URL for a server of yours
    python benchmarks/machines.py --waiting 10000       # what jobs cost that only wait

Each round measures each of them, one after the other, in a process of its own: how long a caller waits for an id, and
for a status; how soon a job that is submitted leaves for the service; how many jobs of no length a second go through
from submission to answer; and what a worker costs that has nothing to do. The service is in memory. A PostgreSQL of
the tests' own is started where Debian's programs are installed. The table shows medians.

With `--waiting`, so many jobs are submitted by sixteen threads of a process that lives none; a worker takes up a
thousand of them, which never end, and both are watched while nothing happens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, cast

from o3pro_bg import BackgroundHandler, DbosEngine, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

QUESTION: Final = "Which of these two proofs is wrong, and where? " * 10
QUICK: Final = Pace(floor=0.05, ceiling=0.1, learns=False)
COLUMNS: Final = {
    "submit": "submit, ms",
    "elsewhere": "submit without a worker, ms",
    "status": "status, µs",
    "alone": "one job alone, ms",
    "rate": "jobs a second",
    "idle": "idle, % of a processor",
}
IDLE: Final = 10.0  # seconds for which a worker is watched that has nothing to do


def spent() -> float:
    """Answer the seconds of the processor that this process has taken."""
    times = os.times()
    return times.user + times.system


def median_of(function: Any, times: int) -> float:
    """Answer the median of the milliseconds that this takes."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        took.append(1000 * (time.perf_counter() - begun))
    return statistics.median(took)


def measure(kind: str, place: str, jobs: int) -> dict[str, float]:
    """Measure one handler."""
    settings: dict[str, Any] = {"memory": {}, "file": {"store": place}}.get(kind) or {}
    client = FakeClient(FakeRemote(seconds=0.0, queued=0.0))
    elsewhere = math.nan
    if kind not in ("memory", "file"):
        settings = {"engine": DbosEngine(place)}
        with BackgroundHandler(client, engine=DbosEngine(place, worker=False)) as web:
            elsewhere = median_of(lambda: web.start_background_task(QUESTION), 100)
    with BackgroundHandler(client, pace=QUICK, **settings) as handler:
        handler.wait_all([*handler.jobs])
        handler.submit(QUESTION).result()
        begun = time.perf_counter()
        ids = [handler.start_background_task(QUESTION)["job_id"] for _ in range(jobs)]
        submitted = time.perf_counter() - begun
        handler.wait_all(ids)
        done = time.perf_counter() - begun
        status = median_of(lambda: handler.check_status(ids[0]), 1000)
        alone = median_of(lambda: handler.submit(QUESTION).result(), 10)
        before = spent()
        time.sleep(IDLE)
        idle = 100 * (spent() - before) / IDLE
    return {
        "submit": 1000 * submitted / jobs,
        "elsewhere": elsewhere,
        "status": 1000 * status,
        "alone": alone,
        "rate": jobs / done,
        "idle": idle,
    }


def waiting(place: str, jobs: int) -> None:
    """Print what jobs cost that wait."""
    with BackgroundHandler(FakeClient(), engine=DbosEngine(place, worker=False)) as web:
        begun = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            [*pool.map(web.start_background_task, [QUESTION] * jobs)]
        print(f"{jobs:,} jobs submitted in {time.perf_counter() - begun:.1f} s")
        command = [sys.executable, __file__, "--watched", place]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:  # noqa: S603 - this script
            told = iter(cast("IO[str]", worker.stdout))
            next(told)  # its thousand jobs are under way
            before = spent()
            print("worker:", next(told).strip())
            print(f"a process that lives none: {100 * (spent() - before) / IDLE:.1f} % of a processor")
            worker.kill()


def watched(place: str) -> None:
    """Be a worker with a thousand jobs under way, and say what that costs."""
    remote = FakeRemote(seconds=10**6, queued=0.0)
    handler = BackgroundHandler(FakeClient(remote), engine=DbosEngine(place))
    while sum(job["status"] == "running" for job in handler.list_active_jobs()) < 1000:
        time.sleep(1)
    print("under way", flush=True)
    before = spent()
    time.sleep(IDLE)
    print(f"{100 * (spent() - before) / IDLE:.1f} % of a processor", flush=True)
    time.sleep(IDLE)


def in_its_own(kind: str, place: str, jobs: int) -> dict[str, float]:
    """Measure one handler in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, place, "--jobs", str(jobs)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this script
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all of them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--waiting", type=int)
    parser.add_argument("--watched")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "PLACE"))
    arguments = parser.parse_args()
    jobs = arguments.jobs or (200 if arguments.quick else 1000)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, jobs)))
        return
    if arguments.watched:
        watched(arguments.watched)
        return
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        server = None if arguments.postgres else _postgres(stack)
        if arguments.waiting:
            waiting(arguments.postgres or server.database(), arguments.waiting)
            return
        for _ in range(1 if arguments.quick else 3):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            kinds = {"memory": "", "file": str(folder / "jobs.db"), "DBOS, SQLite": f"sqlite:///{folder}/dbos.db"}
            if arguments.postgres or server is not None:
                kinds["DBOS, PostgreSQL"] = arguments.postgres or server.database()
            for kind, place in kinds.items():
                found.setdefault(kind, []).append(in_its_own(kind, place, jobs))
    print(f"{jobs:,} jobs of no length, medians\n")
    print("| handler | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for kind, rounds in found.items():
        medians = (statistics.median(each[name] for each in rounds) for name in COLUMNS)
        print(f"| {kind} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")


def _postgres(stack: ExitStack) -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.postgres import Postgres, programs

    return None if programs() is None else stack.enter_context(Postgres())


if __name__ == "__main__":
    main()
