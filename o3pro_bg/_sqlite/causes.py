"""What stands against a file, as its user is told: the cause, and the way out."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from typing import Final

CAUSES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make room there",
    sqlite3.SQLITE_BUSY: "another process has locked it for too long: end that process, or let it finish",
    sqlite3.SQLITE_READONLY: "it, or where it lies, cannot be written: check permissions, owner and mount",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a copy, or save what is left of it with `sqlite3 <file> .recover`",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: choose another path, or move that file away",
}
"""By SQLite's primary result code."""

INHERITED: Final = (
    "it was open in the process that forked this one: "
    "open it only after the fork, or have this process started by spawn"
)
GONE: Final = "it was deleted or replaced while in use: put it back, or open a new store"
ALONE: Final = (
    "it is mounted, or linked to, by itself, apart from its `-wal` and `-shm`: mount the directory it lies in, and use "
    "one name for it"
)

_UNNAMED: Final = "it cannot be read or written ({name}): check the disk"
_ERRNOS: Final = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
}


def explain(path: str, exc: sqlite3.Error | OSError) -> str:
    """Say why the file at this path could not be used."""
    code = _ERRNOS.get(exc.errno or 0) if isinstance(exc, OSError) else primary(exc)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):  # SQLite does not say why
        code = _circumstance(path)
    name = exc.strerror if isinstance(exc, OSError) else getattr(exc, "sqlite_errorname", type(exc).__name__)
    return CAUSES.get(code or 0) or _UNNAMED.format(name=name)


def primary(exc: sqlite3.Error) -> int | None:
    """Answer SQLite's primary result code, or None where the module itself raised."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _circumstance(path: str) -> int | None:
    where = os.path.dirname(path)
    if not os.access(where, os.W_OK) or not os.access(path, os.W_OK):
        return sqlite3.SQLITE_READONLY
    return None if shutil.disk_usage(where).free else sqlite3.SQLITE_FULL
