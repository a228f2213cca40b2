"""Many jobs against services that allow little: all are done, hardly any create is refused, no allowance is wasted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING

import pytest

from o3pro_bg._budget import Limits
from o3pro_bg._pacing import Pace
from o3pro_bg._records import JobRequest, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.testing import Failure

from .virtual import Bench, Recorder, now, trouble, virtual

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
    """Where a create lasts as long as its job, the next one does not wait for its answer."""
    bench = Bench(Recorder(background=False, seconds=1000))
    for number in range(50):
        bench.start(str(number))
    await asyncio.sleep(1)
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
