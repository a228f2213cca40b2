"""What is done where a server does not say by a signal that it is about to end."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, ClassVar

from o3pro_bg.testing import FakeRemote
from o3pro_bg.web._feed import SHORT_LIFE
from o3pro_bg.web._leaving import Leaving

from .virtual import virtual
from .web import Events, site

if TYPE_CHECKING:
    import pytest


@virtual
async def test_a_cancel_waits_for_a_moment_only_where_no_end_is_heard_of() -> None:
    """A server that could be ending unheard waits no longer for a cancel than for a stream; the cancel goes on."""
    async with site(FakeRemote(seconds=float("inf"), latency=5)) as page:
        page.desk.leaving.is_certain = False
        job_id = await page.start()
        await asyncio.sleep(10)
        begun = asyncio.get_running_loop().time()
        answer = await page.http.post(f"/api/jobs/{job_id}/cancel")
        assert asyncio.get_running_loop().time() - begun == SHORT_LIFE
        assert (answer.status_code, answer.json()["success"]) == (409, False)
        assert (await page.desk.handler.wait(job_id))["status"] == "cancelled"


@virtual
async def test_what_a_hypercorn_worker_waits_for_is_heard() -> None:
    """A worker of Hypercorn gets no signal: the end of the task that waits for its parent's word is heard instead."""
    word = asyncio.Event()

    async def raise_shutdown() -> None:
        await word.wait()

    async with site() as page:
        page.desk.leaving.is_certain = False
        waiting = asyncio.create_task(raise_shutdown())  # once the application has started, as there
        events = Events(page.app)
        assert await events.piece() == "retry: 1000\n\n"
        assert page.desk.leaving.is_certain
        word.set()
        assert await events.piece() is None
        assert waiting.done()


async def test_an_end_that_no_signal_tells_is_seen_by_each_lifespan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that listens no more is seen to end by whoever took its signals' handler, or took that of another."""

    class Listening:
        is_open = True

        def is_serving(self) -> bool:
            return self.is_open

    class Server:
        servers: ClassVar[list[Listening]] = []

        def handle_exit(self, *_: object) -> None:
            raise AssertionError("there is no signal")

    handlers: dict[int, Any] = {signal.SIGTERM: Server().handle_exit}
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    one, other = Leaving(), Leaving()
    for leaving in (one, other):
        leaving.listen()
        leaving.serve()
        leaving.look()
    assert not one.heard.is_set(), "it does not listen yet"
    Server.servers.append(Listening())
    other.look()
    assert not other.heard.is_set()
    Listening.is_open = False
    for leaving in (one, other):
        leaving.look()
        assert leaving.heard.is_set()
