"""Several processes on one file: one truth, one holder per job, whoever is killed or stands still."""

from __future__ import annotations

import functools
import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._sqlite.store import SqliteStore

from .child import SOON
from .peers import ENDPOINT, LEASE, Peer, ended, record, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX's signals")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the file is."""
    return tmp_path / "jobs.db"


@pytest.fixture(params=[LEASE])
def lease(request: pytest.FixtureRequest) -> float:
    """Say how soon the silent are taken for dead; in half a second, even the living may be on a busy machine."""
    seconds: float = request.param
    return seconds


patient = pytest.mark.parametrize("lease", [600.0], indirect=True)


@pytest.fixture
def peer(path: Path, lease: float) -> Iterator[Callable[[], Peer]]:
    """Start one more process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Peer(path, lease))


@pytest.fixture
def store(path: Path, lease: float) -> Iterator[SqliteStore]:
    """Give this process's own store."""
    store = SqliteStore(path, lease=lease)
    store.open(ENDPOINT, len).result(SOON)
    yield store
    store.close().result(SOON)


def facts(peer: Peer, job_id: str) -> dict[str, Any]:
    """Answer what a process sees of a job."""
    (found,) = (found for found in peer.do("look") if found["job_id"] == job_id)
    assert isinstance(found, dict)
    return found


@patient
def test_any_process_answers(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """What one process did, every other reads; each job is held by the one that inserted it."""
    other = peer()
    other.do("insert", "a")
    store.insert(record("b")).result(SOON)
    assert [found["job_id"] for found in other.do("look")] == ["a", "b"]
    until(lambda: len(store.snapshot()) == 2)
    assert other.do("held") == ["a"]
    assert (store.holds("a"), store.holds("b")) == (False, True)
    assert other.do("end", "a", "答え", {"usage": [1, 2]})
    until(lambda: [found.answer for found in store.snapshot()] == ["答え", None])


@patient
def test_wish_reaches_the_holder(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """A process that does not hold the job leaves its wish, which the holder is told of."""
    store.insert(record()).result(SOON)
    other = peer()
    assert other.do("wish", "a", 5.0)
    until(lambda: [found.cancel_requested_at for found in store.snapshot()] == [5.0])


@patient
def test_key_is_one_for_all_processes(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """Processes that submit with the same key, all at once, get one job."""
    peers = [peer() for _ in range(3)]
    for number in range(10):
        for name, each in enumerate(peers):
            each.tell("insert_keyed", f"{name}-{number}", f"key-{number}")
        ours = store.insert(record(f"us-{number}", key=f"key-{number}")).result(SOON).job_id
        assert {each.receive() for each in peers} == {ours}
    store.refresh().result(SOON)
    assert len(store.snapshot()) == 10


@pytest.mark.parametrize("hard", [True, False], ids=["kill -9", "close"])
def test_jobs_of_the_dead_are_taken_over(peer: Callable[[], Peer], store: SqliteStore, hard: bool) -> None:
    """Whatever ends a process, another one holds its jobs within a few leases, and has them to the last write."""
    other = peer()
    other.do("insert", "a", "b")
    other.do("change", "a", {"response_id": "resp_1", "sent_at": 5.0})
    if hard:
        other.kill()
    else:
        other.do("close")
    until(lambda: store.holds("a") and store.holds("b"))
    found = store.get("a")
    assert found is not None
    assert (found.response_id, found.sent_at) == ("resp_1", 5.0)
    assert store.replace(ended(found)).result(SOON)


def test_next_process_takes_over(peer: Callable[[], Peer], path: Path) -> None:
    """A process that comes after the death of the last one holds its jobs, and is told of it, within a few leases."""
    dead = peer()
    dead.do("insert", "a")
    dead.kill()
    heir = peer()
    until(lambda: heir.do("held") == ["a"])
    until(lambda: heir.do("noticed") == ["a"])


def test_each_job_has_one_heir(peer: Callable[[], Peer]) -> None:
    """Of two survivors, exactly one holds each job of the dead, and keeps it."""
    dead, one, other = peer(), peer(), peer()
    jobs = [str(number) for number in range(40)]
    dead.do("insert", *jobs)
    dead.kill()

    def held() -> list[str]:
        return sorted([*one.do("held"), *other.do("held")], key=int)

    until(lambda: held() == jobs)  # which a look at one, then at the other, may miss on a busy machine


def test_who_stood_still_overwrites_nothing(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """A process that slept through its lease, and writes when it wakes up, changes nothing but books its ids."""
    sleeper = peer()
    sleeper.do("insert", "a", "b")
    sleeper.stop()
    until(lambda: store.holds("a") and store.holds("b"))
    (before,) = (found for found in store.snapshot() if found.job_id == "a")
    assert store.replace(ended(before, "ours")).result(SOON)
    sleeper.tell("end", "a", "theirs", {"response_id": "resp_1", "usage": [1, 2]})
    sleeper.go_on()
    assert sleeper.receive() is False
    assert sleeper.do("change", "b", {"waiting": "theirs", "response_id": "resp_2"}) is False
    seen = facts(sleeper, "a")
    assert (seen["answer"], seen["response_id"], seen["usage"]["output_tokens"]) == ("ours", "resp_1", 2)
    assert sleeper.do("held") == []
    store.refresh().result(SOON)
    a, b = store.snapshot()
    assert (a.answer, a.response_id) == ("ours", "resp_1")
    assert (b.waiting, b.response_id) == ("", "resp_2")
    assert sleeper.do("noticed") == ["a", "b"]


@patient
def test_four_processes_agree(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """After four processes wrote and removed at once, all see the same jobs, in one order, with the same facts."""
    peers = [peer() for _ in range(4)]
    for name, each in zip("wxyz", peers, strict=True):
        each.tell("churn", name, 60)
    assert [each.receive() for each in peers] == [None] * 4
    seen = [each.do("look") for each in peers]
    store.refresh().result(SOON)
    assert len(seen[0]) > 20
    assert seen == [seen[0]] * 4
    assert [found.job_id for found in store.snapshot()] == [found["job_id"] for found in seen[0]]
    unfinished = sorted(found["job_id"] for found in seen[0] if found["status"] not in ("completed", "failed"))
    assert sorted(job_id for each in peers for job_id in each.do("held")) == unfinished


def test_killed_again_and_again(peer: Callable[[], Peer], store: SqliteStore) -> None:
    """Writers that are killed in the middle of their work leave a sound file, and every job that they told of."""
    told: list[str] = []

    def sees_flood(name: str) -> bool:
        return any(found.job_id.startswith(f"{name}-") for found in store.snapshot())

    for name in "vwxyz":
        victim = peer()
        victim.do("insert", f"told-{name}")
        told.append(f"told-{name}")
        victim.tell("flood", name)
        until(functools.partial(sees_flood, name))
        victim.kill()
        assert victim.process.returncode == -signal.SIGKILL
    until(lambda: all(store.holds(found.job_id) or found.ended is not None for found in store.snapshot()))
    assert {*told} <= {found.job_id for found in store.snapshot()}
    heir = peer()
    assert [found["job_id"] for found in heir.do("see")] == [found.job_id for found in store.snapshot()]
