"""
The file of a job store: the only place that speaks SQL.

Each job has a row in `jobs`, which its state rewrites, and one in `requests`, which is never rewritten: a long
question is written once. `meta.seq` counts the transactions that changed a job, and each row bears the number of
its last one, so another process finds what is new without reading the rest; `meta.removals` counts what such a look
cannot find. `jobs.owner` holds a job that has not ended, and `jobs.epoch` counts how often it changed hands: whoever
writes names the epoch he knows, and a stalled owner who wakes up knows an old one. `owners.beat` moves while the
owner lives, every `owners.pace` seconds.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._sqlite.causes import ALONE, CAUSES, GONE, INHERITED, explain, primary
from o3pro_bg._sqlite.place import identity, is_inherited, lies_in_its_folder, make, registered
from o3pro_bg._sqlite.rows import crc_of, row_from
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from o3pro_bg._sqlite.rows import Row

_APPLICATION_ID: Final = 0x6F337062  # "o3pb", in the header of the file

_MOST: Final = 2**62  # of a counter that is not damaged

_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, removals INTEGER NOT NULL)",
        "INSERT INTO meta VALUES (1, 0, 0)",
        """
        CREATE TABLE jobs (
            number INTEGER PRIMARY KEY,
            job_id TEXT NOT NULL UNIQUE,
            endpoint TEXT NOT NULL,
            dedupe_key TEXT,
            state TEXT NOT NULL,
            state_crc INTEGER NOT NULL,
            ended INTEGER NOT NULL,
            cancel_requested_at REAL,
            owner TEXT,
            epoch INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            UNIQUE (endpoint, dedupe_key)
        )
        """,
        "CREATE INDEX jobs_by_seq ON jobs (seq)",
        "CREATE INDEX jobs_by_owner ON jobs (owner) WHERE ended = 0",
        "CREATE TABLE requests (number INTEGER PRIMARY KEY, request TEXT NOT NULL, request_crc INTEGER NOT NULL)",
        "CREATE TABLE owners (owner TEXT PRIMARY KEY, beat INTEGER NOT NULL, pace REAL NOT NULL) WITHOUT ROWID",
    ),
)
"""What leads from each version of the file to the next one; the first makes a new file."""

_PRAGMAS: Final = (
    "secure_delete = ON",  # what was removed is overwritten
    "cell_size_check = ON",
    "trusted_schema = OFF",
    "journal_size_limit = 16777216",
)

_SELECT: Final = "SELECT number, job_id, endpoint, state, state_crc, ended, cancel_requested_at, epoch FROM jobs "


class JobFile:
    """
    One connection to the file, for one thread.

    Whatever the file system or SQLite has against it is a `StoreError` that names the file, the cause and the way out.

    Args:
        path: Where the file is, or shall be: then it is made for its owner alone, as is the directory it lies in.
        busy: Seconds to wait for another process's transaction.
    """

    def __init__(self, path: str, *, busy: float = 5.0) -> None:
        self.path = os.path.realpath(path)
        self._busy = busy
        self._is_soiled = False  # with what was removed
        with self._told():
            make(Path(self.path))
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise self._refusal("it is no regular file: choose another path")
            if not os.access(self.path, os.W_OK):  # which SQLite would not mind before the first write
                raise self._refusal(CAUSES[sqlite3.SQLITE_READONLY])
        self._place: list[tuple[int, int] | None] = []
        self._open()

    def _open(self) -> None:
        with ExitStack() as undo:
            undo.enter_context(self._told())
            place = identity(self.path)
            if self._place and self._place[0] != place:
                raise self._refusal(GONE)
            if is_inherited(place):
                raise self._refusal(INHERITED)
            if not lies_in_its_folder(self.path):
                raise self._refusal(ALONE)
            undo.enter_context(registered(place))
            self._connection = sqlite3.connect(
                Path(self.path).as_uri() + "?mode=rw", uri=True, timeout=self._busy, isolation_level=None
            )
            undo.callback(self._connection.close)
            self._begin()
            self._place = self._look_where()
            self._undo = undo.pop_all()
        self._rests = False

    def rest(self) -> None:
        """Close the connection until the next transaction, where that will find the same file again."""
        if not self._rests and self._look_where() == self._place:
            self.close()
            self._rests = True

    def close(self) -> None:
        """Close the connection; the last one tidies up."""
        if not self._rests:
            self.wipe()
            self._undo.close()

    def wipe(self) -> None:
        """
        Have nothing that was removed left in the journal beside the file, where that can be had without waiting.

        Else, or where anything stands against it, the next call tries again.
        """
        if self._is_soiled and not self._rests:
            self._connection.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.Error):
                self._is_soiled = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0
            self._connection.execute(f"PRAGMA busy_timeout = {round(self._busy * 1000)}")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the file throughout."""
        self._wake()
        with self._told(), self._transaction("BEGIN"):
            yield

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[None]:
        """
        Change the file in one transaction, of which nothing stays where anything is raised.

        It outlives the process in any case, and a power failure if `durable`, for the price of a disk sync.
        """
        self._wake()
        with self._told():
            if self._look_where() != self._place:
                raise self._refusal(GONE)
            self._do(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._transaction("BEGIN IMMEDIATE"):
                yield

    def _wake(self) -> None:
        if self._rests:
            self._open()

    def check(self) -> None:
        """Raise `StoreError` if the file's structure is damaged, in which no row could be trusted to be there."""
        if self._one("PRAGMA quick_check(1)") != "ok":
            raise self._refusal(CAUSES[sqlite3.SQLITE_CORRUPT])

    def counters(self) -> tuple[int, int]:
        """Answer how many transactions changed a job, and how many jobs were removed."""
        counters: tuple[Any, ...] = self._do("SELECT seq, removals FROM meta").fetchone() or (None,)
        if not all(isinstance(counter, int) and 0 <= counter < _MOST for counter in counters):
            raise self._refusal(CAUSES[sqlite3.SQLITE_CORRUPT])
        return counters[0], counters[1]

    def count(self, seq: int, removals: int) -> None:
        """Set the counters."""
        self._do("UPDATE meta SET seq = ?, removals = ?", seq, removals)

    def rows_since(self, seq: int) -> Iterator[Row]:
        """Answer the jobs that changed after that transaction, the oldest job first, one by one."""
        for found in self._do(_SELECT + "WHERE seq > ? ORDER BY number", seq):
            yield row_from(*found)

    def job_ids(self) -> set[str]:
        """Answer the ids of all jobs."""
        return {str(job_id) for (job_id,) in self._do("SELECT job_id FROM jobs")}

    def request(self, row: Row) -> str | None:
        """Answer the text of a job's request, or None where it is damaged."""
        text, crc = self._do("SELECT request, request_crc FROM requests WHERE number = ?", row.number).fetchone() or (
            None,
            None,
        )
        return text if isinstance(text, str) and crc_of(row.job_id, text) == crc else None

    def find(self, job_id: str, endpoint: str, dedupe_key: str | None) -> Row | None:
        """Answer the job with this key, or else with this id."""
        found = self._do(_SELECT + "WHERE endpoint = ? AND dedupe_key = ?", endpoint, dedupe_key).fetchone()
        found = found or self._do(_SELECT + "WHERE job_id = ?", job_id).fetchone()
        return row_from(*found) if found else None

    def insert(self, row: Row, dedupe_key: str | None, request: str, owner: str | None, seq: int) -> int:
        """Add a job that this owner holds, if any, and answer its number."""
        state = str(row.state)
        values = (row.job_id, row.endpoint, dedupe_key, state, crc_of(row.job_id, state), row.ended)
        number = self._do(
            "INSERT INTO jobs (job_id, endpoint, dedupe_key, state, state_crc, ended, cancel_requested_at, owner, "
            "epoch, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *values,
            row.cancel_requested_at,
            owner,
            row.epoch,
            seq,
        ).lastrowid
        self._do("INSERT OR REPLACE INTO requests VALUES (?, ?, ?)", number, request, crc_of(row.job_id, request))
        return number or 0

    def update(self, row: Row, seq: int) -> bool:
        """Write the state of a job; False where there is no such job of this epoch."""
        state = str(row.state)
        return self._changes(
            "UPDATE jobs SET state = ?, state_crc = ?, ended = ?, seq = ? "
            "WHERE number = ? AND job_id = ? AND epoch = ?",
            *(state, crc_of(row.job_id, state), row.ended, seq, row.number, row.job_id, row.epoch),
        )

    def wish(self, number: int, at: float | None, seq: int) -> bool:
        """Set or withdraw the wish to cancel; False where there is no such job, or it has ended."""
        return self._changes(
            "UPDATE jobs SET cancel_requested_at = ?, seq = ? WHERE number = ? AND ended = 0", at, seq, number
        )

    def remove(self, number: int) -> None:
        """Forget a job."""
        self._is_soiled = True
        self._do("DELETE FROM jobs WHERE number = ?", number)
        self._do("DELETE FROM requests WHERE number = ?", number)

    def hand_over(self, number: int, owner: str | None, epoch: int, seq: int) -> None:
        """Set who holds a job, and since which epoch."""
        self._do("UPDATE jobs SET owner = ?, epoch = ?, seq = ? WHERE number = ?", owner, epoch, seq, number)

    def free(self, endpoint: str) -> list[str]:
        """Answer the jobs of a service that have not ended and that no owner who beats holds."""
        sql = (
            "SELECT job_id FROM jobs WHERE ended = 0 AND endpoint = ? "
            "AND (owner IS NULL OR owner NOT IN (SELECT owner FROM owners)) ORDER BY number"
        )
        return [str(job_id) for (job_id,) in self._do(sql, endpoint)]

    def held(self) -> list[tuple[str, str]]:
        """Answer the jobs that have not ended and whose owner beats, each with that owner."""
        sql = "SELECT job_id, owner FROM jobs WHERE ended = 0 AND owner IN (SELECT owner FROM owners)"
        return [(str(job_id), str(owner)) for job_id, owner in self._do(sql)]

    def beats(self, pace: float) -> dict[str, tuple[int, float]]:
        """Answer how often each owner has beaten, and how many beats of this pace one of his takes."""
        return {
            owner: (beat, ratio) for owner, beat, ratio in self._do("SELECT owner, beat, pace / ? FROM owners", pace)
        }

    def beat(self, owner: str, pace: float) -> None:
        """Count one more beat of this owner, who beats every so many seconds."""
        sql = "INSERT INTO owners VALUES (?, 1, ?) ON CONFLICT (owner) DO UPDATE SET beat = beat + 1"
        self._do(sql, owner, pace)

    def bury(self, owner: str) -> None:
        """Forget an owner: what he held is free."""
        self._do("DELETE FROM owners WHERE owner = ?", owner)

    def _begin(self) -> None:
        """Make sure that this is a file of ours, before anything in it is changed."""
        self._connection.text_factory = lambda data: data.decode(errors="replace")
        with self._transaction("BEGIN"):  # one view of it, while another process may be making it
            is_ours = self._one("PRAGMA application_id") == _APPLICATION_ID
            if not is_ours and self._one("SELECT count(*) FROM sqlite_master"):
                raise self._refusal("it is the database of another program: choose another path")
            self._refuse_newer()
        if self._share() != "wal":
            raise self._refusal("its file system cannot share it between processes: put it on a local disk")
        for pragma in _PRAGMAS:
            self._do(f"PRAGMA {pragma}")
        with self._transaction("BEGIN IMMEDIATE"):
            version = self._refuse_newer()  # another process may have come first
            for statements in _MIGRATIONS[version:]:
                for statement in statements:
                    self._do(statement)
            if version < len(_MIGRATIONS):
                self._do(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._do(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _refuse_newer(self) -> int:
        version: int = self._one("PRAGMA user_version")
        if not 0 <= version <= len(_MIGRATIONS):
            raise self._refusal(
                f"it is of version {version}, and this o3pro_bg reads versions up to {len(_MIGRATIONS)}: upgrade it"
            )
        return version

    def _share(self) -> Any:
        """Have processes share the file, and answer how; SQLite itself does not wait for another who does the same."""
        deadline = time.monotonic() + self._busy
        while True:
            try:
                return self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as exc:
                if primary(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._do(begin)
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _do(self, sql: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.Error as exc:
            raise self._refusal(explain(self.path, exc)) from exc

    def _one(self, sql: str) -> Any:
        return (self._do(sql).fetchone() or (None,))[0]

    def _changes(self, sql: str, *values: Any) -> bool:
        return self._do(sql, *values).rowcount > 0

    def _look_where(self) -> list[tuple[int, int] | None]:
        """Answer what lies at our path, and beside it: the journal, and what the locks are on."""
        return [identity(self.path + end) for end in ("", "-wal", "-shm")]

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"the job store {self.path}: {why}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise self._refusal(explain(self.path, exc)) from exc
