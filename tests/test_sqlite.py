"""One store on its file: its thread, its promises to readers and writers, and how it ends."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from o3pro_bg._records import JobRequest
from o3pro_bg._sqlite import place, writer
from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.journal import PATIENCE, Journal
from o3pro_bg._sqlite.store import SqliteStore, _let_go
from o3pro_bg._sqlite.writer import Inbox
from o3pro_bg.errors import StoreError

from .child import SOON
from .peers import ENDPOINT, ended, get, of, record, sentence, until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Future
    from pathlib import Path
    from types import FrameType

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sqlite.rows import Row

LEASE = 0.3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the file is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def enter(path: Path) -> Iterator[Callable[..., SqliteStore]]:
    """Open one more store of the file."""
    stores: list[SqliteStore] = []

    def enter(noticed: Callable[[Collection[str]], object] = len, busy: float = 5.0, **kwargs: Any) -> SqliteStore:
        store = SqliteStore(path, **{"lease": LEASE, **kwargs})
        store._busy = busy
        stores.append(store)
        store.open(ENDPOINT, noticed).result(SOON)
        return store

    yield enter
    for store in stores:
        store.close().exception(SOON)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have somebody else write in the file for a while."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def sql(path: Path, statement: str) -> list[Any]:
    """Ask the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def ids(store: SqliteStore) -> list[str]:
    """Answer the ids of all jobs."""
    return [found.job_id for found in store.snapshot()]


class Stalled:
    """A store whose thread stands in the middle of its work until it is let go."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._patch = monkeypatch
        self._stands = threading.Event()
        self._goes = threading.Event()

    def __enter__(self) -> None:
        def stand(_: Journal) -> None:
            self._stands.set()
            assert self._goes.wait(SOON)

        self._patch.setattr(Journal, "refresh", stand)
        operation = self._store.refresh()
        assert self._stands.wait(SOON)
        assert not operation.done()

    def __exit__(self, *_: object) -> None:
        self._goes.set()


# --- beginning and ending ---------------------------------------------------------------------------------------


def test_nothing_is_touched_until_it_is_opened(path: Path) -> None:
    """Making a store makes neither a file nor a thread; one that was never opened is closed at once."""
    before = {*threading.enumerate()}
    store = SqliteStore(path.parent / "new" / "jobs.db")
    assert store.durable
    assert (store.get("a"), store.snapshot(), store.holds("a")) == (None, [], False)
    assert "it was not opened yet" in sentence(store.insert(record()))
    of(store.close())
    assert "it is closed" in sentence(store.insert(record()))
    assert "a store serves one handler, once: make another one" in sentence(store.open(ENDPOINT, len))
    assert list(path.parent.iterdir()) == []
    assert before >= {*threading.enumerate()}


def test_a_store_tells_what_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repr names the file and the state; `~` is the home directory, and a path is meant where it was written."""
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert repr(SqliteStore("~/jobs.db")) == f"<SqliteStore {str(path)!r}, not open>"
    monkeypatch.chdir(path.parent)
    store = SqliteStore("jobs.db")
    monkeypatch.chdir("/")
    of(store.open(ENDPOINT, len))
    assert repr(store) == f"<SqliteStore {str(path)!r}, open>"
    of(store.close())
    assert repr(store) == f"<SqliteStore {str(path)!r}, closed>"


@pytest.mark.parametrize("path", ["", ":memory:", "sqlite:///jobs.db"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """A database in memory, or the address of one, is no path of a file."""
    with pytest.raises(ValueError, match="a store is the path of a file"):
        SqliteStore(path)


@pytest.mark.parametrize("store_text", [None, 0, "no"])
def test_whether_texts_are_kept_is_a_truth_value(path: Path, store_text: Any) -> None:
    """What only looks like a no is refused, instead of keeping the texts."""
    with pytest.raises(TypeError, match="store_text= must be True or False"):
        SqliteStore(path, store_text=store_text)


@pytest.mark.parametrize("lease", [0, 0.09, -1, float("nan"), float("inf")])
def test_lease_that_is_none_is_refused(path: Path, lease: float) -> None:
    """A lease in which nobody could show that he lives, or one without an end, is refused at once."""
    with pytest.raises(ValueError, match=r"lease= must be a number of seconds, 0\.1 at least"):
        SqliteStore(path, lease=lease)
    assert SqliteStore(path, lease=0.1).durable


def test_the_next_store_has_it_all(enter: Callable[..., SqliteStore]) -> None:
    """What was written is there when the file is opened again, with the jobs that are to be taken up, which is told."""
    first = enter()
    of(first.insert(record("a", key="k", response_id="resp_1", sent_at=5.0, waiting="rate_limit")))
    of(first.insert(record("b")))
    of(first.replace(ended(get(first, "b"), "answer")))
    of(first.wish("a", 7.0))
    of(first.close())
    noticed: list[set[str]] = []
    second = enter(lambda job_ids: noticed.append({*job_ids}))
    for before, after in zip(first.snapshot(), second.snapshot(), strict=True):
        shift = after.started - before.started
        assert after == dataclasses.replace(before, started=after.started, ended=after.ended)
        assert after.elapsed(5.0) == pytest.approx(before.elapsed(5.0 - shift))
        assert abs(shift) < 5
    assert (second.holds("a"), second.holds("b")) == (True, False)
    until(lambda: noticed)
    assert noticed == [{"a"}]


def test_close_leaves_one_tidy_file(enter: Callable[..., SqliteStore], path: Path) -> None:
    """Once the close is done the thread has let the file go: nothing lies beside it, and nobody holds a job."""
    store = enter()
    of(store.insert(record()))
    closes = [store.close() for _ in range(3)]
    assert [of(each) for each in closes] == [None] * 3
    assert [found.name for found in path.parent.iterdir()] == ["jobs.db"]
    assert not store.holds("a")
    assert sql(path, "SELECT owner FROM jobs") == [(None,)]
    assert sql(path, "SELECT * FROM owners") == []
    until(lambda: "o3pro_bg store" not in {thread.name for thread in threading.enumerate()})
    of(store.close())


def test_who_waits_for_the_file_cannot_take_it_back(path: Path) -> None:
    """Whoever waits for an open or a close, and is cancelled, cancels neither: the thread tells of both."""
    store = SqliteStore(path)
    opened = store.open(ENDPOINT, len)
    closed = store._closed
    assert not opened.cancel()
    assert not closed.cancel()
    of(opened)
    of(store.close())
    assert closed is store.close()


def test_what_was_asked_before_the_close_is_done(enter: Callable[..., SqliteStore]) -> None:
    """A close comes after what was asked for, and before what is asked for later, which is refused."""
    store = enter()
    early = [store.insert(record(str(number))) for number in range(50)]
    closed = store.close()
    late: list[Future[Any]] = [
        store.insert(record("late")),
        store.replace(record("1")),
        store.wish("1", 5.0),
        store.remove("1"),
        store.refresh(),
    ]
    assert [of(each).job_id for each in early] == [str(number) for number in range(50)]
    of(closed)
    assert {sentence(each) for each in late} == {f"the job store {store._path}: it is closed"}
    assert len(enter().snapshot()) == 50


def test_late_requests_in_the_queue_are_refused(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands behind the close in the queue is refused like what comes later."""
    store = enter()
    with Stalled(store, monkeypatch):
        closed, late = store.close(), store.insert(record())
    assert "it is closed" in sentence(late)
    of(closed)
    assert enter().snapshot() == []


def test_who_waits_as_the_thread_ends_is_refused() -> None:
    """Whatever still lies in the inbox of a thread that ends is refused, all of it, and nobody waits for it."""
    inbox = Inbox()
    waiting = [writer.Operation(Journal.refresh) for _ in range(3)]
    assert [inbox.put(each) for each in waiting] == [True] * 3
    inbox.shut("it is closed")
    assert [sentence(each.future) for each in waiting] == ["it is closed"] * 3
    assert not inbox.put(waiting[0])


def test_who_comes_as_the_thread_ends_is_refused(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever saw the store open, and then found its thread gone, does not wait for it."""
    store = enter()
    of(store.close())
    monkeypatch.setattr(store, "_absence", str)
    assert "it is closed" in sentence(store.insert(record()))


def test_failed_open_is_told(path: Path) -> None:
    """A file that cannot be opened is told by the future, and by whatever is asked for later; a close has no fault."""
    path.mkdir()
    store = SqliteStore(path)
    opened = store.open(ENDPOINT, len)
    early = store.insert(record())
    assert "it is no regular file" in sentence(opened)
    assert "it is no regular file" in sentence(early)
    assert "it is no regular file" in sentence(store.insert(record()))
    assert repr(store) == f"<SqliteStore {str(path)!r}, closed>"
    of(store.close())


def test_no_thread_no_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the interpreter exits, a store cannot be opened, and nobody waits for it."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    store = SqliteStore(path)
    assert "the interpreter exits" in sentence(store.open(ENDPOINT, len))
    assert "the interpreter exits" in sentence(store.insert(record()))
    of(store.close())


def test_store_whose_audience_is_gone_closes_itself(path: Path) -> None:
    """A store whose handler's loop has ended, which could live no job any more, holds none, and takes none over."""
    is_heard = threading.Event()
    is_heard.set()
    store = SqliteStore(path, lease=LEASE)
    of(store.open(ENDPOINT, len, is_heard.is_set))
    of(store.insert(record()))
    assert store.holds("a")
    is_heard.clear()
    until(lambda: repr(store).endswith("closed>"))
    assert sql(path, "SELECT owner FROM jobs") == [(None,)]
    assert "it is closed" in sentence(store.insert(record("b")))


def test_store_that_nobody_holds_closes_itself(path: Path) -> None:
    """A store that was forgotten is closed by the garbage collector, though its handler and it know each other."""

    class Handler:
        def __init__(self) -> None:
            self.store = SqliteStore(path, lease=LEASE)
            of(self.store.open(ENDPOINT, self.notice))

        def notice(self, job_ids: Collection[str]) -> None:
            """Do nothing."""

    handler = Handler()
    of(handler.store.insert(record()))
    gone = weakref.ref(handler)
    del handler
    gc.collect()
    assert gone() is None
    until(lambda: "o3pro_bg store" not in {thread.name for thread in threading.enumerate()})
    assert sql(path, "SELECT owner FROM jobs") == [(None,)]


def test_a_store_that_is_held_at_exit_is_not_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the interpreter exits, the farewell of whoever holds a store still writes in it: it is not closed before."""
    kept: list[Any] = []
    real = weakref.finalize

    def finalize(*args: Any) -> Any:
        kept.append(real(*args))
        return kept[0]

    store = SqliteStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(weakref, "finalize", finalize)
        of(store.open(ENDPOINT, len))
    assert [each.atexit for each in kept] == [False]
    of(store.close())


def test_forked_process_leaves_a_forgotten_store_alone() -> None:
    """Only the process that has the store's thread tells it that nobody holds the store any more."""
    inbox = Inbox()
    _let_go(os.getpid() + 1, inbox)
    assert inbox.take(0) == []
    _let_go(os.getpid(), inbox)
    assert len(inbox.take(0)) == 1


FORKED = """
import gc, os, sys, threading
from o3pro_bg._sqlite.store import SqliteStore
from tests.peers import ENDPOINT, record
store = SqliteStore(sys.argv[1])
store.open(ENDPOINT, len).result(30)
store.insert(record("a")).result(30)
child = os.fork()
if child == 0:
    assert [found.job_id for found in store.snapshot()] == ["a"] and store.get("a") and not store.holds("a")
    changes = store.insert(record("b")), store.replace(record("a")), store.wish("a", 5.0), store.remove("a")
    for future in (*changes, store.refresh()):
        assert future.done() and "its process was forked: open another store" in str(future.exception())
    assert store.get("a")
    store.close().result(0)
    del store
    gc.collect()
    print("child", flush=True)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.refresh().result(30)
assert [found.job_id for found in store.snapshot()] == ["a"] and store.holds("a")
store.replace(record("a", waiting="x")).result(30)
store.close().result(30)
print("parent", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_forked_process_has_no_part_in_it(path: Path) -> None:
    """A forked child reads what it inherited; its changes are refused at once, and its end harms nobody."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKED), str(path)]
    found = subprocess.run(  # noqa: S603 - the script is ours
        command, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout.split()) == (0, ["child", "parent"]), found.stderr
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_store_of_another_process_refuses(path: Path) -> None:
    """In a process that has not the thread, as a forked one, whatever changes something is refused at once."""
    store = SqliteStore(path)
    of(store.open(ENDPOINT, len))
    of(store.insert(record()))
    store._pid += 1
    assert "its process was forked: open another store in this one" in sentence(store.insert(record("b")))
    assert "its process was forked" in sentence(store.remove("a"))
    assert (ids(store), store.holds("a"), store.close().result(0)) == (["a"], False, None)
    store._pid -= 1
    of(store.close())


FORKED_ANEW = """
import multiprocessing, os, sys
from o3pro_bg._sqlite.store import SqliteStore
from tests.peers import ENDPOINT, record

def use(path, job_id):
    store = SqliteStore(path)
    why = store.open(ENDPOINT, len).exception(30)
    if why is None:
        store.insert(record(job_id)).result(30)
        store.close().result(30)
    print(job_id, why, flush=True)

def fork(job_id):
    if os.fork() == 0:
        use(path, job_id)
        os._exit(0)
    assert os.wait()[1] == 0

path = sys.argv[1]
use(path, "before")
fork("child")
store = SqliteStore(path)
store.open(ENDPOINT, len).result(30)
os.symlink(path, path + "-link")
path += "-link"
fork("late")
process = multiprocessing.get_context("fork").Process(target=use, args=(path, "process"))
process.start()
process.join()
fork_again = os.fork()
if fork_again == 0:
    fork("grandchild")
    os._exit(0)
assert os.waitpid(fork_again, 0)[1] == 0
store.insert(record("parent")).result(30)
store.close().result(30)
fork("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_file_is_closed_for_the_moment_of_a_fork(path: Path) -> None:
    """A forked process, and those that it forks, may open the file that is open in the process that forked them."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKED_ANEW), str(path)]
    found = subprocess.run(  # noqa: S603 - the script is ours
        command, capture_output=True, text=True, timeout=60, check=False
    )
    names = ["before", "child", "late", "process", "grandchild", "after"]
    assert (found.stdout.splitlines(), found.stderr) == ([f"{name} None" for name in names], "")
    names.insert(-1, "parent")
    assert sql(path, "SELECT job_id FROM jobs ORDER BY number") == [(name,) for name in names]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_store_rests_while_its_process_forks(path: Path) -> None:
    """Its file is closed from before a fork until after it, and what is asked for meanwhile is done then."""
    store = SqliteStore(path)
    of(store.open(ENDPOINT, len))
    file = place.identity(str(path))
    writer._have_rest()
    assert file not in place._OPEN
    inserted = store.insert(record("a"))
    assert not inserted.done()
    writer._go_on()
    of(inserted)
    assert file in place._OPEN
    writer._have_rest()
    writer._go_on()
    of(store.close())
    assert store._inbox not in writer._AT_WORK, "nobody would ever tell that it rests"


class Over(threading.Event):
    """The end of a fork, which tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_awaited = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.is_awaited.set()
        return super().wait(timeout)


def test_a_rest_lasts_as_long_as_the_fork(path: Path) -> None:
    """Who forks is told as soon as the file is closed, and the writer stands still until the fork is over."""
    store, begun, over = SqliteStore(path), threading.Event(), Over()
    of(store.open(ENDPOINT, len))
    store._inbox.put(writer.Operation(writer._rest, begun, over))
    assert begun.wait(SOON)
    assert over.is_awaited.wait(SOON)
    assert place.identity(str(path)) not in place._OPEN
    over.set()
    of(store.close())


def test_those_who_rest_share_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork waits for each file as long as those before it have left, and at last not at all."""
    now, waits = [100.0], []

    class Begun(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            now[0] += 2.0
            return False

    monkeypatch.setattr(writer, "_AT_WORK", {Inbox() for _ in range(3)})
    monkeypatch.setattr(writer, "_FORK_PATIENCE", 3.0)
    monkeypatch.setattr(writer, "Event", Begun)
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    writer._have_rest()
    writer._go_on()
    assert waits == [3.0, 1.0, 0.0]


def test_a_fork_that_is_over_needs_no_rest(path: Path) -> None:
    """A writer that gets to it only after the fork goes on; one that has ended is not waited for."""
    store, ended = SqliteStore(path), Inbox()
    of(store.open(ENDPOINT, len))
    ended.shut("it is closed")
    over = threading.Event()
    over.set()
    begun = threading.Event()
    assert store._inbox.put(writer.Operation(writer._rest, begun, over))
    of(store.refresh())
    assert not begun.is_set()
    with writer.at_rest_in_forks(ended):
        writer._have_rest()
    writer._go_on()
    of(store.close())


def test_a_child_has_no_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked process there is nobody who could have a rest, and nothing that would end it."""
    monkeypatch.setattr(writer, "_AT_WORK", {Inbox()})
    monkeypatch.setattr(writer, "_RESTS", {1: threading.Event()})
    writer._begin_again()
    assert not writer._AT_WORK
    assert not writer._RESTS


FORKED_WHILE_LOCKED = """
import os, sqlite3, subprocess, sys
from o3pro_bg._sqlite import writer
from o3pro_bg._sqlite.store import SqliteStore
from tests.peers import ENDPOINT, record

writer._FORK_PATIENCE = 0.2
store = SqliteStore(sys.argv[1])
store.open(ENDPOINT, len).result(30)
lock = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); "
lock += "print(flush=True); sys.stdin.read()"
other = subprocess.Popen(
    [sys.executable, "-c", lock, sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
other.stdout.readline()
inserted = store.insert(record("parent"))
if os.fork() == 0:
    print(SqliteStore(sys.argv[1]).open(ENDPOINT, len).exception(30), flush=True)
    os._exit(0)
os.wait()
other.stdin.close()
inserted.result(30)
store.close().result(30)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_file_that_is_open_at_the_fork_is_refused(path: Path) -> None:
    """
    A fork does not wait for ever for a file that another process has locked; its child is told that it cannot open it.

    SQLite would count locks there that only the other process holds: its child wrote into a file that was gone.
    """
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED_WHILE_LOCKED, str(path)]
    found = subprocess.run(  # noqa: S603 - the script is ours
        command, capture_output=True, text=True, timeout=60, check=False
    )
    refusal = (
        f"the job store {path}: it was open in the process that forked this one: "
        "open it only after the fork, or have this process started by spawn"
    )
    assert (found.stdout.splitlines(), found.stderr) == ([refusal], "")
    assert sql(path, "SELECT job_id FROM jobs") == [("parent",)]


def test_store_survives_an_interrupt_of_any_call(enter: Callable[..., SqliteStore]) -> None:
    """A Ctrl-C at whatever line of `threading`, in a change or a look, leaves the store open and serving."""
    store = enter()
    of(store.insert(record()))
    for line in range(200):
        left = [line]

        def interrupt(frame: FrameType, event: str, _: Any, left: list[int] = left) -> Any:
            if event == "line" and frame.f_code.co_filename == threading.__file__:
                left[0] -= 1
                if left[0] < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return interrupt

        tracer = sys.gettrace()  # a measurement of coverage, say
        sys.settrace(interrupt)
        try:
            store.holds("a")
            store.wish("a", 5.0)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(tracer)
        assert repr(store).endswith("open>")
    assert of(store.wish("a", 6.0)) is True
    assert get(store).cancel_requested_at == 6.0


def test_what_was_removed_leaves_the_journal(enter: Callable[..., SqliteStore], path: Path) -> None:
    """Soon after a removal neither the file nor its journal has the text, though the store and a reader stay."""
    store = enter()
    enter()
    of(store.insert(record("secret-job")))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM jobs").fetchall()
        of(store.remove("secret-job"))
        of(store.insert(record("b")))  # nobody waits for the reader
    until(lambda: not any(b"secret-job" in each.read_bytes() for each in path.parent.iterdir()))
    of(store.insert(record("c")))


def test_exit_without_close_loses_nothing(path: Path) -> None:
    """A process that ends without closing has written what it was told is written."""
    script = """
    import sys
    from o3pro_bg._sqlite.store import SqliteStore
    from tests.peers import ENDPOINT, record
    store = SqliteStore(sys.argv[1])
    store.open(ENDPOINT, len).result(30)
    for number in range(100):
        store.insert(record(str(number))).result(30)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    found = subprocess.run(  # noqa: S603 - the script is ours
        command, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert sql(path, "SELECT count(*) FROM jobs") == [(100,)]


# --- writing and reading ----------------------------------------------------------------------------------------


def test_many_threads_share_one_sync(
    enter: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs that fifty threads submit while the disk is busy are written in one transaction."""
    store = enter()
    done: list[Future[JobRecord]] = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(store.insert(record(name))))
        for name in map(str, range(50))
    ]
    with Stalled(store, monkeypatch):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {of(future).job_id for future in done} == {*map(str, range(50))}
    assert sql(path, "SELECT seq FROM meta") == [(1,)]


def test_all_that_waits_is_one_transaction(
    enter: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the thread is at work everything gathers, and is then one transaction, however much it is."""
    store = enter()
    with Stalled(store, monkeypatch):
        looked = store.refresh()
        changes: list[Future[Any]] = [store.insert(record(str(number))) for number in range(500)]
        changes += [store.replace(record(str(number), waiting="x")) for number in range(500)]
        changes += [store.wish(str(number), 5.0) for number in range(500)]
    of(looked)
    for change in changes:
        assert of(change)
    assert sql(path, "SELECT seq FROM meta") == [(1,)]
    assert {(found.waiting, found.cancel_requested_at) for found in store.snapshot()} == {("x", 5.0)}


def test_readers_never_wait(enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread stands still in the middle of a transaction, whatever was known is read."""
    store = enter()
    of(store.insert(record()))
    with Stalled(store, monkeypatch):
        change = store.replace(record(waiting="x"))
        assert (get(store).waiting, ids(store), store.holds("a"), change.done()) == ("", ["a"], True, False)
        assert not store.remove("b").result(0)
        removed = store.remove("a")
        assert (store.get("a"), store.snapshot(), removed.done()) == (None, [], False)
    assert of(removed)


def test_readers_never_wait_for_a_lock(enter: Callable[..., SqliteStore], path: Path) -> None:
    """While another process locks the file, whatever was known is read, and what was written before is looked for."""
    store = enter(busy=0.1)
    of(store.insert(record()))
    with locked(path):
        change = store.replace(record(waiting="x"))
        assert (ids(store), store.holds("a")) == (["a"], True)
        assert "another process has locked it for too long" in sentence(change)
        of(store.refresh())
    until(lambda: "x" in sql(path, "SELECT state FROM jobs")[0][0])


@pytest.mark.parametrize("broken", ["options", "id", "key"])
def test_what_cannot_be_written_fails_alone(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A job that cannot be written as JSON is refused, and nothing of it is kept; its neighbours are."""
    bad = {
        "options": dataclasses.replace(record("b"), request=JobRequest("q", "low", options={"x": object()})),
        "id": record("\ud800"),
        "key": record("b", key="\ud800"),
    }[broken]
    store = enter()
    with Stalled(store, monkeypatch):
        changes = [store.insert(record("a")), store.insert(bad), store.insert(record("c"))]
    assert of(changes[0]).job_id == "a"
    assert "is no JSON value, and cannot be written" in sentence(changes[1])
    assert of(changes[2]).job_id == "c"
    assert ids(store) == ids(enter()) == ["a", "c"]


def test_news_that_cannot_be_written_are_read(enter: Callable[..., SqliteStore]) -> None:
    """Readers see an answer that no file could hold; the store goes on, and does not try again."""
    store = enter()
    of(store.insert(record()))
    change = store.replace(ended(get(store), output_items=({"x": object()},)))
    assert "is no JSON value" in sentence(change)
    assert get(store).answer == "text"
    of(store.insert(record("b")))
    assert [found.answer for found in enter().snapshot()] == [None, None]


def test_insert_that_was_cancelled_in_time_keeps_nothing(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wants a job whose insert was cancelled before it began; all other changes are made in any case."""
    store = enter()
    of(store.insert(record("a")))
    with Stalled(store, monkeypatch):
        insert, change, wish = store.insert(record("b")), store.replace(record("a", waiting="x")), store.wish("a", 5.0)
        assert insert.cancel()
        assert not change.cancel()
        assert not wish.cancel()
    assert of(change)
    assert of(wish)
    assert insert.cancelled()
    assert ids(store) == ["a"]
    assert (get(store).waiting, get(store).cancel_requested_at) == ("x", 5.0)


def test_errors_of_ours_fail_alone(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no record at all is refused without a word of the job, and its neighbours are kept."""
    store = enter()
    of(store.insert(record("a")))
    broken = dataclasses.replace(record("a"), status="Why?")  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG, logger="o3pro_bg"), Stalled(store, monkeypatch):
        changes: list[Future[Any]] = [store.insert(broken), store.replace(broken), store.insert(record("b"))]
    assert of(changes[0]) == get(store)
    assert "internal error (AttributeError)" in sentence(changes[1])
    of(changes[2])
    assert ids(store) == ids(enter()) == ["a", "b"]
    assert "Why" not in caplog.text


def test_errors_of_the_file_fail_all_that_share_it(enter: Callable[..., SqliteStore], path: Path) -> None:
    """Where a statement fails in the middle, nothing of its transaction is kept."""
    store = enter()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE requests RENAME TO away")
        assert "cannot be read or written" in sentence(store.insert(record("a")))
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        connection.execute("ALTER TABLE away RENAME TO requests")
    of(store.insert(record("b")))
    assert ids(store) == ["b"]


def test_errors_in_a_transaction_stop_nothing(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug around a transaction is a StoreError for all in it, whose news are kept, and the next one is sound."""
    store = enter()
    of(store.insert(record()))
    with monkeypatch.context() as patch:
        patch.setattr("o3pro_bg._sqlite.jobfile.JobFile.count", lambda *_: 1 / 0)
        changes: list[Future[Any]] = [store.insert(record("b")), store.replace(ended(get(store)))]
        changes.append(store.replace(dataclasses.replace(record(), status="?")))  # type: ignore[arg-type]
        assert {sentence(each).partition(": ")[2] for each in changes} >= {"internal error (ZeroDivisionError)"}
        assert (ids(store), get(store).answer) == (["a"], "text")
    of(store.insert(record("c")))
    of(store.close())
    assert [found.answer for found in enter().snapshot()] == ["text", None]


def test_death_of_the_thread_is_told(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should the thread die of what nobody foresaw, nobody waits for it for ever, and the file is closed."""
    store = enter()

    def die(_: Journal) -> None:
        raise SystemExit

    monkeypatch.setattr(Journal, "refresh", die)
    with caplog.at_level(logging.ERROR, logger="o3pro_bg"):
        assert "internal error (SystemExit)" in sentence(store.refresh())
        until(lambda: repr(store).endswith("closed>"))
    assert "internal error (SystemExit)" in sentence(store.insert(record()))
    assert "internal error (SystemExit)" in sentence(store.close())
    assert "internal error (SystemExit)" in caplog.text


# --- trouble ----------------------------------------------------------------------------------------------------


def test_what_could_not_be_written_is_written_later(
    enter: Callable[..., SqliteStore], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the file is locked, news show in memory; they are written when it is free; the log says each once."""
    store = enter(busy=0.1)
    for job_id in "abc":
        of(store.insert(record(job_id)))
    with caplog.at_level(logging.INFO, logger="o3pro_bg"):
        with locked(path):
            changes: list[Future[Any]] = [
                store.insert(record("d")),
                store.replace(dataclasses.replace(get(store, "a"), waiting="x")),
                store.remove("b"),
                store.wish("c", 5.0),
            ]
            changes.append(store.replace(ended(get(store, "a"), "first")))
            causes = {sentence(each) for each in changes}
            again = store.replace(ended(get(store, "a"), "second"))
            causes.add(sentence(again))
            assert len(causes) == 1
            assert "another process has locked it for too long" in causes.pop()
            assert ids(store) == ["a", "c"]
            assert (get(store, "a").answer, get(store, "c").cancel_requested_at) == ("second", None)
            assert not store.holds("a")
        until(lambda: sql(path, "SELECT count(*) FROM jobs") == [(2,)])
        until(lambda: len(caplog.records) >= 2)
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO"]
    assert [found.answer for found in enter().snapshot()] == ["second", None]


class Unwritable:
    """A file that takes anything but what bears this mark, as a disk that is nearly full does not take what is big."""

    def __init__(self, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        update = JobFile.update

        def refuse(file: JobFile, row: Row, seq: int) -> bool:
            if self.is_full and mark in str(row.state):
                raise StoreError("the disk is full")
            return update(file, row, seq)

        monkeypatch.setattr(JobFile, "update", refuse)


def test_what_can_never_be_written_stops_nothing_else(
    enter: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News that the file does not take keep neither others from being written, nor the owner from beating."""
    store, witness = enter(), enter()
    for job_id in "abc":
        of(store.insert(record(job_id)))
    disk = Unwritable("big", monkeypatch)
    sentence(store.replace(ended(get(store, "a"), "big")))
    sentence(store.replace(dataclasses.replace(get(store, "b"), model="big too")))
    of(store.replace(ended(get(store, "c"), "small")))
    of(store.insert(record("d")))
    beat = sql(path, "SELECT sum(beat) FROM owners")[0][0]
    until(lambda: sql(path, "SELECT sum(beat) FROM owners")[0][0] > beat + 2 * PATIENCE)
    assert store.holds("b")
    assert store.holds("d")
    assert not witness.holds("b")
    assert (get(store, "a").answer, get(witness, "c").answer) == ("big", "small")
    disk.is_full = False
    until(lambda: get(witness, "a").answer == "big")
    until(lambda: get(witness, "b").model == "big too")


def test_removal_that_can_never_be_written_stops_nothing_else(
    enter: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that the file does not take keeps neither starts nor other removals from being written."""
    store = enter()
    for job_id in "abc":
        of(store.insert(record(job_id)))
    remove = JobFile.remove

    def refuse(file: JobFile, number: int) -> None:
        if number == 1:
            raise StoreError("damaged")
        remove(file, number)

    monkeypatch.setattr(JobFile, "remove", refuse)
    assert sentence(store.remove("a")) == "damaged"
    of(store.insert(record("d", key="k")))
    of(store.remove("b"))
    until(lambda: sql(path, "SELECT job_id FROM jobs ORDER BY number") == [("a",), ("c",), ("d",)])
    assert ids(store) == ["c", "d"]
    monkeypatch.setattr(JobFile, "remove", remove)
    until(lambda: sql(path, "SELECT job_id FROM jobs ORDER BY number") == [("c",), ("d",)])


@pytest.mark.parametrize("is_end", [True, False], ids=["the end", "on the way"])
def test_newer_news_take_the_place_of_what_waits(
    enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch, is_end: bool
) -> None:
    """What could not be written is not written over what came after it."""
    store = enter()
    of(store.insert(record()))
    disk = Unwritable("old", monkeypatch)
    sentence(store.replace(dataclasses.replace(get(store), model="old")))
    newer = dataclasses.replace(get(store), model="new")
    of(store.replace(ended(newer, "new") if is_end else newer))
    disk.is_full = False
    of(store.insert(record("b")))
    of(store.close())
    assert (get(enter()).answer, get(enter()).model) == ("new" if is_end else None, "new")


def test_who_asks_waits_for_one_try(enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is told after it was tried once, for a try may take seconds."""
    monkeypatch.setattr("o3pro_bg._sqlite.writer._PULSE", 60.0)
    store = enter(lease=600)
    tries: list[Journal] = []

    def fail(journal: Journal) -> AbstractContextManager[None]:
        tries.append(journal)
        raise StoreError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "transaction", fail)
        assert sentence(store.insert(record())) == "locked"
        assert len(tries) == 1


@pytest.mark.parametrize("company", [False, True], ids=["alone", "with a look"])
def test_insert_during_trouble_comes_after_the_removal(
    enter: Callable[..., SqliteStore],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    company: bool,
) -> None:
    """A key is free as soon as its job is removed, though the removal waits to be written, of which the log tells."""
    monkeypatch.setattr("o3pro_bg._sqlite.writer._PULSE", 60.0)
    store = enter(busy=0.1, lease=600)
    of(store.insert(record("a", key="k")))
    with locked(path):
        sentence(store.remove("a"))
        assert [entry.levelname for entry in caplog.records] == ["WARNING"]
    with Stalled(store, monkeypatch) if company else nullcontext():
        looked = store.refresh() if company else None
        inserted = store.insert(record("b", key="k"))
    assert looked is None or of(looked) is None
    assert of(inserted).job_id == "b"
    assert ids(store) == ["b"]


def test_news_of_a_job_that_was_not_inserted_are_not_kept(enter: Callable[..., SqliteStore], path: Path) -> None:
    """Where the insert failed, nothing that follows it makes the job appear."""
    store = enter(busy=0.1)
    with locked(path):
        changes: list[Future[Any]] = [store.insert(record()), store.replace(record(waiting="x"))]
        for change in changes:
            sentence(change)
    of(store.refresh())
    of(store.insert(record("b")))
    assert ids(store) == ids(enter()) == ["b"]


def test_close_writes_what_is_left(enter: Callable[..., SqliteStore], path: Path) -> None:
    """A close writes what waits to be written, if it can."""
    store = enter(busy=0.1, lease=60)
    of(store.insert(record()))
    with locked(path):
        sentence(store.replace(ended(get(store), "late")))
    of(store.close())
    assert get(enter()).answer == "late"


def test_close_says_what_is_lost(
    enter: Callable[..., SqliteStore], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A close that cannot write the last news ends all the same, and tells by its future and the log."""
    store = enter(busy=0.1)
    of(store.insert(record()))
    with locked(path):
        sentence(store.replace(ended(get(store), "late")))
        assert "the last news of these jobs could not be written: a" in sentence(store.close())
    assert "the last news of these jobs could not be written: a" in caplog.text
    assert get(store).answer == "late"
    assert "the last news" in sentence(store.insert(record()))


def test_close_that_cannot_release_loses_nothing(enter: Callable[..., SqliteStore], path: Path) -> None:
    """A close while the file is locked has no fault; the jobs are taken over when the lease is over."""
    store = enter(busy=0.1)
    of(store.insert(record()))
    with locked(path):
        of(store.close())
    other = enter()
    assert not other.holds("a")
    until(lambda: other.holds("a"))


@pytest.mark.parametrize("jobs", [["a"], []], ids=["with a job", "idle"])
def test_trouble_with_looking_is_told_once(
    enter: Callable[..., SqliteStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    jobs: list[str],
) -> None:
    """A file that cannot be read is told once, and once that it can be again: by the next beat, or what is written."""
    store = enter()
    for job_id in jobs:
        of(store.insert(record(job_id)))
    levels: list[str] = []
    tries: list[object] = []

    def fail(*args: object) -> tuple[int, int]:
        tries.append(args)
        raise StoreError("gone")

    with caplog.at_level(logging.INFO, logger="o3pro_bg"):
        for again in "bc":
            with monkeypatch.context() as patch:
                tries.clear()
                patch.setattr("o3pro_bg._sqlite.jobfile.JobFile.counters", fail)
                until(lambda: len(tries) > 3)
                levels.append("WARNING")
                assert [entry.levelname for entry in caplog.records] == levels
                assert sentence(store.refresh()) == "gone"
            levels.append("INFO")
            if not jobs:
                of(store.insert(record(again)))
                assert [entry.levelname for entry in caplog.records] == levels
            until(lambda: len(caplog.records) >= len(levels))
    assert [entry.levelname for entry in caplog.records] == levels


# --- others -----------------------------------------------------------------------------------------------------


def test_others_see_it_without_asking(enter: Callable[..., SqliteStore]) -> None:
    """What one store does, the other sees by itself and is told of; who did it is not told."""
    told: dict[str, set[str]] = {"one": set(), "other": set()}
    one, other = enter(told["one"].update), enter(told["other"].update)
    of(one.insert(record()))
    until(lambda: other.get("a"))
    of(other.wish("a", 5.0))
    until(lambda: get(one).cancel_requested_at == 5.0)
    of(one.replace(ended(get(one), "answer")))
    until(lambda: get(other).answer == "answer")
    until(lambda: told == {"one": {"a"}, "other": {"a"}})
    told["one"].clear()
    of(one.remove("a"))
    until(lambda: other.snapshot() == [])
    of(one.insert(record("b")))
    assert told["one"] == set()


def test_refresh_sees_it_at_once(enter: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refresh everything is seen that was done before it."""
    monkeypatch.setattr("o3pro_bg._sqlite.writer._PULSE", 1000.0)
    one, other = enter(lease=6000), enter(lease=6000)
    for number in range(5):
        of(one.insert(record(str(number))))
        of(other.refresh())
        assert len(other.snapshot()) == number + 1


def test_who_is_told_may_fail(enter: Callable[..., SqliteStore], caplog: pytest.LogCaptureFixture) -> None:
    """An exception of whoever is told is logged without its words, and the store goes on."""
    told: list[Collection[str]] = []

    def fail(job_ids: Collection[str]) -> None:
        told.append(job_ids)
        raise ValueError("the question")

    one = enter()
    enter(fail)
    of(one.insert(record("a")))
    until(lambda: told)
    of(one.insert(record("b")))
    until(lambda: len(told) > 1)
    assert "who was told of changes in the job store raised ValueError" in caplog.text
    assert "the question" not in caplog.text


def test_owners_beat_at_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a writer looks around, he beats once in each pace, as soon as it is over."""
    now, beats = [100.0], []
    acts = {"glance": nullcontext, "beat": lambda: beats.append(now[0]), "wipe": lambda: None, "awaits": True}
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    settings = writer.Settings("", "", "", keep_text=True, pace=0.5, busy=5.0)
    owner = writer._Writer(settings, Inbox(), cast("Any", SimpleNamespace(**acts)), cast("Any", None))
    for _ in range(9):
        owner._look_around()
        now[0] += 0.125
    assert beats == [100.0, 100.5, 101.0]


@pytest.mark.parametrize(("pace", "pulse"), [(0.125, 0.125), (600.0, 0.2)])
def test_a_writer_waits_until_his_next_look(monkeypatch: pytest.MonkeyPatch, pace: float, pulse: float) -> None:
    """Who asks for nothing is waited for until the next look around is due, and that is after 0.2 s at the latest."""
    now, waits, looks = [100.0], [], []
    acts = {"glance": nullcontext, "awaits": False, "wipe": lambda: looks.append(now[0])}

    def take(seconds: float) -> list[object]:
        waits.append(seconds)
        return []

    inbox = SimpleNamespace(take=take)
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    settings = writer.Settings("", "", "", keep_text=True, pace=pace, busy=5.0)
    owner = writer._Writer(settings, cast("Any", inbox), cast("Any", SimpleNamespace(**acts)), cast("Any", None))
    for seconds in (0.0, 0.0625, 5.0):
        now[0] += seconds
        owner._turn()
    assert waits == pytest.approx([0.0, pulse - 0.0625, 0.0])
    assert looks == [100.0, 105.0625]


def test_owners_beat_while_there_is_something_to_hold(
    enter: Callable[..., SqliteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beats are written while a job is under way, and none when all have ended: then nothing is written at all."""
    looks: list[object] = []
    glance = Journal.glance

    def counted(self: Journal) -> AbstractContextManager[None]:
        looks.append(self)
        return glance(self)

    monkeypatch.setattr(Journal, "glance", counted)
    store = enter()

    def after_looks() -> list[Any]:
        before = len(looks)
        until(lambda: len(looks) > before + 10)
        return sql(path, "SELECT beat FROM owners")

    assert after_looks() == []
    of(store.insert(record()))
    first = after_looks()
    until(lambda: sql(path, "SELECT beat FROM owners") > first)
    of(store.replace(ended(get(store))))
    last = after_looks()
    assert after_looks() == last
