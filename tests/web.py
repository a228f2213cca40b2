"""What the tests of the web parts share: a mounted application without a server, and streams of events."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from o3pro_bg.testing import FakeClient, FakeRemote
from o3pro_bg.web import app, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from o3pro_bg._remote import Client
    from o3pro_bg.web._desk import Desk

NEAR = ("127.0.0.1", 50_000)
TOKEN = "a token of sixteen"


class Site:
    """
    An application without a server, and whoever visits it.

    Attributes:
        app: The application.
        http: A visitor on this machine.
    """

    def __init__(self, application: ASGIApp, http: httpx2.AsyncClient) -> None:
        self.app = application
        self.http = http

    @property
    def desk(self) -> Desk:
        """The desk of the application's handler."""
        from o3pro_bg.web._lifespan import NAME, desk_of

        desk = desk_of(NAME)
        assert desk is not None
        return desk

    async def start(self, question: str = "Why?", **fields: Any) -> str:
        """Start a job, and answer its id."""
        answer = await self.http.post("/api/jobs", json={"question": question, **fields})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def get(self, path: str, code: int = 200, **parameters: Any) -> Any:
        """Ask for something, which is answered with this code."""
        answer = await self.http.get(path, params=parameters or None)
        assert answer.status_code == code, answer.text
        return answer.json()


@asynccontextmanager
async def site(
    remote: FakeRemote | None = None,
    *,
    client: Client | None = None,
    peer: tuple[str, int] = NEAR,
    host: str = "localhost",
    settings: Any = None,
    **arguments: Any,
) -> AsyncIterator[Site]:
    """Run an application with a handler of its own, and answer it with a visitor from there."""
    async with lifespan(client or FakeClient(remote), **{"language": "en", **(settings or {})})(None):
        application = app(**arguments)
        transport = httpx2.ASGITransport(application, client=peer)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            page = Site(application, http)
            page.desk.leaving.is_certain = True  # as in a server
            yield page


class Events:
    """
    One who listens to the events of an application.

    Attributes:
        last_id: The id of the last event that came.
        text: All that came.
    """

    def __init__(self, application: ASGIApp, query: str = "", headers: dict[str, str] | None = None) -> None:
        self.last_id = ""
        self.text = ""
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._left = asyncio.Event()
        pairs = {"host": "localhost", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "GET",
            "path": "/api/events",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
            "client": NEAR,
            "server": ("127.0.0.1", 80),
            "scheme": "http",
        }
        self._task = asyncio.ensure_future(self._run(application, scope))

    async def _run(self, application: ASGIApp, scope: Any) -> None:
        has_asked = False

        async def receive() -> dict[str, Any]:
            nonlocal has_asked
            if has_asked:
                await self._left.wait()
                return {"type": "http.disconnect"}
            has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200, message
            else:
                self._pieces.put_nowait(message["body"])

        try:
            await application(scope, receive, send)
        finally:
            self._pieces.put_nowait(None)

    async def piece(self) -> str | None:
        """Answer what is sent next, or None where the stream has ended."""
        while (piece := await self._pieces.get()) == b"":
            pass
        if piece is not None:
            self.text += piece.decode()
        return None if piece is None else piece.decode()

    async def next(self) -> list[tuple[str, Any]]:
        """Answer the kinds and the data of the events that are sent next; of none where the stream has ended."""
        while (piece := await self.piece()) is not None:
            if events := self._read(piece):
                return events
        return []

    def _read(self, piece: str) -> list[tuple[str, Any]]:
        events = []
        for part in piece.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
            if "event" in fields:
                self.last_id = fields["id"]
                events.append((fields["event"], json.loads(fields["data"])))
        return events

    async def leave(self) -> None:
        """Go away, and wait until the application has noticed."""
        self._left.set()
        await self._task
