"""The table of `doctor --live`, and what stands above it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from o3pro_bg._shown import columns, padded
from o3pro_bg.cli._doctor.checks import unknown
from o3pro_bg.cli._doctor.facts import FACTS, UNKNOWN, Row
from o3pro_bg.cli._doctor.machine import version_line
from o3pro_bg.cli._screen import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from o3pro_bg.cli._doctor.checks import Check
    from o3pro_bg.config import O3ProConfig

_HEAD: Final = Row("fact", "found", "evidence")


class Report(NamedTuple):
    """
    What `--live` found.

    Attributes:
        about: What was asked, in a line.
        rows: A row for each fact.
        deployment: Whether the deployment answers.
    """

    about: str
    rows: list[Row]
    deployment: Check


def not_asked(config: O3ProConfig, kind: str, why: str) -> Report:
    """Answer a report of which every row says why nothing was asked."""
    rows = [Row(fact, UNKNOWN, why) for fact in FACTS]
    return Report(about(config, kind, ""), rows, unknown("deployment", f"{config.deployment}: {why}"))


def put_report(report: Report) -> None:
    """Print the table, in Markdown, which is a table in a terminal too."""
    put("")
    put(report.about)
    put("")
    rows = [_HEAD, *(Row(*map(_cell, row)) for row in report.rows)]
    widths = [max(columns(row[place]) for row in rows) for place in range(3)]
    put(_line(rows[0], widths))
    put(_line(["-" * width for width in widths], widths))
    for row in rows[1:]:
        put(_line(row, widths))
    put("")


def about(config: O3ProConfig, kind: str, effort: str) -> str:
    """Answer what is asked, in a line that tells no address."""
    facts = [f"api-version {config.api_version or 'none'}", f"deployment {config.deployment}"]
    facts += [f"effort {effort}"] if effort else []
    return f"{version_line()}; {kind}; {', '.join(facts)}; {time.strftime('%Y-%m-%d', time.gmtime())}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(padded(cell, width) for cell, width in zip(cells, widths, strict=True)) + " |"
