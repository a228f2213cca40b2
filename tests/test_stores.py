"""What every store promises: one suite over the store in memory and the one on disk."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._records import JobRecord, JobRequest, Usage
from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg._states import JobStatus
from o3pro_bg._stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from o3pro_bg._stores import Store

ENDPOINT = "https://x/openai/v1/"
SOON = 30


@pytest.fixture(params=["memory", "sqlite", "sqlite without text"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give an open, empty store of each kind."""
    store: Store = MemoryStore()
    if request.param != "memory":
        store = SqliteStore(tmp_path / "jobs.db", store_text=request.param == "sqlite")
    store.open(ENDPOINT, lambda job_ids: None).result(SOON)
    yield store
    store.close().result(SOON)


def record(job_id: str, *, key: str | None = None, **facts: Any) -> JobRecord:
    """Answer the record of a job."""
    request = JobRequest("Why?", "low", options={"a": [1]}, endpoint=ENDPOINT, dedupe_key=key)
    return JobRecord(job_id, request, time.time(), time.monotonic(), **facts)


def ended(before: JobRecord, status: JobStatus = JobStatus.COMPLETED, **facts: Any) -> JobRecord:
    """Answer the record after the job's end."""
    return dataclasses.replace(before, status=status, ended=before.started + 5, answer="text", **facts)


def of(future: Future[Any]) -> Any:
    """Answer what becomes of a change."""
    return future.result(SOON)


def test_empty_store_knows_no_job(store: Store) -> None:
    """A store begins empty: nothing is found, replaced, wished or removed."""
    assert store.get("a") is None
    assert store.snapshot() == []
    assert not store.holds("a")
    assert of(store.replace(record("a"))) is False
    assert of(store.wish("a", 5.0)) is False
    assert of(store.remove("a")) is False
    assert store.snapshot() == []


def test_inserted_record_is_read(store: Store) -> None:
    """What was inserted is what is read, whole, and the job is held here."""
    first = record("a", key="k")
    assert of(store.insert(first)) is first
    assert store.get("a") is first
    assert store.get("b") is None
    assert store.holds("a")
    assert not store.holds("b")


def test_snapshot_has_the_oldest_job_first(store: Store) -> None:
    """Records stand in the order of their submission, and a replaced one keeps its place."""
    for job_id in "cab":
        store.insert(record(job_id))
    assert of(store.replace(record("c", waiting="rate_limit")))
    assert [found.job_id for found in store.snapshot()] == ["c", "a", "b"]
    assert [found.waiting for found in store.snapshot()] == ["rate_limit", "", ""]


def test_snapshot_is_the_callers_own(store: Store) -> None:
    """A snapshot neither changes when the store does, nor changes it."""
    of(store.insert(record("a")))
    snapshot = store.snapshot()
    of(store.insert(record("b")))
    assert [found.job_id for found in snapshot] == ["a"]
    snapshot.clear()
    assert len(store.snapshot()) == 2


def test_replaced_record_is_the_newest(store: Store) -> None:
    """A record takes the place of the one with its id, and only of that one."""
    first, other = of(store.insert(record("a"))), of(store.insert(record("b")))
    newest = ended(first, response_id="resp_1", usage=Usage(1, 2), model="o3-pro")
    assert of(store.replace(newest)) is True
    assert store.get("a") == newest
    assert store.get("b") is other
    assert not store.holds("a")


def test_changes_are_carried_out_in_their_order(store: Store) -> None:
    """Of changes that nobody waited for, the last one stands."""
    of(store.insert(record("a")))
    written = [store.replace(record("a", waiting=str(number))) for number in range(100)]
    assert all(of(future) for future in written)
    assert store.snapshot()[0].waiting == "99"


def test_late_usage_is_booked(store: Store) -> None:
    """A job that has ended keeps its status, and its usage may still be replaced."""
    first = of(store.insert(record("a")))
    of(store.replace(ended(first)))
    assert of(store.replace(ended(first, usage=Usage(1, 2))))
    found = store.get("a")
    assert found is not None
    assert (found.status, found.usage) == (JobStatus.COMPLETED, Usage(1, 2))


def test_a_job_is_inserted_once(store: Store) -> None:
    """A job that is there keeps its record, and whoever inserts it again is given that one."""
    first = of(store.insert(record("a")))
    assert of(store.insert(dataclasses.replace(first, answer="another"))) == first
    assert store.snapshot() == [first]


def test_a_key_is_inserted_once(store: Store) -> None:
    """A second job with the same key is not kept: whoever inserts it is given the first, even after its end."""
    first, twin = record("a", key="k"), record("b", key="k")
    both = store.insert(first), store.insert(twin)
    assert [of(future) for future in both] == [first, first]
    newest = ended(first)
    of(store.replace(newest))
    assert of(store.insert(twin)) == newest
    assert store.snapshot() == [newest]
    assert not store.holds("b")


def test_a_key_comes_before_an_id(store: Store) -> None:
    """Where one job has the key and another the id, the one with the key is given."""
    first, second = of(store.insert(record("a", key="k"))), of(store.insert(record("b")))
    assert of(store.insert(record("b", key="k"))) == first
    assert of(store.insert(record("b", key="l"))) == second
    assert len(store.snapshot()) == 2


def test_jobs_without_a_key_are_no_twins(store: Store) -> None:
    """Any number of jobs have no key."""
    for job_id in "abc":
        of(store.insert(record(job_id)))
    assert len(store.snapshot()) == 3


def test_wish_stands_whatever_is_replaced(store: Store) -> None:
    """A wish to cancel is set and withdrawn by `wish` alone; a record that knows nothing of it changes nothing."""
    first = of(store.insert(record("a")))
    assert of(store.wish("a", 5.0)) is True
    assert of(store.replace(dataclasses.replace(first, waiting="rate_limit")))
    assert store.get("a") == dataclasses.replace(first, waiting="rate_limit", cancel_requested_at=5.0)
    assert of(store.wish("a", None)) is True
    assert of(store.replace(dataclasses.replace(first, cancel_requested_at=9.0)))
    assert store.get("a") == first


def test_nobody_wishes_after_the_end(store: Store) -> None:
    """A job that has ended is not wished to be cancelled, and keeps the wish that it had."""
    first = of(store.insert(record("a")))
    of(store.wish("a", 5.0))
    of(store.replace(ended(first)))
    assert of(store.wish("a", 6.0)) is False
    assert of(store.wish("a", None)) is False
    assert store.snapshot()[0].cancel_requested_at == 5.0


def test_removed_job_stays_removed(store: Store) -> None:
    """A removed job is gone for readers at once, and late news do not bring it back."""
    of(store.insert(record("a")))
    store.replace(record("a", waiting="rate_limit"))
    removed = store.remove("a")
    assert store.get("a") is None
    assert store.snapshot() == []
    late = store.replace(record("a"))
    assert (of(removed), of(late), of(store.remove("a"))) == (True, False, False)
    assert store.snapshot() == []
    assert not store.holds("a")


def test_removed_job_may_come_again(store: Store) -> None:
    """The id and the key of a removed job are free again, at once."""
    of(store.insert(record("a", key="k")))
    changes: list[Future[Any]] = [
        store.remove("a"),
        store.insert(record("b", key="k")),
        store.insert(record("a", key="l")),
    ]
    for change in changes:
        of(change)
    assert [found.job_id for found in store.snapshot()] == ["b", "a"]
    assert store.holds("a")


def test_many_threads_insert(store: Store) -> None:
    """Each of many threads finds its jobs kept, once, and in its own order."""

    def insert(name: int) -> None:
        for number in range(20):
            of(store.insert(record(f"{name}-{number:02}", key=f"{name}-{number // 2}")))

    threads = [threading.Thread(target=insert, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [found.job_id for found in store.snapshot()]
    for name in range(16):
        ours = [job_id for job_id in kept if job_id.startswith(f"{name}-")]
        assert ours == [f"{name}-{number:02}" for number in range(0, 20, 2)]


def test_refresh_is_done(store: Store) -> None:
    """A store that nobody else changes is always fresh."""
    of(store.insert(record("a")))
    assert of(store.refresh()) is None
    assert len(store.snapshot()) == 1


def test_readers_keep_what_they_saw(store: Store) -> None:
    """After the close, records are read as before; closing twice is closing once."""
    first = of(store.insert(record("a")))
    of(store.close())
    of(store.close())
    assert store.get("a") == first
    assert store.snapshot() == [first]


class Guarded(dict[str, JobRecord]):
    """A dictionary that notes each touch that happens outside the store's lock."""

    def __init__(self, lock: Any) -> None:
        super().__init__()
        self._lock = lock
        self.touched: list[tuple[str, bool]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "pop", "values"):
            self.touched.append((name, self._lock.locked()))
        return super().__getattribute__(name)

    def __setitem__(self, key: str, value: JobRecord) -> None:
        self.touched.append(("set", self._lock.locked()))
        super().__setitem__(key, value)


def test_memory_is_only_changed_under_the_lock() -> None:
    """Every change of the store in memory takes its lock, and gives it back; a read is one step, and takes none."""
    store = MemoryStore()
    lock: Any = threading.Lock()  # one that tells whether it is held
    store._lock = lock
    store._records = guarded = Guarded(lock)
    store.insert(record("a"))
    store.replace(record("a"))
    store.wish("a", 5.0)
    store.get("a")
    store.snapshot()
    store.remove("a")
    changes = ["get", "set", "get", "set", "get", "set"]
    assert guarded.touched == [
        *((name, True) for name in changes),
        ("get", False),
        ("values", False),
        ("pop", True),
    ]
    assert not lock.locked()


def test_store_of_a_forked_process(store: Store) -> None:
    """Another store of the same kind has the jobs of a file, and none where they were in memory."""
    of(store.insert(record("a")))
    again = store.again()
    of(again.open(ENDPOINT, lambda job_ids: None))
    assert type(again) is type(store)
    assert [found.job_id for found in again.snapshot()] == (["a"] if store.durable else [])
    assert not again.holds("a")
    of(again.close())


def test_a_key_goes_with_its_job() -> None:
    """The store in memory holds nothing of a job that was removed, and keeps the keys of the others."""
    store = MemoryStore()
    for job_id, key in (("a", "one"), ("b", "other"), ("c", None)):
        of(store.insert(record(job_id, key=key)))
    of(store.remove("a"))
    of(store.remove("c"))
    assert (store._by_key, [kept.job_id for kept in store.snapshot()]) == ({"other": "b"}, ["b"])
    assert of(store.insert(record("d", key="other"))).job_id == "b"
