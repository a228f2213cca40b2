"""A connection that breaks as a job is committed: its start succeeds, or fails and nothing is kept, then or later."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from o3pro_bg import DbosEngine, StoreError
from o3pro_bg._dbos import tables
from o3pro_bg._dbos.journal import SharedJournal

from .peers import until
from .test_stores import ENDPOINT, SOON, of, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from o3pro_bg._dbos.store import DbosStore
    from o3pro_bg._records import JobRecord

    Open = Callable[..., DbosStore]

HANGS = 0.5  # seconds for which a commit is on its way


@pytest.fixture
def shared(database: str) -> Iterator[Open]:
    """Open one more store of the database, which lives jobs if it is said."""
    stores: list[DbosStore] = []

    def opened(*, worker: bool = False) -> DbosStore:
        stores.append(DbosEngine(database, poll=0.02, worker=worker).store(max_concurrency=None))
        stores[-1].open(ENDPOINT, lambda job_ids: None).result(SOON)
        return stores[-1]

    yield opened
    for store in stores:
        store.close().result(SOON)


class Fault:
    """The connection of a store breaks in the commit of the next insert: before it is carried out, after, or while."""

    def __init__(self, store: DbosStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._engine = engine = store._database.engine
        self._patch = monkeypatch
        self._moment, self._is_near = "", False
        self._lost: set[Any] = set()
        self._is_sqlite = store._database.is_sqlite
        self._failure = (sqlite3 if self._is_sqlite else psycopg).OperationalError("the connection is lost")
        insert, self._commit = SharedJournal.insert, engine.dialect.do_commit

        def inserts(journal: SharedJournal, job: JobRecord) -> JobRecord:
            kept = insert(journal, job)
            self._is_near = bool(self._moment) and kept is job
            return kept

        monkeypatch.setattr(SharedJournal, "insert", inserts)
        monkeypatch.setattr(engine.dialect, "do_commit", self._breaks)
        for name in ("do_rollback", "do_close", "do_terminate"):  # the other end hears nothing more of who is lost
            monkeypatch.setattr(engine.dialect, name, self._unless_lost(getattr(engine.dialect, name)))

    def comes(self, moment: str, *, stays: bool = False) -> None:
        """Have it come; no connection is made any more if it `stays`."""
        self._moment, self._stays = moment, stays

    def goes(self) -> None:
        """Let connections be made again."""
        self._patch.delattr(self._engine, "connect")

    def _unless_lost(self, real: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda connection: (
            None if getattr(connection, "dbapi_connection", connection) in self._lost else real(connection)
        )

    def _breaks(self, connection: Any) -> None:
        if not self._is_near:
            self._commit(connection)
            return
        moment, self._moment, self._is_near = self._moment, "", False
        below = connection.dbapi_connection
        if moment != "before":
            self._lost.add(below)

        def arrives() -> None:
            below.commit()
            below.close()

        if moment == "while":
            threading.Timer(HANGS, arrives).start()
        elif moment == "after":
            arrives()
        else:
            below.close()
        if self._is_sqlite:  # whose connections do not break, so that it would be kept
            connection.invalidate()
        if self._stays:
            self._patch.setattr(self._engine, "connect", self._refuses, raising=False)
        raise self._failure

    def _refuses(self) -> sa.Connection:
        raise sa.exc.OperationalError("", None, self._failure)


@pytest.mark.parametrize(("moment", "is_kept"), [("before", False), ("after", True), ("while", True)])
def test_what_becomes_of_a_commit_is_found_out(
    shared: Open, monkeypatch: pytest.MonkeyPatch, moment: str, *, is_kept: bool
) -> None:
    """A start whose commit came to pass, if only later, succeeds; else it fails, and no process ever sees the job."""
    store, other, job = shared(), shared(), record("a", key="key")
    Fault(store, monkeypatch).comes(moment)
    if is_kept:
        assert of(store.insert(job)) is job
    else:
        with pytest.raises(StoreError):
            of(store.insert(job))
    for each in (store, other):
        of(each.refresh())
        assert (each.get("a") is not None) is is_kept
    again = record("b", key="key")
    assert of(store.insert(again)).job_id == ("a" if is_kept else "b")


def test_what_is_found_out_too_late_is_withdrawn(shared: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that failed, because the database stayed away, leaves no job, though its commit came to pass."""
    monkeypatch.setattr(tables, "_PATIENCE", 0.3)
    store, other = shared(), shared()
    fault = Fault(store, monkeypatch)
    fault.comes("after", stays=True)
    with pytest.raises(StoreError, match="withdrawn"):
        of(store.insert(record("a", key="key")))
    until(lambda: other.get("a") is not None)
    fault.goes()
    until(lambda: other.get("a") is None)
    again = record("b", key="key")
    assert of(store.insert(again)) is again


@pytest.mark.parametrize("key", [None, "key"])
def test_what_others_hold_by_then(shared: Open, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    """A job that is lived when it is found out is cancelled; with a key it is left to who starts it again."""
    monkeypatch.setattr(tables, "_PATIENCE", 0.3)
    store, worker = shared(), shared(worker=True)
    fault = Fault(store, monkeypatch)
    fault.comes("after", stays=True)
    with pytest.raises(StoreError):
        of(store.insert(record("a", key=key)))
    until(lambda: worker.holds("a"))
    fault.goes()
    if key is None:
        until(lambda: (found := worker.get("a")) is not None and found.cancel_requested_at is not None)
    else:
        assert of(store.insert(record("b", key=key))).job_id == "a"
        of(worker.refresh())
        assert (found := worker.get("a")) is not None
        assert found.cancel_requested_at is None
