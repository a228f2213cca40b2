"""
What every store promises, of the one that many machines share: the suite of all stores, run over it.

A job is held once it was dealt, so here that is when an insert is over, and what is made of it is made of the record of
that time of being held: as the engine does.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from o3pro_bg import DbosEngine
from o3pro_bg._dbos.store import DbosStore
from o3pro_bg._records import JobRequest

from . import test_stores
from .peers import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from o3pro_bg._records import JobRecord


class Dealt(DbosStore):
    """A store whose inserts are over once the job was dealt to it, and in which nothing is of another epoch."""

    def insert(self, record: JobRecord) -> Future[JobRecord]:
        inserted = super().insert(record)
        if inserted.exception(test_stores.SOON) is None and inserted.result() is record:
            until(lambda: self.get(record.job_id) is None or record.status.is_terminal or self.holds(record.job_id))
        return inserted

    def replace(self, record: JobRecord) -> Future[bool]:
        known = self.get(record.job_id)
        return super().replace(record if known is None else dataclasses.replace(record, epoch=known.epoch))

    def again(self) -> Dealt:
        return Dealt(self._terms)


@pytest.fixture
def store(database: str) -> Iterator[DbosStore]:
    """Give an open, empty store of each kind of database."""
    store = Dealt(DbosEngine(database, poll=0.02).store(max_concurrency=None)._terms)
    store.open(test_stores.ENDPOINT, lambda job_ids: None).result(test_stores.SOON)
    yield store
    store.close().result(test_stores.SOON)


# These want the very record that was inserted; what is read says first that it waits, and then who holds it since when.
ELSEWHERE = {"test_inserted_record_is_read", "test_replaced_record_is_the_newest"}

globals().update(
    {name: test for name, test in vars(test_stores).items() if name.startswith("test_") and name not in ELSEWHERE}
)


def test_what_is_read_of_a_job_that_waits(store: DbosStore) -> None:
    """Until a job is dealt it says why it waits, and nobody holds it; its record is that of who inserted it."""
    waiting = DbosEngine(store._terms.url, worker=False).store(max_concurrency=None)
    waiting.open("https://another.service", lambda job_ids: None).result(test_stores.SOON)
    job = dataclasses.replace(test_stores.record("w"), request=JobRequest("Why?", "low", endpoint="https://nobody"))
    assert waiting.insert(job).result(test_stores.SOON) is job
    found = waiting.get("w")
    assert found == dataclasses.replace(job, waiting="concurrency")
    assert not waiting.holds("w")
    waiting.close().result(test_stores.SOON)
