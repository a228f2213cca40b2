"""
Many jobs at once: the library beside what people write today, and beside the floor of what Python can do.

    python benchmarks/many_jobs.py                     # --jobs 100 1000 10000 --rounds 3
    python benchmarks/many_jobs.py --only ours floor   # some of the competitors

The service is the emulator, in a process of its own, whose jobs take two seconds each; the first line shows what it
can serve. Each competitor runs in a process of its own, asks the same questions, and is measured by itself:

    threads        a thread per job, the blocking SDK, looks every 2 seconds
    pool           a pool of 32 threads, the same
    httpx2         asyncio.gather over AsyncAzureOpenAI, looks every 2 seconds
    aiohttp        the same on the SDK's aiohttp transport
    ours           AsyncBackgroundHandler, with aiohttp where it is installed
    ours, httpx2   the same without it
    floor          a bare asyncio client: one request written, one answer read, at most 64 at a time

Who has not ended after `--patience` seconds is stopped, and counts as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, client
from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 2.0
IN_FLIGHT = 64
QUESTION = "Which of these two proofs is wrong, and where?"
WORLD = "seconds=2 queued=0"
MOST = {"threads": 1000, "pool": 100}  # more would not end today


def base_url(endpoint: str) -> str:
    """Answer where the SDK finds the service."""
    return f"{endpoint}/openai/v1/"


def one_blocking(endpoint: str, key: str) -> Callable[[int], None]:
    """Answer what lives one job on the blocking SDK."""
    from openai import OpenAI

    sdk = OpenAI(base_url=base_url(endpoint), api_key=key, default_headers={"api-key": key})

    def live(_: int) -> None:
        response = sdk.responses.create(model="o3-pro", input=QUESTION, background=True, store=True)
        while response.status in ("queued", "in_progress"):
            time.sleep(PAUSE)
            response = sdk.responses.retrieve(response.id)

    return live


def in_threads(endpoint: str, key: str, jobs: int) -> None:
    """A thread per job."""
    live = one_blocking(endpoint, key)
    threads = [threading.Thread(target=live, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_pool(endpoint: str, key: str, jobs: int) -> None:
    """A pool of 32 threads."""
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one_blocking(endpoint, key), range(jobs)))


async def gathered(endpoint: str, key: str, jobs: int, *, aiohttp: bool) -> None:
    """A task per job on the SDK's defaults."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    http = {"http_client": DefaultAioHttpClient()} if aiohttp else {}
    sdk = AsyncOpenAI(base_url=base_url(endpoint), api_key=key, default_headers={"api-key": key}, **http)

    async def live() -> None:
        response = await sdk.responses.create(model="o3-pro", input=QUESTION, background=True, store=True)
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(PAUSE)
            response = await sdk.responses.retrieve(response.id)

    await asyncio.gather(*(live() for _ in range(jobs)))
    await sdk.close()


async def ours(endpoint: str, key: str, jobs: int, *, aiohttp: bool) -> None:
    """The library."""
    if not aiohttp:
        client._has_aiohttp = lambda: False
    config = O3ProConfig(endpoint=endpoint, api_key=key, deployment="o3-pro")
    async with AsyncBackgroundHandler(O3ProClient(config), language="en") as handler:
        for _ in range(jobs):
            await handler.submit(QUESTION)
        replies = await handler.wait_all()
    if not all(reply["success"] for reply in replies.values()):
        raise SystemExit("a job failed")


async def floor(endpoint: str, key: str, jobs: int) -> None:
    """A bare client."""
    place = urlsplit(endpoint)
    places = asyncio.Semaphore(IN_FLIGHT)
    kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    common = f"HTTP/1.1\r\nhost: {place.netloc}\r\napi-key: {key}\r\n"
    body = json.dumps({"model": "o3-pro", "input": QUESTION, "background": True, "store": True})
    create = f"POST /openai/v1/responses {common}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    async def ask(request: str) -> dict[str, Any]:
        async with places:
            reader, writer = kept.pop() if kept else await asyncio.open_connection(place.hostname, place.port)
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer: dict[str, Any] = json.loads(await reader.readexactly(length))
            kept.append((reader, writer))
            return answer

    async def live() -> None:
        answer = await ask(create + body)
        while answer["status"] in ("queued", "in_progress"):
            await asyncio.sleep(PAUSE)
            answer = await ask(f"GET /openai/v1/responses/{answer['id']} {common}\r\n")

    await asyncio.gather(*(live() for _ in range(jobs)))
    for _, writer in kept:
        writer.close()


COMPETITORS: dict[str, Callable[[str, str, int], None]] = {
    "threads": in_threads,
    "pool": in_a_pool,
    "httpx2": lambda *args: asyncio.run(gathered(*args, aiohttp=False)),
    "aiohttp": lambda *args: asyncio.run(gathered(*args, aiohttp=True)),
    "ours": lambda *args: asyncio.run(ours(*args, aiohttp=True)),
    "ours, httpx2": lambda *args: asyncio.run(ours(*args, aiohttp=False)),
    "floor": lambda *args: asyncio.run(floor(*args)),
}


def compete(name: str, endpoint: str, key: str, jobs: int) -> None:
    """Be one competitor: a job to warm up, then all of them; print what it took."""
    COMPETITORS[name](endpoint, key, 1)
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    COMPETITORS[name](endpoint, key, jobs)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": (after.ru_maxrss - before.ru_maxrss) * 1024,
    }
    print(json.dumps(figures))


def measured(emulator: Emulator, name: str, jobs: int, patience: float) -> dict[str, float] | None:
    """Answer what a competitor took for so many jobs, or None where it did not end."""
    emulator.reset()
    emulator.set_knobs(WORLD)
    command = [sys.executable, __file__, "--be", name, emulator.endpoint, emulator.api_key, str(jobs)]
    try:
        said = subprocess.run(command, capture_output=True, check=True, timeout=patience).stdout  # noqa: S603
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    counters = emulator.counters()
    figures["looks"] = counters["looks"] / (jobs + 1)
    figures["paid twice"] = len(counters["duplicates"])
    return figures


def ceiling(emulator: Emulator) -> str:
    """Answer how many jobs a second the floor gets from the emulator where none of them takes any time."""
    emulator.set_knobs("seconds=0 queued=0")
    begun = time.perf_counter()
    asyncio.run(floor(emulator.endpoint, emulator.api_key, 20_000))
    return f"the emulator serves {20_000 / (time.perf_counter() - begun):,.0f} creates a second\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parser.add_argument("--be", nargs=4, help="be a competitor, in this process")
    options = parser.parse_args()
    if options.be is not None:
        name, endpoint, key, jobs = options.be
        compete(name, endpoint, key, int(jobs))
        return
    with Emulator(WORLD) as emulator:
        print(ceiling(emulator))
        print("| jobs | who | wall | to the floor | CPU a job | memory a job | looks a job |")
        print("|---|---|---|---|---|---|---|")
        for jobs in options.jobs:
            rounds = {name: [] for name in options.only}
            for name in [name for _ in range(options.rounds) for name in options.only]:
                if jobs <= MOST.get(name, jobs) and None not in rounds[name]:
                    rounds[name].append(measured(emulator, name, jobs, options.patience))
            walls = [figures["wall"] for figures in rounds.get("floor", []) if figures]
            for name, found in rounds.items():
                print(line_of(jobs, name, found, statistics.median(walls) if walls else float("nan")), flush=True)


def line_of(jobs: int, name: str, found: list[dict[str, float] | None], lowest: float) -> str:
    """Answer a line of the table."""
    ended = [figures for figures in found if figures is not None]
    if not ended or len(ended) < len(found):
        return f"| {jobs:,} | {name} | {'did not end' if found else 'not tried'} | – | – | – | – |"
    median = {figure: statistics.median(each[figure] for each in ended) for figure in ended[0]}
    return (
        f"| {jobs:,} | {name} | {median['wall']:.2f} s | {median['wall'] / lowest:.1f} "
        f"| {1000 * median['cpu'] / jobs:.2f} ms | {median['memory'] / jobs / 1000:.1f} kB | {median['looks']:.1f} |"
    )


if __name__ == "__main__":
    main()
