"""`watch`: all jobs, or some, until they have ended."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from o3pro_bg._shown import duration
from o3pro_bg.cli._exits import Exit, of_many
from o3pro_bg.cli._jobs import shelf_of, shortened
from o3pro_bg.cli._place import check_endpoint, config_of, handler_of
from o3pro_bg.cli._screen import is_live, live, put, put_json, say
from o3pro_bg.cli._words import glyph, why
from o3pro_bg.errors import JobNotFound

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from o3pro_bg.handler import BackgroundHandler
    from o3pro_bg.job import Job

_REDRAWN: Final = 0.25  # seconds between two pictures
_GONE: Final = "removed"


def watch(arguments: argparse.Namespace) -> Exit:
    """Show jobs until all have ended; one that nobody watched is watched now."""
    shelf = shelf_of(arguments)
    chosen = [shelf.find(text) for text in arguments.jobs]
    chosen = chosen or [record for record in shelf.records if not record.status.is_terminal]
    if not chosen:
        say("no jobs are under way")
        return Exit.COMPLETED
    for record in chosen:
        check_endpoint(record, config_of(arguments))
    with handler_of(arguments) as handler:
        jobs = [handler.job(record.job_id) for record in chosen]
        has_picture = is_live() and not arguments.json
        tell = _Changes(handler, jobs, as_json=arguments.json, as_lines=not has_picture)
        try:
            with drawn(jobs, is_wanted=has_picture) as draw:
                for _ in ticks(jobs):
                    tell()
                    draw()
        except KeyboardInterrupt:
            say("left: the jobs go on. `o3pro-bg watch` comes back to them.")
            return Exit.INTERRUPTED
        if has_picture:
            say("\n".join(_line(job, tell.short[job.id]) for job in jobs))
        return of_many([status for job in jobs if (status := status_of(job)) != _GONE])


def ticks(jobs: Sequence[Job], until: float | None = None) -> Iterator[list[Job]]:
    """
    Answer, several times a second, which of the jobs have ended since the last time, until all have.

    Raises TimeoutError where that lasts longer than until this moment of the monotonic clock.
    """
    left = [*jobs]
    while left:
        ended = [job for job in left if is_over(job)]
        over = {job.id for job in ended}
        left = [job for job in left if job.id not in over] if over else left
        yield ended
        pause = _REDRAWN if until is None else min(_REDRAWN, until - time.monotonic())
        if left and pause <= 0:
            raise TimeoutError
        with suppress(TimeoutError, JobNotFound):
            if left:
                left[0].wait(pause)


def status_of(job: Job) -> str:
    """Answer the status of a job, which another process may have removed."""
    try:
        return job.status()
    except JobNotFound:
        return _GONE


def is_over(job: Job) -> bool:
    """Tell whether nothing more comes of a job."""
    try:
        return job.done()
    except JobNotFound:
        return True


@contextmanager
def drawn(jobs: Sequence[Job], *, is_wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Answer what draws the table of these jobs anew, where somebody can see it; else it does nothing."""
    if not (jobs and is_wanted and is_live()):
        yield lambda: None
        return
    from o3pro_bg.cli._pictures import Table

    table = Table(jobs)
    with live(has_all=True) as show:
        yield lambda: show(table.draw())


class _Changes:
    """Writes a line, of JSON or for people, for each change of a job."""

    def __init__(self, handler: BackgroundHandler, jobs: Sequence[Job], *, as_json: bool, as_lines: bool) -> None:
        self.short = shortened(job.id for job in jobs)
        self._handler = handler
        self._jobs = {job.id: job for job in jobs}
        self._as_json = as_json
        self._as_lines = as_lines
        self._said: dict[str, str] = {}

    def __call__(self) -> None:
        """Write what has changed since the last call."""
        for job_id, job in [*self._jobs.items()]:
            state = state_of(job)
            if self._said.get(job_id) != state:
                self._said[job_id] = state
                self._tell(job, state)
            if is_over(job):
                del self._jobs[job_id]

    def _tell(self, job: Job, state: str) -> None:
        if self._as_json:
            with suppress(KeyError):  # it was removed just now
                put_json(self._handler.jobs[job.id])
        elif self._as_lines:
            put(f"{self.short[job.id]}  {state}")


def state_of(job: Job) -> str:
    """Answer the status of a job, and why it waits."""
    try:
        return job.status() + (f": {why(job.waiting)}" if job.waiting else "")
    except JobNotFound:
        return _GONE


def _line(job: Job, short: str) -> str:
    try:
        status, elapsed = job.status(), duration(job.elapsed_time)
    except JobNotFound:
        return f"{short}  {_GONE}"
    return f"{short}  {glyph(status, sys.stderr)} {status:<9}  {elapsed:>11}"
