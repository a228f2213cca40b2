"""A world of one seed: its plan, the programs that run in it, their users, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from o3pro_bg import AsyncBackgroundHandler, Pace
from o3pro_bg.errors import HandlerClosed, JobNotFinished, JobNotFound, O3ProError, StoreError

from .disk import Disk, LoopStore, WatchedMemory
from .judge import Judge
from .loop import Process
from .service import Service, SimulatedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from o3pro_bg._records import JobRecord

    from .judge import Case

FAR = 30_000.0  # seconds in which every job has ended once nothing goes wrong any more
_PAUSES = (0.0, 0.0, 0.0, 0.1, 1.0, 2.0, 5.0, 15.0)
_NO_ID = "0" * 32


@dataclass(frozen=True)
class Plan:
    """What a seed decides before anything runs."""

    is_durable: bool
    shuffles: bool
    stalls: float
    lost_after: float
    max_in_flight: int
    resubmit_uncertain: bool
    keeps_text: bool
    settings: dict[str, Any]
    lease: float
    slots: int
    steps: int

    @classmethod
    def of(cls, luck: Random, *, is_durable: bool | None = None) -> Plan:
        """Draw a plan."""
        durable = luck.random() < 0.15
        settings: dict[str, Any] = {}
        if luck.random() < 0.4:
            settings["max_concurrency"] = luck.choice((1, 2, 3))
        if luck.random() < 0.3:
            settings["on_close"] = luck.choice(("cancel", "detach"))
        if luck.random() < 0.1:
            settings["retain"] = luck.choice((1, 2))
        if luck.random() < 0.1:
            settings["delete_remote"] = True
        if luck.random() < 0.1:
            settings["timeout"] = luck.choice((3.0, 10.0, 30.0))
        if luck.random() < 0.5:
            settings["pace"] = Pace(floor=1, ceiling=luck.choice((1, 5)), jitter=0)
        return cls(
            is_durable=durable if is_durable is None else is_durable,
            shuffles=luck.random() < 0.8,
            stalls=luck.choice((0.0, 0.0, 0.05)),
            lost_after=luck.choice((5.0, 30.0)),
            max_in_flight=luck.choice((1, 2, 64)),
            resubmit_uncertain=luck.random() < 0.15,
            keeps_text=luck.random() < 0.85,
            settings=settings,
            lease=luck.choice((12.0, 60.0)),
            slots=luck.choice((1, 2, 2, 3)),
            steps=luck.choice((4, 8, 12)),
        )


class Program:
    """A process with a handler, whose calls are judged."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.judge = world.judge
        self.process = Process(name)
        self.is_closed = False
        self.handler: AsyncBackgroundHandler
        self.store: Any
        world.programs.append(self)

    async def call(self, work: Awaitable[Any]) -> Any:
        """Run this in the process and answer what comes of it; None where the process ends meanwhile."""

        async def run() -> Any:
            return await work

        task = self.process.spawn(run())
        while not task.done() and self.process.is_alive:
            await asyncio.wait([task], timeout=5.0)
        return task.result() if task.done() else None

    async def open(self) -> bool:
        """Make the handler and open its store; tell whether that went well."""
        world, plan = self.world, self.world.plan

        async def work() -> bool:
            client = SimulatedClient(world.service, self.judge, plan.max_in_flight)
            self.store = world.store()
            self.handler = AsyncBackgroundHandler(
                client,
                store=self.store,
                lost_after=plan.lost_after,
                max_in_flight=plan.max_in_flight,
                resubmit_uncertain=plan.resubmit_uncertain,
                on_done=lambda job: self.judge.called_back(job.id),
                **plan.settings,
            )
            try:
                await self.handler.list_active_jobs()
            except StoreError:
                self.judge.holds(self.judge.disk_failed, "a sound store cannot be opened")
                return False
            return True

        return bool(await self.call(work()))

    async def close(self, timeout: float) -> None:
        """Close the handler, as a user does who waits for that."""
        if not self.is_closed and self.process.is_alive:
            self.is_closed = True
            self._befalls_all("closed")
            await self.call(self.handler.aclose(timeout))
            self.judge.note("has closed", self.process.name)

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        if self.process.is_alive:
            self.judge.befalls("killed")
            self.process.kill()
            self.world.disk.dead.add(self.process.name)

    def _befalls_all(self, what: str) -> None:
        self.judge.note(what)
        for case in self.judge.cases.values():
            self._befalls(what, case)

    def _befalls(self, what: str, case: Case) -> None:
        if not case.ends:
            case.met.add(what)
            self._leave(case)

    def _leave(self, case: Case) -> None:
        """Note what becomes of a job as its handler closes."""
        # What was not sent cannot be left to anybody in memory; and on disk, a wish to cancel may be left, too.
        is_durable, cancels = self.world.plan.is_durable, self.world.cancels_on_close
        case.is_unwanted |= cancels or not is_durable
        case.was_let_go |= is_durable or not cancels

    # --- what users do --------------------------------------------------------------------------------------

    def user(self, luck: Random, steps: int) -> list[asyncio.Task[Any]]:
        """Let a user do so many things, one after the other, some of them before the one before has ended."""

        async def live() -> None:
            for _ in range(steps):
                await asyncio.sleep(luck.choice(_PAUSES))
                verb = luck.choice(self._VERBS)
                task = self.process.spawn(self._guarded(verb, luck))
                if luck.random() < 0.5:
                    await asyncio.wait([task])

        return [self.process.spawn(live())]

    async def _guarded(self, verb: Callable[[Program, Random], Awaitable[None]], luck: Random) -> None:
        try:
            await verb(self, luck)
        except StoreError:
            self.judge.holds(self.judge.disk_failed or self.is_closed, "a sound store raises")
        except (JobNotFound, HandlerClosed, TimeoutError):
            pass

    def _some_job(self, luck: Random) -> str:
        ids = list(self.judge.cases)
        return luck.choice(ids) if ids and luck.random() < 0.97 else _NO_ID

    async def start(self, luck: Random) -> None:
        """Start a job."""
        number = len(self.judge.cases) + 1
        timeout = luck.choice((None, None, None, None, None, 3.0, 25.0, 100.0))
        key = luck.choice((None, None, None, "a", "b"))
        question = f"question {number}"
        effort, priority = luck.choice(("low", "high")), luck.choice((0, 0, 5))
        reply = await self.handler.start_background_task(
            question, effort, timeout=timeout, dedupe_key=key, priority=priority
        )
        if reply["success"]:
            case = self.judge.case(reply["job_id"])
            case.question = case.question or question
            case.timeout = timeout or self.world.plan.settings.get("timeout") or case.timeout
            case.is_told = True
            if self.is_closed:  # by now; it may even have ended by that
                case.met.add("closed")
                self._leave(case)
        else:
            reason = self.is_closed or self.judge.disk_failed
            self.judge.holds(reason, f"a start is refused: {reply['error']}")
        self.judge.obeys("start", reply.get("job_id", ""), dict(reply))

    async def ask(self, luck: Random) -> None:
        """Ask for what is known of a job."""
        job_id = self._some_job(luck)
        self.judge.obeys("status", job_id, dict(await self.handler.check_status(job_id)))
        self.judge.obeys("result", job_id, dict(await self.handler.get_result(job_id)))
        for listed in await self.handler.list_active_jobs():
            self.judge.holds({*listed} == {"job_id", "status", "question", "effort", "elapsed_time"}, f"{listed}")

    async def wait(self, luck: Random) -> None:
        """Wait for a job, with a time-out, or without."""
        job_id = self._some_job(luck)
        timeout = luck.choice((None, None, 0.0, 3.0, 30.0))
        self.judge.obeys("wait", job_id, dict(await self.handler.wait(job_id, timeout)))

    async def wait_for_all(self, luck: Random) -> None:
        """Wait for all jobs."""
        async for job_id, reply in self.handler.as_completed(timeout=luck.choice((None, 10.0, 60.0))):
            self.judge.obeys("wait", job_id, dict(reply))

    async def give_up(self, luck: Random) -> None:
        """Have a wait, or a cancel, cancelled: the job shall not mind."""
        verb = luck.choice((Program.wait, Program.wait_for_all, Program.cancel, Program.start))
        task = self.process.spawn(self._guarded(verb, luck))
        await asyncio.sleep(luck.choice(_PAUSES))
        task.cancel()
        await asyncio.wait([task])

    async def cancel(self, luck: Random) -> None:
        """Cancel a job."""
        await self._cancel(self._some_job(luck))

    async def cancel_in_the_end(self, luck: Random) -> None:
        """Cancel a job as it ends, or a moment before or after."""
        job_id = self._some_job(luck)
        ends = [response.ends for response in self.world.service.responses.values() if response.job_id == job_id]
        moment = (ends[-1] if ends else 0.0) + luck.choice((-1.0, -0.5, 0.0, 0.0, 0.0, 0.5, 1.0))
        await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
        await self._cancel(job_id)

    async def cancel_all(self) -> None:
        """Cancel whatever has not ended."""
        for case in [case for case in self.judge.cases.values() if not case.ends]:
            self.process.spawn(self._cancel(case.job_id))

    async def _cancel(self, job_id: str) -> None:
        if job_id in self.judge.cases:
            self.judge.cases[job_id].is_unwanted = True
            self.judge.befalls("cancel", [self.judge.cases[job_id]])
        self.judge.obeys("cancel", job_id, dict(await self.handler.cancel_job(job_id)))

    async def remove(self, luck: Random) -> None:
        """Remove a job, or all that have ended."""
        job_id = self._some_job(luck)
        is_one = luck.random() < 0.8
        cases = [case for case in self.judge.cases.values() if not is_one or case.job_id == job_id]
        for case in cases:
            case.removals += 1
        if not is_one:
            self.judge.note("clears", await self.handler.clear_finished())
            return
        reply = await self.handler.remove_job(job_id)
        self.judge.obeys("remove", job_id, dict(reply))
        if not reply["success"] and cases:
            cases[0].removals -= 1

    async def attach(self, luck: Random) -> None:
        """Take up a job by its token, here or in another program's place."""
        job_id = self._some_job(luck)
        with suppress(JobNotFinished):
            token = self.handler.job(job_id).continuation_token()
            job = await self.handler.attach(token)
            if self.is_closed:  # by now
                self._leave(self.judge.case(job.id))

    _VERBS = (start, start, start, start, start, start, ask, ask, wait, wait, wait_for_all, give_up, give_up, cancel,
              cancel_in_the_end, cancel_in_the_end, remove, attach)  # fmt: skip


class World:
    """Everything of one seed."""

    def __init__(self, plan: Plan, luck: Random, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.plan = plan
        self.luck = luck
        self.programs: list[Program] = []
        self.judge = Judge(
            loop.time,
            plan.lost_after,
            opted_in=plan.resubmit_uncertain,
            keeps_text=plan.keeps_text or not plan.is_durable,
            is_durable=plan.is_durable,
        )
        self.judge.max_concurrency = plan.settings.get("max_concurrency")
        self.service = Service(luck, self.judge)
        self.disk = Disk(path, luck, self.judge)
        self.wall_shift = 0.0
        default = "detach" if plan.is_durable else "cancel"
        self.cancels_on_close = plan.settings.get("on_close", default) == "cancel"

    def store(self) -> Any:
        """Answer a store of a new process."""
        if not self.plan.is_durable:
            return WatchedMemory(self.judge)
        return LoopStore(self.disk, lease=self.plan.lease, store_text=self.plan.keeps_text)

    async def run(self) -> list[tuple[set[str], str]]:
        """Let everything happen, then let it come to an end; answer what befell each job, and its outcome."""
        jumps = asyncio.ensure_future(self._jump_clocks())
        if self.plan.is_durable:
            troubles = asyncio.ensure_future(self._trouble_disk())
            await asyncio.gather(*(self._tend(str(slot)) for slot in range(self.plan.slots)))
            troubles.cancel()
            await asyncio.wait([troubles])
        else:
            await self._tend_one()
        jumps.cancel()
        self._heal()
        return self._verdicts(await self._end())

    def _heal(self) -> None:
        self.judge.note("all is well from now on")
        self.service.weather.is_calm = True
        self.disk.is_full = False
        self.disk.is_sound = True
        for program in self.programs:
            program.process.go_on()

    # --- what happens to programs ---------------------------------------------------------------------------

    async def _tend_one(self) -> None:
        """Run a program that keeps its jobs in memory, and perhaps close it in the midst of that."""
        program = Program(self, "a")
        await program.open()
        users = [task for _ in range(self.luck.choice((1, 2))) for task in program.user(self.luck, self.plan.steps)]
        if self.luck.random() < 0.4:
            await asyncio.sleep(self.luck.choice((0.0, 1.0, 5.0, 20.0, 60.0)))
            await program.close(self.luck.choice((0.0, 0.5, 5.0)))
        await asyncio.wait(users)

    async def _tend(self, slot: str) -> None:
        """Run programs, one after the other, that keep their jobs in the file; each has its fate."""
        for number in range(self.luck.choice((1, 2, 3))):
            await asyncio.sleep(self.luck.choice((0.0, 0.0, 1.0, 10.0)))
            program = Program(self, f"{slot}.{number}")
            if not await program.open():
                await program.close(0.0)
                continue
            users = program.user(self.luck, self.plan.steps)
            await asyncio.wait(users, timeout=self.luck.choice((0.0, 1.0, 5.0, 20.0, 60.0, FAR)))
            fate = self.luck.choice(("none", "kill", "kill", "stop", "close", "close"))
            if fate == "stop":
                self.judge.befalls("stopped")
                program.process.stop()
                await asyncio.sleep(self.luck.choice((1.0, 10.0, 60.0)))
                program.process.go_on()
                self.judge.note("goes on", program.process.name)
            elif fate == "kill":
                program.kill()
            elif fate == "close":
                if self.luck.random() < 0.5:  # what ends as its handler closes is told, and written, in the last moment
                    program.process.spawn(program.cancel_all())
                await program.close(self.luck.choice((0.0, 0.5, 5.0)))

    async def _trouble_disk(self) -> None:
        """Let the disk be full at times."""
        if self.luck.random() < 0.7:
            return
        while True:
            await asyncio.sleep(self.luck.choice((2.0, 10.0, 40.0)))
            self.judge.befalls("disk full")
            self.disk.is_full = True
            await asyncio.sleep(self.luck.choice((0.5, 5.0, 20.0)))
            self.disk.is_full = False
            self.judge.note("disk has room")

    async def _jump_clocks(self) -> None:
        """Let the wall clock be set at times."""
        if self.luck.random() < 0.7:
            return
        while True:
            await asyncio.sleep(self.luck.choice((1.0, 10.0, 60.0)))
            self.wall_shift += self.luck.choice((-3600.0, -5.0, 5.0, 3600.0))
            self.judge.befalls("clock set")

    # --- how it ends ----------------------------------------------------------------------------------------

    async def _end(self) -> dict[str, JobRecord]:
        """Have every job end, every handler closed and every waiter woken up; answer the records."""
        last = self.programs[0]
        if self.plan.is_durable:
            last = Program(self, "end")
            self.judge.holds(await last.open(), "the store cannot be opened in the end")
        if not last.is_closed:
            await last.call(self._wait_for_all(last))
        await self._all_awake()
        if not last.is_closed:
            await last.call(self._wait_for_all(last))  # for what was started meanwhile
        for program in self.programs:
            if program is not last:
                await program.close(5.0)
        await asyncio.sleep(10)  # until what they did last is seen
        records = {record.job_id: record for record in last.store.snapshot()}
        await last.close(5.0)
        await self._all_awake()
        return records

    async def _wait_for_all(self, last: Program) -> None:
        try:
            for job_id, reply in (await last.handler.wait_all(timeout=FAR)).items():
                self.judge.obeys("wait", job_id, dict(reply))
        except TimeoutError as error:
            waiting = {self.judge.name(r.job_id): (r.status.value, r.waiting) for r in last.store.snapshot()}
            self.judge.holds(condition=False, what=f"jobs never end: {error}: {waiting}")

    async def _all_awake(self) -> None:
        """Hold that whoever waited for anything in a process that was not killed does not wait any more."""
        processes = [program.process for program in self.programs if program.process.is_alive]
        while asleep := [task for process in processes for task in process.tasks if not task.done()]:
            woken = (await asyncio.wait(asleep, timeout=FAR, return_when=asyncio.FIRST_COMPLETED))[0]
            self.judge.holds(woken, f"nobody wakes up {sorted(map(repr, asleep))}")
        for task in [task for process in processes for task in process.tasks]:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.judge.holds(isinstance(error, O3ProError), f"a call raises {error!r}")

    def _verdicts(self, records: dict[str, JobRecord]) -> list[tuple[set[str], str]]:
        self.judge.is_over = True
        self.judge.keys(records.values())
        verdicts = []
        for case in self.judge.cases.values():
            record = records.get(case.job_id)
            known = record and record.response_id
            its_own = [one for one in self.service.responses.values() if one.job_id == case.job_id or one.id == known]
            case.removals += "retain" in self.plan.settings or not case.is_told
            outcome = self.judge.judges(case, record, its_own)
            self.judge.note("verdict", case.name, outcome, sorted(case.met))
            verdicts.append((case.met, outcome))
        return verdicts
