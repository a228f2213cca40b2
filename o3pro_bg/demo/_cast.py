"""What both processes of the demo know: the questions, and how a handler is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace

if TYPE_CHECKING:
    from pathlib import Path


class Question(NamedTuple):
    """
    A question of the demo.

    Attributes:
        text: The question.
        effort: The reasoning effort.
        knobs: How the emulator shall treat it.
        status: How its job ends.
    """

    text: str
    effort: str
    knobs: str
    status: str = "completed"


QUESTIONS: Final = (
    Question("Is 2^61 - 1 a prime number?", "low", "seconds=2 queued=0 poll_after_ms=200"),
    Question("Which sorting algorithm suits 10 records?", "medium", "seconds=5 queued=0"),
    Question(
        "Prove that there are infinitely many primes.", "high", "seconds=3.5 queued=0 fault=429 retry_after_ms=1500"
    ),
    Question("Write a novel.", "high", "seconds=600 queued=0", "cancelled"),
)
ANSWERED: Final = 0
"""The job that ends in the first process."""

CANCELLED: Final = 3
"""The job that is cancelled there."""

HELD: Final = "poll_after_ms=60000"
"""
How the emulator is set while the first process lives, but for the first job.

It asks for the next look in a minute, which the library minds: so that process does not see the end of those that shall
outlive it, however slow the machine is.
"""

PATIENCE: Final = 60.0
"""Seconds in which each process has to do its part, which takes a few, however slow the machine is."""


GLANCE: Final = 0.02
"""Seconds between two times at which the statuses are asked for."""


class Astray(Exception):
    """Says why the demo did not go as it should."""


def handler_of(endpoint: str, api_key: str, path: str | Path) -> BackgroundHandler:
    """Answer a handler of the jobs in this file, whose service is the emulator."""
    config = O3ProConfig(endpoint=endpoint, api_key=api_key, deployment="o3-pro", api_version="v1", auth="key")
    pace = Pace(floor=0.25, ceiling=0.5)
    return BackgroundHandler(O3ProClient(config), store=path, pace=pace, language="en")
