"""The file is made for its owner alone, is taken for what it is, and says no to what is not ours."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._sqlite import jobfile, place
from o3pro_bg._sqlite.causes import CAUSES, explain
from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.rows import Row
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

on_posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the file shall be."""
    return tmp_path / "jobs.db"


@pytest.fixture
def file(path: Path) -> Iterator[JobFile]:
    """Give a new file."""
    with closing(JobFile(str(path), busy=0.05)) as file:
        yield file


def row(job_id: str = "a", *, number: int = 0, state: str = "{}", ended: bool = False, epoch: int = 1) -> Row:
    """Answer the row of a job."""
    return Row(number, job_id, "E", state, ended, None, epoch)


def insert(file: JobFile, job_id: str = "a", *, owner: str = "me", seq: int = 1, key: str | None = None) -> Row:
    """Add a job, and answer its row."""
    with file.writing():
        number = file.insert(row(job_id), key, f"request of {job_id}", owner, seq)
    return row(job_id, number=number)


def sql(path: Path, *statements: str) -> list[Any]:
    """Do something to the file that we would not do, and answer what the last statement answers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def mode(path: Path) -> int:
    """Answer who may do what with it."""
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Use another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# --- making and opening -----------------------------------------------------------------------------------------


@on_posix
def test_all_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    """Missing directories are made with mode 0700; the file, and what SQLite lays beside it, with 0600."""
    before = mode(tmp_path)
    path = tmp_path / "a" / "b" / "jobs.db"
    with umask(0), closing(JobFile(str(path))) as file:
        insert(file)
        made = sorted(path.parent.iterdir())
        assert [found.name for found in made] == ["jobs.db", "jobs.db-shm", "jobs.db-wal"]
        assert {mode(found) for found in made} == {0o600}
    assert (mode(tmp_path), mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (before, 0o700, 0o700)


@on_posix
def test_modes_of_what_exists_are_left_alone(path: Path) -> None:
    """A file that the user shares with a group stays shared."""
    path.touch()
    os.chmod(path, 0o640)
    with closing(JobFile(str(path))) as file:
        insert(file)
    assert mode(path) == 0o640


@on_posix
def test_the_file_may_be_linked_to(tmp_path: Path) -> None:
    """A symbolic link leads to the file, which is made there if it is missing."""
    (tmp_path / "link.db").symlink_to(tmp_path / "there.db")
    with closing(JobFile(str(tmp_path / "link.db"))) as file:
        insert(file)
        assert file.path == str(tmp_path.resolve() / "there.db")
    assert mode(tmp_path / "there.db") == 0o600


@pytest.mark.parametrize("name", ["a b?mode=memory&x=%41#.db", "データ.db", ":memory:", "'\".db"])
@on_posix
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    """A path is never taken for a URI, or for anything but a path."""
    with closing(JobFile(str(tmp_path / name))) as file:
        insert(file)
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_file_says_what_it_is(file: JobFile, path: Path) -> None:
    """The file bears our application id and a version, and its journal is a write-ahead log."""
    with closing(sqlite3.connect(path)) as connection:
        facts = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode", "integrity_check")
        ]
    assert facts == [0x6F337062, len(jobfile._MIGRATIONS), "wal", "ok"]


def test_what_is_there_is_opened_as_it_is(file: JobFile, path: Path) -> None:
    """Who opens a file of this version changes nothing in it."""
    insert(file)
    with closing(sqlite3.connect(path)) as reader:
        version = reader.execute("PRAGMA data_version").fetchone()
        JobFile(str(path)).close()
        assert reader.execute("PRAGMA data_version").fetchone() == version
        insert(file, "b")
        assert reader.execute("PRAGMA data_version").fetchone() != version


def test_sqlite_is_told_what_not_every_one_does(file: JobFile) -> None:
    """However SQLite was built, and after a rest, it overwrites what was removed, and trusts no page and no schema."""
    for _ in range(2):
        with file.reading():
            pragmas = ("secure_delete", "cell_size_check", "trusted_schema", "journal_size_limit")
            assert [file._one(f"PRAGMA {pragma}") for pragma in pragmas] == [1, 1, 0, 1 << 24]
        file.rest()


def test_what_was_removed_is_overwritten(file: JobFile, path: Path) -> None:
    """Nothing of a removed question stays in the file, nor in the journal, which is empty before it goes."""
    found = insert(file, "secret-job")
    with file.writing():
        file.remove(found.number)
    with path.with_name("jobs.db-wal").open("rb") as journal:
        file.close()
        assert journal.read() == b""
    assert b"secret-job" not in path.read_bytes()


def test_journal_is_emptied_when_nobody_is_in_the_way(file: JobFile, path: Path) -> None:
    """A reader who holds on to the journal is not waited for; after he left, the next call empties it, and once."""
    found, journal = insert(file, "secret-job"), path.with_name("jobs.db-wal")
    file.wipe()
    assert b"secret-job" in journal.read_bytes()  # nothing was removed yet
    with closing(JobFile(str(path))) as other, other.reading():
        other.counters()
        with file.writing():
            file.remove(found.number)
        file._busy = 60
        asked: list[str] = []
        file._connection.set_trace_callback(asked.append)
        file.wipe()
        file._connection.set_trace_callback(None)
        assert asked[0] == "PRAGMA busy_timeout = 0"
        assert b"secret-job" in journal.read_bytes()
    file.wipe()
    assert journal.read_bytes() == b""
    assert file._one("PRAGMA busy_timeout") == 60_000
    insert(file, "b")
    file.wipe()
    assert journal.read_bytes() != b""


@pytest.mark.parametrize("attempt", range(5))
def test_many_may_make_the_file_at_once(path: Path, attempt: int) -> None:
    """Those who open a file that is not there yet all get the same one."""
    start = threading.Barrier(8)

    def make(name: int) -> None:
        start.wait()
        with closing(JobFile(str(path))) as file:
            insert(file, f"{attempt}-{name}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert sql(path, "SELECT count(*) FROM jobs") == [(8,)]


def test_processes_may_make_the_file_at_once(path: Path) -> None:
    """What holds for threads holds for processes."""
    script = "import sys; from o3pro_bg._sqlite.jobfile import JobFile; sys.stdin.read(1); JobFile(sys.argv[1]).close()"
    command = [sys.executable, "-c", script, str(path)]
    makers = [
        subprocess.Popen(  # noqa: S603 - the script is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b"x")
        maker.stdin.flush()
    ends = [(maker.communicate(timeout=60), maker.returncode) for maker in makers]
    assert ends == [((b"", b""), 0)] * 4
    assert sql(path, "SELECT seq, removals FROM meta") == [(0, 0)]


def test_older_file_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an older version is migrated, once, and keeps its jobs."""
    with closing(JobFile(str(path))) as file:
        insert(file)
    migrations = (*jobfile._MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN colour TEXT DEFAULT 'red'",))
    monkeypatch.setattr(jobfile, "_MIGRATIONS", migrations)
    for _ in range(2):
        with closing(JobFile(str(path))) as file, file.reading():
            assert [found.job_id for found in file.rows_since(0)] == ["a"]
    assert sql(path, "SELECT colour FROM jobs") == [("red",)]
    assert sql(path, "PRAGMA user_version") == [(2,)]


def test_migration_is_done_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails leaves the file as it was."""
    JobFile(str(path)).close()
    migrations = (*jobfile._MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN colour TEXT", "nonsense"))
    with monkeypatch.context() as patch:
        patch.setattr(jobfile, "_MIGRATIONS", migrations)
        with pytest.raises(StoreError, match="cannot be read or written"):
            JobFile(str(path))
    assert sql(path, "PRAGMA user_version") == [(1,)]
    JobFile(str(path)).close()
    assert "colour" not in str(sql(path, "SELECT sql FROM sqlite_master"))


# --- refusing ---------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """Answer the sentence with which a file is refused."""
    with pytest.raises(StoreError) as caught:
        JobFile(str(path), busy=0.05)
    assert str(path.resolve()) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_newer_file_is_refused(path: Path, journal: str) -> None:
    """A file of a later version is refused, untouched, with the versions and the way out, whatever its journal."""
    JobFile(str(path)).close()
    sql(path, f"PRAGMA journal_mode = {journal}", "PRAGMA user_version = 7")
    before = path.read_bytes()
    assert "it is of version 7, and this o3pro_bg reads versions up to 1: upgrade it" in refusal(path)
    assert path.read_bytes() == before


def test_foreign_database_is_refused(path: Path) -> None:
    """Somebody else's database is refused, untouched, whatever its version."""
    for statements in (
        ["CREATE TABLE theirs (x)"],
        ["PRAGMA application_id = 5"],
        ["PRAGMA user_version = 1"],
        ["CREATE TABLE meta (x)", "PRAGMA application_id = 5"],
    ):
        sql(path, "CREATE TABLE jobs (x)", *statements)
        before = path.read_bytes()
        assert "it is the database of another program: choose another path" in refusal(path)
        assert path.read_bytes() == before
        path.unlink()


def test_garbage_is_refused(path: Path) -> None:
    """A file that is no database is refused, untouched."""
    path.write_bytes(b"Dear diary, " * 1000)
    assert "it is no SQLite database: choose another path" in refusal(path)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_directory_is_refused(path: Path) -> None:
    """A directory is refused."""
    path.mkdir()
    assert "it is no regular file: choose another path" in refusal(path)


def test_read_only_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be written is refused when it is opened, not when something is written."""
    JobFile(str(path)).close()
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert "it, or where it lies, cannot be written: check permissions, owner and mount" in refusal(path)


@on_posix
def test_pipe_is_refused(path: Path) -> None:
    """A named pipe is refused, and nobody waits at it."""
    os.mkfifo(path)
    assert "it is no regular file" in refusal(path)


def test_file_for_a_directory_is_refused(path: Path) -> None:
    """A path that leads through a file is refused."""
    path.write_text("x")
    assert "cannot be read or written" in refusal(path / "jobs.db")


def test_file_system_that_cannot_share_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite cannot keep a write-ahead log, processes could not share the file."""
    monkeypatch.setattr(JobFile, "_share", lambda self: "delete")
    assert "its file system cannot share it between processes: put it on a local disk" in refusal(path)


class Busy:
    """A connection to a file which another process is about to make, so often."""

    def __init__(self, connection: sqlite3.Connection, times: float, code: int) -> None:
        self.tries = 0
        self._connection = connection
        self._times = times
        self._code = code

    def execute(self, statement: str) -> sqlite3.Cursor:
        self.tries += 1
        if self.tries > self._times:
            return self._connection.execute(statement)
        exc = sqlite3.OperationalError("not now")
        exc.sqlite_errorcode = self._code
        raise exc


@pytest.mark.parametrize(
    ("times", "code", "tries"),
    [(3, sqlite3.SQLITE_BUSY, 4), (float("inf"), sqlite3.SQLITE_BUSY, None), (1, sqlite3.SQLITE_IOERR, 1)],
)
def test_making_waits_for_another_who_makes(file: JobFile, times: float, code: int, tries: int | None) -> None:
    """What SQLite itself does not wait for is tried again for a bounded time; other troubles are told at once."""
    connection: Any = file._connection
    file._connection = busy = Busy(connection, times, code)  # type: ignore[assignment]
    try:
        if times == 3:
            assert file._share() == "wal"
        else:
            with pytest.raises(sqlite3.OperationalError, match="not now"):
                file._share()
    finally:
        file._connection = connection
    assert busy.tries == tries or (tries is None and busy.tries > 1)


# --- using ------------------------------------------------------------------------------------------------------


def test_rows_are_found_by_what_changed(file: JobFile) -> None:
    """A reader finds the rows that changed after the transaction that it saw last, the oldest job first."""
    a, b = insert(file, "a", seq=1), insert(file, "b", seq=2)
    with file.writing():
        assert file.update(row("a", number=a.number, state="[5]"), 3)
        file.count(3, 4)
    with file.reading():
        assert file.counters() == (3, 4)
        assert [found.job_id for found in file.rows_since(0)] == ["a", "b"]
        assert list(file.rows_since(1)) == [row("a", number=a.number, state="[5]"), b]
        assert list(file.rows_since(3)) == []
        assert file.job_ids() == {"a", "b"}
        assert file.request(a) == "request of a"


def test_jobs_are_found_by_key_or_id(file: JobFile) -> None:
    """A job is found by its key, or else by its id."""
    a, b = insert(file, "a", key="k"), insert(file, "b")
    assert file.find("b", "E", "k") == a
    assert file.find("b", "E", "l") == b
    assert file.find("b", "E", None) == b
    assert file.find("c", "E", None) is None
    assert file.find("c", "https://another", "k") is None


def test_only_the_epoch_of_the_row_may_write(file: JobFile) -> None:
    """Whoever names an old epoch, another job or no job at all, changes nothing."""
    a = insert(file, "a")
    with file.writing():
        file.hand_over(a.number, "you", 2, 2)
        assert not file.update(a._replace(state="[1]"), 3)
        assert not file.update(a._replace(state="[1]", epoch=2, job_id="b"), 3)
        assert not file.update(a._replace(state="[1]", epoch=2, number=99), 3)
        assert file.update(a._replace(state="[2]", epoch=2), 3)
    assert [found.state for found in file.rows_since(0)] == ["[2]"]


def test_wish_is_for_jobs_that_have_not_ended(file: JobFile) -> None:
    """The wish to cancel is a column of its own, which nobody sets after the end."""
    a = insert(file, "a")
    with file.writing():
        assert file.wish(a.number, 5.5, 2)
        assert file.update(a._replace(state="[1]", ended=True), 3)
        assert not file.wish(a.number, None, 4)
        assert not file.wish(99, 1.0, 4)
    assert [(found.cancel_requested_at, found.ended) for found in file.rows_since(0)] == [(5.5, True)]


def test_jobs_are_free_when_nobody_who_beats_holds_them(file: JobFile) -> None:
    """Free are the jobs of this service that have not ended, and whose owner is unknown."""
    a, b, c = insert(file, "a"), insert(file, "b", owner="you"), insert(file, "c")
    with file.writing():
        file.beat("me", 0.5)
        assert file.free("E") == ["b"]
        file.hand_over(c.number, None, 1, 2)
        file.beat("me", 0.5)
        assert file.beats(0.25) == {"me": (2, 2.0)}
        assert file.free("E") == ["b", "c"]
        assert file.free("F") == []
        file.bury("me")
        assert file.free("E") == ["a", "b", "c"]
        file.update(a._replace(ended=True), 3)
        file.remove(b.number)
        assert file.free("E") == ["c"]


def test_nothing_stays_of_what_raises(file: JobFile) -> None:
    """A transaction is done whole or not at all, and the next one is as good as any."""

    def insert_two(second: str | None) -> None:
        with file.writing():
            file.insert(row("a"), "k", "r", "me", 1)
            file.insert(row("b" if second else "c"), second, "r", "me", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_two(None)
    with pytest.raises(StoreError, match=r"cannot be read or written \(SQLITE_CONSTRAINT_UNIQUE\)"):
        insert_two("k")
    assert file.job_ids() == set()
    insert(file, "a")
    assert file.job_ids() == {"a"}


def test_syncs_are_paid_for_what_is_durable(file: JobFile) -> None:
    """A transaction outlives a power failure, and syncs for it, where nothing else is said; a beat does not."""
    for writing, level in ((file.writing(), 2), (file.writing(durable=False), 1), (file.writing(durable=True), 2)):
        with writing:
            assert file._one("PRAGMA synchronous") == level


def test_damaged_rows_are_told_from_sound_ones(file: JobFile, path: Path) -> None:
    """A row whose text, id, or any other column is not what was written has no state, and a request no text."""
    damages = [
        "state = 'x'",
        "state = x'ff'",
        "state_crc = state_crc + 1",
        "job_id = 'z'",
        "job_id = x'ff00'",
        "epoch = 'x'",
        "ended = 7",
        "ended = 'x'",
        "cancel_requested_at = 'x'",
    ]
    found = [insert(file, f"job-{number}") for number in range(len(damages) + 1)]
    for number, damage in enumerate(damages):
        sql(path, f"UPDATE jobs SET {damage} WHERE number = {found[number].number}")  # noqa: S608
    rows = list(file.rows_since(0))
    assert [each.state for each in rows] == [None] * len(damages) + ["{}"]
    assert all(isinstance(each.job_id, str) for each in rows)
    sql(path, "UPDATE requests SET request = 'x' WHERE number = 1", "DELETE FROM requests WHERE number = 2")
    assert [file.request(each) for each in found[:3]] == [None, None, "request of job-2"]


def test_damaged_counters_are_told(file: JobFile, path: Path) -> None:
    """Without its counters, or with one that has no next one, the file is damaged."""
    for damage in ("seq = -1", f"seq = {2**63 - 1}", "seq = 0, removals = 'x'", "seq = 0, removals = -1"):
        sql(path, f"UPDATE meta SET {damage}")  # noqa: S608
        with pytest.raises(StoreError, match="it is damaged: restore a copy"):
            file.counters()
    sql(path, "DELETE FROM meta")
    with pytest.raises(StoreError, match="it is damaged: restore a copy"):
        file.counters()


def test_structure_is_checked(file: JobFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose structure is sound passes; one in which it is not is refused."""
    file.check()
    monkeypatch.setattr(file, "_one", lambda statement: "row 5 missing")
    with pytest.raises(StoreError, match="it is damaged: restore a copy"):
        file.check()


def test_errors_without_a_name_are_told_by_their_kind(file: JobFile) -> None:
    """What SQLite's wrapper itself objects to is a StoreError, too."""
    file.close()
    with pytest.raises(StoreError, match=r"cannot be read or written \(ProgrammingError\)"), file.reading():
        pass


@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (OSError(errno.ENOSPC, "no space"), "the disk is full: make room there"),
        (OSError(errno.EDQUOT, "over quota"), "the disk is full: make room there"),
        (OSError(errno.EROFS, "read-only"), "cannot be written: check permissions, owner and mount"),
        (OSError(errno.EACCES, "denied"), "cannot be written: check permissions, owner and mount"),
        (OSError(errno.EMFILE, "too many files"), "it cannot be read or written (too many files): check the disk"),
        (sqlite3.DatabaseError("of no code"), "it cannot be read or written (DatabaseError): check the disk"),
    ],
    ids=str,
)
def test_causes_are_told(file: JobFile, exc: Any, told: str) -> None:
    """The sentence says what happened and what to do."""
    with pytest.raises(StoreError) as caught, file._told():
        raise exc
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("free", "writable", "told"),
    [
        (0, True, "the disk is full"),
        (1, False, "it, or where it lies, cannot be written"),
        (1, True, "it cannot be read or written (SQLITE_IOERR)"),
    ],
)
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR | 5 << 8])
def test_what_sqlite_does_not_say_is_looked_up(
    file: JobFile, monkeypatch: pytest.MonkeyPatch, free: int, writable: bool, told: str, code: int
) -> None:
    """Where SQLite says no more than that it failed, the disk is asked."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    monkeypatch.setattr("os.access", lambda path, mode: writable)
    exc = sqlite3.OperationalError("disk I/O error")
    exc.sqlite_errorcode, exc.sqlite_errorname = code, "SQLITE_IOERR"
    with pytest.raises(StoreError) as caught, file._told():
        raise exc
    assert told in str(caught.value)


def test_inherited_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was open as the process was forked is not opened again, and why is said."""
    monkeypatch.setattr(jobfile, "is_inherited", lambda place: True)
    with pytest.raises(StoreError, match="it was open in the process that forked this one"):
        JobFile(str(path))


# --- at rest ----------------------------------------------------------------------------------------------------


def test_a_file_at_rest_is_closed(path: Path, file: JobFile) -> None:
    """A file at rest is not open, rests once, needs no wiping, and is there again for the next transaction."""
    insert(file)
    with file.writing():
        file.remove(1)
    for _ in range(2):
        file.rest()
        assert place.identity(file.path) not in place._OPEN
        file.wipe()
    with file.reading():
        assert file.job_ids() == set()
    assert place.identity(file.path) in place._OPEN
    file.rest()
    insert(file, "b")
    file.rest()
    file.close()
    assert sql(path, "SELECT job_id FROM jobs") == [("b",)]


def test_a_file_that_has_gone_does_not_rest(path: Path, file: JobFile) -> None:
    """A file that was deleted stays open, for it could not be opened again; one that is replaced at rest is told."""
    insert(file)
    other = path.rename(path.with_name("other"))
    file.rest()
    assert not file._rests
    other.rename(path)
    file.rest()
    assert file._rests
    path.rename(other)
    JobFile(str(path)).close()
    for use in (file.reading, file.writing):
        with pytest.raises(StoreError, match="it was deleted or replaced while in use"), use():
            pass
    other.replace(path)
    with file.reading():
        assert file.job_ids() == {"a"}


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    """Where SQLite does not say why, a file that cannot be written, or whose folder cannot, is the cause."""
    path = tmp_path / "jobs.db"
    path.touch()
    refused = str(tmp_path if closed == "folder" else path)
    monkeypatch.setattr(os, "access", lambda where, _: where != refused)
    exc = sqlite3.OperationalError("unable to open database file")
    exc.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert explain(str(path), exc) == CAUSES[sqlite3.SQLITE_READONLY]
