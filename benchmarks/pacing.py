"""
When to look: what the pace costs, and how late it notices ends.

    python benchmarks/pacing.py            # --quick for a quarter of the jobs

A simulation, with the library's own `Pace` and `Durations`. In each of three worlds the lengths of jobs are log-normal,
and every schedule is given the same jobs. A learned pace is measured after so many jobs of the world have ended, which
it was shown as late as it noticed them itself; what is measured is the mean of eight such pasts. Lateness is the time
from the end of a job to the look that sees it.

The second table asks for the price of the same relative lateness: the fixed curve is scaled, bounds and all, until it
is as late as the learned pace, in one world or in the mean of all. Beside it stands the least that any schedule needs
for that, which is found by dynamic programming over the moments of looks, and knows the world by its formula.
"""

from __future__ import annotations

import argparse
import functools
import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, quantiles
from typing import TYPE_CHECKING

from o3pro_bg import Pace
from o3pro_bg._durations import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NORMAL = NormalDist()
JOBS = 4000
PASTS = 8
LEARNED_FROM = (30, 200, 500)
EVERY_5 = Pace(floor=5, ceiling=5, jitter=0, learns=False)
FIXED = Pace(learns=False)
LEARNED = Pace()
UNBOUNDED = Pace(floor=0.01, ceiling=1e6)
MOMENTS = 600  # of which the best schedule chooses those of its looks


@dataclass(frozen=True)
class World:
    """Jobs whose lengths are log-normal; figures in seconds."""

    name: str
    median: float
    p95: float

    @property
    def sigma(self) -> float:
        """The deviation of the logarithm."""
        return math.log(self.p95 / self.median) / NORMAL.inv_cdf(0.95)

    def jobs(self, count: int, seed: int) -> list[float]:
        """Answer the lengths of so many jobs."""
        luck = random.Random(f"{self.name} {seed}")
        return [self.median * math.exp(luck.gauss(0, self.sigma)) for _ in range(count)]


WORLDS = (World("20/90 s", 20, 90), World("3/15 min", 180, 900), World("10/40 min", 600, 2400))


@dataclass(frozen=True)
class Cost:
    """What a schedule costs: looks per job, mean lateness by length, and seconds of lateness of each job."""

    looks: float
    part: float
    lateness: tuple[float, ...] = ()

    @property
    def p95(self) -> float:
        """The lateness, in seconds, that one of twenty jobs exceeds."""
        return quantiles(self.lateness, n=20)[-1]


def together(costs: Sequence[Cost]) -> Cost:
    """Answer the mean of these costs."""
    lateness = tuple(each for cost in costs for each in cost.lateness)
    return Cost(fmean(cost.looks for cost in costs), fmean(cost.part for cost in costs), lateness)


def lived(pace: Pace, jobs: Sequence[float], luck: random.Random, known: Durations, *, learns: bool = False) -> Cost:
    """Answer what the looks at these jobs cost, one job after the other."""
    looks, lateness = 0, []
    for length in jobs:
        age = 0.0
        while age < length:
            age += pace.delay(age, luck.random(), known=known)
            looks += 1
        lateness.append(age - length)
        if learns:
            known.add(age)
    part = fmean(late / length for late, length in zip(lateness, jobs, strict=True))
    return Cost(looks / len(jobs), part, tuple(lateness))


def fixed(pace: Pace, jobs: Sequence[float]) -> Cost:
    """Answer what a schedule costs that knows nothing."""
    return lived(pace, jobs, random.Random(1), Durations())


def learned(pace: Pace, world: World, jobs: Sequence[float], past: int) -> Cost:
    """Answer what a schedule costs that has seen so many jobs end; each of eight pasts has its share of the jobs."""
    costs = []
    for number in range(PASTS):
        luck, known = random.Random(number), Durations()
        lived(pace, world.jobs(past, seed=1 + number), luck, known, learns=True)
        costs.append(lived(pace, jobs[number::PASTS], luck, known))
    return together(costs)


def met(part: float, cost_of: Callable[[float], Cost], low: float, high: float) -> Cost:
    """Answer the cost at the figure, between these two, at which it has this relative lateness, which grows with it."""
    for _ in range(11):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost_of(middle).part < part else (low, middle)
    return cost_of(math.sqrt(low * high))


def scaled(pace: Pace, scale: float) -> Pace:
    """Answer this pace with all of its waits so many times as long."""
    return replace(pace, factor=pace.factor * scale, floor=pace.floor * scale, ceiling=pace.ceiling * scale)


@functools.cache
def best(world: World, look: float) -> Cost:
    """Answer the cost of the best of all schedules, where one look is worth so much relative lateness."""
    scores = [8 * number / MOMENTS - 4 for number in range(MOMENTS + 1)]  # in deviations of the logarithm
    ages = [world.median * math.exp(world.sigma * score) for score in scores]
    ended = [NORMAL.cdf(score) for score in scores]
    per_length = math.exp(world.sigma**2 / 2) / world.median
    ended_by_length = [per_length * NORMAL.cdf(score + world.sigma) for score in scores]
    costs = [Cost(0, 0)] * len(scores)
    for last in reversed(range(MOMENTS)):
        least = math.inf
        for then in range(last + 1, MOMENTS + 1):
            part = ages[then] * (ended_by_length[then] - ended_by_length[last]) - (ended[then] - ended[last])
            cost = Cost(1 - ended[last] + costs[then].looks, part + costs[then].part)
            if (worth := cost.looks * look + cost.part) < least:
                least, costs[last] = worth, cost
            elif part > 2 * least:  # no later look can make up for that
                break
    return costs[0]


def product(world: World) -> float:
    """Answer the least product of looks and relative lateness, where looks are many (by Cauchy and Schwarz)."""
    scores = [number / 500 - 8 for number in range(8000)]
    roots = [math.sqrt(NORMAL.pdf(score) * (1 - NORMAL.cdf(score)) * world.sigma / 2) for score in scores]
    return (sum(roots) / 500) ** 2


def show_costs(name: str, costs: Sequence[Cost]) -> None:
    """Print a line of the first table."""
    cells = " | ".join(f"{cost.looks:.1f} | {100 * cost.part:.1f} % | {cost.p95:.1f} s" for cost in costs)
    print(f"| {name} | {cells} | {fmean(cost.looks for cost in costs):.1f} |", flush=True)


def show_same_lateness(name: str, worlds: Sequence[World], jobs: dict[World, list[float]], pace: Pace) -> None:
    """Print a line of the second table."""
    ours = together([learned(pace, world, jobs[world], LEARNED_FROM[-1]) for world in worlds])

    def curve(scale: float) -> Cost:
        return together([fixed(scaled(FIXED, scale), jobs[world]) for world in worlds])

    def least(look: float) -> Cost:
        return together([best(world, look) for world in worlds])

    same, ideal = met(ours.part, curve, 0.25, 4), met(ours.part, least, 1e-4, 1e-1)
    print(
        f"| {name} | {100 * ours.part:.1f} % | {ours.looks:.1f} | {same.looks:.1f} | {ideal.looks:.1f} "
        f"| **{ours.looks / same.looks:.2f}** | {ideal.looks / same.looks:.2f} |",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a quarter of the jobs")
    count = JOBS // 4 if parser.parse_args().quick else JOBS
    jobs = {world: world.jobs(count, seed=0) for world in WORLDS}
    print(f"| looks, lateness by length, p95 | {' | | | '.join(world.name for world in WORLDS)} | | | mean looks |")
    print(f"|{'---|' * 11}")
    show_costs("every 5 s", [fixed(EVERY_5, jobs[world]) for world in WORLDS])
    show_costs("the fixed curve", [fixed(FIXED, jobs[world]) for world in WORLDS])
    for past in LEARNED_FROM:
        show_costs(f"learned from {past}", [learned(LEARNED, world, jobs[world], past) for world in WORLDS])
    print("\n| the same lateness | of the length | looks, learned | fixed curve | least of all | ratio | least ratio |")
    print(f"|{'---|' * 7}")
    for bounds, pace in (("", LEARNED), (", without bounds", UNBOUNDED)):
        for world in WORLDS:
            show_same_lateness(world.name + bounds, [world], jobs, pace)
        show_same_lateness(f"all three{bounds}", WORLDS, jobs, pace)
    print("\nlooks x lateness, where looks are many:", *(f"{world.name}: {product(world):.3f}" for world in WORLDS))


if __name__ == "__main__":
    main()
