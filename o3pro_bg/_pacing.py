"""When to look again, and when to try again. Pure: time and luck come in as arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from o3pro_bg._figures import is_figure

if TYPE_CHECKING:
    from o3pro_bg._durations import Durations

_USUAL_HAZARD: Final = 0.01  # ends per second of a job: where nothing is known, and what others are measured by


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """
    How long to wait between two looks at a job: `factor * sqrt(age)`, held between `floor` and `ceiling`.

    A young job is looked at often and an old one rarely, so that the end is noticed late by a small part of
    the job's own length. The specification's fixed figures are `Pace(floor=2, ceiling=5)` for short jobs and
    `Pace(floor=10, ceiling=30)` for long ones.

    Once 30 jobs of a deployment and effort have completed, the durations of the newest 400 are minded: at an age at
    which a part `h` of them ends within a second, the wait is `factor * sqrt(age * 0.01 / h)`, between the same
    bounds. For so many looks that is nearly the least lateness there can be: about 4 % of a job's length, where the
    bounds allow it. And no look comes before half of the shortest duration, or a minute where that is shorter: at that
    age alone a wait may be longer than `ceiling`.

    Attributes:
        factor: Seconds at an age of one second. Half of it is twice the looks, and half as late.
        floor: The shortest wait, in seconds.
        ceiling: The longest wait, in seconds, but for the first minute of a job, as is told above.
        jitter: The part by which a wait is lengthened at random, at the most (0.1 is 10 %), so that jobs that were
            started together are not looked at together.
        learns: Whether the durations of completed jobs are minded; without it, a wait depends on the age alone.

    Raises:
        ValueError: A figure is negative, not finite or none at all, `floor` is above `ceiling`, or `learns` no truth
            value.
    """

    factor: float = 0.6
    floor: float = 2.0
    ceiling: float = 15.0
    jitter: float = 0.1
    learns: bool = True

    def __post_init__(self) -> None:
        figures = (self.factor, self.floor, self.ceiling, self.jitter)
        if not all(map(is_figure, figures)) or not isinstance(self.learns, bool):
            raise ValueError("Pace takes finite figures that are not negative, and for learns True or False")
        if not 0 < self.floor <= self.ceiling or self.jitter >= 1:
            raise ValueError("Pace takes 0 < floor <= ceiling, and a jitter below 1")

    def delay(self, age: float, luck: float, *, hint: float | None = None, known: Durations | None = None) -> float:
        """
        Answer the seconds until the next look at a job of this age.

        Args:
            age: Seconds since the service accepted the job.
            luck: A random number from 0 up to 1.
            hint: What the service asked for, in seconds; it wins, between 0.05 seconds and ten minutes.
            known: How long jobs like this one took, if that is known.
        """
        if hint is not None:
            return min(max(hint, 0.05), 600.0)
        age = max(age, 0.0)
        hazard, quiet = (known.hazard(age), known.quiet) if known is not None and self.learns else (None, 0.0)
        wait = self.factor * math.sqrt(age * _USUAL_HAZARD / (hazard or _USUAL_HAZARD))
        wait = max(min(max(wait, self.floor), self.ceiling), quiet - age)
        return wait * (1 + self.jitter * luck)


def backoff(failures: int, luck: float, *, first: float = 1.0, ceiling: float = 60.0) -> float:
    """
    Answer the seconds to wait after so many failures in a row: doubling, between half and all of it.

    Args:
        failures: How many there were, the last one included (1 and more).
        luck: A random number from 0 up to 1.
        first: Seconds after the first failure.
        ceiling: The longest wait, in seconds.
    """
    return min(first * 2.0 ** min(failures - 1, 30), ceiling) * (0.5 + luck / 2)
