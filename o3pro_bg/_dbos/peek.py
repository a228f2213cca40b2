"""A look at the jobs of a database from outside: no handler, no loop, and no part in the lives of the jobs."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from o3pro_bg._dbos.database import Database
from o3pro_bg._dbos.tables import JobTables
from o3pro_bg._sqlite.journal import Journal
from o3pro_bg._sqlite.mirror import Mirror

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord


def peek(url: str, schema: str = "dbos") -> list[JobRecord]:
    """
    Answer every job of this database, the oldest first; tables that are missing are made.

    Raises:
        StoreError: The database cannot be used.
        ValueError: That is no URL of one.
    """
    with closing(Database(url, schema)) as database:
        tables: Any = JobTables(database)  # they answer as a file does
        tables.prepare()
        mirror = Mirror()
        with Journal(tables, mirror, "", "", pace=1.0, keep_text=True).glance():
            return mirror.snapshot()
