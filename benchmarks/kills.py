"""
Processes that share one store are killed with SIGKILL at random moments; then one process finishes what they began.

    python benchmarks/kills.py              # --kills 200 --seed 7

Run it where the package's `tests` are. Up to three processes submit jobs to the emulator, each some jobs as fast as it
can, and live those of the dead; one of them is killed at a moment between its start and a while after its last job.
Every id that a process has printed was told. At the end the emulator says how many responses it made for each job.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore
from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE = 0.5
TOGETHER = 3
PATIENCE = 300.0


class Victim:
    """A process that is killed when its time has come."""

    def __init__(self, settings: dict[str, object], seconds: float) -> None:
        command = [sys.executable, "-m", "tests.victim", json.dumps(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        self._seconds = seconds

    def killed(self) -> list[str]:
        """Wait for its time, kill it, and answer what it told."""
        time.sleep(self._seconds)
        self._process.kill()
        return self._process.communicate()[0].split("\n")[:-1]  # what it could not finish it did not tell


def massacre(make: Callable[[], Victim], kills: int) -> list[list[str]]:
    """Have so many processes killed, some at a time, and answer what each has told."""
    left = iter(range(kills))
    told: list[list[str]] = []

    def run() -> None:
        for _ in left:
            told.append(make().killed())

    threads = [threading.Thread(target=run) for _ in range(TOGETHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    luck = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as directory, Emulator("seconds=1 queued=0 latency=0.02") as emulator:
        path = Path(directory, "jobs.db")
        service = {"endpoint": emulator.endpoint, "api_key": emulator.api_key}

        def make() -> Victim:
            settings = {**service, "store": str(path), "lease": LEASE, "jobs": luck.randrange(1, 40)}
            settings["face"] = luck.choice(["sync", "async"])
            return Victim(settings, luck.uniform(0.1, 2.5))

        lives = massacre(make, options.kills)
        begun = time.perf_counter()
        client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
        store = SqliteStore(path, lease=LEASE)
        with BackgroundHandler(client, store=store, pace=Pace(floor=0.05, ceiling=0.1), language="en") as handler:
            results = handler.wait_all(timeout=PATIENCE)
            failures = [handler.job(job_id)._record.failure for job_id in results]
        seconds = time.perf_counter() - begun
        counters = emulator.counters()
    told = [job_id for life in lives for job_id in life]
    statuses = Counter(result["status"] for result in results.values())
    codes = Counter(failure.code for failure in failures if failure is not None)
    lost = len({*told} - {*results}) + sum(count for code, count in codes.items() if code != "submission_uncertain")
    figures = {
        "kills": len(lives),
        "killed before they told an id": sum(not life for life in lives),
        "ids told": len(told),
        "jobs in the store": len(results),
        "completed": statuses["completed"],
        "failed as uncertain": codes["submission_uncertain"],
        "of these, accepted by the service": counters["accepted"] - statuses["completed"],
        "seconds until the last process had finished all": round(seconds, 1),
        "**lost**": lost,
        "**paid twice**": len(counters["duplicates"]),
    }
    print("| | |\n|---|---|")
    for name, figure in figures.items():
        print(f"| {name} | {figure:,} |")
    if lost or counters["duplicates"]:
        raise SystemExit(f"lost or paid twice: {dict(codes)}, {counters['duplicates']}")


if __name__ == "__main__":
    main()
