"""
How soon a process ends, in every way it can end, while the service hangs and a job is under way.

    python benchmarks/exits.py              # --rounds 5

The scripts are those of `tests/test_exits.py`; the time goes from the end of the script, or from the signal, to the end
of the process. The peer is a script that has imported the SDK, and has nothing to say farewell to.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measures import Goal, clock, head, row, show, tell

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from o3pro_bg.emulator import Emulator
from tests.test_exits import CASES, Ending, ended, hanging

BARE = "import openai, sys\nprint('running', flush=True)\nsys.stdin.readline()"


def of_ours(emulator: Emulator, script: str, ending: Ending, store: str) -> float:
    """Answer the seconds in which a script with a job under way ends."""
    with tempfile.TemporaryDirectory() as directory, hanging(emulator) as hang:
        found = ended(emulator, script, ending, Path(directory, "jobs.db") if store == "file" else None, hang)
    if found.code != ending.code:
        raise SystemExit(f"it ended with {found.code}: {found.errors}")
    return found.seconds


def of_peer() -> float:
    """Answer the seconds in which a script with nothing under way ends."""
    command = [sys.executable, "-c", BARE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        process.stdout.readline()
        begun = clock()
        process.communicate("\n")
        return clock() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    longest = 0.0
    peer = statistics.median(of_peer() for _ in range(rounds))
    head("how it ends", "median", "longest", "nothing under way")
    with Emulator("seconds=60 queued=0") as emulator:
        for case in CASES:
            script, ending, store = case.values
            times = [of_ours(emulator, str(script), ending, str(store)) for _ in range(rounds)]
            row(case.id, *(show(time, ".2f", "s") for time in (statistics.median(times), max(times), peer)))
            longest = max(longest, statistics.median(times))
    tell([Goal("the end of a process, service hangs, the longest median", "", 2.0, longest, "s")], options.goals)


if __name__ == "__main__":
    main()
