"""Both faces over real HTTP: the emulator does what the service is known to do, and its counters are the judge."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import JobFailed, JobLost, O3ProClient, O3ProConfig, SubmissionUncertain

from .faces import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

    Open = Callable[..., Driver]

SENSELESS_STATUSES = ("500", "503", "408", "429", "401")
SENSELESS_BODIES = ("html", "empty", "truncated", "short", "null", "list", "object")
LOOK_FAULTS = (*SENSELESS_STATUSES, *SENSELESS_BODIES, "reset")


@pytest.fixture
def emulator(service: Emulator) -> Emulator:
    """The emulator with counters at zero, whose jobs take 0.2 seconds."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    return service


@pytest.fixture(params=["sync", "async over httpx2", "sync with a store"])
def open_face(
    request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Open handlers of this face, with this configuration and these settings."""
    drivers: list[Driver] = []
    face, _, more = request.param.partition(" ")
    stored = more == "with a store"
    if more == "over httpx2":
        monkeypatch.setattr("o3pro_bg.client._has_aiohttp", lambda: False)

    def opened(config: dict[str, Any] | None = None, **settings: Any) -> Driver:
        client = O3ProClient(configured(emulator, **config or {}))
        store = {"store": tmp_path / f"{len(drivers)}.db"} if stored else {}
        drivers.append(Driver(face, client, {"language": "en", **store, **settings}))
        return drivers[-1]

    yield opened
    for driver in drivers:
        driver.tear_down()


def configured(emulator: Emulator, **config: Any) -> O3ProConfig:
    """Answer the configuration of an account at the emulator."""
    place = {} if "base_url" in config else {"endpoint": emulator.endpoint}
    return O3ProConfig(**{"api_key": emulator.api_key, "auth": "key", **place, **config})


class Token:
    """A credential of Entra ID, as `azure.identity` makes them."""

    def __init__(self, token: str) -> None:
        self.token, self.expires_on = token, 2e9

    def get_token(self, *_: str) -> Token:
        return self


@pytest.mark.parametrize("version", ["v1", "preview", "", "2025-04-01-preview"])
def test_every_path_style(open_face: Open, emulator: Emulator, version: str) -> None:
    """A job runs on the v1 surface, with or without a version, and on a dated path."""
    driver = open_face({"api_version": version, "deployment": "mine"})
    reply = driver.do("wait", driver.start("question", "high"))
    assert reply["success"], reply
    assert reply["response"].startswith("[emulator]")
    assert (emulator.counters()["creates"], emulator.counters()["duplicates"]) == (1, {})


def test_gateway_with_a_bearer_token(open_face: Open, emulator: Emulator) -> None:
    """A compatible server under its own base URL takes the key as a bearer token."""
    driver = open_face({"base_url": f"{emulator.endpoint}/v1", "auth": "bearer"})
    assert driver.do("wait", driver.start())["success"]


def test_entra_id(open_face: Open, emulator: Emulator) -> None:
    """A credential's token opens the door in place of a key."""
    driver = open_face({"api_key": "", "auth": "entra", "credential": Token(emulator.api_key)})
    assert driver.do("wait", driver.start())["success"]


def test_wrong_key(open_face: Open) -> None:
    """A wrong key fails the job with what to check and the id of the request; the key is not in the answer."""
    driver = open_face({"api_key": "wrong-key"})
    job = driver.do("submit", "q")
    with pytest.raises(JobFailed) as caught:
        driver.do("result", of=job)
    assert caught.value.request_id
    reply = driver.do("wait", job.id)
    assert "AZURE_OPENAI_API_KEY" in reply["error"]
    assert "wrong-key" not in reply["error"]


@pytest.mark.parametrize("header", ["retry_after=1", "retry_after_ms=300", "retry_after_date=1", ""])
def test_429_is_waited_out(open_face: Open, emulator: Emulator, header: str) -> None:
    """A 429, whatever its header says or does not say, only delays the job, which says why it waits."""
    driver = open_face()
    job = driver.do("submit", "q", metadata={"emulator": f"fault=429 {header}"})
    driver.until(job.id, lambda _: job.waiting == "rate_limit")
    assert driver.do("result", of=job)
    counters = emulator.counters()
    assert (counters["creates"], counters["accepted"]) == (2, 1)


@pytest.mark.parametrize(
    "fault", ["500", "503", "408", "html", "html-502", "empty", "truncated", "short", "null", "object", "reset-after"]
)
def test_uncertain_creates_are_not_repeated(open_face: Open, emulator: Emulator, fault: str) -> None:
    """A create that may have been accepted fails as uncertain: it is sent once and paid once."""
    driver = open_face()
    job = driver.do("submit", "q", metadata={"emulator": f"fault={fault} performed=1 times=0"})
    with pytest.raises(SubmissionUncertain, match="not sent again"):
        driver.do("result", of=job)
    counters = emulator.counters()
    assert (counters["creates"], counters["accepted"]) == (1, 1)


def test_uncertain_creates_are_repeated_where_asked(open_face: Open, emulator: Emulator) -> None:
    """With `resubmit_uncertain` such a create is sent again, at the price of a possible double."""
    driver = open_face(resubmit_uncertain=True)
    job_id = driver.start(metadata={"emulator": "fault=500 performed=1"})
    assert driver.do("wait", job_id)["success"]
    assert emulator.counters()["duplicates"] == {job_id: 2}


def test_create_that_hangs(open_face: Open, emulator: Emulator) -> None:
    """A create that is never answered fails as uncertain after its time-out."""
    driver = open_face({"create_timeout": 0.3})
    reply = driver.do("wait", driver.start(metadata={"emulator": "fault=hang"}))
    assert "start it again if you need it" in reply["error"]
    assert emulator.counters()["creates"] == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("400", "content filter"),
        ("401", "AZURE_OPENAI_API_KEY"),
        ("401-audience", "scope"),
        ("403", "network rules"),
        ("404-deployment", "deployment's name"),
        ("404-resource", "api-version"),
        ("redirect", "redirects are not followed"),
    ],
)
def test_refused_creates_say_what_to_do(open_face: Open, emulator: Emulator, fault: str, says: str) -> None:
    """A refused create fails the job at once, with a sentence that says what to do."""
    driver = open_face()
    reply = driver.do("wait", driver.start(metadata={"emulator": f"fault={fault} times=0"}))
    assert reply["status"] == "failed"
    assert says in reply["error"]
    assert emulator.counters()["creates"] == 1


def test_looks_outlive_faults(open_face: Open, emulator: Emulator) -> None:
    """A look that brings no sense is repeated, and the answer is had: nothing is paid twice."""
    driver = open_face()
    jobs = {fault: driver.start(metadata={"emulator": f"fault={fault} on=look"}) for fault in LOOK_FAULTS}
    for fault, job_id in jobs.items():
        reply = driver.do("wait", job_id)
        assert reply["success"], (fault, reply)
    assert emulator.counters()["creates"] == len(LOOK_FAULTS)


def test_look_that_hangs(open_face: Open) -> None:
    """A look that is never answered is given up after its own short time-out, and made again."""
    driver = open_face({"look_timeout": 0.3})
    assert driver.do("wait", driver.start(metadata={"emulator": "fault=hang on=look"}))["success"]


def test_answer_that_dribbles(open_face: Open) -> None:
    """A look whose answer comes a byte at a time is given up as a whole, and made again."""
    driver = open_face({"look_timeout": 0.3})
    assert driver.do("wait", driver.start(metadata={"emulator": "fault=slow slow=30 on=look"}))["success"]


def test_a_job_that_waits_for_its_token_is_not_sent(open_face: Open, emulator: Emulator) -> None:
    """While Entra ID keeps it waiting a job is not sent: a cancel ends it at once, and nothing is uncertain."""
    asked, answer = threading.Event(), threading.Event()

    class Slow(Token):
        def get_token(self, *_: str) -> Token:
            asked.set()
            answer.wait(20)
            return self

    driver = open_face({"api_key": "", "auth": "entra", "credential": Slow(emulator.api_key)})
    job_id = driver.start()
    assert asked.wait(10)
    assert driver.do("cancel_job", job_id)["success"]
    answer.set()
    assert emulator.counters()["creates"] == 0


def test_fresh_responses_may_be_missing_at_first(open_face: Open) -> None:
    """A 404 right after the create is taken for read-after-write, and the answer is had."""
    driver = open_face()
    assert driver.do("wait", driver.start(metadata={"emulator": "missing_first=2"}))["success"]


def test_lost_responses_end(open_face: Open) -> None:
    """A response that the service keeps denying ends its job as lost, after the grace."""
    driver = open_face(lost_after=0.3)
    job = driver.do("submit", "q", metadata={"emulator": "outcome=never lost_after=1"})
    with pytest.raises(JobLost, match="expired, was deleted, or was lost"):
        driver.do("result", of=job)


@pytest.mark.parametrize("quirk", ["nulls=1", "skip_progress=1", "backwards=1", "word=pondering"])
def test_quirks_of_the_service(open_face: Open, quirk: str) -> None:
    """Null fields, skipped, unknown or backward status words do no harm."""
    driver = open_face()
    assert driver.do("wait", driver.start(metadata={"emulator": f"seconds=0.3 queued=0.1 {quirk}"}))["success"]


def test_failed_as_200(open_face: Open) -> None:
    """A job that fails at the service fails here, with the service's own code."""
    driver = open_face()
    job = driver.do("submit", "q", metadata={"emulator": "outcome=failed code=rate_limit_exceeded"})
    with pytest.raises(JobFailed) as caught:
        driver.do("result", of=job)
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_incomplete_keeps_the_partial_text(open_face: Open, reason: str) -> None:
    """An incomplete answer fails with its reason, and its partial text is kept."""
    driver = open_face()
    reply = driver.do("wait", driver.start(metadata={"emulator": f"outcome=incomplete reason={reason}"}))
    assert (reply["success"], reply["status"]) == (False, "failed")
    assert reason in reply["error"]
    assert reply["response"].startswith("[emulator]")


def test_cancel_is_true_and_stays(open_face: Open, emulator: Emulator) -> None:
    """A cancel reaches the service, and stays though the service finishes the work later."""
    driver = open_face()
    job_id = driver.start(metadata={"emulator": "seconds=60 queued=0 late_completion=0.05"})
    driver.until(job_id, lambda status: status["status"] == "running")
    assert driver.do("cancel_job", job_id)["success"]
    assert driver.do("get_result", job_id)["status"] == "cancelled"
    assert emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("status", [400, 409])
def test_refused_cancel(open_face: Open, status: int) -> None:
    """A cancel that the service refuses says so, and the job runs on to its answer."""
    driver = open_face()
    job_id = driver.start(metadata={"emulator": f"seconds=0.5 queued=0 cancel_status={status}"})
    driver.until(job_id, lambda status: status["status"] == "running")
    reply = driver.do("cancel_job", job_id)
    assert (reply["success"], reply["status"]) == (False, "running")
    assert driver.do("wait", job_id)["success"]


def test_foreground_mode(open_face: Open, emulator: Emulator) -> None:
    """Without background mode a job is one long request, whose cancel drops the connection."""
    driver = open_face({"background": False})
    done = driver.start()
    assert driver.do("wait", done)["response"].startswith("[emulator]")
    held = driver.start(metadata={"emulator": "seconds=60"})
    for _ in range(1000):
        if emulator.counters()["creates"] == 2:
            break
    assert driver.do("cancel_job", held)["success"]
    for _ in range(1000):
        if emulator.counters()["dropped"] == 1:
            break
    counters = emulator.counters()
    assert (counters["dropped"], counters["looks"], counters["cancels"]) == (1, 0, 0)


def test_job_tag_can_be_turned_off(open_face: Open, emulator: Emulator) -> None:
    """Every create carries our job id, unless the configuration says otherwise."""
    untagged = open_face({"tag_jobs": False}, resubmit_uncertain=True)
    assert untagged.do("wait", untagged.start(metadata={"emulator": "fault=500 performed=1"}))["success"]
    assert emulator.counters()["duplicates"] == {}


def test_many_jobs_share_a_bound(open_face: Open, emulator: Emulator) -> None:
    """Two hundred jobs at once all end, with no more requests in flight than allowed."""
    emulator.set_knobs("seconds=0.2 queued=0 latency=0.02")
    driver = open_face(max_in_flight=8)
    ids = [driver.start(f"question {number}") for number in range(200)]
    replies = driver.do("wait_all", ids)
    assert all(reply["success"] for reply in replies.values())
    counters = emulator.counters()
    assert (counters["accepted"], counters["duplicates"]) == (200, {})
    assert counters["max_in_flight"] <= 8


def test_unreachable_service_is_shown_and_can_be_cancelled(open_face: Open, emulator: Emulator) -> None:
    """A job whose service cannot be reached says why it waits; a cancel ends it at once, unsent."""
    driver = open_face({"endpoint": "http://127.0.0.1:9"})
    job = driver.do("submit", "q")
    driver.until(job.id, lambda _: job.waiting == "connection")
    assert driver.do("cancel", of=job) is True
    assert emulator.counters()["creates"] == 0


def test_token_carries_a_job_to_another_handler(open_face: Open, emulator: Emulator) -> None:
    """A job that a closed handler left running is taken up from its token: same answer, no second create."""
    one = open_face(on_close="detach")
    job = one.do("submit", "q", metadata={"emulator": "seconds=0.5"})
    one.until(job.id, lambda _: job.response_id is not None)
    token = job.continuation_token()
    one.close()
    other = open_face()
    assert other.do("result", of=other.do("attach", token)).startswith("[emulator]")
    assert emulator.counters()["creates"] == 1
