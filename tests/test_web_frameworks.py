"""The jobs in each framework: the same mount, the same answers, and the host's own things beside them."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx2
import pytest

import o3pro_bg.web
from o3pro_bg.testing import FakeClient, FakeRemote

from . import hosts
from .peers import until
from .scripts import printed
from .servers import Client, serving
from .test_readme import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    command += ["--timeout-keep-alive=60"]  # a client is kept for a whole test, however busy the machine is
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


DJANGO = """
import logging
import os
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

logging.basicConfig(level=logging.ERROR)  # so that whatever a view raises is seen
settings.configure(ROOT_URLCONF="site_of_it", SECRET_KEY="x", ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
django.setup()
import views  # README's

urlpatterns = [
    path("jobs", views.start),
    path("jobs/<str:job_id>", views.result),
    path("pid", lambda request: HttpResponse(str(os.getpid()))),
]

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()

def application(environ, start_response):
    def tell(status, headers, *rest):
        return start_response(status, [*headers, ("X-Pid", str(os.getpid()))], *rest)
    return django_application(environ, tell)
"""


@pytest.fixture
def shop(service: Emulator, tmp_path: Path) -> Path:
    """A directory with a site of Django, whose views are README's."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    [views] = [block for block in blocks("python") if "django" in block]
    (tmp_path / "views.py").write_text(views, encoding="utf-8")
    (tmp_path / "site_of_it.py").write_text(DJANGO, encoding="utf-8")
    return tmp_path


def test_django_views(shop: Path, service: Emulator) -> None:
    """Views of Django start a job and tell of it, refuse what is no question, and know no other jobs."""
    script = f"""
import os, sys, time
os.chdir({str(shop)!r})
sys.path.insert(0, "")
import site_of_it
from django.test import Client
client = Client()
job = client.post("/jobs", {{"question": "Why?"}})
print(job.status_code, client.post("/jobs", {{"question": " "}}).status_code, client.get("/jobs/nope").status_code)
while not (answer := client.get(f"/jobs/{{job.json()['job_id']}}").json())["success"]:
    time.sleep(0.01)
print(answer["response"].startswith("[emulator]"))
site_of_it.views.handler.close()
"""
    assert printed(script, emulator=service, warnings="error") == ["202 400 404", "True"]


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_django_workers_share_a_store(shop: Path, service: Emulator) -> None:
    """A handler that gunicorn's parent has made begins anew in each worker: each answers for the jobs of all."""
    command = ["gunicorn", "--preload", "--workers=2", "--bind=127.0.0.1:PORT", "site_of_it:application"]
    jobs: dict[str, str] = {}
    told: dict[str, set[str]] = {}
    with serving(command, service, shop, ready="/pid") as server:

        def have_both_started() -> bool:
            answer = server.ask("POST", "/jobs", "question=Why%3F")
            assert answer.status == 202, (answer, server.said())
            jobs[answer.json["job_id"]] = answer.headers["x-pid"]
            return len({*jobs.values()}) == 2

        def have_both_told() -> bool:
            for job_id in jobs:
                answer = server.ask("GET", f"/jobs/{job_id}")
                assert answer.status == 200, (answer, server.said())
                if answer.json["success"]:
                    told.setdefault(job_id, set()).add(answer.headers["x-pid"])
            return all(len(told.get(job_id, ())) == 2 for job_id in jobs)

        until(have_both_started)
        until(have_both_told)
        lasting = "question=%5Bemulator+outcome%3Dnever%5D"
        server.ask("POST", "/jobs", lasting)
        until(lambda: service.counters()["accepted"] == len(jobs) + 1)
        server.terminate()
        assert server.ended() == 0
    counters = service.counters()
    assert (counters["creates"], counters["cancels"], counters["duplicates"]) == (len(jobs) + 1, 0, {})
