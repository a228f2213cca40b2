"""Pauses are what the formulas say: between two looks, and after failures."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from o3pro_bg._durations import Durations
from o3pro_bg._pacing import Pace, backoff

NONE = 0.0  # the luck that does not lengthen a wait


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(-5, 2.0), (0, 2.0), (11, 2.0), (25, 3.0), (100, 6.0), (400, 12.0), (625, 15.0), (1e9, 15.0)],
)
def test_pace_grows_with_the_root_of_the_age(age: float, seconds: float) -> None:
    """A young job is looked at every 2 s, an old one every 15 s, and in between by the root of its age."""
    assert Pace().delay(age, NONE) == pytest.approx(seconds)


@pytest.mark.parametrize(("luck", "part"), [(NONE, 1.0), (0.5, 1.05), (1.0, 1.1)])
def test_pace_spreads_looks_by_luck(luck: float, part: float) -> None:
    """Luck lengthens a wait by a tenth at the most: no look comes before its time."""
    assert Pace().delay(100, luck) == pytest.approx(6.0 * part)


@pytest.mark.parametrize(("floor", "ceiling"), [(2, 5), (10, 30)])
def test_pace_holds_the_specifications_figures(floor: float, ceiling: float) -> None:
    """The specification's ranges of 2–5 s and 10–30 s are one setting each."""
    pace = Pace(floor=floor, ceiling=ceiling, jitter=0)
    assert [pace.delay(0, NONE), pace.delay(1e9, NONE)] == [floor, ceiling]


def test_pace_may_be_quick() -> None:
    """A service on one's own machine may be looked at many times a second."""
    assert Pace(floor=0.01, ceiling=0.01, jitter=0).delay(100, NONE) == 0.01


@pytest.mark.parametrize(("hint", "seconds"), [(0.25, 0.25), (40.0, 40.0), (0.0, 0.05), (-1.0, 0.05), (86400.0, 600.0)])
def test_what_the_service_asks_for_wins(hint: float, seconds: float) -> None:
    """A hint of the service is the wait, beyond floor and ceiling and without luck, where it makes sense."""
    assert Pace().delay(100, 0.9, hint=hint) == seconds


def steady(every: float, shortest: float) -> Durations:
    """Answer durations of jobs which, from the shortest on, end one in so many seconds of each that is left."""
    known = Durations()
    for number in range(400):
        known.add(shortest - every * math.log(1 - (number + 0.5) / 400))
    return known


@pytest.mark.parametrize(("every", "seconds"), [(25, 3.0), (100, 6.0), (400, 12.0), (1600, 15.0), (4, 2.0)])
def test_learned_pace_is_that_of_the_hazard(every: float, seconds: float) -> None:
    """Where one of a hundred ends in a second, a learned wait is the fixed one; where fewer do, it is longer."""
    assert Pace().delay(100, NONE, known=steady(every, 100)) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.2])
def test_factor_scales_learned_waits_too(factor: float) -> None:
    """Half the factor is half the wait, learned or not."""
    known = steady(100, 100)
    seconds = [Pace(factor=factor).delay(100, NONE, known=durations) for durations in (None, known)]
    assert seconds == pytest.approx([10 * factor, 10 * factor], rel=0.05)


@pytest.mark.parametrize(("floor", "ceiling"), [(2, 5), (10, 30)])
def test_learned_waits_keep_to_the_specifications_figures(floor: float, ceiling: float) -> None:
    """Learned waits, too, are from 2 to 5 s, or from 10 to 30 s, where that is asked for."""
    pace = Pace(floor=floor, ceiling=ceiling, jitter=0)
    assert pace.delay(100, NONE, known=steady(1, 100)) == floor
    assert pace.delay(100, NONE, known=steady(1e6, 100)) == ceiling


@pytest.mark.parametrize(
    ("shortest", "age", "seconds"),
    [(80, -1, 40.0), (80, 0, 40.0), (80, 20, 20.0), (3600, 0, 60.0), (3600, 60, 15.0), (2, 0, 2.0)],
)
def test_no_look_in_the_first_moments(shortest: float, age: float, seconds: float) -> None:
    """No look comes before half of the shortest duration, even if that is beyond the ceiling, but within a minute."""
    assert Pace().delay(age, NONE, known=steady(100, shortest)) == pytest.approx(seconds, rel=0.02)


def test_beyond_all_durations_the_pace_is_fixed() -> None:
    """A job that has outlasted all that is known of is looked at as if nothing were."""
    assert Pace().delay(100, NONE, known=steady(1, 0.0)) == pytest.approx(6.0)


def test_learned_waits_are_spread_and_hints_win() -> None:
    """Luck lengthens a learned wait as any other, and a hint of the service is the wait."""
    known = steady(400, 0.0)
    plain, spread = (Pace().delay(100, luck, known=known) for luck in (NONE, 1.0))
    assert spread == pytest.approx(1.1 * plain)
    assert Pace().delay(0, 1.0, hint=0.25, known=steady(100, 80)) == 0.25


@pytest.mark.parametrize("age", [0, 10, 100, 1000])
def test_a_pace_need_not_learn(age: float) -> None:
    """With `learns=False` a wait depends on the age alone."""
    assert Pace(learns=False).delay(age, 0.5, known=steady(400, 50)) == Pace().delay(age, 0.5)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        *[({name: bad}, "finite") for name in ("factor", "floor", "ceiling", "jitter") for bad in (-1, math.nan)],
        ({"ceiling": math.inf}, "finite"),
        ({"floor": 0}, "0 < floor"),
        ({"floor": 16}, "floor <= ceiling"),
        ({"jitter": 1}, "jitter below 1"),
    ],
)
def test_pace_refuses_figures_without_sense(figures: dict[str, Any], words: str) -> None:
    """A Pace that would look without pause, never, or in the past cannot be made."""
    with pytest.raises(ValueError, match=words):
        Pace(**figures)


@pytest.mark.parametrize(
    ("failures", "low", "high"),
    [(1, 0.5, 1.0), (2, 1.0, 2.0), (3, 2.0, 4.0), (6, 16.0, 32.0), (7, 30.0, 60.0), (10_000, 30.0, 60.0)],
)
def test_backoff_doubles_up_to_a_minute(failures: int, low: float, high: float) -> None:
    """Each failure doubles the pause; luck takes up to half of it; it ends at the ceiling, however many there are."""
    assert [backoff(failures, 0), backoff(failures, 1)] == [low, high]


def test_backoff_takes_its_figures() -> None:
    """The first pause and the ceiling can be given."""
    assert [backoff(n, 1, first=3, ceiling=10) for n in (1, 2, 3)] == [3, 6, 10]


def test_pace_is_what_it_was_made() -> None:
    """A pace is made by names, and does not change."""
    with pytest.raises(TypeError):
        Pace(1.0)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pace().floor = 1.0  # type: ignore[misc]


def test_a_fast_pace_is_fast_from_the_start() -> None:
    """Where nothing is known of durations, no first wait is longer than the bounds."""
    assert Pace(floor=0.01, ceiling=0.02).delay(0.0, 0.0) == 0.01
