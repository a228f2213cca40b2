"""What is told of the durations of jobs: nothing from few, the hazard and the quiet start from many."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from o3pro_bg._durations import Durations, Habits
from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._states import JobStatus


def durations(*seconds: float) -> Durations:
    """Answer durations of which these are known."""
    known = Durations()
    for each in seconds:
        known.add(each)
    return known


def told(known: Durations, age: float) -> float:
    """Answer a hazard that has to be known."""
    hazard = known.hazard(age)
    assert hazard is not None
    return hazard


@pytest.mark.parametrize(("count", "is_told"), [(0, False), (29, False), (30, True)])
def test_few_durations_tell_nothing(count: int, is_told: bool) -> None:
    """From thirty durations on a hazard is told, and a quiet start; before that, neither."""
    known = durations(*[100.0] * count)
    assert (known.hazard(50) is not None, known.quiet > 0) == (is_told, is_told)


@pytest.mark.parametrize("age", [10.0, 60.0, 120.0])
def test_hazard_is_that_of_the_world(age: float) -> None:
    """Of jobs that end at random, once in a hundred seconds, a hundredth ends in each second, whatever their age."""
    luck = random.Random(1)
    hazards = [told(durations(*[luck.expovariate(0.01) for _ in range(400)]), age) for _ in range(50)]
    assert sum(hazards) / 50 == pytest.approx(0.01, rel=0.1)


def test_hazard_is_ends_by_watched_seconds() -> None:
    """The next twenty ends count, and the seconds for which all jobs that are left are watched until the last one."""
    known = durations(*[5.0] * 10, *[20.0] * 15, *[30.0] * 5, *[90.0] * 10)
    assert told(known, 10) == pytest.approx(20 / (15 * 10 + 5 * 20 + 10 * 20))
    assert told(known, 25) == pytest.approx(15 / (5 * 5 + 10 * 65))


def test_hazard_rises_towards_the_ends() -> None:
    """Where all jobs take from 50 to 60 seconds, an end is the likelier the nearer that is."""
    known = durations(*[50 + number / 10 for number in range(100)])
    hazards = [told(known, age) for age in (0, 40, 50, 55, 59)]
    assert hazards == sorted(hazards)


@pytest.mark.parametrize("age", [60.0, 61.0, math.inf])
def test_beyond_all_durations_nothing_is_told(age: float) -> None:
    """A job that has outlasted all that is known of has no hazard."""
    assert durations(*[60.0] * 30).hazard(age) is None


def test_hazard_stands_the_nearest_miss() -> None:
    """An age that a float can hardly tell from the next end has a hazard, and a high one."""
    assert told(durations(*[math.nextafter(1000.0, 1001)] * 30), 1000.0) > 1e6


def test_durations_that_are_far_too_long_change_little() -> None:
    """Jobs that ended while nobody looked for a week, a tenth of all, change the hazard of the others by a tenth."""
    usual = [100.0 + number for number in range(360)]
    mixed = told(durations(*usual, *[604_800.0] * 40), 250)
    assert mixed == pytest.approx(told(durations(*usual), 250), rel=0.2)


@pytest.mark.parametrize(("shortest", "quiet"), [(3.0, 1.5), (100.0, 50.0), (3600.0, 60.0)])
def test_quiet_is_half_of_the_shortest(shortest: float, quiet: float) -> None:
    """The quiet start lasts for half of the shortest duration, and for a minute at the most."""
    assert durations(shortest, *[shortest + 1] * 40).quiet == quiet


def test_old_durations_are_forgotten() -> None:
    """The newest 400 count, in whatever order they come: a service that has become slow is known to be slow."""
    luck = random.Random(1)
    fast, slow = ([luck.uniform(low, 2 * low) for _ in range(400)] for low in (10.0, 60.0))
    assert durations(*fast, *slow[:399]).quiet < 10
    known = durations(*fast, *slow)
    assert known.quiet == min(slow) / 2
    assert told(known, 0.0) == told(durations(*slow), 0.0)


def record(seconds: float = 60.0, **facts: Any) -> JobRecord:
    """Answer the record of a job that took so many seconds from when it was sent, which was 40 seconds after 1,000."""
    facts = {"status": JobStatus.COMPLETED, "sent_at": 1040.0, "ended": 40.0 + seconds, **facts}
    return JobRecord("job", facts.pop("request", JobRequest("question", "low", "o3-pro")), 1000.0, 0.0, **facts)


def test_habits_are_kept_apart() -> None:
    """Each deployment has durations of its own, and each effort, whatever else was asked for."""
    habits = Habits()
    low, high, other = (JobRequest("q", *key) for key in (("low", "o3-pro"), ("high", "o3-pro"), ("low", "other")))
    assert habits.of(low) is habits.of(JobRequest("another question", "low", "o3-pro", {"seed": 1}, 9.0))
    assert len({id(habits.of(request)) for request in (low, high, other)}) == 3


def test_habits_are_learned_from_records() -> None:
    """Completed jobs count, from when they were sent, the newest last."""
    habits, request = Habits(), JobRequest("question", "low", "o3-pro")
    habits.learn(record(500.0 - number) for number in range(450))
    assert habits.of(request).quiet == 101 / 2
    assert told(habits.of(request), 499.5) == pytest.approx(2.0)


def test_very_many_records_are_not_all_read() -> None:
    """Of the jobs of a large store, the newest 4,000 teach."""
    habits = Habits()
    rare, usual = (JobRequest("question", effort, "o3-pro") for effort in ("high", "low"))
    habits.learn([record(1.0, request=rare)] * 40 + [record(request=usual)] * 4000)
    assert (habits.of(rare).quiet, habits.of(usual).quiet) == (0.0, 30.0)


@pytest.mark.parametrize(
    "facts",
    [
        {"status": JobStatus.FAILED},
        {"status": JobStatus.CANCELLED},
        {"status": JobStatus.RUNNING, "ended": None},
        {"sent_at": None},
    ],
    ids=str,
)
def test_only_whole_lives_teach(facts: dict[str, Any]) -> None:
    """Jobs that failed, were cancelled, go on or were attached say nothing of how long such a job takes."""
    habits = Habits()
    habits.learn([record(**facts)] * 40)
    assert habits.of(record().request).quiet == 0.0
