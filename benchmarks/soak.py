"""
Whether a handler that goes on and on grows: an hour's worth of jobs, and more, through one, compressed.

Callers come and go as they do in a day: they wait for answers, run out of patience, cancel, give up, ask for several
jobs at once, remove what they have read; the service refuses, throttles looks, loses creates, breaks connections. What
the process takes is sampled after a collection of garbage, with the callers in the midst of their work. The second half
of the samples has to be flat: its slope, over as many jobs, within what is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from measures import head, resident, row, sockets

from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, O3ProError, Pace
from o3pro_bg.emulator import Emulator
from o3pro_bg.testing import Event, Failure, FakeClient, FakeRemote, News, RemoteTrouble, Trouble, Usage

WORLDS: Final = {
    "memory": "a service in memory, records in memory",
    "file": "a service in memory, records in an SQLite file",
    "sockets": "the emulator over HTTP, which breaks connections; records in memory",
}
KEPT: Final = 500  # ended jobs that the handler retains
CALLERS: Final = 400  # at once
SAMPLES: Final = 20
DEEDS: Final = {"result": 50, "impatience": 15, "cancel": 10, "gives up": 10, "several": 5, "removes": 10}
# Of each figure: how much of its median the second half may grow by, and how much of its own beside it.
ALLOWED: Final = {
    "RSS, MB": (0.03, 2.0),
    "objects": (0.03, 2_000),
    "tasks": (0.1, 50),
    "threads": (0.0, 3),
    "files": (0.05, 10),
    "sockets": (0.05, 10),
}


class Churn(FakeRemote):
    """A service in memory that keeps nothing of a response which has ended, and fails at everything now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._luck = random.Random(1)
        self._number = 0
        self._until: dict[str, float] = {}

    async def create(self, job_id: str, request: Any) -> News:
        """Take a question, or not."""
        await self._meet((0.01, Trouble.REFUSED), (0.01, Trouble.UNCLEAR))  # no 429, which would slow all down
        self._number += 1
        response_id = f"resp_{self._number}"
        self._until[response_id] = asyncio.get_running_loop().time() + 0.4 * self._luck.random()
        return News(Event.ACCEPTED, response_id=response_id)

    async def look(self, response_id: str) -> News:
        """Answer how far a response is."""
        await self._meet((0.02, Trouble.UNCLEAR), (0.005, Trouble.THROTTLED))
        until = self._until.get(response_id)
        if until is None:
            raise RemoteTrouble(Trouble.MISSING, Failure("lost", f"Response with id '{response_id}' not found."))
        if until > asyncio.get_running_loop().time():
            return News(Event.PROGRESSED, response_id=response_id)
        del self._until[response_id]
        event = Event.CANCELLED if until < 0 else self._luck.choices((Event.ANSWERED, Event.ERRORED), (95, 5))[0]
        failure = Failure("server_error", "it broke") if event is Event.ERRORED else None
        text = f"answer {response_id} " * 20
        return News(event, response_id=response_id, answer=text, usage=Usage(10, 100), failure=failure)

    async def cancel(self, response_id: str) -> None:
        """Stop a response, or not."""
        await self._meet((0.05, Trouble.REFUSED), (0.02, Trouble.UNCLEAR))
        if response_id in self._until:
            self._until[response_id] = -1.0

    async def _meet(self, *troubles: tuple[float, Trouble]) -> None:
        await asyncio.sleep(0)
        for part, kind in troubles:
            if self._luck.random() < part:
                raise RemoteTrouble(kind, Failure("luck", "bad"), retry_after=0.01)


def options_of(world: str, luck: random.Random) -> dict[str, Any]:
    """Answer what a job is asked with: at the emulator, how long it takes and what breaks."""
    if world != "sockets":
        return {}
    broken = luck.choices(("", " fault=reset on=look", " fault=500 on=look", " outcome=failed"), (85, 5, 5, 5))[0]
    return {"metadata": {"emulator": f"seconds={0.2 * luck.random():.3f} queued=0{broken}"}}


async def caller(handler: AsyncBackgroundHandler, world: str, left: list[int], seen: Counter[str], seed: int) -> None:
    """Be one who comes, does with a job what people do, and comes again."""
    luck = random.Random(seed)
    while left[0] > 0:
        left[0] -= 1
        timeout = 0.1 if luck.random() < 0.02 else None
        key = f"{seed}-{left[0]}" if luck.random() < 0.1 else None
        job = await handler.submit(f"Why {seed}?", "low", timeout=timeout, dedupe_key=key, **options_of(world, luck))
        job.add_done_callback(lambda _: seen.update(["called back"]))
        deed = luck.choices(
            ("result", "impatience", "cancel", "gives up", "several", "removes"), (50, 15, 10, 10, 5, 10)
        )[0]
        seen[deed] += 1
        try:
            if deed == "impatience":
                await job.result(0.01)
            elif deed == "cancel":
                await handler.cancel_job(job.id)
            elif deed == "gives up":
                waiter = asyncio.ensure_future(handler.wait(job.id))
                await asyncio.sleep(0.02)
                waiter.cancel()
            elif deed == "several":
                await handler.wait_all([job.id, "nobody's", (await handler.submit("And?")).id], 5)
            elif deed == "removes":
                await handler.wait(job.id)
                await handler.remove_job(job.id)
            else:
                await job.result()
        except (O3ProError, TimeoutError) as exc:
            seen[type(exc).__name__] += 1


def sample() -> dict[str, float]:
    """Answer what this process takes."""
    gc.collect()
    return {
        "RSS, MB": resident() / 1e6,
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "sockets": sockets(),
    }


async def soak(world: str, jobs: int, where: Path) -> dict[str, Any]:
    """Run so many jobs through one handler, and answer the samples, and what became of the jobs."""
    runs: AbstractContextManager[Any] = Emulator() if world == "sockets" else nullcontext()
    with runs as emulator:
        client: Any = FakeClient(Churn())
        if emulator is not None:
            client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
        settings: dict[str, Any] = {"store": where / "jobs.db"} if world == "file" else {}
        pace = Pace(floor=0.05, ceiling=0.1)
        seen: Counter[str] = Counter()
        begun, left, samples = time.monotonic(), [jobs], list[dict[str, float]]()
        async with AsyncBackgroundHandler(client, pace=pace, retain=KEPT, lost_after=0.2, **settings) as handler:
            callers = [asyncio.ensure_future(caller(handler, world, left, seen, seed)) for seed in range(CALLERS)]
            while left[0] > 0 and not any(task.done() for task in callers):
                await asyncio.sleep(0.05)
                if jobs - left[0] >= (len(samples) + 1) * jobs / SAMPLES:
                    samples.append({"jobs": jobs - left[0], **sample()})
            await asyncio.gather(*callers)
            listed = len(await handler.list_active_jobs())
        await asyncio.sleep(0.1)
        after = {"jobs": jobs, **sample()}
    return {"seconds": time.monotonic() - begun, "samples": samples, "after": after, "seen": seen, "listed": listed}


def slope(samples: list[dict[str, float]], name: str) -> float:
    """Answer by how much a figure grows over the second half of all jobs, along the line that fits best."""
    half = samples[len(samples) // 2 :]
    jobs = [each["jobs"] for each in half]
    return statistics.linear_regression(jobs, [each[name] for each in half]).slope * (jobs[-1] - jobs[0])


def tell(world: str, jobs: int, result: dict[str, Any]) -> bool:
    """Print what came of it; tell whether all is flat."""
    samples, seen = result["samples"], Counter(result["seen"])
    print(f"\n{WORLDS[world]}: {jobs:,} jobs in {result['seconds']:.0f} s; at the end {result['listed']} are kept")
    print(", ".join(f"{name} {count:,}" for name, count in seen.most_common()), end="\n\n")
    head("jobs", *ALLOWED)
    for each in [*samples[:: max(len(samples) // 5, 1)], samples[-1]]:
        row(f"{each['jobs']:,.0f}", *[f"{each[name]:,.1f}".removesuffix(".0") for name in ALLOWED])
    row("closed", *[f"{result['after'][name]:,.1f}".removesuffix(".0") for name in ALLOWED])
    grown = {name: slope(samples, name) for name in ALLOWED}
    may = {
        name: part * statistics.median(each[name] for each in samples) + own for name, (part, own) in ALLOWED.items()
    }
    row("second half", *[f"{grown[name]:+,.2f}" for name in ALLOWED])
    row("may grow by", *[f"{may[name]:,.2f}" for name in ALLOWED])
    is_flat = all(grown[name] <= may[name] for name in ALLOWED)
    print(f"\n{'flat' if is_flat else '**not flat**'}", flush=True)
    return is_flat


def main() -> int:
    """Soak each world in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", default=[*WORLDS], help=f"default: {' '.join(WORLDS)}")
    parser.add_argument("--jobs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        with tempfile.TemporaryDirectory() as where:
            print(json.dumps(asyncio.run(soak(arguments.worlds[0], arguments.jobs, Path(where)))))
        return 0
    flat = True
    for world in arguments.worlds:
        command = [sys.executable, __file__, world, f"--jobs={arguments.jobs}", "--inside"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this very script
        flat &= tell(world, arguments.jobs, json.loads(done.stdout))
    return not flat


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        raise SystemExit(main())
