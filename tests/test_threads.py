"""Any number of threads on one handler: nothing is lost, torn or called twice, and nobody harms another."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler

from .crowd import Crowd
from .faces import FOREVER, QUICK, fake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from o3pro_bg import Job


@pytest.fixture
def _restless() -> Iterator[None]:
    """Threads are switched as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_hundred_threads_do_everything_at_once(store: str, tmp_path: Path) -> None:
    """
    Of a hundred threads that start, read, wait for, cancel and remove jobs, none sees half a job or loses one.

    All come at once to a handler that was never used, which starts one loop; every job is called back once.
    `benchmarks/threads.py` does the same for a minute.
    """
    settings: dict[str, Any] = {"store": tmp_path / "jobs.db", "on_close": "cancel"} if store == "file" else {}
    crowd = Crowd(100, 3.0, **settings)
    crowd.run()
    assert crowd.faults == []
    assert crowd.done["jobs"] > 100


def test_a_callback_that_blocks_harms_nobody() -> None:
    """While one callback blocks and another raises, other jobs run, are called back, and are read."""
    blocked, release, called = threading.Event(), threading.Event(), threading.Event()

    def block(_: Job) -> None:
        blocked.set()
        release.wait(20)

    with BackgroundHandler(fake(), pace=QUICK) as handler:
        try:
            handler.submit("q").add_done_callback(block)
            assert blocked.wait(5)
            job = handler.submit("another")
            job.add_done_callback(lambda _: 1 / 0)
            job.add_done_callback(lambda _: called.set())
            assert job.result(timeout=5).startswith("fake answer")
            assert called.wait(5)
        finally:
            release.set()


def test_closing_from_many_threads_while_others_start() -> None:
    """Closing from ten threads while a hundred start and wait ends them all, and each job is told what became of it."""
    handler = BackgroundHandler(fake(seconds=FOREVER), pace=QUICK)
    ready = threading.Barrier(110)
    told: list[str] = []

    def start() -> None:
        ready.wait(20)
        reply = handler.start_background_task("q")
        if reply["success"]:
            told.append(str(handler.wait(reply["job_id"])["status"]))
        else:
            told.append("refused")

    def close() -> None:
        ready.wait(20)
        handler.close()

    threads = [threading.Thread(target=act, daemon=True) for act in [start] * 100 + [close] * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(told) == 100
    assert {*told} <= {"cancelled", "refused"}
