"""
However a process ends: soon, even if the service hangs; quietly; and with the jobs closed as the rule says.

A process that waited for the service would wait for thirty seconds at least, and is taken to hang before. How soon the
others end, `benchmarks/exits.py` measures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, SqliteStore

from .faces import QUICK
from .peers import until
from .scripts import account_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

_HANGS = 20.0  # seconds after which a process is taken to hang

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

SYNC = """
import os, signal, sys, threading, time
from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore

store = {"store": SqliteStore(sys.argv[1], lease=0.5)} if sys.argv[1:] else {}
handler = BackgroundHandler(O3ProClient(O3ProConfig()), pace=Pace(floor=0.05, ceiling=0.05), language="en", **store)
job = handler.submit("question")
while job.status() != "running":
    time.sleep(0.01)
print("running", flush=True)
sys.stdin.readline()
ENDING
"""
ASYNC = """
import asyncio, os, signal, sys
from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig, Pace, SqliteStore

async def main():
    store = {"store": SqliteStore(sys.argv[1], lease=0.5)} if sys.argv[1:] else {}
    pace = Pace(floor=0.05, ceiling=0.05)
    handler = AsyncBackgroundHandler(O3ProClient(O3ProConfig()), pace=pace, language="en", **store)
    job = await handler.submit("question")
    while job.status() != "running":
        await asyncio.sleep(0.01)
    print("running", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ENDING

asyncio.run(main())
"""
SUBMITTING = "print('ending', flush=True)\nwhile True: handler.submit('another')"


class Ending(NamedTuple):
    """How a script ends: what it does, its code, what it is sent, and which errors of its own it prints."""

    lines: str
    code: int
    signal: int = 0
    errors: tuple[str, ...] = ()


HEADING = "Traceback (most recent call last):"
MINE = (HEADING, "ValueError: mine")
INTERRUPTED = (HEADING, "KeyboardInterrupt")
# asyncio raises KeyboardInterrupt where the cancelled wait was: two tracebacks of one error.
CANCELLED = (
    HEADING,
    "asyncio.exceptions.CancelledError",
    "During handling of the above exception, another exception occurred:",
    *INTERRUPTED,
)

ENDINGS = {
    "the end of the script": Ending("", 0),
    "sys.exit": Ending("sys.exit(3)", 3),
    "an exception": Ending("raise ValueError('mine')", 1, errors=MINE),
    "Ctrl-C during a wait": Ending("job.wait()", -signal.SIGINT, signal.SIGINT, INTERRUPTED),
    "Ctrl-C during submits": Ending(SUBMITTING, -signal.SIGINT, signal.SIGINT, INTERRUPTED),
    "sys.exit in a with": Ending("with handler:\n    sys.exit(3)", 3),
    "Ctrl-C in a with": Ending("with handler:\n    job.wait()", -signal.SIGINT, signal.SIGINT, INTERRUPTED),
    "SIGTERM that exits": Ending(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nprint('ending', flush=True)\njob.wait()",
        143,
        signal.SIGTERM,
    ),
}
ASYNC_ENDINGS = {
    "the end of the loop": Ending("", 0),
    "sys.exit": Ending("sys.exit(3)", 3),
    "an exception": Ending("raise ValueError('mine')", 1, errors=MINE),
    "Ctrl-C during a wait": Ending("await job.wait()", -signal.SIGINT, signal.SIGINT, CANCELLED),
    "Ctrl-C in an async with": Ending(
        "async with handler:\n    await job.wait()", -signal.SIGINT, signal.SIGINT, CANCELLED
    ),
}
ALL = [
    *[(SYNC, ending, name) for name, ending in ENDINGS.items()],
    *[(ASYNC, ending, f"async: {name}") for name, ending in ASYNC_ENDINGS.items()],
]
CASES = [
    *[pytest.param(script, ending, "memory", id=name) for script, ending, name in ALL],
    # What a file adds is a thread that writes: how the script ends makes no difference to it.
    *[pytest.param(script, ending, "file", id=f"{name}, file") for script, ending, name in ALL if "Ctrl-C" in name],
]


class Ended(NamedTuple):
    """How a script has ended: after how many seconds, and what it printed as an error."""

    seconds: float
    errors: str
    code: int


def ended(
    emulator: Emulator, script: str, ending: Ending, store: Path | None, before: Callable[[], object] = lambda: None
) -> Ended:
    """Run a script until its job runs, do something, have it end so, and answer how it did."""
    indent = "    " if script is ASYNC else ""
    lines = script.replace("ENDING", ending.lines.replace("\n", "\n" + indent))
    process = subprocess.Popen(  # noqa: S603 - a script of this file
        [sys.executable, "-c", lines, *([str(store)] if store else [])],
        env={**os.environ, **account_of(emulator)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        before()
        process.stdin.write("\n")
        process.stdin.flush()
        if "ending" in ending.lines:
            assert process.stdout.readline() == "ending\n"
        if ending.signal:
            # It does what it shall be interrupted in by now, and has not started thousands of jobs yet.
            threading.Event().wait(0.02 if "ending" in ending.lines else 0.1)
        begun = time.monotonic()
        if ending.signal:
            process.send_signal(ending.signal)
        _, errors = process.communicate(timeout=_HANGS)
        return Ended(time.monotonic() - begun, errors, process.returncode)


def is_quiet(errors: str, ending: Ending) -> bool:
    """Tell whether no error is told but the script's own: all that is not indented, since code may say any word."""
    return tuple(line for line in errors.splitlines() if line and not line.startswith(" ")) == ending.errors


@contextmanager
def hanging(emulator: Emulator) -> Iterator[Callable[[], None]]:
    """Answer what has the service accept connections, and answer nothing, until the end."""
    pid = emulator.pid
    try:
        yield lambda: os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("script", "ending", "store"), CASES)
def test_a_process_ends_soon_though_the_service_hangs(
    o3pro_emulator: Emulator, tmp_path: Path, script: str, ending: Ending, store: str
) -> None:
    """Without waiting for it, with its own exit code, and without a word of ours."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    with hanging(o3pro_emulator) as hang:
        found = ended(o3pro_emulator, script, ending, tmp_path / "jobs.db" if store == "file" else None, hang)
    assert found.code == ending.code, found.errors
    assert is_quiet(found.errors, ending), found.errors


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("name", ["Ctrl-C during submits", "SIGTERM that exits"])
def test_the_rule_of_closing_holds(o3pro_emulator: Emulator, tmp_path: Path, name: str, store: str) -> None:
    """What is in memory is cancelled at the service; what is in a file runs on there, and the next process has it."""
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    path = tmp_path / "jobs.db"
    found = ended(o3pro_emulator, SYNC, ENDINGS[name], path if store == "file" else None)
    assert is_quiet(found.errors, ENDINGS[name]), found.errors
    if store == "memory":
        counters = o3pro_emulator.counters()
        assert counters["cancels"] == counters["accepted"] > 0
        return
    until(lambda: o3pro_emulator.counters()["accepted"] > 0)
    assert o3pro_emulator.counters()["cancels"] == 0
    client = O3ProClient(O3ProConfig(endpoint=o3pro_emulator.endpoint, api_key=o3pro_emulator.api_key))
    with BackgroundHandler(client, store=SqliteStore(path, lease=0.5), pace=QUICK) as successor:
        (first, *_) = successor.list_active_jobs()
        assert successor.cancel_job(first["job_id"])["success"]
    assert o3pro_emulator.counters()["duplicates"] == {}


def test_sigterm_without_a_handler_ends_at_once(o3pro_emulator: Emulator) -> None:
    """SIGTERM that nobody handles ends the process as SIGKILL does: no Python code of anybody's runs any more."""
    ending = Ending("print('ending', flush=True)\njob.wait()", -signal.SIGTERM, signal.SIGTERM)
    with hanging(o3pro_emulator) as hang:
        found = ended(o3pro_emulator, SYNC, ending, None, hang)
    assert (found.code, found.errors) == (-signal.SIGTERM, "")


def test_a_process_ends_soon_though_a_callback_blocks(o3pro_emulator: Emulator) -> None:
    """A callback that never comes back keeps no process."""
    o3pro_emulator.set_knobs("seconds=0.2 queued=0")
    blocking = "called = threading.Event()\njob.add_done_callback(lambda _: (called.set(), threading.Event().wait()))\n"
    found = ended(o3pro_emulator, SYNC, Ending(blocking + "called.wait()\nprint('ending', flush=True)", 0), None)
    assert (found.code, found.errors) == (0, "")
