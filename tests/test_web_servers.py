"""
A server that is told to end: what is in flight is answered, streams end well, jobs go on, and the next one has them.

Each is run in processes of its own, under load. How soon they end, `benchmarks/web_shutdown.py` measures.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest

from .peers import until
from .servers import serving

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

    from .servers import Client, Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

UVICORN = ["uvicorn", "--factory", "tests.hosts:starlette", "--port=PORT", "--no-access-log", "--timeout-keep-alive=60"]
GUNICORN = ["gunicorn", "--worker-class=uvicorn_worker.UvicornWorker", "tests.hosts:starlette()", "--keep-alive=60"]
GRANIAN = ["granian", "--interface=asgi", "--factory", "tests.hosts:starlette", "--port=PORT"]
HYPERCORN = ["hypercorn", "tests.hosts:starlette()", "--bind=127.0.0.1:PORT", "--keep-alive=60"]
TERMINATED = -signal.SIGTERM  # uvicorn ends by the signal that it was told to end by
SERVERS = {
    "uvicorn": (UVICORN, TERMINATED),
    "uvicorn on asyncio": ([*UVICORN, "--loop=asyncio", "--http=h11"], TERMINATED),
    "uvicorn, 2 workers": ([*UVICORN, "--workers=2"], 0),
    "gunicorn": ([*GUNICORN, "--bind=127.0.0.1:PORT"], 0),
    "granian": (GRANIAN, 0),
    "hypercorn": (HYPERCORN, 0),
    "hypercorn, no workers": ([*HYPERCORN, "--workers=0"], 0),
}
WORKERS = {
    "uvicorn": [*UVICORN, "--workers=2"],
    "gunicorn": [*GUNICORN, "--bind=127.0.0.1:PORT", "--workers=2"],
    "granian": [*GRANIAN, "--workers=2"],
    "hypercorn": [*HYPERCORN, "--workers=2"],
}

LASTS = "[emulator outcome=never]"
ENDS = "[emulator seconds=4 queued=0]"
HANGS = "[emulator outcome=never fault=hang on=cancel]"


@pytest.fixture
def emulator(service: Emulator) -> Emulator:
    """The emulator with counters at zero, whose jobs run at once."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    return service


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """The environment of servers that share a file of jobs."""
    return {"O3PRO_BG_TEST_STORE": str(tmp_path / "jobs.db")}


def started(client: Client, *questions: str) -> list[str]:
    """Start jobs, and answer their ids once they run at the service."""
    ids = [client.start(question) for question in questions]
    until(lambda: all(client.status(job_id) != "started" for job_id in ids))
    return ids


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_ends_well_and_the_next_goes_on(
    emulator: Emulator, tmp_path: Path, store: dict[str, str], name: str
) -> None:
    """
    SIGTERM: a request in flight is answered, a stream ends where an event does, and the process ends, saying nothing.

    No job is cancelled or asked twice: the next process on the store has them all, and tells how they end.
    """
    command, code = SERVERS[name]
    with serving(command, emulator, tmp_path, **store) as server:
        with server.client() as client:
            lasting, ending, hanging = started(client, LASTS, ENDS, HANGS)
        stream = server.client().events()
        cancel = server.client().slowly("POST", f"/jobs/api/jobs/{hanging}/cancel")
        until(lambda: emulator.counters()["cancels"] == 1)
        server.terminate()
        assert "not confirmed" in cancel.ended()
        assert cancel.status == 409
        assert stream.ended().endswith("\n\n")
        assert server.ended() == code
    counters = emulator.counters()
    assert (counters["creates"], counters["cancels"]) == (3, 1)
    until(lambda: emulator.counters()["open_connections"] == 0)
    with serving(command, emulator, tmp_path, **store) as server:
        with server.client() as client:
            assert client.status(lasting) == "running"
            until(lambda: client.status(ending) == "completed")
            assert client.ask("GET", f"/jobs/api/jobs/{ending}/result").json["response"].startswith("[emulator]")
            assert client.ask("POST", f"/jobs/api/jobs/{lasting}/cancel").status == 200
        server.terminate()
        assert server.ended() == code
    counters = emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["duplicates"]) == (3, 3, {})


def test_a_reload_is_an_end_and_a_start(emulator: Emulator, tmp_path: Path, store: dict[str, str]) -> None:
    """After `uvicorn --reload` a stream has ended where an event does, and the jobs are there again."""
    site = tmp_path / "site_that_changes.py"
    site.write_text("from tests.hosts import starlette\napp = starlette()\n")
    command = ["uvicorn", "site_that_changes:app", "--port=PORT", "--reload", f"--reload-dir={tmp_path}"]
    with serving(command, emulator, tmp_path, **store) as server:
        with server.client() as client:
            before = client.pid()
            lasting, ending = started(client, LASTS, ENDS)
        stream = server.client().events()
        site.write_text(site.read_text() + "# changed\n")
        assert stream.ended().endswith("\n\n")
        until(server.is_there)
        with server.client() as client:
            assert client.pid() != before
            assert client.status(lasting) == "running"
            until(lambda: client.status(ending) == "completed")
        server.terminate()
        assert server.ended() == 0
    counters = emulator.counters()
    assert (counters["creates"], counters["cancels"], counters["duplicates"]) == (2, 0, {})


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn"])
def test_a_worker_that_has_served_enough_ends(
    emulator: Emulator, tmp_path: Path, store: dict[str, str], name: str
) -> None:
    """A worker that ends by itself after so many requests, which no signal tells, ends its streams as well."""
    command = {
        "uvicorn": [*UVICORN, "--limit-max-requests=100"],
        "gunicorn": [*GUNICORN, "--bind=127.0.0.1:PORT", "--max-requests=100"],
    }[name]
    with serving(command, emulator, tmp_path, **store) as server:
        with server.client() as client:
            lasting = client.start(LASTS)
            until(lambda: emulator.counters()["accepted"] == 1)
            stream = server.client().events()
            with suppress(OSError, HTTPException):
                for _ in range(100):
                    client.status(lasting)
        assert stream.ended().endswith("\n\n")
        if name == "gunicorn":
            until(server.is_there)  # another worker
            server.terminate()
        assert server.ended() == 0
    counters = emulator.counters()
    assert (counters["creates"], counters["cancels"]) == (1, 0)


def two_workers(server: Server) -> tuple[Client, Client, Client]:
    """Answer a connection to one worker, and two to another."""
    clients: dict[int, list[Client]] = {}

    def are_met() -> bool:
        client = server.client()
        clients.setdefault(client.pid(), []).append(client)
        return len(clients) > 1 and max(map(len, clients.values())) > 1

    until(are_met)
    few, many = sorted(clients.values(), key=len)
    for client in (*few[1:], *many[2:]):
        client.close()
    return few[0], many[0], many[1]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_answer_for_each_other(emulator: Emulator, tmp_path: Path, store: dict[str, str], name: str) -> None:
    """A job of one worker is told of, heard of and cancelled through another, and every question is asked once."""
    with serving(WORKERS[name], emulator, tmp_path, **store) as server:
        one, other, listening = two_workers(server)
        with one, other:
            stream = listening.events()
            [lasting] = started(one, LASTS)
            until(lambda: other.status(lasting) == "running")
            assert other.ask("POST", f"/jobs/api/jobs/{lasting}/cancel").status == 200
            until(lambda: one.status(lasting) == "cancelled")
            until(lambda: stream.has(f'"job_id":"{lasting}","status":"cancelled"'))
            [quick] = started(one, "Why?")
            until(lambda: stream.has(f'"job_id":"{quick}","status":"completed"'))
            assert other.ask("GET", f"/jobs/api/jobs/{quick}/result").json["response"].startswith("[emulator]")
            assert [client.ask("GET", "/told").json["jobs"] for client in (one, other)] == [2, 2]
        server.terminate()
        assert stream.ended().endswith("\n\n")
        server.ended()
    counters = emulator.counters()
    assert (counters["creates"], counters["cancels"], counters["duplicates"]) == (2, 1, {})
