"""A look into a file of jobs, for who holds and changes nothing: no thread, no beat, no claim."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.journal import Journal, is_dead
from o3pro_bg._sqlite.mirror import Mirror
from o3pro_bg._sqlite.place import absolute

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord


class Seen(NamedTuple):
    """
    What a file says of its jobs.

    Attributes:
        records: All of them, the oldest first.
        watched: Ids of those under way that a process holds which is not known to have ended.
    """

    records: list[JobRecord]
    watched: frozenset[str]


def peek(path: str) -> Seen:
    """
    Answer what the file says now; nothing, where there is no file.

    Raises:
        StoreError: It cannot be read.
    """
    whole = absolute(path)
    if not os.path.exists(whole):
        return Seen([], frozenset())
    file, mirror = JobFile(whole), Mirror()
    try:
        journal = Journal(file, mirror, owner="", endpoint="", pace=1.0, keep_text=True)
        with journal.glance():
            watched = frozenset(job_id for job_id, owner in file.held() if not is_dead(owner))
        return Seen(mirror.snapshot(), watched)
    finally:
        file.close()
