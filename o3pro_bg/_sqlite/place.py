"""
Where a file is: how it is made, told from another, and known to be open.

A forked process cannot use a file that was open before the fork: SQLite would count locks there that only the other
process holds.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Identity = tuple[int, int] | None

_OPEN: Final[list[Identity]] = []
"""The files that this process has open."""

_INHERITED: Final[set[Identity]] = set()
"""Those that were open as it was forked."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _INHERITED.update(_OPEN))


def make(path: Path) -> None:
    """Make the file and the directories that are missing, for their owner alone."""
    for directory in reversed([parent for parent in path.parents if not parent.exists()]):
        directory.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def identity(path: str) -> Identity:
    """Answer what tells the file at this path from all others, or None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def lies_in_its_folder(path: str) -> bool:
    """Tell whether the file is where all who know it find the same journal beside it: not mounted or linked alone."""
    found = os.stat(path)
    return found.st_nlink == 1 and found.st_dev == os.stat(os.path.dirname(path)).st_dev


def is_inherited(file: Identity) -> bool:
    """Tell whether the file was open as this process was forked."""
    return file in _INHERITED


@contextmanager
def registered(file: Identity) -> Iterator[None]:
    """Have the file known to be open: from before there is a connection, until there is none."""
    _OPEN.append(file)
    try:
        yield
    finally:
        _OPEN.remove(file)
