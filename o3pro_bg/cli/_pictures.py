"""What is redrawn in place, by rich: the state of one job, and the table of many."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table as Grid
from rich.text import Text

from o3pro_bg._shown import columns, duration, one_line
from o3pro_bg.cli._jobs import shortened
from o3pro_bg.cli._watching import is_over, state_of, status_of
from o3pro_bg.cli._words import COLOURS, glyph, why
from o3pro_bg.errors import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from o3pro_bg.job import Job

_ORDER: Final = ("running", "started", "completed", "failed", "cancelled", "removed")
_FEW: Final = 5  # ended jobs before which nothing is said of how long the others may take
_FRAME: Final = 4  # lines of the picture that are no jobs
_QUESTION_FROM: Final = 72  # columns of a terminal from which on there is room for questions
_EFFORT_FROM: Final = 52


class OneJob:
    """The line that tells how one job goes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._effort = job.effort
        self._spinner = Spinner("dots" if glyph("running", sys.stderr) == "●" else "line")

    def draw(self) -> RenderableType:
        """Answer the picture of this moment."""
        job = self._job
        parts = [state_of(job), self._effort, duration(job.elapsed_time)]
        if (next_look := job.next_look) is not None and not job.waiting:
            parts.append(f"next look in {next_look:.0f} s")
        self._spinner.update(text=Text("  ".join(parts), no_wrap=True, overflow="ellipsis"))
        return self._spinner


class Table:
    """The table of some jobs, those under way first, with the progress of all."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._short = shortened(job.id for job in jobs)
        self._width = max(columns(short) for short in self._short.values())
        self._begun = time.monotonic()
        self._ended_before = sum(map(is_over, jobs))
        self._console = Console(stderr=True)

    def draw(self) -> RenderableType:
        """Answer the picture of this moment, which fits the terminal as it is now."""
        width, height = self._console.size
        statuses = {job.id: status_of(job) for job in self._jobs}
        shown = sorted(self._jobs, key=lambda job: _ORDER.index(statuses[job.id]))[: max(1, height - _FRAME)]
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        grid.add_column("job", no_wrap=True, min_width=self._width)
        grid.add_column("status", no_wrap=True, min_width=11)
        if width >= _EFFORT_FROM:
            grid.add_column("effort", no_wrap=True, min_width=7)
        grid.add_column("elapsed", no_wrap=True, min_width=11, justify="right")
        if width >= _QUESTION_FROM:
            grid.add_column("question", no_wrap=True, ratio=1)
        room = width - self._width - 11 - 7 - 11 - 8
        for job in shown:
            grid.add_row(*self._cells(job, statuses[job.id], width, room))
        return Group(grid, *self._rest(len(self._jobs) - len(shown)), self._progress(statuses))

    def _cells(self, job: Job, status: str, width: int, room: int) -> list[Text]:
        try:
            return self._cells_of(job, status, width, room)
        except (JobNotFound, KeyError):  # another process removed it
            return [Text(self._short[job.id]), Text("removed")]

    def _cells_of(self, job: Job, status: str, width: int, room: int) -> list[Text]:
        word = Text(f"{glyph(status, sys.stderr)} {status}", style=COLOURS[status])
        cells = [Text(self._short[job.id]), word]
        if width >= _EFFORT_FROM:
            cells.append(Text(job.effort))
        cells.append(Text(duration(job.elapsed_time)))
        if width >= _QUESTION_FROM:
            reason = why(job.waiting)
            cells.append(Text(one_line(reason or job.question, room), style="dim" if reason else ""))
        return cells

    def _rest(self, hidden: int) -> list[Text]:
        return [Text(f"and {hidden} more")] if hidden else []

    def _progress(self, statuses: dict[str, str]) -> RenderableType:
        ended = sum(map(is_over, self._jobs))
        counts = Counter(statuses.values())
        told = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
        line = Grid.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=len(self._jobs), completed=ended, width=20),
            Text(f"{ended}/{len(self._jobs)}  {told}{self._estimate(ended)}", no_wrap=True, overflow="ellipsis"),
        )
        return line

    def _estimate(self, ended: int) -> str:
        """Answer how long the others may take at the rate of those that ended while we watched, or nothing."""
        seen, left = ended - self._ended_before, len(self._jobs) - ended
        if seen < _FEW or not left:
            return ""
        return f"  about {duration((time.monotonic() - self._begun) / seen * left)} left"
