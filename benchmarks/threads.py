"""
A hundred threads that do everything with one handler, for a minute, and what should not be.

    python benchmarks/threads.py            # --threads 100 --seconds 60 --seed 0

The threads come at once to a handler that was never used, whose service is in memory. Each starts jobs, and polls
them, waits for them, cancels them, looks at all there are, and removes them, by chance. It is told what was done, and
each fault: an exception, a job that was lost, came back, went backwards or was seen by halves, another's answer, a
second loop, a job that was not called back once. Threads are switched as often as the interpreter can.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from measures import head, row

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.crowd import Crowd


def main() -> None:
    """Print what was done, and what should not be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="five seconds")
    options = parser.parse_args()
    sys.setswitchinterval(1e-5)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"CPython {sys.version.split()[0]}, {'with' if gil else 'without'} the GIL; {options.threads} threads")
    head("store", "seconds", "jobs", "polled", "waited for", "asked for", "cancelled", "looked at all", "faults")
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, dict[str, Any]] = {
            "memory": {},
            "file": {"store": Path(folder) / "jobs.db", "on_close": "cancel"},
        }
        for store, chosen in settings.items():
            begun = time.monotonic()
            crowd = Crowd(options.threads, 5.0 if options.quick else options.seconds, options.seed, **chosen)
            crowd.run()
            acts = [f"{crowd.done[act]:,}" for act in ("jobs", "_poll", "_wait", "_result", "_cancel", "_look_at_all")]
            row(store, f"{time.monotonic() - begun:.0f}", *acts, str(len(crowd.faults)))
            faults.update(crowd.faults)
    for fault, times in faults.most_common(20):
        print(f"{times} times: {fault}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
