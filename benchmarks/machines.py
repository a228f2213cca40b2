"""
What jobs cost that many machines share: `DbosEngine` beside a handler in memory and one with a store on disk.

    python benchmarks/machines.py            # --quick for one smaller round; --postgres URL for a server of yours

Each round measures each of them, one after the other, in a process of its own: how long a caller waits for an id, and
for a status; how soon a job that is submitted leaves for the service; how many jobs of no length a second go through
from submission to answer; and what a worker costs that has nothing to do. The service is in memory. A PostgreSQL of
the tests' own is started where Debian's programs are installed. The table shows medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from o3pro_bg import BackgroundHandler, DbosEngine, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

QUESTION: Final = "Which of these two proofs is wrong, and where? " * 10
QUICK: Final = Pace(floor=0.05, ceiling=0.1, learns=False)
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
    if kind not in ("memory", "file"):
        settings = {"engine": DbosEngine(place)}
    client = FakeClient(FakeRemote(seconds=0.0, queued=0.0))
    with BackgroundHandler(client, pace=QUICK, **settings) as handler:
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
        "status": 1000 * status,
        "alone": alone,
        "rate": jobs / done,
        "idle": idle,
    }


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
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "PLACE"))
    arguments = parser.parse_args()
    jobs = arguments.jobs or (200 if arguments.quick else 1000)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, jobs)))
        return
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        server = None if arguments.postgres else _postgres(stack)
        for _ in range(1 if arguments.quick else 3):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            kinds = {"memory": "", "file": str(folder / "jobs.db"), "DBOS, SQLite": f"sqlite:///{folder}/dbos.db"}
            if arguments.postgres or server is not None:
                kinds["DBOS, PostgreSQL"] = arguments.postgres or server.database()
            for kind, place in kinds.items():
                found.setdefault(kind, []).append(in_its_own(kind, place, jobs))
    print(f"{jobs:,} jobs of no length, medians\n")
    print("| handler | submit, ms | status, µs | one job alone, ms | jobs a second | idle, % of a processor |")
    print("|---|---|---|---|---|---|")
    for kind, rounds in found.items():
        median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        print(
            f"| {kind} | {median['submit']:.2f} | {median['status']:.1f} | {median['alone']:.0f} "
            f"| {median['rate']:.0f} | {median['idle']:.2f} |"
        )


def _postgres(stack: ExitStack) -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.postgres import Postgres, programs

    return None if programs() is None else stack.enter_context(Postgres())


if __name__ == "__main__":
    main()
