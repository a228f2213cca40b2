"""The handler against a tiny model of the specification: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from o3pro_bg import AsyncBackgroundHandler, Pace
from o3pro_bg._sentences import JA
from o3pro_bg.testing import Failure, FakeClient, FakeRemote, RemoteTrouble, Trouble, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

QUEUED, LENGTH = 1.0, 60.0  # seconds that the service takes
LATE = 1.5  # seconds after which a look has seen what has happened, where nothing goes wrong
THROTTLED = 20.0  # seconds that a 429 asks for
TERMINAL = ("completed", "failed", "cancelled")
NOBODY = "0" * 32

CREATE_FATES = {
    "accepted": None,
    "throttled": RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=THROTTLED),
    "refused": RemoteTrouble(Trouble.REFUSED, Failure("content_filter")),
    "uncertain": RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost")),
}


@dataclass
class Expected:
    """
    A job, as the specification has it.

    Attributes:
        since: When the service accepts it, where it is not throttled: then it may be up to `slack` later.
        late: By how many seconds looks that failed may delay what is seen.
        end: The terminal status that is known of it, if any.
        told: What was told of its end.
    """

    job_id: str
    question: str
    effort: str
    since: float
    timeout: float | None = None
    born: float = 0.0
    slack: float = 0.0
    late: float = 0.0
    end: str = ""
    told: dict[str, Any] = field(default_factory=dict)

    def statuses(self, now: float) -> set[str]:
        """Answer the statuses that it may have now: where a look may or may not have come yet, there are two."""
        if self.end:
            return {self.end}
        if self.timeout is not None and now > self.born + self.timeout + 1e-3:
            return {"failed"} if self.born + self.timeout < self.since + LENGTH else {"failed", "completed"}
        age, least = now - self.since, now - self.since - self.slack - self.late - LATE
        words = set()
        if least < QUEUED:
            words.add("started")
        if age >= QUEUED and least < LENGTH:
            words.add("running")
        if age >= LENGTH:
            words.add("completed")
        if self.timeout is not None and now >= self.born + self.timeout - 1e-3:
            words.add("failed")
        return words


class Model(RuleBasedStateMachine):
    """The verbs, in any order, on a service that may throttle, refuse, lose an answer, or not stop."""

    jobs = Bundle("jobs")
    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.is_closed = False
        self.expected: dict[str, Expected] = {}
        self.tasks: list[tuple[str, asyncio.Task[Any]]] = []

    @initialize(most=strategies.sampled_from([None, None, 3]))
    def open(self, most: int | None) -> None:
        """Make a handler; its pace has no luck."""
        self.remote = FakeRemote(seconds=LENGTH, queued=QUEUED)
        pace = Pace(floor=1, ceiling=1, jitter=0, learns=False)
        self.handler = AsyncBackgroundHandler(FakeClient(self.remote), pace=pace, retain=most)
        self.most = most

    def teardown(self) -> None:
        """Close everything."""
        if not self.is_closed:
            self.run(self.handler.aclose())
        for _, task in self.tasks:
            task.cancel()
        self.run(asyncio.sleep(1))
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do this, and let what follows from it at once follow."""

        async def done() -> Any:
            try:
                return await work
            finally:
                await asyncio.sleep(1e-4)

        return self.loop.run_until_complete(done())

    def known(self, job_id: str) -> Expected | None:
        """Answer what is expected of a job, or None where it is gone; `retain` may have let it go by now."""
        job = self.expected.get(job_id)
        if job is not None and self.most is not None and job_id not in self.handler.jobs:
            assert job.end or job.statuses(self.loop.time()) & {*TERMINAL}
            del self.expected[job_id]
            return None
        return job

    def unknown(self, job_id: str) -> dict[str, Any]:
        """Answer what every verb says of an id that is not known."""
        return {"success": False, "error": JA["not_found"].format(job_id=job_id)}

    def seen(self, job: Expected, status: str) -> None:
        """Hold that a status is one that the job may have, and that it keeps one in which it ends."""
        assert status in job.statuses(self.loop.time()), (status, job, self.loop.time())
        if status in TERMINAL:
            job.end = status

    # --- starting -------------------------------------------------------------------------------------------

    @rule(
        target=jobs,
        fate=strategies.sampled_from([*["accepted"] * 6, *CREATE_FATES]),
        effort=strategies.sampled_from(["low", "medium", "high"]),
        timeout=strategies.sampled_from([None, None, 5.5, 30.5]),
        question=strategies.text(min_size=1, max_size=20).filter(str.strip),
    )
    def start(self, fate: str, effort: str, timeout: float | None, question: str) -> Any:
        """A start is answered at once, and its create comes to what the service makes of it."""
        now = self.loop.time()
        is_behind = any(job.slack and not job.end for job in self.expected.values())  # others that were throttled
        self.remote.script["create"] = [] if self.is_closed or is_behind else [CREATE_FATES[fate]]
        reply = self.run(self.handler.start_background_task(question, effort, timeout=timeout))
        if self.is_closed:
            assert reply == {"success": False, "error": JA["closed"], "question": question, "effort": effort}
            return multiple()
        job_id = reply.pop("job_id")
        assert reply == {"success": True, "status": "started", "question": question, "effort": effort}
        job = self.expected[job_id] = Expected(job_id, question, effort, now, timeout, now)
        if fate == "throttled" or is_behind or self.handler.job(job_id).waiting:
            job.slack = 3 * THROTTLED + 20.0 * len(self.expected)
        elif fate in ("refused", "uncertain"):
            job.end = "failed"
        self.remote.script["create"] = []
        return job_id

    @precondition(lambda self: not self.is_closed)
    @rule(target=jobs, timeout=strategies.sampled_from([None, 45.0]))
    def start_well(self, timeout: float | None) -> Any:
        """A start that nothing stands against."""
        return self.start(fate="accepted", effort="low", timeout=timeout, question="Why?")

    @rule(
        arguments=strategies.sampled_from([("", "low"), (" \n", "low"), ("q", "lowest"), ("q", ""), ("\ud800", "low")])
    )
    def start_nonsense(self, arguments: tuple[str, str]) -> None:
        """What no service could take is refused with a sentence, and leaves no trace."""
        reply = self.run(self.handler.start_background_task(*arguments))
        assert {*reply} == {"success", "error", "question", "effort"}
        assert (reply["success"], reply["question"], reply["effort"]) == (False, *arguments)

    # --- reading --------------------------------------------------------------------------------------------

    @rule(job_id=jobs)
    def check(self, job_id: str) -> None:
        """`check_status` and `get_result` say the same, and what the specification says."""
        job = self.known(job_id)
        status, result = self.run(self.handler.check_status(job_id)), self.run(self.handler.get_result(job_id))
        if job is None:
            assert status == result == self.unknown(job_id)
            return
        self.seen(job, status["status"])
        elapsed = status.pop("elapsed_time")
        error = {"error": result.get("error")} if job.end in ("failed", "cancelled") else {}
        asked = {"question": job.question, "effort": job.effort}
        assert status == {"success": True, "status": job.end or status["status"], **asked, **error}
        self.check_result(job, result, elapsed)

    def check_result(self, job: Expected, result: dict[str, Any], elapsed: float | None = None) -> None:
        """Hold that a result is that of the specification, and the one that was told before."""
        asked = {"question": job.question, "effort": job.effort}
        if not job.end:
            assert result == {"success": False, "error": JA["not_finished"], "status": result["status"]}
            assert result["status"] in ("started", "running")
            return
        assert job.told.setdefault("result", result) == result
        told = dict(result)
        assert elapsed in (None, told.pop("total_time"))
        told.pop("total_time", None)
        if job.end == "completed":
            assert told.pop("response").startswith("fake answer of resp_")
            assert told == {"success": True, "status": "completed", **asked}
        elif job.end == "cancelled":
            assert told == {"success": False, "status": "cancelled", "error": JA["cancelled"], **asked}
        else:
            assert told.pop("error").startswith("API Error: ")
            assert told == {"success": False, "status": "failed", **asked}

    @rule(verb=strategies.sampled_from(["check_status", "get_result", "cancel_job", "remove_job", "wait"]))
    def ask_for_nobody(self, verb: str) -> None:
        """Whatever is asked about an id that never was is answered alike."""
        assert self.run(getattr(self.handler, verb)(NOBODY)) == self.unknown(NOBODY)

    @invariant()
    def lists_all(self) -> None:
        """The list and the mapping hold what is expected, in order, with the statuses that are possible."""
        if not hasattr(self, "handler"):
            return
        listed = self.run(self.handler.list_active_jobs())
        expected = [job_id for job_id in list(self.expected) if self.known(job_id) is not None]
        assert [job["job_id"] for job in listed] == expected == list(self.handler.jobs)
        for line in listed:
            job = self.expected[line["job_id"]]
            self.seen(job, line["status"])
            assert {*line} == {"job_id", "status", "question", "effort", "elapsed_time"}
            assert (line["question"], line["effort"]) == (job.question, job.effort)
            assert 0 <= line["elapsed_time"] <= self.loop.time() - job.born + 1

    @invariant()
    def pays_once(self) -> None:
        """No job is created twice, but for those that were refused with 429."""
        if hasattr(self, "remote"):
            assert len(self.remote._born) <= len({job_id for job_id, _ in self.remote.asked})

    # --- time, and waiting ----------------------------------------------------------------------------------

    @rule(seconds=strategies.sampled_from([0.2, 0.9, 3.0, 5.0]))
    def let_pass(self, seconds: float) -> None:
        """Time passes."""
        self.run(asyncio.sleep(seconds))

    @rule(seconds=strategies.sampled_from([25.0, 61.0, 150.0]))
    def let_much_pass(self, seconds: float) -> None:
        """Much time passes."""
        self.run(asyncio.sleep(seconds))

    @rule(kind=strategies.sampled_from([Trouble.UNCLEAR, Trouble.UNSENT, Trouble.THROTTLED, Trouble.DENIED]))
    def trouble_looks(self, kind: Trouble) -> None:
        """The next look fails, which delays what is seen, and changes nothing."""
        self.remote.script["look"] = [RemoteTrouble(kind, Failure("trouble"))]
        for job in self.expected.values():
            job.late += 5.0

    @rule(job_id=jobs, timeout=strategies.sampled_from([0.0, 2.0, 70.0, None]))
    def wait(self, job_id: str, timeout: float | None) -> None:
        """A wait ends with the job, or with its own time; the job does not mind."""
        job, begun = self.known(job_id), self.loop.time()
        try:
            reply = self.run(self.handler.wait(job_id, timeout))
        except TimeoutError:
            assert job is not None
            assert timeout is not None
            assert not job.end
            assert self.loop.time() - begun <= timeout + 0.1
            return
        if job is None:
            assert reply == self.unknown(job_id)
        else:
            self.seen(job, reply["status"])
            assert job.end or self.is_closed
            self.check_result(job, reply)

    @rule(target=waiters, job_id=jobs)
    def begin_to_wait(self, job_id: str) -> Any:
        """Somebody waits, in the background."""
        if self.known(job_id) is None:
            return multiple()

        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(self.handler.wait(job_id))

        task = self.run(begin())
        self.tasks.append((job_id, task))
        return task

    @rule(task=consumes(waiters))
    def give_up(self, task: asyncio.Task[Any]) -> None:
        """A waiter is cancelled; the job does not mind."""

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.run(cancel())

    @invariant()
    def wakes_all(self) -> None:
        """Whoever waits for a job that has ended has its result, and nobody else wakes up."""
        for job_id, task in list(self.tasks):
            job = self.expected.get(job_id)
            if task.done():
                self.tasks.remove((job_id, task))
                if not task.cancelled() and job is not None and "status" in (reply := task.result()):
                    assert reply["status"] in TERMINAL or self.is_closed
                    self.check_result(job, reply)
            else:
                assert job is not None
                assert not job.end

    # --- ending ---------------------------------------------------------------------------------------------

    @rule(job_id=jobs, is_refused=strategies.booleans())
    def cancel(self, job_id: str, is_refused: bool) -> None:
        """A cancel is confirmed by the service, refused by it, or too late."""
        job = self.known(job_id)
        self.remote.script["cancel"] = [RemoteTrouble(Trouble.REFUSED, Failure("conflict"))] if is_refused else []
        reply = self.run(self.handler.cancel_job(job_id))
        self.remote.script["cancel"] = []
        if job is None:
            assert reply == self.unknown(job_id)
            return
        is_sent = not (job.slack or job.end or self.is_closed)
        if reply["success"]:
            assert not job.end
            assert not (is_refused and is_sent)
            job.end = "cancelled"
            asked = {"question": job.question, "effort": job.effort}
            assert reply == {"success": True, "job_id": job_id, "status": "cancelled", **asked}
        else:
            self.seen(job, reply["status"])
            assert job.end or (is_refused and is_sent)
            assert reply.pop("error") == JA["already_finished" if job.end else "cancel_refused"]
            assert reply == {"success": False, "job_id": job_id, "status": job.end or reply["status"]}

    @rule(job_id=jobs)
    def remove(self, job_id: str) -> None:
        """A job that has ended is removed; one that has not is kept."""
        job = self.known(job_id)
        reply = self.run(self.handler.remove_job(job_id))
        if job is None:
            assert reply == self.unknown(job_id)
            return
        self.seen(job, reply["status"])
        if job.end:
            assert reply == {"success": True, "job_id": job_id, "status": job.end}
            del self.expected[job_id]
        else:
            error = JA["not_finished"]
            assert reply == {"success": False, "error": error, "job_id": job_id, "status": reply["status"]}

    @precondition(lambda self: len(self.expected) > 3)
    @rule()
    def clear(self) -> None:
        """All that have ended are removed, and counted."""
        ended = [line["job_id"] for line in self.run(self.handler.list_active_jobs()) if line["status"] in TERMINAL]
        assert self.run(self.handler.clear_finished()) == len(ended)
        for job_id in ended:
            del self.expected[job_id]

    @precondition(lambda self: not self.is_closed and len(self.expected) > 3)
    @rule(timeout=strategies.sampled_from([0.0, 5.0]))
    def close(self, timeout: float) -> None:
        """Closing ends everything within its time: what is under way is cancelled, or told to be unconfirmed."""
        begun = self.loop.time()
        self.run(self.handler.aclose(timeout))
        assert self.loop.time() - begun <= timeout + 5
        self.is_closed = True
        listed = self.run(self.handler.list_active_jobs())
        if self.most is not None:
            assert len(listed) <= self.most
            self.expected = {line["job_id"]: self.expected[line["job_id"]] for line in listed}
        for line in listed:
            assert line["status"] in TERMINAL
            job = self.expected[line["job_id"]]
            if not job.end:
                job.end = line["status"]


Model.TestCase.settings = settings(
    derandomize=True,
    deadline=None,
    max_examples=120,
    stateful_step_count=40,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestModel = Model.TestCase
