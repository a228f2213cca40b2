"""What every store promises, run over the store in memory; and what that one does under its lock."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg._stores import Store


@pytest.fixture(params=[MemoryStore])
def store(request: pytest.FixtureRequest) -> Store:
    """Give an empty store of each kind."""
    make: Callable[[], Store] = request.param
    return make()


def record(job_id: str, waiting: str = "") -> JobRecord:
    """Answer the record of a job."""
    return JobRecord(job_id, JobRequest("Why?", "low"), 1.7e9, 100.0, waiting=waiting)


def test_empty_store_knows_no_job(store: Store) -> None:
    """A store begins empty: nothing is found, replaced or removed."""
    assert store.get("a") is None
    assert store.snapshot() == []
    assert not store.replace(record("a"))
    assert not store.remove("a")
    assert store.snapshot() == []


def test_inserted_record_is_read_at_once(store: Store) -> None:
    """What was inserted is what is read."""
    store.insert(record("a"))
    assert store.get("a") == record("a")
    assert store.get("b") is None


def test_snapshot_has_the_oldest_job_first(store: Store) -> None:
    """Records stand in the order of their submission, and a replaced one keeps its place."""
    for job_id in "cab":
        store.insert(record(job_id))
    assert store.replace(record("c", waiting="rate_limit"))
    assert store.snapshot() == [record("c", waiting="rate_limit"), record("a"), record("b")]


def test_snapshot_is_the_callers_own(store: Store) -> None:
    """A snapshot neither changes when the store does, nor changes it."""
    store.insert(record("a"))
    snapshot = store.snapshot()
    store.insert(record("b"))
    assert snapshot == [record("a")]
    snapshot.clear()
    assert len(store.snapshot()) == 2


def test_replaced_record_is_the_newest(store: Store) -> None:
    """A record takes the place of the one with its id, and only of that one."""
    store.insert(record("a"))
    store.insert(record("b"))
    newest = dataclasses.replace(record("a"), response_id="resp_1", answer="text")
    assert store.replace(newest)
    assert store.get("a") == newest
    assert store.get("b") == record("b")


def test_a_job_is_inserted_once(store: Store) -> None:
    """A job that is held keeps its record, and whoever inserts it again is told."""
    assert store.insert(record("a"))
    assert not store.insert(dataclasses.replace(record("a"), answer="another"))
    assert store.get("a") == record("a")


def test_removed_job_stays_removed(store: Store) -> None:
    """A removed job is gone for readers, and late news do not bring it back."""
    store.insert(record("a"))
    assert store.remove("a")
    assert not store.replace(record("a"))
    assert not store.remove("a")
    assert store.get("a") is None
    assert store.snapshot() == []


class Guarded(dict[str, JobRecord]):
    """A dictionary that notes each touch that happens outside the store's lock."""

    def __init__(self, lock: Any) -> None:
        super().__init__()
        self._lock = lock
        self.touched: list[tuple[str, bool]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "pop", "setdefault", "values"):
            self.touched.append((name, self._lock.locked()))
        return super().__getattribute__(name)

    def __contains__(self, key: object) -> bool:
        self.touched.append(("contains", self._lock.locked()))
        return super().__contains__(key)

    def __setitem__(self, key: str, value: JobRecord) -> None:
        self.touched.append(("set", self._lock.locked()))
        super().__setitem__(key, value)


def test_memory_is_only_touched_under_the_lock() -> None:
    """Every verb of the store in memory reads and writes under its lock, and gives it back."""
    store = MemoryStore()
    lock: Any = threading.Lock()  # one that tells whether it is held
    store._lock = lock
    store._records = guarded = Guarded(lock)
    store.insert(record("a"))
    store.replace(record("a"))
    store.get("a")
    store.snapshot()
    store.remove("a")
    store.replace(record("a"))
    names = ["setdefault", "contains", "set", "get", "values", "pop", "contains"]
    assert guarded.touched == [(name, True) for name in names]
    assert not lock.locked()
