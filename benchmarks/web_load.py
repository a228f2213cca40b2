"""
What a web server bears: open event streams, while jobs come and go.

    python benchmarks/web_load.py           # 500 streams, 1,000 jobs of 10 seconds, three rounds; --quick: one, of 100

One worker of uvicorn in a process of its own; the service is in memory there. Whoever listens opens all streams from
another process over real sockets, starts the jobs over the HTTP API, and reads every stream until it has told the end
of every job. The peer is a bare Starlette application which sends every listener as many bytes in as many pieces, and
knows no jobs: what Starlette, uvicorn and the sockets cost by themselves. Figures are medians.

What is measured: the processor's time of the server for all of it, the memory of an open stream, how long after a job's
end a listener hears of it (ours looks four times a second), and how long a list of 100 jobs takes meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import httpx2
from measures import Goal, clock, cpu, head, medians, quantile, resident, row, show, tell

SECONDS = 10.0  # that a job takes
_PARSED = 20  # streams whose events are read as JSON
_TICK = 0.25
TIMES = ("delay p50", "delay p99", "list p50", "list p99")
_POSTS = 16  # jobs that are started at a time


# --- the server ---------------------------------------------------------------------------------------------------


def serve(kind: str) -> None:
    """Serve on a free port, and say which."""
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route

    async def figures(_: Any) -> JSONResponse:
        return JSONResponse({"cpu": cpu(), "resident": resident()})

    if kind == "ours":
        from o3pro_bg.testing import FakeClient, FakeRemote
        from o3pro_bg.web import app, lifespan

        jobs = lifespan(FakeClient(FakeRemote(seconds=SECONDS, queued=0, latency=0.05)), language="en")
        host = Starlette(lifespan=jobs, routes=[Route("/figures", figures), Mount("/", app(max_jobs=100_000))])
    else:
        host = Starlette(routes=[Route("/figures", figures), Route("/api/events", Bare().events)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(host, log_level="error", backlog=1024))
    server.run(sockets=[listener])


class Bare:
    """Sends every listener the pieces that it was given by the environment of the measurement."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.bell = asyncio.Event()
        self.playing: asyncio.Task[None] | None = None

    async def events(self, request: Any) -> Any:
        """Answer the stream; who asks with `play` starts it, with the sizes of the pieces."""
        from starlette.responses import Response, StreamingResponse

        if (sizes := request.query_params.get("play")) is not None:
            self.playing = asyncio.create_task(self.play([int(size) for size in sizes.split(",")]))
            return Response()
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def play(self, sizes: list[int]) -> None:
        """Send a piece of each of these sizes, four a second."""
        for size in [*sizes, 0]:
            self.pieces.append(b"x" * size or b"end\n\n")
            bell, self.bell = self.bell, asyncio.Event()
            bell.set()
            await asyncio.sleep(_TICK)

    async def stream(self) -> Any:
        """Answer the pieces, one by one, from the first on."""
        yield b"retry: 1000\n\n"
        sent = 0
        while not (self.pieces and self.pieces[-1] == b"end\n\n" and sent == len(self.pieces)):
            if sent == len(self.pieces):
                await self.bell.wait()
            for piece in self.pieces[sent:]:
                sent += 1
                yield piece


# --- who listens --------------------------------------------------------------------------------------------------


class Listener:
    """Reads one stream, and notes how late it hears of a job's end."""

    def __init__(self, *, is_parsed: bool) -> None:
        self.pieces: list[int] = []
        self.delays: list[float] = []
        self.ended = 0
        self._is_parsed = is_parsed
        self._rest = b""

    async def open(self, port: int) -> None:
        """Open the stream, and wait for its first line."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await self.reader.readuntil(b"retry: 1000\n\n")

    async def listen(self, jobs: int) -> None:
        """Read until so many jobs have ended, or, of a peer's, to the end."""
        while self.ended < jobs and (data := await self.reader.read(1 << 20)):
            now = time.time()
            self.pieces.append(len(data))
            if b"end\n\n" in data:
                return
            whole, self._rest = self._rest + data, b""
            events = whole.split(b"\n\n")
            self._rest = events.pop()
            for event in events:
                if b'"status":"completed"' in event:
                    self.ended += 1
                    if self._is_parsed:
                        job = json.loads(event.partition(b"data: ")[2].partition(b"\r\n")[0])
                        self.delays.append(now - job["details"]["created_at"] - job["elapsed_time"])


async def measure(port: int, kind: str, streams: int, jobs: int, sizes: list[int]) -> dict[str, Any]:
    """Have all streams open, and all jobs told; answer what it took."""
    limits = httpx2.Limits(max_connections=_POSTS + 2)
    async with httpx2.AsyncClient(base_url=f"http://localhost:{port}", timeout=60, limits=limits) as http:
        if kind == "ours":
            await http.get("/api/jobs")
        before = (await http.get("/figures")).json()
        listeners = [Listener(is_parsed=number < _PARSED) for number in range(streams)]
        for first in range(0, streams, 50):
            await asyncio.gather(*(listener.open(port) for listener in listeners[first : first + 50]))
        opened = (await http.get("/figures")).json()
        listening = asyncio.gather(*(listener.listen(jobs) for listener in listeners))
        begun, lists = clock(), list[float]()
        if kind == "ours":
            listing = asyncio.create_task(list_often(http, lists))
            await start(http, jobs)
            await listening
            listing.cancel()
        else:
            await http.get("/api/events", params={"play": ",".join(map(str, sizes))})
            await listening
        wall, after = clock() - begun, (await http.get("/figures")).json()
        for listener in listeners:
            listener.writer.close()
    delays = [delay for listener in listeners for delay in listener.delays]
    return {
        "wall": wall,
        "cpu": after["cpu"] - opened["cpu"],
        "memory": (opened["resident"] - before["resident"]) / streams,
        "delay p50": quantile(delays, 0.5),
        "delay p99": quantile(delays, 0.99),
        "list p50": quantile(lists, 0.5),
        "list p99": quantile(lists, 0.99),
        "sizes": listeners[0].pieces,
    }


async def start(http: httpx2.AsyncClient, jobs: int) -> None:
    """Start so many jobs."""
    numbers = iter(range(jobs))

    async def some() -> None:
        for number in numbers:
            answer = await http.post("/api/jobs", json={"question": f"Question {number}? " * 5})
            answer.raise_for_status()

    await asyncio.gather(*(some() for _ in range(_POSTS)))


async def list_often(http: httpx2.AsyncClient, lists: list[float]) -> None:
    """List 100 jobs several times a second, and note how long it takes."""
    while True:
        begun = clock()
        await http.get("/api/jobs", params={"limit": 100, "details": "true"})
        lists.append(clock() - begun)
        await asyncio.sleep(0.2)


def served(kind: str, streams: int, jobs: int, sizes: list[int]) -> dict[str, Any]:
    """Measure a server in a process of its own."""
    command = [sys.executable, __file__, "--serve", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            port = int(process.stdout.readline())  # type: ignore[union-attr]
            return asyncio.run(measure(port, kind, streams, jobs, sizes))
        finally:
            process.terminate()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of 100 streams and jobs")
    parser.add_argument("--goals", help="a file to tell the goals to")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    streams, jobs = (100, 100) if options.quick else (options.streams, options.jobs)
    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    for _ in range(1 if options.quick else options.rounds):
        rounds["ours"].append(served("ours", streams, jobs, []))
        rounds["bare"].append(served("bare", streams, jobs, rounds["ours"][-1]["sizes"]))
    head("server", "wall", "CPU", "memory a stream", "told after p50", "p99", "list of 100, p50", "p99")
    found = {kind: medians(each) for kind, each in rounds.items()}
    for kind, figures in found.items():
        times = [show(figures[name], ".0f", "ms", per=1e-3) for name in TIMES]
        memory = show(figures["memory"], ".1f", "kB", per=1024)
        row(kind, show(figures["wall"], ".1f", "s"), show(figures["cpu"], ".1f", "s"), memory, *times)
    ratio = found["ours"]["cpu"] / found["bare"]["cpu"]
    tell(
        [
            Goal(f"{streams} streams, {jobs} jobs, CPU of the server", "bare Starlette", 3, ratio),
            Goal("how late a listener hears of a job's end, p99", "", 1, found["ours"]["delay p99"], "s"),
        ],
        options.goals,
    )


if __name__ == "__main__":
    main()
