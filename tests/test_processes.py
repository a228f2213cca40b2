"""Several processes on one file: any of them answers for any job, and each job is lived by one of them."""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0  # seconds after which a test gives up
LEASE = 0.5  # where a process is to be taken for dead
LONG_LEASE = 30.0  # where none may be, however busy the machine is
OFTEN = {"floor": 0.05, "ceiling": 0.05, "jitter": 0.0}
ENDLESS = "outcome=never queued=0"
CREWS = [
    pytest.param(["sync"], id="1-sync"),
    pytest.param(["async"], id="1-async"),
    pytest.param(["sync", "async"], id="2"),
    pytest.param(["async", "sync", "async", "sync"], id="4"),
]
SEVERAL = CREWS[2:]


class RaisedThere(Exception):
    """What a verb raised in another process."""


class Clerk:
    """A process of `tests.clerk`; `do` has it do something and answers its reply."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.clerk"]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._unanswered = 0
        self.pid = self._process.pid
        self.is_open = False
        self._is_stopped = False

    def open(self, face: str, emulator: Emulator, store: Path, lease: float, **settings: Any) -> None:
        """Have it open the store, as a process that begins."""
        service = {"endpoint": emulator.endpoint, "api_key": emulator.api_key}
        self.do("open", face, service, str(store), lease, **{"pace": OFTEN, **settings})
        self.is_open = True

    def ask(self, verb: str, *args: Any, **kwargs: Any) -> None:
        """Have it do something, and go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, args, kwargs]) + "\n")
        self._process.stdin.flush()
        self._unanswered += 1

    def reply(self) -> Any:
        """Answer the reply to the oldest thing that it was asked."""
        line = self._replies.get(timeout=PATIENCE)
        assert line, "the process ended"
        self._unanswered -= 1
        reply = json.loads(line)
        if isinstance(reply, dict) and "raised" in reply:
            raise RaisedThere(reply["raised"])
        return reply

    def do(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Have it do something, and answer the reply."""
        self.ask(verb, *args, **kwargs)
        return self.reply()

    def start(self, question: str = "q", **kwargs: Any) -> str:
        """Have it start a job, and answer the id."""
        reply = self.do("start_background_task", question, **kwargs)
        assert reply["success"], reply
        return str(reply["job_id"])

    def close(self) -> None:
        """Have it close its handler, as a process that ends."""
        self.is_open = False
        self.do("close")

    def kill(self) -> None:
        """End it with SIGKILL, whatever it does."""
        self.is_open = False
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        with suppress(BrokenPipeError):  # what it did not read any more
            self._process.stdin.close()

    def stop(self, store: Path) -> None:
        """Stop it with SIGSTOP outside of its transactions, for inside one it would keep all others from writing."""
        with closing(sqlite3.connect(store, timeout=PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._is_stopped = True
            os.kill(self.pid, signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Let it go on with SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self._is_stopped = False

    @property
    def is_idle(self) -> bool:
        """Tell whether it goes on, and owes no reply."""
        return self._process.returncode is None and not self._is_stopped and not self._unanswered

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put("")


class Office:
    """Processes at work, and some that wait for work: one takes longer to start than most tests to run."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.store: Path
        self._waiting = [Clerk() for _ in range(5)]
        self._working: list[Clerk] = []

    def hire(self, face: str = "sync", *, lease: float = LEASE, emulator: Emulator | None = None, **more: Any) -> Clerk:
        """Answer a process that has opened the store."""
        clerk = self._waiting.pop(0) if self._waiting else Clerk()
        self._working.append(clerk)
        clerk.open(face, emulator or self.emulator, self.store, lease, **more)
        return clerk

    def crew(self, faces: list[str], *, lease: float = LEASE, **more: Any) -> list[Clerk]:
        """Answer processes of these faces."""
        return [self.hire(face, lease=lease, **more) for face in faces]

    def send_home(self) -> None:
        """Close what is open; who does not answer is killed, and replaced."""
        with ExitStack() as stack:
            while self._working:
                stack.callback(self._send_home, self._working.pop())

    def _send_home(self, clerk: Clerk) -> None:
        try:
            if clerk.is_idle and clerk.is_open:
                clerk.close()
        finally:
            if not clerk.is_idle:
                clerk.kill()
            self._waiting.append(clerk if clerk.is_idle else Clerk())

    def shut(self) -> None:
        """End all processes."""
        for clerk in [*self._waiting, *self._working]:
            clerk.kill()


@pytest.fixture(scope="module")
def staff() -> Iterator[Office]:
    """One emulator and some processes for this module."""
    with Emulator() as emulator:
        office = Office(emulator)
        yield office
        office.shut()


@pytest.fixture
def office(staff: Office, tmp_path: Path) -> Iterator[Office]:
    """The office with a new store, and counters at zero; a job takes 0.15 seconds."""
    staff.store = tmp_path / "jobs.db"
    staff.emulator.set_knobs("seconds=0.15 queued=0")
    staff.emulator.reset()
    yield staff
    staff.send_home()


def until(condition: Callable[..., Any], *args: Any) -> None:
    """Ask again and again until something is so, within bounds."""
    pause = threading.Event()
    for _ in range(round(PATIENCE / 0.02)):
        if condition(*args):
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {PATIENCE} seconds")


def is_sent(clerk: Clerk, job_id: str) -> bool:
    """Tell whether a process knows the response id of a job."""
    return clerk.do("facts", job_id)["response_id"] is not None


def started(clerk: Clerk, count: int) -> list[str]:
    """Have a process start some jobs, and wait until the service has them."""
    job_ids = [clerk.start(f"question {number}") for number in range(count)]
    until(lambda: all(is_sent(clerk, job_id) for job_id in job_ids))
    return job_ids


def held_by(crew: list[Clerk]) -> Counter[str]:
    """Answer by how many of these processes each job is held."""
    return Counter(job_id for clerk in crew for job_id in clerk.do("held"))


def called_back_by(crew: list[Clerk]) -> Counter[str]:
    """Answer how often these processes have called back for each job."""
    return Counter(job_id for clerk in crew for job_id in clerk.do("callbacks"))


def looks_of(crew: list[Clerk]) -> Counter[str]:
    """Answer how often these processes have looked at each response."""
    return sum((Counter(clerk.do("looks")) for clerk in crew), Counter())


def lookers(crew: list[Clerk]) -> Counter[str]:
    """Answer how many of these processes have looked at each response."""
    return Counter(response_id for clerk in crew for response_id in clerk.do("looks"))


def assert_paid_once(emulator: Emulator, jobs: int) -> None:
    """So many jobs were created, each once."""
    counters = emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["duplicates"]) == (jobs, jobs, {})


# --- all are asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", CREWS)
def test_told_id_is_known_everywhere_at_once(office: Office, faces: list[str]) -> None:
    """An id that one process was told is known to every verb of every process right then, and asked once."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces, lease=LONG_LEASE)
    verbs = ("check_status", "get_result", "remove_job")
    for submitter in crew:
        for verb in verbs:
            job_id = submitter.start("who knows?")
            for clerk in crew:
                assert clerk.do(verb, job_id)["status"] in ("started", "running"), verb
    for verb in ("wait", "wait_all", "as_completed"):
        job_id = crew[0].start("who knows?")
        for clerk in crew:
            with pytest.raises(RaisedThere, match="TimeoutError"):
                clerk.do(verb, job_id if verb == "wait" else [job_id], timeout=0)
    jobs = len(crew) * len(verbs) + 3
    until(lambda: office.emulator.counters()["accepted"] == jobs)
    assert_paid_once(office.emulator, jobs)


@pytest.mark.parametrize("faces", CREWS)
def test_all_list_the_same(office: Office, faces: list[str]) -> None:
    """Every process soon lists the jobs of all, in the order of their submission."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces, lease=LONG_LEASE)
    job_ids = [clerk.start(f"question {number}") for number in range(3) for clerk in crew]
    for clerk in crew:
        until(lambda clerk: [job["job_id"] for job in clerk.do("list_active_jobs")] == job_ids, clerk)
        assert list(clerk.do("jobs")) == job_ids


@pytest.mark.parametrize("verb", ["wait", "wait_all", "as_completed"])
@pytest.mark.parametrize("faces", CREWS)
def test_all_wait_for_the_same_job(office: Office, faces: list[str], verb: str) -> None:
    """Every process can wait for a job, gets the same answer, and the service is asked once."""
    crew = office.crew(faces, lease=LONG_LEASE)
    job_id = crew[0].start("what is the answer?")
    for clerk in crew:
        clerk.ask(verb, job_id if verb == "wait" else [job_id], timeout=PATIENCE / 2)
    replies = [reply if verb == "wait" else dict(reply)[job_id] for reply in [clerk.reply() for clerk in crew]]
    assert replies[0]["success"]
    assert {reply["response"] for reply in replies} == {replies[0]["response"]}
    assert all(clerk.do("get_result", job_id)["success"] for clerk in crew)
    assert_paid_once(office.emulator, 1)


@pytest.mark.parametrize("faces", CREWS)
def test_each_job_is_looked_at_by_one(office: Office, faces: list[str]) -> None:
    """However many processes there are, and wait, the looks are those of one: never two within an interval."""
    seconds, interval, jobs = 0.5, 0.1, 6
    office.emulator.set_knobs(f"seconds={seconds} queued=0")
    crew = office.crew(faces, lease=LONG_LEASE, pace={"floor": interval, "ceiling": interval, "jitter": 0.0})
    job_ids = [crew[number % len(crew)].start(f"question {number}") for number in range(jobs)]
    for clerk in crew:
        clerk.ask("wait_all", job_ids, timeout=PATIENCE / 2)
    assert all(reply["success"] for clerk in crew for reply in clerk.reply().values())
    assert set(lookers(crew).values()) == {1}
    assert office.emulator.counters()["looks"] <= jobs * (seconds / interval + 1)
    assert_paid_once(office.emulator, jobs)


@pytest.mark.parametrize("faces", CREWS)
def test_cancel_from_any_process(office: Office, faces: list[str]) -> None:
    """A cancel is carried out by the process that holds the job, once, wherever it was asked for."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces, lease=LONG_LEASE)
    for clerk in crew:
        (job_id,) = started(crew[0], 1)
        reply = clerk.do("cancel_job", job_id)
        assert (reply["success"], reply["status"]) == (True, "cancelled"), reply
        for other in crew:
            until(lambda job_id, other: other.do("check_status", job_id)["status"] == "cancelled", job_id, other)
            assert "already" in other.do("cancel_job", job_id)["error"]
    assert office.emulator.counters()["cancels"] == len(crew)
    assert_paid_once(office.emulator, len(crew))


@pytest.mark.parametrize("faces", CREWS)
def test_cancel_from_all_processes_together(office: Office, faces: list[str]) -> None:
    """Where all want a job cancelled at the same time, the service is asked once, and all are told that it is."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces, lease=LONG_LEASE)
    (job_id,) = started(crew[0], 1)
    for clerk in crew:
        until(lambda clerk: clerk.do("check_status", job_id)["success"], clerk)
        clerk.ask("cancel_job", job_id)
    assert {clerk.reply()["status"] for clerk in crew} == {"cancelled"}
    assert office.emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("faces", CREWS)
def test_refused_cancel(office: Office, faces: list[str]) -> None:
    """A cancel that the service refuses is answered so in the process that asked, and the job goes on."""
    office.emulator.set_knobs(ENDLESS + " cancel_status=400")
    crew = office.crew(faces, lease=LONG_LEASE)
    (job_id,) = started(crew[0], 1)
    for clerk in crew:
        reply = clerk.do("cancel_job", job_id)
        assert not reply["success"]
        assert "refused" in reply["error"]
        assert reply["status"] in ("started", "running")
        for other in crew:  # else the next wish would be taken for one with this
            assert other.do("check_status", job_id)["success"]
            until(lambda other: other.do("facts", job_id)["cancel_requested_at"] is None, other)
    assert office.emulator.counters()["cancels"] == len(crew)


@pytest.mark.parametrize("faces", CREWS)
def test_cancel_of_an_ended_job(office: Office, faces: list[str]) -> None:
    """A job that has ended is not cancelled, even by a process that has not seen its end yet."""
    crew = office.crew(faces, lease=LONG_LEASE)
    for clerk in crew:
        job_id = crew[0].start()
        assert clerk.do("check_status", job_id)["success"]
        assert crew[0].do("wait", job_id, timeout=PATIENCE / 2)["success"]
        reply = clerk.do("cancel_job", job_id)
        assert (reply["success"], reply["status"]) == (False, "completed")
        assert "already" in reply["error"]
    assert office.emulator.counters()["cancels"] == 0


@pytest.mark.parametrize("faces", CREWS)
def test_same_key_everywhere_is_one_job(office: Office, faces: list[str]) -> None:
    """Of processes that start a job with the same key at the same time, all get the same job, created once."""
    crew = office.crew(faces, lease=LONG_LEASE)
    for number in range(5):
        for clerk in crew:
            clerk.ask("start_background_task", f"question {number}", dedupe_key=f"key {number}")
        assert len({clerk.reply()["job_id"] for clerk in crew}) == 1
    results = crew[-1].do("wait_all", timeout=PATIENCE / 2)
    assert len(results) == 5
    assert all(result["success"] for result in results.values())
    assert_paid_once(office.emulator, 5)


@pytest.mark.parametrize("faces", CREWS)
def test_removed_is_gone_everywhere(office: Office, faces: list[str]) -> None:
    """A job that any process removes is soon gone in all, and its key is free."""
    crew = office.crew(faces, lease=LONG_LEASE)
    for clerk in crew:
        job_id = crew[0].start(dedupe_key="key")
        assert clerk.do("wait", job_id, timeout=PATIENCE / 2)["success"]
        assert clerk.do("remove_job", job_id)["success"]
        for other in crew:
            until(lambda job_id, other: not other.do("check_status", job_id)["success"], job_id, other)
            assert "No such job" in other.do("get_result", job_id)["error"]
            assert job_id not in other.do("jobs")
    assert_paid_once(office.emulator, len(crew))


@pytest.mark.parametrize("verb", ["wait", "wait_all", "as_completed"])
@pytest.mark.parametrize("faces", SEVERAL)
def test_waiting_for_a_job_that_is_removed_as_it_ends(office: Office, faces: list[str], verb: str) -> None:
    """Who waits in another process gets the answer, or hears that there is no such job, and does not hang."""
    crew = office.crew(faces, lease=LONG_LEASE)
    job_id = crew[0].start()
    for clerk in crew[1:]:
        assert clerk.do("check_status", job_id)["success"]
        clerk.ask(verb, job_id if verb == "wait" else [job_id])
    assert crew[0].do("wait", job_id, timeout=PATIENCE / 2)["success"]
    assert crew[0].do("remove_job", job_id)["success"]
    for clerk in crew[1:]:
        reply = clerk.reply() if verb == "wait" else dict(clerk.reply())[job_id]
        assert reply["success"] or "No such job" in reply["error"], reply


@pytest.mark.parametrize("faces", CREWS)
def test_called_back_once(office: Office, faces: list[str]) -> None:
    """`on_done` is called once for each job, in the process that held it."""
    crew = office.crew(faces, lease=LONG_LEASE)
    own = {clerk.pid: [clerk.start(f"question {number}") for number in range(3)] for clerk in crew}
    for clerk in crew:
        assert len(clerk.do("wait_all", timeout=PATIENCE / 2)) >= 3
        until(lambda clerk: len(clerk.do("callbacks")) >= 3, clerk)
    assert {clerk.pid: sorted(clerk.do("callbacks")) for clerk in crew} == {
        pid: sorted(job_ids) for pid, job_ids in own.items()
    }


# --- one dies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_is_killed(office: Office, faces: list[str]) -> None:
    """Each job of a killed process is taken over by one of the others, completes, and is called back once."""
    office.emulator.set_knobs("seconds=1.5 queued=0")
    crew = office.crew(faces)
    job_ids = started(crew[0], 6)
    responses = {crew[0].do("facts", job_id)["response_id"] for job_id in job_ids}
    survivors = crew[1:]
    survivors[0].ask("wait_all", job_ids, timeout=PATIENCE / 2)
    crew[0].kill()
    results = survivors[0].reply()
    assert all(result["success"] for result in results.values())
    assert lookers(survivors) == dict.fromkeys(responses, 1)
    until(lambda: called_back_by(survivors).total() >= len(job_ids))
    assert called_back_by(survivors) == dict.fromkeys(job_ids, 1)
    assert_paid_once(office.emulator, len(job_ids))


@pytest.mark.parametrize("faces", SEVERAL)
def test_each_holder_is_killed_in_turn(office: Office, faces: list[str]) -> None:
    """As long as one process is left, the jobs of all are lived."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces)
    job_ids = [job_id for clerk in crew for job_id in started(clerk, 2)]
    while len(crew) > 1:
        crew.pop(0).kill()
        until(lambda: held_by(crew) == dict.fromkeys(job_ids, 1))
    assert all(crew[0].do("cancel_job", job_id)["success"] for job_id in job_ids)
    assert_paid_once(office.emulator, len(job_ids))


@pytest.mark.parametrize("faces", CREWS)
def test_all_are_killed(office: Office, faces: list[str]) -> None:
    """Where no process is left, the next one finishes everything."""
    office.emulator.set_knobs("seconds=0.5 queued=0")
    crew = office.crew(faces)
    job_ids = [job_id for clerk in crew for job_id in started(clerk, 2)]
    for clerk in crew:
        clerk.kill()
    results = office.hire(faces[0]).do("wait_all", timeout=PATIENCE / 2)
    assert list(results) == job_ids or sorted(results) == sorted(job_ids)
    assert all(result["success"] for result in results.values())
    assert_paid_once(office.emulator, len(job_ids))


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_closes(office: Office, faces: list[str]) -> None:
    """The jobs of a process that closes, sent or not, go on in another, long before its lease would have ended."""
    office.emulator.set_knobs("seconds=0.5 queued=0")
    crew = office.crew(faces, lease=LONG_LEASE / 5, max_concurrency=2)
    sent, unsent = started(crew[0], 2), [crew[0].start("later") for _ in range(2)]
    for clerk in crew[1:]:
        clerk.ask("wait_all", sent + unsent, timeout=LONG_LEASE / 5 - 1)
    crew[0].close()
    for clerk in crew[1:]:
        assert all(result["success"] for result in clerk.reply().values())
    assert set(lookers(crew[1:]).values()) == {1}
    assert_paid_once(office.emulator, 4)


@pytest.mark.parametrize("faces", SEVERAL)
def test_cancel_of_a_job_whose_holder_was_killed(office: Office, faces: list[str]) -> None:
    """A cancel that nobody was left to carry out is carried out by who takes the job over, once."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces)
    (job_id,) = started(crew[0], 1)
    assert crew[1].do("check_status", job_id)["success"]
    crew[0].kill()
    reply = crew[1].do("cancel_job", job_id)
    assert (reply["success"], reply["status"]) == (True, "cancelled"), reply
    assert office.emulator.counters()["cancels"] == 1


# --- one is stopped -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_is_stopped_and_the_job_ends(office: Office, faces: list[str]) -> None:
    """A holder that was stopped answers the new truth when it goes on, changes nothing, and calls nobody back."""
    office.emulator.set_knobs("seconds=1 queued=0")
    crew = office.crew(faces)
    job_ids = started(crew[0], 3)
    crew[0].stop(office.store)
    truth = crew[1].do("wait_all", job_ids, timeout=PATIENCE / 2)
    assert all(result["success"] for result in truth.values())
    before = office.emulator.counters()["looks"]
    crew[0].go_on()
    for job_id in job_ids:
        until(lambda job_id: crew[0].do("get_result", job_id) == truth[job_id], job_id)
        assert crew[1].do("get_result", job_id) == truth[job_id]
    assert crew[0].do("held") == []
    crew[0].close()
    crew[0].open(faces[0], office.emulator, office.store, LEASE)
    assert {job_id: crew[0].do("get_result", job_id)["response"] for job_id in job_ids} == {
        job_id: result["response"] for job_id, result in truth.items()
    }
    # A look that was due when it was stopped may have left before it knew.
    assert office.emulator.counters()["looks"] <= before + len(job_ids)
    assert_paid_once(office.emulator, len(job_ids))


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_is_stopped_and_the_job_goes_on(office: Office, faces: list[str]) -> None:
    """A holder that was stopped leaves the jobs to who took them over meanwhile, and looks at them no more."""
    office.emulator.set_knobs(ENDLESS)
    crew = office.crew(faces)
    job_ids = started(crew[0], 3)
    crew[0].stop(office.store)
    until(lambda: {*held_by(crew[1:])} == {*job_ids})
    crew[0].go_on()
    until(lambda: crew[0].do("held") == [])
    mine, theirs = looks_of(crew[:1]), looks_of(crew[1:])
    until(lambda: all(looks_of(crew[1:])[response_id] >= theirs[response_id] + 5 for response_id in mine))
    assert looks_of(crew[:1]).total() <= mine.total() + len(job_ids), "one look at each may have been under way"
    assert held_by(crew) == dict.fromkeys(job_ids, 1)
    reply = crew[0].do("cancel_job", job_ids[0])
    assert reply["success"], reply
    assert office.emulator.counters()["cancels"] == 1
    assert_paid_once(office.emulator, len(job_ids))


@pytest.mark.parametrize("faces", SEVERAL)
def test_stopped_holder_calls_nobody_back(office: Office, faces: list[str]) -> None:
    """`on_done` is called once for a job that changed hands, by the process in which it ended."""
    office.emulator.set_knobs("seconds=1 queued=0")
    crew = office.crew(faces)
    job_ids = started(crew[0], 3)
    crew[0].stop(office.store)
    assert len(crew[1].do("wait_all", job_ids, timeout=PATIENCE / 2)) == len(job_ids)
    crew[0].go_on()
    for job_id in job_ids:
        until(lambda job_id: crew[0].do("get_result", job_id)["success"], job_id)
    until(lambda: called_back_by(crew[1:]).total() >= len(job_ids))
    crew[0].close()  # which lets end what is being called back
    assert crew[0].do("callbacks") == []
    assert called_back_by(crew) == dict.fromkeys(job_ids, 1)


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_is_stopped_before_it_sends(office: Office, faces: list[str]) -> None:
    """A job that was not sent yet is sent by who takes it over, and not again when its former holder goes on."""
    office.emulator.set_knobs(ENDLESS)
    first, *others = crew = [office.hire(faces[0], max_concurrency=1), *office.crew(faces[1:])]
    (sent,), unsent = started(first, 1), first.start("later")
    first.stop(office.store)
    until(lambda: {*held_by(others)} == {sent, unsent})
    until(lambda: office.emulator.counters()["accepted"] == 2)
    first.go_on()
    until(lambda: first.do("held") == [])
    reply = first.do("cancel_job", sent)  # whose place is the only one
    assert reply["success"], reply
    until(lambda: all(is_sent(clerk, unsent) for clerk in crew))
    assert first.do("cancel_job", unsent)["success"]
    assert_paid_once(office.emulator, 2)


@pytest.mark.parametrize("faces", SEVERAL)
def test_job_that_was_sent_elsewhere_comes_back(office: Office, faces: list[str]) -> None:
    """A job that was sent by who took it over, and let go again, is only watched when its first holder goes on."""
    office.emulator.set_knobs(ENDLESS)
    first = office.hire(faces[0], max_concurrency=1)
    (sent,), unsent = started(first, 1), first.start("later")
    first.stop(office.store)
    others = office.crew(faces[1:])
    until(lambda: office.emulator.counters()["accepted"] == 2)
    until(lambda: any(is_sent(clerk, unsent) for clerk in others))
    for clerk in others:
        clerk.close()
    first.go_on()
    until(lambda: {*first.do("held")} == {sent, unsent})
    reply = first.do("cancel_job", sent)  # whose place is the only one
    assert reply["success"], reply
    until(lambda: is_sent(first, unsent))
    assert first.do("cancel_job", unsent)["success"]
    assert_paid_once(office.emulator, 2)


@pytest.mark.parametrize("faces", SEVERAL)
def test_holder_is_stopped_while_its_create_is_under_way(office: Office, faces: list[str]) -> None:
    """A job whose create was under way has failed as uncertain; the response id is booked when its holder goes on."""
    office.emulator.set_knobs(ENDLESS + " latency=0.5")
    crew = office.crew(faces, lost_after=0.2)
    job_id = crew[0].start()
    until(lambda: office.emulator.counters()["accepted"])
    crew[0].stop(office.store)
    until(lambda: crew[1].do("check_status", job_id)["status"] == "failed")
    assert crew[1].do("facts", job_id)["response_id"] is None
    crew[0].go_on()
    for clerk in crew:
        until(lambda clerk: is_sent(clerk, job_id), clerk)
        assert clerk.do("facts", job_id)["failure"] == "submission_uncertain"
        assert clerk.do("check_status", job_id)["status"] == "failed"
    assert_paid_once(office.emulator, 1)


@pytest.mark.parametrize("face", ["sync", "async"])
def test_job_comes_back_to_its_former_holder(office: Office, face: str) -> None:
    """A job that comes back to a process whose last look at it is still under way goes on there."""
    office.emulator.set_knobs(ENDLESS)
    first, second = office.crew([face, face])
    (job_id,) = started(first, 1)
    office.emulator.set_knobs(ENDLESS + " fault=hang on=look times=1")
    before = office.emulator.counters()["looks"]
    until(lambda: office.emulator.counters()["looks"] > before)
    first.stop(office.store)
    until(lambda: second.do("held") == [job_id])
    first.go_on()
    until(lambda: first.do("held") == [])
    second.close()
    until(lambda: first.do("held") == [job_id])
    reply = first.do("cancel_job", job_id)
    first.kill()  # closing would wait for that look
    assert reply["success"], reply


# --- two services -------------------------------------------------------------------------------------------


def test_jobs_of_another_endpoint(office: Office) -> None:
    """A process lists the jobs of another service, leaves them to processes of that one, and takes over its own."""
    office.emulator.set_knobs(ENDLESS)
    with Emulator("seconds=1 queued=0") as elsewhere:
        stranger, friend = office.hire(emulator=elsewhere), office.hire()
        watcher = office.hire()
        (strange,), (familiar,) = started(stranger, 1), started(friend, 1)
        until(lambda: list(watcher.do("jobs")) == [strange, familiar])
        stranger.kill()
        friend.kill()
        until(lambda: watcher.do("held") == [familiar])
        assert watcher.do("cancel_job", familiar)["success"]
        assert watcher.do("held") == []
        assert watcher.do("check_status", strange)["status"] in ("started", "running")
        assert office.hire(emulator=elsewhere).do("wait", strange, timeout=PATIENCE / 2)["success"]
        until(lambda: watcher.do("get_result", strange)["success"])
        assert_paid_once(elsewhere, 1)
        assert_paid_once(office.emulator, 1)
