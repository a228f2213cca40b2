"""Where a handler may find itself: under gevent, on uvloop, in pytest-asyncio, in one `asyncio.run` after another."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from .scripts import account_of, printed

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

PATIENCE = 60.0  # seconds after which a script is taken to hang

SETTINGS = """
import asyncio, gc, os, sys, threading, warnings
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, O3ProClient, O3ProConfig, Pace

client = O3ProClient(O3ProConfig())
settings = {"pace": Pace(floor=0.05, ceiling=0.05), "language": "en"}
if sys.argv[1:]:
    settings["store"] = sys.argv[1]

def held():
    "Answer what this process holds of what could leak."
    gc.collect()
    descriptors = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_open(fd)]
    files = sorted(name.partition(":")[0] for name in descriptors if "/dev/" not in name)
    return files, sorted(thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name)

def is_open(fd):
    return os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")
"""


def run(lines: str, emulator: Emulator, *args: object, first: str = "") -> list[str]:
    """Run these lines, warnings being errors, in an interpreter of its own, and answer the lines that it prints."""
    script = first + SETTINGS + textwrap.dedent(lines)
    return printed(script, *args, emulator=emulator, warnings="error::ResourceWarning")


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize("store", ["memory", "file"])
def test_gevent(o3pro_emulator: Emulator, tmp_path: Path, store: str) -> None:
    """In a process that gevent has patched, greenlets start, read, wait for and cancel jobs, side by side."""
    o3pro_emulator.set_knobs("seconds=0.3 queued=0")
    said = run(
        """
        called = []
        def use(number):
            job = handler.submit(f"question {number}")
            job.add_done_callback(lambda job: called.append(job.id))
            assert handler.check_status(job.id)["success"]
            if number == 0:
                return handler.cancel_job(job.id)["success"]
            return handler.wait(job.id, timeout=20)["success"]
        with BackgroundHandler(client, **settings) as handler:
            greenlets = [gevent.spawn(use, number) for number in range(20)]
            gevent.joinall(greenlets, timeout=30)
            print(*{greenlet.value for greenlet in greenlets})
        print(len(called))
        """,
        o3pro_emulator,
        *([tmp_path / "jobs.db"] if store == "file" else []),
        first="from gevent import monkey; monkey.patch_all()\nimport gevent\n",
    )
    assert said == ["True", "20"]
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["duplicates"]) in ((20, {}), (19, {}))


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
@pytest.mark.parametrize("store", ["memory", "file"])
def test_uvloop(o3pro_emulator: Emulator, tmp_path: Path, store: str) -> None:
    """On uvloop the asynchronous face works, and the synchronous one beside it, whose loop is another."""
    o3pro_emulator.set_knobs("seconds=0.2 queued=0")
    said = run(
        """
        async def main():
            async with AsyncBackgroundHandler(client, **settings) as handler:
                jobs = [await handler.submit(f"question {number}") for number in range(5)]
                answers = await asyncio.gather(*jobs)
                print(type(asyncio.get_running_loop()).__module__, len(answers))
                with BackgroundHandler(client, pace=settings["pace"]) as other:
                    print(await asyncio.to_thread(other.submit("in a thread").result) != "")
                    await asyncio.to_thread(other.close)
        uvloop.run(main())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        with BackgroundHandler(client, **settings) as handler:
            print(handler.submit("under its policy").result() != "")
        """,
        o3pro_emulator,
        *([tmp_path / "jobs.db"] if store == "file" else []),
        first="import uvloop\n",
    )
    assert said == ["uvloop 5", "True", "True"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("face", ["sync", "async", "async, forgotten"])
def test_nothing_is_left_behind(o3pro_emulator: Emulator, tmp_path: Path, face: str, store: str) -> None:
    """One handler after the other, or `asyncio.run` after `asyncio.run`: no thread, socket, file or task is left."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    said = run(
        f"""
        def sync():
            with BackgroundHandler(client, **settings) as handler:
                handler.submit("question").result()
        async def awaited():
            async with AsyncBackgroundHandler(client, **settings) as handler:
                await (await handler.submit("question"))
            print(*[task.get_name() for task in asyncio.all_tasks() - {{asyncio.current_task()}}], end="")
        async def forgotten():
            handler = AsyncBackgroundHandler(client, **settings)
            await (await handler.submit("question"))
        def once():
            if {face == "sync"}:
                sync()
            else:
                asyncio.run(awaited() if {face == "async"} else forgotten())
        def alone():
            for _ in range(100):  # the store of a loop that has ended lets go by itself, soon
                if held()[1] == ["MainThread"]:
                    break
                threading.Event().wait(0.05)
            return held()
        once()
        before = alone()
        for _ in range(4):
            once()
        print("nothing" if alone() == before else (before, held()))
        """,
        o3pro_emulator,
        *([tmp_path / "jobs.db"] if store == "file" else []),
    )
    assert said == ["nothing"]


PLUGIN_TESTS = """
import asyncio, gc, threading
import pytest
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, O3ProClient, O3ProConfig, Pace

settings = {"pace": Pace(floor=0.05, ceiling=0.05), "language": "en"}

@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    gc.collect()  # what was not closed warns now, and warnings are errors
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("o3pro_bg")]

@pytest.fixture
async def handler():
    async with AsyncBackgroundHandler(O3ProClient(O3ProConfig()), **settings) as handler:
        yield handler
    assert not [task for task in asyncio.all_tasks() if "o3pro_bg" in task.get_name()]

@pytest.mark.parametrize("number", range(4))
async def test_ends(handler, number):
    assert await (await handler.submit("question"))

async def test_leaves_a_job_under_way(handler):
    await handler.submit("question", metadata={"emulator": "seconds=60"})

async def test_forgets_its_handler():
    handler = AsyncBackgroundHandler(O3ProClient(O3ProConfig()), **settings)
    job = await handler.submit("question", metadata={"emulator": "seconds=60"})
    while not job.response_id:
        await asyncio.sleep(0.01)

async def test_awaits_in_a_task_that_is_cancelled(handler):
    job = await handler.submit("question")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await job
    assert await job

def test_is_synchronous():
    with BackgroundHandler(O3ProClient(O3ProConfig()), **settings) as handler:
        assert handler.submit("question").result()
"""


def test_pytest_asyncio(o3pro_emulator: Emulator, tmp_path: Path) -> None:
    """With a loop for each test, and warnings as errors, nothing is left of any test, forgotten handlers included."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    (tmp_path / "test_of_mine.py").write_text(PLUGIN_TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, **account_of(o3pro_emulator), "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "8 passed" in done.stdout
