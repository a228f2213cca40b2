"""
Who competes: the library, what people write today, and the floor of what Python can do.

    threads            a thread per job, the blocking SDK
    pool               a pool of 32 threads, the same
    httpx2             asyncio.gather over AsyncAzureOpenAI
    aiohttp            the same on the SDK's aiohttp transport
    aiohttp, 100 tries the same, told to try each request again up to 100 times (the SDK's default is twice)
    ours               AsyncBackgroundHandler, with aiohttp where it is installed
    ours, httpx2       the same without it
    floor              a bare asyncio client: one request written, one answer read, at most 64 at a time

Each runs in a process of its own: this file, as a command, is one competitor, and prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from measures import NAN, Journal, Watch, beating, clock, cpu, forget_peak, peak, resident

from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, Pace, client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from o3pro_bg._records import JobRequest, News
    from o3pro_bg._remote import Remote
    from o3pro_bg.emulator import Emulator

PAUSE = 2.0
IN_FLIGHT = 64
API_VERSION = "2025-04-01-preview"
QUESTION = "Which of these two proofs is wrong, and where?"
AT_ONCE = " [emulator seconds=0.1]"
BUSY = ("queued", "in_progress")


@dataclass(frozen=True)
class Task:
    """
    What a competitor has to do.

    Attributes:
        endpoint: Where the service is.
        key: What it wants to see.
        jobs: How many jobs to start at once.
        seconds: How long each takes at the service.
        paced: Whether pauses between looks grow with the age of a job, as ours do; else a peer's are 2 seconds each.
        warm_up: How many short jobs to do before anything is measured.
        waiting: Whether to measure how the jobs wait.
        question: What to ask.
    """

    endpoint: str
    key: str
    jobs: int
    seconds: float
    paced: bool = False
    warm_up: int = 1
    waiting: bool = False
    question: str = QUESTION

    def pause(self, begun: float) -> float:
        """Answer the seconds until a peer looks again at a job that it began then."""
        return Pace().delay(clock() - begun, random.random()) if self.paced else PAUSE

    def create(self, number: int) -> dict[str, Any]:
        """Answer the body of a create; the emulator counts by the metadata what is accepted, and paid, twice."""
        metadata = {"o3pro_bg_job_id": f"{number}{self.question[len(QUESTION) :]}"}
        return {"model": "o3-pro", "input": self.question, "background": True, "store": True, "metadata": metadata}


def one_blocking(task: Task, journal: Journal) -> Callable[[int], None]:
    """Answer what lives one job on the blocking SDK."""
    from openai import AzureOpenAI

    sdk = AzureOpenAI(azure_endpoint=task.endpoint, api_key=task.key, api_version=API_VERSION)

    def live(number: int) -> None:
        begun = clock()
        try:
            response = sdk.responses.create(**task.create(number))
            journal.created(number, begun)
            while response.status in BUSY:
                time.sleep(task.pause(begun))
                journal.looks += 1
                response = sdk.responses.retrieve(response.id)
            journal.ended[number] = clock()
        except Exception as exc:
            journal.troubles[type(exc).__name__] += 1

    return live


def in_threads(task: Task, journal: Journal) -> None:
    """A thread per job."""
    live = one_blocking(task, journal)
    threads = [threading.Thread(target=live, args=(number,)) for number in range(task.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_pool(task: Task, journal: Journal) -> None:
    """A pool of 32 threads."""
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one_blocking(task, journal), range(task.jobs)))


async def gathered(task: Task, journal: Journal, *, aiohttp: bool, tries: int = 2) -> None:
    """A task per job on the SDK's defaults."""
    from openai import AsyncAzureOpenAI, DefaultAioHttpClient

    http: dict[str, Any] = {"http_client": DefaultAioHttpClient()} if aiohttp else {}
    place = {"azure_endpoint": task.endpoint, "api_key": task.key, "api_version": API_VERSION}
    sdk = AsyncAzureOpenAI(**place, max_retries=tries, **http)

    async def live(number: int) -> None:
        begun = clock()
        try:
            response = await sdk.responses.create(**task.create(number))
            journal.created(number, begun)
            while response.status in BUSY:
                await asyncio.sleep(task.pause(begun))
                journal.looks += 1
                response = await sdk.responses.retrieve(response.id)
            journal.ended[number] = clock()
        except Exception as exc:
            journal.troubles[type(exc).__name__] += 1

    await asyncio.gather(*(live(number) for number in range(task.jobs)))
    await sdk.close()


class Noted:
    """A service of which a journal is kept."""

    def __init__(self, remote: Remote, journal: Journal) -> None:
        self._remote = remote
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, and note when it was accepted."""
        news = await self._remote.create(job_id, request)
        self._journal.accepted[job_id] = clock()
        return news

    async def look(self, response_id: str) -> News:
        """Count a look."""
        self._journal.looks += 1
        return await self._remote.look(response_id)


class NotedClient(O3ProClient):
    """A client of such a service."""

    def __init__(self, config: O3ProConfig, journal: Journal) -> None:
        super().__init__(config)
        self._journal = journal

    async def connect(self) -> Any:
        """Answer the service."""
        return Noted(await super().connect(), self._journal)


async def ours(task: Task, journal: Journal, *, aiohttp: bool) -> None:
    """The library."""
    if not aiohttp:
        client._has_aiohttp = lambda: False
    config = O3ProConfig(endpoint=task.endpoint, api_key=task.key, deployment="o3-pro")
    async with AsyncBackgroundHandler(NotedClient(config, journal), language="en") as handler:
        for _ in range(task.jobs):
            begun = clock()
            await handler.submit(task.question)
            journal.submits.append(clock() - begun)
        async for job_id, reply in handler.as_completed():
            if reply["success"]:
                journal.ended[job_id] = clock()
            else:
                journal.troubles[reply.get("status", "unknown")] += 1


class Bare:
    """A bare client of HTTP: connections are kept, and as many requests under way as ours has."""

    def __init__(self, task: Task) -> None:
        self._place = urlsplit(task.endpoint)
        self._common = f"HTTP/1.1\r\nhost: {self._place.netloc}\r\napi-key: {task.key}\r\n"
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def create(self, body: str) -> dict[str, Any]:
        """Answer what the service says to a create."""
        more = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        return await self._ask(f"POST /openai/v1/responses {self._common}{more}\r\n{body}")

    async def look(self, response_id: str) -> dict[str, Any]:
        """Answer what the service says to a look."""
        return await self._ask(f"GET /openai/v1/responses/{response_id} {self._common}\r\n")

    async def _ask(self, request: str) -> dict[str, Any]:
        async with self._places:
            place = self._place
            reader, writer = (
                self._kept.pop() if self._kept else await asyncio.open_connection(place.hostname, place.port)
            )
            writer.write(request.encode())
            top = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(top.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer: dict[str, Any] = json.loads(await reader.readexactly(length))
            self._kept.append((reader, writer))
            return answer

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._kept:
            writer.close()


async def floor(task: Task, journal: Journal) -> None:
    """A bare client."""
    bare = Bare(task)

    async def live(number: int) -> None:
        begun = clock()
        answer = await bare.create(json.dumps(task.create(number)))
        journal.created(number, begun)
        while answer["status"] in BUSY:
            await asyncio.sleep(task.pause(begun))
            journal.looks += 1
            answer = await bare.look(answer["id"])
        journal.ended[number] = clock()

    await asyncio.gather(*(live(number) for number in range(task.jobs)))
    bare.close()


def on_a_loop(main: Callable[..., Coroutine[Any, Any, None]], **choices: Any) -> Callable[[Task, Journal], None]:
    """Answer what runs this competitor on a loop of its own, and notes how long that stands still."""
    return lambda task, journal: asyncio.run(beating(main(task, journal, **choices), journal))


COMPETITORS: dict[str, Callable[[Task, Journal], None]] = {
    "threads": in_threads,
    "pool": in_a_pool,
    "httpx2": on_a_loop(gathered, aiohttp=False),
    "aiohttp": on_a_loop(gathered, aiohttp=True),
    "aiohttp, 100 tries": on_a_loop(gathered, aiohttp=True, tries=100),
    "ours": on_a_loop(ours, aiohttp=True),
    "ours, httpx2": on_a_loop(ours, aiohttp=False),
    "floor": on_a_loop(floor),
}


def compete(name: str, task: Task) -> dict[str, Any]:
    """Be one competitor: some jobs to warm up, then all of them; answer what it took."""
    before = Journal()
    if task.warm_up:
        COMPETITORS[name](replace(task, jobs=task.warm_up, question=QUESTION + AT_ONCE), before)
    gc.collect()
    journal = Journal()
    with Watch(journal, task.jobs, task.seconds if task.waiting else None) as watch:
        forget_peak()
        spent, memory, begun = cpu(), resident(), clock()
        COMPETITORS[name](task, journal)
        figures = {"wall": clock() - begun, "cpu": cpu() - spent, "memory": peak() - memory}
    return figures | journal.figures(task.seconds) | watch.figures() | {"warm looks": before.looks}


def measured(emulator: Emulator, name: str, task: Task, patience: float) -> dict[str, Any] | None:
    """Answer what a competitor took in a process of its own, and what the service counted; None: it did not end."""
    emulator.reset()
    command = [sys.executable, __file__, name, json.dumps(asdict(task))]
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=patience).stdout  # noqa: S603
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    counters = emulator.counters()
    figures["creates"] = counters["creates"] - task.warm_up
    figures["looks"] = counters["looks"] - figures["warm looks"]
    figures["refused"] = counters["creates"] - counters["accepted"]
    figures["paid twice"] = sum(counters["duplicates"].values()) - len(counters["duplicates"])
    figures["failures"] = task.jobs - figures["answers"]
    requests = figures["creates"] + figures["looks"]
    figures["CPU a request"] = figures["cpu"] / requests if requests else NAN
    return figures


def ceiling(emulator: Emulator, requests: int = 20_000) -> float:
    """Answer how many creates a second the floor gets from the emulator where a job takes no time."""
    emulator.set_knobs("seconds=0 queued=0")
    task = Task(emulator.endpoint, emulator.api_key, requests, 0.0)
    begun = clock()
    asyncio.run(floor(task, Journal()))
    return requests / (clock() - begun)


if __name__ == "__main__":
    print(json.dumps(compete(sys.argv[1], Task(**json.loads(sys.argv[2])))))
