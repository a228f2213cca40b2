"""
How soon a web server ends that has jobs under way, and that many are listening to.

    python benchmarks/web_shutdown.py              # --rounds 5 --streams 50 --jobs 100

The servers are those of `tests/test_web_servers.py`, in processes of their own with a store on disk; the time goes from
SIGTERM to the end of the process. Every stream has to end where an event does, and a request in flight is answered.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from measures import Goal, clock, head, row, show, tell

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from o3pro_bg.emulator import Emulator
from tests.peers import until
from tests.servers import serving
from tests.test_web_servers import HANGS, SERVERS, started

KEEPS = "[emulator seconds=600 queued=0]"


def seconds(emulator: Emulator, name: str, *, jobs: int, streams: int, hangs: bool) -> float:
    """Answer the seconds in which a server ends."""
    emulator.reset()
    command, code = SERVERS[name]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        place = Path(directory)
        server = stack.enter_context(serving(command, emulator, place, O3PRO_BG_TEST_STORE=str(place / "jobs.db")))
        with server.client() as client:
            started(client, *[KEEPS] * jobs)
            [hanging] = started(client, HANGS) if hangs else [""]
        open_streams = [server.client().events() for _ in range(streams)]
        cancel = server.client().slowly("POST", f"/jobs/api/jobs/{hanging}/cancel") if hangs else None
        until(lambda: emulator.counters()["cancels"] == hangs)
        begun = clock()
        server.terminate()
        if server.ended() != code:
            raise SystemExit(f"{name} ended otherwise: {server.said()}")
        took = clock() - begun
        if not all(stream.ended().endswith("\n\n") for stream in open_streams):
            raise SystemExit(f"{name} cut a stream off")
        if cancel is not None and "not confirmed" not in cancel.ended():
            raise SystemExit(f"{name} left a request without its answer")
        if emulator.counters()["cancels"] != hangs:
            raise SystemExit(f"{name} cancelled jobs")
    return took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--goals", help="a file to tell the goals to")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    jobs, streams = options.jobs, options.streams
    cases = [
        {"jobs": 0, "streams": 0, "hangs": False},
        {"jobs": jobs, "streams": 0, "hangs": False},
        {"jobs": jobs, "streams": streams, "hangs": False},
        {"jobs": jobs, "streams": streams, "hangs": True},
    ]
    longest = 0.0
    head("server", "no jobs", f"{jobs} jobs", f"and {streams} streams", "and a cancel that hangs", "longest of all")
    with Emulator() as emulator:
        for name in SERVERS:
            times = [[seconds(emulator, name, **case) for _ in range(rounds)] for case in cases]  # type: ignore[arg-type]
            medians = [statistics.median(found) for found in times]
            row(name, *(show(time, ".2f", "s") for time in (*medians, max(max(found) for found in times))))
            longest = max(longest, *medians)
    tell([Goal("the end of a web server under load, the longest median", "", 3.0, longest, "s")], options.goals)


if __name__ == "__main__":
    main()
