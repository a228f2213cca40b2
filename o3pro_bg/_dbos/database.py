"""The database: how it is reached, in what it is prepared, and what is said where it fails."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from dbos import DBOS
from dbos import error as troubles
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from o3pro_bg._sqlite.causes import explain
from o3pro_bg._sqlite.place import absolute, make
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 5  # seconds for a connection, for a lock, and for a host in the midst of a transaction to go on
_MAKING: Final = 60  # seconds for another process to make all tables
_LOCK: Final = 8031410072  # of whoever makes them: any number of ours
_KEEPALIVE: Final = {  # a host that is cut off notices it in about so many seconds, and not in hours
    "connect_timeout": _PATIENCE,
    "keepalives_idle": _PATIENCE,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": _PATIENCE * 1000,
}
_CAUSES: Final = {
    "28": "it refuses the user or the password: check the database URL",
    "3D": "there is no such database: make it, or check the name in the database URL",
    "42501": "its user may not do that: grant it the schema, or let one who may open it once",
    "53": "it has no room for this: disk, memory or connections are used up",
    "55P03": "another process keeps it locked: it is tried again",
    "57": "it is shutting down or starting up: it is tried again",
    "25006": "it is read-only: name the primary server in the database URL",
}
"""What a PostgreSQL error means, by its SQLSTATE or the class of that."""
_UNREACHABLE: Final = "it cannot be reached: check that it runs, the address and the network"
_REFUSED: Final = ("authentication failed", "no password supplied", "does not exist")


class Database:
    """
    A PostgreSQL database, or an SQLite file, with the tables of DBOS in it and our own beside them.

    Args:
        url: Its URL, which may hold a password: it is told nobody.
        schema: The PostgreSQL schema of the tables.

    Attributes:
        place: Which database this is, without its password.
        engine: The connections.
        schema: The schema of our tables; SQLite has none.

    Raises:
        ValueError: That is no URL of such a database.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._url = parsed(url)
        self.place = self._url.set(drivername=self._url.get_backend_name()).render_as_string(hide_password=True)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.dbos_schema = schema
        self.schema = None if self.is_sqlite else schema
        arguments: dict[str, Any] = {"check_same_thread": False, "timeout": _PATIENCE}
        if not self.is_sqlite:
            bounds = f"-c lock_timeout={_PATIENCE}s -c idle_in_transaction_session_timeout={_PATIENCE}s"
            arguments = {"application_name": "o3pro_bg", "options": bounds, **_KEEPALIVE}
        self.engine = sa.create_engine(
            self._url,
            connect_args=arguments,
            hide_parameters=True,  # questions are among them
            pool_pre_ping=not self.is_sqlite,
            pool_size=3,
            pool_timeout=_PATIENCE,
        )
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _as_shared_file)
            sa.event.listen(self.engine, "begin", _begin)

    def is_that_of(self, url: sa.URL, schema: str | None) -> bool:
        """Tell whether this URL and schema, of an instance of DBOS, name the same tables."""
        parts = ("host", "port", "database")
        is_same = url.get_backend_name() == self._url.get_backend_name() and all(
            getattr(parsed(url.render_as_string(hide_password=False)), part) == getattr(self._url, part)
            for part in parts
        )
        return is_same and (self.is_sqlite or schema == self.dbos_schema)

    @property
    def url(self) -> str:
        """The whole URL, for DBOS alone."""
        return self._url.render_as_string(hide_password=False)

    def prepare(self, tables: sa.MetaData, begin: Callable[[sa.Connection], object]) -> None:
        """
        Make what is missing, and have our tables begun; processes that come at once do so one after the other.

        Raises:
            StoreError: The database cannot be used, or `begin` says so.
        """
        with self.told(), self._turn():
            if self.is_sqlite:
                self._check_sqlite()
                make(Path(str(self._url.database)))
            DBOS.migrate(self.url, schema=self.dbos_schema)
            with self.engine.begin() as connection:
                tables.create_all(connection)
                begin(connection)

    def _check_sqlite(self) -> None:
        """DBOS has SQLite tell the time in a way that older ones answer with NULL (dbos 3.4, `_migration`)."""
        if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
            raise StoreError(
                f"the job store {self.place}: DBOS takes SQLite 3.42 or newer on Python 3.12 or newer, and this Python "
                f"has SQLite {sqlite3.sqlite_version}: name a PostgreSQL database, or run a Python with a newer SQLite"
            )

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only one who makes tables; with SQLite, that is who begins to write."""
        if self.is_sqlite:
            yield
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # No transaction waits here: DBOS makes indexes in a way that waits for all that are open.
            deadline = time.monotonic() + _MAKING
            while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar():
                if time.monotonic() > deadline:
                    raise StoreError(f"the job store {self.place}: another process has been making its tables for long")
                time.sleep(0.05)
            yield
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))

    def close(self) -> None:
        """Close the connections; whoever needs one later gets a new one."""
        self.engine.dispose()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have every fault be a `StoreError` that says whose it is; its cause, which may quote rows, is dropped."""
        try:
            yield
        except (SQLAlchemyError, troubles.DBOSException, OSError) as exc:
            raise StoreError(f"the job store {self.place}: {self._explain(exc)}") from None

    def _explain(self, exc: BaseException) -> str:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        if isinstance(cause, sqlite3.Error | OSError):
            return explain(str(self._url.database), cause)
        return _explain(exc)

    def now(self) -> sa.ColumnElement[float]:
        """Answer the database's own clock, which all hosts share: Unix time in seconds."""
        if self.is_sqlite:
            return (sa.func.julianday("now") - 2440587.5) * 86400.0
        return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Double)


def parsed(url: str) -> sa.URL:
    """Answer the URL with our driver in it; raises ValueError, which does not quote it."""
    try:
        given = sa.make_url(url)
    except (ArgumentError, TypeError, ValueError):
        given = None
    if given is not None and given.get_backend_name() == "sqlite" and given.database not in (None, "", ":memory:"):
        return given.set(drivername="sqlite", database=absolute(str(given.database)))
    if given is not None and given.get_backend_name() in ("postgresql", "postgres") and given.database:
        return given.set(drivername="postgresql+psycopg")
    raise ValueError(
        "the database has to be a URL, such as postgresql://user:password@host/name, or sqlite:///path/to/jobs.db"
    )


def _as_shared_file(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we say ourselves where a transaction begins
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # SQLite itself does not wait for another who does the same
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA secure_delete = ON")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("only_reads") else "BEGIN IMMEDIATE")


def _explain(exc: BaseException) -> str:
    if isinstance(exc, PoolTimeout):
        return "all connections to it are in use, and stay so"
    if not isinstance(exc, DBAPIError):
        return f"internal error ({type(exc).__name__})"
    state = getattr(exc.orig, "sqlstate", None) or ""
    for known in (state, state[:2]):
        if known and known in _CAUSES:
            return _CAUSES[known]
    said = str(exc.orig)
    if not state and any(word in said for word in _REFUSED):
        return _CAUSES["3D" if "does not exist" in said else "28"]
    if exc.connection_invalidated or not state:
        return _UNREACHABLE
    return f"it refuses this ({type(exc.orig).__name__} {state})".replace(" )", ")")
