"""A crowd of threads that do everything with one handler at once, and note whatever should not be."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from o3pro_bg import BackgroundHandler, HandlerClosed, JobCancelled

from .faces import QUICK, fake

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg import Job

ORDER = ("started", "running", "completed", "failed", "cancelled")
_PATIENCE = 60.0  # seconds that a thread may take for a job before it is taken to hang


class Crowd:
    """
    So many threads, for so many seconds.

    Attributes:
        faults: What should not be: exceptions, lost updates, torn reads, jobs that were not called back once.
        done: How often each thing was done.
    """

    def __init__(self, threads: int, seconds: float, seed: int = 0, **settings: Any) -> None:
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        self._called: Counter[str] = Counter()
        self._kept: list[set[str]] = [set() for _ in range(threads)]
        self._all: list[set[str]] = [set() for _ in range(threads)]
        self._over = threading.Event()
        self._ready = threading.Barrier(threads)
        self._seconds = seconds
        self._seed = seed
        self._lock = threading.Lock()
        self.handler = BackgroundHandler(
            fake(seconds=0.02, queued=0.01), pace=QUICK, language="en", on_done=self._call_back, **settings
        )

    def run(self) -> None:
        """Let them in, all at once, and see at the end that nothing was lost."""
        members = [threading.Thread(target=self._act, args=(number,)) for number in range(len(self._kept))]
        for member in members:
            member.start()
        self._over.wait(self._seconds)
        self._over.set()
        for member in members:
            member.join(_PATIENCE)
        self._check(not any(member.is_alive() for member in members), "a thread hangs")
        kept = {job_id for mine in self._kept for job_id in mine}
        self.handler.wait_all(timeout=_PATIENCE)
        self._check({job["job_id"] for job in self.handler.list_active_jobs()} == kept, "jobs were lost or came back")
        loops = [thread for thread in threading.enumerate() if thread.name == "o3pro_bg"]
        self._check(len(loops) == 1, f"{len(loops)} loops")
        self.handler.close()
        everyone = {job_id for mine in self._all for job_id in mine}
        self._check(self._called == dict.fromkeys(everyone, 1), "not every job was called back once")
        self.done["jobs"] = len(everyone)

    def _act(self, number: int) -> None:
        luck = random.Random(f"{self._seed} {number}")
        acts: list[Callable[[Job], None]] = [self._poll, self._wait, self._result, self._cancel, self._look_at_all]
        self._ready.wait(_PATIENCE)
        while not self._over.is_set():
            act = luck.choice(acts)
            try:
                job = self.handler.submit(f"of {number}", luck.choice(("low", "medium", "high")))
                self._all[number].add(job.id)
                self._kept[number].add(job.id)
                act(job)
                if luck.random() < 0.9 and self.handler.remove_job(job.id)["success"]:
                    self._kept[number].discard(job.id)
                    self._check(not self.handler.check_status(job.id)["success"], "a removed job came back")
            except Exception as exc:
                self._check(False, f"{act.__name__}: {type(exc).__name__}: {exc}")
            with self._lock:
                self.done[act.__name__] += 1

    def _poll(self, job: Job) -> None:
        """See a job only ever go forward, and be whole whenever it is looked at."""
        last, age = 0, 0.0
        until = time.monotonic() + _PATIENCE
        while last < 2 and time.monotonic() < until:
            status: Any = self.handler.check_status(job.id)
            now = ORDER.index(status["status"])
            # Its time may go back once: an end is told a moment after it came, and a reader has seen that moment pass.
            is_older = status["elapsed_time"] >= age or now > last
            self._check(now >= last and is_older, f"{job.id} went back to {status}")
            self._check((status["question"], status["effort"]) == (job.question, job.effort), "a job was mixed up")
            last, age = now, status["elapsed_time"]
            result: Any = self.handler.get_result(job.id)
            if result["status"] == "completed":
                self._whole(job, result)
            time.sleep(0.002)
        self._check(last == 2, f"{job.id} ended as {ORDER[last]}")

    def _wait(self, job: Job) -> None:
        self._whole(job, self.handler.wait(job.id, timeout=_PATIENCE))

    def _result(self, job: Job) -> None:
        self._check(job.result(timeout=_PATIENCE) == f"fake answer of {job.response_id}", "another job's answer")

    def _cancel(self, job: Job) -> None:
        reply: Any = self.handler.cancel_job(job.id)
        self._check(reply["success"] or reply["status"] == "completed", f"the cancel said {reply}")
        try:
            job.result(timeout=_PATIENCE)
        except JobCancelled:
            self._check(reply["success"], "a job was cancelled that had ended")
        except HandlerClosed as exc:
            self._check(False, str(exc))

    def _look_at_all(self, job: Job) -> None:
        listed = self.handler.list_active_jobs()
        self._check(any(found["job_id"] == job.id for found in listed), "a job is missing in the list")
        for job_id in self.handler.jobs:
            found = dict(self.handler.jobs.get(job_id) or {})  # another thread may have removed it
            self._check(not found or {*found} >= {"status", "question", "effort"}, f"torn: {found}")
        ((_, reply),) = self.handler.as_completed([job.id], timeout=_PATIENCE)
        self._whole(job, reply)

    def _whole(self, job: Job, reply: Any) -> None:
        is_whole = reply["success"] and reply["response"] == f"fake answer of {job.response_id}"
        self._check(is_whole and job.usage is not None and job.done(), f"torn: {reply}")

    def _call_back(self, job: Job) -> None:
        with self._lock:
            self._called[job.id] += 1

    def _check(self, is_so: object, otherwise: str) -> None:
        if not is_so:
            self.faults.append(otherwise)
