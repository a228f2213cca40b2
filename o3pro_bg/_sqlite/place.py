"""
Where a file is, and who is there: how it is made, told from another, and known to be open; and who has died.

A forked process cannot use a file that was open before the fork: SQLite would count locks there that only the other
process holds.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Identity = tuple[int, int] | None

_UNNAMEABLE: Final = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
_MOUNTS: Final = "/proc/self/mountinfo"

_OPEN: Final[list[Identity]] = []
"""The files that this process has open."""

_INHERITED: Final[set[Identity]] = set()
"""Those that were open as it was forked."""

getattr(os, "register_at_fork", dict)(after_in_child=lambda: _INHERITED.update(_OPEN))  # no forks on Windows


def absolute(path: str | os.PathLike[str]) -> str:
    """Answer the path from the root on; raises ValueError where it can be none of a file."""
    given = os.fsdecode(path)
    if given in ("", ":memory:") or given.startswith("sqlite:"):
        raise ValueError("a store is the path of a file; leave it out to keep jobs in memory")
    whole = os.path.expanduser(given)
    if whole.startswith("~") or _UNNAMEABLE.search(whole):
        raise ValueError(f"a store is the path of a file, and {given!a} is none: check the name, and whose home a ~ is")
    return os.path.abspath(whole)


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
    return os.stat(path).st_nlink == 1 and not _is_mounted(path)


def _is_mounted(path: str) -> bool:
    """Tell whether the file itself is a mount; the layers of a container may give it another device than its folder."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            points = {line.split(" ")[4] for line in file}
    except OSError:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    return "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\" else sign for sign in path) in points


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


def process_mark() -> str:
    """
    Answer what tells this process from all others, for `is_gone`, or an empty string where Linux does not tell.

    That is its number and the time of its start, and the kernel and the namespace in which they mean something.
    """
    try:
        return f"{os.getpid()} {_state_of(os.getpid())[1]} {_house()}"
    except OSError:
        return ""


def is_gone(mark: str) -> bool:
    """Tell whether the process of this mark is known to have ended; nothing is known of those of another house."""
    number, _, rest = mark.partition(" ")
    start, _, house = rest.partition(" ")
    try:
        if house != _house():
            return False
        os.kill(int(number), 0)
        state, its_start = _state_of(int(number))
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, ValueError):
        return False
    # Another one of the same number; or one that nobody has buried yet, though not one whose main thread alone ended.
    return its_start != start or (state in "ZX" and len(os.listdir(f"/proc/{number}/task")) == 1)


def _state_of(number: int) -> tuple[str, str]:
    with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
        facts = file.read().rpartition(")")[2].split()  # what stands before is a name, which may hold anything
    return facts[0], facts[19]


def _house() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    spaces = [
        os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time") if os.path.exists(f"/proc/self/ns/{kind}")
    ]
    return " ".join([kernel, *spaces])
