"""
How long `import o3pro_bg`, `o3pro-bg --help` and `o3pro-bg list` take beyond the interpreter's own start.

Run it with the interpreter of an environment in which the package is installed::

    python benchmarks/start_up.py

Each round times all commands, one after the other, so that a drift of the machine meets all alike; the table
shows medians, in milliseconds, of the difference to the bare interpreter in the same round. The list is of 100 jobs,
and the same of a file that is not there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measures import Goal, tell

from o3pro_bg import BackgroundHandler, Pace
from o3pro_bg.testing import FakeClient, FakeRemote

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import o3pro_bg": ["-c", "import o3pro_bg"],
    "o3pro-bg --help": ["-m", "o3pro_bg", "--help"],
    "o3pro-bg list": ["-m", "o3pro_bg", "list", "--store", "{store}"],
    "list, no file": ["-m", "o3pro_bg", "list", "--store", "{store}.none"],
    "make a handler": ["-c", "from o3pro_bg import *; BackgroundHandler(O3ProClient(O3ProConfig()))"],
    "import openai": ["-c", "import openai"],
}


def seconds(arguments: list[str]) -> float:
    """Time one run."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - begun


def with_jobs(path: str) -> None:
    """Make a file with a hundred jobs that have ended."""
    with BackgroundHandler(
        FakeClient(FakeRemote(seconds=0)), store=path, pace=Pace(floor=0.01, ceiling=0.01)
    ) as handler:
        for number in range(100):
            handler.start_background_task(f"Question number {number}?")
        handler.wait_all()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    count = 5 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as directory:
        store = str(Path(directory, "jobs.db"))
        with_jobs(store)
        commands = {name: [word.replace("{store}", store) for word in words] for name, words in COMMANDS.items()}
        for arguments in commands.values():
            seconds(arguments)  # warm the caches
        rounds = [{name: seconds(arguments) for name, arguments in commands.items()} for _ in range(count)]
    bare = "python -c pass"
    print(f"{bare}: {1000 * statistics.median(times[bare] for times in rounds):.0f} ms (median of {count})")
    medians: dict[str, float] = {}
    for name in COMMANDS:
        if name != bare:
            beyond = [1000 * (times[name] - times[bare]) for times in rounds]
            low, high = statistics.quantiles(beyond, n=10)[0], statistics.quantiles(beyond, n=10)[-1]
            medians[name] = statistics.median(beyond)
            print(f"{name:<18} + {medians[name]:6.1f} ms   (10 % to 90 %: {low:.1f} to {high:.1f})")
    promised = {"import o3pro_bg": 60.0, "o3pro-bg --help": 80.0, "o3pro-bg list": 80.0}
    goals = [Goal(name, "the bare interpreter", most, medians[name], "ms more") for name, most in promised.items()]
    tell(goals, options.goals)


if __name__ == "__main__":
    main()
