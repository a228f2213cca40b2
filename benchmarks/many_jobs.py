"""
Many jobs at once: the library beside what people write today, and beside the floor of what Python can do.

    python benchmarks/many_jobs.py                     # --jobs 1 100 1000 10000 --rounds 3
    python benchmarks/many_jobs.py --only ours floor   # some of the competitors (see competitors.py)

The service is the emulator, in a process of its own, whose jobs take two seconds each; the first line shows what it
can serve. Each competitor runs in a process of its own, asks the same questions, looks every 2 seconds (ours: every 2
to 2.2), and is measured by itself. Who has not ended after `--patience` seconds is stopped, and counts as failed.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from competitors import COMPETITORS, Task, ceiling, measured
from measures import NAN, Goal, head, medians, row, show, span, tell

from o3pro_bg.emulator import Emulator

SECONDS = 2.0
WORLD = f"seconds={SECONDS:g} queued=0"
MOST = {"pool": 100}  # it does 32 jobs in 2 seconds, and so takes a minute for 1,000
NAMES = [name for name in COMPETITORS if "tries" not in name]
COLUMNS = (
    "jobs", "who", "wall", "to the floor", "CPU a job", "CPU a request", "memory a job", "submit p50", "p99",
    "looks a job", "delay p50", "p99", "loop stood", "failed", "paid twice", "threads", "sockets",
)  # fmt: skip


def in_rounds(emulator: Emulator, jobs: int, options: argparse.Namespace) -> dict[str, list[dict[str, Any] | None]]:
    """Answer what each competitor took, round by round; who did not end once is not asked again."""
    rounds: dict[str, list[dict[str, Any] | None]] = {name: [] for name in options.only}
    task = Task(emulator.endpoint, emulator.api_key, jobs, SECONDS)
    for _ in range(options.rounds):
        for name, found in rounds.items():
            if jobs <= MOST.get(name, jobs) and None not in found:
                found.append(measured(emulator, name, task, options.patience))
    return rounds


def ratio(rounds: dict[str, list[dict[str, Any] | None]], name: str, figure: str) -> float:
    """Answer the median of this competitor's figure over the floor's in the same round."""
    pairs = zip(rounds.get(name, []), rounds.get("floor", []), strict=False)
    ratios = [its[figure] / lowest[figure] for its, lowest in pairs if its and lowest]
    return statistics.median(ratios) if ratios else NAN


def line_of(jobs: int, name: str, rounds: dict[str, list[dict[str, Any] | None]]) -> tuple[str, ...]:
    """Answer a line of the table."""
    ended = [figures for figures in rounds[name] if figures is not None]
    if not ended or len(ended) < len(rounds[name]):
        said = "did not end" if rounds[name] else "not tried"
        return (f"{jobs:,}", name, said, *["–"] * (len(COLUMNS) - 3))
    median = medians(ended)
    return (
        f"{jobs:,}",
        name,
        show(median["wall"], ".2f", "s"),
        show(ratio(rounds, name, "wall"), ".1f"),
        show(median["cpu"], ".2f", "ms", per=jobs / 1000),
        show(median["CPU a request"], ".2f", "ms", per=1 / 1000),
        show(median["memory"], ".1f", "kB", per=1000 * jobs) if jobs >= 100 else "–",
        span(median["submit p50"]),
        span(median["submit p99"]),
        show(median["looks"], ".1f", per=jobs),
        show(median["delay p50"], ".2f", "s"),
        show(median["delay p99"], ".2f", "s"),
        show(median["stop"], ".0f", "ms", per=1 / 1000) if median["stop"] else "–",
        f"{median['failures']:g}",
        f"{median['paid twice']:g}",
        f"{median['threads']:g}",
        f"{median['sockets']:g}",
    )


def goals_of(jobs: int, rounds: dict[str, list[dict[str, Any] | None]]) -> list[Goal]:
    """Answer the goals that are about so many jobs."""
    most = {1000: 1.3, 10_000: 2.0}.get(jobs)
    return [] if most is None else [Goal(f"{jobs:,} jobs at once, wall", "floor", most, ratio(rounds, "ours", "wall"))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=150.0)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--quick", action="store_true", help="one round, at most 1,000 jobs")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.jobs = 1, [jobs for jobs in options.jobs if jobs <= 1000]
    goals: list[Goal] = []
    with Emulator(WORLD) as emulator:
        print(f"the emulator serves {ceiling(emulator):,.0f} creates a second")
        emulator.set_knobs(WORLD)
        head(*COLUMNS)
        for jobs in options.jobs:
            rounds = in_rounds(emulator, jobs, options)
            for name in options.only:
                row(*line_of(jobs, name, rounds))
            goals += goals_of(jobs, rounds)
    tell(goals, options.goals)


if __name__ == "__main__":
    main()
