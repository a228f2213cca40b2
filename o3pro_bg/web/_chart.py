"""The chart: when the jobs of the last hours were started, how long they took, and what became of them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

from o3pro_bg._shown import duration
from o3pro_bg._states import JobStatus
from o3pro_bg.web._markup import Html, fill, join, phrase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sentences import Language
    from o3pro_bg.web._asked import Asked
    from o3pro_bg.web._desk import Desk

_SPANS: Final = (600, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)  # seconds that it may show
_LEVELS: Final = (1, 10, 60, 600, 3600, 36000, 360000)  # seconds at which a line may be drawn
_MOST: Final = 200  # jobs: more are hardly told apart, and each takes its time to draw
_TOP, _BOTTOM = 16.0, 124.0  # pixels
_LEFT, _RIGHT = 11.0, 98.0  # per cent of the width


def chart(desk: Desk, asked: Asked, records: Sequence[JobRecord]) -> Html:
    """Answer the chart of these jobs, the oldest first."""
    now = time.time()
    recent = [record for record in records[-_MOST:] if now - record.created_at < _SPANS[-1]]
    if not recent:
        return fill(asked.language, "quiet")
    ages = {record.job_id: max(now - record.created_at, 0.0) for record in recent}
    lasted = {record.job_id: desk.row(record, has_details=False)["elapsed_time"] for record in recent}
    span = next(span for span in _SPANS if span > max(ages.values()))
    highest = next((level for level in _LEVELS[2:] if level >= max(lasted.values())), _LEVELS[-1])
    said = _span(asked.language, span)
    return fill(
        asked.language,
        "chart",
        name=phrase(asked.language, "chart", span=said),
        lines=join([*_levels(asked.language, highest), *_hours(asked.language, span)]),
        dots=join(_dot(asked, record, ages[record.job_id] / span, lasted[record.job_id], highest) for record in recent),
        legend=join(_legend(asked.language, recent, lasted)),
    )


def _x(age: float) -> str:
    return f"{_RIGHT - age * (_RIGHT - _LEFT):.2f}"


def _y(seconds: float, highest: float) -> str:
    share = math.log(max(seconds, 1.0)) / math.log(highest)
    return f"{_BOTTOM - min(share, 1.0) * (_BOTTOM - _TOP):.1f}"


def _dot(asked: Asked, record: JobRecord, age: float, seconds: float, highest: float) -> Html:
    word = record.status.value
    text = f"{phrase(asked.language, f'status.{word}')}, {duration(seconds)}"
    link = asked.link(job=record.job_id)
    return fill(asked.language, "dot", link=link, text=text, word=word, x=_x(age), y=_y(seconds, highest))


def _levels(language: Language, highest: float) -> Iterator[Html]:
    for level in _LEVELS:
        if level <= highest:
            y = float(_y(level, highest))
            text = phrase(language, "minutes", count=level // 60) if 60 <= level < 3600 else f"{level} s"
            if level >= 3600:
                text = phrase(language, "hours", count=level // 3600)
            yield fill(language, "level", y=y, above=y - 3, text=text)


def _hours(language: Language, span: int) -> Iterator[Html]:
    for part, anchor in ((1.0, "start"), (0.5, "middle"), (0.0, "end")):
        text = phrase(language, "ago", span=_span(language, span * part)) if part else phrase(language, "now")
        yield fill(language, "hour", x=_x(part), anchor=anchor, text=text)


def _span(language: Language, seconds: float) -> str:
    if seconds < 3600:
        return phrase(language, "minutes", count=round(seconds / 60))
    return phrase(language, "hours", count=f"{seconds / 3600:g}")


def _legend(language: Language, recent: Sequence[JobRecord], lasted: dict[str, float]) -> Iterator[Html]:
    """Say in words what the picture shows: it is the picture, to who does not see it."""
    times = defaultdict(list)
    for record in recent:
        times[record.status].append(lasted[record.job_id])
    for status in JobStatus:
        if seconds := times[status]:
            typical = phrase(language, "median", time=duration(median(seconds)))
            longest = phrase(language, "longest", time=duration(max(seconds)))
            yield fill(
                language,
                "entry",
                word=status.value,
                status_said=phrase(language, f"status.{status.value}"),
                count=len(seconds),
                text=f"{typical}, {longest}" if len(seconds) > 1 else duration(seconds[0]),
            )
