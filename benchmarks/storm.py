"""
The storm of 429: more jobs at once than the service takes in several minutes.

    python benchmarks/storm.py              # --jobs 1000 --rpm 160 --rounds 3; six and a half minutes

The service is the emulator, which accepts so many creates in any 60 seconds, and tells whom it refuses when to come
back (`retry-after`). All competitors (see competitors.py) and all rounds run at the same time, each in a process of
its own against an emulator of its own: nearly all they do is wait. "aiohttp, 100 tries" is what is tried next by who
finds that the SDK gives up after two retries.

"Refused" is the share of the creates that were answered 429. "Of the allowance" is the shortest time in which the
service can accept as many creates as it did accept, over the time from the first accepted create to the last one: all
that fit at once, and as many more after each minute. It is 100 % for who sends just when the service lets it, and
about 96 % for who spreads 1,000 creates evenly over time. It is one of speed; who gives jobs up is fast with the rest.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from competitors import COMPETITORS, Task, measured
from measures import NAN, Goal, head, medians, row, show, span, tell

from o3pro_bg.emulator import Emulator

COLUMNS = (
    "who", "wall", "creates", "refused", "share refused", "of the allowance", "jobs without an answer", "because of",
    "paid twice", "submit p99", "delay p50", "p99",
)  # fmt: skip
MINUTE = 60.0
SECONDS = 2.0


def one(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Answer what a competitor met in a storm of its own."""
    with Emulator(f"seconds={SECONDS:g} queued=0 rpm={options.rpm}") as emulator:
        task = Task(emulator.endpoint, emulator.api_key, options.jobs, SECONDS, warm_up=0)
        figures = measured(emulator, name, task, options.patience)
    if figures is None:
        return None
    accepted = figures["creates"] - figures["refused"]
    shortest = (accepted - 1) // options.rpm * MINUTE
    figures["share refused"] = figures["refused"] / figures["creates"]
    figures["allowance"] = shortest / figures["accepting"] if shortest > 0 else NAN
    return figures


def line_of(name: str, found: list[dict[str, Any] | None]) -> tuple[str, ...]:
    """Answer a line of the table."""
    ended = [figures for figures in found if figures is not None]
    if len(ended) < len(found):
        return (name, "did not end", *["–"] * (len(COLUMNS) - 2))
    median = medians(ended)
    return (
        name,
        show(median["wall"], ".0f", "s"),
        f"{median['creates']:,.0f}",
        f"{median['refused']:,.0f}",
        show(median["share refused"], ".1%"),
        show(median["allowance"], ".0%"),
        f"{median['failures']:,.0f}",
        ", ".join(sorted({trouble for figures in ended for trouble in figures["troubles"]})) or "–",
        f"{median['paid twice']:g}",
        span(median["submit p99"]),
        show(median["delay p50"], ".2f", "s"),
        show(median["delay p99"], ".2f", "s"),
    )


def main() -> None:
    """Print the table."""
    names = ["httpx2", "aiohttp", "aiohttp, 100 tries", "ours"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rpm", type=int, default=160, help="creates that the service accepts in a minute")
    parser.add_argument("--rounds", type=int, default=3, help="all at the same time")
    parser.add_argument("--patience", type=float, default=1200.0, help="seconds after which a competitor is stopped")
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=names)
    parser.add_argument("--quick", action="store_true", help="one round of 250 jobs, 100 of them a minute")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.jobs, options.rpm = 1, 250, 100
    turns = [name for _ in range(options.rounds) for name in options.only]
    with ThreadPoolExecutor(len(turns)) as pool:
        found = list(pool.map(lambda name: one(name, options), turns))
    print(f"{options.jobs:,} jobs of {SECONDS:g} seconds at once, {options.rpm} creates a minute")
    head(*COLUMNS)
    rounds = {name: [each for turn, each in zip(turns, found, strict=True) if turn == name] for name in options.only}
    for name in options.only:
        row(*line_of(name, rounds[name]))
    shares = [each["share refused"] for each in rounds.get("ours", []) if each]
    if shares:
        refused = 100 * statistics.median(shares)
        tell([Goal(f"{options.jobs:,} jobs in a storm, creates refused", "", 2.0, refused, "%")], options.goals)


if __name__ == "__main__":
    main()
