"""How one job lives: what is promised of its create, its looks, its cancel, its deadline and its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from o3pro_bg._engine import CancelVerdict
from o3pro_bg._life import Life
from o3pro_bg._pacing import Pace
from o3pro_bg._records import Failure, JobRequest, News, Usage
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.errors import JobNotFound
from o3pro_bg.testing import RemoteTrouble, Trouble, VirtualLoop, run_virtual
from tests.virtual import RUNNING, Bench, Recorder, now, trouble, virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from o3pro_bg._remote import Remote

ACCEPTED = News(Event.ACCEPTED, response_id="resp_fake_1")
FOR_EVER = 10_000


@pytest.fixture(autouse=True)
def _no_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Luck is always in the middle: pauses are the same in every run."""
    monkeypatch.setattr(random, "random", lambda: 0.5)


# --- the moments in which something may be wanted of a job ------------------------------------------------------


class Moment(NamedTuple):
    """A moment in the life of the job "job": it is reached at 4.5 s and lasts beyond 5 s."""

    is_sent: bool
    arrive: Callable[[Bench], Awaitable[None]]
    remote: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default is never changed
    engine: dict[str, Any] = {}  # noqa: RUF012
    response_id: str | None = None

    async def reach(self, *, timeout: float | None = None, **settings: Any) -> Bench:
        """Answer a bench whose job is in this moment."""
        bench = Bench(Recorder(**self.remote), **self.engine, **settings)
        if self.engine:
            bench.start("rival")
        bench.start(timeout=timeout, response_id=self.response_id)
        await self.arrive(bench)
        await asyncio.sleep(4.5 - now())
        return bench


async def _at_once(_: Bench) -> None: ...


async def _refused_for_now(bench: Bench) -> None:
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=50)]


async def _unreachable(bench: Bench) -> None:
    bench.remote.script["create"] = [trouble(Trouble.UNSENT)] * 4  # at 0, 0.75, 2.25 and 5.25 s


async def _slow_from_3_on(bench: Bench) -> None:
    await asyncio.sleep(3)
    bench.remote.latency = 4.5


async def _slow_connect(bench: Bench) -> None:
    link, connect = bench.engine._shared.link, bench.engine._shared.link.connect

    async def connect_slowly() -> Remote:
        await asyncio.sleep(8)
        return await connect()

    link.connect = connect_slowly


MOMENTS = {
    "waiting for a slot": Moment(False, _at_once, engine={"max_concurrency": 1}),
    "waiting for the connection": Moment(False, _slow_connect),
    "behind the closed gate": Moment(False, _refused_for_now),
    "in backoff": Moment(False, _unreachable),
    "waiting for the in-flight bound": Moment(False, _at_once, {"latency": 6.0}, {"max_in_flight": 1}),
    "in a foreground request": Moment(False, _at_once, {"background": False}),
    "its create under way": Moment(True, _at_once, {"latency": 6.0}),
    "napping": Moment(True, _at_once),
    "a look under way": Moment(True, _slow_from_3_on),
    "attached and waiting for the connection": Moment(True, _slow_connect, response_id="resp_x"),
    "attached and napping": Moment(True, _at_once, response_id="resp_x"),
}
every_moment = pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
every_sent_moment = pytest.mark.parametrize(
    "moment", [m for m in MOMENTS.values() if m.is_sent], ids=[name for name, m in MOMENTS.items() if m.is_sent]
)


def creates(bench: Bench) -> int:
    """Count how often the job was sent."""
    return [job_id for job_id, _ in bench.remote.asked].count("job")


async def service_says(bench: Bench) -> Event | None:
    """Answer what the service says of the job's response."""
    response_id = bench.record().response_id
    assert response_id is not None
    bench.remote.script["look"].clear()
    return (await bench.remote.look(response_id)).event


# --- create and look --------------------------------------------------------------------------------------------


@virtual
async def test_a_job_is_created_once_and_looked_at_by_pace_until_it_ends() -> None:
    """One create, looks at the times of Pace, none after the terminal one."""
    bench = Bench()
    bench.start()
    record = await bench.end()
    await asyncio.sleep(300)
    expected, pace = [2.0], Pace(jitter=0)
    while expected[-1] < 60:
        expected.append(expected[-1] + pace.delay(expected[-1], 0.5))
    assert bench.remote.times("create") == [0]
    assert bench.remote.times("look") == [round(at, 3) for at in expected]
    assert record.status is JobStatus.COMPLETED
    assert record.answer == "fake answer of resp_fake_1"
    assert record.usage == Usage(10, 100, 80)


@pytest.mark.parametrize(
    ("create", "look", "times"),
    [
        (None, News(Event.PROGRESSED, poll_after=25), [2, 27, 30.118]),
        (News(Event.ACCEPTED, response_id="resp_fake_1", poll_after=40), None, [40, 43.795]),
        # The naive way takes 0 at its word, and looks as fast as the machine can.
        (None, News(Event.PROGRESSED, poll_after=0), [2, 4]),
        (News(Event.ACCEPTED, response_id="resp_fake_1", poll_after=0), None, [2, 4]),
    ],
)
@virtual
async def test_the_services_hint_wins_over_pace(create: News | None, look: News | None, times: list[float]) -> None:
    """The next look comes when the service asked for it, after a create as after a look; a hint of 0 is none."""
    bench = Bench()
    bench.remote.script.update(create=[create], look=[look])
    bench.start()
    await bench.end()
    assert bench.remote.times("look")[: len(times)] == times


@virtual
async def test_a_job_that_waited_is_young_when_it_is_sent() -> None:
    """Looks come by the age since the service accepted the job; the deadline is counted from its submission."""
    bench = Bench(Recorder(seconds=900.0), max_concurrency=1)
    bench.start("rival")
    bench.start(timeout=920.0)
    await bench.ledger.wait("rival")
    record = await bench.end()
    sent = bench.remote.times("create")[-1]
    assert sent > 900
    assert [look for look in bench.remote.times("look") if look > sent][:2] == [sent + 2, sent + 4]
    assert (record.failure, record.ended) == (Failure("deadline"), 920.0)


@virtual
async def test_an_attached_job_is_looked_at_at_once_and_never_created() -> None:
    """A record with a response id means no create, and a first look now."""
    bench = Bench()
    bench.start(response_id="resp_x")
    await bench.end()
    assert bench.remote.counts["create"] == 0
    assert bench.remote.times("look")[:2] == [0.05, 2.05]
    assert bench.record().answer == "fake answer of resp_x"


@virtual
async def test_an_attached_job_needs_no_slot() -> None:
    """What is under way at the service already does not wait for max_concurrency before it is looked at."""
    bench = Bench(max_concurrency=1)
    bench.start("rival")
    bench.start(response_id="resp_x")
    await asyncio.sleep(1)
    assert bench.remote.times("look") == [0.05]
    assert bench.record().status is JobStatus.STARTED


# --- what is learned of durations -------------------------------------------------------------------------------


async def live_forty(bench: Bench, **settings: Any) -> None:
    """Have forty jobs live at the same time, to their ends."""
    for number in range(40):
        bench.start(f"job-{number}", **settings)
    for number in range(40):
        await bench.end(f"job-{number}")


async def first_look(bench: Bench, job_id: str = "next", **settings: Any) -> float:
    """Answer the age at which one more job is looked at for the first time."""
    bench.remote.seconds, bench.remote.calls, begun = 600.0, [], now()
    task = bench.start(job_id, **settings)
    await asyncio.sleep(100)
    task.cancel()
    return round(bench.remote.times("look")[0] - begun, 1)


@pytest.mark.parametrize("settings", [{}, {"deployment": "o3-pro"}, {"effort": "high"}], ids=str)
@virtual
async def test_a_job_is_not_looked_at_while_none_like_it_ends(settings: dict[str, str]) -> None:
    """Once forty jobs took 61 s, the next of their deployment and effort has its first look after half of that."""
    bench = Bench(Recorder(seconds=60.0))
    await live_forty(bench)
    seen_at = bench.record("job-1").elapsed(0)
    request = JobRequest("question", settings.get("effort", "low"), settings.get("deployment", ""))
    assert await first_look(bench, request=request) == (2.0 if settings else round(seen_at / 2, 1))


@virtual
async def test_an_attached_job_is_looked_at_as_if_nothing_were_known() -> None:
    """Nobody knows how old an attached job is: it has no quiet start, and learned waits are not for it."""
    bench = Bench(Recorder(seconds=60.0))
    await live_forty(bench)
    await first_look(bench, response_id="resp_x")
    first, second, *_ = bench.remote.times("look")
    assert second - first == 2.0


@pytest.mark.parametrize(
    ("remote", "job"),
    [
        ({"background": False}, {}),
        ({}, {"response_id": "resp_x"}),
        ({}, {"timeout": 30.0}),
    ],
    ids=["answered in the foreground", "attached", "cancelled at its deadline"],
)
@virtual
async def test_only_ends_that_looks_found_teach(remote: dict[str, Any], job: dict[str, Any]) -> None:
    """Jobs that were not looked at, whose start is unknown, or which were stopped, leave the pace as it was."""
    bench = Bench(Recorder(seconds=60.0, **remote))
    await live_forty(bench, **job)
    bench.remote.background = True
    assert await first_look(bench) == 2.0


@pytest.mark.parametrize(
    "said",
    [News(Event.ERRORED, failure=Failure("server_error")), News(Event.CANCELLED), trouble(Trouble.UNCLEAR)],
    ids=["failed", "cancelled", "not seen in time"],
)
@virtual
async def test_only_completed_jobs_seen_in_time_teach(said: News | RemoteTrouble) -> None:
    """A job that failed, was cancelled elsewhere, or ended while looks failed says nothing of how long others take."""
    bench = Bench(Recorder(seconds=5.0))
    bench.remote.script["look"] = [*[RUNNING] * 80, *[said] * 40]
    await live_forty(bench)
    assert await first_look(bench) == 2.0


# --- trouble on create ------------------------------------------------------------------------------------------


@virtual
async def test_a_create_that_never_arrived_is_sent_again_with_backoff() -> None:
    """UNSENT is repeated after doubling pauses, shown as waiting for the connection, and forgotten then."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.UNSENT)] * 3
    bench.start()
    await asyncio.sleep(1)
    assert bench.record().waiting == "connection"
    await asyncio.sleep(5)
    assert bench.record().waiting == ""
    assert (await bench.end()).status is JobStatus.COMPLETED
    assert bench.remote.times("create") == [0, 0.75, 2.25, 5.25]


@virtual
async def test_a_job_fails_after_two_minutes_without_a_connection() -> None:
    """UNSENT for 120 s fails the job with the last cause; the pauses stay below a minute."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.UNSENT, "unreachable")] * FOR_EVER
    bench.start()
    record = await bench.end()
    assert record.failure == Failure("unreachable", "detail")
    assert 120 <= now() < 180
    assert creates(bench) == 9


@virtual
async def test_the_two_minutes_begin_anew_when_the_service_answers() -> None:
    """A 429 between failed connects shows that the service is there: unreachability is counted from it on."""
    bench = Bench()
    unsent, throttled = trouble(Trouble.UNSENT), trouble(Trouble.THROTTLED, after=1)
    bench.remote.script["create"] = [*[unsent] * 7, throttled, *[unsent] * 2]
    bench.start()
    assert (await bench.end()).status is JobStatus.COMPLETED
    assert now() > 180


@pytest.mark.parametrize("asked", [0.25, 30.0])
@virtual
async def test_a_429_closes_the_gate_for_all_jobs_for_as_long_as_asked(asked: float) -> None:
    """No create of any job leaves before the time that the service asked for, in milliseconds as in seconds."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=asked)]
    bench.start()
    await asyncio.sleep(asked / 2)
    bench.start("later")
    await asyncio.sleep(0.001)
    assert bench.record().waiting == bench.record("later").waiting == "rate_limit"
    await bench.end()
    await bench.end("later")
    assert bench.remote.times("create") == [0, asked, asked]
    assert bench.record().status is bench.record("later").status is JobStatus.COMPLETED


@virtual
async def test_a_429_holds_back_those_who_wait_for_the_in_flight_bound() -> None:
    """
    Jobs that passed the gate and wait for their turn meet it again.

    The naive way asks the gate once, in front of the bound: then each of the hundred fetches its own 429.
    """
    bench = Bench(Recorder(latency=0.1), max_in_flight=4)
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=30)] * 4
    for number in range(100):
        bench.start(f"job {number}")
    await asyncio.sleep(29)
    assert bench.remote.counts["create"] == 4
    assert bench.remote.max_in_flight == 4
    for number in range(100):
        await bench.end(f"job {number}")
    assert bench.remote.counts["create"] == 104


@virtual
async def test_those_who_waited_for_the_gate_do_not_rush_through_it() -> None:
    """When the gate opens one create goes, and each that is accepted makes room for one more."""
    bench = Bench(Recorder(latency=1.0))
    bench.remote.script["create"] = [trouble(Trouble.THROTTLED, after=30)] * 4
    for number in range(100):
        bench.start(f"job {number}")
    await asyncio.sleep(60)
    after = [at for at in bench.remote.times("create") if at > 0]
    assert [after.count(at) for at in (31, 32, 33, 34, 35, 36)] == [1, 2, 4, 8, 16, 16]
    assert len(after) == 100


@pytest.mark.parametrize("kind", [Trouble.REFUSED, Trouble.DENIED, Trouble.MISSING])
@virtual
async def test_a_create_that_is_refused_for_good_fails_at_once(kind: Trouble) -> None:
    """The job fails with the service's own code, after one create and no look."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(kind, "invalid_key")]
    bench.start()
    record = await bench.end()
    assert (record.status, record.failure) == (JobStatus.FAILED, Failure("invalid_key", "detail"))
    assert now() == 0
    assert bench.remote.counts == {"create": 1}


@virtual
async def test_a_create_that_may_have_been_accepted_is_not_sent_again() -> None:
    """UNCLEAR fails the job as submission_uncertain, with its cause: the naive repetition would pay twice."""
    bench = Bench()
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR, "http_503")]
    bench.start()
    record = await bench.end()
    assert record.failure == Failure("submission_uncertain", "http_503 detail")
    await asyncio.sleep(300)
    assert creates(bench) == 1


@pytest.mark.parametrize(("unclear", "code"), [(1, None), (2, None), (3, "submission_uncertain")])
@virtual
async def test_resubmit_uncertain_sends_up_to_twice_more(unclear: int, code: str | None) -> None:
    """Where the user opted in, an uncertain create is repeated twice at the most."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR)] * unclear
    bench.start()
    record = await bench.end()
    assert (record.failure and record.failure.code) == code
    assert creates(bench) == min(unclear + 1, 3)


@virtual
async def test_cancel_before_an_uncertain_create_is_repeated() -> None:
    """A create that may be running is not dropped as unsent: the job ends as uncertain, and is not sent again."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR)]
    bench.start()
    await asyncio.sleep(0.1)
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    failure = bench.record().failure
    assert (failure and failure.code) == "submission_uncertain"
    assert creates(bench) == 1


@pytest.mark.parametrize("second", [Trouble.THROTTLED, Trouble.UNSENT])
@virtual
async def test_cancel_after_an_uncertain_create_sends_nothing_more(second: Trouble) -> None:
    """Whatever held up its repetition, a create that may be running is neither dropped nor followed by another."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(second, after=30)]
    bench.start()
    await asyncio.sleep(1.2)
    assert creates(bench) == 2
    cancelling = asyncio.create_task(bench.engine.cancel("job"))
    record = await bench.end()
    assert record.failure is not None
    assert record.failure.code == "submission_uncertain"
    assert await cancelling in (CancelVerdict.TOO_LATE, CancelVerdict.UNCONFIRMED)
    assert creates(bench) == 2


@virtual
async def test_no_look_waits_for_ever() -> None:
    """A service that asks for a pause of months is looked at again after ten minutes."""
    bench = Bench()
    bench.remote.script["look"] = [trouble(Trouble.THROTTLED, after=1e7)]
    bench.start()
    await bench.end()
    assert now() < 700


@virtual
async def test_a_job_taken_up_again_has_a_life_of_its_own() -> None:
    """While a former life still owes the service a cancel, the job that was taken up anew is not bound to it."""
    bench = Bench()
    bench.remote.script["cancel"] = [trouble(Trouble.UNCLEAR)] * 3
    bench.start(timeout=5)
    await bench.ledger.wait("job")
    bench.store.remove("job")
    former = bench.tasks["job"]
    bench.start(response_id="resp_fake_1")
    await asyncio.sleep(10)
    await asyncio.wait([former, bench.tasks["job"]])
    assert bench.record().failure is None
    assert bench.record().status is JobStatus.CANCELLED


@virtual
async def test_a_refusal_after_an_uncertain_create_does_not_hide_it() -> None:
    """A create that was repeated and then refused leaves the first one uncertain."""
    bench = Bench(resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(Trouble.UNCLEAR), trouble(Trouble.REFUSED, "bad")]
    bench.start()
    record = await bench.end()
    assert record.failure == Failure("submission_uncertain", "bad detail")


@virtual
async def test_a_client_that_cannot_be_made_fails_the_job() -> None:
    """Where no connection can be made at all, the job fails with the reason, and is not called a bug."""

    async def connect() -> Any:
        raise trouble(Trouble.REFUSED, "client")

    bench = Bench(connect=connect)
    bench.start()
    assert (await bench.end()).failure == Failure("client", "detail")


# --- trouble on look --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "waiting"),
    [
        (Trouble.UNSENT, "connection"),
        (Trouble.UNCLEAR, "connection"),
        (Trouble.THROTTLED, "rate_limit"),
        (Trouble.DENIED, "denied"),
        (Trouble.MISSING, "refused"),
        (Trouble.REFUSED, "refused"),
    ],
)
@virtual
async def test_a_look_that_fails_is_repeated_with_backoff_and_shown(kind: Trouble, waiting: str) -> None:
    """Any trouble on a look leaves the job alone; why it waits is noted, and cleared by the next answer."""
    bench = Bench()
    bench.remote.script["look"] = [trouble(kind)] * 3
    bench.start()
    await asyncio.sleep(5)
    assert bench.record().waiting == waiting
    await asyncio.sleep(5)
    assert (bench.record().waiting, bench.record().status) == ("", JobStatus.RUNNING)
    assert bench.remote.times("look")[:5] == [2, 2.75, 4.25, 7.25, 9.25]
    assert (await bench.end()).status is JobStatus.COMPLETED


@virtual
async def test_a_look_waits_as_long_as_a_429_asked_for() -> None:
    """Retry-After on a look wins over the backoff; the next good answer forgets it."""
    bench = Bench()
    bench.remote.script["look"] = [trouble(Trouble.THROTTLED, after=20)]
    bench.start()
    await bench.end()
    assert bench.remote.times("look")[:3] == [2, 22, pytest.approx(22 + 0.6 * 22**0.5, abs=0.01)]


@pytest.mark.parametrize("kind", [Trouble.MISSING, Trouble.REFUSED])
@virtual
async def test_a_response_that_the_service_keeps_denying_is_lost(kind: Trouble) -> None:
    """Refusals that name the response for `lost_after` seconds fail the job as lost, with the service's words."""
    bench = Bench()
    denial = RemoteTrouble(kind, Failure("code", "no resp_fake_1 here"))
    bench.remote.script["look"] = [denial] * FOR_EVER
    await asyncio.sleep(1000)
    bench.start()
    record = await bench.end()
    assert (record.status, record.failure) == (JobStatus.FAILED, Failure("lost", "no resp_fake_1 here"))
    assert 30 <= now() - 1002 < 60


@pytest.mark.parametrize("kind", [Trouble.MISSING, Trouble.REFUSED])
@virtual
async def test_a_gateway_that_leads_elsewhere_loses_nothing(kind: Trouble) -> None:
    """Refusals that do not say what is missing are waited out, visibly, for ten minutes before they are believed."""
    bench = Bench()
    bench.remote.script["look"] = [trouble(kind)] * FOR_EVER
    bench.start()
    await asyncio.sleep(500)
    assert (bench.record().status, bench.record().waiting) == (JobStatus.STARTED, "refused")
    record = await bench.end()
    assert (record.status, record.failure) == (JobStatus.FAILED, Failure("lost", "detail"))
    assert 600 <= now() - 2 < 700


@virtual
async def test_the_grace_of_a_404_begins_anew_when_the_response_was_seen() -> None:
    """Read-after-write hiccups, however many, are no loss as long as good answers come between them."""
    bench = Bench(Recorder(seconds=200))
    denials = [trouble(Trouble.MISSING)] * 4
    bench.remote.script["look"] = [*denials, None, *denials, None, *denials]
    bench.start()
    assert (await bench.end()).status is JobStatus.COMPLETED


@virtual
async def test_an_unknown_word_moves_nothing() -> None:
    """News without an event leave the status as it is, and the looks go on."""
    bench = Bench()
    bench.remote.script["look"] = [RUNNING, *[News()] * 3]
    bench.start()
    await asyncio.sleep(9)
    assert bench.record().status is JobStatus.RUNNING
    assert (await bench.end()).status is JobStatus.COMPLETED


# --- cancel -----------------------------------------------------------------------------------------------------


@every_moment
@virtual
async def test_a_cancel_is_true_in_every_moment(moment: Moment) -> None:
    """What was not sent is never sent; what was sent is cancelled at the service, once; both read cancelled."""
    bench = await moment.reach()
    sent_before = creates(bench)
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    record = bench.record()
    assert record.status is JobStatus.CANCELLED
    assert record.cancel_requested_at is not None
    if not moment.is_sent:
        assert now() == 4.5
    await asyncio.sleep(300)
    assert bench.tasks["job"].done()
    assert creates(bench) == sent_before
    assert bench.remote.counts["cancel"] == (1 if moment.is_sent else 0)
    if moment.is_sent:
        assert await service_says(bench) is Event.CANCELLED


@pytest.mark.parametrize("response_id", [None, "resp_x"])
@virtual
async def test_a_cancel_before_the_task_begins_is_true(response_id: str | None) -> None:
    """
    A job that is not sent yet never is; an attached one is cancelled at the service.

    The naive way takes every job whose task has not begun for one that the service does not know.
    """
    bench = Bench()
    bench.start(response_id=response_id)
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    await asyncio.sleep(300)
    assert bench.record().status is JobStatus.CANCELLED
    assert bench.remote.counts["create"] == 0
    assert bench.remote.counts["cancel"] == (response_id is not None)


@virtual
async def test_a_cancel_that_comes_before_the_run_is_remembered() -> None:
    """Between the entry of a job and its run another thread may cancel it: then it is never sent."""
    bench = Bench()
    bench.enter()
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    await bench.engine.run("job")
    assert bench.remote.counts["create"] == 0


@pytest.mark.parametrize(
    ("kind", "verdict", "code"),
    [
        (Trouble.REFUSED, CancelVerdict.TOO_LATE, "code"),
        (Trouble.UNCLEAR, CancelVerdict.TOO_LATE, "submission_uncertain"),
        (Trouble.THROTTLED, CancelVerdict.CONFIRMED, None),
        (Trouble.UNSENT, CancelVerdict.CONFIRMED, None),
    ],
)
@virtual
async def test_a_cancel_while_the_create_is_under_way_takes_the_creates_fate(
    kind: Trouble, verdict: CancelVerdict, code: str | None
) -> None:
    """A create that is refused or uncertain fails its job all the same; one that never arrived is cancelled."""
    bench = Bench(Recorder(latency=5), resubmit_uncertain=True)
    bench.remote.script["create"] = [trouble(kind)]
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is verdict
    failure = bench.record().failure
    assert (failure and failure.code) == code
    await asyncio.sleep(300)
    assert creates(bench) == 1


@virtual
async def test_a_cancel_that_the_service_refuses_leaves_the_job_running() -> None:
    """The verdict is REFUSED, at once; the job runs on to its answer and is not asked to stop again."""
    bench = Bench()
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)]
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is CancelVerdict.REFUSED
    assert now() == 1
    assert (await bench.end()).status is JobStatus.COMPLETED
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_a_second_cancel_after_a_refusal_asks_again() -> None:
    """A refusal is no verdict on later cancels."""
    bench = Bench()
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)]
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is CancelVerdict.REFUSED
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 2


@virtual
async def test_a_refused_cancel_of_a_job_that_has_ended_there_is_too_late() -> None:
    """After a refusal the look is believed: a job that turns out completed is completed."""
    bench = Bench()
    bench.remote.script.update(cancel=[trouble(Trouble.REFUSED)], look=[News(Event.ANSWERED, answer="42")])
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    assert bench.record().answer == "42"


@virtual
async def test_a_cancel_is_asked_for_until_a_look_confirms_it() -> None:
    """A 200 on the cancel proves nothing: while the looks say running it is asked for again."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    bench.remote.script["look"] = [RUNNING] * 3
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 4
    assert bench.remote.times("cancel") == [1, 1.75, 3.25, 6.25]


@virtual
async def test_a_cancel_that_is_not_confirmed_in_15_seconds_is_still_tried() -> None:
    """`cancel` answers UNCONFIRMED after 15 s; the job is cancelled when the service comes round to it."""
    bench = Bench(Recorder(seconds=FOR_EVER))
    bench.start()
    await asyncio.sleep(1)
    bench.remote.script["look"] = [RUNNING] * 9
    assert await bench.engine.cancel("job") is CancelVerdict.UNCONFIRMED
    assert now() == 16
    assert bench.record().status is JobStatus.RUNNING
    assert (await bench.end()).status is JobStatus.CANCELLED
    assert bench.remote.counts["cancel"] == 10


@virtual
async def test_a_job_that_completes_before_its_cancel_lands_is_completed() -> None:
    """The look after a cancel is believed: an answer that was first stays, and the cancel is too late."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    bench.remote.script["look"] = [News(Event.ANSWERED, answer="42")]
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    assert (bench.record().status, bench.record().answer) == (JobStatus.COMPLETED, "42")


@virtual
async def test_a_cancelled_job_stays_cancelled_whatever_the_service_says_later() -> None:
    """Azure is known to complete cancelled work: late news book their usage and change nothing else."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    await bench.engine.cancel("job")
    bench.ledger.apply("job", News(Event.ANSWERED, answer="late", usage=Usage(1, 2)))
    record = bench.record()
    assert (record.status, record.answer, record.usage) == (JobStatus.CANCELLED, None, Usage(1, 2))


@virtual
async def test_a_cancel_does_not_wait_behind_the_looks_of_others() -> None:
    """Where requests are bounded, the look of a job that is cancelled meanwhile goes before those of others."""
    bench = Bench(Recorder(latency=1.0), max_in_flight=1)
    for number in range(9):
        bench.start(f"job-{number}", response_id=f"resp_{number}")
    await asyncio.sleep(0.5)
    await bench.engine.cancel("job-8")
    assert bench.remote.times("cancel") == [3.05], (
        "after a look of another, its own, and one to which a place went then"
    )


@virtual
async def test_two_cancels_at_once_ask_the_service_once() -> None:
    """Both are told the truth, and one POST is enough."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    both = await asyncio.gather(bench.engine.cancel("job"), bench.engine.cancel("job"))
    assert set(both) == {CancelVerdict.CONFIRMED}
    assert bench.remote.counts["cancel"] == 1


@virtual
async def test_a_cancel_of_an_ended_job_is_too_late_and_asks_nobody() -> None:
    """No request leaves for a job that has ended, and its record stays as it is."""
    bench = Bench()
    bench.start()
    before = await bench.end()
    counts = dict(bench.remote.counts)
    assert await bench.engine.cancel("job") is CancelVerdict.TOO_LATE
    assert bench.remote.counts == counts
    assert bench.record() is before


@virtual
async def test_a_cancel_of_an_unknown_job_raises() -> None:
    """JobNotFound is what an unknown id gets."""
    with pytest.raises(JobNotFound):
        await Bench().engine.cancel("nobody")


@pytest.mark.parametrize("kind", [kind for kind in Trouble if kind is not Trouble.REFUSED])
@virtual
async def test_a_cancel_that_meets_trouble_is_repeated(kind: Trouble) -> None:
    """Only a refusal ends the trying: an unreachable, throttled or denied cancel is asked for again."""
    bench = Bench()
    bench.remote.script["cancel"] = [trouble(kind)] * 2
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 3


@virtual
async def test_a_cancel_of_a_response_that_is_lost_ends() -> None:
    """A service that denies the response on cancel and on look has lost it; the job fails as lost."""
    bench = Bench()
    bench.remote.script = {kind: [trouble(Trouble.MISSING)] * FOR_EVER for kind in ("cancel", "look")}
    bench.remote.script["create"] = []
    bench.start()
    await asyncio.sleep(1)
    assert await bench.engine.cancel("job") is CancelVerdict.UNCONFIRMED
    record = await bench.end()
    assert record.failure is not None
    assert record.failure.code == "lost"


# --- the job's own deadline -------------------------------------------------------------------------------------


@every_moment
@virtual
async def test_a_job_fails_at_its_deadline_in_every_moment(moment: Moment) -> None:
    """It fails neither earlier nor later, and the service is told to stop what it was sent."""
    bench = await moment.reach(timeout=5)
    record = await bench.ledger.wait("job")
    assert now() == 5
    assert (record.status, record.failure) == (JobStatus.FAILED, Failure("deadline"))
    assert record.elapsed(now()) == 5
    sent = creates(bench)
    await asyncio.sleep(300)
    assert bench.tasks["job"].done()
    assert creates(bench) == sent
    assert bench.record().status is JobStatus.FAILED
    assert bench.remote.counts["cancel"] == (1 if moment.is_sent else 0)
    if moment.is_sent:
        assert await service_says(bench) is Event.CANCELLED


@virtual
async def test_a_deadline_before_the_task_begins_holds() -> None:
    """A job whose time was over before its task began fails, too, whether or not it still leaves."""
    bench = Bench()
    bench.enter(timeout=5)
    await asyncio.sleep(7)
    await asyncio.wait([asyncio.ensure_future(bench.engine.run("job"))])
    assert bench.record().failure == Failure("deadline")
    assert bench.record().ended == 7
    assert bench.remote.counts["cancel"] == bench.remote.counts["create"]


@virtual
async def test_a_deadline_that_is_never_reached_leaves_no_trace() -> None:
    """A job that ends in time is what it is, and its timer is gone."""
    bench = Bench()
    bench.start(timeout=500)
    await bench.end()
    assert all(timer.cancelled() for timer in vars(asyncio.get_running_loop())["_scheduled"])
    await asyncio.sleep(1000)
    assert bench.record().status is JobStatus.COMPLETED


@virtual
async def test_an_expired_job_is_left_to_an_unreachable_service_after_six_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job has failed already: its task does not try for ever, and says that it gave up."""
    bench = Bench()
    bench.start(timeout=5)
    await asyncio.sleep(4.5)
    bench.remote.script.update({kind: [trouble(Trouble.UNSENT)] * FOR_EVER for kind in ("cancel", "look")})
    await bench.end()
    assert bench.remote.counts["cancel"] == 6
    assert now() < 120
    assert "the cancel of resp_fake_1 is not confirmed" in caplog.text


@virtual
async def test_the_usage_of_an_expired_job_that_completed_is_booked() -> None:
    """An answer that comes after the deadline is paid: its usage is kept, the failure stays."""
    bench = Bench()
    bench.start(timeout=5)
    await asyncio.sleep(4.5)
    bench.remote.script["look"] = [News(Event.ANSWERED, answer="late", usage=Usage(1, 2))]
    await bench.end()
    record = bench.record()
    assert (record.failure, record.answer, record.usage) == (Failure("deadline"), None, Usage(1, 2))


# --- foreground -------------------------------------------------------------------------------------------------


@virtual
async def test_a_foreground_job_is_answered_by_its_create() -> None:
    """One request that lasts as long as the job, no look, and no place taken: the next one goes a second later."""
    bench = Bench(Recorder(background=False), max_in_flight=1)
    for number in range(3):
        bench.start(f"job {number}")
    await asyncio.sleep(30)
    assert bench.record("job 0").status is JobStatus.STARTED
    for number in range(3):
        assert (await bench.end(f"job {number}")).status is JobStatus.COMPLETED
    assert now() == 62
    assert bench.remote.counts == {"create": 3}


@virtual
async def test_a_foreground_answer_that_is_not_the_end_is_watched_and_cancelled_for_real() -> None:
    """A gateway that answers "in progress" after all gets looks, and a cancel that it is told of."""
    bench = Bench(Recorder(background=False))
    bench.remote.script["create"] = [ACCEPTED]
    bench.start()
    await asyncio.sleep(3)
    assert bench.record().status is JobStatus.RUNNING
    assert await bench.engine.cancel("job") is CancelVerdict.CONFIRMED
    assert bench.remote.counts["cancel"] == 1


# --- the end of the engine --------------------------------------------------------------------------------------


@every_moment
@virtual
async def test_close_cancels_in_every_moment(moment: Moment) -> None:
    """Everything is cancelled, at the service too; waiters wake, records stay readable, connections close."""
    bench = await moment.reach()
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await bench.engine.close(20)
    assert now() < 24
    assert (await waiter).status is bench.record().status is JobStatus.CANCELLED
    assert all(task.done() for task in bench.tasks.values())
    assert bench.remote.is_closed or bench.engine._shared.link.remote is None
    if moment.is_sent:
        assert await service_says(bench) is Event.CANCELLED


@every_moment
@virtual
async def test_a_detaching_close_leaves_what_was_sent_in_every_moment(moment: Moment) -> None:
    """What was sent runs on and its id is known, a create under way is waited for; the rest is cancelled."""
    bench = await moment.reach(cancel_on_close=False)
    waiter = asyncio.create_task(bench.ledger.wait("job"))
    await bench.engine.close(20)
    assert now() < 24
    record = await waiter
    assert record is bench.record()
    assert record.status.is_terminal is not moment.is_sent
    assert record.status is not JobStatus.CANCELLED or not moment.is_sent
    assert (record.response_id is not None) is moment.is_sent
    assert all(task.done() for task in bench.tasks.values())
    await asyncio.sleep(20)
    assert bench.remote.counts["cancel"] == 0


@pytest.mark.parametrize("cancel_on_close", [True, False])
@every_sent_moment
@virtual
async def test_close_is_bounded_when_the_service_hangs(moment: Moment, cancel_on_close: bool) -> None:
    """It takes its time and no more; what could not be confirmed is said so, a create under way is uncertain."""
    bench = await moment.reach(cancel_on_close=cancel_on_close)
    bench.remote.latency = FOR_EVER
    await bench.engine.close(1)
    assert now() <= 4.5 + 3
    record = bench.record()
    if record.response_id is None:
        assert record.failure == Failure("submission_uncertain")
    else:
        assert record.failure == (Failure("closed_unconfirmed") if cancel_on_close else None)


@virtual
async def test_close_tells_of_a_cancel_that_was_refused() -> None:
    """A job that the service will not stop at the close ends as unconfirmed, without a further look or pause."""
    bench = Bench()
    bench.remote.script["cancel"] = [trouble(Trouble.REFUSED)]
    bench.start()
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert now() == 1
    assert bench.record().failure == Failure("closed_unconfirmed")


@pytest.mark.parametrize("kind", [Trouble.UNSENT, Trouble.THROTTLED])
@virtual
async def test_a_create_that_fails_during_a_detaching_close_is_not_sent_again(kind: Trouble) -> None:
    """What did not arrive before the close is cancelled: the naive way sends it as the handler goes."""
    bench = Bench(Recorder(latency=1), cancel_on_close=False)
    bench.remote.script["create"] = [trouble(kind, after=0.1)]
    bench.start()
    await asyncio.sleep(0.5)
    await bench.engine.close(5)
    assert now() == 1
    assert bench.record().status is JobStatus.CANCELLED
    assert creates(bench) == 1


@pytest.mark.parametrize(
    ("response_id", "cancel_on_close", "status"),
    [
        (None, True, JobStatus.CANCELLED),
        (None, False, JobStatus.CANCELLED),
        ("resp_x", True, JobStatus.FAILED),
        ("resp_x", False, JobStatus.STARTED),
    ],
)
@virtual
async def test_a_job_that_starts_after_the_close_sends_nothing(
    response_id: str | None, cancel_on_close: bool, status: JobStatus
) -> None:
    """A new one is cancelled; an attached one is left to the service, and said to be unconfirmed or unended."""
    bench = Bench(cancel_on_close=cancel_on_close)
    bench.start(response_id=response_id)
    await bench.engine.close(5)
    await bench.tasks["job"]
    assert bench.record().status is status
    assert await bench.ledger.wait("job") is bench.record()
    assert not bench.remote.counts


@virtual
async def test_an_expired_job_still_being_cancelled_keeps_its_failure_at_the_close() -> None:
    """Close waits for the cancel that is owed, in bounded time, and does not change how the job ended."""
    bench = Bench()
    bench.start(timeout=5)
    await asyncio.sleep(4.5)
    bench.remote.script.update({kind: [trouble(Trouble.UNSENT)] * FOR_EVER for kind in ("cancel", "look")})
    await asyncio.sleep(1)
    await bench.engine.close(5)
    assert now() <= 12
    assert bench.record().failure == Failure("deadline")


# --- the end of the loop ----------------------------------------------------------------------------------------


@every_moment
@virtual
async def test_a_task_that_is_cancelled_from_outside_ends_its_job(moment: Moment) -> None:
    """Cancellation is not swallowed, takes 2 s at the most, and the record tells what is known."""
    bench = await moment.reach()
    bench.tasks["job"].cancel()
    await asyncio.wait([bench.tasks["job"]])
    assert bench.tasks["job"].cancelled()
    assert now() <= 6.5
    record = bench.record()
    if not moment.is_sent:
        assert record.status is JobStatus.CANCELLED
    elif record.response_id is None:
        assert record.failure == Failure("submission_uncertain")
    elif bench.remote.latency or bench.engine._shared.link.remote is None:
        assert record.failure == Failure("closed_unconfirmed")
    else:
        assert record.status is JobStatus.CANCELLED
        assert await service_says(bench) is Event.CANCELLED


@pytest.mark.parametrize(
    ("latency", "settings", "status", "cancels"),
    [
        (0, {}, JobStatus.CANCELLED, 1),
        (FOR_EVER, {}, JobStatus.FAILED, 1),
        (0, {"cancel_on_close": False}, JobStatus.RUNNING, 0),
    ],
    ids=["cancels", "hangs", "detaches"],
)
def test_a_loop_that_ends_without_a_close_cancels_at_the_service(
    latency: float, settings: dict[str, Any], status: JobStatus, cancels: int
) -> None:
    """As `asyncio.run` returns, what is under way is cancelled within 2 s, unless it is to be left."""
    bench: Bench
    loop = VirtualLoop()

    async def main() -> None:
        nonlocal bench
        bench = Bench(**settings)
        bench.start()
        await asyncio.sleep(3)
        bench.remote.latency = latency

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert loop.time() <= 5
    assert bench.record().status is status
    assert bench.remote.counts["cancel"] == cancels


def test_an_ended_job_whose_task_is_cancelled_keeps_its_end() -> None:
    """The loop's end does not touch the record of a job that failed at its deadline."""
    bench: Bench

    async def main() -> None:
        nonlocal bench
        bench = Bench(Recorder(latency=4))
        bench.start(timeout=5)
        await asyncio.sleep(6)

    run_virtual(main)
    assert bench.record().failure == Failure("deadline")


@virtual
async def test_last_words_that_fail_do_no_harm() -> None:
    """Whatever the service answers to the last cancel, the task ends cancelled and the job unconfirmed."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(1)
    bench.remote.script["cancel"] = [trouble(Trouble.UNCLEAR)]
    bench.tasks["job"].cancel()
    await asyncio.wait([bench.tasks["job"]])
    assert bench.tasks["job"].cancelled()
    assert bench.record().failure == Failure("closed_unconfirmed")


@virtual
async def test_a_job_that_was_removed_while_it_ran_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Without a record there is nothing to do: no look, no request, no error; nor for the run of such a job."""
    bench = Bench()
    bench.start()
    await asyncio.sleep(3)
    bench.store.remove("job")
    await bench.tasks["job"]
    bench.start("other")
    await asyncio.sleep(1)
    bench.store.remove("other")
    bench.tasks["other"].cancel()
    await asyncio.wait([bench.tasks["other"]])
    assert bench.remote.counts["cancel"] == 0
    assert "bug" not in caplog.text


@virtual
async def test_a_coroutine_that_outlives_its_loop_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Python closes what was never finished; then nobody can be told, and nothing is booked."""
    bench = Bench()
    bench.enter()
    life = Life(bench.record(), bench.engine._shared).live()
    life.send(None)
    life.close()
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert bench.record().status is JobStatus.STARTED


@pytest.mark.parametrize("moment", [0.5, 3.0])
@virtual
async def test_an_expired_job_is_stopped_at_the_service_though_its_record_is_gone(moment: float) -> None:
    """
    What is owed to the service does not depend on the record: the response is cancelled all the same.

    The naive way asks the record for the response id, finds none, and leaves the paid work running.
    """
    bench = Bench(Recorder(latency=1), retain=1)
    bench.start(timeout=moment)
    bench.start("other", timeout=moment)
    await asyncio.sleep(60)
    assert len(bench.store.snapshot()) == 1
    assert bench.remote.counts["cancel"] == bench.remote.counts["create"] == 2


# --- bugs, ours or a remote's -----------------------------------------------------------------------------------


class Broken(Recorder):
    """A remote that raises, for the second job, what no remote may raise."""

    def __init__(self, kind: str, exc: BaseException) -> None:
        super().__init__()
        self._broken = kind
        self._exc = exc

    async def create(self, job_id: str, request: JobRequest) -> News:
        if (self._broken, job_id) == ("create", "job"):
            raise self._exc
        return await super().create(job_id, request)

    async def look(self, response_id: str) -> News:
        if (self._broken, response_id) == ("look", "resp_fake_2"):
            raise self._exc
        return await super().look(response_id)


@pytest.mark.parametrize("kind", ["create", "look"])
@pytest.mark.parametrize("exc", [ValueError("secret"), SystemExit("secret"), KeyboardInterrupt("secret")], ids=repr)
@virtual
async def test_a_bug_fails_its_own_job_only(kind: str, exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """
    The job fails as internal, without the words of the exception; the loop and the other jobs live.

    In a naive task SystemExit and KeyboardInterrupt end the loop's thread, and every waiter hangs.
    """
    bench = Bench(Broken(kind, exc))
    bench.start("other")
    bench.start()
    record = await bench.end()
    assert (record.status, record.failure) == (JobStatus.FAILED, Failure("internal", type(exc).__name__))
    assert "secret" not in caplog.text
    assert (await bench.end("other")).status is JobStatus.COMPLETED


@virtual
async def test_a_connect_that_fails_is_tried_again_by_the_next_job() -> None:
    """A remote that could not be made fails the job that asked for it; the next job asks again."""
    remote = Recorder()
    answers: list[Recorder | Exception] = [OSError("no way"), remote]

    async def connect() -> Recorder:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    bench = Bench(remote, connect=connect)
    bench.start("first")
    assert (await bench.end("first")).failure == Failure("internal", "OSError")
    bench.start()
    assert (await bench.end()).status is JobStatus.COMPLETED
    bench.start("third")
    assert (await bench.end("third")).status is JobStatus.COMPLETED


# --- waiters ----------------------------------------------------------------------------------------------------


async def _by_timeout(bench: Bench) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await bench.ledger.wait("job")


async def _by_anyio(bench: Bench) -> None:
    with anyio.move_on_after(3) as scope:
        await bench.ledger.wait("job")
    assert scope.cancelled_caught


async def _by_task_group(bench: Bench) -> None:
    async def fails() -> None:
        await asyncio.sleep(3)
        raise ValueError

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bench.ledger.wait("job"))
            group.create_task(fails())

    with pytest.raises(ExceptionGroup) as caught:
        await together()
    assert caught.group_contains(ValueError)


@pytest.mark.parametrize("give_up", [_by_timeout, _by_anyio, _by_task_group])
@virtual
async def test_a_waiter_that_is_cancelled_leaves_the_job_alone(give_up: Callable[[Bench], Awaitable[None]]) -> None:
    """Its cancellation arrives where it belongs, at once; the job goes on, and others are told its end."""
    bench = Bench()
    bench.start()
    other = asyncio.create_task(bench.ledger.wait("job"))
    await give_up(bench)
    assert now() == 3
    assert (await other).status is JobStatus.COMPLETED
    assert bench.remote.counts["cancel"] == 0


@virtual
async def test_a_caller_of_cancel_that_is_cancelled_leaves_the_wish() -> None:
    """Giving up the wait for a cancel does not take it back."""
    bench = Bench(Recorder(latency=1))
    bench.start()
    await asyncio.sleep(2)
    with anyio.move_on_after(0.5) as scope:
        await bench.engine.cancel("job")
    assert scope.cancelled_caught
    assert (await bench.end()).status is JobStatus.CANCELLED


# --- context, bounds --------------------------------------------------------------------------------------------


@virtual
async def test_context_variables_of_the_creator_reach_the_remote() -> None:
    """Tracing and tenancy work: the request is made in the context of whoever started the job."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    class Looking(Recorder):
        async def create(self, job_id: str, request: JobRequest) -> News:
            seen.append(tenant.get())
            return await super().create(job_id, request)

    bench = Bench(Looking())
    tenant.set("first")
    bench.start("first")
    tenant.set("second")
    bench.start("second")
    tenant.set("later")
    await bench.end("first")
    await bench.end("second")
    assert seen == ["first", "second"]


@virtual
async def test_max_concurrency_bounds_the_jobs_at_the_service() -> None:
    """A job takes its slot until it has ended; the others wait, and say so."""
    bench = Bench(max_concurrency=2)
    for name in ("first", "second", "third"):
        bench.start(name)
    await asyncio.sleep(1)
    assert [bench.record(name).waiting for name in ("first", "second", "third")] == ["", "", "concurrency"]
    await bench.end("first")
    await asyncio.sleep(1)
    assert bench.record("third").waiting == ""
    assert creates(bench) == 0
    assert bench.remote.counts["create"] == 3


@pytest.mark.parametrize("turns", range(10))
def test_the_younger_job_does_not_overtake_while_the_first_connects(turns: int) -> None:
    """
    Equals go in the order of their age, however few turns of the loop after the first job the second one begins.

    The naive way wakes those who wait for the connection, and has whoever comes in that moment find it made.
    """

    async def main() -> None:
        bench = Bench(Recorder(seconds=FOR_EVER), max_concurrency=1)
        bench.start("elder")
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.start("younger")
        await asyncio.sleep(1)
        assert [bench.record(name).waiting for name in ("elder", "younger")] == ["", "concurrency"]

    run_virtual(main)


@virtual
async def test_a_job_with_a_slot_does_not_say_that_it_waits_for_one() -> None:
    """While the create is under way, the reasons of before are gone."""
    bench = Bench(Recorder(latency=10), max_concurrency=1)
    bench.start()
    await asyncio.sleep(1)
    assert bench.record().waiting == ""


@virtual
async def test_two_thousand_jobs_keep_within_both_bounds() -> None:
    """However many are started at once, the requests and the jobs under way are as many as allowed, and all end."""
    ended: list[object] = []

    class Counting(Recorder):
        most = 0

        async def create(self, job_id: str, request: JobRequest) -> News:
            self.most = max(self.most, self.counts["create"] + 1 - len(ended))
            return await super().create(job_id, request)

    remote = Counting(seconds=5, latency=0.05)
    bench = Bench(remote, max_concurrency=500, max_in_flight=20)
    for number in range(2000):
        bench.start(f"job {number}")
        bench.ledger.when_ended(f"job {number}", ended.append)
    await asyncio.wait(bench.tasks.values())
    assert len(ended) == remote.counts["create"] == 2000
    assert remote.max_in_flight == 20
    assert remote.most == 500
    assert {record.status for record in bench.store.snapshot()} == {JobStatus.COMPLETED}


# --- a blocked loop ---------------------------------------------------------------------------------------------


@virtual
async def test_a_blocked_loop_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that stands still for more than a second is told of once, with how long, and again a minute later."""
    bench = Bench(Recorder(seconds=FOR_EVER))
    for job_id in ("one", "other"):
        bench.start(job_id)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    for at, seconds in ((10, 0.9), (20, 30), (60, 30), (200, 30)):
        await asyncio.sleep(at - now())
        loop.jump(seconds)
    await asyncio.sleep(60)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.partition(" late")[0] for message in told] == [
        "a job was woken up 27.4 seconds",
        "a job was woken up 27.6 seconds",
    ]
    await bench.engine.close(0)
