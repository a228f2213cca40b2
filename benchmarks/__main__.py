"""
Every benchmark, one after the other, and at the end which goals are met.

    python benchmarks                       # well over an hour; --quick for a first impression in ten minutes
    python benchmarks --only storm costs    # some of them

Run it where the package's `tests` are. Each scenario is a script of its own that can be run by itself; it runs in a
process of its own, and so do the service, and whoever is measured. Nothing reaches beyond this machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from measures import GOAL_COLUMNS, head, row, told

PLACE = Path(__file__).resolve().parent


class Scenario(NamedTuple):
    """
    A script.

    Attributes:
        title: What it is about.
        quick: What makes it quick.
        has_goals: Whether it tells goals.
    """

    title: str
    quick: str = "--quick"
    has_goals: bool = False


SCENARIOS = {
    "start_up": Scenario("Start-up", has_goals=True),
    "costs": Scenario("What the calls cost", has_goals=True),
    "many_jobs": Scenario("Many jobs at once", has_goals=True),
    "waiting": Scenario("Waiting", has_goals=True),
    "storm": Scenario("The storm of 429", has_goals=True),
    "durable_submits": Scenario("Durable submits"),
    "take_up": Scenario("Taking jobs up"),
    "take_over": Scenario("Taking jobs over", "--rounds 3"),
    "kills": Scenario("Kills", "--kills 20"),
    "machines": Scenario("Many machines"),
    "threads": Scenario("A hundred threads"),
    "traps": Scenario("Traps"),
    "web_shutdown": Scenario("How soon a web server ends", has_goals=True),
    "web_load": Scenario("Event streams of a web server", has_goals=True),
    "exits": Scenario("How soon a process ends", has_goals=True),
    "soak": Scenario("Soak", "--jobs 5000"),
    "seeds": Scenario("Seeds", "--seeds 2000 --traps 20"),
}


def machine() -> str:
    """Tell what all this runs on."""
    versions = [f"CPython {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in ("openai", "httpx2", "aiohttp"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.system()}, {', '.join(versions)}; load before: {load}"


def run(name: str, goals: str, *, is_quick: bool) -> bool:
    """Run a scenario, and tell whether it ended well."""
    scenario = SCENARIOS[name]
    print(f"\n## {scenario.title}\n", flush=True)
    command = [sys.executable, str(PLACE / f"{name}.py")]
    command += scenario.quick.split() if is_quick else []
    command += ["--goals", goals] if scenario.has_goals else []
    begun = time.perf_counter()
    is_well = subprocess.run(command, check=False, cwd=PLACE.parent).returncode == 0  # noqa: S603 - ours
    print(f"\n({'took' if is_well else 'FAILED after'} {time.perf_counter() - begun:.0f} s)", flush=True)
    return is_well


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python benchmarks")
    parser.add_argument("--quick", action="store_true", help="one round of a smaller kind of each")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.NamedTemporaryFile() as goals:
        failed = [name for name in options.only if not run(name, goals.name, is_quick=options.quick)]
        print("\n## Goals", flush=True)
        head(*GOAL_COLUMNS)
        for goal in told(goals.name):
            row(*goal.cells())
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
