"""Which jobs there are, and which one an id means that may be shortened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from o3pro_bg._sentences import say, shown
from o3pro_bg._sqlite.peek import peek
from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._place import database_of, engine_of, language, store_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from o3pro_bg._records import JobRecord

SHORT: Final = 8  # characters of an id that are shown


class Shelf(NamedTuple):
    """
    The jobs of the command's file, as it says now.

    Attributes:
        records: All of them, the oldest first.
        watched: Ids of those under way that a living process holds.
        now: The moment on the monotonic clock for which this holds.
    """

    records: list[JobRecord]
    watched: frozenset[str]
    now: float

    def unwatched(self, records: Sequence[JobRecord]) -> list[JobRecord]:
        """Answer those under way that nobody watches: their state is that of when somebody last did."""
        return [record for record in records if not record.status.is_terminal and record.job_id not in self.watched]

    def find(self, text: str) -> JobRecord:
        """
        Answer the job that an id, its beginning, or a response id means.

        Raises `Stop` where there is none, or more than one.
        """
        exact = [record for record in self.records if text in (record.job_id, record.response_id)]
        found = exact or [record for record in self.records if text and record.job_id.startswith(text.lower())]
        if not found:
            reply = {"success": False, "error": say(language(), "not_found", job_id=shown(text))}
            raise Stop(Exit.NOT_FOUND, f"no job {text!a}: `o3pro-bg list --all` lists all there are", reply)
        if len(found) > 1:
            candidates = ", ".join(record.job_id[: len(text) + 4] for record in found[:5])
            raise Stop(Exit.USAGE, f"{len(found)} jobs begin with {text!a}: {candidates}")
        return found[0]


def shortened(job_ids: Iterable[str]) -> dict[str, str]:
    """Answer for each id its shortest beginning, of eight characters at least, that no other one has."""
    ordered = sorted({*job_ids})
    short: dict[str, str] = {}
    for before, job_id, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        length = SHORT
        while length < len(job_id) and job_id[:length] in (before[:length], after[:length]):
            length += 1
        short[job_id] = job_id[:length]
    return short


def shelf_of(arguments: argparse.Namespace) -> Shelf:
    """Read the file of the jobs, or their database, without a handler; raises `StoreError`."""
    if (database := database_of(arguments)) is None:
        records, watched = peek(store_of(arguments))
    else:
        engine_of(database)  # or it says what is missing
        from o3pro_bg._dbos.peek import peek as peek_into

        records = peek_into(database)
        watched = frozenset(record.job_id for record in records)  # its workers do, or will
    return Shelf(records, watched, time.monotonic())
