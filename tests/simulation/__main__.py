"""Run seeds: `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import sys

from . import simulate


def main() -> int:
    """Run seeds, and print those that fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--store", choices=("memory", "disk"), help="where jobs are kept; else the seed says so")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.seeds):
        report = simulate(seed, is_durable=options.store and options.store == "disk")
        if options.trace:
            print(*report.trace, sep="\n")
        if report.failure or options.trace:
            print(report, flush=True)
        failed += bool(report.failure)
    print(f"{options.seeds} seeds, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
