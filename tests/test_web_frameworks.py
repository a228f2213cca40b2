"""The jobs in each framework: the same mount, the same answers, and the host's own things beside them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx2
import pytest

import o3pro_bg.web
from o3pro_bg.testing import FakeClient, FakeRemote

from . import hosts
from .peers import until
from .servers import Client, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from o3pro_bg.emulator import Emulator

    from .servers import Server

FRAMEWORKS = ["starlette", "fastapi", "litestar", "quart"]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def site(
    request: pytest.FixtureRequest, service: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """An application of each framework, served by uvicorn; it ends well and has nothing to complain of."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    command = ["uvicorn", "--factory", f"tests.hosts:{request.param}", "--port=PORT", "--no-access-log"]
    with serving(command, service, tmp_path_factory.mktemp("site")) as server:
        yield server
        server.terminate()
        assert server.ended() == -signal.SIGTERM


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    """Whoever asks there."""
    with site.client() as client:
        yield client


@pytest.mark.parametrize(
    ("path", "place", "status"),
    [
        ("/jobs", "/jobs/", 200),
        ("/jobs/", "/jobs/", 200),
        ("/jobs/healthz", "/jobs/healthz", 200),
        ("/jobs/healthz/", "/jobs/healthz", 200),
        ("/jobs/api/jobs", "/jobs/api/jobs", 200),
        ("/jobs/api/jobs/", "/jobs/api/jobs", 200),
        ("/jobs/openapi.json", "/jobs/openapi.json", 200),
        ("/jobs/nothing", "/jobs/nothing", 404),
        ("/told", "/told", 200),
        ("/nothing", "/nothing", 404),
    ],
)
def test_everything_is_where_it_is_mounted(client: Client, path: str, place: str, status: int) -> None:
    """The page and the API are below the mount, with a slash at the end or without; the host has its own routes."""
    found, answer = client.follow(path)
    assert (found, answer.status) == (place, status)
    assert ("x-content-type-options" in answer.headers) is path.startswith("/jobs"), "whose answer is it?"


def test_a_job_lives_on_the_servers_loop(client: Client, site: Server) -> None:
    """A job that is started over HTTP is heard of, and told; an endpoint of the host has the handler it lives in."""
    before = client.ask("GET", "/told").json
    stream = site.client().events(client.ask("GET", "/jobs/api/jobs").json["last_event_id"])
    started = client.ask("POST", "/jobs/api/jobs", {"question": "Why?"})
    place = urljoin("/jobs/api/jobs", started.headers["location"])
    assert client.ask("GET", place).json["question"] == "Why?"
    until(lambda: stream.has(f'"job_id":"{started.json["job_id"]}","status":"completed"'))
    assert client.ask("GET", f"{place}/result").json["response"].startswith("[emulator]")
    told = client.ask("GET", "/told").json
    assert told == {**before, "jobs": before["jobs"] + 1, "own": True}, "the host's own lifespan is open as well"


def test_a_lifespan_of_another_name_is_missed(client: Client) -> None:
    """A mount whose lifespan is missing answers 503 with what mends it, and names it."""
    answer = client.ask("GET", "/elsewhere/api/jobs")
    assert answer.status == 503
    assert "lifespan=o3pro_bg.web.lifespan(" in answer.json["error"]
    assert "elsewhere" in answer.json["error"]


@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_a_host_without_lifespan_says_so(name: str) -> None:
    """Where nobody gave the host our lifespan, all that is mounted answers 503 with what mends it."""
    transport = httpx2.ASGITransport(getattr(hosts, name)(is_open=False))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in ("/jobs/", "/jobs/api/jobs", "/jobs/api/events", "/jobs/healthz"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "lifespan=o3pro_bg.web.lifespan(" in answer.json()["error"]


async def test_handler_is_that_of_the_loop() -> None:
    """`handler()` is what the lifespan of this name provides, as long as it is open, and else says what is missing."""
    with pytest.raises(LookupError, match="give it lifespan="):
        o3pro_bg.web.handler()
    async with o3pro_bg.web.lifespan(FakeClient(FakeRemote()), name="mine")(None) as state:
        assert o3pro_bg.web.handler("mine") is state["mine"]
        with pytest.raises(LookupError, match="its name here: o3pro_bg"):
            o3pro_bg.web.handler()
        with pytest.raises(LookupError, match="async def"):
            await asyncio.to_thread(o3pro_bg.web.handler, "mine")
    with pytest.raises(LookupError):
        o3pro_bg.web.handler("mine")
