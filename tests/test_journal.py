"""Several owners on one file, step by step on one thread: what each knows, holds, and may write."""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._records import Failure, JobRecord, JobRequest, Usage
from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.journal import PATIENCE, Journal, _booked
from o3pro_bg._sqlite.mirror import Mirror
from o3pro_bg._states import JobStatus
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Owner:
    """A journal and its mirror, as a process has them."""

    def __init__(
        self, path: Path, name: str, endpoint: str = "E", *, pace: float = 0.5, keep_text: bool = True
    ) -> None:
        self.file = JobFile(str(path))
        self.mirror = Mirror()
        self.journal = Journal(self.file, self.mirror, name, endpoint, pace=pace, keep_text=keep_text)
        self.journal.open()
        self.claimed = self.journal.take_news()

    def do(self, verb: str, *args: Any) -> Any:
        """Do one thing in a transaction."""
        with self.journal.transaction():
            return getattr(self.journal, verb)(*args)

    def look(self) -> set[str]:
        """Catch up with the others, and answer what changed."""
        with self.journal.glance():
            self.journal.refresh()
        return self.journal.take_news()

    def beat(self, times: int = 1) -> set[str]:
        """Beat, and answer what changed."""
        for _ in range(times):
            self.journal.beat()
        return self.journal.take_news()

    def get(self, job_id: str = "a") -> JobRecord:
        """Answer the record of a job that is there."""
        record = self.mirror.get(job_id)
        assert record is not None
        return record

    def move(self, job_id: str = "a", **facts: Any) -> Any:
        """Replace a record by one with these facts, as a holder does who knows only what he sees."""
        return self.do("replace", dataclasses.replace(self.get(job_id), **facts))

    def end(self, job_id: str = "a", status: JobStatus = JobStatus.COMPLETED, **facts: Any) -> Any:
        """End a job."""
        return self.move(job_id, status=status, ended=time.monotonic(), **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the file is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def enter(path: Path) -> Iterator[Callable[..., Owner]]:
    """Have one more owner open the file."""
    with ExitStack() as stack:

        def enter(*args: Any, **kwargs: Any) -> Owner:
            owner = Owner(path, *args, **kwargs)
            stack.enter_context(closing(owner.file))
            return owner

        yield enter


def record(job_id: str = "a", *, key: str | None = None, endpoint: str = "E", **facts: Any) -> JobRecord:
    """Answer the record of a job."""
    request = JobRequest("Why?", "low", options={"a": [1]}, endpoint=endpoint, dedupe_key=key)
    return JobRecord(job_id, request, time.time(), time.monotonic(), **facts)


def sql(path: Path, *statements: str) -> list[Any]:
    """Do something to the file that we would not do, and answer what the last statement answers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def stolen(enter: Callable[..., Owner]) -> tuple[Owner, Owner]:
    """Answer an owner who slept, and the one who took over his job meanwhile."""
    sleeper, thief = enter("sleeper"), enter("thief")
    sleeper.do("insert", record())
    thief.beat(PATIENCE + 1)
    assert thief.mirror.holds("a")
    return sleeper, thief


# --- knowing ----------------------------------------------------------------------------------------------------


def test_what_one_does_the_other_sees(enter: Callable[..., Owner]) -> None:
    """Inserts, moves, wishes and removals of one owner are news to the other, once, and not to himself."""
    one, other = enter("one"), enter("other")
    one.do("insert", record(answer="not yet"))
    assert (one.look(), other.look(), other.look()) == (set(), {"a"}, set())
    assert one.mirror.holds("a")
    assert not other.mirror.holds("a")
    one.move(response_id="resp_1", waiting="rate_limit")
    assert other.look() == {"a"}
    assert other.get() == dataclasses.replace(one.get(), started=other.get().started)
    other.do("wish", "a", 5.0)
    assert one.look() == {"a"}
    assert one.get().cancel_requested_at == 5.0
    assert other.look() == set()
    other.mirror.hide("a")
    other.do("remove", "a")
    assert one.look() == {"a"}
    assert one.mirror.snapshot() == other.mirror.snapshot() == []
    assert not one.mirror.holds("a")


def test_mirrors_have_one_order(enter: Callable[..., Owner]) -> None:
    """Whoever inserts sees the others' older jobs first."""
    one, other = enter("one"), enter("other")
    for number in range(6):
        (one, other)[number % 2].do("insert", record(str(number)))
    one.look()
    orders = [[found.job_id for found in owner.mirror.snapshot()] for owner in (one, other, enter("third"))]
    assert orders == [[*"012345"]] * 3


def test_one_file_has_a_key_once(enter: Callable[..., Owner]) -> None:
    """A key that another owner's job has, of which nothing was seen yet, gives that job."""
    one, other = enter("one"), enter("other")
    one.do("insert", record("a", key="k"))
    kept = other.do("insert", record("b", key="k"))
    assert kept.job_id == "a"
    assert kept == other.get()
    assert not other.mirror.holds("a")
    assert other.do("insert", record("a")) == kept


def test_hidden_twin_is_given_all_the_same(enter: Callable[..., Owner]) -> None:
    """While a removal waits to be written, its key is taken, and its job stays hidden."""
    one = enter("one")
    one.do("insert", record("a", key="k"))
    one.mirror.hide("a")
    assert one.do("insert", record("b", key="k")).job_id == "a"
    assert one.do("replace", record("a")) is False
    assert one.mirror.snapshot() == []
    one.do("remove", "a")
    assert one.do("insert", record("b", key="k")).job_id == "b"


def test_failed_transaction_shows_nothing(enter: Callable[..., Owner]) -> None:
    """Where a transaction fails, neither the mirror nor the file has anything of it, and the next one is sound."""
    one = enter("one")
    one.do("insert", record("a"))

    def fail() -> None:
        with one.journal.transaction():
            one.journal.insert(record("b"))
            one.journal.replace(dataclasses.replace(one.get(), waiting="x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(found.job_id, found.waiting) for found in one.mirror.snapshot()] == [("a", "")]
    one.do("insert", record("c"))
    assert [found.job_id for found in enter("other").mirror.snapshot()] == ["a", "c"]


def test_times_do_not_jump_with_the_wall_clock(enter: Callable[..., Owner], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is known keeps its age when the clock is set, whatever others write of it."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.look()
    before = other.get()
    monkeypatch.setattr("time.time", lambda: before.created_at + 1e6)
    one.move(waiting="x")
    other.look()
    assert (other.get().started, other.get().waiting) == (before.started, "x")


def test_text_is_kept_out_of_the_file(enter: Callable[..., Owner]) -> None:
    """Without text, who asked has it all in memory, and the others know that they do not."""
    one, other = enter("one", keep_text=False), enter("other")
    one.do("insert", record())
    one.end(answer="the answer", output_items=({"text": "the answer"},))
    other.look()
    assert (one.get().answer, one.get().request.question, one.get().request.is_whole) == ("the answer", "Why?", True)
    assert (other.get().answer, other.get().output_items, other.get().request.is_whole) == (None, (), False)
    assert other.get().request.question.startswith("sha256:")


def test_row_that_is_gone_is_a_job_that_is_gone(enter: Callable[..., Owner], path: Path) -> None:
    """A row that somebody deleted by hand is a removed job, as soon as it is written to."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.look()
    sql(path, "DELETE FROM jobs")
    assert one.do("wish", "a", 5.0) is False
    assert one.move(waiting="x") is False
    assert one.mirror.snapshot() == []
    assert other.look() == {"a"}
    assert one.do("remove", "a") is True


def test_a_removal_is_of_that_job_alone(enter: Callable[..., Owner]) -> None:
    """Who removes a job twice removes no other, such as one whose row has the number that was free; nor is it news."""
    one, other = enter("one"), enter("other")
    one.do("insert", record("a"))
    other.look()
    one.do("remove", "a")
    one.do("insert", record("b"))
    one.do("remove", "a")
    assert other.look() == {"a", "b"}
    assert [found.job_id for found in other.mirror.snapshot()] == ["b"]
    one.do("remove", "b")
    assert other.look() == {"b"}


# --- holding ----------------------------------------------------------------------------------------------------


def test_free_jobs_are_claimed(enter: Callable[..., Owner]) -> None:
    """Who opens the file holds what nobody holds; who released it does not."""
    one = enter("one")
    for job_id in "abc":
        one.do("insert", record(job_id))
    one.end("c")
    one.do("release")
    assert [one.mirror.holds(job_id) for job_id in "abc"] == [False] * 3
    other = enter("other")
    assert other.claimed == {"a", "b"}
    assert [other.mirror.holds(job_id) for job_id in "abc"] == [True, True, False]
    assert other.move("a", waiting="x") is True
    assert one.move("a", waiting="y") is False
    assert other.file.beats(0.5) == {"other": (1, 1.0)}


def test_what_is_written_with_a_release_is_seen(enter: Callable[..., Owner]) -> None:
    """A job that ends in the very transaction that releases all stays ended for the readers of who released it."""
    one = enter("one")
    one.do("insert", record())
    with one.journal.transaction():
        one.journal.replace(dataclasses.replace(one.get(), status=JobStatus.CANCELLED, ended=time.monotonic()))
        one.journal.remove("b")  # as of a job that came and went in the same moment
        one.journal.release()
    assert one.get().status is JobStatus.CANCELLED
    assert enter("other").get().status is JobStatus.CANCELLED


def test_released_jobs_are_claimed_with_the_next_beat(enter: Callable[..., Owner]) -> None:
    """Those who are there take over what is released."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    assert other.beat(2) == {"a"}
    one.do("release")
    assert other.beat() == {"a"}
    assert other.mirror.holds("a")


def test_jobs_of_another_service_are_left_alone(enter: Callable[..., Owner]) -> None:
    """Nobody claims a job of a service that he does not talk to, and nobody waits for it."""
    one = enter("one")
    one.do("insert", record())
    one.do("release")
    other = enter("other", endpoint="F")
    assert other.claimed == set()
    assert not other.mirror.holds("a")
    assert not other.journal.awaits
    assert one.journal.awaits
    assert other.beat(10) == set()


def test_the_silent_are_taken_for_dead(enter: Callable[..., Owner]) -> None:
    """Who does not beat for six beats of another loses his jobs to him, and not one beat earlier."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.beat(PATIENCE)
    assert not other.mirror.holds("a")
    other.journal.beat()
    assert other.mirror.holds("a")
    assert other.journal.take_news() == {"a"}


def test_who_beats_is_not_dead(enter: Callable[..., Owner]) -> None:
    """One beat in six is enough to keep what one holds."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    for _ in range(5):
        other.beat(PATIENCE)
        one.beat()
    assert one.mirror.holds("a")
    assert not other.mirror.holds("a")


def test_the_slow_are_not_dead(enter: Callable[..., Owner]) -> None:
    """Who beats seldom has six of his own beats, however often another one beats; the slow wait for six of theirs."""
    slow, quick = enter("slow", pace=0.5), enter("quick", pace=0.125)
    slow.do("insert", record("a"))
    quick.do("insert", record("b"))
    quick.beat(4 * PATIENCE)
    assert slow.mirror.holds("a")
    assert not quick.mirror.holds("a")
    quick.beat()
    assert quick.mirror.holds("a")
    slow.beat(PATIENCE)
    assert not slow.mirror.holds("b")
    slow.beat()
    assert slow.mirror.holds("b")


def test_who_inserts_is_not_dead(enter: Callable[..., Owner]) -> None:
    """Whoever had nothing to do, and did not beat, holds what he inserts."""
    one, other = enter("one"), enter("other")
    other.do("insert", record("b"))
    one.do("insert", record("x"))
    one.end("x")
    other.beat(20)
    assert one.do("insert", record("a")).job_id == "a"
    other.beat(PATIENCE)
    assert not other.mirror.holds("a")
    other.beat()
    assert other.mirror.holds("a")


def test_failed_beat_counts_nothing(enter: Callable[..., Owner], monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that could not be written is no beat of the other's silence."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.beat(PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(other.file, "free", lambda endpoint: 1 / 0)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                other.journal.beat()
    assert not other.mirror.holds("a")
    other.journal.beat()
    assert other.mirror.holds("a")


def test_one_of_the_survivors_takes_over(enter: Callable[..., Owner]) -> None:
    """Of two who see a third one dead, each job is held by exactly one."""
    dead, one, other = enter("dead"), enter("one"), enter("other")
    for number in range(10):
        dead.do("insert", record(str(number)))
    for _ in range(PATIENCE + 2):
        one.journal.beat()
        other.journal.beat()
    held = [[owner.mirror.holds(str(number)) for number in range(10)] for owner in (one, other)]
    assert held == [[True] * 10, [False] * 10]
    assert {*one.file.beats(1)} == {"one", "other"}


def test_the_sleeper_notices(enter: Callable[..., Owner]) -> None:
    """Who wakes up after a takeover sees that he holds the job no longer, and beats again."""
    sleeper, thief = stolen(enter)
    assert sleeper.mirror.holds("a")
    assert sleeper.beat() == {"a"}
    assert not sleeper.mirror.holds("a")
    assert {*thief.file.beats(1)} == {"sleeper", "thief"}


def test_the_sleeper_changes_nothing(enter: Callable[..., Owner]) -> None:
    """Late news of who was taken for dead move nothing; what they know besides is booked."""
    sleeper, thief = stolen(enter)
    thief.move(waiting="theirs")
    late: dict[str, Any] = {
        "response_id": "resp_1",
        "request_id": "req_1",
        "model": "m",
        "usage": Usage(1, 2),
        "waiting": "ours",
    }
    assert sleeper.end(answer="ours", **late) is False
    assert thief.look() == {"a"}
    for owner in (sleeper, thief):
        found = owner.get()
        assert (found.status, found.answer, found.waiting) == (JobStatus.STARTED, None, "theirs")
        assert (found.response_id, found.request_id, found.model, found.usage) == ("resp_1", "req_1", "m", Usage(1, 2))
    assert thief.mirror.holds("a")
    assert not sleeper.mirror.holds("a")


def test_what_was_booked_is_not_lost_again(enter: Callable[..., Owner]) -> None:
    """A holder who did not see yet what somebody booked does not overwrite it."""
    sleeper, thief = stolen(enter)
    before = thief.get()
    sleeper.move(response_id="resp_1", usage=Usage(5, 5))
    assert thief.do("replace", dataclasses.replace(before, waiting="x")) is True
    assert (thief.get().response_id, thief.get().waiting, thief.get().usage) == ("resp_1", "x", Usage(5, 5))
    sleeper.look()
    assert sleeper.get() == dataclasses.replace(thief.get(), started=sleeper.get().started)


def test_known_ids_are_not_overwritten(enter: Callable[..., Owner]) -> None:
    """The sleeper's ids do not take the place of others, and smaller usage not that of larger."""
    sleeper, thief = stolen(enter)
    thief.end(response_id="resp_2", usage=Usage(10, 10))
    assert sleeper.end(response_id="resp_1", usage=Usage(0, 0)) is False
    assert (thief.get().response_id, thief.get().usage) == ("resp_2", Usage(10, 10))
    assert sleeper.get().response_id == "resp_2"
    assert sleeper.move(usage=Usage(10, 20)) is False
    assert sleeper.get().usage == Usage(10, 20)


def test_terminal_status_stays(enter: Callable[..., Owner], path: Path) -> None:
    """A status that ended the job is not changed by anybody, and usage is booked all the same."""
    one = enter("one")
    one.do("insert", record())
    before = one.get()
    assert one.end(status=JobStatus.CANCELLED)
    assert one.end(answer="late", usage=Usage(1, 2)) is False
    assert one.do("replace", dataclasses.replace(before, waiting="x")) is False
    for owner in (one, enter("other")):
        assert (owner.get().status, owner.get().answer, owner.get().usage) == (JobStatus.CANCELLED, None, Usage(1, 2))
    assert one.move(usage=Usage(2, 2)) is True
    assert sql(path, "SELECT ended FROM jobs") == [(1,)]


def test_who_took_over_may_end_it(enter: Callable[..., Owner]) -> None:
    """The new holder's end is the end, for the sleeper too."""
    sleeper, thief = stolen(enter)
    assert thief.end(answer="theirs") is True
    assert sleeper.do("wish", "a", 5.0) is False
    assert sleeper.get().answer == "theirs"
    assert sleeper.journal.take_news() == {"a"}


def test_taken_back(enter: Callable[..., Owner]) -> None:
    """A job may change hands any number of times; each epoch has one holder."""
    sleeper, thief = stolen(enter)
    for _ in range(3):
        sleeper.beat(PATIENCE + 1)
        assert sleeper.mirror.holds("a")
        thief.look()
        assert not thief.mirror.holds("a")
        sleeper, thief = thief, sleeper


def test_what_could_not_be_written_is_shown(enter: Callable[..., Owner], path: Path) -> None:
    """A holder's news show in his mirror though the file does not have them; others' news leave them alone."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.look()
    newest = dataclasses.replace(one.get(), status=JobStatus.COMPLETED, ended=time.monotonic(), answer="text")
    assert one.journal.keep(newest) == newest
    other.do("wish", "a", 5.0)
    assert one.look() == {"a"}
    assert one.get() == dataclasses.replace(newest, cancel_requested_at=5.0)
    assert not one.mirror.holds("a")
    assert one.do("wish", "a", None) is False
    assert one.do("replace", newest) is True
    other.look()
    assert (other.get().answer, other.get().cancel_requested_at) == ("text", 5.0)


def test_only_a_holder_shows_what_is_not_written(enter: Callable[..., Owner]) -> None:
    """News of a job that is held elsewhere show only once they are booked, and of one that is gone never."""
    sleeper, thief = stolen(enter)
    sleeper.look()
    assert sleeper.journal.keep(dataclasses.replace(sleeper.get(), waiting="x", response_id="resp_1"))
    assert (sleeper.get().waiting, sleeper.get().response_id) == ("", None)
    assert not thief.journal.keep(record("b"))


def test_nobody_awaits_what_has_ended(enter: Callable[..., Owner]) -> None:
    """Who lives matters while a job is under way, and no longer."""
    one, other = enter("one"), enter("other")
    assert not one.journal.awaits
    one.do("insert", record())
    other.look()
    assert one.journal.awaits
    assert other.journal.awaits
    one.end()
    other.look()
    assert not one.journal.awaits
    assert not other.journal.awaits
    one.do("insert", record("b"))
    one.do("remove", "b")
    assert not one.journal.awaits


def test_what_is_done_outlives_a_power_failure(enter: Callable[..., Owner]) -> None:
    """What somebody asked for is synced before it is told; a beat, of which a lost one does no harm, is not."""
    one = enter("one")
    one.do("insert", record())
    assert one.file._one("PRAGMA synchronous") == 2
    one.beat()
    assert one.file._one("PRAGMA synchronous") == 1
    one.move(waiting="x")
    assert one.file._one("PRAGMA synchronous") == 2


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["state = 'x'", "ended = 1", "state_crc = 0"])
def test_damaged_state_is_no_answer(
    enter: Callable[..., Owner], path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose row is damaged is listed as failed by that; its row is left as it is, and nobody claims it."""
    one = enter("one")
    one.do("insert", record())
    one.do("insert", record("b"))
    one.do("release")
    sql(path, f"UPDATE jobs SET {damage} WHERE job_id = 'a'")  # noqa: S608
    row = sql(path, "SELECT * FROM jobs WHERE job_id = 'a'")
    with caplog.at_level(logging.ERROR):
        other = enter("other")
    found = other.get()
    assert (found.status, found.failure, found.answer) == (JobStatus.FAILED, Failure("store_damaged"), None)
    assert found.request.question == "Why?"
    assert not other.mirror.holds("a")
    assert other.claimed == {"b"}
    assert other.mirror.holds("b")
    assert sql(path, "SELECT * FROM jobs WHERE job_id = 'a'") == row
    assert [entry.getMessage() for entry in caplog.records] == [
        f"the job store {other.file.path}: the state of job number 1 is damaged"
    ]


def test_damaged_state_that_is_valid_json_is_no_answer(enter: Callable[..., Owner], path: Path) -> None:
    """Not even a text that could be read is believed if it is not the one that was written."""
    one = enter("one")
    one.do("insert", record())
    one.end(answer="true")
    sql(path, "UPDATE jobs SET state = replace(state, 'true', 'lies')")
    found = enter("other").get()
    assert (found.answer, found.failure) == (None, Failure("store_damaged"))


def test_damaged_row_is_not_written(enter: Callable[..., Owner], path: Path) -> None:
    """Whoever replaces a damaged record is told that it is not his, and the row stays for who may mend it."""
    one = enter("one")
    one.do("insert", record())
    one.do("release")
    sql(path, "UPDATE jobs SET state = 'x'")
    other = enter("other")
    assert other.move(usage=Usage(1, 1)) is False
    assert other.do("wish", "a", 5.0) is False
    assert sql(path, "SELECT state, cancel_requested_at FROM jobs") == [("x", None)]
    assert other.get().failure == Failure("store_damaged")
    other.mirror.hide("a")
    assert other.do("remove", "a") is True
    assert sql(path, "SELECT * FROM jobs") == sql(path, "SELECT * FROM requests") == []


def test_damaged_request_leaves_the_answer(
    enter: Callable[..., Owner], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose request is damaged has its answer, and a request that says that it is not whole."""
    one = enter("one")
    one.do("insert", record())
    one.end(answer="true")
    sql(path, "UPDATE requests SET request = replace(request, 'Why', 'How')")
    with caplog.at_level(logging.ERROR):
        found = enter("other").get()
    assert (found.answer, found.request) == ("true", JobRequest("", "", endpoint="E", is_whole=False))
    assert "the request of job number 1 is damaged" in caplog.text


def test_row_damaged_meanwhile_is_seen(enter: Callable[..., Owner], path: Path) -> None:
    """Damage to a row that others wrote is seen with the row; who holds the job goes by what he knows."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    other.look()
    sql(path, "UPDATE jobs SET state = 'x', seq = 9", "UPDATE meta SET seq = 9")
    assert other.look() == {"a"}
    assert other.get().failure == Failure("store_damaged")
    one.look()
    assert one.get().failure is None
    assert one.mirror.holds("a")
    assert one.move(waiting="mended") is True
    other.look()
    assert (other.get().failure, other.get().waiting) == (None, "mended")


@pytest.mark.parametrize("damage", ["UPDATE jobs SET state = 'x'", "DELETE FROM jobs"])
def test_what_is_booked_of_a_row_that_is_damaged_is_what_was_known(
    enter: Callable[..., Owner], path: Path, damage: str
) -> None:
    """Who books facts where no state can be read writes what he knew, and not that the job failed; no row, no job."""
    sleeper, _ = stolen(enter)
    sleeper.look()
    sql(path, damage)
    assert sleeper.move(response_id="resp_1") is False
    states = [(found.status, found.failure, found.response_id) for found in enter("third").mirror.snapshot()]
    assert states == [(JobStatus.STARTED, None, "resp_1")] * damage.startswith("UPDATE")
    assert [found.status for found in sleeper.mirror.snapshot()] == [JobStatus.STARTED] * len(states)


def test_what_cannot_be_written_changes_nothing(enter: Callable[..., Owner]) -> None:
    """A record that is no JSON is a ValueError before anything is done, and others in the transaction go on."""
    one = enter("one")
    broken = dataclasses.replace(record("b"), request=JobRequest("q", "low", options={"x": object()}))
    with one.journal.transaction():
        with pytest.raises(ValueError, match="JSON"):
            one.journal.insert(broken)
        with pytest.raises(ValueError, match="surrogates"):
            one.journal.insert(record("\ud800"))
        with pytest.raises(ValueError, match="surrogates"):
            one.journal.insert(record("b", key="\ud800"))
        one.journal.insert(record("a"))
        with pytest.raises(ValueError, match="JSON"):
            one.journal.replace(record("a", output_items=({"x": object()},)))
    assert [found.job_id for found in enter("other").mirror.snapshot()] == ["a"]
    assert one.get().output_items == ()


# --- fences -----------------------------------------------------------------------------------------------------


def test_what_was_made_of_an_older_epoch_takes_no_place(enter: Callable[..., Owner]) -> None:
    """An owner to whom a job came back cannot undo, by what he knew before, what became of it elsewhere."""
    sleeper, thief = stolen(enter)
    old = sleeper.get()
    thief.move(response_id="resp_1", sent_at=5.0)
    thief.do("release")
    sleeper.beat()
    assert sleeper.mirror.holds("a")
    assert not sleeper.do("replace", dataclasses.replace(old, sent_at=9.0, waiting="rate_limit"))
    assert (sleeper.get().response_id, sleeper.get().sent_at, sleeper.get().waiting) == ("resp_1", 5.0, "")
    assert sleeper.move(waiting="connection")


def test_a_job_that_is_made_anew_is_another_one(enter: Callable[..., Owner]) -> None:
    """A job under the id of one that was removed is not taken for it, by him who held that, and had ended it."""
    one, other = enter("one"), enter("other")
    one.do("insert", record())
    one.end(status=JobStatus.FAILED, failure=Failure("x"))
    other.look()
    other.mirror.hide("a")
    other.do("remove", "a")
    other.do("insert", record())
    one.look()
    assert (one.get().status, one.mirror.holds("a"), other.mirror.holds("a")) == (JobStatus.STARTED, False, True)
    assert not one.do("replace", dataclasses.replace(one.get(), waiting="x"))


def test_epochs_count_the_owners(enter: Callable[..., Owner], path: Path) -> None:
    """Each owner has an epoch of his own, one above the last; no later job of that id begins in one of them."""
    sleeper, thief = stolen(enter)
    sleeper.beat(PATIENCE + 1)
    assert sleeper.mirror.holds("a")
    assert (sleeper.get().epoch, sql(path, "SELECT epoch FROM jobs")) == (3, [(3,)])
    thief.look()
    thief.do("remove", "a")
    thief.do("insert", record())
    sleeper.look()
    assert (sleeper.mirror.holds("a"), thief.mirror.holds("a")) == (False, True)


def test_an_end_that_was_told_stays(enter: Callable[..., Owner]) -> None:
    """An end that readers saw before it could be written is not moved by another end that was written meanwhile."""
    sleeper, thief = stolen(enter)
    sleeper.journal.keep(dataclasses.replace(sleeper.get(), status=JobStatus.FAILED, ended=1.0, failure=Failure("x")))
    assert sleeper.get().status is JobStatus.FAILED
    thief.end(status=JobStatus.CANCELLED, usage=Usage(1, 2))
    sleeper.look()
    assert (sleeper.get().status, sleeper.get().usage) == (JobStatus.FAILED, Usage(1, 2))
    assert thief.get().status is JobStatus.CANCELLED


def test_the_jobs_of_an_ended_process_are_free_at_once(
    enter: Callable[..., Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner whose process is known to have ended is not waited for: neither by who lives, nor by who comes."""
    dead, witness = enter("dead 1 2 3"), enter("witness")
    dead.do("insert", record())
    dead.do("insert", record("b"))
    witness.beat()
    assert not witness.mirror.holds("a")
    monkeypatch.setattr("o3pro_bg._sqlite.journal.is_gone", lambda mark: mark == "1 2 3")
    witness.beat()
    assert witness.mirror.holds("a")
    dead.do("insert", record("c"))
    heir = enter("heir")
    assert heir.mirror.holds("c")
    assert not heir.mirror.holds("a")


def test_a_former_owner_ends_no_job_of_another(enter: Callable[..., Owner]) -> None:
    """An end that could not be written in time stays with him who told it: only facts of it go into the file."""
    sleeper, thief = stolen(enter)
    told = dataclasses.replace(sleeper.get(), status=JobStatus.FAILED, ended=1.0, failure=Failure("x"), model="m")
    sleeper.journal.keep(told)
    sleeper.look()
    assert not sleeper.do("replace", told)
    assert sleeper.get().status is JobStatus.FAILED
    assert thief.look() == {"a"}
    assert (thief.get().status, thief.get().model, thief.mirror.holds("a")) == (JobStatus.STARTED, "m", True)
    assert enter("third").get().status is JobStatus.STARTED
    assert thief.end(answer="text")
    assert enter("fourth").get().answer == "text"


def test_more_usage_is_booked() -> None:
    """Of two who tell what a job used, the one who tells more is believed, whoever it is."""
    less, more = (dataclasses.replace(record(), usage=Usage(10, figure)) for figure in (1, 2))
    assert [_booked(*pair).usage for pair in ((less, more), (more, less))] == [Usage(10, 2)] * 2


def test_a_damaged_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The structure of the file is checked before any job of it is believed."""
    with closing(JobFile(str(tmp_path / "jobs.db"))) as file:
        monkeypatch.setattr(file, "_one", lambda _: "malformed")
        journal = Journal(file, Mirror(), "", "", pace=1.0, keep_text=True)
        with pytest.raises(StoreError, match="it is damaged"):
            journal.open()
