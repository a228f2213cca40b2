"""Forked processes: a handler begins anew in the child, touches nothing that is the parent's, and never hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from .peers import until
from .scripts import account_of, printed

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")

PATIENCE = 40.0  # seconds after which a script is taken to hang
STORES = ["memory", "file"]

SCRIPT = """
import asyncio, gc, os, signal, sys, threading, time
from o3pro_bg import AsyncBackgroundHandler, BackgroundHandler, HandlerClosed, O3ProClient, O3ProConfig, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

settings = {"pace": Pace(floor=0.05, ceiling=0.05), "language": "en"}
if sys.argv[1:]:
    settings["store"] = sys.argv[1]

def accepted(job):
    while not job.response_id:
        time.sleep(0.01)
    return job

def forked(work):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # whoever hangs is ended
        work()
        sys.stdout.flush()
        sys.exit(0)  # with all that an interpreter does as it ends
    return child

def buried(child):
    print("child ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

"""


def run(lines: str, emulator: Emulator | None = None, *args: object) -> list[str]:
    """Run the script with these lines behind it in an interpreter of its own; answer the lines that it prints."""
    script = SCRIPT + textwrap.dedent(lines)
    return printed(script, *args, emulator=emulator, warnings="ignore::DeprecationWarning")


@pytest.fixture
def args(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """What a script gets to know where its jobs are kept."""
    return [tmp_path / "jobs.db"] if request.param == "file" else []


@pytest.mark.parametrize("when", ["at once", "while the SDK is imported", "under way"])
@pytest.mark.parametrize("args", STORES, indirect=True)
def test_the_handler_works_on_both_sides_of_a_fork(o3pro_emulator: Emulator, args: list[Path], when: str) -> None:
    """
    With jobs under way, or just started, a child's jobs and the parent's all end, each question asked once.

    A naive loop still says that it runs, in the child, where a call hangs; and a child that is forked while the SDK is
    being imported waits for that import for ever.
    """
    o3pro_emulator.set_knobs("seconds=0.5 queued=0")
    said = run(
        f"""
        handler = BackgroundHandler(O3ProClient(O3ProConfig()), **settings)
        jobs = [handler.submit(f"question {{number}}") for number in range(3)]
        while {when == "while the SDK is imported"} and "openai" not in sys.modules:
            time.sleep(0.001)
        if {when == "under way"}:
            for job in jobs:
                accepted(job)
        def work():
            print("child", handler.wait(handler.start_background_task("of the child")["job_id"])["success"])
        buried(forked(work))
        print("parent", [handler.wait(job.id)["success"] for job in jobs])
        print("parent", handler.wait(handler.start_background_task("afterwards")["job_id"])["success"])
        """,
        o3pro_emulator,
        *args,
    )
    assert said == ["child True", "child ended 0", "parent [True, True, True]", "parent True"]
    counters = o3pro_emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["duplicates"]) == (5, 5, {})
    assert counters["cancels"] == 0


def test_a_child_leaves_the_connections_to_the_parent(o3pro_emulator: Emulator) -> None:
    """
    A child that forgets, collects and ends whatever it inherited closes no connection of the parent.

    What it tidies up unregisters sockets from the epoll that it shares, and says goodbye on them.
    """
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    said = run(
        """
        handler = BackgroundHandler(O3ProClient(O3ProConfig()), **settings)
        jobs = [accepted(handler.submit("question")) for _ in range(3)]
        def work():
            global handler, jobs
            from o3pro_bg import _forks, _portal
            selector = [server._selector for left in _forks.KEPT if isinstance(server := left, _portal._Server)][0]
            for key in list(selector.get_map().values()):  # as a transport does that is collected
                selector.unregister(key.fd)
                os.write(key.fd, b"garbage")
                os.close(key.fd)
            del handler, jobs
            gc.collect()
        for _ in range(3):
            buried(forked(work))
        before = handler.client, time.monotonic()
        print([handler.cancel_job(job.id)["success"] for job in jobs], time.monotonic() - before[1] < 2)
        """,
        o3pro_emulator,
    )
    assert said == ["child ended 0"] * 3 + ["[True, True, True] True"]
    counters = o3pro_emulator.counters()
    assert (counters["cancels"], counters["refused"], counters["dropped"]) == (3, 0, 0)
    assert counters["connections"] <= 3, "the parent's connections were closed under it"


@pytest.mark.parametrize("args", STORES, indirect=True)
def test_what_a_child_knows_of_the_parents_jobs(o3pro_emulator: Emulator, args: list[Path]) -> None:
    """
    A child knows none of the parent's jobs in memory, and all of a file; a handle from before tells what it knew.

    What waits on such a handle says at once what to do instead; closing in the child harms no job of the parent.
    """
    o3pro_emulator.set_knobs("seconds=60 queued=0")
    said = run(
        """
        handler = BackgroundHandler(O3ProClient(O3ProConfig()), **settings)
        job = accepted(handler.submit("question"))
        while job.status() != "running":
            time.sleep(0.01)
        def work():
            print("handle", job.status(), job.done(), job.response_id is not None)
            for use in (job.result, job.wait, job.cancel, lambda: job.add_done_callback(print)):
                try:
                    use()
                except HandlerClosed as exc:
                    print("refused" if "ask the handler for the job here, or attach to it" in str(exc) else exc)
            listed = handler.list_active_jobs()
            print("known", handler.check_status(job.id)["success"], len(listed), job.id in handler.jobs)
            handler.close()
        buried(forked(work))
        print("parent", job.status(), handler.cancel_job(job.id)["success"])
        """,
        o3pro_emulator,
        *args,
    )
    known = "known True 1 True" if args else "known False 0 False"
    assert said == ["handle running False True", *["refused"] * 4, known, "child ended 0", "parent running True"]


def test_a_child_of_a_child_begins_anew_too(o3pro_emulator: Emulator, tmp_path: Path) -> None:
    """Forks of forks, of a handler that was used in between or not, all work on one file."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    said = run(
        """
        handler = BackgroundHandler(O3ProClient(O3ProConfig()), **settings)
        def use(who):
            print(who, handler.wait(handler.start_background_task(who)["job_id"])["success"], flush=True)
        def unused():
            buried(forked(lambda: use("grandchild")))
        def used():
            use("child")
            buried(forked(lambda: use("its child")))
        use("parent")
        buried(forked(unused))
        buried(forked(used))
        print(len(handler.wait_all()))
        """,
        o3pro_emulator,
        tmp_path / "jobs.db",
    )
    ended = "child ended 0"
    assert said == [
        *("parent True", "grandchild True", ended, ended),
        *("child True", "its child True", ended, ended, "4"),
    ]


def test_the_asynchronous_face_begins_anew(o3pro_emulator: Emulator, tmp_path: Path) -> None:
    """A handler that was used on a loop before the fork is used on another one in the child."""
    o3pro_emulator.set_knobs("seconds=0.1 queued=0")
    said = run(
        """
        handler = AsyncBackgroundHandler(O3ProClient(O3ProConfig()), **settings)
        async def use(who):
            print(who, (await handler.wait((await handler.start_background_task(who))["job_id"]))["success"])
            sys.stdout.flush()
        async def main():
            await use("parent")
            def work():
                asyncio._set_running_loop(None)  # as CPython does since 3.12
                asyncio.run(use("child"))
                os._exit(0)  # the thread that it was forked in is a worker's
            child = await asyncio.to_thread(forked, work)
            await asyncio.to_thread(buried, child)
            await use("parent")
            await handler.aclose()
        asyncio.run(main())
        """,
        o3pro_emulator,
        tmp_path / "jobs.db",
    )
    assert said == ["parent True", "child True", "child ended 0", "parent True"]


def test_forks_in_the_midst_of_everything() -> None:
    """
    However often a process forks while its threads start, read, wait for and remove jobs, no child ever hangs.

    A lock that another thread held at the fork is never given back in the child.
    """
    said = run(
        """
        handler = BackgroundHandler(FakeClient(FakeRemote(seconds=0.0, queued=0.0)), **settings)
        over = threading.Event()
        def churn():
            while not over.is_set():
                job = handler.submit("question")
                handler.check_status(job.id), handler.list_active_jobs(), job.result(), handler.remove_job(job.id)
        threads = [threading.Thread(target=churn) for _ in range(8)]
        for thread in threads:
            thread.start()
        held = handler.submit("held")
        for _ in range(40):
            def work():
                held.status(), handler.list_active_jobs(), repr(handler)
                assert handler.submit("of the child").result().startswith("fake")
                os._exit(0)
            child = forked(work)
            assert os.waitpid(child, 0)[1] == 0
        over.set()
        for thread in threads:
            thread.join()
        print("parent", held.result())
        """
    )
    assert len(said) == 1
    assert said[0].startswith("parent fake answer")


# A forkserver reaps the `uname -p` that Python's `platform` runs for the SDK, and wonders whose child that was.
MODULE = """
import warnings
from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace

warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
handler = BackgroundHandler(
    O3ProClient(O3ProConfig()), pace=Pace(floor=0.05, ceiling=0.05), language="en", **settings
)
first = handler.submit("of the one who was first")

def ask(who):
    reply = handler.wait(handler.start_background_task(f"of {who}")["job_id"], timeout=60)
    return reply["success"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module `office` whose handler has a job under way as soon as it is imported."""
    (tmp_path / "office.py").write_text("settings = {}\n" + MODULE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    return tmp_path


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("store", STORES)
def test_multiprocessing(o3pro_emulator: Emulator, module: Path, method: str, store: str) -> None:
    """Workers of `multiprocessing` use the handler of a module that their parent, or their server, has used."""
    o3pro_emulator.set_knobs("seconds=0.3 queued=0")
    if store == "file":
        (module / "office.py").write_text(f"settings = {{'store': {str(module / 'jobs.db')!r}}}\n" + MODULE)
    script = f"""
    import multiprocessing, office
    context = multiprocessing.get_context({method!r})
    context.set_forkserver_preload(["office"])
    with context.Pool(3) as pool:
        print(pool.map(office.ask, ["anna", "bert", "cleo"]))
        pool.close()
        pool.join()
    print(office.first.result(timeout=60) != "")
    """
    assert run(script, o3pro_emulator) == ["[True, True, True]", "True"]
    counters = o3pro_emulator.counters()
    assert counters["duplicates"] == {}
    # In memory the forkserver's own job is cancelled as its server ends, or it is done by then; nobody pays twice.
    assert counters["accepted"] in (4, 5)


@pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.parametrize("store", STORES)
def test_gunicorn_with_preload(o3pro_emulator: Emulator, module: Path, store: str) -> None:
    """Three workers of a preloaded application serve, its own job goes on in the master, and all end when asked to."""
    o3pro_emulator.set_knobs("seconds=0.3 queued=0")
    if store == "file":
        (module / "office.py").write_text(f"settings = {{'store': {str(module / 'jobs.db')!r}}}\n" + MODULE)
    (module / "site_of_it.py").write_text(
        "import os, office\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [f'{os.getpid()} {office.ask(os.getpid())}'.encode()]\n"
    )
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = ["-m", "gunicorn", "--preload", "--workers=3", f"--bind=127.0.0.1:{port}", "site_of_it:application"]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-W", "ignore::DeprecationWarning", *command],
        env={**os.environ, **account_of(o3pro_emulator)},
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(_: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    with process:
        try:
            until(answers)
            with ThreadPoolExecutor(6) as pool:
                said = [answer.split() for answer in pool.map(ask, range(12))]
            assert {success for _, success in said} == {"True"}
            assert str(process.pid) not in {worker for worker, _ in said}
            assert len({worker for worker, _ in said}) > 1
            until(lambda: o3pro_emulator.counters()["accepted"] == 13)
        finally:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors, errors
    counters = o3pro_emulator.counters()
    assert (counters["accepted"], counters["duplicates"]) == (13, {})
