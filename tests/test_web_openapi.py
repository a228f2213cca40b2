"""What is promised of the OpenAPI document: the API does what it says, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from o3pro_bg.testing import FakeClient, FakeRemote
from o3pro_bg.web import _feed, app, lifespan
from tests.virtual import virtual
from tests.web import site

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextmanager
def served() -> Iterator[str]:
    """Serve jobs that last a second on a thread, and answer where."""
    jobs = lifespan(FakeClient(FakeRemote(seconds=1, queued=0)), language="en")
    host = Starlette(lifespan=jobs, routes=[Mount("/jobs", app(max_jobs=100_000))])
    server = uvicorn.Server(uvicorn.Config(host, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/jobs"
    finally:
        server.should_exit = True
        thread.join()


def test_a_fuzzer_finds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A fuzzer that knows the document finds no request which is not answered as the document says."""
    monkeypatch.setattr(_feed, "SHORT_LIFE", 0.02)  # it reads every stream to its end
    with served() as base:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{base}/openapi.json", "--url", base]
        how = ["--max-examples", "20", "--seed", "1", "--request-timeout", "30", "--generation-database", "none"]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*command, *how, "--no-color"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Selected: 8/8" in done.stdout
    assert re.search(r"\b(\d{3,}) generated, \1 passed", done.stdout), done.stdout


@virtual
async def test_every_operation_is_described() -> None:
    """Every address that the API answers is in the document, with its methods, and the document has no other."""
    async with site() as page:
        described = {
            (path, method.upper())
            for path, item in (await page.get("/openapi.json"))["paths"].items()
            for method in item.keys() - {"parameters"}
        }
        routes = [route for route in vars(page.app)["_app"].routes if route.path.startswith(("/api", "/healthz"))]
        answered = {(route.path, method) for route in routes for method in route.methods - {"HEAD"}}
        assert described == answered


@virtual
async def test_every_reference_leads_somewhere() -> None:
    """Every $ref of the document names a schema that is there, and every schema is used."""
    async with site() as page:
        document = await page.get("/openapi.json")
        named = {*re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))}
        assert named == {*document["components"]["schemas"]}


@virtual
async def test_the_bounds_are_in_the_document() -> None:
    """The document tells the bounds that are set, and the efforts that the deployment takes."""
    async with site(max_question=77) as page:
        question = (await page.get("/openapi.json"))["components"]["schemas"]["Question"]["properties"]
        assert question["question"]["maxLength"] == 77
        assert question["effort"]["enum"] == [*page.desk.efforts]
