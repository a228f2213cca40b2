"""
How long jobs take, learned from those that have completed.

Jobs of one deployment and effort are alike. What is asked of their durations is the *hazard*: of the jobs that have
got to this age, how many end in the next second? Where many do, it pays to look soon, and where none does it does not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from o3pro_bg._states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from o3pro_bg._records import JobRecord, JobRequest

_MEMORY: Final = 400  # durations that are remembered: the newest, so that a service which changes is followed
_ENOUGH: Final = 30  # durations from which on something is told of them
_NEXT: Final = 20  # ends from which a hazard is estimated: fewer are luck, and more blur when they come
_READ: Final = 10 * _MEMORY  # records of former processes that are learned from: more would hold up the loop
_LONGEST_QUIET: Final = 60.0  # seconds after which a job is looked at: one that fails at once fits no experience


class Durations:
    """The newest durations of completed jobs of one kind."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Note how long a job took."""
        self._newest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._newest) > _MEMORY:
            del self._sorted[bisect_left(self._sorted, self._newest.popleft())]

    @property
    def quiet(self) -> float:
        """The age, in seconds, before which no look is worth while: half of the shortest duration, up to a minute."""
        return min(self._sorted[0] / 2, _LONGEST_QUIET) if self._is_enough else 0.0

    def hazard(self, age: float) -> float | None:
        """
        Answer which part of the jobs that have got to this age ends in a second.

        The next ends tell: they, by the seconds for which all jobs together have to be watched until the last of them.
        Durations that are far too long, as of a job that ended while nobody looked, hardly change that.

        Returns:
            Ends per second; None where too few jobs are known, or none of them has lasted for so long.
        """
        passed = bisect_right(self._sorted, age)
        ends = self._sorted[passed : passed + _NEXT]
        if not (ends and self._is_enough):
            return None
        outlast = len(self._sorted) - passed - len(ends)
        watched = sum(end - age for end in ends) + outlast * (ends[-1] - age)
        return len(ends) / watched

    @property
    def _is_enough(self) -> bool:
        return len(self._sorted) >= _ENOUGH


class Habits:
    """The durations of completed jobs, by deployment and effort."""

    def __init__(self) -> None:
        self._durations: defaultdict[tuple[str, str], Durations] = defaultdict(Durations)

    def of(self, request: JobRequest) -> Durations:
        """Answer the durations of jobs like this one; they grow as more are known."""
        return self._durations[request.deployment, request.effort]

    def learn(self, records: Iterable[JobRecord]) -> None:
        """Note how long the newest completed ones of these jobs took, as far as is known when they were sent."""
        completed = [(record.ended or 0.0, record) for record in records if record.status is JobStatus.COMPLETED]
        for ended, record in sorted(completed, key=lambda pair: pair[0])[-_READ:]:
            if (seconds := record.age(ended)) is not None:
                self.of(record.request).add(seconds)
