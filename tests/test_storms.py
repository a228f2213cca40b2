"""Many jobs against services that allow little: all are done, hardly any create is refused, no allowance is wasted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._budget import Limits
from o3pro_bg._pacing import Pace
from o3pro_bg._records import JobRequest, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.testing import Failure

from .virtual import Bench, Recorder, SlowStore, now, trouble, virtual

if TYPE_CHECKING:
    from collections.abc import Callable


class Strict(Recorder):
    """
    A service that allows `rpm` creates, or `tpm` tokens, in `window` seconds' share of a minute.

    Args:
        window: None is a sliding minute; else the fixed seconds in which the service counts.
        tells: Whether it sends headers.
        names: Whether its 429s name a time.
    """

    def __init__(
        self, rpm: int = 160, *, tpm: float = 1e9, window: float | None = None, tells: bool = True, names: bool = True
    ) -> None:
        super().__init__(seconds=2.0, latency=0.2)
        self.rpm, self.tpm, self.window, self.tells, self.names = rpm, tpm, window, tells, names
        self.let_in: deque[tuple[float, int]] = deque()
        self.accepted_at: list[float] = []
        self.refused = 0
        self.luck = random.Random(7)

    async def create(self, job_id: str, request: JobRequest) -> News:
        tokens = request.options.get("max_output_tokens", 0)
        await asyncio.sleep(self.latency * self.luck.uniform(0.25, 0.75))
        self._forget()
        is_full = len(self.let_in) >= self.rpm * (self.window or 60) / 60
        if is_full or sum(used for _, used in self.let_in) + tokens > self.tpm:
            self.refused += 1
            after = float(int(self._opens_at() - now()) + 1) if self.names else None
            raise RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=after, limits=self._limits())
        self.let_in.append((now(), tokens))
        self.accepted_at.append(now())
        limits = self._limits()
        await super().create(job_id, request)
        return News(Event.ACCEPTED, response_id=f"resp_fake_{len(self._born)}", limits=limits)

    def _forget(self) -> None:
        begin = now() - 60 if self.window is None else now() // self.window * self.window
        while self.let_in and (self.let_in[0][0] <= begin if self.window is None else self.let_in[0][0] < begin):
            self.let_in.popleft()

    def _opens_at(self) -> float:
        if not self.let_in:
            return now() + 20
        return self.let_in[0][0] + 60 if self.window is None else (now() // self.window + 1) * self.window

    def _limits(self) -> Limits | None:
        left = self.tpm - sum(used for _, used in self.let_in)
        per_window = int(self.rpm * (self.window or 60) / 60)
        return Limits(self.rpm, max(0, per_window - len(self.let_in)), self.tpm, left) if self.tells else None


async def storm(remote: Strict, jobs: int, handlers: int = 1, tokens: int = 0) -> tuple[float, float]:
    """Have so many jobs done by handlers that do not know each other; answer what was refused, and the rate."""
    benches = [Bench(remote, pace=Pace(floor=2, ceiling=2)) for _ in range(handlers)]
    request = JobRequest("question", "low", options={"max_output_tokens": tokens} if tokens else {})
    for number in range(jobs):
        benches[number % handlers].start(str(number), request=request)
    for number in range(jobs):
        record = await benches[number % handlers].ledger.wait(str(number))
        assert record.status is JobStatus.COMPLETED
    assert len(remote.accepted_at) == jobs, "each once"
    return remote.refused / (remote.refused + jobs), jobs / remote.accepted_at[-1] * 60


@pytest.mark.parametrize(
    ("make", "refused", "used"),
    [
        pytest.param(lambda: Strict(), 0.002, 0.99, id="a sliding minute"),
        pytest.param(lambda: Strict(window=60), 0.002, 0.99, id="a fixed minute"),
        pytest.param(lambda: Strict(window=10), 0.01, 0.95, id="ten seconds"),
        pytest.param(lambda: Strict(names=False), 0.002, 0.99, id="no retry-after"),
        pytest.param(lambda: Strict(tells=False), 0.025, 0.95, id="no headers"),
        pytest.param(lambda: Strict(window=60, tells=False), 0.025, 0.95, id="a fixed minute, no headers"),
        pytest.param(lambda: Strict(window=10, tells=False), 0.025, 0.85, id="ten seconds, no headers"),
    ],
)
def test_a_storm_of_jobs_uses_the_allowance_and_no_more(
    make: Callable[[], Strict], refused: float, used: float
) -> None:
    """
    Of 1,000 jobs at 160 a minute under 2 % are refused, and 95 % of the allowance is used, however it is measured.

    Where no header tells the limit, the overshoot from which it is learnt costs up to 16 refusals more; and what counts
    in tens of seconds is then used to 85 %.
    """

    @virtual
    async def run() -> None:
        share, rate = await storm(make(), 1000)
        assert share <= refused
        assert rate >= used * 160

    run()


@virtual
async def test_handlers_that_share_a_deployment_share_its_allowance() -> None:
    """Four handlers that know nothing of each other are refused little, and none of them is left behind."""
    share, rate = await storm(Strict(), 1000, handlers=4)
    assert share <= 0.03
    assert rate >= 0.6 * 160


@virtual
async def test_tokens_that_are_set_aside_are_budgeted() -> None:
    """Jobs that may answer at length are spread by the tokens of a minute, though its requests would allow more."""
    share, rate = await storm(Strict(tpm=160_000), 300, tokens=4000)
    assert share == 0
    assert rate >= 0.95 * 40


@virtual
async def test_a_small_allowance_is_used_as_well() -> None:
    """A deployment that allows ten creates a minute is neither overrun nor left idle."""
    share, rate = await storm(Strict(10), 60)
    assert share <= 0.05
    assert rate >= 9.5


# --- why jobs wait, and in which order ----------------------------------------------------------------------------


@virtual
async def test_all_who_wait_for_the_rate_say_so(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand jobs that wait because of a 429 each tell it in their record, and the log tells it once."""
    caplog.set_level(logging.INFO, "o3pro_bg")
    bench = Bench()
    bench.remote.latency = 1.0
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=100)] * 4
    for number in range(1000):
        bench.start(str(number))
    await asyncio.sleep(0.5)
    assert {bench.record(str(number)).waiting for number in range(1000)} == {""}
    await asyncio.sleep(1)
    assert {bench.record(str(number)).waiting for number in range(1000)} == {"rate_limit"}
    assert caplog.text.count("no create for 100.0 seconds") == 1
    await bench.engine.close(0)


@virtual
async def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    """When the gate opens, jobs go by priority and, among equals, as they were submitted."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=10)]
    bench.start("first")
    await asyncio.sleep(1.5)
    for name, priority in (("second", 0), ("urgent", 7), ("third", 0), ("idle", -1), ("as urgent", 7)):
        bench.start(name, request=JobRequest("question", "low", priority=priority))
        await asyncio.sleep(0.1)
    await bench.ledger.wait("idle")
    assert [job_id for job_id, _ in bench.remote.asked[1:]] == [
        "urgent",
        "as urgent",
        "first",
        "second",
        "third",
        "idle",
    ]


@virtual
async def test_priority_counts_for_slots_too() -> None:
    """With `max_concurrency` the highest priority gets the next slot."""
    bench = Bench(max_concurrency=1)
    for name, priority in (("first", 0), ("second", 0), ("urgent", 1)):
        bench.start(name, request=JobRequest("question", "low", priority=priority))
    await asyncio.sleep(1)
    assert bench.record("urgent").waiting == "concurrency"
    for name in ("first", "second", "urgent"):
        await bench.end(name)
    assert [job_id for job_id, _ in bench.remote.asked] == ["first", "urgent", "second"]


@virtual
async def test_deployments_have_budgets_of_their_own() -> None:
    """A 429 of one deployment does not hold up the jobs of another."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=100)]
    bench.start("one", request=JobRequest("question", "low", "one"))
    await asyncio.sleep(1)
    bench.start("other", request=JobRequest("question", "low", "other"))
    await asyncio.sleep(1)
    assert (bench.record("one").waiting, bench.record("other").response_id) == ("rate_limit", "resp_fake_1")
    await bench.engine.close(0)


@virtual
async def test_a_foreground_create_keeps_no_other_from_going() -> None:
    """Where creates last as long as their jobs, one that is not refused within a second makes room for the next."""
    bench = Bench(Recorder(background=False, seconds=1000))
    for number in range(50):
        bench.start(str(number))
    await asyncio.sleep(5)
    assert bench.remote.counts["create"] == 50
    await bench.engine.close(0)


@virtual
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_leave_that_comes_too_late_is_given_back(turns: int) -> None:
    """A job that is cancelled in the moment in which it may go takes nobody's place."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=1)] * 4
    for number in range(6):
        bench.start(str(number))
    await asyncio.sleep(2)
    for _ in range(turns):
        await asyncio.sleep(0)
    for number in range(5):
        bench.tasks[str(number)].cancel()
    assert (await bench.end("5")).status is JobStatus.COMPLETED


# --- what one job may not do to the others ------------------------------------------------------------------------


def asking(**options: Any) -> JobRequest:
    """Answer a request with these options."""
    return JobRequest("question", "low", options=options)


@virtual
async def test_an_absurd_job_harms_no_other() -> None:
    """A job that asks for more tokens than there are numbers is sent, or refused, like any other."""
    bench = Bench()
    bench.start("paid")
    bench.start("poison", request=asking(max_output_tokens=10**400))
    for number in range(5):
        bench.start(str(number))
    for job_id in ("paid", "poison", "0", "4"):
        assert (await bench.ledger.wait(job_id)).status is JobStatus.COMPLETED


@virtual
@pytest.mark.parametrize("tells", [False, True])
async def test_a_job_that_is_never_admitted_does_not_keep_the_others_waiting(tells: bool) -> None:
    """Refused again and again a job goes behind the others; one that no minute holds fails, where the limit is told."""
    remote = Strict(tpm=10_000, tells=False)
    bench = Bench(remote)
    if tells:
        limits = Limits(tokens=10_000.0)
        refusal = RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=20.0, limits=limits)
        bench.remote.script["create"] = [refusal]
        remote.tpm = 10**9
    bench.start("big", request=asking(max_output_tokens=20_000))
    await asyncio.sleep(1)
    for number in range(20):
        bench.start(str(number), request=asking(max_output_tokens=100))
    await asyncio.sleep(600)
    assert [bench.record(str(number)).status for number in range(20)] == [JobStatus.COMPLETED] * 20
    told = Failure("larger_than_quota", "max_output_tokens is 20000, the quota 10000 a minute")
    assert bench.record("big").failure == (told if tells else None)
    await bench.engine.close(0)


@virtual
async def test_a_job_that_a_whole_minute_holds_is_sent_again() -> None:
    """A job that may answer with as many tokens as a minute allows, and no more, is not too large."""
    bench = Bench()
    limits = Limits(tokens=20_000.0)
    bench.remote.script["create"] = [RemoteTrouble(Trouble.THROTTLED, Failure("429"), retry_after=1.0, limits=limits)]
    bench.start(request=asking(max_output_tokens=20_000))
    assert (await bench.end()).status is JobStatus.COMPLETED


@virtual
@pytest.mark.parametrize(
    ("refusals", "asked"),
    [(1, ["first", "first", "second"]), (2, ["first", "first", "second", "first"])],
)
async def test_a_job_that_is_refused_once_keeps_its_place(refusals: int, asked: list[str]) -> None:
    """After a first 429 the oldest job goes first all the same; refused again it goes behind those who wait."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=5)] * refusals
    bench.start("first")
    await asyncio.sleep(0.5)
    bench.start("second")
    for job_id in ("first", "second"):
        await bench.end(job_id)
    assert [job_id for job_id, _ in bench.remote.asked] == asked


@virtual
@pytest.mark.parametrize("how", ["cancelled", "expired", "withdrawn"])
async def test_when_the_first_one_leaves_the_line_the_next_one_goes(how: str) -> None:
    """Whoever waited behind a job that would have waited for long goes as soon as that is cancelled, or expires."""
    bench = Bench(Recorder(seconds=5))
    bench.remote.script["create"] = [
        News(Event.ACCEPTED, response_id="resp_1", limits=Limits(tokens=10_000, tokens_left=5000))
    ]
    bench.start("first", request=asking(max_output_tokens=6000))
    await asyncio.sleep(1)
    big = JobRequest("question", "low", options={"max_output_tokens": 9000}, timeout=9 if how == "expired" else None)
    bench.start("big", request=big)
    await asyncio.sleep(1)
    bench.start("small", request=asking(max_output_tokens=10))
    await asyncio.sleep(8)
    assert bench.record("small").waiting == "rate_limit"
    if how == "cancelled":
        bench.tasks["big"].cancel()
    if how == "withdrawn":
        await bench.engine.cancel("big")
    await asyncio.sleep(1)
    assert bench.record("small").response_id is not None


@virtual
async def test_a_wish_reaches_an_uncertain_job_at_the_door() -> None:
    """A job that may have been accepted, and waits to be sent again, ends as uncertain once it is cancelled."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.THROTTLED, after=7200)]
    bench.start()
    await asyncio.sleep(10)
    await bench.engine.cancel("job")
    record = await bench.end()
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert now() < 12


@virtual
async def test_a_wish_reaches_an_uncertain_job_that_is_about_to_leave() -> None:
    """A job that may have been accepted is not sent again if it is cancelled while it waits for a token."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR)]
    bench.start()
    await asyncio.sleep(0.1)

    async def prepare() -> None:
        await asyncio.sleep(10)

    bench.remote.prepare = prepare  # type: ignore[method-assign]
    await asyncio.sleep(5)
    await bench.engine.cancel("job")
    record = await bench.end()
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert bench.remote.counts["create"] == 1


@virtual
async def test_close_leaves_an_uncertain_job_at_the_door_to_the_next_process() -> None:
    """A durable job that waits to be sent again is let go at once, as unsure as it was."""
    bench = Bench(store=SlowStore(0.01), resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.THROTTLED, after=7200)]
    bench.start()
    await asyncio.sleep(10)
    await bench.engine.close(5)
    assert now() < 12
    assert (bench.record().status, bench.record().doubtful + (bench.record().sent_at is not None)) == (
        JobStatus.STARTED,
        1,
    )


@virtual
async def test_a_job_that_is_refused_holds_no_slot() -> None:
    """While a 429 keeps jobs back, `max_concurrency` is not used up by them: the highest priority goes first."""
    bench = Bench(Recorder(seconds=600, latency=1.0), max_concurrency=2)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=100)] * 2
    bench.start("one")
    bench.start("two")
    await asyncio.sleep(5)
    bench.start("urgent", request=JobRequest("question", "low", priority=10))
    bench.start("other", request=JobRequest("question", "low", "other deployment"))
    await asyncio.sleep(200)
    assert [job_id for job_id, _ in bench.remote.asked] == ["one", "two", "other", "urgent"]
    assert bench.record("one").waiting in ("concurrency", "rate_limit")
    for job_id in ("one", "two", "urgent", "other"):
        assert (await bench.ledger.wait(job_id)).status is JobStatus.COMPLETED


@virtual
async def test_a_job_that_may_run_keeps_its_slot() -> None:
    """What may have been accepted counts as under way while it waits to be sent again, even behind a 429."""
    bench = Bench(Recorder(seconds=5), max_concurrency=1, resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.THROTTLED, after=100)]
    bench.start("unsure")
    bench.start("other", request=JobRequest("question", "low", priority=10))
    await asyncio.sleep(60)
    assert [job_id for job_id, _ in bench.remote.asked] == ["unsure", "unsure"]
    await bench.ledger.wait("other")
    await bench.ledger.wait("unsure")
    assert [job_id for job_id, _ in bench.remote.asked] == ["unsure", "unsure", "unsure", "other"]


@virtual
async def test_long_creates_learn_no_rate_from_refusals() -> None:
    """In the foreground, too, hardly any create is refused."""
    remote = Strict(60, tells=False)
    remote.background = False
    share, _ = await storm(remote, 300)
    assert share <= 0.08, "of 300, the first 16 are a twentieth"


@virtual
async def test_jobs_say_that_no_create_is_answered() -> None:
    """While the creates on their way hang, those who wait for their turn say that it is the connection."""
    bench = Bench(Recorder(latency=50.0))
    for number in range(20):
        bench.start(str(number))
    await asyncio.sleep(2)
    assert [bench.record(str(number)).waiting for number in range(20)] == [""] * 4 + ["connection"] * 16
    await bench.engine.close(0)


@virtual
@pytest.mark.parametrize("when", ["prepare", "place"])
async def test_what_never_left_does_not_count(when: str) -> None:
    """A job that is cancelled before its question has left takes nothing of the allowance."""
    remote = Recorder(seconds=5)
    bench = Bench(remote, max_in_flight=64 if when == "prepare" else 1)
    remote.script["create"] = [News(Event.ACCEPTED, response_id="resp_1", limits=Limits(requests=10))]
    bench.start("first")
    await asyncio.sleep(20)

    async def prepare() -> None:
        await asyncio.sleep(3)

    remote.prepare = prepare  # type: ignore[method-assign]
    for number in range(3):
        bench.start(str(number))
    await asyncio.sleep(1)
    for number in range(3):
        bench.tasks[str(number)].cancel()
    await asyncio.sleep(1)
    budget = bench.engine._shared.door_of("")._budget
    assert (budget._requests._sum, budget._requests._on_its_way) == (1, 0)


@virtual
@pytest.mark.parametrize(("kind", "counted"), [(Trouble.UNCLEAR, 2), (Trouble.REFUSED, 2), (Trouble.UNSENT, 1)])
async def test_what_may_have_arrived_counts(kind: Trouble, counted: int) -> None:
    """A create takes its part of the allowance unless it provably did not arrive."""
    bench = Bench(Recorder(seconds=5))
    bench.remote.script["create"] = [News(Event.ACCEPTED, response_id="resp_1"), trouble(kind)]
    for job_id in ("first", "second"):
        bench.start(job_id)
        await asyncio.sleep(0.2)
    budget = bench.engine._shared.door_of("")._budget
    assert (budget._requests._sum, budget._requests._on_its_way) == (counted, 0)
    await bench.engine.close(0)


@virtual
async def test_who_comes_while_one_tries_after_a_429_says_why_he_waits() -> None:
    """Until the first create after a 429 is answered, whoever waits says that it is the rate."""
    bench = Bench(Recorder(latency=2.0))
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=10)]
    bench.start("first")
    await asyncio.sleep(12.5)
    assert bench.remote.counts["create"] == 2
    bench.start("late")
    await asyncio.sleep(0.1)
    assert bench.record("late").waiting == "rate_limit"
    await bench.engine.close(0)


@virtual
async def test_a_door_has_one_timer() -> None:
    """However many jobs come to a door that a 429 has closed, one timer waits for the moment in which it opens."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=100)]
    for number in range(50):
        bench.start(str(number))
        await asyncio.sleep(0.1)
    timers = [timer for timer in vars(asyncio.get_running_loop())["_scheduled"] if not timer.cancelled()]
    assert [timer.when() for timer in timers] == [pytest.approx(100, abs=1)]
    await bench.engine.close(0)


@virtual
async def test_many_who_wait_are_all_told_of_one_429() -> None:
    """A single 429 is told to a thousand jobs that wait behind one, bit by bit, and by no other news."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=100)]
    for number in range(1000):
        bench.start(str(number))
    await asyncio.sleep(2)
    assert {bench.record(str(number)).waiting for number in range(1000)} == {"rate_limit"}
    for number in range(1, 1000):
        bench.tasks[str(number)].cancel()
    await asyncio.sleep(1)
    assert len(bench.engine._shared.door_of("")._line._heap) < 200, "who has gone is not kept for as long"
    await bench.engine.close(0)


@virtual
async def test_who_may_run_already_waits_in_the_same_order() -> None:
    """A job that is to be sent again, and holds its slot, goes after those of a higher priority, and before others."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.THROTTLED, after=100)]
    bench.start("unsure")
    await asyncio.sleep(10)
    for name, priority in (("idle", -1), ("urgent", 1)):
        bench.start(name, request=JobRequest("question", "low", priority=priority))
    await bench.ledger.wait("idle")
    assert [job_id for job_id, _ in bench.remote.asked] == ["unsure", "unsure", "urgent", "unsure", "idle"]
    await bench.engine.close(0)


@virtual
async def test_a_create_that_fails_makes_room_at_once() -> None:
    """Whoever waits for the answer of another's create goes when that has failed, not when it is sent again."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1, resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR)]
    bench.start("first")
    bench.start("second")
    await asyncio.sleep(10)
    assert bench.remote.times("create")[:2] == [0.0, 1.0]
    assert [job_id for job_id, _ in bench.remote.asked] == ["first", "second", "first"]
    await bench.engine.close(0)


@virtual
async def test_creates_and_looks_take_turns() -> None:
    """Five thousand jobs are sent in about the time that their creates need, however many looks are due."""
    bench = Bench(Recorder(seconds=1200, latency=0.2))
    for number in range(5000):
        bench.start(str(number))
    while bench.remote.counts["create"] < 5000:
        await asyncio.sleep(1)
    assert now() < 130, "16 at a time take 63 s where there are no looks"
    await bench.engine.close(0)


@virtual
async def test_two_failed_connects_are_not_two_minutes_of_them() -> None:
    """Time that a job waits because of a 429 is none in which the service could not be reached."""
    bench = Bench(Recorder(seconds=5, latency=0.1))
    bench.remote.script["create"] = [trouble(Trouble.UNSENT)]
    bench.start("job")
    await asyncio.sleep(0.3)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=300)]
    bench.start("other")
    await asyncio.sleep(5)
    bench.remote.script["create"] = [trouble(Trouble.UNSENT)] * 2
    assert (await bench.ledger.wait("job")).status is JobStatus.COMPLETED
