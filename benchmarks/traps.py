"""
What threads, loops, forks and exits do to a naive loop thread, and to ours.

    python benchmarks/traps.py              # --only fork exit

The naive one is what most would write: an event loop on a daemon thread, `run_coroutine_threadsafe`, a dictionary of
jobs, and the SDK. Each trap is a script that is run twice, once with each, in a process of its own, against the
emulator; what it says last is its outcome, and where it says nothing within ten seconds it hangs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import NamedTuple

from measures import head, row

from o3pro_bg.emulator import Emulator

PATIENCE = 10.0  # seconds until a script hangs

NAIVE = """
import asyncio, gc, logging, os, signal, sys, threading, time, uuid

class Naive:
    def __init__(self, client=None):
        self.loop = self.client = None
        self.jobs, self.tasks = {}, {}

    def _run(self, coroutine):
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            threading.Thread(target=self.loop.run_forever, name="loop", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def _live(self, job_id, question):
        from openai import AsyncAzureOpenAI, DefaultAioHttpClient
        if self.client is None:
            url = os.environ["AZURE_OPENAI_ENDPOINT"] + "/openai/v1/"
            self.client = AsyncAzureOpenAI(base_url=url, api_version="v1", http_client=DefaultAioHttpClient())
        job = self.jobs[job_id]
        response = await self.client.responses.create(model="o3-pro", input=question, background=True)
        while response.status in ("queued", "in_progress"):
            job["status"] = "running"
            await asyncio.sleep(0.05)
            response = await self.client.responses.retrieve(response.id)
        job["status"] = response.status
        job["response"] = response.output_text
        if job["callback"]:
            job["callback"](job_id)

    def start(self, question="q", callback=None):
        job_id = uuid.uuid4().hex
        self.jobs[job_id] = {"status": "started", "response": None, "callback": callback}
        self.tasks[job_id] = self._run(self._live(job_id, question))
        return job_id

    def wait(self, job_id):
        self.tasks[job_id].result()
        return self.jobs[job_id]["response"]

    def on_loop(self, coroutine):
        return self._run(coroutine)

    def stop_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)

    def status(self, job_id):
        return self.jobs[job_id]["status"]

    def read(self, job_id):
        job = self.jobs[job_id]
        return job["status"], job["response"]

    def forget(self):
        self.client = None
        self.tasks.clear()

    def listed(self):
        return [dict(job) for job in self.jobs.values()]

def loops():
    return sum(thread.name == "loop" for thread in threading.enumerate())

Handler = Naive
"""

OURS = """
import asyncio, gc, logging, os, signal, sys, threading, time
from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace

class Ours(BackgroundHandler):
    def __init__(self):
        super().__init__(O3ProClient(O3ProConfig(auth="key")), pace=Pace(floor=0.05, ceiling=0.05), language="en")

    def start(self, question="q", callback=None):
        job = self.submit(question)
        if callback:
            job.add_done_callback(lambda job: callback(job.id))
        return job.id

    def wait(self, job_id):
        return super().wait(job_id).get("response")

    def on_loop(self, coroutine):
        async def run():
            return await coroutine
        return self._portal.submit(run)

    def stop_loop(self):
        server = self._portal._server
        server._loop.call_soon_threadsafe(server._loop.stop)

    def status(self, job_id):
        return self.check_status(job_id)["status"]

    def read(self, job_id):
        reply = self.get_result(job_id)
        return reply["status"], reply.get("response")

    def forget(self):
        self.__dict__.clear()

    def listed(self):
        return self.list_active_jobs()

def loops():
    return sum(thread.name == "o3pro_bg" for thread in threading.enumerate())

Handler = Ours
"""

SHARED = """
handler = Handler()

def say(*words):
    print(*words, flush=True)

def running(job_id):
    while handler.status(job_id) != "running":
        time.sleep(0.01)
    return job_id

def forked(work):
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def in_thread(work, seconds=5):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
"""


class Trap(NamedTuple):
    """
    A trap.

    Attributes:
        title: What happens.
        script: What brings it about, and says what came of it.
        seconds: How long a job takes.
        is_interrupted: Whether Ctrl-C is sent once it has said "now".
        tells_cancels: Whether it matters how many cancels the service saw.
    """

    title: str
    script: str
    seconds: float = 0.3
    is_interrupted: bool = False
    tells_cancels: bool = False


TRAPS = {
    "own-thread": Trap(
        "a waiting call on the loop's own thread",
        """
        job = handler.start()
        async def mistake():
            return handler.wait(job)
        try:
            say("answers", handler.on_loop(mistake()).result(5) is not None)
        except TimeoutError:
            say("waits for itself for ever")
        except Exception as exc:
            say(f"{type(exc).__name__}: it names what to call")
        os._exit(0)
        """,
    ),
    "other-loop": Trap(
        "a waiting call in an `async def`",
        """
        import warnings
        async def main():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                answer = handler.wait(handler.start())
            say("works, blocks that loop", f"and {'says so' if caught else 'says nothing'}")
        asyncio.run(main())
        """,
    ),
    "fork": Trap(
        "a fork, then a call in the child",
        """
        running(handler.start())
        say("hangs in the child" if forked(lambda: handler.wait(handler.start())) else "the child works")
        """,
    ),
    "fork-import": Trap(
        "a fork while the SDK is imported",
        """
        handler.start()
        while "openai" not in sys.modules:
            time.sleep(0.001)
        def work():
            global handler
            handler = Handler()  # a new one, in the child
            handler.wait(handler.start())
        say("the child hangs, with a new handler too" if forked(work) else "the child works")
        """,
    ),
    "fork-forgets": Trap(
        "a child that forgets what it inherited",
        """
        job = running(handler.start())
        def work():
            handler.forget()
            gc.collect()
            gc.collect()
        forked(work)
        said = in_thread(lambda: handler.wait(job))
        say("the parent's job ends" if said else "the parent's loop hears nothing any more")
        os._exit(0)
        """,
        seconds=1.0,
    ),
    "first-use": Trap(
        "100 threads make the first call at once, 20 times",
        """
        sys.setswitchinterval(1e-6)
        def attempt():
            handler, barrier, before = Handler(), threading.Barrier(100), loops()
            def use():
                barrier.wait()
                handler.start()
            threads = [threading.Thread(target=use) for _ in range(100)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            kept.append(handler)
            return loops() - before
        kept = []
        most = max(attempt() for _ in range(20))
        say(f"{most} loops at the most" if most > 1 else "1 loop")
        os._exit(0)
        """,
    ),
    "list": Trap(
        "all jobs are read while jobs start",
        """
        sys.setswitchinterval(1e-6)
        [handler.start() for _ in range(100)]
        over, raised = threading.Event(), set()
        def read():
            while not over.is_set():
                try:
                    handler.listed()
                except Exception as exc:
                    raised.add(f"{type(exc).__name__}: {exc}")
        threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
        [thread.start() for thread in threads]
        until = time.monotonic() + 1
        while time.monotonic() < until:
            handler.start()
            time.sleep(0.001)
        over.set()
        say(*(raised or ["nothing is raised"]))
        os._exit(0)
        """,
    ),
    "exit": Trap(
        "the script ends with a job under way",
        "running(handler.start())\nsay('ends')",
        seconds=60,
        tells_cancels=True,
    ),
    "exception": Trap(
        "it ends by an exception",
        "running(handler.start())\nsay('ends')\nsys.stderr.close()\nraise ValueError",
        seconds=60,
        tells_cancels=True,
    ),
    "ctrl-c": Trap(
        "it ends by Ctrl-C in a wait",
        "job = running(handler.start())\nsys.stderr.close()\nsay('now')\nhandler.wait(job)",
        seconds=60,
        is_interrupted=True,
        tells_cancels=True,
    ),
    "callback-exits": Trap(
        "a callback that raises SystemExit",
        """
        def leave(_):
            raise SystemExit
        logging.disable()
        threading.excepthook = lambda *_: None
        in_thread(lambda: handler.wait(handler.start(callback=leave)), 2)
        said = in_thread(lambda: handler.wait(handler.start()), 3)
        say("the next job ends" if said else "the loop is dead, the next job hangs")
        os._exit(0)
        """,
    ),
    "callback-blocks": Trap(
        "a callback that blocks",
        """
        called = threading.Event()
        def block(_):
            called.set()
            time.sleep(60)
        handler.start(callback=block)
        called.wait()
        said = in_thread(lambda: handler.wait(handler.start()), 3)
        say("the next job ends" if said else "the next job hangs")
        os._exit(0)
        """,
    ),
    "blocked-loop": Trap(
        "something blocks the loop",
        """
        said = []
        class Ear(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())
        logging.getLogger().addHandler(Ear())
        job = running(handler.start())
        async def read_a_large_file():
            time.sleep(3)
        handler.on_loop(read_a_large_file())
        handler.wait(job)
        say("is told, with the name of it" if "read_a_large_file" in str(said) else "nothing is told")
        """,
    ),
    "loop-stops": Trap(
        "the loop is stopped under a waiter",
        """
        logging.disable()
        job = running(handler.start())
        threading.Timer(0.3, handler.stop_loop).start()
        said = in_thread(lambda: handler.wait(job))
        try:
            handler.start()
            later = "later calls hang"
        except Exception as exc:
            later = f"later calls raise {type(exc).__name__}"
        say("the waiter wakes up;" if said else "the waiter hangs;", later)
        os._exit(0)
        """,
        seconds=60,
    ),
    "cancelled-waiter": Trap(
        "the task that awaits a job runs out of time",
        """
        async def main():
            if Handler.__name__ == "Naive":
                job = asyncio.wrap_future(handler.tasks[handler.start()])
            else:
                from o3pro_bg import AsyncBackgroundHandler
                job = await AsyncBackgroundHandler(handler.client).submit("q")
            try:
                await asyncio.wait_for(job, 0.2)
            except TimeoutError:
                pass
            try:
                await job
                say("the job goes on")
            except asyncio.CancelledError:
                say("the job is cancelled, its answer lost")
            os._exit(0)
        asyncio.run(main())
        """,
        seconds=0.5,
    ),
    "two-runs": Trap(
        "`asyncio.run` twice, with one client",
        """
        naive = Handler.__name__ == "Naive"
        from openai import AsyncAzureOpenAI
        from o3pro_bg import AsyncBackgroundHandler, O3ProClient, O3ProConfig
        url = os.environ["AZURE_OPENAI_ENDPOINT"] + "/openai/v1/"
        client = AsyncAzureOpenAI(base_url=url, api_version="v1") if naive else O3ProClient(O3ProConfig())
        async def main():
            if naive:
                await client.with_options(max_retries=0).responses.create(model="o3-pro", input="q", background=True)
            else:
                async with AsyncBackgroundHandler(client) as handler:
                    await (await handler.submit("q"))
        try:
            asyncio.run(main())
            asyncio.run(main())
            say("works")
        except Exception as exc:
            say(f"{type(exc).__name__}: {exc}")
        os._exit(0)
        """,
    ),
}


def outcome(emulator: Emulator, who: str, trap: Trap) -> str:
    """Run a trap with one of the two, and answer what it says last."""
    emulator.reset()
    emulator.set_knobs(f"seconds={trap.seconds:g} queued=0")
    account = {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": emulator.api_key}
    script = who + SHARED + textwrap.dedent(trap.script)
    process = subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, **account},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            if trap.is_interrupted and process.stdout is not None:
                process.stdout.readline()
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hangs"
    last = (said.strip() or errors.strip() or "nothing").splitlines()[-1]
    if trap.tells_cancels:
        last = (
            "cancelled at the service" if emulator.counters()["cancels"] else "dropped: the service works on, unheard"
        )
    return last


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=TRAPS, default=list(TRAPS))
    parser.add_argument("--quick", action="store_true", help="the same")
    options = parser.parse_args()
    head("trap", "naive", "ours")
    with Emulator() as emulator:
        for name in options.only:
            trap = TRAPS[name]
            row(trap.title, *(outcome(emulator, who, trap) for who in (NAIVE, OURS)))


if __name__ == "__main__":
    main()
