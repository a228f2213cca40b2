"""The second process of the demo, which is this one: it takes up the jobs of the first, and has their answers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from o3pro_bg.demo._cast import GLANCE, PATIENCE, Astray, handler_of
from o3pro_bg.demo._words import ANSWER, HEAD, line_of, row_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from o3pro_bg import Job
    from o3pro_bg.demo._words import Timeline
    from o3pro_bg.emulator import Emulator


def second_process(
    emulator: Emulator, path: Path, job_ids: list[str], tell: Timeline, say: Callable[[str], object]
) -> tuple[list[str], list[dict[str, Any]]]:
    """
    Open the file, go on with the jobs, and say what came of all.

    Returns:
        The ids of the jobs that were taken up, and what `get_result` answers for each job, with its `job_id`.

    Raises:
        Astray: A job has not ended in a minute.
    """
    tell(f"process {os.getpid()} opens the same file")
    with handler_of(emulator.endpoint, emulator.api_key, path) as handler:
        jobs = [handler.job(job_id) for job_id in job_ids]
        under_way = [job for job in jobs if not job.done()]
        _follow(under_way, tell)
        results = {job.id: handler.get_result(job.id) for job in jobs}
        for job in under_way[:1]:
            say(ANSWER.format(job_id=job.id[:8], answer=results[job.id].get("response")))
        say(HEAD)
        for job in jobs:
            say(row_of(job))
    return [job.id for job in under_way], [{"job_id": job_id, **result} for job_id, result in results.items()]


def _follow(jobs: list[Job], tell: Timeline) -> None:
    """Tell which jobs are taken up, and their ends."""
    until = time.monotonic() + PATIENCE
    taken_up: set[str] = set()
    left = jobs
    while left:
        ended = [job for job in left if job.done()]
        for job in left:
            # A look at it is planned here, or was had already: somebody lives it, and the first process is dead.
            if job.id not in taken_up and (job in ended or job.next_look is not None):
                taken_up.add(job.id)
                tell(line_of(job.id, job.effort, "taken up"))
        for job in ended:
            tell(line_of(job.id, job.effort, job.status()))
        left = [job for job in left if job not in ended]
        if left and time.monotonic() > until:
            raise Astray(f"{len(left)} jobs had not ended {PATIENCE:g} s after the first process was killed")
        time.sleep(GLANCE)
