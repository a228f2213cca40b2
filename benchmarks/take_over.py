"""
How long a job goes unwatched when the process that holds it is killed, or stands still.

    python benchmarks/take_over.py          # --rounds 11

Two processes share a store. The first starts a job, and gets SIGKILL or SIGSTOP at a random moment; the time goes
from there to the second one's first look at the job. The peer is the lease itself: of who stands still, nobody can
know earlier.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, SqliteStore
from o3pro_bg.testing import FakeClient, FakeRemote

if TYPE_CHECKING:
    from o3pro_bg._records import News

LEASES = (0.5, 1.0, 3.0)


class Service(FakeRemote):
    """A service in memory, which tells when it was looked at."""

    def __init__(self) -> None:
        super().__init__(seconds=1e9)
        self.looked = asyncio.Event()

    async def look(self, response_id: str) -> News:
        """Note that there was a look."""
        self.looked.set()
        return await super().look(response_id)


def hold(path: str, lease: float) -> None:
    """Start a job, say so, and live until killed."""
    handler = BackgroundHandler(FakeClient(FakeRemote(seconds=1e9)), store=SqliteStore(path, lease=lease))
    job = handler.submit("Why?")
    while job.response_id is None:
        time.sleep(0.01)
    print(job.id, flush=True)
    time.sleep(3600)


async def take_over(lease: float, end: signal.Signals) -> float:
    """Answer for how many seconds the job of a process that got this signal went unwatched."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "jobs.db")
        command = [sys.executable, __file__, "--hold", str(path), "--lease", str(lease)]
        holder = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert holder.stdout is not None  # noqa: S101 - it was asked for
        await holder.stdout.readline()
        service = Service()
        async with AsyncBackgroundHandler(FakeClient(service), store=SqliteStore(path, lease=lease)):
            await asyncio.sleep(lease + random.uniform(0, lease))
            if service.looked.is_set():
                raise SystemExit("it was taken over from a living process")
            holder.send_signal(end)
            begun = time.perf_counter()
            await service.looked.wait()
            seconds = time.perf_counter() - begun
        with suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--hold", help="be the first process, on this store")
    parser.add_argument("--lease", type=float, help="with this lease")
    options = parser.parse_args()
    if options.hold is not None:
        hold(options.hold, options.lease)
        return
    print("| lease | signal | unwatched, median | longest | median to lease |\n|---|---|---|---|---|")
    for lease in LEASES:
        for end in (signal.SIGKILL, signal.SIGSTOP):
            times = [asyncio.run(take_over(lease, end)) for _ in range(options.rounds)]
            median = statistics.median(times)
            row = (f"{lease:g} s", end.name, f"{median:.2f} s", f"{max(times):.2f} s", f"{median / lease:.2f}")
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
