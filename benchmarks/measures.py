"""
What the benchmarks share: a journal of what each job met, what a process takes, tables, and goals.

What a process takes is read from Linux's /proc.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import resource
import statistics
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

clock = time.perf_counter
NAN = float("nan")
_TICK = 0.1  # seconds between two samples of a process
_BEAT = 0.01  # seconds between two beats of a loop
_SEEN = 5.0  # seconds for which jobs have to be seen waiting


class Journal:
    """
    What a competitor notes of its jobs; times are seconds of one clock.

    Attributes:
        submits: How long each call took after which its caller had an id.
        accepted: When the answer to a job's create was there, by job.
        ended: When whoever waits for a job had its answer, by job.
        looks: How many looks have left (about so many where threads count them).
        troubles: How often jobs ended without an answer, by the name of what they met.
        longest_stop: The longest time for which the event loop stood still, in seconds.
    """

    def __init__(self) -> None:
        self.submits: list[float] = []
        self.accepted: dict[Any, float] = {}
        self.ended: dict[Any, float] = {}
        self.looks = 0
        self.troubles: Counter[str] = Counter()
        self.longest_stop = 0.0

    def created(self, job: Any, begun: float) -> None:
        """Note that a create that left at `begun` was answered, which is when a peer's caller has an id."""
        self.accepted[job] = clock()
        self.submits.append(self.accepted[job] - begun)

    def figures(self, seconds: float) -> dict[str, Any]:
        """Answer what the journal comes to, where each job takes so many seconds at the service."""
        delays = [end - self.accepted[job] - seconds for job, end in self.ended.items() if job in self.accepted]
        accepted = self.accepted.values()
        return {
            "submit p50": quantile(self.submits, 0.5),
            "submit p99": quantile(self.submits, 0.99),
            "delay p50": quantile(delays, 0.5),
            "delay p99": quantile(delays, 0.99),
            "answers": len(self.ended),
            "accepting": max(accepted) - min(accepted) if accepted else NAN,
            "stop": self.longest_stop,
            "troubles": dict(self.troubles),
        }


async def beating(work: Coroutine[Any, Any, None], journal: Journal) -> None:
    """Do some work, and note in the meantime how long the loop stands still."""

    async def beat() -> None:
        while True:
            begun = clock()
            await asyncio.sleep(_BEAT)
            journal.longest_stop = max(journal.longest_stop, clock() - begun - _BEAT)

    heart = asyncio.ensure_future(beat())
    try:
        await work
    finally:
        heart.cancel()


class Watch:
    """
    Samples this process from a thread of its own: the most threads and sockets at a time.

    Where `waiting` is given, the seconds that a job takes at the service, it also measures how the jobs wait: from
    the moment in which the last one was accepted until shortly before the first one is done.
    """

    def __init__(self, journal: Journal, jobs: int, waiting: float | None = None) -> None:
        self._journal = journal
        self._jobs = jobs
        self._waiting = waiting
        self._resident = resident()
        self._begin: tuple[float, int] | None = None
        self._window: dict[str, float] = {}
        self._threads = self._sockets = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Answer what was seen."""
        return {"threads": self._threads, "sockets": self._sockets, **self._window}

    def _run(self) -> None:
        files = 0
        while not self._stop.wait(_TICK):
            self._threads = max(self._threads, len(os.listdir("/proc/self/task")) - 1)  # but this one
            if (now := len(os.listdir("/proc/self/fd"))) > files:  # to read what each of them is takes longer
                files, self._sockets = now, max(self._sockets, sockets())
            if self._waiting is not None and not self._window and len(self._journal.accepted) == self._jobs:
                self._see_them_wait(self._waiting)

    def _see_them_wait(self, seconds: float) -> None:
        until = min(self._journal.accepted.values()) + seconds - 1
        if self._begin is None:
            if clock() > until - _SEEN:  # they hardly wait together
                self._waiting = None
            self._begin = cpu(), self._journal.looks
            self._journal.longest_stop = 0.0
        elif clock() > until:
            spent, looks = cpu() - self._begin[0], self._journal.looks - self._begin[1]
            self._window = {
                "CPU a look": spent / looks if looks else NAN,
                "stop as they wait": self._journal.longest_stop,
            }
            gc.collect()  # which stops the loop, and so comes last
            self._window["resident"] = (resident() - self._resident) / self._jobs


def sockets() -> int:
    """Answer how many sockets this process has."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def cpu() -> float:
    """Answer how many seconds of the processor this process has taken."""
    taken = resource.getrusage(resource.RUSAGE_SELF)
    return taken.ru_utime + taken.ru_stime


def forget_peak() -> None:
    """Have the most memory of this process counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Answer the most memory that this process has had, in bytes; `getrusage` would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def resident() -> int:
    """Answer the memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def quantile(values: Iterable[float], part: float) -> float:
    """Answer the smallest value below which at least this part of them lies, or NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else NAN


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Answer the median of every number that all rounds have."""
    names = [name for name, figure in rounds[0].items() if isinstance(figure, int | float)]
    return {name: statistics.median(each[name] for each in rounds) for name in names if all(name in e for e in rounds)}


def head(*columns: str) -> None:
    """Print the head of a table."""
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)


def row(*cells: object) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def show(value: float, form: str, unit: str = "", *, per: float = 1.0) -> str:
    """Answer a figure with its unit, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value / per:{form}}{unit and ' ' + unit}"


def span(seconds: float) -> str:
    """Answer a time in the unit that suits it."""
    if seconds < 1e-3:
        return show(seconds, ".0f" if seconds >= 1e-5 else ".2f", "µs", per=1e-6)
    return show(seconds, ".3g", "ms", per=1e-3) if seconds < 1 else show(seconds, ".2f", "s")


class Goal(NamedTuple):
    """
    A figure that was promised, and what it is.

    Attributes:
        figure: What is measured.
        peer: What it is compared with, in the same run.
        most: What it may be at the most.
        measured: What it is; NaN where it could not be measured.
        unit: Its unit; none for a ratio.
    """

    figure: str
    peer: str
    most: float
    measured: float
    unit: str = ""

    def cells(self) -> tuple[str, ...]:
        """Answer its line of the table."""
        verdict = (
            "not measured" if math.isnan(self.measured) else "met" if self.measured <= self.most else "**not met**"
        )
        unit = self.unit and " " + self.unit
        return self.figure, self.peer, f"≤ {self.most:g}{unit}", show(self.measured, ".4g", self.unit), verdict


GOAL_COLUMNS = ("figure", "peer", "goal", "measured", "")


def tell(goals: Sequence[Goal], path: str | None) -> None:
    """Append goals to the file in which the command that runs all scenarios collects them, or else print them."""
    if path is None and goals:
        head(*GOAL_COLUMNS)
        for goal in goals:
            row(*goal.cells())
    elif path is not None:
        with open(path, "a") as file:
            file.writelines(json.dumps(goal) + "\n" for goal in goals)


def told(path: str) -> list[Goal]:
    """Answer the goals that are in such a file."""
    return [Goal(*json.loads(line)) for line in Path(path).read_text().splitlines()]
