"""
What it takes to wait: 10,000 jobs that last a minute each, and are looked at all the while.

    python benchmarks/waiting.py            # --jobs 10000 --seconds 60 --rounds 3 --peer-rounds 1

The service is the emulator, in a process of its own, and so is each competitor (see competitors.py). All look at the
same pace, which is ours by default: 2 seconds after the last look while a job is young, 4.6 at the age of a minute,
and up to a tenth more by chance. Who cannot keep this pace looks less often.

What is told of waiting is measured between two moments: when the last job was accepted, and a second before the first
one is done. So it is of looks alone. "Memory a job" is what the process's resident memory grew by since some jobs
were done to warm up, after a collection of garbage at the end of that time; it holds what is kept of a job, its task
and its waiter, about 0.3 kB of this benchmark's own notes, and no garbage. "Loop stood" is the longest time for which
the event loop stood still. Who took all of the minute to have its jobs accepted was never seen to wait, and has dashes;
its processor's time for a request is that of the whole run.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from competitors import COMPETITORS, Task, measured
from measures import NAN, Goal, head, medians, row, show, tell

from o3pro_bg.emulator import Emulator

COLUMNS = (
    "who", "wall", "CPU a look", "to the floor", "CPU a request", "memory a job", "looks a job", "all accepted in",
    "delay p50", "p99", "loop stood", "failed", "paid twice", "threads", "sockets",
)  # fmt: skip
SEEN = ("CPU a look", "stop as they wait", "resident")


def ratio(name: str, rounds: dict[str, list[dict[str, Any] | None]], figure: str) -> float:
    """Answer the median of a figure over the floor's."""
    its, lowest = ([each.get(figure, NAN) for each in rounds.get(who, []) if each] for who in (name, "floor"))
    return statistics.median(its) / statistics.median(lowest) if its and lowest else NAN


def line_of(name: str, rounds: dict[str, list[dict[str, Any] | None]], jobs: int) -> tuple[str, ...]:
    """Answer a line of the table."""
    ended = [figures for figures in rounds[name] if figures is not None]
    if not ended or len(ended) < len(rounds[name]):
        return (name, "did not end" if rounds[name] else "not tried", *["–"] * (len(COLUMNS) - 2))
    median = dict.fromkeys(SEEN, NAN) | medians(ended)
    return (
        name,
        show(median["wall"], ".1f", "s"),
        show(median["CPU a look"], ".3f", "ms", per=1 / 1000),
        show(ratio(name, rounds, "CPU a look"), ".1f"),
        show(median["CPU a request"], ".3f", "ms", per=1 / 1000),
        show(median["resident"], ".1f", "kB", per=1000),
        show(median["looks"], ".1f", per=jobs),
        show(median["accepting"], ".1f", "s"),
        show(median["delay p50"], ".2f", "s"),
        show(median["delay p99"], ".2f", "s"),
        show(median["stop as they wait"], ".0f", "ms", per=1 / 1000),
        f"{median['failures']:g}",
        f"{median['paid twice']:g}",
        f"{median['threads']:g}",
        f"{median['sockets']:g}",
    )


def goals_of(rounds: dict[str, list[dict[str, Any] | None]], jobs: int) -> list[Goal]:
    """Answer the goals that are about waiting."""
    seen = [figures["resident"] for figures in rounds.get("ours", []) if figures and "resident" in figures]
    memory = statistics.median(seen) / 1000 if seen else NAN
    return [
        Goal(f"{jobs:,} jobs waiting, CPU a look", "floor", 4.0, ratio("ours", rounds, "CPU a look")),
        Goal(f"{jobs:,} jobs waiting, memory a job", "", 8.0, memory, "kB"),
    ]


def main() -> None:
    """Print the table."""
    names = ["httpx2", "aiohttp", "ours", "ours, httpx2", "floor"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a job lasts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1, help="rounds of all but ours and the floor")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after which a competitor is stopped")
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=names)
    parser.add_argument("--quick", action="store_true", help="one round of 2,000 jobs of 15 seconds")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.jobs, options.seconds = 1, 2000, 15.0
    rounds: dict[str, list[dict[str, Any] | None]] = {name: [] for name in options.only}
    with Emulator(f"seconds={options.seconds:g} queued=0") as emulator:
        place = emulator.endpoint, emulator.api_key
        task = Task(*place, options.jobs, options.seconds, paced=True, warm_up=100, waiting=True)
        for number in range(options.rounds):
            for name, found in rounds.items():
                is_due = name in ("ours", "floor") or number < options.peer_rounds
                if is_due and None not in found:
                    found.append(measured(emulator, name, task, options.patience))
    print(f"{options.jobs:,} jobs of {options.seconds:g} seconds each")
    head(*COLUMNS)
    for name in options.only:
        row(*line_of(name, rounds, options.jobs))
    tell(goals_of(rounds, options.jobs), options.goals)


if __name__ == "__main__":
    main()
